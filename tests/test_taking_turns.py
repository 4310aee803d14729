"""Whoever measures has the machine alone; whoever works does so beside others."""

import errno
import subprocess
import sys
import time

import pytest

from helpers import taking_turns
from helpers.common import ROOT

pytestmark = pytest.mark.skipif(taking_turns.fcntl is None, reason="the system has no such locks")

WAIT_S = 30  # for a process that does come
STEPS = """
import sys, time
from helpers import taking_turns
file = open(sys.argv[1], "a", buffering=1)
with taking_turns.{how}():
    file.write("in\\n")
    time.sleep({seconds})
    file.write("out\\n")
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Locks of this test's own: another process on the machine may be measuring."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(taking_turns.tempfile, "tempdir", None)
    monkeypatch.setattr(taking_turns, "_own", taking_turns.threading.local())
    yield
    taking_turns.tempfile.tempdir = None


def begin(how, seconds, note):
    """Another process that takes a turn, and notes when it is in and out."""
    code = STEPS.format(how=how, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code, str(note)], cwd=ROOT)


def wait_for(note, words):
    end = time.monotonic() + WAIT_S
    while not (note.exists() and note.read_text().split() == words):
        assert time.monotonic() < end, f"{note} never said {words}"
        time.sleep(0.01)


def test_steps_are_taken_beside_each_other(tmp_path):
    note = tmp_path / "note"
    with taking_turns.together():
        other = begin("together", 0, note)
        wait_for(note, ["in", "out"])
    assert other.wait(WAIT_S) == 0


@pytest.mark.parametrize("mine, others", [("alone", "together"), ("together", "alone")])
def test_a_measurement_has_the_machine_alone(tmp_path, mine, others):
    note = tmp_path / "note"
    with getattr(taking_turns, mine)():
        other = begin(others, 0, note)
        wait_for(note, [])
        time.sleep(1)  # it has long been at the door
        assert not note.read_text()
    wait_for(note, ["in", "out"])
    assert other.wait(WAIT_S) == 0


def test_nobody_begins_a_step_before_one_who_waits_to_measure(tmp_path):
    """Steps of two processes would otherwise overlap for ever, and the third never measure."""
    first, measuring = tmp_path / "first", tmp_path / "measuring"
    step = begin("together", 3, first)
    wait_for(first, ["in"])
    waits = begin("alone", 0, measuring)
    time.sleep(1.5)  # it is at the door
    with taking_turns.together():
        assert measuring.read_text().split() == ["in", "out"]
    assert step.wait(WAIT_S) == 0
    assert waits.wait(WAIT_S) == 0


def test_a_killed_measurement_gives_the_machine_back(tmp_path):
    note = tmp_path / "note"
    other = begin("alone", 1000, note)
    wait_for(note, ["in"])
    other.kill()
    other.wait(WAIT_S)
    with taking_turns.together():
        assert note.read_text().split() == ["in"]


def test_steps_inside_a_measurement_or_a_step_do_not_wait():
    with taking_turns.alone(), taking_turns.together(), taking_turns.together():
        with taking_turns.alone():
            pass
    with taking_turns.together(), taking_turns.together():
        pass
    assert list(taking_turns.each_together(iter(range(3)))) == [0, 1, 2]


def test_an_error_gives_the_machine_back(tmp_path):
    for how in (taking_turns.alone, taking_turns.together):
        with pytest.raises(ValueError, match="mine"), how():
            raise ValueError("mine")
    note = tmp_path / "note"
    begin("alone", 0, note)
    wait_for(note, ["in", "out"])


def test_nobody_measures_within_a_step():
    with taking_turns.together(), pytest.raises(RuntimeError, match="cannot measure"):
        with taking_turns.alone():
            pass


def no_locks(file, how):
    raise OSError(errno.ENOLCK, "no locks available")


def no_folder():
    raise FileNotFoundError("no usable temporary directory")


@pytest.mark.parametrize(
    "place, name, broken",
    [
        (taking_turns.tempfile, "gettempdir", lambda: "/absent"),
        (taking_turns.tempfile, "gettempdir", no_folder),
        (taking_turns.fcntl, "flock", no_locks),
    ],
)
def test_where_locks_cannot_be_had_nobody_waits(monkeypatch, place, name, broken):
    monkeypatch.setattr(place, name, broken)
    with taking_turns.together():
        pass
    with taking_turns.alone(), taking_turns.together():
        pass


def test_a_lock_that_is_taken_is_a_lock(tmp_path):
    """The first look at the files must not take another's lock for a system without locks."""
    note = tmp_path / "note"
    other = begin("alone", 2, note)
    wait_for(note, ["in"])
    with taking_turns.together():
        assert note.read_text().split() == ["in", "out"]
    assert other.wait(WAIT_S) == 0
