"""The figure of the advice: draft lengths, what relaxing adds and costs, and other machines."""

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import METHODS, SPARE, Look, band, bar, number, point

COSTS = (0.005, 0.02, 0.1, 0.5)  # named on the axis of a draft's cost
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # on that of answers with a rescue
# Rules of a kind have one colour, and a marker each.
KINDS = {
    "√": METHODS["SP_entropy"].colour,
    "SP_entropy": METHODS["SP_entropy"].colour,
    "lenience": METHODS["AS_small"].colour,
    "ensemble": METHODS["Selective"].colour,
    "accept all": METHODS["SP_aggressive"].colour,
}
MARKERS = "osD^v<>p"


def advice(by_gamma, chosen, alone, relaxed, by_cost, region, c):
    """Speed by draft length, relaxed rules against SP, and speed over what a draft costs.

    by_gamma: [(γ, Interval)] in tokens per second; chosen: (label, Interval) of the draft length to
    take; alone: Interval of the target alone. relaxed: rule -> (share of answers with a rescue,
    speed ÷ SP's), two Intervals. by_cost: [(c, Interval)] of the speed ÷ the target's alone;
    region: (least, most) c with the same advice; c: of this machine.
    """
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(15.5, 5.8), width_ratios=(1, 1.2, 1))
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
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15))


def _rules(ax, relaxed):
    looks = _looks(relaxed)
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
    ax.set(
        xlabel="answers with a rescue (accuracy changes by no more)",
        ylabel="tokens per second ÷ SP's",
        title="What a relaxed rule adds, and its price",
        xlim=(0, None),
    )
    if all(rescued.low > 0 for rescued, _ in relaxed.values()):
        ends = [end for rescued, _ in relaxed.values() for end in (rescued.low, rescued.high)]
        ax.set(xscale="log", xlim=(0.8 * min(ends), 1.25 * max(ends)))
        ax.set_xticks([share for share in SHARES if min(ends) <= share <= max(ends)])
        ax.minorticks_off()
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _looks(labels):
    """Label -> Look: a colour by kind, a marker by place."""
    looks = {}
    spare = SPARE[0].colour
    for label in labels:
        colour = next((KINDS[kind] for kind in KINDS if label.startswith(kind)), spare)
        beside = sum(look.colour == colour for look in looks.values())
        looks[label] = Look(colour, MARKERS[beside % len(MARKERS)])
    return looks


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
        xlabel="c, a drafted token ÷ a token of the target",
        ylabel="tokens per second ÷ target alone",
        title="On machines whose draft costs c",
        xticks=COSTS,
        ylim=(0, None),
    )
    ax.set_xticklabels([f"{cost:g}" for cost in COSTS])
    ax.minorticks_off()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15))
