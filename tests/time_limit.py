"""A time limit for the whole run: no test begins after SP_TESTS_END, and all such are counted.

Without the variable every test runs. A test that can take long on a slow machine says how long
(`@pytest.mark.minutes(20)`) and has to begin that much earlier.
"""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

NAME = "SP_TESTS_END"
REASON = f"not run: the time that the tests were given ({NAME}) was over; `make test` runs all"


def end():
    """When the last test may begin, in seconds since 1970; infinity where nothing is said."""
    text = os.environ.get(NAME)
    if not text:
        return float("inf")
    if not (text.isascii() and text.isdigit()):
        raise pytest.UsageError(
            f"{NAME} was {text!r}; it must be a whole number of seconds since 1970, as `date +%s` "
            "prints it"
        )
    return int(text)


def pytest_configure(config):
    config.addinivalue_line("markers", "minutes(n): how long a test can take on a slow machine")
    end()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip what would begin too late, before its fixtures are made."""
    long = item.get_closest_marker("minutes")
    if time.time() + 60 * (long.args[0] if long else 0) > end():
        pytest.skip(REASON)


def pytest_terminal_summary(terminalreporter):
    """How many tests of which files were not run: reasons for skipping are easily overlooked."""
    late = [r for r in terminalreporter.stats.get("skipped", []) if REASON in str(r.longrepr)]
    if late:
        files = Counter(Path(report.nodeid.split("::")[0]).name for report in late)
        terminalreporter.section(f"tests that were not run: {len(late)}", red=True)
        terminalreporter.line(REASON)
        terminalreporter.line(", ".join(f"{name} {n}" for name, n in sorted(files.items())))
