"""Figures say what they were given: every task has its name, a missing score says why, variants can be told apart."""

import matplotlib
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from helpers import plots
from helpers.stats import Interval


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_tasks_without_a_score_keep_their_name_and_have_no_judge():
    some = {t: Interval(0.5, 0.4, 0.6, 10) for t in ("gsm8k", "law", "mt_bench")}
    speed = {"SP": some, "SP_entropy": some, "SP_entropy own τ": some}
    fig = plots.by_task(
        {"speed": speed, "score": {"SP": {t: some[t] for t in ("gsm8k", "law")}}}, {"speed": 1.0}
    )
    left, right = fig.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["gsm8k", "law", "mt_bench"]
    assert [(t.get_text(), t.get_position()[1]) for t in right.texts] == [
        ("no judge", 2)
    ] and not left.texts


def test_a_variant_of_a_method_has_its_colour_and_a_hollow_marker():
    row = {"law": Interval(0.5, 0.4, 0.6, 10)}
    fig = plots.by_task({"speed": {"SP_entropy": row, "SP_entropy own τ": row}}, {})
    plain, own = fig.legends[0].legend_handles
    assert plain.get_color() == own.get_color() and plain.get_marker() == own.get_marker()
    assert plain.get_markerfacecolor() != own.get_markerfacecolor()


def test_one_block_length_still_shows_its_intervals_and_its_limits():
    found, limit = (
        {m: [(4, Interval(10.0, 8.0, 12.0, 10))] for m in ("SP", "SP_entropy")},
        {m: [(4, 11.0)] for m in ("SP", "SP_entropy")},
    )
    (ax,) = plots.gamma_speed(found, limit).axes
    assert len(ax.containers) == 2 and len({c.lines[0].get_xdata()[0] for c in ax.containers}) == 2
    assert [line.get_marker() for line in ax.lines if line.get_label().endswith("cost model")] == [
        "_",
        "_",
    ]
