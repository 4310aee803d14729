"""The house style of every figure: how methods and speakers look, and how an interval is drawn."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from matplotlib.colors import to_rgb
from matplotlib_inline.backend_inline import set_matplotlib_formats

FEW = 3  # with no more x than this, intervals are bars
NATS = "draft entropy H(q), nats"


class Look(NamedTuple):
    """Colour and marker of one label."""

    colour: str
    marker: str


# ---- palettes ----------------------------------------------------------------------------------

# Okabe and Ito's colour-blind-safe palette: a method looks the same in every figure.
METHODS = {
    "AS_small": Look("#56B4E9", "v"),
    "AS_large": Look("#000000", "^"),
    "Selective": Look("#009E73", "o"),
    "SP": Look("#0072B2", "s"),
    "SP_entropy": Look("#D55E00", "D"),
    "SP_entropy+dyn": Look("#CC79A7", "P"),
    "SP_aggressive": Look("#E69F00", "X"),
    "Routed": Look("#B8A900", "*"),
    "GlimpRouter": Look("#661100", "p"),
    "random": Look("#888888", "x"),
    "periodic": Look("#BBBBBB", "+"),
}

# For labels that stand in no table: colours of Paul Tol's muted palette, unlike those above.
SPARE = (
    Look("#882255", "p"),
    Look("#332288", "h"),
    Look("#117733", "<"),
    Look("#AA4499", ">"),
    Look("#999933", "d"),
    Look("#44AA99", "8"),
)
SPARE_COLOURS = tuple(look.colour for look in SPARE)
GREY = Look("#555555", "o")  # of the first method that is not in the table, such as an oracle

# Who speaks in a routed answer: in figures, in the strip of tokens and in the chart below it.
# Experts by their place in the pair; of the pocket pair these are math, code and law.
DRAFT = "#949494"
EXPERTS = ("#0072B2", "#009E73", "#D55E00", *SPARE_COLOURS)

# A token's entropy as the shade behind it: dark where the draft is unsure.
LEVELS = (0.05, 0.2, 0.5, 1.0, 1.5, 2.5)  # nats, the borders between the seven shades
SHADES = ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#2171b5", "#08306b")


def assign(labels, table, spare):
    """One entry for each label: the table's own, or else the next of `spare`, in the labels' order.

    The same labels in the same order get the same entries; when `spare` is used up it begins anew.
    """
    assigned = {}
    unknown = 0
    for label in dict.fromkeys(labels):
        if label in table:
            assigned[label] = table[label]
        else:
            assigned[label] = spare[unknown % len(spare)]
            unknown += 1
    return assigned


def method_looks(labels):
    """Label -> Look of the methods of one figure; "SP_entropy own τ" looks like SP_entropy."""
    labels = list(dict.fromkeys(labels))
    methods = {}
    for label in labels:
        first_word = label.split(" ")[0]
        is_variant = label not in METHODS and (first_word in METHODS or first_word in labels)
        methods[label] = first_word if is_variant else label
    looks = assign(methods.values(), METHODS, (GREY, *SPARE))
    return {label: looks[method] for label, method in methods.items()}


def speakers_of(trace):
    """Names of the models in a routed answer's trace: "draft", then the experts.

    Experts that were asked have a column H_NAME, in the pair's order; one that has none but speaks
    comes after them.
    """
    columns = [column.removeprefix("H_") for column in trace if column.startswith("H_")]
    experts = [name for name in columns if name not in ("q", "p")]
    sources = trace.source.str.removeprefix("expert:")
    return list(dict.fromkeys(["draft", *experts, *sources]))


def speaker_colours(names):
    """Name -> colour of the models that may speak: "draft", and the experts in the pair's order."""
    return assign(names, {"draft": DRAFT}, EXPERTS)


def text_on(background):
    """Black or white, whichever has the higher contrast on a colour (WCAG 2.2)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(background)
    )
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # 1.05 / (luminance + 0.05) = (luminance + 0.05) / 0.05 at luminance 0.179
    return "#000000" if luminance > 0.179 else "#ffffff"


# ---- how things are drawn ----------------------------------------------------------------------


def use():
    """Set matplotlib's defaults to the house style."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.titlesize": 13,
            "axes.labelsize": 12,
            "legend.fontsize": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "axes.axisbelow": True,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "lines.markersize": 7,
            "svg.hashsalt": "sp",
            "figure.facecolor": "white",
        }
    )
    if get_ipython() is not None:
        # a notebook keeps its pictures: without loss, and as small as PNG can be
        set_matplotlib_formats("png", pil_kwargs={"optimize": True})


def number(value):
    """Three significant digits, and all of them before the point: 2,165, 8.58, 0.746."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def bar(interval):
    """An interval as the two lengths that matplotlib's error bars take."""
    below = max(0.0, interval.estimate - interval.low)
    above = max(0.0, interval.high - interval.estimate)
    return [[below], [above]]


def point(ax, x, interval, label, look, **line):
    """One estimate with its 95 % bar."""
    ax.errorbar(
        [x],
        [interval.estimate],
        yerr=bar(interval),
        color=look.colour,
        fmt=look.marker,
        capsize=4,
        label=label,
        **line,
    )


def band(ax, x, intervals, label, look, **line):
    """A line through estimates with its 95 % band."""
    estimates = [interval.estimate for interval in intervals]
    low = [interval.low for interval in intervals]
    high = [interval.high for interval in intervals]
    ax.plot(x, estimates, label=label, color=look.colour, marker=look.marker, **line)
    ax.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)


def bands(ax, curves, looks):
    """Several curves with their 95 % bands, or with bars where `apart` sets them side by side.

    curves: label -> [(x, Interval)]; looks: label -> Look.
    """
    for i, (label, points) in enumerate(curves.items()):
        x = [value for value, _ in points]
        intervals = [interval for _, interval in points]
        if len(x) > FEW:
            band(ax, x, intervals, label, looks[label])
            continue
        ax.errorbar(
            apart(x, i, len(curves)),
            [interval.estimate for interval in intervals],
            np.concatenate([bar(interval) for interval in intervals], axis=1),
            color=looks[label].colour,
            marker=looks[label].marker,
            capsize=4,
            label=label,
        )
        if len(x) == 1:
            ax.set_xlim(x[0] - 0.1, x[0] + 0.1)


def apart(x, i, n):
    """Where the i-th of n curves puts its points.

    At a few x they stand side by side, since bands would only hide one another there.
    """
    if len(x) > FEW:
        return list(x)
    step = 0.02 * (max(x) - min(x)) or 0.02
    return [value + (i - (n - 1) / 2) * step for value in x]
