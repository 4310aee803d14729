"""Forks: what one rescued token costs, by answering on from it and from strict's own token.

Let y be an answer of the target, and at its position n, after y_<n,

    rescue_n(x) = q(x) (a(x) - a_strict(x)),    TV_n = sum_x rescue_n(x) = delta - R,
    h_n = E[score | y_<n, z] - E[score | y_<n, x],    z ~ norm((p - q)+),  x ~ rescue_n / TV_n,

both branches going on strictly. A rule that is relaxed at position n alone scores sum TV_n h_n less
than the strict one, exactly. For a rule that is relaxed everywhere

    harm of one rescue = E[sum_n TV_n h_n] / E[sum_n TV_n]

to first order in TV: what is left out is that a second rescue stands in a text that already holds
one. A gate keeps the terms at which it is open, so one set of forks answers for every gate.
"""

import numpy as np
import pandas as pd
import torch

from helpers import rules, store, tasks
from helpers.common import track
from helpers.decoding import decode
from helpers.decoding.batch import cut_at_stop
from helpers.decoding.sampling import ACCEPT, DRAFT, REPLACE, sample
from helpers.experiments import identity, key, rows_at_once
from helpers.methods import Sampling, Speculative
from helpers.probes import read
from helpers.tasks import judge, sandbox

# Distances between the seeds of a job's answer, of its forks' tokens and of what follows a fork at
# each position: no uniform serves twice.
APART = 10_000
BRANCHES = ("rescued", "strict", "again")


@torch.inference_mode()
def points(pair, problems, rows, *, inner=rules.SQRT, sampling=Sampling()):
    """Every position of strict answers as a place where a rescue of the rule `inner` could stand.

    rows: generations of a strict method (problem_id, seed, tokens). Returns one row per position:
    problem_id, seed, position, H_q (nats), tv (rescues to be expected there), and three tokens:
    `rescued` from the law of rescues, `strict` and `again` two independent strict replacements.
    """
    by_id = {problem.id: problem for problem in problems}
    frames = []
    for seed, part in rows.groupby("seed"):
        asked = [by_id[name] for name in part.problem_id]
        texts = part.tokens.to_list()
        for reading in read(pair, asked, texts, seed=seed - APART, sampling=sampling):
            p, q = reading.p, reading.q
            rescues = rescue_law(inner, p, q)
            replacement = rules.STRICT.residual(p, q)
            columns = {
                "H_q": rules.entropy(reading.raw_q),
                "tv": rescues.sum(-1),
                "rescued": sample(rescues, reading.u[:, DRAFT]),
                "strict": sample(replacement, reading.u[:, REPLACE]),
                "again": sample(replacement, reading.u[:, ACCEPT]),
            }
            columns = {name: values.tolist() for name, values in columns.items()}
            frames.append(reading.frame.drop(columns="token").assign(seed=seed, **columns))
    return pd.concat(frames, ignore_index=True)


def rescue_law(inner, p, q):
    """q (a - a_strict): how often each token is drafted and rescued; sums to TV. (..., V)."""
    return (q * (inner.accept(p, q) - rules.STRICT.accept(p, q))).clamp(min=0)


def draw(points, n, side, seed=0):
    """Choose about n of the points, as many on each `side` (a value per point), each ∝ its tv.

    Systematic sampling: a point is expected as often as its share says, and never more than once
    too often; one that comes up twice counts twice. Returns the chosen rows with `weight`, the
    rescues that a fork stands for: over all forks they sum to those of all points.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    sides = [part for _, part in points.groupby(np.asarray(side)) if part.tv.sum() > 0]
    for part in sides:
        count = max(1, n // len(sides))
        reached = part.tv.cumsum().to_numpy()
        step = reached[-1] / count
        ticks = (rng.random() + np.arange(count)) * step
        at = np.searchsorted(reached, ticks, side="right").clip(max=len(part) - 1)
        place, times = np.unique(at, return_counts=True)
        chosen.append(part.iloc[place].assign(weight=times * step))
    if not chosen:
        return points.head(0).assign(weight=0.0)
    return pd.concat(chosen).sort_index()


def follow(pair, problems, rows, chosen, *, sampling=Sampling(), batch_size=None):
    """Answer on strictly from every branch of the chosen points, with the same uniforms.

    rows: the generations that the points were taken from. Returns `chosen` with a column
    score_BRANCH for each of BRANCHES, the grades of whole answers; `harm`, what the rescued token
    costs against a strict one; and `placebo`, the same for two strict ones, whose mean is 0.
    """
    by_id = {problem.id: problem for problem in problems}
    texts = rows.set_index(["problem_id", "seed"]).tokens
    jobs = []
    for point in chosen.itertuples():
        before = tuple(texts[point.problem_id, point.seed][: point.position])
        seed = point.seed + APART * (1 + point.position)
        for branch in BRANCHES:
            jobs.append((by_id[point.problem_id], seed, (*before, getattr(point, branch))))
    scores = _scores(pair, jobs, sampling, batch_size or rows_at_once(pair))
    columns = {f"score_{branch}": scores[i :: len(BRANCHES)] for i, branch in enumerate(BRANCHES)}
    forked = chosen.assign(**columns)
    return forked.assign(
        harm=forked.score_strict - forked.score_rescued,
        placebo=forked.score_strict - forked.score_again,
    )


def _scores(pair, jobs, sampling, batch_size):
    """Grades of answers that go on strictly: a job is (problem, seed, first tokens). Cached."""
    code = store.code_version(), store.code_version(("forks.py",))
    graders = [tasks.grader(task) for task in sorted({problem.task for problem, _, _ in jobs})]
    means = judge.configured(), sandbox.possible()
    file = store.cached("forks", code, *identity(pair), sampling, jobs, graders, means)
    scores = store.load(file)
    if scores is None:
        # Two strict replacements are often the same token: the same job.
        distinct = list({_name(job): job for job in jobs}.values())
        answers = _answers(pair, distinct, sampling, batch_size)
        graded = [(job[0], _text(pair, job[0], answer)) for job, answer in zip(distinct, answers)]
        grades = tasks.grade_many(graded)
        by_name = {_name(job): grade.score for job, grade in zip(distinct, grades)}
        scores = [by_name[_name(job)] for job in jobs]
        store.keep(file, scores)
    return scores


def _name(job):
    """What tells two jobs apart."""
    problem, seed, start = job
    return problem.id, seed, start


def _answers(pair, jobs, sampling, batch_size):
    """The whole answers (token lists) of jobs."""
    answers = [list(start) for _, _, start in jobs]
    rooms = [problem.max_new_tokens - len(start) for problem, _, start in jobs]
    unfinished = [i for i, room in enumerate(rooms) if room > 0 and answers[i][-1] not in pair.eos]
    # Answers that are about as long, and have as much before them, are read together.
    unfinished.sort(key=lambda i: (rooms[i], len(str(jobs[i][0].messages))))
    for first in track(range(0, len(unfinished), batch_size), "forking"):
        some = unfinished[first : first + batch_size]
        room = max(rooms[i] for i in some)
        for i, tokens in zip(some, _rest(pair, [jobs[i] for i in some], room, sampling)):
            answers[i] += tokens[: rooms[i]]
    return answers


def _rest(pair, jobs, room, sampling):
    """What follows the first tokens of some jobs, at most `room` tokens (lists). Cached."""
    code = store.code_version(store.DECODING), store.code_version(("forks.py",))
    file = store.cached("fork-answers", code, *identity(pair), sampling, jobs, room)
    rest = store.load(file)
    if rest is None:
        answers = decode(
            pair,
            Speculative(),
            [[*pair.encode(problem.messages), *start] for problem, _, start in jobs],
            [key(seed, problem) for problem, seed, _ in jobs],
            sampling=sampling,
            max_new_tokens=room,
            stop=jobs[0][0].stop,
        )
        rest = [answer.tokens for answer in answers]
        store.keep(file, rest)
    return rest


def _text(pair, problem, tokens):
    """The text that is graded: without end tokens, and up to a stop text."""
    text = pair.decode([token for token in tokens if token not in pair.eos])
    return cut_at_stop(text, problem.stop)
