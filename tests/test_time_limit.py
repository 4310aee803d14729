"""Tests that would begin after a given moment are skipped and counted (time_limit.py)."""

import re
import time

import pytest
import time_limit
from conftest import FIRST, LAST, ROOT, call, in_order

THREE = """
import pytest

@pytest.fixture
def never():
    raise AssertionError("a fixture of a test that is not run")

def test_short():
    pass

@pytest.mark.minutes(5)
def test_longer():
    pass

@pytest.mark.minutes(20)
def test_long(never):
    pass
"""
# The plugin alone: this folder's conftest imports torch, which is slow.
PYTEST = (
    "-m",
    "pytest",
    "-p",
    "time_limit",
    "-p",
    "no:cacheprovider",
    "-c",
    "/dev/null",
    "-n",
    "1",
)


def test_no_test_begins_too_late(tmp_path):
    """In a worker of xdist. How many were not run, and which files', stands in the last lines."""
    (tmp_path / "test_three.py").write_text(THREE)
    ends = f"{time.time() + 600:.0f}"
    places = {"PYTHONPATH": str(ROOT / "tests"), "SP_TESTS_END": ends}
    done = call(*PYTEST, "--rootdir", str(tmp_path), str(tmp_path), **places)
    assert done.returncode == 0 and "2 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert "tests that were not run: 1" in done.stdout
    assert f"\n{time_limit.REASON}\ntest_three.py 1\n" in done.stdout


def test_without_a_limit_every_test_runs(monkeypatch):
    for text in ("", None):
        monkeypatch.delenv("SP_TESTS_END", raising=False)
        if text is not None:
            monkeypatch.setenv("SP_TESTS_END", text)
        assert time_limit.end() == float("inf")


@pytest.mark.parametrize("text", ["soon", "1e9", "-5", "12:30", "²"])
def test_a_wrong_limit_is_one_sentence(monkeypatch, text):
    monkeypatch.setenv("SP_TESTS_END", text)
    words = f"SP_TESTS_END was {text!r}; it must be a whole number of seconds since 1970"
    with pytest.raises(pytest.UsageError, match=re.escape(words)):
        time_limit.end()


def test_what_is_exact_comes_first_and_what_takes_long_last():
    names = ["test_advise.py", "test_kills.py", "test_rules.py", "test_views.py"]
    assert sorted(names, key=in_order) == [names[2], names[0], names[3], names[1]]
    assert {*FIRST, *LAST} <= {file.name for file in (ROOT / "tests").glob("test_*.py")}
