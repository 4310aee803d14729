"""What is kept: the cache of finished work, and the published record.

Two stores, never mixed. The cache (data/cache/) holds work under the checksum of everything that
determines it, so that an interrupted run goes on where it was. The published record
(data/results/PAIR/) is what a notebook writes at its end; figures and tables are drawn from it.
Every file is written beside its target under a name of its own and then moved, so that whoever is
killed, or runs twice, leaves the old file or the new one.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import pickle
import platform
import re
import sys
import time
import types
import uuid
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock
import pandas as pd

from helpers import common

PACKAGE = Path(__file__).parent
# What an answer depends on besides its job (which holds the prompt), and what its grade does.
DECODING = (
    "rules/*.py",
    "methods.py",
    "stopping.py",
    "models/*.py",
    "decoding/*.py",
    "experiments.py",
    "probes.py",
)
GRADING = ("tasks/*.py",)
CANNOT_WRITE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    # Something else stands where a folder or a file is to be.
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
)
CHECKSUM_BYTES = hashlib.sha256().digest_size
TEMPORARY = re.compile(r"\.[0-9a-f]{32}\..+")  # the names of `replacing`
LEFT_S = 24 * 3600  # after which a file that is still being written was left by a killed run
LIBRARIES = ("torch", "numpy", "pandas", "scipy", "math")  # their versions are in every row
_unpublished = set()  # files of the timings that no notebook has published yet


@contextmanager
def replacing(file):
    """A path beside `file` to write to; what stands there when all went well becomes `file`."""
    file = Path(file)
    temporary = file.with_name(f".{uuid.uuid4().hex}.{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, file)
    except OSError as error:
        if error.errno in CANNOT_WRITE:
            raise common.cannot_write(file, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _to_disk(file):
    """Wait until a file's bytes are on the disk: else a loss of power can leave an empty file."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


def write_text(file, text):
    """Write a text file in one move."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(file, frame):
    """Write a parquet file in one move."""
    with replacing(file) as temporary:
        frame.to_parquet(temporary, index=False)


def read_json(file):
    """The object that a JSON file holds; None where it is absent, damaged or holds none."""
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# ---- who writes --------------------------------------------------------------------------------


@contextmanager
def locked(folder, *others):
    """Be the one process that writes a run's folder; files that a killed one has left go.

    others: further folders that only this run writes.
    The system takes the lock from a process that ends, however it ends. Beside it stands who has
    it: pid, host, since when. RuntimeError where another process has it.
    """
    folder = Path(folder)
    holder = folder / ".lock.json"
    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(
            f"{folder} is being written by {_who(read_json(holder))}; wait until it has ended, or "
            "give this run a name of its own (--run NAME; make all RUN=NAME)"
        ) from None
    except OSError as error:
        raise common.cannot_write(folder, error) from error
    try:
        _take_over(folder, holder, others)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        own = {"pid": os.getpid(), "host": platform.node(), "since": since}
        write_text(holder, json.dumps(own) + "\n")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
    finally:
        lock.release()


def _take_over(folder, holder, others):
    """What a run that has ended in the middle has left: say so, and clean up."""
    left = read_json(holder)
    if holder.exists():
        if left and left.get("host") != platform.node():
            raise RuntimeError(
                f"{folder} may still be written by {_who(left)}, which cannot be seen from here; "
                f"if it has ended, remove {holder}"
            )
        print(f"note: {_who(left)} has ended without finishing in {folder}; going on from there")
    for place in (folder, *others):
        for file in place.glob(".*"):
            if TEMPORARY.fullmatch(file.name) and file.is_file():
                file.unlink(missing_ok=True)
    # The cache is everybody's: what is young there may be another run's.
    for file in common.CACHE.rglob(".*"):
        with suppress(OSError):  # its run has just moved it
            if TEMPORARY.fullmatch(file.name) and time.time() - file.stat().st_mtime > LEFT_S:
                file.unlink()


def _who(holder):
    """'process 12 on host (since 2026-01-01T00:00:00+00:00)' of a lock's holder."""
    if not isinstance(holder, dict) or not {"pid", "host", "since"} <= set(holder):
        return "another process"
    return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"


# ---- the cache ---------------------------------------------------------------------------------


def cached(kind, *facts):
    """The file under data/cache/KIND/ that belongs to these facts (see `fingerprint`)."""
    return common.CACHE / kind / f"{fingerprint(*facts)}.pkl"


def load(file):
    """What `keep` put there, or None: a file that is absent, damaged or foreign is no result."""
    file = Path(file)
    try:
        content = file.read_bytes()
    except OSError:
        return None
    checksum, packed = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
    if checksum != _checksum(file, packed):
        return None
    try:
        return pickle.loads(packed)
    except Exception:  # of a class that is no more, say; pickle promises no list of its errors
        return None


def keep(file, value):
    """Put a value into the cache, in one move."""
    file = Path(file)
    packed = pickle.dumps(value)
    with replacing(file) as temporary:
        temporary.write_bytes(_checksum(file, packed) + packed)


def _checksum(file, packed):
    """What stands before a kept value: one bit that has turned, or another name, and it differs."""
    return hashlib.sha256(file.name.encode() + packed).digest()


def fingerprint(*facts):
    """Checksum of values and of the code behind them: 32 hex digits, the same in every process.

    An object of the user's own class (a rule written in a notebook, say) counts with the code of
    its methods: after its body is edited it is another object, though it prints the same. The
    project's own classes count by name and fields; their code is in `code_version`.
    """
    digest = hashlib.sha256()
    for part in _parts(facts, set()):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:32]


def _parts(value, seen):
    """Strings that determine a value; `seen` holds the code on the way, which may recur."""
    plain = (bool, int, float, complex, str, bytes, range, type(None), type(...))
    if isinstance(value, plain):
        yield f"{type(value).__name__} {value!r}"
    elif isinstance(value, (list, tuple)):
        yield f"{type(value).__name__} {len(value)}"
        for item in value:
            yield from _parts(item, seen)
    elif isinstance(value, (set, frozenset)):
        yield f"set {sorted(''.join(_parts(item, seen)) for item in value)}"
    elif isinstance(value, dict):
        yield f"dict {len(value)}"
        for key, item in value.items():
            yield from _parts(key, seen)
            yield from _parts(item, seen)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__}"
    elif isinstance(value, type):
        yield from _class(value, seen)
    elif isinstance(value, functools.partial):
        yield "partial"
        yield from _parts([value.func, value.args, value.keywords], seen)
    elif isinstance(value, types.MethodType):
        yield from _parts(value.__func__, seen)
        yield from _parts(value.__self__, seen)
    elif isinstance(value, types.FunctionType):
        yield from _function(value, seen)
    elif hasattr(value, "tolist"):  # tensors and arrays
        yield f"{type(value).__name__} {getattr(value, 'dtype', '')} {value.tolist()!r}"
    elif id(value) in seen:  # an object that holds itself
        yield "again"
    else:
        seen.add(id(value))
        yield from _class(type(value), seen)
        yield from _parts(_state(value), seen)
        seen.discard(id(value))


def _state(value):
    """The fields of an object as a dict."""
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return vars(value)
    return {"repr": repr(value)}


def _known(module):
    """Whether a module's code has a version elsewhere: this project's, a library's, Python's."""
    top = (module or "").split(".")[0]
    return top in (PACKAGE.name, *LIBRARIES) or top in sys.stdlib_module_names


def _class(kind, seen):
    """A class: its name, and for a class of the user's own the code of it and of its bases."""
    yield f"class {kind.__module__}.{kind.__qualname__}"
    if _known(kind.__module__) or id(kind) in seen:
        return
    seen.add(id(kind))
    for base in kind.__bases__:
        yield from _class(base, seen)
    for name, member in sorted(vars(kind).items()):
        if name.startswith("__dataclass") or name in ("__dict__", "__weakref__", "__doc__"):
            continue
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if isinstance(member, property):
            member = member.fget
        if isinstance(member, types.FunctionType) or not callable(member):
            yield name
            yield from _parts(member, seen)


def _function(function, seen):
    """A function: its code, its defaults, and the globals and closures that it reads."""
    yield f"function {function.__qualname__}"
    if _known(function.__module__) or id(function.__code__) in seen:
        return
    seen.add(id(function.__code__))
    yield from _code(function.__code__, seen)
    yield from _parts(function.__defaults__, seen)
    yield from _parts(function.__kwdefaults__, seen)
    for cell in function.__closure__ or ():
        yield from _parts(cell.cell_contents, seen)
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield name
            yield from _parts(function.__globals__[name], seen)


def _code(code, seen):
    """Instructions and constants of a code object and those inside it; no file, no line numbers."""
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant, seen)
        else:
            yield from _parts(constant, seen)


def _names(code):
    """Every name that a code object, or one inside it, may look up among the globals."""
    inside = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return sorted(set(code.co_names).union(*inside))


@functools.cache
def code_version(patterns=DECODING + GRADING):
    """Checksum of the project's code that a decoded and graded answer depends on."""
    files = [file for pattern in patterns for file in sorted(PACKAGE.glob(pattern))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


# ---- the published record ----------------------------------------------------------------------


def publish(frame, pair_name, name):
    """Write a table to data/results/PAIR/NAME.parquet: the published record of a notebook."""
    file = common.results(pair_name) / f"{name}.parquet"
    write_table(file, frame.drop(columns=[c for c in ("tokens", "text") if c in frame]))
    return file


def publish_facts(pair_name, name, *, numbers=None, tables=None, **facts):
    """Write a notebook's verdict and headline numbers to data/results/PAIR/NAME.json.

    numbers: name -> stats.Interval; tables: name -> DataFrame of what a reader sees. The generated
    pages render both and compute nothing. A notebook gives `registered=registration.check(...)`, so
    that the record says whether it ran as planned. This is its last word: the timings behind it are
    on record, and the next run measures anew.
    """
    facts["numbers"] = {key: dataclasses.asdict(value) for key, value in (numbers or {}).items()}
    facts["tables"] = {
        key: value.to_dict("split", index=False) for key, value in (tables or {}).items()
    }
    file = common.results(pair_name) / f"{name}.json"
    write_text(file, json.dumps(facts, indent=1, default=float) + "\n")
    while _unpublished:
        _unpublished.pop().unlink(missing_ok=True)
    if common.run_name() == common.LAB:
        print(f"Kept in {file.parent}; the published record stays as make all has written it.")
    return file


def facts(run, name):
    """What publish_facts wrote for a pair or one of its runs (PAIR/RUN); None where nothing is."""
    return read_json(common.OUT / "data" / "results" / run / f"{name}.json")


def table(run, name):
    """A published table of a pair, or of one of its runs; None where it is not there."""
    file = common.OUT / "data" / "results" / run / f"{name}.parquet"
    return pd.read_parquet(file) if file.exists() else None


def until_published(file):
    """Keep a file of timings only until the notebook has published."""
    _unpublished.add(file)
