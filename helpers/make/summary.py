"""Tables that look across notebooks and pairs: the pilot's numbers beside ours, and what each task, τ and γ buys and costs.

Everything is computed from the published tables of data/results/PAIR; what has not been measured there is "–".
"""

import json

import numpy as np
import pandas as pd

from helpers import common, stats

PAIRS = ("pocket", "qwen2.5-coder")


def published(run, name):
    """A published table of a pair, or of one of its runs (PAIR/RUN); None where it is not there."""
    file = common.OUT / "data" / "results" / run / f"{name}.parquet"
    return pd.read_parquet(file) if file.exists() else None


def runs(pair):
    """The pair itself, then its runs with settings of their own: ["qwen2.5-coder", "qwen2.5-coder/humaneval", ...]."""
    folders = sorted((common.OUT / "data" / "results" / pair).glob("*/"))
    return [
        pair,
        *(f"{pair}/{folder.name}" for folder in folders if any(folder.glob("[0-9][0-9].json"))),
    ]


def _entropy_ratio(answers):
    """Mean entropy of wrong answers ÷ of right ones, as in notebook 01."""
    sums = answers.assign(n=1.0).pivot_table(
        index="problem_id", columns="right", values=["mean_H", "n"], aggfunc="sum", fill_value=0
    )
    both = sums.reindex(
        columns=[("mean_H", True), ("n", True), ("mean_H", False), ("n", False)], fill_value=0
    )
    return [stats.bootstrap(both, lambda m: (m[..., 2] / m[..., 3]) / (m[..., 0] / m[..., 1]))]


def _accuracies(*methods):
    return lambda rows: [stats.mean(rows, "score", m) for m in methods]


def _ratios(top, bottom, *methods):
    return lambda rows: [stats.ratio(rows, top, bottom, m) for m in methods]


def _gain(method, baseline):
    return lambda rows: [stats.speed_up(rows, method, baseline)]


SPEED, ACCEPTED = ("n_tokens", "seconds"), ("accepted", "drafted")
FIXED, STOPPED = "SP_entropy fixed γ", "SP_entropy entropy stop, cap 12"

# what, the published table that holds it, the pilot's value, how ours is computed, (digits, per cent), why they differ
LINES = (
    (
        "01 · mean entropy, wrong ÷ right answers",
        "01_answers",
        "several times",
        _entropy_ratio,
        (2, False),
        "An answer's mean entropy is moved little by the few tokens at which a draft is unsure: token by token, entropy tells "
        "on both pairs what the target will reject (AUROC in notebook 01), answer by answer much less on pocket.",
    ),
    (
        "02 · tokens by the target at τ = 0.15",
        "02_selective",
        "14.2 %",
        _ratios("target_calls", "n_tokens", "Selective 0.15"),
        (1, True),
        "How often H(q) exceeds a fixed τ is a property of the draft: one τ opens different shares on different pairs.",
    ),
    (
        "02 · accuracy, draft → τ = 0.15 → target",
        "02_selective",
        "20 % → 80 % → 80 %",
        _accuracies("AS_small", "Selective 0.15", "AS_large"),
        (0, True),
        "The pilot's five problems cannot tell its accuracies apart; the pairs' targets differ in what they can do.",
    ),
    (
        "03 · tokens/s, AS_large → SP_entropy",
        "03_times",
        "27.5 → 21.7",
        _ratios(*SPEED, "AS_large", "SP_entropy"),
        (1, False),
        "Other hardware and other sizes: only ratios can be compared between columns.",
    ),
    (
        "03 · SP_entropy ÷ AS_large",
        "03_times",
        "0.79",
        _gain("SP_entropy", "AS_large"),
        (2, False),
        "Speculation pays when drafting and verifying a block costs less than writing its tokens one by one (the layer tables "
        "below show the costs here); the pilot's loop was not optimised.",
    ),
    (
        "05 · accept ratio, SP → τ = 1",
        "05_answers",
        "36.7 % → 37.5 %",
        _ratios(*ACCEPTED, "SP", "τ = 1"),
        (1, True),
        "Acceptance depends on how alike the two models are; a τ of 1 changes it little.",
    ),
    (
        "05 · tokens/s, SP → τ = 1",
        "05_times",
        "21.2 → 21.4",
        _ratios(*SPEED, "SP", "τ = 1"),
        (1, False),
        "Acceptance hardly changes, so speed should hardly change either; few timed problems leave wide intervals.",
    ),
    (
        "06 · drafted per round, cap 12",
        "06_answers",
        "3.82",
        _ratios("drafted", "target_calls", STOPPED),
        (2, False),
        "The pocket draft is sure of most of its tokens, so it drafts on longer before its entropy stops it.",
    ),
    (
        "06 · accept ratio, fixed γ → entropy stop",
        "06_answers",
        "65.2 % → 79.2 %",
        _ratios(*ACCEPTED, FIXED, STOPPED),
        (1, True),
        "The direction is the same: stopping where entropy is high wastes fewer drafts.",
    ),
    (
        "06 · tokens/s, fixed γ → entropy stop",
        "06_times",
        "21.9 → 23.9",
        _ratios(*SPEED, FIXED, STOPPED),
        (1, False),
        "Fewer wasted drafts buy speed only as far as drafting is the expensive part, and the baseline here is the "
        "best fixed γ, not one fixed γ.",
    ),
)


def pilot_table():
    """Markdown: one line per number of the pilot (5 problems), with ours, their intervals and sample sizes."""
    head = ["number", "pilot (5 problems)", *PAIRS, "why they differ"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for what, name, pilot, measure, show, why in LINES:
        lines.append(
            "| "
            + " | ".join([what, pilot, *(_cell(pair, name, measure, *show) for pair in PAIRS), why])
            + " |"
        )
    return "\n".join(lines)


def _cell(pair, name, measure, digits, percent):
    """What was measured on one pair, with its sample size and task, or – where its notebook has not been run."""
    rows = published(pair, name)
    if rows is None:
        return "–"
    found = measure(rows)
    return (
        " → ".join(x.show(digits, percent=percent) for x in found)
        + f"<br>n = {found[0].n}, {rows.task.iloc[0]}"
    )


def task_table(run):
    """Markdown: what notebook 08 found for each task of one pair (or PAIR/RUN), the one with most to gain first."""
    rows, times = published(run, "08_answers"), published(run, "08_times")
    if rows is None:
        return f"Notebook 08 has not been run on {run} yet."
    tau, own = (
        times[times.method == "SP_entropy"].tau.iloc[0],
        times[times.method == "SP_entropy own τ"].groupby("task").tau.first(),
    )
    found = {
        name: [
            stats.ratio(rows[rows.task == name], *ACCEPTED, "SP"),
            *(stats.speed_up(part, m, "AS_large") for m in ("SP", "SP_entropy")),
        ]
        for name, part in times.groupby("task")
    }
    lines = [
        f"| task | SP accepts | SP ÷ AS_large | SP_entropy (τ = {tau:g}) ÷ AS_large | score, SP_entropy − SP | the task's own τ, nats |",
        "|---" * 6 + "|",
    ]
    for name, (accepted, *gains) in sorted(found.items(), key=lambda item: -item[1][1].estimate):
        lines.append(
            f"| {name} | {accepted.show(0, percent=True)} | {' | '.join(g.show(2) for g in gains)} "
            f"| {_changed(rows[rows.task == name])} | {own[name]:.2f} |"
        )
    per_task = rows.groupby("task").problem_id.nunique().max()
    head = f"**`{run}`**, γ = {times.gamma.max()}, {per_task} problems per task, {times.groupby('task').problem_id.nunique().max()} of them timed, "
    head += f"for at most {times.max_new_tokens.max()} tokens:"
    return "\n".join([head, "", *lines])


def _changed(rows):
    """SP_entropy's score minus SP's on one task, if all of its answers have a score."""
    found = (
        stats.NO_JUDGE
        if rows.score.isna().any()
        else stats.difference(rows, "score", "SP_entropy", "SP")
    )
    return found.show(1, percent=True)


def tau_table(run):
    """Markdown: what each gate of notebook 05 buys and costs against the strict rule on one pair (or PAIR/RUN)."""
    rows, times = published(run, "05_answers"), published(run, "05_times")
    if rows is None:
        return f"Notebook 05 has not been run on {run} yet."
    gates = [m for m in rows.method.unique() if m.startswith("τ = ")]
    lines = [
        "| gate, nats | tokens/s ÷ SP | accuracy − SP | answers that may differ from SP's |",
        "|---|---|---|---|",
    ]
    changed = rows.assign(changed=(rows.rescued > 0).astype(float))
    for m in gates:
        lines.append(
            f"| {m} | {stats.speed_up(times, m, 'SP').show(2)} | {stats.difference(rows, 'score', m, 'SP').show(1, percent=True)} "
            f"| {stats.mean(changed, 'changed', m).show(1, percent=True)} |"
        )
    head = f"**`{run}`**, {rows.task.iloc[0]}, {rows.problem_id.nunique()} problems, {times.problem_id.nunique()} of them timed:"
    return "\n".join([head, "", *lines])


def gamma_table(run):
    """Markdown: tokens per second at each block length of notebook 03's tuning problems, SP and SP_entropy."""
    times = published(run, "03_times")
    if times is None:
        return f"Notebook 03 has not been run on {run} yet."
    tuned = times[times.method.str.contains(" γ=")]
    gammas = sorted(tuned.gamma.unique())
    lines = [
        "| rule | " + " | ".join(f"γ = {g}" for g in gammas) + " |",
        "|---" * (len(gammas) + 1) + "|",
    ]
    lines += [
        f"| {rule} | "
        + " | ".join(
            stats.ratio(tuned, "n_tokens", "seconds", f"{rule} γ={g}").show(1) for g in gammas
        )
        + " |"
        for rule in ("SP", "SP_entropy")
    ]
    return "\n".join(
        [
            f"**`{run}`**, tokens per second, {tuned.task.iloc[0]}, {tuned.problem_id.nunique()} problems:",
            "",
            *lines,
        ]
    )


def speed_table(pair):
    """Markdown: what notebook 03 found in each run of a pair: what speculation buys by task and temperature, and what relaxing adds."""
    found = [(run, published(run, "03_times"), published(run, "03_accuracy")) for run in runs(pair)]
    lines = [
        "| task, temperature | γ of SP, SP_entropy | SP accepts | SP ÷ AS_large | SP_entropy ÷ SP | accuracy, SP − AS_large "
        "| accuracy, SP_entropy − SP | answers that may differ from SP's |",
        "|---" * 8 + "|",
    ]
    for _, times, rows in sorted(
        (f for f in found if f[1] is not None),
        key=lambda f: (f[1].task.iloc[0], -f[1].temperature.iloc[0]),
    ):
        changed = rows.assign(changed=(rows.rescued > 0).astype(float))
        gammas = [str(times[times.method == m].gamma.iloc[0]) for m in ("SP", "SP_entropy")]
        cells = [
            f"{rows.task.iloc[0]}, {rows.temperature.iloc[0]:g}",
            ", ".join(gammas),
            stats.ratio(times, *ACCEPTED, "SP").show(0, percent=True),
            stats.speed_up(times, "SP", "AS_large").show(2),
            stats.speed_up(times, "SP_entropy", "SP").show(2),
            *(
                stats.difference(rows, "score", *both).show(1, percent=True)
                for both in (("SP", "AS_large"), ("SP_entropy", "SP"))
            ),
            stats.mean(changed, "changed", "SP_entropy").show(1, percent=True),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if len(lines) == 2:
        return f"Notebook 03 has not been run on {pair} yet."
    sizes = [rows.problem_id.nunique() for _, _, rows in found if rows is not None]
    timed = [
        times[times.method == "SP"].problem_id.nunique()
        for _, times, _ in found
        if times is not None
    ]
    return "\n".join(
        [
            f"**`{pair}`**, τ = {found[0][1].tau.max():g}, {_span(sizes)} problems per line, {_span(timed)} of them timed:",
            "",
            *lines,
        ]
    )


def _span(counts):
    return f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{counts[0]}"


def short_answer(pair):
    """Markdown: one sentence on what SP and SP_entropy bought and cost on a pair, from notebook 03 and the benchmark."""
    times, rows, results = (
        published(pair, "03_times"),
        published(pair, "03_accuracy"),
        common.OUT / "data" / "results" / pair,
    )
    if times is None:
        return f"- Notebook 03 has not been run on {pair} yet."
    checks, bench = json.loads((results / "03.json").read_text())["checks"], results / "bench.json"
    gamma = {m: times[times.method == m].gamma.iloc[0] for m in ("SP", "SP_entropy")}
    memory = f", in {json.loads(bench.read_text())['peak_gib']:.1f} GiB" if bench.exists() else ""
    return (
        f"- **`{pair}`** ({rows.task.iloc[0]}, temperature {rows.temperature.iloc[0]:g}): SP with γ = {gamma['SP']} makes "
        f"{stats.speed_up(times, 'SP', 'AS_large').show(2)} times the tokens per second of the target alone{memory}. SP_entropy with "
        f"γ = {gamma['SP_entropy']} and τ = {times.tau.max():g} makes {stats.speed_up(times, 'SP_entropy', 'SP').show(2)} times SP's and changes accuracy by "
        f"{stats.difference(rows, 'score', 'SP_entropy', 'SP').show(1, percent=True)}. "
        + "; ".join(f"{c}: *{w}*" for c, w in checks.items())
        + "."
        + _against(published(pair, "05_answers"))
    )


def _against(rows):
    """What the entropy gate's accuracy is against random positions and the clip, at equal acceptance; nothing where 05 has not been run."""
    if rows is None:
        return ""
    random, clip = (
        stats.difference(rows, "score", "entropy gate, √", m).show(1, percent=True)
        for m in ("random gate, √", "KL-optimal clip")
    )
    return f" At equal acceptance the entropy gate's accuracy minus that of random positions is {random}, minus the clip's {clip}."


def equal_table(run):
    """Markdown: the entropy gate against its rivals at equal acceptance (notebook 05): accuracy, and KL as a multiple of the clip's."""
    rows, read = published(run, "05_answers"), published(run, "05_rules")
    if rows is None:
        return f"Notebook 05 has not been run on {run} yet."
    rivals = [
        m
        for m in rows.method.unique()
        if f"{m}|1" in set(read.rule) and not m.startswith("entropy")
    ]
    sums = read.assign(one=1.0).pivot_table(
        index="problem_id", columns="rule", values=["accept", "kl", "one"], aggfunc="sum"
    )
    settings = {
        m: [r for r in read.rule.unique() if r.startswith(f"{m}|")]
        for m in ("entropy gate, √", *rivals)
    }
    where = {column: i for i, column in enumerate(sums.columns)}

    def kl(means, name):
        """KL of a family per position where it accepts as much as the gate: means (..., columns) -> (...)."""
        at = lambda kind, r: means[..., where[kind, r]] / means[..., where["one", r]]  # noqa: E731
        x, y = (
            np.stack([at(kind, r) for r in settings[name]], -1).reshape(-1, len(settings[name]))
            for kind in ("accept", "kl")
        )
        goal = np.reshape(at("accept", "control"), -1)
        return np.reshape(
            [np.interp(g, *zip(*sorted(zip(a, b)))) for g, a, b in zip(goal, x, y)],
            means.shape[:-1],
        )

    lines = [
        "| at equal acceptance, the entropy gate against | acceptance reached | its accuracy − the rival's | rival's KL ÷ the clip's |",
        "|---|---|---|---|",
    ]
    for m in settings:
        against = (
            stats.difference(rows, "score", "entropy gate, √", m).show(1, percent=True)
            if m in rivals
            else "(itself)"
        )
        ratio = stats.bootstrap(
            sums, lambda means, m=m: kl(means, m) / kl(means, "KL-optimal clip"), n_boot=400
        )
        lines.append(
            f"| {m} | {stats.ratio(rows, *ACCEPTED, m).show(1, percent=True)} | {against} | {ratio.show(2)} |"
        )
    head = f"**`{run}`**, {rows.task.iloc[0]}, {rows.problem_id.nunique()} problems, {read.problem_id.nunique()} answers read for KL:"
    return "\n".join([head, "", *lines])
