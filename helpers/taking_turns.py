"""One process measures while the others wait: two notebooks at once leave each other's times alone.

Whoever decodes many rows, or reads answers, holds the machine together with others, for a step at a
time; whoever times steps holds it alone. A process that wants it alone is next: nobody begins a
step in front of it. Both locks are the system's, on two files in its folder for temporary files, so
that a process that ends gives them back, however it ends. Where the system has no such locks
(Windows) or no such folder, nobody waits for anybody. A lock of a library is a database or a loop
that sleeps; this one is taken some thousand times a second.
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

_own = threading.local()  # files of this thread: a lock belongs to an opened file
_alone = threading.Event()  # this process has the machine to itself


@contextmanager
def together():
    """Do a step that others may do theirs beside; wait while another process measures."""
    inside = _alone.is_set() or getattr(_own, "in_a_step", False)
    files = None if inside else _files()
    if files is None:
        yield
        return
    door, room = files
    fcntl.flock(door, fcntl.LOCK_SH)
    try:
        fcntl.flock(room, fcntl.LOCK_SH)
    finally:
        fcntl.flock(door, fcntl.LOCK_UN)
    # A step within a step would wait at the door for whoever waits for this one to end.
    _own.in_a_step = True
    try:
        yield
    finally:
        _own.in_a_step = False
        fcntl.flock(room, fcntl.LOCK_UN)


@contextmanager
def alone():
    """Measure: wait until nobody is in a step, and keep everybody from the next one."""
    files = None if _alone.is_set() else _files()
    if files is None:
        yield
        return
    door, room = files
    fcntl.flock(door, fcntl.LOCK_EX)
    try:
        fcntl.flock(room, fcntl.LOCK_EX)
        _alone.set()
        try:
            yield
        finally:
            _alone.clear()
            fcntl.flock(room, fcntl.LOCK_UN)
    finally:
        fcntl.flock(door, fcntl.LOCK_UN)


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


def _files():
    """The files of this thread's locks, door and room; None where there are none to be had."""
    if fcntl is None:
        return None
    known = getattr(_own, "files", None)
    if known is None or known[0] != os.getpid():  # a forked process would share its parent's
        _own.files = known = (os.getpid(), _opened())
    return known[1]


def _opened():
    folder = Path(tempfile.gettempdir())
    try:
        return tuple(
            open(folder / f"sp-entropy-{os.getuid()}-{name}.lock", "ab")
            for name in ("door", "room")
        )
    except OSError:
        return None
