"""What runs inside the sandbox: one process holds the tests, another one the model-written code.

Started by helpers/tasks/sandbox.py as `python -I -S sandbox_inside.py ISOLATED CPU_S WALL_S MEMORY_MB FILE_MB`.
The tester forks the answerer before it reads the tests, so the answerer's memory never holds them; from then
on the two speak over pipes in plain data. The tester calls the answer's function by proxy, and what comes back
is rebuilt from JSON: an answer cannot reach the checker, the verdict, or an `assert`, only return values.
Standard input: JSON with `code`, `entry`, `setup`, `tests`. Standard output: JSON with `ok` and `detail`.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys

REPLY_BYTES = 1 << 22
PLAIN = (bool, int, float, str, type(None))
# what an answer may not ask the kernel for: processes, programs, other processes' memory, sockets, mounts,
# namespaces, memory that no limit counts. The numbers are those of x86_64 and of aarch64 (None: not there).
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "socket": (41, 198),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
# column of the table above, the kernel's name of the architecture, and the calls clone and capset
MACHINES = {"x86_64": (0, 0xC000003E, 56, 126), "aarch64": (1, 0xC00000B7, 220, 91)}
ERRNO, ALLOW, KILL = 0x50000, 0x7FFF0000, 0x80000000
libc = ctypes.CDLL(None, use_errno=True)


def must(result, what):
    """Leave at once when a step that closes the sandbox fails."""
    if result:
        raise OSError(
            f"the sandbox could not be closed ({what}: {os.strerror(ctypes.get_errno())})"
        )


def hide_files(file_mb):
    """A new root: the standard library and shared libraries read-only, a small private folder, no more."""
    root = os.getcwd()
    libraries = (*sys.path, sys.base_prefix + "/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64")
    needed = sorted({os.path.abspath(p) for p in libraries if os.path.isdir(p)})
    must(libc.mount(b"tmpfs", root.encode(), b"tmpfs", 6, b"size=1m"), "mount root")
    bound = []
    for path in needed:
        if not any(path.startswith(b + "/") for b in bound):
            os.makedirs(root + path)
            must(
                libc.mount(path.encode(), (root + path).encode(), None, 0x5000, None),
                "bind " + path,
            )
            bound.append(path)
    os.mkdir(root + "/work")
    read_only = struct.pack(
        "QQQQ", 7, 0, 0, 0
    )  # and no set-user-id, no devices; on every mount below
    must(libc.syscall(442, -100, root.encode(), 0x8000, read_only, 32), "mount_setattr")
    size = b"size=%dm,nr_inodes=1k" % file_mb
    must(libc.mount(b"tmpfs", (root + "/work").encode(), b"tmpfs", 6, size), "mount work")
    os.chroot(root)
    os.chdir("/work")


def drop_rights():
    """No capabilities and no way to new ones; other processes may not look into this one."""
    must(libc.prctl(28, 0x2F, 0, 0, 0), "securebits")
    must(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    must(
        libc.syscall(MACHINES[platform.machine()][3], struct.pack("Ii", 0x20080522, 0), bytes(24)),
        "capset",
    )
    must(libc.prctl(4, 0, 0, 0, 0), "dumpable")


def filter_calls():
    """seccomp: threads yes, processes no (clone needs CLONE_THREAD; clone3 is "unknown": libc then asks clone)."""
    column, arch, clone, _ = MACHINES[platform.machine()]
    refused = [numbers[column] for numbers in REFUSED.values() if numbers[column] is not None]
    n = len(refused)
    step = [
        (0x20, 0, 0, 4),
        (0x15, 1, 0, arch),
        (6, 0, 0, KILL),  # another architecture's calls
        (0x20, 0, 0, 0),
        (0x35, 0, 1, 0x40000000),
        (6, 0, 0, KILL),  # x32's calls
        (0x15, 0, 1, 435),
        (6, 0, 0, ERRNO | 38),
        (0x15, 0, 3, clone),
        (0x20, 0, 0, 16),
        (0x45, n + 1, 0, 0x10000),
        (6, 0, 0, ERRNO | 1),
        *((0x15, n - i, 0, number) for i, number in enumerate(refused)),
        (6, 0, 0, ALLOW),
        (6, 0, 0, ERRNO | 1),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *s) for s in step))
    must(
        libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(step), ctypes.addressof(code)), 0, 0),
        "seccomp",
    )


def encode(value):
    """A value as JSON data: plain as it is, containers as [tag, items], all else as an object equal to nothing."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", value.decode("latin-1")]
    if isinstance(value, dict):
        return ["dict", *([encode(k), encode(v)] for k, v in value.items())]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, *map(encode, value)]
    return ["object"]


def decode(data):
    """The value that encode() wrote."""
    if not isinstance(data, list):
        return data
    kind, *items = data
    if kind == "complex":
        return complex(*items)
    if kind == "bytes":
        return items[0].encode("latin-1")
    if kind == "dict":
        return {decode(k): decode(v) for k, v in items}
    if kind == "object":
        return object()
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](
        map(decode, items)
    )


class Wrong(Exception):
    """What the answer did, said as it is."""


def brief(error):
    """An exception in one short line."""
    said = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
    return said.split("\n")[0][:200]


def answer(asked, replies):
    """The answerer: define the code, then reply to calls until none comes. Runs the hostile code."""
    first = json.loads(asked.readline())
    module = type(sys)(
        "answer"
    )  # not __main__: what stands under `if __name__ == "__main__"` is no part of it
    sys.modules["answer"], scope = module, module.__dict__
    try:
        for part in ("setup", "code"):
            exec(compile(first[part], part, "exec"), scope)
        reply = {"value": None}
    except Exception as error:
        reply = {"error": brief(error)}
    function = scope.get(first["entry"])
    while True:
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
        line = asked.readline()
        if not line:
            return
        try:
            call = json.loads(line)
            reply = {"value": encode(function(*decode(call["args"]), **decode(call["kwargs"])))}
        except Exception as error:
            reply = {"error": brief(error)}


def ask(calls, replies, data):
    """Send one request to the answerer and wait for its reply; its errors are raised here."""
    calls.write(json.dumps(data).encode() + b"\n")
    calls.flush()
    line = replies.readline(REPLY_BYTES)
    if not line.endswith(b"\n"):
        raise Wrong(
            "the answer is too long"
            if len(line) == REPLY_BYTES
            else "the program ended before its tests did"
        )
    reply = json.loads(line)
    if "error" in reply:
        raise Wrong(str(reply["error"]))
    return decode(reply["value"])


def judge(job, calls, replies, child):
    """The tester: load the answer, run the tests against a proxy of its function, then ask it to end."""
    ask(calls, replies, {k: job[k] for k in ("setup", "code", "entry")})
    if job["tests"]:
        scope = {"__name__": "tests"}
        exec(compile(job["setup"], "setup", "exec"), scope)
        scope[job["entry"]] = lambda *args, **kwargs: ask(
            calls, replies, {"args": encode(args), "kwargs": encode(kwargs)}
        )
        exec(compile(job["tests"], "tests", "exec"), scope)
    calls.close()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise Wrong(f"the program ended with status {status}")


def main():
    isolated, cpu_s, wall_s, memory_mb, file_mb = (int(a) for a in sys.argv[1:6])
    nothing = os.open(os.devnull, os.O_RDWR)
    if isolated:
        hide_files(file_mb)
        drop_rights()
    limits = {"CPU": cpu_s, "AS": memory_mb << 20, "FSIZE": file_mb << 20, "NOFILE": 32, "CORE": 0}
    for what, limit in (limits | ({"NPROC": 64} if isolated else {})).items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + what), (limit, limit))
    to_answerer, from_answerer = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        for fd in (to_answerer[1], from_answerer[0], nothing):
            os.close(fd)
        if isolated:
            filter_calls()
        sys.argv[:] = [""]
        return answer(os.fdopen(to_answerer[0], "rb"), os.fdopen(from_answerer[1], "wb"))
    # the tester ends by itself even when the process that started the sandbox has been killed
    signal.signal(signal.SIGALRM, lambda *_: os._exit(98))
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job starts with it ignored
    signal.alarm(wall_s + 2)
    os.close(to_answerer[0])
    os.close(from_answerer[1])
    try:
        judge(
            json.load(sys.stdin),
            os.fdopen(to_answerer[1], "wb"),
            os.fdopen(from_answerer[0], "rb"),
            child,
        )
        verdict = {"ok": True, "detail": "passed"}
    except BaseException as error:
        verdict = {"ok": False, "detail": brief(error)}
    print(json.dumps(verdict), flush=True)
    os._exit(0)


main()
