"""Rivals in a process of their own, which stands still while somebody else races.

A rival that is only loaded can cost the others time: its threads may wait by turning in a loop, and
its runtime shares a process with theirs. With llama.cpp loaded beside them our forwards took twice
as long. So each rival program gets a process, with a pipe for questions and answers; it is stopped
by a signal (SIGSTOP) but for its own answers.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import torch

from helpers.make.race import Absent, Contestant

DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class Facts(NamedTuple):
    """What a rival has to know of a pair, without its weights."""

    name: str
    eos: tuple
    context: int
    small: bool
    device: torch.device


def facts_of(pair):
    """The Facts of a models.Pair."""
    return Facts(pair.name, tuple(pair.eos), pair.context, pair.small, pair.device)


def once_apart(act, *arguments):
    """act(*arguments) in a process of its own, with as many threads as this one has."""
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as process:
        return process.submit(act, *arguments).result()


_running = []  # every Apart whose process has not been closed


def close_all():
    """End the process of every Apart, whose memory is needed."""
    for apart in list(_running):
        apart.close()


class Apart:
    """Contestants made by `make()` in another process; `contestants` answer from there.

    make: a picklable function without arguments that returns a list of Contestant. What it raises
    is raised here. `close` ends the process.
    """

    def __init__(self, make):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (other, make, torch.get_num_threads())
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        other.close()
        _running.append(self)
        atexit.register(self.close)  # before multiprocessing's own end, which waits for it
        try:
            made = self._receive()
        except BaseException:
            self.close()
            raise
        self._stand_still(True)
        self.contestants = [
            Contestant(label, partial(self._answer, number), **options)
            for number, (label, options) in enumerate(made)
        ]

    def _answer(self, number, prompt, key, limit):
        """A Contestant's answer."""
        self._stand_still(False)
        try:
            self.pipe.send((number, prompt, key, limit))
            return self._receive()
        finally:
            self._stand_still(True)

    def _receive(self):
        """What the other process sends; an error that it sends is raised."""
        try:
            kind, value = self.pipe.recv()
        except EOFError:
            raise RuntimeError("the rival's process has ended; see what it printed above") from None
        if kind == "error":
            raise value
        return value

    def _stand_still(self, still):
        if hasattr(signal, "SIGSTOP") and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGSTOP if still else signal.SIGCONT)

    def close(self):
        """End the process. It may be called twice."""
        atexit.unregister(self.close)
        if self in _running:
            _running.remove(self)
        self._stand_still(False)
        self.process.kill()
        self.process.join()


def _serve(pipe, make, threads):
    """The other process: make the contestants, then answer until the pipe is closed."""
    if sys.platform == "linux":  # a process that stands still does not see that its parent is gone
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    torch.set_num_threads(threads)
    contestants = _sent(pipe, make)
    if contestants is None:
        return
    made = [(c.label, {"peer": c.peer, "samples": c.samples}) for c in contestants]
    pipe.send(("made", made))
    while True:
        try:
            number, prompt, key, limit = pipe.recv()
        except EOFError:
            return
        answer = _sent(pipe, partial(contestants[number].answer, prompt, key, limit))
        if answer is not None:
            pipe.send(("answer", answer))


def _sent(pipe, act):
    """act(); None where it failed and its error was sent instead, as one that can be read there."""
    try:
        return act()
    except Absent as reason:
        pipe.send(("error", Absent(str(reason))))
    except Exception as error:
        pipe.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))
    return None
