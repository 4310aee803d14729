"""Figures of notebook 09: which model spoke."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D

from helpers.plots.style import METHODS, bar, method_looks, speaker_colours, speakers_of, text_on


def routers(panels):
    """What routers and their rivals reach on each task: a panel per measure, tasks down the side.

    panels: title -> method -> {task: Interval}. A task without a score says why there is none.
    """
    methods = list(dict.fromkeys(method for measured in panels.values() for method in measured))
    measures = [intervals for measured in panels.values() for intervals in measured.values()]
    tasks = list(dict.fromkeys(task for intervals in measures for task in intervals))
    styles = {}
    for method, look in method_looks(methods).items():
        filling = look.colour if method in METHODS else "white"
        styles[method] = {"color": look.colour, "marker": look.marker, "mfc": filling}
    # As many methods stand one below the other in each task, with a gap between tasks.
    step = 0.76 / max(1, len(methods) - 1)
    size = (4.6 * len(panels) + 0.6, 0.95 * len(tasks) + 1.7)
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (title, measured) in zip(axes[0], panels.items()):
        for method, intervals in measured.items():
            below = step * methods.index(method) - 0.38
            for task, interval in intervals.items():
                ax.errorbar(
                    interval.estimate,
                    tasks.index(task) + below,
                    xerr=bar(interval),
                    linestyle="none",
                    capsize=2,
                    markersize=6,
                    elinewidth=1.4,
                    **styles[method],
                )
        for row, task in enumerate(tasks):
            reasons = {intervals[task].missing for intervals in measured.values()}
            if "" not in reasons:
                place = ax.get_yaxis_transform()
                ax.text(0.5, row, ", ".join(sorted(reasons)), transform=place, ha="center")
        for edge in range(1, len(tasks)):
            ax.axhline(edge - 0.5, color="#cccccc", linewidth=1)
        ax.set(title=title, yticks=range(len(tasks)), yticklabels=tasks)
        ax.set_ylim(len(tasks) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
    handles = [Line2D([], [], linestyle="none", label=m, **style) for m, style in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def confusion(shares):
    """Which model wrote how much of which task: a heat map.

    shares: a table with the column task and one column per speaker, a share between 0 and 1.
    """
    table = shares.set_index("task")
    fig, ax = plt.subplots(figsize=(1.3 * table.shape[1] + 2.2, 0.5 * len(table) + 1.4))
    sns.heatmap(
        table, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=ax
    )
    ax.set(ylabel="", title="Share of tokens by model")
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return fig


def strip(steps, tau):
    """One answer coloured by who spoke, below the entropies of whoever was asked.

    steps: a table with columns position, text, source ("draft" or "expert:NAME"), and H_draft and
    H_NAME (nats, NaN where a model was not asked). tau: the gate, nats.
    """
    entropies = [column for column in steps if column.startswith("H_")]
    speakers = steps.source.str.removeprefix("expert:")
    colours = speaker_colours(speakers_of(steps))

    fig, ax = plt.subplots(figsize=(13, 4))
    top = max(1.0, steps[entropies].max().max())
    gap = 0.03 * top
    longest = steps.text.str.len().max()
    depth = top * max(0.2, 0.032 * longest)  # as deep as the longest token is long
    for source, part in steps.groupby("source"):
        ax.bar(
            part.position,
            [depth] * len(part),
            width=1,
            bottom=-gap - depth,
            color=colours[source.removeprefix("expert:")],
            label=f"{source} speaks",
        )
    for name, colour in colours.items():
        if f"H_{name}" not in steps:
            continue
        ax.plot(
            steps.position,
            steps[f"H_{name}"],
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1,
        )
    for position, text, speaker in zip(steps.position, steps.text, speakers):
        ax.text(
            position,
            -gap - depth / 2,
            text.replace("\n", "⏎"),
            rotation=90,
            ha="center",
            va="center",
            fontsize=8,
            family="monospace",
            color=text_on(colours[speaker]),
            clip_on=True,
        )
    ax.axhline(tau, color="#888888", linestyle=":", label=f"τ = {tau:g}")
    ax.set(
        xlabel="position in the answer",
        ylabel="entropy, nats",
        title="Who spoke, and how sure those were who were asked",
        xlim=(-0.6, len(steps) - 0.4),
    )
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", fontsize=9, ncols=6)
    return fig
