"""Figures of notebooks 06 and 07: how long a drafted block should be."""

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import METHODS, SPARE, assign, bands, bar, method_looks, point

# Where policies of one rule stand side by side, these two look as in the other figures.
POLICIES = {"fixed γ": METHODS["SP"], "entropy stop": METHODS["SP_entropy+dyn"]}
COSTS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # named on the axis of a draft's cost


def policies(static, dynamic):
    """Tokens per second over gamma, and of each policy at its tuned setting.

    static: rule -> [(gamma, Interval)]; dynamic: rule -> {policy: Interval}, of which the first is
    the fixed gamma.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, width_ratios=(1, 1.25))
    looks = method_looks([*static, *dynamic])
    bands(left, static, looks)
    left.set(
        xlabel="fixed γ, drafted tokens per round",
        ylabel="tokens per second",
        title="Fixed γ (bands: over problems)",
        xticks=_gammas(static),
    )
    left.legend(loc="lower left")
    top = 0.0  # of all intervals on the right
    for k, (rule, by_policy) in enumerate(dynamic.items()):
        offset = 0.24 * (k - (len(dynamic) - 1) / 2)
        for i, interval in enumerate(by_policy.values()):
            # the fixed gamma has its rule's marker, as on the left; policies that stop are circles
            look = looks[rule] if i == 0 else looks[rule]._replace(marker="o")
            point(right, i + offset, interval, rule if i == 0 else None, look)
            top = max(top, interval.high)
    names = list(next(iter(dynamic.values())))
    right.set(
        xticks=range(len(names)),
        title="Stops, tuned on other problems (bars: over problems and times of steps)",
    )
    right.title.set_fontsize(11)
    ticks = [name.replace(" ", "\n", 1) for name in names]
    # The fixed gamma is the best one of these very problems: it has no gain to lose.
    right.set_xticklabels(["best fixed γ\n(hindsight)", *ticks[1:]], fontsize=9.5)
    left.set_ylim(0, 1.1 * top)
    return fig


def gain_shares(shares):
    """What part of the oracle's gain over the best fixed gamma every policy reaches.

    shares: rule -> {policy: Interval}; 0 is the best fixed gamma, 1 the oracle.
    """
    looks = method_looks(shares)
    names = list(dict.fromkeys(name for by_policy in shares.values() for name in by_policy))
    fig, ax = plt.subplots(figsize=(8.5, 1.6 + 0.48 * len(names)))
    for k, (rule, by_policy) in enumerate(shares.items()):
        offset = 0.22 * (k - (len(shares) - 1) / 2)
        for i, (name, interval) in enumerate(by_policy.items()):
            ax.errorbar(
                interval.estimate,
                names.index(name) + offset,
                xerr=bar(interval),
                color=looks[rule].colour,
                fmt=looks[rule].marker,
                capsize=4,
                label=rule if i == 0 else None,
            )
    ax.axvline(0, color="black", linewidth=1)
    ax.axvline(1, color="black", linewidth=1, linestyle=":")
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set(
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.4, -0.6),
        xlabel="share of the gain, 0 % = best fixed γ, 100 % = the oracle",
        title="How much of the oracle's gain each policy reaches",
    )
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(shares))
    return fig


def over_costs(table, here, published, ylabel):
    """Speed against a baseline over what the draft costs, with machines marked.

    table: x, method, baseline, ratio, low, high (judging.over_machines); here: this machine's c;
    published: pair of models -> (c by parameters, c as measured on a GPU).
    """
    fig, ax = plt.subplots(figsize=(9, 5.2))
    looks = method_looks(table.method.unique())
    for label, part in table.groupby("method", sort=False):
        colour = looks[label].colour
        ax.fill_between(part.x, part.low, part.high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(part.x, part.ratio, color=colour, label=label)
    ax.axhline(1, color="black", linewidth=1)
    ax.axvline(here, color="#555555", linewidth=1.5, linestyle="--", label="this machine")
    for i, (name, (low, high)) in enumerate(published.items()):
        across = ax.get_xaxis_transform()
        height = 0.97 - 0.09 * i
        ax.plot(
            [low, high],
            [height] * 2,
            transform=across,
            color="#777777",
            marker="|",
            lw=1.5,
            label=None if i else "c of the pilot's pairs (left: by size, right: measured)",
        )
        ax.text(
            high * 1.08,
            height,
            name,
            transform=across,
            va="center",
            fontsize=10,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    bottom, top = ax.get_ylim()
    ax.set(
        xscale="log",
        xticks=COSTS,
        xticklabels=[f"{c:g}" for c in COSTS],
        xlabel="c, one step of the draft ÷ one of the target",
        ylabel=ylabel,
        title="Where a step of the draft costs c steps of the target",
        ylim=(bottom, top + 0.22 * (top - bottom)),
    )
    ax.minorticks_off()
    # two columns: names in one line may be wider than the figure
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def wasted(table):
    """Drafted tokens thrown away per emitted token, and tokens per target call, of one rule.

    table: "RULE POLICY" -> (wasted, tokens per call), two Intervals; the first rule is shown.
    """
    fig, ax = plt.subplots(figsize=(9, 4.4))
    shown = next(iter(table)).split(" ", 1)[0]
    own = {
        policy: numbers
        for name, numbers in table.items()
        for rule, policy in [name.split(" ", 1)]
        if rule == shown
    }
    looks = assign(own, POLICIES, SPARE)
    for policy, (waste, per_call) in own.items():
        ax.errorbar(
            waste.estimate,
            per_call.estimate,
            xerr=bar(waste),
            yerr=bar(per_call),
            color=looks[policy].colour,
            fmt=looks[policy].marker,
            markersize=8,
            elinewidth=1,
            capsize=2,
            label=policy,
        )
    ax.set(
        xlabel="drafted tokens thrown away per emitted token",
        ylabel="tokens per target call",
        title=f"Fewer calls or fewer wasted drafts? ({shown})",
    )
    ax.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def aggressive(speed, accuracy, rivals):
    """Speed and accuracy over gamma.

    speed, accuracy: method -> [(gamma, Interval)]; rivals, which have no gamma: method ->
    (speed, accuracy), two Intervals.
    """
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.3))
    looks = method_looks([*speed, *accuracy, *rivals])
    names = ("tokens per second", "accuracy")
    for i, (ax, curves, name) in enumerate(zip(axes, (speed, accuracy), names)):
        bands(ax, curves, looks)
        for label, measured in rivals.items():
            interval = measured[i]
            colour = looks[label].colour
            ax.axhspan(interval.low, interval.high, color=colour, alpha=0.12, linewidth=0)
            ax.axhline(interval.estimate, color=colour, linestyle=":", label=f"{label} (no γ)")
        ax.set(xlabel="drafted tokens per round, γ", title=name, xticks=_gammas(curves))
    axes[0].set_ylim(0, None)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    fig.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(speed) + len(rivals),
    )
    return fig


def first_order(curves):
    """Tokens per round of runs by those that the ledger expects, over gamma.

    curves: method -> [(gamma, Interval)].
    """
    fig, ax = plt.subplots(figsize=(8, 4.2))
    looks = method_looks(curves)
    most = len(curves) - 1
    for i, (label, points) in enumerate(curves.items()):
        for k, (gamma, interval) in enumerate(points):
            x = gamma + 0.3 * (i - most / 2)
            point(ax, x, interval, label if k == 0 else None, looks[label])
    ax.axhline(1, color="black", linewidth=1)
    ax.set(
        xlabel="drafted tokens per round, γ",
        ylabel="tokens per round, runs ÷ ledger",
        title="Does the ledger predict the runs?",
        xticks=_gammas(curves),
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def _gammas(curves):
    """The gammas of the first curve: what a figure's x axis names."""
    return [gamma for gamma, _ in next(iter(curves.values()))]
