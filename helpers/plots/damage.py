"""Figures of notebook 04: what relaxing saves and what it harms."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import NATS, band, point

# ---- 04 ---------------------------------------------------------------------------------------------

FATES = {"accepted by both": "#0072B2", "rescued": "#E69F00", "rejected": "#444444"}


def fates(by_entropy, by_slot, tau):
    """What became of drafted tokens, by draft entropy and by slot. Tables: where, n, and a share per fate in FATES."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, width_ratios=(3, 2))
    for ax, table, name in zip(axes, (by_entropy, by_slot), (NATS, "slot in the drafted block")):
        bottom = np.zeros(len(table))
        for fate, c in FATES.items():
            ax.bar(range(len(table)), table[fate], bottom=bottom, color=c, label=fate, width=0.85)
            bottom += table[fate].to_numpy()
        ax.set(xticks=range(len(table)), xlabel=f"{name} (n below)", ylim=(0, 1))
        ax.set_xticklabels([f"{w}\n{n:,}" for w, n in zip(table["where"], table.n)], fontsize=9)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="share of tested tokens", title="√ rule everywhere")
    axes[1].set(title=f"SP_entropy, τ = {tau:g}")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def rescue_cost(centres, tv, rescued, overshoot):
    """Damage by entropy. tv, rescued: Interval per bin centre (nats); overshoot: quantile name -> value per bin."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    band(axes[0], centres, tv, "TV(o, p), computed", color="#D55E00")
    band(
        axes[0],
        centres,
        rescued,
        "share rescued, counted",
        color="#0072B2",
        linestyle="none",
        marker="s",
    )
    axes[0].set(
        xlabel=NATS,
        ylabel="per tested position",
        title="Every rescue is damage: computed and counted",
        ylim=(0, None),
    )
    axes[0].legend()
    for (name, values), c in zip(overshoot.items(), ("#56B4E9", "#0072B2", "#000000")):
        axes[1].plot(centres, values, marker="o", color=c, label=name)
    axes[1].set(
        xlabel=NATS,
        ylabel="max over tokens of o / p",
        yscale="log",
        title="How far one token is inflated",
    )
    axes[1].legend()
    return fig


def fork_harm(names, flips, losses):
    """Forks by entropy bin. flips: share whose grade changed; losses: accuracy of strict minus rescued. Intervals."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, values, c, title in (
        (axes[0], flips, "#0072B2", "Grade differs between the two branches"),
        (axes[1], losses, "#D55E00", "Accuracy lost by keeping the rescued token"),
    ):
        for i, interval in enumerate(values):
            point(ax, i, interval, None, color=c)
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
    axes[0].set_ylim(bottom=0)
    return fig
