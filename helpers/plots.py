"""One function per figure, in the house style. Each takes intervals, lists and small tables, and returns a Figure.

Call them through helpers.figures.draw, which keeps what a figure was drawn from.
"""
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from helpers.style import MARKERS, NATS, apart, band, bands, bar, colour, number, point

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


def signal_roc(curves, areas):
    """ROC of each signal for `the target rejects the draft's token`. curves: name -> (x, y); areas: name -> Interval."""
    fig, ax = plt.subplots(figsize=(5.6, 5))
    for (name, (x, y)), c, dash in zip(curves.items(), ("#D55E00", "#0072B2", "#009E73"), ("-", "--", ":")):
        ax.plot(x, y, dash, color=c, label=f"{name}: {areas[name].show(3)}")
    ax.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    ax.set(xlabel="share of accepted tokens flagged", ylabel="share of rejected tokens flagged", xlim=(0, 1), ylim=(0, 1),
           title="Finding the tokens that the target rejects")
    ax.legend(title="AUROC [95 %]", loc="lower right")
    return fig


def divergence_curve(offsets, intervals, rest, where="answers without a rejection"):
    """Entropy around the divergence point. offsets: ints; intervals: one per offset; rest: Interval elsewhere, and where that is."""
    fig, ax = plt.subplots(figsize=(7.5, 4))
    band(ax, offsets, intervals, "around the first rejection", color="#D55E00")
    ax.axhspan(rest.low, rest.high, color="#0072B2", alpha=0.2)
    ax.axhline(rest.estimate, color="#0072B2", label=where)
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
    ax.set(xlabel="share of tokens made by the target", ylabel="accuracy", title="Who should make which token?",
           ylim=(0, min(1.02, 1.15 * max(i.high for points in (*curves.values(), ends.values()) for _, i in points))))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    fig.legend(loc="outside lower center", ncols=3)
    return fig


# ---- 03 ---------------------------------------------------------------------------------------------

PANELS = {"tokens_per_s": "tokens per second", "accept_ratio": "accept ratio", "tokens_per_round": "tokens per target call",
          "score": "accuracy"}


def benchmark(table, gammas):
    """Speed, acceptance and accuracy by method. table: method -> {panel: Interval or None}, panels as in PANELS; gammas: method -> γ."""
    fig, axes = plt.subplots(2, 2, figsize=(9.5, 6.2))
    for ax, (panel, name) in zip(axes.flat, PANELS.items()):
        shown = {m: row[panel] for m, row in table.items() if row.get(panel) is not None}
        for i, (method, interval) in enumerate(shown.items()):
            if interval.estimate != interval.estimate:
                ax.text(i, 0, "no judge", ha="center", va="bottom", fontsize=10.5)
                continue
            ax.bar(i, interval.estimate, color=colour(method), alpha=0.85, yerr=bar(interval), capsize=4, error_kw={"linewidth": 1.5})
            ax.text(i, interval.high, number(interval.estimate), ha="center", va="bottom", fontsize=10.5)
        ax.set(xticks=range(len(shown)), title=f"{name} (n = {max(i.n for i in shown.values())})" if shown else name,
               ylim=(0, 1.15 * max((i.high for i in shown.values() if i.high == i.high), default=0) or 1))
        ax.set_xticklabels([f"{m}\nγ = {gammas[m]}" if m in gammas else m for m in shown], fontsize=10.5)
        ax.grid(axis="x", visible=False)
    return fig


def gamma_speed(curves, limit):
    """tokens/s over gamma. curves: label -> [(gamma, Interval)]; limit: label -> [(gamma, value)] of the cost model."""
    fig, ax = plt.subplots(figsize=(7, 4))
    gammas = [g for g, _ in next(iter(curves.values()))]
    bands(ax, curves)
    for i, (label, points) in enumerate(limit.items()):
        ax.plot(apart(gammas, i, len(limit)), [v for _, v in points], ":", color=colour(label), marker="_" if len(gammas) == 1 else None,
                markersize=16, label=f"{label}: cost model")
    ax.set(xlabel="drafted tokens per round, γ", ylabel="tokens per second", title="Block length and speed", ylim=(0, None),
           xticks=gammas)
    ax.legend()
    return fig


# ---- 04 ---------------------------------------------------------------------------------------------

FATES = {"accepted by both": "#0072B2", "rescued": "#E69F00", "rejected": "#444444"}


def fates(by_entropy, by_slot, tau):
    """What became of drafted tokens, by draft entropy and by slot. Tables: where, n, and a share per fate in FATES."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, width_ratios=(3, 2))
    for ax, table, name in zip(axes, (by_entropy, by_slot), (NATS, "slot in the drafted block")):
        bottom = np.zeros(len(table))
        for fate, c in FATES.items():
            ax.bar(range(len(table)), table[fate], bottom=bottom, color=c, label=fate, width=0.85)
            bottom += table[fate].to_numpy()
        ax.set(xticks=range(len(table)), xlabel=f"{name} (n below)", ylim=(0, 1))
        ax.set_xticklabels([f"{w}\n{n:,}" for w, n in zip(table["where"], table.n)], fontsize=9)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(axis="x", visible=False)
    axes[0].set(ylabel="share of tested tokens", title="√ rule everywhere")
    axes[1].set(title=f"SP_entropy, τ = {tau:g}")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def rescue_cost(centres, tv, rescued, overshoot):
    """Damage by entropy. tv, rescued: Interval per bin centre (nats); overshoot: quantile name -> value per bin."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    band(axes[0], centres, tv, "TV(o, p), computed", color="#D55E00")
    band(axes[0], centres, rescued, "share rescued, counted", color="#0072B2", linestyle="none", marker="s")
    axes[0].set(xlabel=NATS, ylabel="per tested position", title="Every rescue is damage: computed and counted", ylim=(0, None))
    axes[0].legend()
    for (name, values), c in zip(overshoot.items(), ("#56B4E9", "#0072B2", "#000000")):
        axes[1].plot(centres, values, marker="o", color=c, label=name)
    axes[1].set(xlabel=NATS, ylabel="max over tokens of o / p", yscale="log", title="How far one token is inflated")
    axes[1].legend()
    return fig


def fork_harm(names, flips, losses):
    """Forks by entropy bin. flips: share whose grade changed; losses: accuracy of strict minus rescued. Intervals."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for ax, values, c, title in ((axes[0], flips, "#0072B2", "Grade differs between the two branches"),
                                 (axes[1], losses, "#D55E00", "Accuracy lost by keeping the rescued token")):
        for i, interval in enumerate(values):
            point(ax, i, interval, None, color=c)
            ax.annotate(f"n = {interval.n}", (i, interval.high), textcoords="offset points", xytext=(0, 4), ha="center", fontsize=9)
        ax.axhline(0, color="#888888", linewidth=1)
        ax.set(xticks=range(len(names)), xlabel=f"{NATS} (n: problems)", title=title, xlim=(-0.5, len(names) - 0.5))
        ax.set_xticklabels(names, fontsize=10)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.margins(y=0.12)
    axes[0].set_ylim(bottom=0)
    return fig


# ---- 05 ---------------------------------------------------------------------------------------------

def tau_lines(taus, panels, strict, chosen):
    """Three lines over tau. panels: title -> Interval per tau; strict: title -> Interval of SP; chosen: a tau."""
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.9))
    for ax, (title, values) in zip(axes, panels.items()):
        ax.axhspan(strict[title].low, strict[title].high, color=colour("SP"), alpha=0.15, linewidth=0)
        ax.axhline(strict[title].estimate, color=colour("SP"), linestyle="--", label="SP")
        band(ax, taus, values, "SP_entropy")
        ax.axvline(chosen, color="#888888", linewidth=1.2, linestyle=":", label=f"chosen τ = {chosen:g}")
        ax.set(xlabel="entropy gate τ, nats", title=title)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def pareto_front(points, front):
    """Accuracy against tokens per second. points: label -> (speed Interval, accuracy Interval); front: labels."""
    fig, ax = plt.subplots(figsize=(7.5, 4.6))
    for label, (speed, accuracy) in points.items():
        on = label in front
        c = colour("SP_entropy") if label.startswith("τ") else colour(label)
        ax.errorbar(speed.estimate, accuracy.estimate, color=c, fmt="D" if label.startswith("τ") else MARKERS.get(label, "o"),
                    xerr=bar(speed), capsize=2, alpha=1 if on else 0.45,
                    yerr=bar(accuracy), elinewidth=1)
        if on:
            ax.annotate(label, (speed.estimate, accuracy.estimate), textcoords="offset points", xytext=(7, -15 if front.index(label) % 2 else 6), fontsize=11, weight="bold")
    line = [points[label] for label in front]
    ax.plot([s.estimate for s, _ in line], [a.estimate for _, a in line], color="#888888", linewidth=1.2, zorder=0)
    ax.set(xlabel="tokens per second", ylabel="accuracy", title="Speed against accuracy (named: on the Pareto front)")
    ax.margins(y=0.12)      # room for a name at the top
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    return fig


CONTROLS = {"entropy gate, √": ("#D55E00", "D"), "random gate, √": ("#888888", "x"), "high-entropy gate, √": ("#56B4E9", "v"),
            "max-prob gate, √": ("#0072B2", "s"), "target-entropy gate, √": ("#009E73", "^"), "power β": ("#CC79A7", "P"),
            "lenience": ("#E69F00", "o"), "KL-optimal clip": ("#000000", "*")}


def control_curves(curves):
    """Mean KL against acceptance per position, for each family of rules. curves: family -> [(accept, kl)]."""
    fig, ax = plt.subplots(figsize=(7.8, 4.8))
    for family, points in curves.items():
        c, marker = CONTROLS[family]
        ax.plot([a for a, _ in points], [k for _, k in points], color=c, marker=marker, markersize=5, label=family,
                linewidth=5 if family == "lenience" else 1.6, alpha=0.6 if family == "lenience" else 1)     # the clip lies on it
    ax.set(xlabel="mean acceptance per position", ylabel="mean KL(o‖p), nats", title="What acceptance costs (lower is better)", ylim=(0, None))
    ax.legend(fontsize=9.5)
    return fig


def matched(table):
    """Controls at equal acceptance. table: family -> {"accept ratio", "accuracy", "KL", "certificate"} Intervals."""
    panels = ("accept ratio", "accuracy", "KL per tested token, nats")
    fig, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True)
    for ax, panel in zip(axes, panels):
        for i, (family, row) in enumerate(table.items()):
            c, marker = CONTROLS.get(family, ("#0072B2", "s"))
            v = row[panel]
            ax.errorbar(v.estimate, i, xerr=bar(v), fmt=marker, color=c, capsize=4)
        ax.set(title=panel, yticks=range(len(table)), yticklabels=list(table))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].invert_yaxis()
    return fig


# ---- 06, 07 -----------------------------------------------------------------------------------------

def policies(static, dynamic):
    """tokens/s over gamma, and each policy at its tuned setting. static: rule -> [(gamma, Interval)];
    dynamic: rule -> {policy: Interval}, all relative to nothing: tokens per second."""
    fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, width_ratios=(1, 1.25))
    bands(axes[0], static)
    axes[0].set(xlabel="static γ, drafted tokens per round", ylabel="tokens per second", title="Fixed block length",
                xticks=[g for g, _ in next(iter(static.values()))])
    axes[0].legend(loc="lower left")
    for offset, (rule, found) in zip((-0.12, 0.12), dynamic.items()):
        for i, interval in enumerate(found.values()):
            point(axes[1], i + offset, interval, rule if i == 0 else None, color=colour(rule))
    names = list(next(iter(dynamic.values())))
    axes[1].set(xticks=range(len(names)), title="Each policy, tuned on other problems")
    axes[1].set_xticklabels([n.replace(" ", "\n", 1) for n in names], fontsize=9.5)
    axes[0].set_ylim(0, 1.1 * max(i.high for found in dynamic.values() for i in found.values()))
    return fig


def wasted(table):
    """Drafted tokens thrown away per emitted token, and tokens per round. table: policy -> (wasted, per_round) Intervals."""
    fig, ax = plt.subplots(figsize=(9, 4.4))
    rules, policies = (list(dict.fromkeys(x)) for x in zip(*(name.split(" ", 1) for name in table)))
    colours = dict(zip(policies, sns.color_palette("colorblind", len(policies))))
    for name, (waste, per_round) in table.items():
        rule, policy = name.split(" ", 1)
        ax.errorbar(waste.estimate, per_round.estimate, xerr=bar(waste),
                    yerr=bar(per_round), color=colours[policy],
                    fmt=MARKERS.get(rule, "o"), capsize=3)
    ax.set(xlabel="drafted tokens thrown away per emitted token", ylabel="tokens per target call", title="Fewer calls or fewer wasted drafts?")
    ax.legend(handles=[Line2D([], [], color=c, marker="o", linestyle="none", label=p) for p, c in colours.items()]
              + [Line2D([], [], color="#555555", marker=MARKERS.get(r, "o"), linestyle="none", label=r) for r in rules],
              fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def aggressive(speed, accuracy, rivals):
    """Speed and accuracy over gamma. speed, accuracy: method -> [(gamma, Interval)]; rivals: label -> (speed, accuracy)."""
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.3))
    for ax, curves, i, name in ((axes[0], speed, 0, "tokens per second"), (axes[1], accuracy, 1, "accuracy")):
        bands(ax, curves)
        for label, pairs in rivals.items():
            ax.axhspan(pairs[i].low, pairs[i].high, color=colour(label), alpha=0.12, linewidth=0)
            ax.axhline(pairs[i].estimate, color=colour(label), linestyle=":", label=f"{label} (no γ)")
        ax.set(xlabel="drafted tokens per round, γ", title=name, xticks=[g for g, _ in next(iter(curves.values()))])
    axes[0].set_ylim(0, None)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(speed) + len(rivals))
    return fig


# ---- the benchmark -----------------------------------------------------------------------------------

def race(speed, peers):
    """Tokens per second of every contestant. speed: label -> Interval; peers: labels that are not ours."""
    fig, ax = plt.subplots(figsize=(9, 0.45 * len(speed) + 1.4))
    for i, (label, v) in enumerate(speed.items()):
        c = "#BBBBBB" if label in peers else colour(label)
        ax.barh(i, v.estimate, xerr=bar(v), color=c, alpha=0.85, capsize=3, hatch="//" if label in peers else None, edgecolor="white")
        ax.text(v.high, i, f"  {number(v.estimate)}", va="center", fontsize=10.5)
    ax.set(yticks=range(len(speed)), yticklabels=list(speed), xlabel="tokens per second after the prompt",
           title="Same weights, same prompts (hatched: peers)", xlim=(0, 1.15 * max(v.high for v in speed.values())))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return fig


def growth(milliseconds):
    """Milliseconds per token against the context's length. milliseconds: model -> [(context, ms)]."""
    fig, ax = plt.subplots(figsize=(7, 4))
    for name, points in milliseconds.items():
        x, y = zip(*points)
        ax.plot(x, y, marker="o", color=colour({"draft": "AS_small", "target": "AS_large"}[name]), label=name)
    ax.set(xlabel="context, tokens", ylabel="milliseconds per token", title="What a longer context costs", ylim=(0, None))
    ax.legend()
    return fig


# ---- 08, 09 -----------------------------------------------------------------------------------------

def entropy_by_task(entropies):
    """Distribution of the draft's token entropies for each task. entropies: columns task, H_q (nats)."""
    tasks = list(dict.fromkeys(entropies.task))
    fig, ax = plt.subplots(figsize=(9, 0.62 * len(tasks) + 1.4))
    sns.violinplot(entropies, x="H_q", y="task", order=tasks, density_norm="width", inner="quart", cut=0, color="#56B4E9", linewidth=1, ax=ax)
    ax.set(xlabel=NATS, ylabel="", title="Draft entropy per token (dashed: median and quartiles)")
    return fig


def by_task(panels, baseline):
    """One panel per measure, tasks down the side. panels: title -> method -> {task: Interval}; baseline: title -> x or None.

    A task without any score has no judge. Variants of a method ("SP_entropy own τ") have its colour and hollow markers.
    """
    tasks = list(dict.fromkeys(t for methods in panels.values() for row in methods.values() for t in row))
    look = {m: {"color": colour(m), "marker": MARKERS.get(m.split(" ")[0], "o"), "mfc": colour(m) if m in MARKERS else "white"}
            for methods in panels.values() for m in methods}
    fig, axes = plt.subplots(1, len(panels), figsize=(4.1 * len(panels), 4.8), sharey=True)
    for ax, (title, methods) in zip(np.atleast_1d(axes), panels.items()):
        if baseline.get(title) is not None:
            ax.axvline(baseline[title], color="#888888", linewidth=1)
        for i, task in enumerate(tasks):
            for k, (method, row) in enumerate(methods.items()):
                if task in row:
                    ax.errorbar(row[task].estimate, i + 0.18 * (k - (len(methods) - 1) / 2), xerr=bar(row[task]), linestyle="none",
                                capsize=2, markersize=6, elinewidth=1.2, **look[method])
            if not any(task in row for row in methods.values()):
                ax.text(0.03, i, "no judge", transform=ax.get_yaxis_transform(), va="center", color="#666666", fontsize=10.5)
        ax.set(title=title, yticks=range(len(tasks)), yticklabels=tasks)
    np.atleast_1d(axes)[0].invert_yaxis()
    fig.legend(handles=[Line2D([], [], linestyle="none", label=m, **style) for m, style in look.items()],
               loc="outside lower center", ncols=len(look))
    return fig


def confusion(shares):
    """Who spoke in which domain: a heat map. shares: table with column task and a share (0..1) per speaker."""
    table = shares.set_index("task")
    fig, ax = plt.subplots(figsize=(1.3 * table.shape[1] + 2.2, 0.5 * len(table) + 1.4))
    sns.heatmap(table, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=ax)
    ax.set(ylabel="", title="Share of tokens by speaker")
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    return fig


SPEAKERS = {"draft": "#BBBBBB", "expert:math": "#0072B2", "expert:code": "#009E73", "expert:law": "#D55E00"}


def strip(steps, tau):
    """One answer coloured by who spoke. steps: position, text, source, and H_* columns (nats) of whoever was asked."""
    fig, ax = plt.subplots(figsize=(13, 4))
    top = max(1.0, steps[[c for c in steps if c.startswith("H_")]].max().max())
    depth = top * max(0.2, 0.032 * steps.text.str.len().max())      # as deep as the longest token is long
    for source, part in steps.groupby("source"):
        ax.bar(part.position, [depth] * len(part), width=1, bottom=-0.03 * top - depth, color=SPEAKERS.get(source, "#E69F00"), label=f"{source} speaks")
    for column in [c for c in steps if c.startswith("H_") and c != "H_q"]:
        name = column.removeprefix("H_")
        c = SPEAKERS["draft"] if name == "draft" else SPEAKERS.get(f"expert:{name}", "#E69F00")
        ax.plot(steps.position, steps[column], color=c, marker="o", markersize=4, linewidth=1)
    for r in steps.itertuples():
        ax.text(r.position, -0.03 * top - depth / 2, r.text.replace("\n", "⏎"), rotation=90, ha="center", va="center", fontsize=8, family="monospace",
                color="white" if r.source != "draft" else "black", clip_on=True)
    ax.axhline(tau, color="#888888", linestyle=":", label=f"τ = {tau:g}")
    ax.set(xlabel="position in the answer", ylabel="entropy, nats", title="Who spoke, and how sure those were who were asked",
           xlim=(-0.6, len(steps) - 0.4))
    ax.set_yticks([t for t in ax.get_yticks() if 0 <= t <= top])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", fontsize=9, ncols=6)
    return fig
