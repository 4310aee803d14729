"""The figure of the advice: draft lengths, what relaxing adds and costs, and other machines."""

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import METHODS, SPARE, assign, band, bar, number, point

COSTS = (0.005, 0.02, 0.1, 0.5)  # named on the axis of a draft's cost


def advice(by_gamma, chosen, alone, relaxed, by_cost, region, c):
    """Speed by draft length, relaxed rules against SP, and speed over what a draft costs.

    by_gamma: [(γ, Interval)] in tokens per second; chosen: (label, Interval) of the draft length to
    take; alone: Interval of the target alone. relaxed: rule -> (share of answers with a rescue,
    speed ÷ SP's), two Intervals. by_cost: [(c, Interval)] of the speed ÷ the target's alone;
    region: (least, most) c with the same advice; c: of this machine.
    """
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5))
    _lengths(left, by_gamma, chosen, alone)
    _rules(middle, relaxed)
    _machines(right, by_cost, region, c)
    return fig


def _lengths(ax, by_gamma, chosen, alone):
    gammas = [gamma for gamma, _ in by_gamma]
    band(ax, gammas, [interval for _, interval in by_gamma], "SP, fixed γ", METHODS["SP"])
    label, interval = chosen
    colour = METHODS["SP_entropy+dyn"].colour
    ax.axhspan(interval.low, interval.high, color=colour, alpha=0.15, linewidth=0)
    ax.axhline(interval.estimate, color=colour, linestyle="--", label=f"chosen: SP, {label}")
    ax.axhline(alone.estimate, color=METHODS["AS_large"].colour, label="target alone")
    top = max(interval.high, alone.high, *(i.high for _, i in by_gamma))
    ax.set(
        xlabel="drafted tokens per round, γ",
        ylabel="tokens per second after the prompt",
        title="How many tokens to draft",
        xticks=gammas[::3],
        ylim=(0, 1.05 * top),
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _rules(ax, relaxed):
    looks = assign(relaxed, {}, (*SPARE, *METHODS.values()))
    for label, (rescued, ratio) in relaxed.items():
        point(
            ax,
            rescued.estimate,
            ratio,
            label,
            looks[label],
            xerr=bar(rescued),
            elinewidth=1,
        )
    ax.axhline(1, color=METHODS["SP"].colour, linewidth=1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set(
        xlabel="answers with a rescue (most that accuracy can change)",
        ylabel="tokens per second ÷ SP's",
        title="What a relaxed rule adds, and its price",
        xlim=(0, None),
    )
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _machines(ax, by_cost, region, c):
    costs = [cost for cost, _ in by_cost]
    intervals = [interval for _, interval in by_cost]
    look = METHODS["SP_entropy+dyn"]._replace(marker=None)
    band(ax, costs, intervals, "chosen ÷ target alone", look)
    ax.axvspan(*region, color="#dddddd", alpha=0.6, zorder=0, label="the same advice")
    ax.axhline(1, color=METHODS["AS_large"].colour)
    ax.axvline(c, color="#333333", linestyle=":", label=f"this machine, c = {number(c)}")
    ax.set(
        xscale="log",
        xlabel="c, a drafted token ÷ a token of the target alone",
        ylabel="tokens per second ÷ target alone",
        title="On machines whose draft costs c",
        xticks=COSTS,
        ylim=(0, None),
    )
    ax.set_xticklabels([f"{cost:g}" for cost in COSTS])
    ax.minorticks_off()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
