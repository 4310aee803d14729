"""Figures of notebook 05: the gate tau and its rivals."""

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

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
    Pareto front. Labels that begin with τ are SP_entropy.
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
        if label in front:
            # neighbours are named on different sides of their points
            below = front.index(label) % 2
            ax.annotate(
                label,
                (speed.estimate, accuracy.estimate),
                textcoords="offset points",
                xytext=(7, -15 if below else 6),
                fontsize=11,
                weight="bold",
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
        title="Speed against accuracy (named: on the Pareto front)",
    )
    ax.margins(y=0.12)  # room for a name at the top
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_formatter(_per_cent)
    return fig


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
        xlabel="accuracy: entropy gate − rival (right: the gate is better)",
        title="At equal savings",
    )
    ax.xaxis.set_major_formatter(_per_cent)
    ax.invert_yaxis()
    return fig
