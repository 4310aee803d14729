"""Figures of notebook 09: which model spoke."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D

from helpers.plots.style import METHODS, bar, method_looks, speaker_colours, speakers_of, text_on

PER_ROW = 40  # tokens beside each other in a strip
GATE = "#555555"
DOT = {"marker": "o", "markersize": 7, "linewidth": 1.5}


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
    words = table.map(lambda share: f"{100 * share:.0f} %")
    sns.heatmap(
        table, annot=words, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=ax
    )
    ax.set(ylabel="", title="Share of tokens by model")
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return fig


def strip(steps, tau, back=None):
    """One answer coloured by who spoke, below the entropies of whoever was asked.

    steps: a table with columns position, text, source ("draft" or "expert:NAME"), and H_draft and
    H_NAME (nats, NaN where a model was not asked). tau: above it the draft asks, nats; back: above
    it an expert hands back, nats (None: not drawn). A long answer takes several rows.
    """
    steps = steps.reset_index(drop=True)
    colours = speaker_colours(speakers_of(steps))
    entropies = [f"H_{name}" for name in colours if f"H_{name}" in steps]
    gates = {f"τ = {tau:g}": (tau, ":")}
    if back is not None:
        gates[f"back = {back:g}"] = (back, "--")
    highest = max(level for level, _ in gates.values())
    top = max(1.0, highest, steps[entropies].max().max()) * 1.08
    parts = [steps[first : first + PER_ROW] for first in range(0, len(steps), PER_ROW)]
    fig, axes = plt.subplots(
        len(parts), 1, figsize=(13, 4.2 * len(parts) + 0.8), squeeze=False, sharey=True
    )
    # as deep as the longest token is long
    longest = steps.text.map(_shown).str.len().max()
    depth = top * max(0.25, 0.06 * longest)
    for ax, part in zip(axes[:, 0], parts):
        _entropies_of(ax, part, colours, gates.values())
        _tokens_of(ax, part, colours, -0.04 * top, depth)
        ax.set(
            ylabel="entropy, nats",
            xlim=(part.position.iloc[0] - 0.6, part.position.iloc[0] + len(parts[0]) - 0.4),
            ylim=(-0.04 * top - depth, top),
        )
        ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
        ax.tick_params(labelsize=15)
        ax.yaxis.label.set_size(16)
        ax.grid(axis="x", visible=False)
    title = "Which model wrote each token, and the entropy of each that was asked"
    axes[0, 0].set_title(title, fontsize=18)
    axes[-1, 0].set_xlabel("position in the answer", fontsize=16)
    handles = [Line2D([], [], color=colour, label=name, **DOT) for name, colour in colours.items()]
    for name, (_, dash) in gates.items():
        handles.append(Line2D([], [], color=GATE, linestyle=dash, label=name))
    fig.legend(handles=handles, loc="outside lower center", fontsize=15, ncols=len(handles))
    return fig


def _entropies_of(ax, steps, colours, gates):
    """A line for each model that was asked, and the gates: (nats, dash) of each."""
    for name, colour in colours.items():
        if f"H_{name}" in steps:
            ax.plot(steps.position, steps[f"H_{name}"], color=colour, **DOT)
    for level, dash in gates:
        ax.axhline(level, color=GATE, linestyle=dash)


def _tokens_of(ax, steps, colours, top, depth):
    """A box per token in the colour of its speaker, with its text, below `top`."""
    speakers = steps.source.str.removeprefix("expert:")
    for position, text, speaker in zip(steps.position, steps.text, speakers):
        ax.bar(
            position,
            depth,
            width=1,
            bottom=top - depth,
            color=colours[speaker],
            edgecolor="white",
        )
        ax.text(
            position,
            top - depth / 2,
            _shown(text),
            rotation=90 if len(_shown(text)) > 2 else 0,
            ha="center",
            va="center",
            fontsize=16,
            family="monospace",
            color=text_on(colours[speaker]),
            clip_on=True,
        )


def _shown(text):
    """A token's text with signs for what could not be seen or would be long."""
    return text.replace("\n", "⏎").replace("<|end|>", "end").strip(" ") or "␣"
