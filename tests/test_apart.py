"""Rivals in a process of their own: their answers, their errors, and that they stand still."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.make.apart import Apart, close_all, once_apart
from helpers.make.race import DRAFT, Absent, Contestant


def answer(prompt, key, limit):
    facts = {"process": os.getpid(), "threads": torch.get_num_threads()}
    return facts | {"n_tokens": len(prompt) + limit, "key": key}


def fails(prompt, key, limit):
    raise KeyError("no such token")


def ends(prompt, key, limit):
    os._exit(3)


def three():
    return [
        Contestant("answers", answer, peer=True, samples=DRAFT),
        Contestant("fails", fails, peer=True),
        Contestant("ends", ends),
    ]


def absent():
    raise Absent("its file is not there")


@pytest.fixture
def rivals():
    process = Apart(three)
    yield process
    process.close()


def state(process):
    """The letter that the kernel has for a process: T where it is stopped."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return status.split("State:")[1].split()[0]


def stands_still(process):
    deadline = time.time() + 20
    while state(process) != "T" and time.time() < deadline:
        time.sleep(0.01)
    return state(process) == "T"


def test_answers_come_from_another_process_with_as_many_threads(rivals):
    first, second, third = rivals.contestants
    assert (first.label, first.peer, first.samples) == ("answers", True, DRAFT)
    assert (third.label, third.peer) == ("ends", False)
    told = first.answer([1, 2, 3], (0, 7), 5)
    assert told["process"] == rivals.process.pid != os.getpid()
    assert told["threads"] == torch.get_num_threads()
    assert (told["n_tokens"], told["key"]) == (8, (0, 7))


@pytest.mark.skipif(sys.platform != "linux", reason="a process's state is read from /proc")
def test_a_rival_stands_still_but_for_its_own_answers(rivals):
    assert stands_still(rivals.process)
    rivals.contestants[0].answer([1], (0, 0), 1)
    assert stands_still(rivals.process)


def test_a_rival_that_fails_says_how_and_can_answer_again(rivals):
    with pytest.raises(RuntimeError, match="KeyError: 'no such token'"):
        rivals.contestants[1].answer([1], (0, 0), 1)
    assert rivals.contestants[0].answer([1], (0, 0), 1)["n_tokens"] == 2


def test_a_rival_whose_process_ends_is_told_in_a_sentence(rivals):
    with pytest.raises(RuntimeError, match="the rival's process has ended"):
        rivals.contestants[2].answer([1], (0, 0), 1)


def test_why_a_rival_is_absent_is_known_here_too():
    with pytest.raises(Absent, match="^its file is not there$"):
        Apart(absent)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
def test_a_process_that_stands_still_ends_when_it_is_closed():
    process = Apart(three)
    process.close()
    process.close()
    assert process.process.exitcode == -signal.SIGKILL


def test_all_processes_end_when_their_memory_is_needed():
    processes = [Apart(three), Apart(three)]
    close_all()
    assert not any(rival.process.is_alive() for rival in processes)
    processes[0].close()  # a second time, as at exit


def test_something_is_done_once_in_another_process():
    assert once_apart(os.getpid) != os.getpid()
    with pytest.raises(Absent):
        once_apart(absent)
