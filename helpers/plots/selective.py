"""Figures of notebook 02: who should make which token?"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import FEW, band, method_looks, point

CONTROLS = ("random", "periodic")


def selective_curve(curves, ends, marked, tau=0.15):
    """Accuracy against the target's share of tokens.

    curves: name -> [(share, Interval)]; ends: label -> (share, Interval); marked: (share, Interval)
    at `tau`, nats (the pilot's). Where nothing has a score the reason stands in the curves' place.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    looks = method_looks([*curves, *ends])
    for name, points in curves.items():
        points = sorted(points, key=lambda p: p[0])
        shares = [share for share, _ in points]
        intervals = [interval for _, interval in points]
        if len(points) <= FEW:
            for k, (share, interval) in enumerate(points):
                point(ax, share, interval, None if k else name, looks[name])
            continue
        dash = "--" if name in CONTROLS else "-"
        band(ax, shares, intervals, name, looks[name], linestyle=dash)
    for label, (share, interval) in ends.items():
        point(ax, share, interval, label, looks[label], markersize=10)
    share, interval = marked
    ax.scatter(
        [share],
        [interval.estimate],
        s=190,
        facecolor="none",
        edgecolor="black",
        zorder=5,
        label=f"τ = {tau:g}",
    )
    drawn = [interval for points in curves.values() for _, interval in points]
    drawn += [interval for _, interval in ends.values()]
    reasons = sorted({interval.missing for interval in drawn if interval.missing})
    if reasons:
        ax.text(0.5, 0.5, ", ".join(reasons), transform=ax.transAxes, ha="center")
    top = np.nanmax([0.0, *(interval.high for interval in drawn)])
    ax.set(
        xlabel="share of tokens made by the target",
        ylabel="accuracy",
        title="Which tokens should the target make?",
        ylim=(0, min(1.02, 1.15 * top) or 1),
    )
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    fig.legend(loc="outside lower center", ncols=3)
    return fig
