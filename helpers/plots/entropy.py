"""Figures of notebook 01: does the draft's entropy mark errors?"""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np

from helpers.plots.style import SPARE_COLOURS, Look, band

RIGHT = "#009E73"
WRONG = "#D55E00"
ELSEWHERE = "#0072B2"
SIGNALS = ("#D55E00", "#0072B2", "#009E73", *SPARE_COLOURS)
DASHES = ("-", "--", ":")


def answer_entropy(answers, why_none=""):
    """Mean draft entropy of right and wrong answers.

    answers: a table with columns right (bool) and mean_H (nats); why_none: what is said where it
    has no row ("no reference").
    """
    fig, ax = plt.subplots(figsize=(7, 4))
    if answers.empty:
        ax.text(0.5, 0.5, why_none, transform=ax.transAxes, ha="center", va="center")
    rng = np.random.default_rng(0)
    for i, (right, colour) in enumerate(((True, RIGHT), (False, WRONG))):
        entropies = answers.loc[answers.right == right, "mean_H"].to_numpy()
        if not len(entropies):
            continue
        x = i + rng.uniform(-0.18, 0.18, len(entropies))
        ax.scatter(x, entropies, s=14, color=colour, alpha=0.35, linewidth=0)
        ax.boxplot(
            entropies,
            positions=[i],
            widths=0.5,
            showfliers=False,
            medianprops={"color": "black", "linewidth": 2},
        )
        median = np.median(entropies)
        words = f" median {median:.3f}\n n = {len(entropies)}"
        ax.text(i + 0.3, median, words, va="center", fontsize=10.5)
    ax.set(
        xticks=[0, 1],
        xticklabels=["right answers", "wrong answers"],
        ylabel="mean draft entropy of an answer, nats",
        title="The draft's own answers, right and wrong",
        xlim=(-0.5, 1.75),
    )
    return fig


def signal_roc(curves, areas):
    """ROC curve of each signal for the event that the target rejects the draft's token.

    curves: signal -> (x, y); areas: signal -> Interval.
    """
    fig, ax = plt.subplots(figsize=(5.6, 5))
    for (name, (x, y)), colour, dash in zip(curves.items(), cycle(SIGNALS), cycle(DASHES)):
        ax.plot(x, y, dash, color=colour, label=f"{name}: {areas[name].show(3)}")
    ax.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    ax.text(0.62, 0.57, "chance", rotation=45, color="#777777", ha="center", va="center")
    ax.set(
        xlabel="share of accepted tokens flagged",
        ylabel="share of rejected tokens flagged",
        xlim=(0, 1),
        ylim=(0, 1),
        title="Finding the tokens that the target rejects",
    )
    ax.legend(title="area (AUROC) [95 % interval]", loc="lower right")
    return fig


def divergence_curve(offsets, intervals, rest, where="answers without a rejection"):
    """Entropy around the divergence point.

    offsets: ints; intervals: one per offset; rest: the Interval elsewhere, and where that is.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4))
    band(ax, offsets, intervals, "around the first rejection", Look(WRONG, "o"))
    ax.axhspan(rest.low, rest.high, color=ELSEWHERE, alpha=0.2)
    ax.axhline(rest.estimate, color=ELSEWHERE, label=where)
    ax.axvline(0, color="#888888", linewidth=1)
    ax.set(
        xlabel="position relative to the first rejected token",
        ylabel="mean draft entropy, nats",
        title="The draft's entropy around the first token that the target rejects",
        ylim=(0, None),
    )
    ax.legend()
    return fig
