"""Figures of notebook 04: what relaxing saves and what it harms."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import NATS, SPARE_COLOURS, Look, band, point

FATES = {"accepted by both": "#0072B2", "rescued": "#E69F00", "rejected": "#444444"}
QUANTILES = ("#56B4E9", "#0072B2", "#000000", *SPARE_COLOURS)
HARM = "#D55E00"
COUNTED = "#0072B2"


def fates(by_entropy, by_slot, tau):
    """What became of drafted tokens, by draft entropy and by slot.

    Both tables: where (a name), n, and a share per fate in FATES. tau: the gate of by_slot, nats.
    """
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, width_ratios=(3, 2))
    for ax, table, name in zip(axes, (by_entropy, by_slot), (NATS, "slot in the drafted block")):
        bottom = np.zeros(len(table))
        for fate, colour in FATES.items():
            x = range(len(table))
            ax.bar(x, table[fate], bottom=bottom, color=colour, label=fate, width=0.85)
            bottom += table[fate].to_numpy()
        ax.set(xticks=range(len(table)), xlabel=f"{name} (n below)", ylim=(0, 1))
        ticks = [f"{where}\n{n:,}" for where, n in zip(table["where"], table.n)]
        ax.set_xticklabels(ticks, fontsize=9)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="share of tested tokens", title="√ rule everywhere")
    axes[1].set(title=f"SP_entropy, τ = {tau:g}")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def rescue_cost(centres, tv, rescued, overshoot):
    """Damage by entropy.

    centres: of the bins, nats; tv, rescued: an Interval per bin; overshoot: quantile's name -> a
    value per bin.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    band(left, centres, tv, "TV(o, p), computed", Look(HARM, "o"))
    band(
        left,
        centres,
        rescued,
        "share rescued, counted",
        Look(COUNTED, "s"),
        linestyle="none",
    )
    left.set(
        xlabel=NATS,
        ylabel="per tested position",
        title="Every rescue is damage: computed and counted",
        ylim=(0, None),
    )
    left.legend()
    for (name, values), colour in zip(overshoot.items(), cycle(QUANTILES)):
        right.plot(centres, values, marker="o", color=colour, label=name)
    right.set(
        xlabel=NATS,
        ylabel="max over tokens of o / p",
        yscale="log",
        title="How far one token is inflated",
    )
    right.legend()
    return fig


def fork_harm(names, flips, losses):
    """Forks by entropy bin.

    names: of the bins; flips: the share whose grade changed; losses: accuracy of the strict branch
    minus that of the rescued one. An Interval per bin, whose n is a number of problems.
    """
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    _forks(axes[0], names, flips, COUNTED, "Grade differs between the two branches")
    _forks(axes[1], names, losses, HARM, "Accuracy lost by keeping the rescued token")
    axes[0].set_ylim(bottom=0)
    return fig


def _forks(ax, names, intervals, colour, title):
    """One measure of the forks, a point for each bin."""
    for i, interval in enumerate(intervals):
        point(ax, i, interval, None, Look(colour, "o"))
        ax.annotate(
            f"n = {interval.n}",
            (i, interval.high),
            textcoords="offset points",
            xytext=(0, 4),
            ha="center",
            fontsize=9,
        )
    ax.axhline(0, color="#888888", linewidth=1)
    ax.set(
        xticks=range(len(names)),
        xlabel=f"{NATS} (n: problems)",
        title=title,
        xlim=(-0.5, len(names) - 0.5),
    )
    ax.set_xticklabels(names, fontsize=10)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.margins(y=0.12)
