"""Figures of notebook 02: who should make which token?"""

import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter

from helpers.plots.style import band, point

# ---- 02 ---------------------------------------------------------------------------------------------


def selective_curve(curves, ends, marked):
    """Accuracy against the target's share of tokens.

    curves: name -> [(share, Interval)]; ends: label -> (share, Interval); marked: (share, Interval) at tau = 0.15.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    for name, points in curves.items():
        points = sorted(points, key=lambda p: p[0])
        band(
            ax,
            [s for s, _ in points],
            [i for _, i in points],
            name,
            linestyle="-" if name == "Selective" else "--",
        )
    for label, (share, interval) in ends.items():
        point(ax, share, interval, label, markersize=10)
    ax.scatter(
        [marked[0]],
        [marked[1].estimate],
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
        ylim=(
            0,
            min(
                1.02,
                1.15
                * max(i.high for points in (*curves.values(), ends.values()) for _, i in points),
            ),
        ),
    )
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    fig.legend(loc="outside lower center", ncols=3)
    return fig
