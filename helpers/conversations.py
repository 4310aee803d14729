"""Open answers (mt_bench, alpaca_eval): every turn of a conversation, measures, a judge if any.

Measures need no reference. They say how an answer reads, not whether it is right: perplexity under
the target, words, distinct-n (Li et al. 2016), repetition. Only a judge compares, method against
baseline on the same problem and seed (helpers/tasks/judge.py).
"""

import math

import pandas as pd
import torch

from helpers import experiments, probes, stats, tasks
from helpers.methods import Sampling
from helpers.tasks import grading, judge

MEASURES = {  # and the range in which each can lie
    "words": (0, math.inf),
    "distinct_1": (0, 1),
    "distinct_2": (0, 1),
    "repetition": (0, 1),
    "perplexity": (1, math.inf),
}


def converse(pair, methods, problems, seeds=(0,), *, sampling=Sampling()):
    """Answer every turn, each method going on from its own earlier answers.

    Returns (answers, questions). answers: the rows of experiments.run with a column `turn`.
    questions: {(method, seed, problem_id): Problem}, what each of them replies to.
    """
    answers = []
    questions = {}
    for method in methods:
        for seed in seeds:
            turn = 1
            turn_problems = list(problems)
            while turn_problems:
                rows = experiments.run(pair, [method], turn_problems, [seed], sampling=sampling)
                answers.append(rows.assign(turn=turn))
                for problem in turn_problems:
                    questions[method.label, seed, problem.id] = problem
                turn += 1
                turn_problems = _next_turn(turn_problems, rows)
    return pd.concat(answers, ignore_index=True), questions


def _next_turn(problems, rows):
    """The problems of the next turn, after the answers in `rows`, of those that have one."""
    texts = rows.set_index("problem_id").text
    following = [tasks.follow(problem, texts[problem.id]) for problem in problems]
    return [problem for problem in following if problem is not None]


def measure(pair, answers, questions):
    """The answers with the columns MEASURES.

    Perplexity is exp(mean of -log p) of an answer's tokens under the target, unwarped.
    """
    keys = zip(answers.method, answers.seed, answers.problem_id)
    problems = [questions[key] for key in keys]
    surprises = []  # -log p of each token, of all answers in a row
    for reading in probes.read(pair, problems, list(answers.tokens)):
        tokens = torch.tensor(reading.frame.token.to_numpy(), device=reading.raw_p.device)
        p_of_token = reading.raw_p.gather(-1, tokens[:, None])[:, 0]
        surprises.append(-p_of_token.log().cpu())
    by_answer = torch.cat(surprises).split([len(tokens) for tokens in answers.tokens])
    by_text = pd.DataFrame([grading.measures(text) for text in answers.text], index=answers.index)
    perplexity = [float(surprise.mean().exp()) for surprise in by_answer]
    return answers.assign(**by_text, perplexity=perplexity)


def wins(answers, questions, method, baseline):
    """Share of first answers of `method` that the judge prefers to `baseline`'s, ties a half.

    Returns an Interval; NO_JUDGE where none is configured or none gave a verdict. Later turns are
    left out: the conversations differ by then.
    """
    if not judge.configured():
        return stats.NO_JUDGE
    first_turn = answers[answers.turn == 1]
    texts = first_turn.pivot(index=["seed", "problem_id"], columns="method", values="text")
    comparisons = []
    for (seed, problem_id), row in texts.iterrows():
        messages = questions[method, seed, problem_id].messages
        comparisons.append((messages, row[method], row[baseline]))
    scores = [grade.score for grade in judge.compare_many(comparisons)]
    frame = texts.reset_index()[["problem_id"]].assign(method=method, score=scores)
    return stats.mean(frame, "score", method)


def table(pair, answers, questions, baseline="AS_large"):
    """One row per method: means of MEASURES over problems, and how often the judge prefers it.

    "no judge" stands where there is none.
    """
    answers = measure(pair, answers, questions)
    # The turns of one conversation go together.
    answers = answers.assign(problem_id=answers.problem_id.str.split("/turn").str[0])
    lines = {}
    for method in answers.method.unique():
        own = answers[answers.method == method]
        means = own.groupby("problem_id")[list(MEASURES)].mean().dropna()
        line = {}
        for name, possible in MEASURES.items():
            line[name] = stats.bootstrap(means[name]).within(*possible).show(2)
        if method != baseline:
            preferred = wins(answers, questions, method, baseline)
            line[f"preferred to {baseline}"] = preferred.show(2)
        lines[method] = line
    return pd.DataFrame(lines).T.fillna("–")
