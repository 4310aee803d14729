"""The house style of every figure: colours and markers of the methods, and how an interval is drawn."""

import matplotlib.pyplot as plt
import numpy as np

# Okabe & Ito's colour-blind-safe palette, one colour and marker per method, the same in every figure.
COLOURS = {
    "AS_small": "#56B4E9",
    "AS_large": "#000000",
    "Selective": "#009E73",
    "SP": "#0072B2",
    "SP_entropy": "#D55E00",
    "SP_entropy+dyn": "#CC79A7",
    "SP_aggressive": "#E69F00",
    "Routed": "#B8A900",
    "random": "#888888",
    "periodic": "#BBBBBB",
}
MARKERS = {
    "AS_small": "v",
    "AS_large": "^",
    "Selective": "o",
    "SP": "s",
    "SP_entropy": "D",
    "SP_entropy+dyn": "P",
    "SP_aggressive": "X",
    "Routed": "*",
    "random": "x",
    "periodic": "+",
}
FEW = 3  # with no more x than this, intervals are bars
NATS = "draft entropy H(q), nats"


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


def colour(label):
    """A method's colour; labels with a suffix share their method's."""
    return COLOURS.get(label, COLOURS.get(str(label).split(" ")[0], "#555555"))


def number(value):
    """Three significant digits, and all of them before the point: 2,165, 8.58, 0.746."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def band(ax, x, intervals, label, **line):
    """A line through estimates with its 95 % band."""
    c = line.pop("color", colour(label))
    ax.plot(
        x,
        [i.estimate for i in intervals],
        label=label,
        color=c,
        marker=line.pop("marker", MARKERS.get(label, "o")),
        **line,
    )
    ax.fill_between(
        x, [i.low for i in intervals], [i.high for i in intervals], color=c, alpha=0.18, linewidth=0
    )


def bands(ax, curves):
    """Several curves with their 95 % bands, or with bars where `apart` sets them side by side. curves: label -> [(x, Interval)]."""
    for i, (label, points) in enumerate(curves.items()):
        x, intervals = [x for x, _ in points], [v for _, v in points]
        if len(x) > FEW:
            band(ax, x, intervals, label)
        else:
            lengths = np.concatenate([bar(v) for v in intervals], axis=1)
            ax.errorbar(
                apart(x, i, len(curves)),
                [v.estimate for v in intervals],
                lengths,
                color=colour(label),
                capsize=4,
                label=label,
                marker=MARKERS.get(label, "o"),
            )
        if len(x) == 1:
            ax.set_xlim(x[0] - 0.1, x[0] + 0.1)


def apart(x, i, n):
    """Where the i-th of n curves puts its points: at a few x side by side, since bands would only hide one another there."""
    step = 0 if len(x) > FEW else 0.02 * (max(x) - min(x)) or 0.02
    return [v + (i - (n - 1) / 2) * step for v in x]


def bar(interval):
    """An interval as the two lengths that matplotlib's error bars take."""
    return [
        [max(0.0, interval.estimate - interval.low)],
        [max(0.0, interval.high - interval.estimate)],
    ]


def point(ax, x, interval, label, **kwargs):
    """One estimate with its 95 % bar."""
    ax.errorbar(
        [x],
        [interval.estimate],
        yerr=bar(interval),
        color=kwargs.pop("color", colour(label)),
        fmt=MARKERS.get(label, "o"),
        capsize=4,
        label=label,
        **kwargs,
    )
