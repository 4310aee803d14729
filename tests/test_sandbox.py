"""Hostile programs: each is graded wrong within its limit, nothing is left, the parent lives."""

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import tasks
from helpers.tasks import grading, sandbox
from helpers.tasks.sandbox import Program

CPU_S, WALL_S = 1, 3
TESTS = "assert solve(1) == 2\nassert solve(20) == 21\n"

# name -> code. Each defines solve(n), which would give the right answer n + 1 if the attack were let through
# unnoticed, unless the attack is never to return.
HOSTILE = {
    "endless loop": "def solve(n):\n    while True: pass",
    "endless loop before the tests": "while True: pass",
    "sleep": "import time\ndef solve(n):\n    time.sleep(10**6)",
    "fork bomb": "import os\ndef solve(n):\n    while True: os.fork()",
    "fork once": "import os\ndef solve(n):\n    if not os.fork(): os._exit(0)\n    return n + 1",
    "orphan that outlives its parent": """
import os, time
def solve(n):
    if not os.fork():
        os.setsid()
        if not os.fork(): time.sleep(10**6)
        os._exit(0)
    return n + 1""",
    "subprocess": "import subprocess\ndef solve(n):\n    subprocess.Popen(['sleep', '1000'])\n    return n + 1",
    "shell": "import os\ndef solve(n):\n    assert os.system('sleep 1000 &') == 0\n    return n + 1",
    "multiprocessing": """
import multiprocessing
def solve(n):
    with multiprocessing.Pool(2) as pool: return pool.map(abs, [n + 1])[0]""",
    "exec of a shell": "import os\ndef solve(n):\n    os.execv('/bin/sh', ['sh', '-c', 'sleep 1000'])",
    "memory by list": "def solve(n):\n    kept = []\n    while True: kept.append(bytes(10**7))",
    "memory at once": "def solve(n):\n    return len(bytearray(10**10)) and n + 1",
    "memory of segments": """
import ctypes
libc = ctypes.CDLL(None)
def solve(n):
    if libc.shmget(0, 10**8, 0o1600) < 0: raise MemoryError
    return n + 1""",
    "memory of nameless files": "import os\ndef solve(n):\n    os.memfd_create('x')\n    return n + 1",
    "limits raised": """
import resource
def solve(n):
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    return n + 1""",
    "big file": "def solve(n):\n    with open('x', 'wb') as f:\n        for _ in range(10**4): f.write(bytes(10**6))\n    return n + 1",
    "sparse file": "def solve(n):\n    with open('x', 'wb') as f: f.truncate(10**10)\n    return n + 1",
    "many files": "def solve(n):\n    for i in range(10**5): open(str(i), 'w').close()\n    return n + 1",
    "endless output": "def solve(n):\n    while True: print('x' * 10**6)",
    "endless errors": "import sys\ndef solve(n):\n    while True: sys.stderr.write('x' * 10**6)",
    "endless input": "def solve(n):\n    while True: input()",
    "huge answer": "def solve(n):\n    return 'x' * 10**8",
    "deep answer": "def solve(n):\n    out = []\n    for _ in range(10**5): out = [out]\n    return out",
    "leaving before the tests": "import os\nos._exit(0)",
    "leaving politely": "import sys\nsys.exit(0)",
    "leaving inside the function": "import os\ndef solve(n):\n    os._exit(0)",
    "raising what is no Exception": "def solve(n):\n    raise BaseException",
    "equal to everything": "class Yes:\n    def __eq__(self, other): return True\ndef solve(n):\n    return Yes()",
    "a number equal to everything": "class Yes(int):\n    def __eq__(self, other): return True\ndef solve(n):\n    return Yes()",
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
    "descriptors closed": "import os\nos.closerange(0, 64)\ndef solve(n):\n    return n + 1",
    "tester's memory": "def solve(n):\n    open('/proc/1/mem', 'rb').close()\n    return n + 1",
    "tester traced": """
import ctypes, os
def solve(n):
    if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0): raise PermissionError
    return n + 1""",
    "tester killed": "import os\ndef solve(n):\n    os.kill(os.getppid(), 2)\n    return n + 1",
    "everything killed": "import os\ndef solve(n):\n    os.kill(-1, 9)\n    os.kill(os.getpid(), 9)",
    "signals ignored": """
import signal
def solve(n):
    for s in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(s, signal.SIG_IGN)
    while True: signal.pause()""",
    "stopped": "import os\ndef solve(n):\n    os.kill(os.getpid(), 19)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef solve(n):\n    return solve(n + 1)",
    "crash": "import ctypes\ndef solve(n):\n    ctypes.string_at(0)",
    "thread that never ends": """
import threading, time
threading.Thread(target=time.sleep, args=(10**6,)).start()
def solve(n):
    return n + 1""",
    "threads without number": """
import threading, time
def solve(n):
    while True: threading.Thread(target=time.sleep, args=(10**6,)).start()""",
    "never ending at exit": "import atexit, time\natexit.register(time.sleep, 10**6)\ndef solve(n):\n    return n + 1",
    "environment": "import os\ndef solve(n):\n    return n + 1 if os.environ['SP_SECRET'] else 0",
    "a file of the user": "def solve(n):\n    return n + 1 if open('{marker}/secret').read() else 0",
    "written outside": "def solve(n):\n    open('{marker}/left', 'w').close()\n    return n + 1",
    "written to home": "import os\ndef solve(n):\n    open('{home}/sp-entropy-left', 'w').close()\n    return n + 1",
    "written to /tmp": "def solve(n):\n    open('/tmp/sp-entropy-left', 'w').close()\n    return n + 1",
    "written to /dev/shm": "def solve(n):\n    open('/dev/shm/sp-entropy-left', 'w').close()\n    return n + 1",
    "written to the library": "import os\ndef solve(n):\n    open(os.__file__, 'a').close()\n    return n + 1",
    "deleted outside": "import os\ndef solve(n):\n    os.remove('{marker}/secret')\n    return n + 1",
    "device": "import os\ndef solve(n):\n    os.mknod('d', 0o60600, os.makedev(254, 0))\n    return n + 1",
    "network": "import socket\ndef solve(n):\n    socket.create_connection(('127.0.0.1', {port}), 1)\n    return n + 1",
    "named socket": """
import socket
def solve(n):
    socket.socket(socket.AF_UNIX).connect('{marker}/socket')
    return n + 1""",
    "out of the root": "import os\ndef solve(n):\n    os.chroot('../../../../..')\n    return n + 1",
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
    "plain": "def solve(n):\n    return n + 1",
    "prints and reads the clock": "import time\ndef solve(n):\n    print(time.time())\n    return n + 1",
    "writes in its own folder": "def solve(n):\n    open('x', 'w').write('1')\n    return n + int(open('x').read())",
    "uses a thread": """
from concurrent.futures import ThreadPoolExecutor
def solve(n):
    with ThreadPoolExecutor(2) as pool: return pool.submit(lambda: n + 1).result()""",
    "remembers between calls": "made = []\ndef solve(n):\n    made.append(n)\n    return n + len(made) - len(made[1:])",
    "future import": "from __future__ import annotations\nimport re, math, collections\ndef solve(n: int) -> int:\n    return n + 1",
    "catches what it may not do": """
import os
def solve(n):
    try: os.fork()
    except OSError: return n + 1""",
    "returns a number equal to 2": "def solve(n):\n    return float(n + 1)",
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
            "no isolation here (unshare with user namespaces is needed): model-written code is refused"
        )


@pytest.fixture(scope="module")
def around(isolated, tmp_path_factory):
    """Everything that an attack could reach: a secret file, an environment variable, two listening sockets."""
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
    """Every hostile program, run two at a time in a temporary folder of its own: name -> (ok, detail, seconds)."""
    attacks = HOSTILE | (X86_64 if platform.machine() == "x86_64" else {})
    folder = tmp_path_factory.mktemp("sandboxes")
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)

    def run(code):
        for name, value in around.items():
            code = code.replace(name, value)
        begin = time.monotonic()
        ok, detail = sandbox.execute(Program(code, "solve", TESTS), CPU_S, WALL_S)
        return ok, detail, time.monotonic() - begin

    with ThreadPoolExecutor(4) as pool:  # many of them only wait
        results = dict(zip(attacks, pool.map(run, attacks.values())))
    tempfile.tempdir = usual
    return results, folder


@pytest.mark.parametrize("name", [*HOSTILE, *X86_64])
def test_hostile_program_is_graded_wrong(attacked, name):
    if name in X86_64 and platform.machine() != "x86_64":
        pytest.skip("an attack on x86_64 only")
    ok, detail, seconds = attacked[0][name]
    assert not ok and detail != "passed"
    assert (
        seconds < WALL_S + 10
    )  # the limit, not a speed: a sandbox that is not stopped would stay for days


def test_a_background_job_grades_the_same():
    """A shell starts those with interrupts ignored, which every child inherits."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert not sandbox.execute(
            Program(HOSTILE["tester killed"], "solve", TESTS), CPU_S, WALL_S
        )[0]
    finally:
        signal.signal(signal.SIGINT, usual)


def _children():
    """Commands of all processes that descend from this one, or were left by one that did."""
    known = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            known[int(entry.name)] = (
                parent,
                (entry / "cmdline").read_bytes().decode(errors="replace"),
                os.readlink(entry / "cwd"),
            )
        except (OSError, ValueError):
            continue
    return known


def test_nothing_is_left_behind(attacked, around):
    results, folder = attacked
    mine = [
        p
        for p in _children().values()
        if p[0] == os.getpid() and "sandbox_inside" in p[1] or str(folder) in p[2]
    ]
    assert mine == []
    assert list(folder.iterdir()) == []
    marker = Path(around["{marker}"])
    assert sorted(f.name for f in marker.iterdir()) == ["secret", "socket"]
    assert (marker / "secret").read_text() == "secret"
    for place in (Path.home(), Path("/tmp"), Path("/dev/shm")):
        assert not (place / "sp-entropy-left").exists()
    assert len(results) >= 25


def test_attacks_fail_for_the_right_reason(attacked):
    """A sandbox that failed every program would pass the test above: the reasons must be the attacks' own."""
    detail = {name: d for name, (_, d, _) in attacked[0].items()}
    for name in ("fork once", "network", "named socket", "subprocess", "exec of a shell"):
        assert "Operation not permitted" in detail[name], (name, detail[name])
    for name in (
        "sleep",
        "thread that never ends",
        "never ending at exit",
        "signals ignored",
        "stopped",
    ):
        assert detail[name] == f"stopped after {WALL_S} s", (name, detail[name])
    for name in ("written outside", "written to /tmp", "written to /dev/shm", "a file of the user"):
        assert "FileNotFoundError" in detail[name], (name, detail[name])
    assert (
        "FileNotFoundError" in detail["written to home"] or "Read-only" in detail["written to home"]
    )
    assert "KeyError" in detail["environment"]
    assert ("Read-only" if os.geteuid() == 0 else "Permission denied") in detail[
        "written to the library"
    ]
    assert "AssertionError" in detail["equal to everything"]
    assert "LookupError" in detail["tests read from the frames"]
    assert "MemoryError" in detail["memory at once"]
    assert detail["leaving before the tests"] == "the program ended before its tests did"


@pytest.mark.parametrize("name", GOOD)
def test_good_program_passes(isolated, name):
    assert sandbox.execute(Program(GOOD[name], "solve", TESTS)) == (True, "passed")


@pytest.mark.parametrize("value", VALUES)
def test_values_come_back_as_they_were(isolated, value):
    """What an answer returns, and what it is given, is rebuilt with its type."""
    tests = f"v = {value}\nr = solve(v)\nassert r == v and repr(r) == repr(v if type(v).__module__ == 'builtins' else dict(v))"
    assert sandbox.execute(Program("def solve(v):\n    return v", "solve", tests)) == (
        True,
        "passed",
    )


def test_nan_and_mutated_arguments(isolated):
    tests = "r = solve([3, 1])\nassert r[0] != r[0] and r[1] == [1, 3]"
    code = "def solve(xs):\n    xs.sort()\n    return [float('nan'), xs]"
    assert sandbox.execute(Program(code, "solve", tests))[0]


def test_order_is_kept_and_equal_programs_agree(isolated):
    codes = [
        "def solve(n):\n    return n + 1",
        "def solve(n):\n    return n",
        "def solve(n):\n    return n + 1",
    ]
    assert [ok for ok, _ in sandbox.execute_many([Program(c, "solve", TESTS) for c in codes])] == [
        True,
        False,
        True,
    ]


def test_refused_without_isolation_unless_told(monkeypatch):
    monkeypatch.setattr(sandbox, "isolation", lambda: None)
    monkeypatch.delenv("SP_UNSAFE_EXECUTE", raising=False)
    with pytest.raises(RuntimeError, match="cannot be isolated here .* SP_UNSAFE_EXECUTE=1"):
        sandbox.execute(Program(GOOD["plain"], "solve", TESTS))
    monkeypatch.setenv("SP_UNSAFE_EXECUTE", "1")
    assert sandbox.execute(Program(GOOD["plain"], "solve", TESTS)) == (True, "passed")
    assert not sandbox.execute(Program(HOSTILE["endless loop"], "solve", TESTS), CPU_S, WALL_S)[0]
    assert not sandbox.execute(
        Program(HOSTILE["leaving before the tests"], "solve", TESTS), CPU_S, WALL_S
    )[0]


def test_no_unshare_means_no_isolation(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert sandbox.isolation.__wrapped__() is None


def test_a_killed_parent_leaves_no_sandbox(isolated, tmp_path):
    """When the notebook's process is killed outright, the sandbox ends by its own clock."""
    code = (
        "import tempfile; from helpers.tasks import sandbox; tempfile.tempdir = {!r}; "
        "sandbox.execute('import time; time.sleep(1000)', 1, 1)"
    ).format(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parent.parent)),
    ) as child:
        until = time.monotonic() + 60
        while (
            not any(str(tmp_path) in p[2] for p in _children().values())
            and time.monotonic() < until
        ):
            time.sleep(0.02)
        time.sleep(1)  # until the answer itself sleeps
        assert any(str(tmp_path) in p[2] for p in _children().values())
        child.kill()
    until = time.monotonic() + 30
    while any(str(tmp_path) in p[2] for p in _children().values()) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(str(tmp_path) in p[2] for p in _children().values())


HUMANEVAL = {
    "prompt": "from typing import List\n\n\ndef helper(n: int) -> int:\n    return n + 1\n\n\ndef solve(n: int) -> int:\n"
    '    """One more."""\n',
    "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert helper(candidate(2)) == 4\n",
    "entry_point": "solve",
}
CHAT = {  # how chat models write code, and whether it is right
    "fenced": (
        "Here it is:\n```python\ndef solve(n: int) -> int:\n    return n + 1\n```\nIt adds one.",
        1,
    ),
    "no language": ("```\ndef solve(n):\n    return n + 1\n```", 1),
    "not closed": ("```python\ndef solve(n):\n    return n + 1", 1),
    "cut in the middle": ("```python\ndef solve(n):\n    return n +", 0),
    "several blocks": (
        "```python\nprint('usage')\n```\nand\n```python\ndef solve(n):\n    return n + 1\n```\n```\n2\n```",
        1,
    ),
    "a second, different version": (
        "```python\ndef solve(n):\n    return n + 1\n```\nor\n```python\ndef solve(n):\n    return 0\n```",
        1,
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
        "```python\ndef solve(n):\n    return n + 1\nassert solve(1) == 3\n```",
        0,
    ),
    "empty": ("", 0),
    "refusal": ("I cannot write this function.", 0),
}


def test_chat_answers_to_humaneval(isolated):
    verdicts = sandbox.execute_many(
        [grading.humaneval(HUMANEVAL, text) for text, _ in CHAT.values()]
    )
    assert {name: float(ok) for name, (ok, _) in zip(CHAT, verdicts)} == {
        name: right for name, (_, right) in CHAT.items()
    }


def test_humaneval_solutions(isolated, shared_datasets, monkeypatch):
    """Its authors' solutions pass, empty ones do not, and an answer does not see its tests."""
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    rows = {
        f"humaneval-{row['task_id']}": row
        for _, row in tasks.read_jsonl(shared_datasets / "humaneval" / "HumanEval.jsonl.gz")
    }
    problems = [
        p
        for p in tasks.load("humaneval")
        if p.id.split("/")[1] in ("0", "10", "32", "38", "50", "53", "99")
    ]
    right = [
        (p, f"```python\n{rows[p.id]['prompt']}{rows[p.id]['canonical_solution']}```")
        for p in problems
    ]
    assert [g.score for g in tasks.grade_many(right)] == [1.0] * 7
    assert [g.score for g in tasks.grade_many([(p, "    return None\n") for p in problems])] == [
        0.0
    ] * 7


def test_pocket_code(isolated):
    problems = tasks.load("pocket-code", 4)
    grades = tasks.grade_many(
        [(p, p.reference["answer"]) for p in problems]
        + [(p, "def f(x):\n    return 0") for p in problems]
    )
    assert [g.score for g in grades] == [1.0] * 4 + [0.0] * 4
