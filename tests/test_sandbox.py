"""Hostile programs: each is graded wrong within its limit, nothing is left, the parent lives."""

import math
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

from helpers import tasks
from helpers.tasks import grading, sandbox
from helpers.tasks.sandbox import Program

CPU_S = 1
WALL_S = 3
TESTS = "assert solve(1) == 2\nassert solve(20) == 21\n"

# name -> code. Each defines solve(n), which would give the right answer n + 1 if the attack were
# let through unnoticed, unless the attack is never to return.
HOSTILE = {
    "endless loop": """
def solve(n):
    while True: pass""",
    "endless loop before the tests": "while True: pass",
    "sleep": """
import time
def solve(n):
    time.sleep(10**6)""",
    "fork bomb": """
import os
def solve(n):
    while True: os.fork()""",
    "fork once": """
import os
def solve(n):
    if not os.fork(): os._exit(0)
    return n + 1""",
    "orphan that outlives its parent": """
import os, time
def solve(n):
    if not os.fork():
        os.setsid()
        if not os.fork(): time.sleep(10**6)
        os._exit(0)
    return n + 1""",
    "subprocess": """
import subprocess
def solve(n):
    subprocess.Popen(['sleep', '1000'])
    return n + 1""",
    "shell": """
import os
def solve(n):
    assert os.system('sleep 1000 &') == 0
    return n + 1""",
    "multiprocessing": """
import multiprocessing
def solve(n):
    with multiprocessing.Pool(2) as pool: return pool.map(abs, [n + 1])[0]""",
    "exec of a shell": """
import os
def solve(n):
    os.execv('/bin/sh', ['sh', '-c', 'sleep 1000'])""",
    "memory by list": """
def solve(n):
    kept = []
    while True: kept.append(bytes(10**7))""",
    "memory at once": """
def solve(n):
    return len(bytearray(10**10)) and n + 1""",
    "memory of segments": """
import ctypes
libc = ctypes.CDLL(None)
def solve(n):
    if libc.shmget(0, 10**8, 0o1600) < 0: raise MemoryError
    return n + 1""",
    "memory of nameless files": """
import os
def solve(n):
    os.memfd_create('x')
    return n + 1""",
    "limits raised": """
import resource
def solve(n):
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    return n + 1""",
    "big file": """
def solve(n):
    with open('x', 'wb') as f:
        for _ in range(10**4): f.write(bytes(10**6))
    return n + 1""",
    "sparse file": """
def solve(n):
    with open('x', 'wb') as f: f.truncate(10**10)
    return n + 1""",
    "many files": """
def solve(n):
    for i in range(10**5): open(str(i), 'w').close()
    return n + 1""",
    "endless output": """
def solve(n):
    while True: print('x' * 10**6)""",
    "endless errors": """
import sys
def solve(n):
    while True: sys.stderr.write('x' * 10**6)""",
    "endless input": """
def solve(n):
    while True: input()""",
    "huge answer": """
def solve(n):
    return 'x' * 10**8""",
    "deep answer": """
def solve(n):
    out = []
    for _ in range(10**5): out = [out]
    return out""",
    "leaving before the tests": """
import os
os._exit(0)""",
    "leaving politely": """
import sys
sys.exit(0)""",
    "leaving inside the function": """
import os
def solve(n):
    os._exit(0)""",
    "raising what is no Exception": """
def solve(n):
    raise BaseException""",
    "equal to everything": """
class Yes:
    def __eq__(self, other): return True
def solve(n):
    return Yes()""",
    "a number equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
def solve(n):
    return Yes()""",
    "checker replaced": """
import builtins, sys
builtins.AssertionError = builtins.Exception = SystemExit
main = sys.modules['__main__']
for name in ('judge', 'ask', 'decode', 'must'): setattr(main, name, lambda *a, **k: 2)
sys.excepthook = lambda *a: None
def solve(n):
    return None""",
    "verdict forged on every descriptor": r"""
import os
def solve(n):
    for fd in range(64):
        try: os.write(fd, b'{"ok": true, "detail": "passed"}\n')
        except OSError: pass
    os._exit(0)""",
    "replies forged ahead": r"""
import gc, io
for thing in gc.get_objects():
    if isinstance(thing, io.BufferedWriter):
        thing.write(b'{"value": null}\n' * 9)
def solve(n):
    return None""",
    "tests read from the frames": """
import sys
def solve(n):
    frame = sys._getframe()
    while frame:
        if 'job' in frame.f_locals: return n + 1
        frame = frame.f_back
    raise LookupError""",
    "descriptors closed": """
import os
os.closerange(0, 64)
def solve(n):
    return n + 1""",
    "tester's memory": """
def solve(n):
    open('/proc/1/mem', 'rb').close()
    return n + 1""",
    "tester traced": """
import ctypes, os
def solve(n):
    if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0): raise PermissionError
    return n + 1""",
    "tester killed": """
import os
def solve(n):
    os.kill(os.getppid(), 2)
    return n + 1""",
    "everything killed": """
import os
def solve(n):
    os.kill(-1, 9)
    os.kill(os.getpid(), 9)""",
    "signals ignored": """
import shutil
import signal
def solve(n):
    for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(s, signal.SIG_IGN)
    while True: signal.pause()""",
    "stopped": """
import os
def solve(n):
    os.kill(os.getpid(), 19)""",
    "deep recursion": """
import sys
sys.setrecursionlimit(10**9)
def solve(n):
    return solve(n + 1)""",
    "crash": """
import ctypes
def solve(n):
    ctypes.string_at(0)""",
    "thread that never ends": """
import threading, time
threading.Thread(target=time.sleep, args=(10**6,)).start()
def solve(n):
    return n + 1""",
    "threads without number": """
import threading, time
def solve(n):
    while True: threading.Thread(target=time.sleep, args=(10**6,)).start()""",
    "never ending at exit": """
import atexit, time
atexit.register(time.sleep, 10**6)
def solve(n):
    return n + 1""",
    "environment": """
import os
def solve(n):
    return n + 1 if os.environ['SP_SECRET'] else 0""",
    "a file of the user": """
def solve(n):
    return n + 1 if open('{marker}/secret').read() else 0""",
    "written outside": """
def solve(n):
    open('{marker}/left', 'w').close()
    return n + 1""",
    "written to home": """
import os
def solve(n):
    open('{home}/sp-entropy-left', 'w').close()
    return n + 1""",
    "written to /tmp": """
def solve(n):
    open('/tmp/sp-entropy-left', 'w').close()
    return n + 1""",
    "written to /dev/shm": """
def solve(n):
    open('/dev/shm/sp-entropy-left', 'w').close()
    return n + 1""",
    "written to the library": """
import os
def solve(n):
    open(os.__file__, 'a').close()
    return n + 1""",
    "deleted outside": """
import os
def solve(n):
    os.remove('{marker}/secret')
    return n + 1""",
    "device": """
import os
def solve(n):
    os.mknod('d', 0o60600, os.makedev(254, 0))
    return n + 1""",
    "network": """
import socket
def solve(n):
    socket.create_connection(('127.0.0.1', {port}), 1)
    return n + 1""",
    "named socket": """
import socket
def solve(n):
    socket.socket(socket.AF_UNIX).connect('{marker}/socket')
    return n + 1""",
    "out of the root": """
import os
def solve(n):
    os.chroot('../../../../..')
    return n + 1""",
    "new namespace": """
import ctypes
def solve(n):
    if ctypes.CDLL(None).unshare(0x10000000): raise PermissionError
    return n + 1""",
    "mount": """
import ctypes
def solve(n):
    if ctypes.CDLL(None).mount(b'none', b'/work', b'tmpfs', 0, None): raise PermissionError
    return n + 1""",
    "message queue": """
import ctypes
def solve(n):
    if ctypes.CDLL(None, use_errno=True).mq_open(b'/q', 0o102, 0o600, 0) < 0: raise PermissionError
    return n + 1""",
    "tester interrupted": """
import os, threading
def interrupt():
    while True: os.kill(os.getppid(), 2)
threading.Thread(target=interrupt, daemon=True).start()
def solve(n):
    return None""",
    "a reply of no known kind": r"""
import gc, io
def solve(n):
    pipe, = [t for t in gc.get_objects() if isinstance(t, io.BufferedWriter)]
    pipe.write(b'{"value": ["__import__", "os"]}\n' * 3 + b'[' * 10**6)
    return n""",
    "clone3 called by number": """
import ctypes
def solve(n):
    if ctypes.CDLL(None).syscall(435, bytes(88), 88) < 0: raise PermissionError
    return n + 1""",
}
# int 0x80 asks by the 32-bit table, where fork has another number
X86_64 = {
    "fork by the 32-bit table": r"""
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(b'\xb8\x02\x00\x00\x00\xcd\x80\xc3')
def solve(n):
    child = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return n + 1 if child >= 0 else None"""
}

GOOD = {
    "plain": """
def solve(n):
    return n + 1""",
    "prints and reads the clock": """
import time
def solve(n):
    print(time.time())
    return n + 1""",
    "writes in its own folder": """
def solve(n):
    open('x', 'w').write('1')
    return n + int(open('x').read())""",
    "uses a thread": """
from concurrent.futures import ThreadPoolExecutor
def solve(n):
    with ThreadPoolExecutor(2) as pool: return pool.submit(lambda: n + 1).result()""",
    "remembers between calls": """
calls = []
def solve(n):
    calls.append(n)
    return n + len(calls) - len(calls[1:])""",
    "future import": """
from __future__ import annotations
import re, math, collections
def solve(n: int) -> int:
    return n + 1""",
    "catches what it may not do": """
import os
def solve(n):
    try: os.fork()
    except OSError: return n + 1""",
    "returns a number equal to 2": """
def solve(n):
    return float(n + 1)""",
}
VALUES = [
    "None",
    "True",
    "-3",
    "2.5",
    "float('inf')",
    "1e-300",
    "3 + 4j",
    "'é\\n\\ud800'",
    "b'\\xff'",
    "[]",
    "(1,)",
    "((1, [2]), {3})",
    "frozenset({1, 2})",
    "{'a': (1, 2), 3: None}",
    "__import__('collections').Counter('abca')",
    "10**40",
]


@pytest.fixture(scope="module")
def isolated():
    """The sandbox closes on this system."""
    if sandbox.isolation() is None:
        pytest.skip(
            "no isolation here (unshare with user namespaces is needed): "
            "model-written code is refused"
        )


@pytest.fixture(scope="module")
def around(isolated, tmp_path_factory):
    """What an attack could reach: a secret file, an environment variable, two listening sockets.

    Returns what takes the place of the words in braces in HOSTILE.
    """
    folder = tmp_path_factory.mktemp("around")
    (folder / "secret").write_text("secret")
    os.environ["SP_SECRET"] = "secret"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(str(folder / "socket"))
        named.listen()
        yield {
            "{marker}": str(folder),
            "{port}": str(server.getsockname()[1]),
            "{home}": str(Path.home()),
        }
    del os.environ["SP_SECRET"]


@pytest.fixture(scope="module")
def attacked(around, tmp_path_factory):
    """Every hostile program, run in a temporary folder of its own.

    Returns ({name: (ok, detail, seconds)}, the folder that held the sandboxes' folders).
    """
    attacks = dict(HOSTILE)
    if platform.machine() == "x86_64":
        attacks |= X86_64
    folder = tmp_path_factory.mktemp("sandboxes")

    def run(code):
        for word, value in around.items():
            code = code.replace(word, value)
        begin = time.monotonic()
        ok, detail = sandbox.execute(Program(code, "solve", TESTS), CPU_S, WALL_S)
        return ok, detail, time.monotonic() - begin

    usual = tempfile.tempdir
    tempfile.tempdir = str(folder)
    with ThreadPoolExecutor(4) as pool:  # more than cores, because many of them only wait
        results = dict(zip(attacks, pool.map(run, attacks.values())))
    tempfile.tempdir = usual
    return results, folder


# ---- hostile programs --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*HOSTILE, *X86_64])
def test_hostile_program_is_graded_wrong(attacked, name):
    if name in X86_64 and platform.machine() != "x86_64":
        pytest.skip("an attack on x86_64 only")
    results, _ = attacked
    ok, detail, seconds = results[name]
    assert not ok
    assert detail != "passed"
    # The limit, not a speed: a sandbox that is not stopped would stay for days.
    assert seconds < WALL_S + 10


def test_a_background_job_grades_the_same(isolated):
    """A shell starts those with interrupts ignored, which every child inherits."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    attack = Program(HOSTILE["tester killed"], "solve", TESTS)
    try:
        ok, _ = sandbox.execute(attack, CPU_S, WALL_S)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert not ok


class Process(NamedTuple):
    parent: int
    command: str
    folder: str


def processes():
    """All processes of this system that we may look into."""
    running = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (entry / "stat").read_text().rsplit(")", 1)[1]
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            folder = os.readlink(entry / "cwd")
        except (OSError, ValueError):
            continue  # it has ended, or is another user's
        running.append(Process(int(after_name.split()[1]), command, folder))
    return running


def test_nothing_is_left_behind(attacked, around):
    results, folder = attacked
    assert len(results) >= 25
    left = []
    for process in processes():
        own_child = process.parent == os.getpid() and "sandbox_inside" in process.command
        if own_child or str(folder) in process.folder:
            left.append(process)
    assert left == []
    assert list(folder.iterdir()) == []
    marker = Path(around["{marker}"])
    assert sorted(file.name for file in marker.iterdir()) == ["secret", "socket"]
    assert (marker / "secret").read_text() == "secret"
    for place in (Path.home(), Path("/tmp"), Path("/dev/shm")):
        assert not (place / "sp-entropy-left").exists()


# Why each of these fails: a sandbox that failed every program would pass the tests above.
REASONS = {
    "fork once": "Operation not permitted",
    "network": "Operation not permitted",
    "named socket": "Operation not permitted",
    "subprocess": "Operation not permitted",
    "exec of a shell": "Operation not permitted",
    "sleep": f"stopped after {WALL_S} s",
    "thread that never ends": f"stopped after {WALL_S} s",
    "never ending at exit": f"stopped after {WALL_S} s",
    "signals ignored": f"stopped after {WALL_S} s",
    "stopped": f"stopped after {WALL_S} s",
    "written outside": "FileNotFoundError",
    "written to /tmp": "FileNotFoundError",
    "written to /dev/shm": "FileNotFoundError",
    "a file of the user": "FileNotFoundError",
    "written to home": "FileNotFoundError|Read-only",
    "written to the library": "Read-only" if os.geteuid() == 0 else "Permission denied",
    "environment": "KeyError",
    "equal to everything": "AssertionError",
    "tests read from the frames": "LookupError",
    "memory at once": "MemoryError",
    "leaving before the tests": "the program ended before its tests did",
}


@pytest.mark.parametrize("name", REASONS)
def test_attacks_fail_for_the_right_reason(attacked, name):
    results, _ = attacked
    _, detail, _ = results[name]
    assert re.search(REASONS[name], detail)


def test_a_killed_parent_leaves_no_sandbox(isolated, tmp_path):
    """When the notebook's process is killed outright, the sandbox ends by its own clock."""
    code = (
        "import tempfile\n"
        "from helpers.tasks import sandbox\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "sandbox.execute('import time; time.sleep(1000)', 10, 10)"
    )

    def running():
        return any(str(tmp_path) in process.folder for process in processes())

    def wait_until(running_is, seconds):
        until = time.monotonic() + seconds
        while running() != running_is and time.monotonic() < until:
            time.sleep(0.02)

    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as child:
        wait_until(True, seconds=120)
        time.sleep(1)  # until the answer itself sleeps
        assert running()
        child.kill()
    wait_until(False, seconds=60)
    assert not running()


# ---- good programs -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_good_program_passes(isolated, name):
    assert sandbox.execute(Program(GOOD[name], "solve", TESTS)) == (True, "passed")


@pytest.mark.parametrize("value", VALUES)
def test_values_come_back_as_they_were(isolated, value):
    """What an answer returns, and what it is given, is rebuilt with its type.

    A subclass of a builtin, such as Counter, comes back as the builtin.
    """
    tests = (
        f"given = {value}\n"
        "returned = solve(given)\n"
        "expected = given if type(given).__module__ == 'builtins' else dict(given)\n"
        "assert returned == given\n"
        "assert repr(returned) == repr(expected)\n"
    )
    program = Program("def solve(v):\n    return v", "solve", tests)
    assert sandbox.execute(program) == (True, "passed")


def test_nan_and_mutated_arguments(isolated):
    tests = (
        "not_a_number, numbers = solve([3, 1])\n"
        "assert not_a_number != not_a_number\n"
        "assert numbers == [1, 3]\n"
    )
    code = "def solve(xs):\n    xs.sort()\n    return [float('nan'), xs]"
    assert sandbox.execute(Program(code, "solve", tests)) == (True, "passed")


def test_order_is_kept_and_equal_programs_agree(isolated):
    right = Program("def solve(n):\n    return n + 1", "solve", TESTS)
    wrong = Program("def solve(n):\n    return n", "solve", TESTS)
    outcomes = sandbox.execute_many([right, wrong, right])
    assert [ok for ok, _ in outcomes] == [True, False, True]


def test_refused_without_isolation_unless_told(monkeypatch):
    plain = Program(GOOD["plain"], "solve", TESTS)
    monkeypatch.setattr(sandbox, "isolation", lambda: None)
    monkeypatch.delenv("SP_UNSAFE_EXECUTE", raising=False)
    with pytest.raises(RuntimeError, match="cannot be isolated here .* SP_UNSAFE_EXECUTE=1"):
        sandbox.execute(plain)
    monkeypatch.setenv("SP_UNSAFE_EXECUTE", "1")
    assert sandbox.execute(plain) == (True, "passed")
    for name in ("endless loop", "leaving before the tests"):
        ok, _ = sandbox.execute(Program(HOSTILE[name], "solve", TESTS), CPU_S, WALL_S)
        assert not ok, name


FULL = "unshare: unshare failed: No space left on device"


def test_a_failure_of_the_system_is_no_wrong_answer(monkeypatch):
    """No more user namespaces: a right program is not graded wrong, it is not graded."""
    failing = ("sh", "-c", f"echo '{FULL}' >&2; exit 1")
    monkeypatch.setattr(sandbox, "isolation", lambda: failing)
    monkeypatch.setattr(sandbox, "PAUSES_S", (0, 0))
    right = Program(GOOD["plain"], "solve", TESTS)
    with pytest.raises(RuntimeError, match=f"could not be started .{FULL}.; nothing was graded"):
        sandbox.execute(right)
    with pytest.raises(RuntimeError, match="nothing was graded"):
        sandbox.execute_many([right, right])
    monkeypatch.setattr(sandbox, "isolation", lambda: ("/no/such/unshare",))
    with pytest.raises(RuntimeError, match="could not be started .*No such file"):
        sandbox.execute(right)


def test_a_passing_failure_of_the_system_is_tried_again(isolated, monkeypatch, tmp_path):
    gone = tmp_path / "failed-once"
    once = f'test -e {gone} && exec "$@"; touch {gone}; echo full >&2; exit 1'
    prefix = ("sh", "-c", once, "sh", *sandbox.UNSHARE)
    monkeypatch.setattr(sandbox, "isolation", lambda: prefix)
    monkeypatch.setattr(sandbox, "PAUSES_S", (0, 0))
    assert sandbox.execute(Program(GOOD["plain"], "solve", TESTS)) == (True, "passed")


def test_installed_packages_are_hidden(isolated):
    """Where the interpreter is the environment, one of them may hold a benchmark's solutions."""
    library = Path(os.__file__).parent
    folders = [library / "site-packages", *Path("/usr/lib").glob("python3*/dist-packages")]
    folders = [str(folder) for folder in folders if folder.is_dir() and any(folder.iterdir())]
    assert folders, "this test needs an interpreter with packages beside its library"
    code = (
        f"import os\ndef solve(n):\n    return [name for f in {folders} for name in os.listdir(f)]"
    )
    assert sandbox.execute(Program(code, "solve", "assert solve(1) == []")) == (True, "passed")
    there = "import os, sys\ndef solve(n):\n    return os.path.isfile(os.__file__)"
    assert sandbox.execute(Program(there, "solve", "assert solve(1)")) == (True, "passed")


def test_programs_that_nothing_may_run_have_no_score(monkeypatch):
    """Everything else is graded, and the rows can say why these are not."""
    monkeypatch.setattr(sandbox, "isolation", lambda: None)
    monkeypatch.delenv("SP_UNSAFE_EXECUTE", raising=False)
    tasks.scoring._say_ungraded.cache_clear()  # it is said once
    code = tasks.load("pocket-code", 1)[0]
    facts = tasks.load("pocket-facts", 1)[0]
    answers = [(code, code.reference["answer"]), (facts, facts.reference["answer"])]
    with pytest.warns(UserWarning, match="programs are not graded: .* SP_UNSAFE_EXECUTE=1 runs it"):
        program, fact = tasks.grade_many(answers)
    assert math.isnan(program.score) and program.detail == "no sandbox"
    assert fact.score == 1


def test_unshare_is_started_from_where_it_was_found(isolated, monkeypatch, tmp_path):
    found = tmp_path / "unshare"
    found.write_text(f'#!/bin/sh\nexec {shutil.which("unshare")} "$@"\n')
    found.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.isolation.__wrapped__()[0] == str(found)
    found.unlink()
    assert sandbox.isolation.__wrapped__() is None


def test_a_sandbox_that_could_not_start_is_tried_again(isolated, monkeypatch, tmp_path):
    """Namespaces that others hold for a moment must not leave all programs ungraded."""
    tried = tmp_path / "tried"
    found = tmp_path / "unshare"
    found.write_text(
        f"#!/bin/sh\n[ -e {tried} ] || {{ : > {tried}; exit 1; }}\n"
        f'exec {shutil.which("unshare")} "$@"\n'
    )
    found.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.isolation.__wrapped__()[0] == str(found)
    assert tried.exists()


# ---- answers to HumanEval and pocket-code ------------------------------------------------------

HUMANEVAL = {
    "prompt": '''from typing import List


def helper(n: int) -> int:
    return n + 1


def solve(n: int) -> int:
    """One more."""
''',
    "test": """def check(candidate):
    assert candidate(1) == 2
    assert helper(candidate(2)) == 4
""",
    "entry_point": "solve",
}
# How chat models write code, and whether it is right.
CHAT = {
    "fenced": (
        """Here it is:
```python
def solve(n: int) -> int:
    return n + 1
```
It adds one.""",
        1,
    ),
    "no language": ("```\ndef solve(n):\n    return n + 1\n```", 1),
    "not closed": ("```python\ndef solve(n):\n    return n + 1", 1),
    "cut in the middle": ("```python\ndef solve(n):\n    return n +", 0),
    "several blocks": (
        """```python
print('usage')
```
and
```python
def solve(n):
    return n + 1
```
```
2
```""",
        1,
    ),
    "a second, different version": (
        """```python
def solve(n):
    return n + 1
```
or
```python
def solve(n):
    return 0
```""",
        0,  # the last one stands, as where it corrects the first
    ),
    "in a list": ("1. Do this:\n   ```python\n   def solve(n):\n       return n + 1\n   ```", 1),
    "uses the prompt's helper": ("```python\ndef solve(n):\n    return helper(n)\n```", 1),
    "uses the prompt's import": ("```python\ndef solve(n) -> List[int]:\n    return n + 1\n```", 1),
    "body only": ("    return n + 1\n", 1),
    "fenced body only": ("```python\n    return n + 1\n```", 1),
    "no fence": ("Sure! This works:\ndef solve(n):\n    return n + 1", 1),
    "another name": ("```python\ndef answer(n):\n    return n + 1\n```", 0),
    "wrong": ("```python\ndef solve(n):\n    return n - 1\n```", 0),
    "tests of its own that fail": (
        """```python
def solve(n):
    return n + 1
assert solve(1) == 3
```""",
        0,
    ),
    "empty": ("", 0),
    "refusal": ("I cannot write this function.", 0),
}


@pytest.mark.parametrize("name", CHAT)
def test_chat_answers_to_humaneval(isolated, name):
    text, right = CHAT[name]
    passed, detail = sandbox.execute(grading.humaneval(HUMANEVAL, text))
    assert passed == bool(right), detail


def test_humaneval_solutions(isolated, shared_datasets, monkeypatch):
    """Its authors' solutions pass, and empty ones do not."""
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    file = shared_datasets / "humaneval" / "HumanEval.jsonl.gz"
    rows = {f"humaneval-{row['task_id']}": row for _, row in tasks.read_jsonl(file)}
    numbers = ("0", "10", "32", "38", "50", "53", "99")
    problems = [
        problem for problem in tasks.load("humaneval") if problem.id.split("/")[1] in numbers
    ]
    solutions = []
    for problem in problems:
        row = rows[problem.id]
        solutions.append(f"```python\n{row['prompt']}{row['canonical_solution']}```")
    right = tasks.grade_many(list(zip(problems, solutions)))
    assert [grade.score for grade in right] == [1.0] * len(numbers)
    empty = tasks.grade_many([(problem, "    return None\n") for problem in problems])
    assert [grade.score for grade in empty] == [0.0] * len(numbers)


def test_pocket_code(isolated):
    problems = tasks.load("pocket-code", 4)
    right = tasks.grade_many([(problem, problem.reference["answer"]) for problem in problems])
    assert [grade.score for grade in right] == [1.0] * 4
    wrong = tasks.grade_many([(problem, "def f(x):\n    return 0") for problem in problems])
    assert [grade.score for grade in wrong] == [0.0] * 4
