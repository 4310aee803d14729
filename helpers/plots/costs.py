"""Figure of notebook 03: speed on other machines, and where each claim about it holds."""

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from helpers.plots.style import METHODS, SPARE, assign

KNOWN = METHODS | {"SP+dyn": METHODS["SP_entropy+dyn"]}
TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
HOLDS = "#0072B2"
UNDECIDED = "#B9D6EA"
NOT = "#E4E4E4"


def dearer(lines, claims, here, published):
    """Speed-up over the target alone, and where claims hold, over the draft's cost.

    Of a machine only c + s counts (s: what a further token costs to verify), so one axis shows all.
    lines: table with x (the draft's forward ÷ the target's), method, ratio, low, high; claims:
    claim -> how dear verifying is -> {"holds", "undecided"} -> [(from, to)], of which the second
    contains the first; here: this machine's x; published: pair -> two values of x, the smaller from
    parameters and the larger timed.
    """
    rows = sum(len(by_machine) + 1 for by_machine in claims.values())
    fig, (top, bottom) = plt.subplots(
        2, 1, figsize=(9.5, 5.0 + 0.3 * rows), sharex=True, height_ratios=(4.2, 0.3 * rows)
    )
    _speed_ups(top, lines)
    _pairs(top, published, top.get_ylim()[1])
    _claims(bottom, claims, (lines.x.min(), lines.x.max()))
    for ax in (top, bottom):
        ax.axvline(here, color="black", linestyle="--", linewidth=1.5)
    top.text(here * 1.04, 0.15, "this machine", fontsize=11)
    bottom.set_xscale("log")
    bottom.set(
        xlabel=(
            "c, one step of the draft ÷ one of the target (log scale)\n"
            "(rows differ in s, what one more token to verify costs: speed depends on c + s alone)"
        ),
        xticks=TICKS,
        xlim=(lines.x.min(), lines.x.max()),
    )
    bottom.set_xticklabels([f"{tick:g}" for tick in TICKS])
    bottom.minorticks_off()
    return fig


def _speed_ups(ax, lines):
    """One line with its 95 % band for each method, each at its best γ at every x."""
    methods = list(dict.fromkeys(lines.method))
    looks = assign(methods, KNOWN, SPARE)
    for i, method in enumerate(methods):
        part = lines[lines.method == method].sort_values("x")
        colour = looks[method].colour
        # two methods may lie on one another: every second line is dashed, so that both are seen
        style = "--" if i % 2 else "-"
        ax.plot(part.x, part.ratio, style, color=colour, label=method)
        ax.fill_between(part.x, part.low, part.high, color=colour, alpha=0.18, linewidth=0)
    ax.axhline(1, color="#555555", linewidth=1)
    ax.set(
        ylim=(0, 1.12 * lines.high.max()),
        ylabel="tokens per second ÷ target alone",
        title="Each method at its best block length, over what the draft costs",
    )
    # on white, for the line at 1 passes behind it
    ax.legend(loc="lower left", frameon=True, framealpha=1.0, edgecolor="none")


def _pairs(ax, published, top):
    """What is known of c of the published pairs, as bars at the top."""
    for i, (pair, (by_parameters, timed)) in enumerate(published.items()):
        y = top * (0.94 - 0.1 * i)
        ax.plot([by_parameters, timed], [y, y], color="#555555", linewidth=5, alpha=0.7)
        # on white, for this machine's line may pass behind it
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(timed * 1.06, y, pair, va="center", fontsize=11, bbox=box)
    if published:
        y = top * (0.94 - 0.1 * len(published))
        note = "bars, left end: by size; right end: in vLLM on an A100"
        ax.text(1.0, y, note, va="center", ha="right", fontsize=10, bbox=box)


def _claims(ax, claims, ends):
    """A group of bars for each claim, one bar for each way in which verifying costs."""
    y = 0
    places = []
    names = []
    for claim, by_machine in claims.items():
        ax.text(ends[0] * 1.03, y, claim, va="center", fontsize=11.5, fontweight="bold")
        for name, found in by_machine.items():
            y += 1
            ax.barh(y, ends[1] - ends[0], left=ends[0], height=0.62, color=NOT)
            for word, colour in (("undecided", UNDECIDED), ("holds", HOLDS)):
                for low, high in found[word]:
                    ax.barh(y, high - low, left=low, height=0.62, color=colour)
            places.append(y)
            names.append(name)
        y += 1
    ax.set(yticks=places, ylim=(y - 0.4, -0.6), ylabel="cost of verifying")
    ax.set_yticklabels(names, fontsize=10.5)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    words = {"holds": HOLDS, "undecided": UNDECIDED, "does not hold": NOT}
    handles = [Patch(color=colour, label=word) for word, colour in words.items()]
    machine = Line2D([], [], color="black", linestyle="--", linewidth=1.5, label="this machine")
    ax.legend(
        handles=[*handles, machine],
        loc="upper right",
        bbox_to_anchor=(1.0, 1.13),
        ncols=4,
        fontsize=10,
    )
