"""What runs inside the sandbox: one process holds the tests, another one the model-written code.

Started by helpers/tasks/sandbox.py, in the order of arguments

    python -I -S sandbox_inside.py ISOLATED CPU_S WALL_S MEMORY_MB FILE_MB

The tester forks the answerer before it reads the tests, so the answerer's memory never holds them;
from then on the two speak over pipes in plain data. The tester calls the answer's function by
proxy, and what comes back is rebuilt from JSON: an answer cannot reach the checker, the verdict, or
an `assert`, only return values.
Standard input: JSON with `code`, `entry`, `setup`, `tests`. Standard output: a line "ready" once
the sandbox is closed (without it, the system has failed), then JSON with `ok` and `detail`.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys

REPLY_BYTES = 1 << 22
PLAIN = (bool, int, float, str, type(None))
libc = ctypes.CDLL(None, use_errno=True)


class Wrong(Exception):
    """What the answer did, in words that go into the verdict as they are."""


# ---- closing the sandbox -------------------------------------------------------------------------

# The kernel's constants, by their names in its headers.
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
SYS_MOUNT_SETATTR = 442
SYS_CLONE3 = 435
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
CLONE_THREAD = 0x10000
X32_CALLS = 0x40000000  # numbers from here on are those of the x32 table

# By machine: its column in REFUSED, the kernel's name of it, and the numbers of two calls.
MACHINES = {
    "x86_64": {"column": 0, "architecture": 0xC000003E, "clone": 56, "capset": 126},
    "aarch64": {"column": 1, "architecture": 0xC00000B7, "clone": 220, "capset": 91},
}
# What an answer may not ask the kernel for: processes, programs, other processes' memory, sockets,
# mounts, namespaces, memory that no limit counts. The numbers are those of x86_64 and of aarch64
# (None: not there).
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

# A seccomp filter is a program of instructions (code, jump if true, jump if false, operand) that
# reads the words of a system call and returns what becomes of it. Jumps count what they skip.
LOAD = 0x20
IF_EQUAL = 0x15
IF_AT_LEAST = 0x35
IF_ANY_BIT = 0x45
RETURN = 0x06
CALL_NUMBER = 0  # offsets of the words
ARCHITECTURE = 4
FIRST_ARGUMENT = 16
ALLOW = 0x7FFF0000
KILL = 0x80000000
FAIL = 0x50000  # plus the error's number


def must(result, what):
    """Leave at once when a step that closes the sandbox fails."""
    if result:
        reason = os.strerror(ctypes.get_errno())
        raise OSError(f"the sandbox could not be closed ({what}: {reason})")


def hide_files(file_mb):
    """A new root: the standard library, shared libraries and a small private folder, no more.

    All but the private folder is read-only.
    """
    root = os.getcwd()
    flags = MS_NOSUID | MS_NODEV
    must(libc.mount(b"tmpfs", root.encode(), b"tmpfs", flags, b"size=1m"), "mount root")

    libraries = (*sys.path, sys.base_prefix + "/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64")
    folders = sorted({os.path.abspath(path) for path in libraries if os.path.isdir(path)})
    bound = []
    for folder in folders:
        if any(folder.startswith(parent + "/") for parent in bound):
            continue
        inside = root + folder
        os.makedirs(inside)
        mounted = libc.mount(folder.encode(), inside.encode(), None, MS_BIND | MS_REC, None)
        must(mounted, "bind " + folder)
        bound.append(folder)
    hide_packages(root, bound)
    os.mkdir(root + "/work")

    # Read-only, without set-user-id and devices, on every mount so far.
    to_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    attributes = struct.pack("QQQQ", to_set, 0, 0, 0)
    closed = libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, len(attributes)
    )
    must(closed, "mount_setattr")
    size = b"size=%dm,nr_inodes=1k" % file_mb
    must(libc.mount(b"tmpfs", (root + "/work").encode(), b"tmpfs", flags, size), "mount work")
    os.chroot(root)
    os.chdir("/work")


def hide_packages(root, folders):
    """Put nothing over installed packages: one may hold a benchmark with its solutions."""
    for folder in folders:
        for parent in (folder, *parts_of(folder)):
            for name in ("site-packages", "dist-packages"):
                packages = f"{root}{parent}/{name}"
                if os.path.isdir(packages) and not os.path.islink(packages):
                    flags = MS_NOSUID | MS_NODEV
                    hidden = libc.mount(b"tmpfs", packages.encode(), b"tmpfs", flags, b"size=4k")
                    must(hidden, "hide " + packages)


def parts_of(folder):
    """The folders in a folder of libraries that may hold packages: python3, python3.11, …"""
    names = [name for name in os.listdir(folder) if name.startswith("python")]
    return [f"{folder}/{name}" for name in names if os.path.isdir(f"{folder}/{name}")]


def drop_rights():
    """No capabilities and no way to new ones; other processes may not look into this one."""
    no_root_and_locked = 0x2F  # being user 0 gives no capabilities, and that cannot be undone
    must(libc.prctl(PR_SET_SECUREBITS, no_root_and_locked, 0, 0, 0), "securebits")
    must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    this_process = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    none = bytes(24)  # effective, permitted and inheritable, two words each
    must(libc.syscall(MACHINES[platform.machine()]["capset"], this_process, none), "capset")
    must(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def filter_program():
    """The seccomp filter: threads may be made, processes may not, and REFUSED fails."""
    machine = MACHINES[platform.machine()]
    refused = [numbers[machine["column"]] for numbers in REFUSED.values()]
    refused = [number for number in refused if number is not None]
    n = len(refused)
    return [
        # Another architecture's calls have other numbers.
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 1, 0, machine["architecture"]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, CALL_NUMBER),
        (IF_AT_LEAST, 0, 1, X32_CALLS),
        (RETURN, 0, 0, KILL),
        # clone3 keeps its flags in memory, which no filter can read: it "is not there", and the C
        # library then asks clone.
        (IF_EQUAL, 0, 1, SYS_CLONE3),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
        # clone may make threads only: with their flag it jumps to ALLOW, past all of REFUSED.
        (IF_EQUAL, 0, 3, machine["clone"]),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (IF_ANY_BIT, n + 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, FAIL | errno.EPERM),
        # A refused call jumps to the last line, over the rest of REFUSED and ALLOW.
        *((IF_EQUAL, n - i, 0, number) for i, number in enumerate(refused)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL | errno.EPERM),
    ]


def filter_calls():
    """Put the seccomp filter on this process; it cannot be taken off again."""
    instructions = filter_program()
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(buffer))
    must(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


def set_limits(isolated, cpu_s, memory_mb, file_mb):
    """Limits that the kernel keeps, for this process and its children."""
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_FSIZE: file_mb << 20,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
    }
    if isolated:  # elsewhere the user's other processes would count too
        limits[resource.RLIMIT_NPROC] = 64
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit))


# ---- plain data ----------------------------------------------------------------------------------


def encode(value):
    """A value as JSON data.

    Plain values as they are, containers as [tag, items], all else as an object equal to nothing.
    """
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
    tag, *items = data
    if tag == "complex":
        return complex(*items)
    if tag == "bytes":
        return items[0].encode("latin-1")
    if tag == "dict":
        return {decode(k): decode(v) for k, v in items}
    if tag == "object":
        return object()
    container = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[tag]
    return container(map(decode, items))


def brief(error):
    """An exception in one short line."""
    message = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
    return message.split("\n")[0][:200]


# ---- the two processes ---------------------------------------------------------------------------


def answer(requests, replies):
    """The answerer: define the code, then reply to calls until none comes.

    Runs the hostile code.
    """
    program = json.loads(requests.readline())
    # Not __main__: what stands under `if __name__ == "__main__"` is no part of the answer.
    module = type(sys)("answer")
    sys.modules["answer"] = module
    scope = module.__dict__
    try:
        for part in ("setup", "code"):
            exec(compile(program[part], part, "exec"), scope)
        reply = {"value": None}
    except Exception as error:
        reply = {"error": brief(error)}
    function = scope.get(program["entry"])
    while True:
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
        line = requests.readline()
        if not line:
            return
        try:
            call = json.loads(line)
            value = function(*decode(call["args"]), **decode(call["kwargs"]))
            reply = {"value": encode(value)}
        except Exception as error:
            reply = {"error": brief(error)}


def ask(requests, replies, data):
    """Send one request to the answerer and wait for its reply; its errors are raised here."""
    requests.write(json.dumps(data).encode() + b"\n")
    requests.flush()
    line = replies.readline(REPLY_BYTES)
    if not line.endswith(b"\n"):
        if len(line) == REPLY_BYTES:
            raise Wrong("the answer is too long")
        raise Wrong("the program ended before its tests did")
    reply = json.loads(line)
    if "error" in reply:
        raise Wrong(str(reply["error"]))
    return decode(reply["value"])


def judge(job, requests, replies, child):
    """The tester: load the answer, run the tests against a proxy of its function, let it end."""
    ask(requests, replies, {key: job[key] for key in ("setup", "code", "entry")})
    if job["tests"]:

        def proxy(*args, **kwargs):
            return ask(requests, replies, {"args": encode(args), "kwargs": encode(kwargs)})

        scope = {"__name__": "tests"}
        exec(compile(job["setup"], "setup", "exec"), scope)
        scope[job["entry"]] = proxy
        exec(compile(job["tests"], "tests", "exec"), scope)
    requests.close()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise Wrong(f"the program ended with status {status}")


def main():
    isolated, cpu_s, wall_s, memory_mb, file_mb = (int(argument) for argument in sys.argv[1:6])
    nothing = os.open(os.devnull, os.O_RDWR)
    if isolated:
        hide_files(file_mb)
        drop_rights()
    set_limits(isolated, cpu_s, memory_mb, file_mb)
    request_reader, request_writer = os.pipe()
    reply_reader, reply_writer = os.pipe()

    child = os.fork()
    if not child:
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        for descriptor in (request_writer, reply_reader, nothing):
            os.close(descriptor)
        if isolated:
            filter_calls()
        sys.argv[:] = [""]
        answer(os.fdopen(request_reader, "rb"), os.fdopen(reply_writer, "wb"))
        return

    print("ready", flush=True)
    # The tester ends by itself even when the process that started the sandbox has been killed.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(98))
    signal.alarm(wall_s + 2)
    # An answer that interrupts its tester must be seen to do so, and a shell's background job
    # starts with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(request_reader)
    os.close(reply_writer)
    requests = os.fdopen(request_writer, "wb")
    replies = os.fdopen(reply_reader, "rb")
    try:
        judge(json.load(sys.stdin), requests, replies, child)
        verdict = {"ok": True, "detail": "passed"}
    except BaseException as error:
        verdict = {"ok": False, "detail": brief(error)}
    print(json.dumps(verdict), flush=True)
    os._exit(0)


main()
