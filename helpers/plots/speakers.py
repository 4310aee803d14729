"""Figures of notebook 09: which model spoke."""

import matplotlib.pyplot as plt
import seaborn as sns


def confusion(shares):
    """Who spoke in which domain: a heat map. shares: table with column task and a share (0..1) per speaker."""
    table = shares.set_index("task")
    fig, ax = plt.subplots(figsize=(1.3 * table.shape[1] + 2.2, 0.5 * len(table) + 1.4))
    sns.heatmap(
        table, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=ax
    )
    ax.set(ylabel="", title="Share of tokens by speaker")
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return fig


SPEAKERS = {
    "draft": "#BBBBBB",
    "expert:math": "#0072B2",
    "expert:code": "#009E73",
    "expert:law": "#D55E00",
}


def strip(steps, tau):
    """One answer coloured by who spoke. steps: position, text, source, and H_* columns (nats) of whoever was asked."""
    fig, ax = plt.subplots(figsize=(13, 4))
    top = max(1.0, steps[[c for c in steps if c.startswith("H_")]].max().max())
    depth = top * max(
        0.2, 0.032 * steps.text.str.len().max()
    )  # as deep as the longest token is long
    for source, part in steps.groupby("source"):
        ax.bar(
            part.position,
            [depth] * len(part),
            width=1,
            bottom=-0.03 * top - depth,
            color=SPEAKERS.get(source, "#E69F00"),
            label=f"{source} speaks",
        )
    for column in [c for c in steps if c.startswith("H_") and c != "H_q"]:
        name = column.removeprefix("H_")
        c = SPEAKERS["draft"] if name == "draft" else SPEAKERS.get(f"expert:{name}", "#E69F00")
        ax.plot(steps.position, steps[column], color=c, marker="o", markersize=4, linewidth=1)
    for r in steps.itertuples():
        ax.text(
            r.position,
            -0.03 * top - depth / 2,
            r.text.replace("\n", "⏎"),
            rotation=90,
            ha="center",
            va="center",
            fontsize=8,
            family="monospace",
            color="white" if r.source != "draft" else "black",
            clip_on=True,
        )
    ax.axhline(tau, color="#888888", linestyle=":", label=f"τ = {tau:g}")
    ax.set(
        xlabel="position in the answer",
        ylabel="entropy, nats",
        title="Who spoke, and how sure those were who were asked",
        xlim=(-0.6, len(steps) - 0.4),
    )
    ax.set_yticks([t for t in ax.get_yticks() if 0 <= t <= top])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", fontsize=9, ncols=6)
    return fig
