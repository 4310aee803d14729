"""Figures of notebooks 02 and 05: names that do not touch, the threshold that was asked for."""

from itertools import combinations

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

from helpers import plots, stats
from helpers.plots import style, threshold


@pytest.fixture(autouse=True)
def house_style():
    style.use()
    yield
    plt.close("all")


def crowded(n=9):
    """Points of a front that stand so close that names beside them would cover one another."""
    names = ["SP", *(f"τ = {i / 10:g}" for i in range(n - 1))]
    points = {}
    for i, name in enumerate(names):
        speed = stats.Interval(1 + 2e-4 * i, 0.999, 1.003, 200)
        points[name] = (speed, stats.Interval(0.94 - 0.001 * i, 0.9, 0.97, 200))
    return points


def names_that_touch(points):
    """Pairs of names whose boxes overlap, and names that leave the axes or cover a marker."""
    figure = plots.pareto_front(points, list(points))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    boxes = {}
    for text in ax.texts:  # without the lines that join them to their points
        boxes[text.get_text()] = Text.get_window_extent(text).padded(-1)
    assert set(boxes) == set(points)
    touching = [both for both in combinations(boxes, 2) if boxes[both[0]].overlaps(boxes[both[1]])]
    for name, box in boxes.items():
        if not all(ax.bbox.contains(*corner) for corner in box.corners()):
            touching.append((name, "the frame"))
        for other, place in points.items():
            if box.contains(*ax.transData.transform([interval.estimate for interval in place])):
                touching.append((name, f"the marker of {other}"))
    return touching


def test_names_on_the_front_do_not_touch():
    assert names_that_touch(crowded()) == []


def test_names_at_one_side_and_distance_would_touch(monkeypatch):
    monkeypatch.setattr(threshold, "FURTHER", (7,))
    monkeypatch.setattr(threshold, "SIDES", ((1, 1),))
    assert len(names_that_touch(crowded())) > 5


@pytest.mark.parametrize("tau", [0.15, 0.4])
def test_the_circle_is_named_by_the_threshold_that_is_judged(tau):
    score = stats.Interval(0.9, 0.85, 0.94, 200)
    figure = plots.selective_curve(
        {"Selective": [(0.2, score), (0.4, score)]}, {"AS_large": (1.0, score)}, (0.2, score), tau
    )
    assert f"τ = {tau:g}" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_without_a_score_the_reason_stands_where_the_curves_would_be():
    none = stats.nothing("no reference")
    figure = plots.selective_curve(
        {"Selective": [(0.2, none), (0.4, none)]}, {"AS_large": (1.0, none)}, (0.2, none)
    )
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["no reference"]


def test_a_front_without_scores_names_nothing():
    speed = stats.Interval(1.0, 0.9, 1.1, 200)
    points = {"SP": (speed, stats.nothing("no reference"))}
    figure = plots.pareto_front(points, [])
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["no reference"]
