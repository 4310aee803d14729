"""Figures of notebook 03 and of the benchmark: speed, acceptance and accuracy by method."""

import matplotlib.pyplot as plt

from helpers.plots.style import apart, bands, bar, colour, number

# ---- 03 ---------------------------------------------------------------------------------------------

PANELS = {
    "tokens_per_s": "tokens per second",
    "accept_ratio": "accept ratio",
    "tokens_per_round": "tokens per target call",
    "score": "accuracy",
}


def benchmark(table, gammas):
    """Speed, acceptance and accuracy by method. table: method -> {panel: Interval or None}, panels as in PANELS; gammas: method -> γ."""
    fig, axes = plt.subplots(2, 2, figsize=(9.5, 6.2))
    for ax, (panel, name) in zip(axes.flat, PANELS.items()):
        shown = {m: row[panel] for m, row in table.items() if row.get(panel) is not None}
        for i, (method, interval) in enumerate(shown.items()):
            if interval.estimate != interval.estimate:
                ax.text(i, 0, "no judge", ha="center", va="bottom", fontsize=10.5)
                continue
            ax.bar(
                i,
                interval.estimate,
                color=colour(method),
                alpha=0.85,
                yerr=bar(interval),
                capsize=4,
                error_kw={"linewidth": 1.5},
            )
            ax.text(
                i, interval.high, number(interval.estimate), ha="center", va="bottom", fontsize=10.5
            )
        ax.set(
            xticks=range(len(shown)),
            title=f"{name} (n = {max(i.n for i in shown.values())})" if shown else name,
            ylim=(
                0,
                1.15 * max((i.high for i in shown.values() if i.high == i.high), default=0) or 1,
            ),
        )
        ax.set_xticklabels(
            [f"{m}\nγ = {gammas[m]}" if m in gammas else m for m in shown], fontsize=10.5
        )
        ax.grid(axis="x", visible=False)
    return fig


def gamma_speed(curves, limit):
    """tokens/s over gamma. curves: label -> [(gamma, Interval)]; limit: label -> [(gamma, value)] of the cost model."""
    fig, ax = plt.subplots(figsize=(7, 4))
    gammas = [g for g, _ in next(iter(curves.values()))]
    bands(ax, curves)
    for i, (label, points) in enumerate(limit.items()):
        ax.plot(
            apart(gammas, i, len(limit)),
            [v for _, v in points],
            ":",
            color=colour(label),
            marker="_" if len(gammas) == 1 else None,
            markersize=16,
            label=f"{label}: cost model",
        )
    ax.set(
        xlabel="drafted tokens per round, γ",
        ylabel="tokens per second",
        title="Block length and speed",
        ylim=(0, None),
        xticks=gammas,
    )
    ax.legend()
    return fig


# ---- the benchmark -----------------------------------------------------------------------------------


def race(speed, peers):
    """Tokens per second of every contestant. speed: label -> Interval; peers: labels that are not ours."""
    fig, ax = plt.subplots(figsize=(9, 0.45 * len(speed) + 1.4))
    for i, (label, v) in enumerate(speed.items()):
        c = "#BBBBBB" if label in peers else colour(label)
        ax.barh(
            i,
            v.estimate,
            xerr=bar(v),
            color=c,
            alpha=0.85,
            capsize=3,
            hatch="//" if label in peers else None,
            edgecolor="white",
        )
        ax.text(v.high, i, f"  {number(v.estimate)}", va="center", fontsize=10.5)
    ax.set(
        yticks=range(len(speed)),
        yticklabels=list(speed),
        xlabel="tokens per second after the prompt",
        title="Same weights, same prompts (hatched: peers)",
        xlim=(0, 1.15 * max(v.high for v in speed.values())),
    )
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return fig


def growth(milliseconds):
    """Milliseconds per token against the context's length. milliseconds: model -> [(context, ms)]."""
    fig, ax = plt.subplots(figsize=(7, 4))
    for name, points in milliseconds.items():
        x, y = zip(*points)
        ax.plot(
            x,
            y,
            marker="o",
            color=colour({"draft": "AS_small", "target": "AS_large"}[name]),
            label=name,
        )
    ax.set(
        xlabel="context, tokens",
        ylabel="milliseconds per token",
        title="What a longer context costs",
        ylim=(0, None),
    )
    ax.legend()
    return fig
