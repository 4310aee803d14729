"""Figures of notebook 05: the gate tau and its rivals."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from helpers.plots.style import METHODS, SPARE, Look, assign, band, bar, method_looks

# The families of rules that notebook 05 speaks of. The first two are methods too; the others look
# like no method, and like nothing in SPARE.
CONTROLS = {
    "entropy gate, √": Look("#D55E00", "D"),
    "random gate, √": Look("#888888", "x"),
    "high-entropy gate, √": Look("#DC267F", "v"),
    "max-prob gate, √": Look("#785EF0", "s"),
    "lenience": Look("#8C6D31", "o"),
    "clip at a fixed level": Look("#CC6677", "P"),
    "optimum (one price)": Look("#004D40", "*"),
}
MARKED = ("entropy gate, √", "random gate, √", "lenience", "optimum (one price)")
QUIET = Look("#8a8a8a", ".")
MARKER = 5  # half the width of a point, in points
FURTHER = (7, 20, 36, 54, 76)  # from a point to its name, in points
SIDES = ((1, 1), (1, -1), (0, 1), (0, -1), (-1, -1), (-1, 1))  # of a point: right, up


def _per_cent(share, _):
    """A tick's label, with as many digits as it needs: 0.25 %."""
    return f"{100 * share:.6g} %"


def tau_lines(taus, panels, strict, chosen):
    """Three lines over tau.

    taus: nats; panels: title -> an Interval per tau; strict: title -> Interval of SP; chosen: one
    of the taus. Shares of calls and accuracies are shown in per cent.
    """
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.7))
    sp = METHODS["SP"].colour
    for ax, (title, intervals) in zip(axes, panels.items()):
        ax.axhspan(strict[title].low, strict[title].high, color=sp, alpha=0.15, linewidth=0)
        ax.axhline(strict[title].estimate, color=sp, linestyle="--", label="SP")
        band(ax, taus, intervals, "SP_entropy", METHODS["SP_entropy"])
        ax.axvline(
            chosen, color="#888888", linewidth=1.2, linestyle=":", label=f"chosen τ = {chosen:g}"
        )
        ax.set(xlabel="entropy gate τ, nats", title=title)
        if "calls" in title or title == "accuracy":
            ax.yaxis.set_major_formatter(_per_cent)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def pareto_front(points, front):
    """Accuracy against speed.

    points: label -> (tokens per second ÷ SP's, accuracy), two Intervals; front: the labels on the
    Pareto front. Labels that begin with τ are SP_entropy. Where nothing has a score, the reason
    stands in the points' place.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    looks = method_looks(label for label in points if not label.startswith("τ"))
    for label, (speed, accuracy) in points.items():
        look = looks.get(label, METHODS["SP_entropy"])
        ax.errorbar(
            speed.estimate,
            accuracy.estimate,
            color=look.colour,
            fmt=look.marker,
            xerr=bar(speed),
            capsize=2,
            alpha=1 if label in front else 0.45,
            yerr=bar(accuracy),
            elinewidth=1,
        )
    ax.plot(
        [points[label][0].estimate for label in front],
        [points[label][1].estimate for label in front],
        color="#888888",
        linewidth=1.2,
        zorder=0,
    )
    ax.set(
        xlabel="tokens per second ÷ SP's",
        ylabel="accuracy",
        title="Speed against accuracy (named: on the front; pale: not)",
    )
    kinds = {"SP_entropy, at some τ": METHODS["SP_entropy"], **looks}
    handles = [
        Line2D([], [], linestyle="none", color=look.colour, marker=look.marker, label=name)
        for name, look in kinds.items()
    ]
    handles.append(Line2D([], [], color="#888888", linewidth=1.2, label="Pareto front"))
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    reasons = sorted({accuracy.missing for _, accuracy in points.values() if accuracy.missing})
    if reasons:
        ax.text(0.5, 0.5, ", ".join(reasons), transform=ax.transAxes, ha="center")
    ax.margins(y=0.12)  # room for a name at the top
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_formatter(_per_cent)
    places = {
        label: (speed.estimate, accuracy.estimate) for label, (speed, accuracy) in points.items()
    }
    _name_beside(ax, {label: places[label] for label in front}, places.values())
    return fig


def _name_beside(ax, named, markers):
    """A name beside each point, where it touches neither another name nor a marker.

    named: name -> (x, y) in data; markers: of all points. A thin line joins a name to its point.
    """
    figure = ax.figure
    figure.draw_without_rendering()  # only then is the size of the axes known
    pixels = figure.dpi / 72  # of a point
    half = MARKER * pixels
    taken = [
        Bbox.from_extents(x - half, y - half, x + half, y + half)
        for x, y in map(ax.transData.transform, markers)
    ]
    # on a white rim: the bars of other points may pass behind a name
    rim = withStroke(linewidth=3, foreground="white")
    font = {"fontsize": 11, "weight": "bold", "path_effects": [rim]}
    for name, place in named.items():
        text = ax.text(0, 0, name, **font)
        size = text.get_window_extent().size / pixels
        text.remove()
        for distance, (right, up) in product(FURTHER, SIDES):
            # the corner that is nearest to the point, or the middle of that edge, lies there
            towards = np.array([(1 - right) / 2, (1 - up) / 2])
            offset = distance * np.array([right, up]) - towards * size
            corner = ax.transData.transform(place) + offset * pixels
            box = Bbox.from_bounds(*corner, *(size * pixels))
            if not any(box.overlaps(other) for other in taken) and _is_inside(box, ax.bbox):
                break
        taken.append(box)
        joined = {"arrowstyle": "-", "color": "#555555", "linewidth": 0.8, "relpos": towards}
        ax.annotate(
            name,
            place,
            offset,
            textcoords="offset points",
            va="bottom",
            arrowprops=joined | {"shrinkA": 0, "shrinkB": MARKER},
            **font,
        )


def _is_inside(box, frame):
    """Whether a box lies within another."""
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def control_curves(curves, saved):
    """What a saved target call costs in KL, over how many are saved and where families are matched.

    curves: family -> [(share of strict's calls saved, KL in nats per saved call)], above 0; saved:
    the share at which families are matched. On the left are the MARKED families, on the right all
    that can be read off between two of their points there, the cheapest at the top.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 5.2), width_ratios=(4, 3))
    for family in filter(curves.get, MARKED):
        look = CONTROLS[family]
        x, y = zip(*curves[family])
        left.plot(x, y, color=look.colour, marker=look.marker, markersize=6, label=family)
    left.set(
        xscale="log",
        yscale="log",
        xlabel="target calls saved, share of SP's",
        ylabel="KL(o‖p) per saved call, nats",
        title="What a saved target call costs (lower is better)",
    )
    left.xaxis.set_major_formatter(_per_cent)
    if saved > 0:
        left.axvline(saved, color="#888888", linestyle=":", linewidth=1.2, label="matched here")
    if left.get_legend_handles_labels()[1]:
        left.legend(loc="best", fontsize=9.5)
    costs = {family: _read_off(points, saved) for family, points in curves.items()}
    in_order = sorted(filter(costs.get, costs), key=costs.get)
    for place, family in enumerate(in_order):
        look = CONTROLS.get(family, QUIET)
        right.plot(
            costs[family],
            place,
            color=look.colour,
            marker=look.marker,
            markersize=9 if look is QUIET else 7,
            linestyle="none",
        )
    right.set(
        xscale="log",
        xlabel="KL(o‖p) per saved call, nats",
        title=f"Where {100 * saved:.3g} % are saved",
        ylim=(len(in_order) - 0.4, -0.6),
    )
    right.set_yticks(range(len(in_order)), in_order, fontsize=9)
    for axis in (left.yaxis, right.xaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    return fig


def _read_off(points, saved):
    """The KL per saved call where a curve saves that share; None where it does not reach so far.

    On the straight line between the two points beside it, both axes in logarithms.
    """
    points = sorted(points)
    if not points or saved <= 0 or not points[0][0] <= saved <= points[-1][0]:
        return None
    shares, costs = np.log(points).T
    return float(np.exp(np.interp(np.log(saved), shares, costs)))


def matched(table, null):
    """The entropy gate's accuracy less that of each rival that saves as many target calls.

    table: family -> Interval, all holding together; null: (label, Interval) of a difference that is
    known to be 0.
    """
    label, nothing = null
    looks = assign(table, CONTROLS, SPARE) | {label: Look("#bbbbbb", "|")}
    rows = table | {label: nothing}
    names = [*table, f"{label}\n(one 95 % interval)"]
    fig, ax = plt.subplots(figsize=(7.8, 0.5 * len(rows) + 1.5))
    for i, (family, interval) in enumerate(rows.items()):
        look = looks[family]
        ax.errorbar(
            interval.estimate, i, xerr=bar(interval), fmt=look.marker, color=look.colour, capsize=4
        )
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set(
        yticks=range(len(rows)),
        yticklabels=names,
        xlabel="accuracy: entropy gate − rival, points (right: the gate is better)",
        title="At equal savings (intervals right together in 95 % of cases)",
    )
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.6g}")
    ax.invert_yaxis()
    return fig
