"""Figures of notebook 05: the gate tau and its rivals."""

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

from helpers.plots.style import MARKERS, band, bar, colour

# ---- 05 ---------------------------------------------------------------------------------------------


def tau_lines(taus, panels, strict, chosen):
    """Three lines over tau. panels: title -> Interval per tau; strict: title -> Interval of SP; chosen: a tau."""
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.9))
    for ax, (title, values) in zip(axes, panels.items()):
        ax.axhspan(
            strict[title].low, strict[title].high, color=colour("SP"), alpha=0.15, linewidth=0
        )
        ax.axhline(strict[title].estimate, color=colour("SP"), linestyle="--", label="SP")
        band(ax, taus, values, "SP_entropy")
        ax.axvline(
            chosen, color="#888888", linewidth=1.2, linestyle=":", label=f"chosen τ = {chosen:g}"
        )
        ax.set(xlabel="entropy gate τ, nats", title=title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def pareto_front(points, front):
    """Accuracy against tokens per second. points: label -> (speed Interval, accuracy Interval); front: labels."""
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    for label, (speed, accuracy) in points.items():
        on = label in front
        c = colour("SP_entropy") if label.startswith("τ") else colour(label)
        ax.errorbar(
            speed.estimate,
            accuracy.estimate,
            color=c,
            fmt="D" if label.startswith("τ") else MARKERS.get(label, "o"),
            xerr=bar(speed),
            capsize=2,
            alpha=1 if on else 0.45,
            yerr=bar(accuracy),
            elinewidth=1,
        )
        if on:
            ax.annotate(
                label,
                (speed.estimate, accuracy.estimate),
                textcoords="offset points",
                xytext=(7, -15 if front.index(label) % 2 else 6),
                fontsize=11,
                weight="bold",
            )
    line = [points[label] for label in front]
    ax.plot(
        [s.estimate for s, _ in line],
        [a.estimate for _, a in line],
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


CONTROLS = {
    "entropy gate, √": ("#D55E00", "D"),
    "random gate, √": ("#888888", "x"),
    "high-entropy gate, √": ("#56B4E9", "v"),
    "max-prob gate, √": ("#0072B2", "s"),
    "target-entropy gate, √": ("#009E73", "^"),
    "power β": ("#CC79A7", "P"),
    "lenience": ("#E69F00", "o"),
    "KL-optimal clip": ("#000000", "*"),
}


def control_curves(curves):
    """Mean KL against acceptance per position, for each family of rules. curves: family -> [(accept, kl)]."""
    fig, ax = plt.subplots(figsize=(7.8, 4.8))
    for family, points in curves.items():
        c, marker = CONTROLS[family]
        ax.plot(
            [a for a, _ in points],
            [k for _, k in points],
            color=c,
            marker=marker,
            markersize=5,
            label=family,
            linewidth=5 if family == "lenience" else 1.6,
            alpha=0.6 if family == "lenience" else 1,
        )  # the clip lies on it
    ax.set(
        xlabel="mean acceptance per position",
        ylabel="mean KL(o‖p), nats",
        title="What acceptance costs (lower is better)",
        ylim=(0, None),
    )
    ax.legend(fontsize=9.5)
    return fig


def matched(table):
    """Controls at equal acceptance. table: family -> {"accept ratio", "accuracy", "KL", "certificate"} Intervals."""
    panels = ("accept ratio", "accuracy", "KL per tested token, nats")
    fig, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True)
    for ax, panel in zip(axes, panels):
        for i, (family, row) in enumerate(table.items()):
            c, marker = CONTROLS.get(family, ("#0072B2", "s"))
            v = row[panel]
            ax.errorbar(v.estimate, i, xerr=bar(v), fmt=marker, color=c, capsize=4)
        ax.set(title=panel, yticks=range(len(table)), yticklabels=list(table))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].invert_yaxis()
    return fig
