"""Figures of notebook 05: the gate tau and its rivals."""

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

from helpers.plots.style import METHODS, SPARE, Look, assign, band, bar, method_looks

# Families of rules that notebook 05 compares; one of the reader's own gets a look from SPARE.
CONTROLS = {
    "entropy gate, √": Look("#D55E00", "D"),
    "random gate, √": Look("#888888", "x"),
    "high-entropy gate, √": Look("#56B4E9", "v"),
    "max-prob gate, √": Look("#0072B2", "s"),
    "target-entropy gate, √": Look("#009E73", "^"),
    "power β": Look("#CC79A7", "P"),
    "lenience": Look("#E69F00", "o"),
    "KL-optimal clip": Look("#000000", "*"),
}


def tau_lines(taus, panels, strict, chosen):
    """Three lines over tau.

    taus: nats; panels: title -> an Interval per tau; strict: title -> Interval of SP; chosen: one
    of the taus.
    """
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.9))
    sp = METHODS["SP"].colour
    for ax, (title, intervals) in zip(axes, panels.items()):
        ax.axhspan(strict[title].low, strict[title].high, color=sp, alpha=0.15, linewidth=0)
        ax.axhline(strict[title].estimate, color=sp, linestyle="--", label="SP")
        band(ax, taus, intervals, "SP_entropy", METHODS["SP_entropy"])
        ax.axvline(
            chosen, color="#888888", linewidth=1.2, linestyle=":", label=f"chosen τ = {chosen:g}"
        )
        ax.set(xlabel="entropy gate τ, nats", title=title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def pareto_front(points, front):
    """Accuracy against tokens per second.

    points: label -> (speed, accuracy), two Intervals; front: the labels on the Pareto front. Labels
    that begin with τ are SP_entropy.
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
        xlabel="tokens per second",
        ylabel="accuracy",
        title="Speed against accuracy (named: on the Pareto front)",
    )
    ax.margins(y=0.12)  # room for a name at the top
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    return fig


def control_curves(curves):
    """Mean KL against acceptance per position, for each family of rules.

    curves: family -> [(acceptance, KL in nats)].
    """
    fig, ax = plt.subplots(figsize=(7.8, 4.8))
    looks = assign(curves, CONTROLS, SPARE)
    for family, points in curves.items():
        wide = family == "lenience"  # the clip lies on it, and both are to be seen
        ax.plot(
            [acceptance for acceptance, _ in points],
            [kl for _, kl in points],
            color=looks[family].colour,
            marker=looks[family].marker,
            markersize=5,
            label=family,
            linewidth=5 if wide else 1.6,
            alpha=0.6 if wide else 1,
        )
    ax.set(
        xlabel="mean acceptance per position",
        ylabel="mean KL(o‖p), nats",
        title="What acceptance costs (lower is better)",
        ylim=(0, None),
    )
    ax.legend(fontsize=9.5)
    return fig


def matched(table):
    """Families of rules at equal acceptance, one panel per measure.

    table: family -> {"accept ratio", "accuracy", "KL per tested token, nats"} -> Interval.
    """
    panels = ("accept ratio", "accuracy", "KL per tested token, nats")
    fig, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True)
    looks = assign(table, CONTROLS, SPARE)
    for ax, panel in zip(axes, panels):
        for i, (family, measured) in enumerate(table.items()):
            look = looks[family]
            interval = measured[panel]
            ax.errorbar(
                interval.estimate,
                i,
                xerr=bar(interval),
                fmt=look.marker,
                color=look.colour,
                capsize=4,
            )
        ax.set(title=panel, yticks=range(len(table)), yticklabels=list(table))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].invert_yaxis()
    return fig
