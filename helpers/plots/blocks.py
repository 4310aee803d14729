"""Figures of notebooks 06 and 07: how long a drafted block should be."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import MARKERS, bands, bar, colour, point

# ---- 06, 07 -----------------------------------------------------------------------------------------


def policies(static, dynamic):
    """tokens/s over gamma, and each policy at its tuned setting. static: rule -> [(gamma, Interval)];
    dynamic: rule -> {policy: Interval}, all relative to nothing: tokens per second."""
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, width_ratios=(1, 1.25))
    bands(axes[0], static)
    axes[0].set(
        xlabel="static γ, drafted tokens per round",
        ylabel="tokens per second",
        title="Fixed block length",
        xticks=[g for g, _ in next(iter(static.values()))],
    )
    axes[0].legend(loc="lower left")
    for offset, (rule, found) in zip((-0.12, 0.12), dynamic.items()):
        for i, interval in enumerate(found.values()):
            point(axes[1], i + offset, interval, rule if i == 0 else None, color=colour(rule))
    names = list(next(iter(dynamic.values())))
    axes[1].set(xticks=range(len(names)), title="Each policy, tuned on other problems")
    axes[1].set_xticklabels([n.replace(" ", "\n", 1) for n in names], fontsize=9.5)
    axes[0].set_ylim(0, 1.1 * max(i.high for found in dynamic.values() for i in found.values()))
    return fig


def wasted(table):
    """Drafted tokens thrown away per emitted token, and tokens per round. table: policy -> (wasted, per_round) Intervals."""
    fig, ax = plt.subplots(figsize=(9, 4.4))
    rules, policies = (list(dict.fromkeys(x)) for x in zip(*(name.split(" ", 1) for name in table)))
    colours = dict(zip(policies, sns.color_palette("colorblind", len(policies))))
    for name, (waste, per_round) in table.items():
        rule, policy = name.split(" ", 1)
        ax.errorbar(
            waste.estimate,
            per_round.estimate,
            xerr=bar(waste),
            yerr=bar(per_round),
            color=colours[policy],
            fmt=MARKERS.get(rule, "o"),
            capsize=3,
        )
    ax.set(
        xlabel="drafted tokens thrown away per emitted token",
        ylabel="tokens per target call",
        title="Fewer calls or fewer wasted drafts?",
    )
    ax.legend(
        handles=[
            Line2D([], [], color=c, marker="o", linestyle="none", label=p)
            for p, c in colours.items()
        ]
        + [
            Line2D([], [], color="#555555", marker=MARKERS.get(r, "o"), linestyle="none", label=r)
            for r in rules
        ],
        fontsize=10,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return fig


def aggressive(speed, accuracy, rivals):
    """Speed and accuracy over gamma. speed, accuracy: method -> [(gamma, Interval)]; rivals: label -> (speed, accuracy)."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.3))
    for ax, curves, i, name in (
        (axes[0], speed, 0, "tokens per second"),
        (axes[1], accuracy, 1, "accuracy"),
    ):
        bands(ax, curves)
        for label, pairs in rivals.items():
            ax.axhspan(pairs[i].low, pairs[i].high, color=colour(label), alpha=0.12, linewidth=0)
            ax.axhline(
                pairs[i].estimate, color=colour(label), linestyle=":", label=f"{label} (no γ)"
            )
        ax.set(
            xlabel="drafted tokens per round, γ",
            title=name,
            xticks=[g for g, _ in next(iter(curves.values()))],
        )
    axes[0].set_ylim(0, None)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    fig.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(speed) + len(rivals),
    )
    return fig
