"""Run model-written programs where they can do no harm.

Each program gets its own process in new user, pid, mount and network namespaces (`unshare`), an isolated
interpreter, an empty environment, a read-only file system but for a small private folder, no capabilities,
no way to start a process (seccomp), and limits on time, memory and file size. The verdict is a random word
written after the tests to a pipe whose number the program is not told; when the first process of the pid namespace is killed, everything that it started dies with it.
"""
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from helpers.progress import track

TIMEOUT_S, MEMORY_MB, FILE_MB = 4.0, 512, 4
CHILD = """
import ctypes, os, platform, resource, struct, sys
fd, word, isolated = int(sys.argv[1]), sys.argv[2], sys.argv[3] == '1'
sys.argv[:] = ['']
source = sys.stdin.read()
sys.stdin = open(os.devnull)
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result:
        os.write(2, b'the sandbox could not be closed: ' + os.strerror(ctypes.get_errno()).encode())
        os._exit(97)
if isolated:
    # every mount read-only (mount_setattr, recursive), then a small private folder to write in
    must(libc.mount(b'none', b'/', None, 0x44000, None))
    must(libc.syscall(442, -100, b'/', 0x8000, struct.pack('QQQQ', 1, 0, 0, 0), 32))
    must(libc.mount(b'tmpfs', os.getcwd().encode(), b'tmpfs', 6, b'size={size}m'))
    os.chdir(os.getcwd())
    # no new privileges, no capabilities left to undo any of this
    must(libc.prctl(28, 0x2f, 0, 0, 0))
    must(libc.prctl(38, 1, 0, 0, 0))
    must(libc.syscall({capset}, struct.pack('Ii', 0x20080522, 0), bytes(24)))
    # threads yes, processes no: clone without CLONE_THREAD, fork and vfork fail; clone3 is unknown, so libc asks clone
    allow, refuse, unknown = 0x7fff0000, 0x50001, 0x50026
    step = [(0x20, 0, 0, 0), (0x15, 6, 0, 435), (0x15, 4, 0, {fork}), (0x15, 3, 0, {vfork}), (0x15, 0, 4, {clone}),
            (0x20, 0, 0, 16), (0x45, 2, 0, 0x10000), (6, 0, 0, refuse), (6, 0, 0, unknown), (6, 0, 0, allow)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *s) for s in step))
    must(libc.prctl(22, 2, struct.pack('HxxxxxxQ', len(step), ctypes.addressof(code)), 0, 0))
for what, limit in (('CPU', {cpu}), ('AS', {memory} << 20), ('FSIZE', {size} << 20), ('NOFILE', 32), ('CORE', 0)):
    resource.setrlimit(getattr(resource, 'RLIMIT_' + what), (limit, limit))
def passed(fd=fd, word=word, write=os.write, leave=os._exit):
    write(fd, word.encode())
    leave(0)
del fd, word, libc, must, resource
exec(compile(source, 'answer', 'exec'), {{'__name__': '__main__'}})
passed()
"""
# system call numbers; fork and vfork do not exist on Arm (clone's number stands in)
CALLS = {"x86_64": {"capset": 126, "clone": 56, "fork": 57, "vfork": 58},
         "aarch64": {"capset": 91, "clone": 220, "fork": 1079, "vfork": 1079}}


@cache
def isolation():
    """The `unshare` command prefix with which the sandbox closes on this system, or None."""
    prefix = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--mount",
              "--ipc")
    if not shutil.which("unshare") or platform.machine() not in CALLS:
        return None
    return prefix if _run("pass", prefix, 20.0)[0] else None


def execute(program, timeout_s=TIMEOUT_S):
    """Run a program with its tests. Returns (ok, detail): ok only if it ran to its end without an exception.

    Refuses to run without namespaces unless SP_UNSAFE_EXECUTE=1 says that limits alone will do.
    """
    prefix = isolation()
    if prefix is None and os.environ.get("SP_UNSAFE_EXECUTE") != "1":
        raise RuntimeError("model-written code cannot be isolated here (Linux with `unshare` and user namespaces is needed); "
                           "set SP_UNSAFE_EXECUTE=1 to run it with limits on time, memory and files only")
    return _run(program, prefix or (), timeout_s)


def _run(program, prefix, timeout_s):
    """One child process from start to end; nothing of it is left afterwards."""
    word, folder = secrets.token_hex(16), tempfile.mkdtemp(prefix="answer-")
    code = CHILD.format(cpu=int(timeout_s) + 1, memory=MEMORY_MB, size=FILE_MB,
                        **CALLS.get(platform.machine(), CALLS["x86_64"]))
    reader, writer = os.pipe()
    error = tempfile.TemporaryFile()        # a file, so that the limit on file size holds for it too
    child = subprocess.Popen([*prefix, sys.executable, "-I", "-S", "-c", code, str(writer), word, str(int(bool(prefix)))],
                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=error, cwd=folder, env={},
                             pass_fds=(writer,), start_new_session=True)
    os.close(writer)
    try:
        child.communicate(program.encode("utf-8", "replace"), timeout=timeout_s)
        detail = _tail(error) or f"exit {child.returncode}"
    except subprocess.TimeoutExpired:
        detail = f"stopped after {timeout_s:g} s"
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        error.close()
        shutil.rmtree(folder, ignore_errors=True)
    os.set_blocking(reader, False)
    try:
        ok = os.read(reader, 64).decode(errors="replace") == word
    except BlockingIOError:
        ok = False
    os.close(reader)
    return ok, "passed" if ok else detail


def _tail(file):
    """The last line of what was written to a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 300))
    return file.read().decode(errors="replace").strip().split("\n")[-1]


def execute_many(programs, workers=None):
    """execute() for many programs, in parallel; the same order comes back. Equal programs run once."""
    unique = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        verdicts = dict(zip(unique, track(pool.map(execute, unique), "running programs", len(unique))))
    return [verdicts[p] for p in programs]
