"""Figures of notebook 05: the gate tau and its rivals."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from helpers.plots.style import METHODS, SPARE, Look, assign, band, bar, method_looks

# The families of rules that notebook 05 speaks of; all others are thin grey lines with a label.
CONTROLS = {
    "entropy gate, √": Look("#D55E00", "D"),
    "random gate, √": Look("#888888", "x"),
    "high-entropy gate, √": Look("#56B4E9", "v"),
    "max-prob gate, √": Look("#0072B2", "s"),
    "lenience": Look("#E69F00", "o"),
    "clip at a fixed level": Look("#CC79A7", "P"),
    "optimum (one price)": Look("#000000", "*"),
}
MARKED = ("entropy gate, √", "random gate, √", "lenience", "optimum (one price)")
QUIET = "#b5b5b5"
LINE = 0.045  # height of a label, of an axis
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
    """What a saved target call costs in KL over how many are saved, for each family of rules.

    curves: family -> [(share of strict's calls saved, KL in nats per saved call)], above 0; saved:
    the share at which families are matched. A family that is not MARKED is a thin grey line; its
    name stands at the right.
    """
    fig, ax = plt.subplots(figsize=(8.8, 5.2))
    for family, points in curves.items():
        x = [share for share, _ in points]
        y = [kl for _, kl in points]
        if family in MARKED:
            look = CONTROLS[family]
            ax.plot(x, y, color=look.colour, marker=look.marker, markersize=6, label=family)
        else:
            ax.plot(x, y, color=QUIET, linewidth=1, marker=".", markersize=4, zorder=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="target calls saved, share of SP's",
        ylabel="KL(o‖p) per saved call, nats",
        title="What a saved target call costs (lower is better)",
    )
    ax.xaxis.set_major_formatter(_per_cent)
    if saved > 0:
        ax.axvline(saved, color="#888888", linestyle=":", linewidth=1.2, label="matched here")
    if ax.get_legend_handles_labels()[1]:
        fig.legend(loc="outside lower center", ncols=3, fontsize=9.5)
    _name_at_the_right(ax, {name: p[-1] for name, p in curves.items() if name not in MARKED and p})
    return fig


def _name_at_the_right(ax, ends):
    """Names of lines in a column beside the axes, each joined to its line's end.

    ends: name -> (x, y) in data.
    """
    to_axes = ax.transData + ax.transAxes.inverted()
    height = {name: to_axes.transform(end)[1] for name, end in ends.items()}
    places = []
    for name in sorted(ends, key=height.get):
        lowest = places[-1] + LINE if places else 0.0
        places.append(max(height[name], lowest))
    too_high = max(places, default=0.0) - 1
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling) if too_high > 0 else places[i]
        ceiling = places[i] - LINE
    for name, place in zip(sorted(ends, key=height.get), places):
        ax.annotate(
            name,
            ends[name],
            xytext=(1.04, place),
            textcoords=ax.transAxes,
            fontsize=9,
            color="#555555",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": "#dddddd",
                "linewidth": 0.7,
                "relpos": (0, 0.5),
            },
        )


def matched(table, null):
    """The entropy gate's accuracy less that of each rival that saves as many target calls.

    table: family -> Interval, all holding together; null: (label, Interval) of a difference that is
    known to be 0.
    """
    label, nothing = null
    looks = assign(table, CONTROLS, SPARE) | {label: Look("#bbbbbb", "|")}
    rows = table | {label: nothing}
    fig, ax = plt.subplots(figsize=(7.8, 0.5 * len(rows) + 1.5))
    for i, (family, interval) in enumerate(rows.items()):
        look = looks[family]
        ax.errorbar(
            interval.estimate, i, xerr=bar(interval), fmt=look.marker, color=look.colour, capsize=4
        )
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set(
        yticks=range(len(rows)),
        yticklabels=list(rows),
        xlabel="accuracy: entropy gate − rival, points (right: the gate is better)",
        title="At equal savings",
    )
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.6g}")
    ax.invert_yaxis()
    return fig
