"""The house style, and one function per figure. Every function takes tidy tables and returns a Figure."""
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from helpers import paths, stats

# Okabe & Ito's colour-blind-safe palette, one colour and marker per method, the same in every figure.
COLOURS = {"AS_small": "#56B4E9", "AS_large": "#000000", "Selective": "#009E73", "SP": "#0072B2", "SP_entropy": "#D55E00",
           "SP_entropy+dyn": "#CC79A7", "SP_aggressive": "#E69F00", "Routed": "#B8A900", "random": "#888888",
           "periodic": "#BBBBBB"}
MARKERS = {"AS_small": "v", "AS_large": "^", "Selective": "o", "SP": "s", "SP_entropy": "D", "SP_entropy+dyn": "P",
           "SP_aggressive": "X", "Routed": "*", "random": "x", "periodic": "+"}
NATS = "draft entropy H(q), nats"


def style():
    """Set matplotlib's defaults to the house style."""
    plt.rcParams.update({
        "figure.dpi": 100, "savefig.dpi": 150, "figure.constrained_layout.use": True, "font.size": 12, "axes.titlesize": 13,
        "axes.labelsize": 12, "legend.fontsize": 10.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": "#e6e6e6", "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 2,
        "lines.markersize": 7, "svg.hashsalt": "sp", "figure.facecolor": "white"})


def save(fig, name, pair):
    """Write figures/PAIR/NAME.png without dates, so that the same figure is the same bytes. Returns the figure."""
    fig.savefig(paths.figures(pair) / f"{name}.png", metadata={"Software": None})
    plt.close(fig)
    return fig


def colour(label):
    """A method's colour; labels with a suffix share their method's."""
    return COLOURS.get(label, COLOURS.get(label.split(" ")[0], "#555555"))


def band(ax, x, intervals, label, **line):
    """A line through estimates with its 95 % band."""
    c = line.pop("color", colour(label))
    ax.plot(x, [i.estimate for i in intervals], label=label, color=c, marker=line.pop("marker", MARKERS.get(label, "o")), **line)
    ax.fill_between(x, [i.low for i in intervals], [i.high for i in intervals], color=c, alpha=0.18, linewidth=0)


def point(ax, x, interval, label, **kwargs):
    """One estimate with its 95 % bar."""
    bar = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
    ax.errorbar([x], [interval.estimate], yerr=np.maximum(bar, 0), color=kwargs.pop("color", colour(label)), fmt=MARKERS.get(label, "o"),
                capsize=4, label=label, **kwargs)


# ---- 01 ---------------------------------------------------------------------------------------------

def answer_entropy(answers):
    """Mean draft entropy of right and wrong answers. Columns: right (bool), mean_H (nats)."""
    fig, ax = plt.subplots(figsize=(7, 4))
    rng = np.random.default_rng(0)
    for i, (right, name, c) in enumerate(((True, "right", "#009E73"), (False, "wrong", "#D55E00"))):
        values = answers.loc[answers.right == right, "mean_H"].to_numpy()
        if not len(values):
            continue
        ax.scatter(i + rng.uniform(-0.18, 0.18, len(values)), values, s=14, color=c, alpha=0.35, linewidth=0)
        ax.boxplot(values, positions=[i], widths=0.5, showfliers=False, medianprops={"color": "black", "linewidth": 2})
        ax.text(i + 0.3, np.median(values), f" median {np.median(values):.3f}\n n = {len(values)}", va="center", fontsize=10.5)
    ax.set(xticks=[0, 1], xticklabels=["right answers", "wrong answers"], ylabel="mean draft entropy of an answer, nats",
           title="The draft's own answers: entropy of right and wrong ones", xlim=(-0.5, 1.75))
    return fig


def signal_roc(signals, label, areas):
    """ROC of each signal for `the target rejects the draft's token`. signals: name -> values; areas: name -> Interval."""
    fig, ax = plt.subplots(figsize=(5.6, 5))
    for (name, values), c, dash in zip(signals.items(), ("#D55E00", "#0072B2", "#009E73"), ("-", "--", ":")):
        x, y = stats.roc(values, label)
        ax.plot(x, y, dash, color=c, label=f"{name}: {areas[name].show(3)}")
    ax.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    ax.set(xlabel="share of accepted tokens flagged", ylabel="share of rejected tokens flagged", xlim=(0, 1), ylim=(0, 1),
           title="Finding the tokens that the target rejects")
    ax.legend(title="AUROC [95 %]", loc="lower right")
    return fig


def divergence_curve(offsets, intervals, rest):
    """Entropy around the divergence point. offsets: ints; intervals: one per offset; rest: Interval elsewhere."""
    fig, ax = plt.subplots(figsize=(7.5, 4))
    band(ax, offsets, intervals, "around the first rejection", color="#D55E00")
    ax.axhspan(rest.low, rest.high, color="#0072B2", alpha=0.2)
    ax.axhline(rest.estimate, color="#0072B2", label="answers without a rejection")
    ax.axvline(0, color="#888888", linewidth=1)
    ax.set(xlabel="position relative to the first rejected token", ylabel="mean draft entropy, nats",
           title="Entropy at the point of divergence (target's answers, teacher-forced)", ylim=(0, None))
    ax.legend()
    return fig


# ---- 02 ---------------------------------------------------------------------------------------------

def selective_curve(curves, ends, marked):
    """Accuracy against the target's share of tokens.

    curves: name -> [(share, Interval)]; ends: label -> (share, Interval); marked: (share, Interval) at tau = 0.15.
    """
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    for name, points in curves.items():
        points = sorted(points, key=lambda p: p[0])
        band(ax, [s for s, _ in points], [i for _, i in points], name, linestyle="-" if name == "Selective" else "--")
    for label, (share, interval) in ends.items():
        point(ax, share, interval, label, markersize=10)
    ax.scatter([marked[0]], [marked[1].estimate], s=190, facecolor="none", edgecolor="black", zorder=5, label="τ = 0.15")
    ax.set(xlabel="share of tokens made by the target", ylabel="accuracy", title="Who should make which token?", ylim=(0, 1.02))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(loc="lower right")
    return fig


# ---- 03 ---------------------------------------------------------------------------------------------

PANELS = {"tokens_per_s": "tokens per second", "accept_ratio": "accept ratio", "tokens_per_round": "tokens per target call",
          "score": "accuracy"}


def benchmark(table):
    """Speed, acceptance and accuracy by method. table: method -> {panel: Interval or None}, panels as in PANELS."""
    fig, axes = plt.subplots(2, 2, figsize=(9.5, 6.2))
    for ax, (panel, name) in zip(axes.flat, PANELS.items()):
        shown = {m: row[panel] for m, row in table.items() if row.get(panel) is not None}
        for i, (method, interval) in enumerate(shown.items()):
            bar = [[max(0, interval.estimate - interval.low)], [max(0, interval.high - interval.estimate)]]
            ax.bar(i, interval.estimate, color=colour(method), alpha=0.85, yerr=bar, capsize=4, error_kw={"linewidth": 1.5})
            ax.text(i, interval.high, f"{interval.estimate:.3g}", ha="center", va="bottom", fontsize=10.5)
        ax.set(xticks=range(len(shown)), title=name, ylim=(0, 1.15 * max(i.high for i in shown.values()) or 1))
        ax.set_xticklabels(list(shown), fontsize=10.5)
        ax.grid(axis="x", visible=False)
    return fig


def gamma_speed(curves, limit):
    """tokens/s over gamma. curves: label -> [(gamma, Interval)]; limit: label -> [(gamma, value)] of the cost model."""
    fig, ax = plt.subplots(figsize=(7, 4))
    for label, points in curves.items():
        band(ax, [g for g, _ in points], [i for _, i in points], label)
    for label, points in limit.items():
        ax.plot([g for g, _ in points], [v for _, v in points], ":", color=colour(label), label=f"{label}: cost model")
    ax.set(xlabel="drafted tokens per round, γ", ylabel="tokens per second", title="Block length and speed", ylim=(0, None))
    ax.legend()
    return fig
