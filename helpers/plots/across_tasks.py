"""Figures of notebooks 08 and 09: the same pair on every task."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D

from helpers.plots.style import METHODS, NATS, bar, method_looks


def entropy_by_task(entropies):
    """Distribution of the draft's token entropies for each task.

    entropies: a table with columns task and H_q (nats).
    """
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
    ax.set_yticks(range(len(tasks)), [_short(task) for task in tasks])
    return fig


def _short(task):
    """A task's name; a file of prompts without its folder."""
    return task.replace("\\", "/").rsplit("/", 1)[-1]


def by_task(panels, baseline):
    """One panel per measure, tasks down the side.

    panels: title -> method -> {task: Interval}; baseline: title -> the x of a line, or None.
    A task without any score has no judge; an interval without a number says why. Methods that are
    not of the house, and variants of those that are ("SP_entropy own τ"), have hollow markers; a
    variant has its method's colour.
    """
    tasks = {}  # an ordered set
    methods = {}
    for measured in panels.values():
        methods |= dict.fromkeys(measured)
        for intervals in measured.values():
            tasks |= dict.fromkeys(intervals)
    styles = {}
    for method, look in method_looks(methods).items():
        filling = look.colour if method in METHODS else "white"
        styles[method] = {"color": look.colour, "marker": look.marker, "mfc": filling}

    size = (max(7.5, 4.1 * len(panels)), 4.8)
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (title, measured) in zip(axes[0], panels.items()):
        if baseline.get(title) is not None:
            ax.axvline(baseline[title], color="#888888", linewidth=1)
        for row, task in enumerate(tasks):
            _task(ax, row, task, measured, styles)
        ax.set(title=title, yticks=range(len(tasks)), yticklabels=[_short(task) for task in tasks])
    axes[0, 0].invert_yaxis()
    handles = [Line2D([], [], linestyle="none", label=m, **style) for m, style in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(styles))
    return fig


def _task(ax, row, task, measured, styles):
    """One row of a panel: a task's interval for each method that has one."""
    for k, (method, intervals) in enumerate(measured.items()):
        if task not in intervals or intervals[task].missing:
            continue
        ax.errorbar(
            intervals[task].estimate,
            row + 0.18 * (k - (len(measured) - 1) / 2),
            xerr=bar(intervals[task]),
            linestyle="none",
            capsize=2,
            markersize=6,
            elinewidth=1.2,
            **styles[method],
        )
    found = [intervals[task] for intervals in measured.values() if task in intervals]
    if all(interval.missing for interval in found):
        ax.text(
            0.03,
            row,
            found[0].missing if found else "no judge",
            transform=ax.get_yaxis_transform(),
            va="center",
            color="#666666",
            fontsize=10.5,
        )
