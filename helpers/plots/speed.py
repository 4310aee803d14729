"""Figures of notebook 03 and of the benchmark: speed, acceptance and accuracy by method."""

import math

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import (
    METHODS,
    SPARE,
    assign,
    bands,
    bar,
    method_looks,
    number,
    point,
)

# ---- 03 ----------------------------------------------------------------------------------------

PANELS = {
    "tokens_per_s": "tokens per second",
    "accept_ratio": "accept ratio",
    "tokens_per_round": "tokens per target call",
    "score": "accuracy",
}
SHARES = ("accept_ratio", "score")  # panels in per cent


def benchmark(table, gammas):
    """Speed, acceptance and accuracy by method.

    table: method -> {panel: Interval or None}, panels as in PANELS; gammas: method -> γ.
    """
    fig, axes = plt.subplots(2, 2, figsize=(9.5, 6.2))
    looks = method_looks(table)
    for ax, (panel, name) in zip(axes.flat, PANELS.items()):
        measured = {}
        for method, by_panel in table.items():
            if by_panel.get(panel) is not None:
                measured[method] = by_panel[panel]
        for i, (method, interval) in enumerate(measured.items()):
            _column(ax, i, interval, looks[method].colour, _written(panel, interval.estimate))
        tops = [i.high for i in measured.values() if not math.isnan(i.high)]
        sizes = [i.n for i in measured.values()]
        ax.set(
            xticks=range(len(measured)),
            title=f"{name} ({max(sizes)} problems)" if sizes else name,
            ylim=(0, 1.15 * max(tops, default=0) or 1),
        )
        ticks = [f"{m}\nγ = {gammas[m]}" if m in gammas else m for m in measured]
        ax.set_xticklabels(ticks, fontsize=10.5)
        ax.grid(axis="x", visible=False)
        if panel in SHARES:
            ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return fig


def _written(panel, value):
    """A column's number in the unit of its panel."""
    if panel in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if panel == "tokens_per_round" else number(value)


def _column(ax, x, interval, colour, words):
    """One method's estimate as a column with its number, or why there is none ("no reference")."""
    if interval.missing:
        ax.text(x, 0, interval.missing, ha="center", va="bottom", fontsize=10.5)
        return
    ax.bar(
        x,
        interval.estimate,
        color=colour,
        alpha=0.85,
        yerr=bar(interval),
        capsize=4,
        error_kw={"linewidth": 1.5},
    )
    ax.annotate(
        words,
        (x, interval.high),
        xytext=(0, 3),  # above the bar's cap, not on it
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=10.5,
    )


def gamma_speed(curves, timed):
    """Tokens per second over gamma.

    curves: label -> [(gamma, Interval)]; timed: label -> (gamma, Interval) of timed answers, which
    stand beside the lines where those are predictions; may be empty.
    """
    fig, ax = plt.subplots(figsize=(7, 4))
    looks = method_looks([*curves, *timed])
    gammas = [gamma for gamma, _ in next(iter(curves.values()))]
    bands(ax, curves, looks)
    for i, (label, (gamma, interval)) in enumerate(timed.items()):
        # beside one another, or the second would hide the first
        x = gamma + 0.25 * (i - (len(timed) - 1) / 2)
        hollow = {"markerfacecolor": "white", "markersize": 9}
        point(ax, x, interval, f"{label}: timed", looks[label], **hollow)
    ax.set(
        xlabel="drafted tokens per round, γ",
        ylabel="tokens per second",
        title="Block length and speed",
        ylim=(0, None),
        xticks=gammas,
    )
    ax.legend(loc="lower right")
    return fig


# ---- the benchmark -----------------------------------------------------------------------------

ALONE = {"draft": METHODS["AS_small"], "target": METHODS["AS_large"]}


def race(speed, peers):
    """Tokens per second of every contestant.

    speed: label -> Interval; peers: labels that are not ours, grey and hatched.
    """
    fig, ax = plt.subplots(figsize=(9, 0.45 * len(speed) + 1.4))
    looks = method_looks(label for label in speed if label not in peers)
    for i, (label, interval) in enumerate(speed.items()):
        ax.barh(
            i,
            interval.estimate,
            xerr=bar(interval),
            color="#BBBBBB" if label in peers else looks[label].colour,
            alpha=0.85,
            capsize=3,
            hatch="//" if label in peers else None,
            edgecolor="white",
        )
        ax.text(interval.high, i, f"  {number(interval.estimate)}", va="center", fontsize=10.5)
    ax.set(
        yticks=range(len(speed)),
        yticklabels=list(speed),
        xlabel="tokens per second after the prompt",
        title="Same weights, same prompts (hatched: other programs)",
        xlim=(0, 1.15 * max(interval.high for interval in speed.values())),
    )
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return fig


def growth(milliseconds):
    """Milliseconds per token against the context's length.

    milliseconds: model -> [(context, ms)].
    """
    fig, ax = plt.subplots(figsize=(7, 4))
    looks = assign(milliseconds, ALONE, SPARE)
    for name, points in milliseconds.items():
        contexts, times = zip(*points)
        ax.plot(contexts, times, marker="o", color=looks[name].colour, label=name)
    ax.set(
        xlabel="context, tokens",
        ylabel="milliseconds per token",
        title="What a longer context costs",
        ylim=(0, None),
    )
    ax.legend()
    return fig
