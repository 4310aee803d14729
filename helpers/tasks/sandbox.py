"""Run model-written programs where they can do no harm.

Each answer gets new user, pid, mount, network and ipc namespaces (`unshare`) and an isolated
interpreter with an empty environment. It sees a root of its own that holds the standard library
read-only and a small private folder, has no capabilities, and can start no process (seccomp); time,
memory and file size are limited. The tests run in another process of the same namespaces, which
calls the answer's function over a pipe (helpers/tasks/sandbox_inside.py), so that an answer cannot
forge its verdict. When the first process of the pid namespace dies, everything in it does.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from helpers.common import track

# 3 s is the limit of Chen et al. 2021. Here it is processor time; waiting, on a busy machine for
# example, has a longer limit of its own.
CPU_S = 3
WALL_S = 12
MEMORY_MB = 512
FILE_MB = 4
INSIDE = Path(__file__).with_name("sandbox_inside.py")
UNSHARE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    "--net",
    "--mount",
    "--ipc",
)


READY = b"ready"  # what the sandbox says once it is closed, before it reads the program
NOT_STARTED = (
    "the sandbox for model-written code could not be started ({}); nothing was graded: close other "
    "programs and run the same again"
)
PAUSES_S = (0.2, 1.0)  # before the sandbox is tried again


class Program(NamedTuple):
    """Model-written code and what decides about it.

    `tests` call the function `entry`; `setup` is run before the code and before the tests. Without
    tests a program is right when it runs to its end: then the code itself decides, and can lie.
    """

    code: str
    entry: str = ""
    tests: str = ""
    setup: str = ""


@cache
def isolation():
    """The `unshare` command with which the sandbox closes on this system, or None."""
    found = shutil.which("unshare")
    if not found or platform.machine() not in ("x86_64", "aarch64"):
        return None
    prefix = (found, *UNSHARE[1:])  # by its path: the sandbox's own environment has none
    trial = Program("import hashlib, math, typing")
    for pause in (0.0, *PAUSES_S):  # others may be about to give back what was missing
        time.sleep(pause)
        try:
            closes, _ = _run(trial, prefix, cpu_s=5, wall_s=20)
        except RuntimeError:
            continue
        return prefix if closes else None
    return None


def possible():
    """Whether programs can be run here: in the sandbox, or because the user said so."""
    unsafe = os.environ.get("SP_UNSAFE_EXECUTE") == "1"
    return isolation() is not None or (unsafe and hasattr(os, "fork"))  # which Windows lacks


def execute(program, cpu_s=CPU_S, wall_s=WALL_S):
    """Run a Program (or bare code). Returns (ok, detail).

    ok: it passes its tests and then ends by itself.
    cpu_s, wall_s: whole seconds of processor time and of waiting.
    Errors: RuntimeError without namespaces, unless SP_UNSAFE_EXECUTE=1 says that limits alone will
    do; and where the system fails to start the sandbox: that says nothing about the program.
    """
    prefix = isolation()
    if not possible():
        raise RuntimeError(
            "model-written code cannot be isolated here (Linux with `unshare` and user namespaces "
            "is needed); set SP_UNSAFE_EXECUTE=1 to run it with limits on time, memory and files "
            "only"
        )
    if isinstance(program, str):
        program = Program(program)
    for pause in PAUSES_S:
        try:
            return _run(program, prefix or (), cpu_s, wall_s)
        except RuntimeError:
            time.sleep(pause)  # others may be about to give back what was missing
    return _run(program, prefix or (), cpu_s, wall_s)


def execute_many(programs, workers=None):
    """execute() for many, in parallel, under a progress bar.

    The order is kept; equal programs run once.
    """
    unique = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        outcomes = track(pool.map(execute, unique), "running programs", len(unique))
        outcome_of = dict(zip(unique, outcomes))
    return [outcome_of[program] for program in programs]


def _run(program, prefix, cpu_s, wall_s):
    """One sandbox from start to end; nothing of it is left afterwards.

    Errors: RuntimeError when it did not start, as the system had no room for it.
    """
    folder = tempfile.mkdtemp(prefix="answer-")
    isolated = int(bool(prefix))
    limits = (isolated, cpu_s, wall_s, MEMORY_MB, FILE_MB)
    try:
        child = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", str(INSIDE), *map(str, limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(NOT_STARTED.format(error)) from error
    job = json.dumps(program._asdict()).encode()
    try:
        output, errors = child.communicate(job, timeout=wall_s)
    except subprocess.TimeoutExpired:
        return False, f"stopped after {wall_s} s"
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            stream.close()
        shutil.rmtree(folder, ignore_errors=True)
    last_line = errors.decode(errors="replace").strip().split("\n")[-1]
    started, _, verdict = output.partition(b"\n")
    if started != READY:
        raise RuntimeError(NOT_STARTED.format(last_line or f"status {child.returncode}"))
    if not verdict:
        return False, last_line or f"ended with status {child.returncode}"
    verdict = json.loads(verdict)
    return verdict["ok"], verdict["detail"]
