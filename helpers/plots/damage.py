"""Figures of notebook 04: what relaxing saves and what it harms."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, PercentFormatter

from helpers.plots.style import NATS, SPARE_COLOURS, Look, band, point

FATES = {"accepted by both": "#0072B2", "rescued": "#E69F00", "rejected": "#444444"}
QUANTILES = ("#56B4E9", "#0072B2", "#000000", *SPARE_COLOURS)
HARM = "#D55E00"
COUNTED = FATES["rescued"]


def _points(share, _):
    """A tick's label: a difference of shares in points."""
    return f"{100 * share:.6g}"


def fates(by_entropy, by_slot, tau):
    """What became of drafted tokens, by draft entropy and by slot.

    Both tables: where (a name), n, and a share per fate in FATES. tau: the gate of by_slot, nats.
    The share that is rescued, in per cent, stands above each column: it can be too thin to see.
    """
    fig, axes = plt.subplots(1, 2, figsize=(12.5, 4.4), sharey=True, width_ratios=(3, 2))
    for ax, table, name in zip(axes, (by_entropy, by_slot), (NATS, "place in the drafted block")):
        bottom = np.zeros(len(table))
        for fate, colour in FATES.items():
            x = range(len(table))
            ax.bar(x, table[fate], bottom=bottom, color=colour, label=fate, width=0.85)
            bottom += table[fate].to_numpy()
        for place, share in enumerate(table["rescued"]):
            percent = f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"
            ax.text(place, 1.01, percent, ha="center", va="bottom", fontsize=9)
        ax.set(xticks=range(len(table)), xlabel=f"{name} (n below)", ylim=(0, 1))
        ticks = [f"{where}\n{n:,}" for where, n in zip(table["where"], table.n)]
        ax.set_xticklabels(ticks, fontsize=9)
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="share of tested tokens")
    axes[0].set_title("√ rule everywhere (above: % rescued)", pad=20)
    axes[1].set_title(f"SP_entropy, τ = {tau:g}", pad=20)
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
        title="Distance from the target, and rescues",
        ylim=(0, None),
    )
    left.legend(loc="upper left")
    for (name, values), colour in zip(overshoot.items(), cycle(QUANTILES)):
        right.plot(centres, values, marker="o", color=colour, label=name)
    right.set(
        xlabel=NATS,
        ylabel="largest o(x) / p(x) of all tokens x",
        yscale="log",
        title="Overshoot: the most inflated token",
    )
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("")
    right.legend(
        title="quantiles over positions",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=len(overshoot),
    )
    return fig


def rescue_harm(gates, harm, placebo, answers):
    """What one rescue costs, and what an answer's rescues cost.

    gates: names of the gates, from the lowest to none (no name: no fork has a grade); harm,
    placebo: an Interval per gate; answers: rule -> measure -> Interval, accuracy that an answer
    loses.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), width_ratios=(3, 2))
    rows = {"rescued token": (harm, Look(HARM, "o")), "placebo": (placebo, Look("#777777", "s"))}
    for i, (name, (intervals, look)) in enumerate(rows.items()):
        for k, interval in enumerate(intervals):
            point(left, k + 0.2 * (i - 0.5), interval, None if k else name, look)
    left.axhline(0, color="#888888", linewidth=1)
    left.set(
        xticks=range(len(gates)),
        xticklabels=gates,
        xlabel="rescues at H(q) ≤ τ, nats",
        ylabel="accuracy lost per rescue, points",
        title="What one rescue costs, by gate",
    )
    if gates:
        left.legend()
    else:
        left.text(0.5, 0.5, "no graded forks", transform=left.transAxes, ha="center")
    measures = list(dict.fromkeys(name for values in answers.values() for name in values))
    looks = dict(zip(measures, (Look(HARM, "o"), Look(COUNTED, "D"), Look("#000000", "v"))))
    for k, values in enumerate(answers.values()):
        for i, measure in enumerate(values):
            label = None if k else measure
            point(right, k + 0.22 * (i - 1), values[measure], label, looks[measure])
    right.axhline(0, color="#888888", linewidth=1)
    right.set(
        xticks=range(len(answers)),
        xticklabels=answers,
        xlim=(-0.5, len(answers) - 0.5),
        ylabel="accuracy lost, points",
        title="What an answer loses",
    )
    for ax in (left, right):
        ax.yaxis.set_major_formatter(_points)
        ax.grid(axis="x", visible=False)
    handles, names = right.get_legend_handles_labels()
    right.legend(handles, names, loc="upper left")
    right.set_ylim(top=1.3 * right.get_ylim()[1])
    return fig
