"""What stands in place of a mean over forks that nothing grades."""

import numpy as np
import pandas as pd
import pytest

from helpers import plots, stats, tables
from helpers.plots import style


def forked(score, **columns):
    """Ten forks of as many problems, half of them at low entropy."""
    return pd.DataFrame(
        {
            "problem_id": [f"p{i}" for i in range(10)],
            "H_q": np.tile([0.1, 2.0], 5),
            "weight": 1.0,
            "harm": score,
        }
    ).assign(**columns)


@pytest.mark.parametrize(
    "forks, words",
    [
        (forked(np.nan, ungraded="no reference"), "no reference"),
        (forked(np.nan), "too few graded forks"),
        (forked([1.0] + [np.nan] * 9, ungraded=""), "too few graded forks"),
        (forked(np.nan).head(0), "too few graded forks"),
    ],
)
def test_the_reason_for_no_number_is_told(forks, words):
    expected = pd.Series(0.1, index=[f"p{i}" for i in range(10)])
    found = (
        tables.per_rescue(forks, "harm"),
        tables.safer_below(forks, "harm", 1.0),
        tables.per_answer(forks, "harm", expected),
    )
    assert [interval.missing for interval in found] == [words] * 3
    assert stats.verdict(found[0], below=0.05).word == f"undecided: {words}"


def test_graded_forks_have_a_number():
    found = tables.per_rescue(forked(1.0, ungraded=""), "harm")
    assert found.estimate == 1 and not found.missing


def test_the_figure_says_that_no_fork_is_graded():
    style.use()
    share = stats.Interval(0.03, 0.02, 0.05, 200)
    figure = plots.rescue_harm([], [], [], {"SP_entropy": {"certificate": share}})
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["no graded forks"]
    assert right.get_ylabel() == "accuracy lost, points"
