"""Figures of notebook 08: the same pair on every task."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D

from helpers.plots.style import MARKERS, NATS, bar, colour

# ---- 08, 09 -----------------------------------------------------------------------------------------


def entropy_by_task(entropies):
    """Distribution of the draft's token entropies for each task. entropies: columns task, H_q (nats)."""
    tasks = list(dict.fromkeys(entropies.task))
    fig, ax = plt.subplots(figsize=(9, 0.62 * len(tasks) + 1.4))
    sns.violinplot(
        entropies,
        x="H_q",
        y="task",
        order=tasks,
        density_norm="width",
        inner="quart",
        cut=0,
        color="#56B4E9",
        linewidth=1,
        ax=ax,
    )
    ax.set(xlabel=NATS, ylabel="", title="Draft entropy per token (dashed: median and quartiles)")
    return fig


def by_task(panels, baseline):
    """One panel per measure, tasks down the side. panels: title -> method -> {task: Interval}; baseline: title -> x or None.

    A task without any score has no judge. Variants of a method ("SP_entropy own τ") have its colour and hollow markers.
    """
    tasks = list(
        dict.fromkeys(t for methods in panels.values() for row in methods.values() for t in row)
    )
    look = {
        m: {
            "color": colour(m),
            "marker": MARKERS.get(m.split(" ")[0], "o"),
            "mfc": colour(m) if m in MARKERS else "white",
        }
        for methods in panels.values()
        for m in methods
    }
    fig, axes = plt.subplots(1, len(panels), figsize=(4.1 * len(panels), 4.8), sharey=True)
    for ax, (title, methods) in zip(np.atleast_1d(axes), panels.items()):
        if baseline.get(title) is not None:
            ax.axvline(baseline[title], color="#888888", linewidth=1)
        for i, task in enumerate(tasks):
            for k, (method, row) in enumerate(methods.items()):
                if task in row:
                    ax.errorbar(
                        row[task].estimate,
                        i + 0.18 * (k - (len(methods) - 1) / 2),
                        xerr=bar(row[task]),
                        linestyle="none",
                        capsize=2,
                        markersize=6,
                        elinewidth=1.2,
                        **look[method],
                    )
            if not any(task in row for row in methods.values()):
                ax.text(
                    0.03,
                    i,
                    "no judge",
                    transform=ax.get_yaxis_transform(),
                    va="center",
                    color="#666666",
                    fontsize=10.5,
                )
        ax.set(title=title, yticks=range(len(tasks)), yticklabels=tasks)
    np.atleast_1d(axes)[0].invert_yaxis()
    fig.legend(
        handles=[Line2D([], [], linestyle="none", label=m, **style) for m, style in look.items()],
        loc="outside lower center",
        ncols=len(look),
    )
    return fig
