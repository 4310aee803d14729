"""Open answers (mt_bench, alpaca_eval): every turn of a conversation, measures without a reference, a judge if any.

Measures say how an answer reads, not whether it is right: perplexity under the target, words, distinct-n (Li et al.
2016), repetition. Only a judge compares, method against baseline on the same problem and seed (helpers/tasks/judge.py).
"""

import math

import pandas as pd
import torch

from helpers import experiments, probes, stats, tasks
from helpers.methods import Sampling
from helpers.tasks import grading, judge

MEASURES = {
    "words": (0, math.inf),
    "distinct_1": (0, 1),
    "distinct_2": (0, 1),
    "repetition": (0, 1),  # and their ranges
    "perplexity": (1, math.inf),
}


def converse(pair, methods, problems, seeds=(0,), *, sampling=Sampling()):
    """Answer every turn, each method going on from its own earlier answers.

    Returns (rows, asked): rows of experiments.run with a column `turn`; asked: {(method, seed, problem_id): Problem}.
    """
    frames, asked = [], {}
    for method in methods:
        for seed in seeds:
            part, turn = list(problems), 1
            while part:
                rows = experiments.run(pair, [method], part, [seed], sampling=sampling)
                frames.append(rows.assign(turn=turn))
                asked |= {(method.label, seed, p.id): p for p in part}
                said = rows.set_index("problem_id").text
                part, turn = [q for p in part if (q := tasks.follow(p, said[p.id]))], turn + 1
    return pd.concat(frames, ignore_index=True), asked


def measure(pair, rows, asked):
    """The rows with the columns MEASURES; perplexity is exp(mean -log p) under the target, unwarped."""
    problems = [asked[key] for key in zip(rows.method, rows.seed, rows.problem_id)]
    surprise = []
    for frame, _, _, _, p, _ in probes.read(pair, problems, list(rows.tokens)):
        tokens = torch.tensor(frame.token.to_numpy(), device=p.device)
        surprise.append(-p.gather(-1, tokens[:, None])[:, 0].log().cpu())
    parts = torch.cat(surprise).split([len(t) for t in rows.tokens])
    found = pd.DataFrame([grading.measures(text) for text in rows.text], index=rows.index)
    return rows.assign(**found, perplexity=[float(s.mean().exp()) for s in parts])


def wins(rows, asked, method, baseline):
    """Share of first answers of `method` that the judge prefers to `baseline`'s, ties a half. Returns Interval.

    Later turns are left out: the conversations differ by then. NO_JUDGE where none is configured or gave a verdict.
    """
    if not judge.configured():
        return stats.NO_JUDGE
    first = rows[rows.turn == 1].pivot(
        index=["seed", "problem_id"], columns="method", values="text"
    )
    grades = judge.compare_many(
        [
            (asked[method, *key].messages, text, other)
            for key, text, other in zip(first.index, first[method], first[baseline])
        ]
    )
    frame = first.reset_index()[["problem_id"]].assign(
        method=method, score=[g.score for g in grades]
    )
    return stats.mean(frame, "score", method)


def table(pair, rows, asked, baseline="AS_large"):
    """One row per method: means of MEASURES over problems, and how often the judge prefers it, or 'no judge'."""
    rows, out = measure(pair, rows, asked), {}
    rows = rows.assign(
        problem_id=rows.problem_id.str.split("/turn").str[0]
    )  # the turns of one conversation go together
    for method in rows.method.unique():
        means = rows[rows.method == method].groupby("problem_id")[list(MEASURES)].mean().dropna()
        out[method] = {
            m: stats.bootstrap(means[m]).within(*possible).show(2)
            for m, possible in MEASURES.items()
        }
        if method != baseline:
            out[method][f"preferred to {baseline}"] = wins(rows, asked, method, baseline).show(2)
    return pd.DataFrame(out).T.fillna("–")
