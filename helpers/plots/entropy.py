"""Figures of notebook 01: does the draft's entropy mark errors?"""

import matplotlib.pyplot as plt
import numpy as np

from helpers.plots.style import band

# ---- 01 ---------------------------------------------------------------------------------------------


def answer_entropy(answers):
    """Mean draft entropy of right and wrong answers. Columns: right (bool), mean_H (nats)."""
    fig, ax = plt.subplots(figsize=(7, 4))
    rng = np.random.default_rng(0)
    for i, (right, name, c) in enumerate(((True, "right", "#009E73"), (False, "wrong", "#D55E00"))):
        values = answers.loc[answers.right == right, "mean_H"].to_numpy()
        if not len(values):
            continue
        ax.scatter(
            i + rng.uniform(-0.18, 0.18, len(values)),
            values,
            s=14,
            color=c,
            alpha=0.35,
            linewidth=0,
        )
        ax.boxplot(
            values,
            positions=[i],
            widths=0.5,
            showfliers=False,
            medianprops={"color": "black", "linewidth": 2},
        )
        ax.text(
            i + 0.3,
            np.median(values),
            f" median {np.median(values):.3f}\n n = {len(values)}",
            va="center",
            fontsize=10.5,
        )
    ax.set(
        xticks=[0, 1],
        xticklabels=["right answers", "wrong answers"],
        ylabel="mean draft entropy of an answer, nats",
        title="The draft's own answers: entropy of right and wrong ones",
        xlim=(-0.5, 1.75),
    )
    return fig


def signal_roc(curves, areas):
    """ROC of each signal for `the target rejects the draft's token`. curves: name -> (x, y); areas: name -> Interval."""
    fig, ax = plt.subplots(figsize=(5.6, 5))
    for (name, (x, y)), c, dash in zip(
        curves.items(), ("#D55E00", "#0072B2", "#009E73"), ("-", "--", ":")
    ):
        ax.plot(x, y, dash, color=c, label=f"{name}: {areas[name].show(3)}")
    ax.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    ax.set(
        xlabel="share of accepted tokens flagged",
        ylabel="share of rejected tokens flagged",
        xlim=(0, 1),
        ylim=(0, 1),
        title="Finding the tokens that the target rejects",
    )
    ax.legend(title="AUROC [95 %]", loc="lower right")
    return fig


def divergence_curve(offsets, intervals, rest, where="answers without a rejection"):
    """Entropy around the divergence point. offsets: ints; intervals: one per offset; rest: Interval elsewhere, and where that is."""
    fig, ax = plt.subplots(figsize=(7.5, 4))
    band(ax, offsets, intervals, "around the first rejection", color="#D55E00")
    ax.axhspan(rest.low, rest.high, color="#0072B2", alpha=0.2)
    ax.axhline(rest.estimate, color="#0072B2", label=where)
    ax.axvline(0, color="#888888", linewidth=1)
    ax.set(
        xlabel="position relative to the first rejected token",
        ylabel="mean draft entropy, nats",
        title="Entropy at the point of divergence (target's answers, teacher-forced)",
        ylim=(0, None),
    )
    ax.legend()
    return fig
