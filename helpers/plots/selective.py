"""Figures of notebook 02: who should make which token?"""

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import band, method_looks, point

CONTROLS = ("random", "periodic")


def selective_curve(curves, ends, marked):
    """Accuracy against the target's share of tokens.

    curves: name -> [(share, Interval)]; ends: label -> (share, Interval);
    marked: (share, Interval) at tau = 0.15.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    looks = method_looks([*curves, *ends])
    top = 0.0  # of all intervals
    for name, points in curves.items():
        points = sorted(points, key=lambda p: p[0])
        shares = [share for share, _ in points]
        intervals = [interval for _, interval in points]
        dash = "--" if name in CONTROLS else "-"
        band(ax, shares, intervals, name, looks[name], linestyle=dash)
        top = max(top, *(interval.high for interval in intervals))
    for label, (share, interval) in ends.items():
        point(ax, share, interval, label, looks[label], markersize=10)
        top = max(top, interval.high)
    share, interval = marked
    ax.scatter(
        [share],
        [interval.estimate],
        s=190,
        facecolor="none",
        edgecolor="black",
        zorder=5,
        label="τ = 0.15",
    )
    ax.set(
        xlabel="share of tokens made by the target",
        ylabel="accuracy",
        title="Who should make which token?",
        ylim=(0, min(1.02, 1.15 * top)),
    )
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    fig.legend(loc="outside lower center", ncols=3)
    return fig
