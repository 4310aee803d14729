"""One process measures while the others wait: two notebooks at once leave each other's times alone.

Whoever decodes many rows, or reads answers, holds the machine together with others, for a step at a
time; whoever times steps holds it alone. A process that wants it alone is next: nobody begins a
step in front of it. Both locks are the system's, on two files in the folder for temporary files, so
that a process that ends gives them back, however it ends; they are of one user. Where such locks
cannot be had (Windows, some network folders) nobody waits for anybody. A lock of a library is a
database or a loop that sleeps; this one is taken some thousand times a second.
"""

import os
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_own = threading.local()  # of this thread: its files, for a lock belongs to an opened file, and ...
STEP, ALONE = "step", "alone"  # ... what it is in


def together():
    """Do a step that others may do theirs beside; wait while another process measures."""
    return _in_turn(STEP)


def alone():
    """Measure: wait until nobody is in a step, and keep everybody from the next one.

    Errors: RuntimeError within a step, where two processes could wait for each other for ever.
    """
    if _is_in() == STEP:
        raise RuntimeError("a step that others do theirs beside cannot measure; end it before")
    return _in_turn(ALONE)


@contextmanager
def _in_turn(kind):
    """Be in a STEP or ALONE. Who is in one already has what it needs, and waits for nobody.

    A step within a step would wait at the door for whoever waits for this one to end.
    """
    files = None if _is_in() else _files()
    if files is None:
        yield
        return
    door, room = files
    how = fcntl.LOCK_SH if kind == STEP else fcntl.LOCK_EX
    try:
        fcntl.flock(door, how)
        fcntl.flock(room, how)
        if kind == STEP:
            fcntl.flock(door, fcntl.LOCK_UN)
        _own.is_in = kind
        yield
    finally:
        _leave(files)


def each_together(items):
    """Iterate; making each item is a step, and what is done with it is not."""
    items = iter(items)
    while True:
        with together():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def step(act):
    """The function `act` as a step."""

    def in_turn(*arguments):
        with together():
            return act(*arguments)

    return in_turn


def _is_in():
    """What this thread is in: STEP, ALONE or None."""
    return getattr(_own, "is_in", None)


def _leave(files):
    """Give both locks back, held or not."""
    _own.is_in = None
    for file in reversed(files):
        fcntl.flock(file, fcntl.LOCK_UN)


def _files():
    """The files of this thread's locks, door and room; None where there are none to be had."""
    if fcntl is None:
        return None
    known = getattr(_own, "files", None)
    if known is None or known[0] != os.getpid():  # a forked process would share its parent's
        _own.files = known = (os.getpid(), _opened())
    return known[1]


def _opened():
    try:
        folder = Path(tempfile.gettempdir())
        names = [f"sp-entropy-{os.getuid()}-{name}.lock" for name in ("door", "room")]
        files = tuple(open(folder / name, "a+b") for name in names)
        _try(files[0])
    except OSError:
        return None
    return files


def _try(file):
    """Raise an OSError where the file's system has no locks; one that is taken is a lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    fcntl.flock(file, fcntl.LOCK_UN)
