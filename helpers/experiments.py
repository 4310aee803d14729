"""Methods × problems × seeds -> tidy tables. Finished work is kept, so a stopped run goes on.

`run` decodes many rows at once and is cached by everything that determines its result. `timed`
decodes one row at a time, methods interleaved, and keeps its timings only until the notebook has
published. Readings of single positions are in helpers/probes.py.
"""

import hashlib
import math
import platform
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from queue import SimpleQueue

import pandas as pd
import torch
import transformers

from helpers import models, store, taking_turns, tasks
from helpers.common import track
from helpers.decoding import decode, decode_together, decoder_of, share
from helpers.decoding.batch import synchronise
from helpers.kept import Answers
from helpers.methods import Sampling
from helpers.store import DECODING, GRADING, code_version
from helpers.tasks import judge, sandbox

WARM_UP_TOKENS = 8
TIMES = ("prefill_s", "seconds", "draft_s", "verify_s", "host_s")  # of a row
ROWS = 64  # decoded at once
WAITING = 2  # batches more of rows, which follow where answers of a large pair end
MOST_TOGETHER = 4  # methods that share rows; each may need rows of its own in the end
ROWS_OF_LARGE_GPU = 96  # several notebooks fit beside each other
LARGE_GPU = 40 << 30  # bytes
AT_MOST_THREADS = 4  # decode at once on a small pair; more only wait for one another


def key(seed, problem):
    """The uniforms' key of one job: (seed, a number from the problem's id)."""
    return seed, int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:7], "big")


# ---- many rows at once -------------------------------------------------------------------------


def run(
    pair,
    methods,
    problems,
    seeds=(0,),
    *,
    sampling=Sampling(),
    batch_size=None,
    trace=False,
    max_new_tokens=None,
):
    """Decode every method on every (problem, seed), many rows at once.

    Returns a DataFrame with one row per generation; with trace=True a pair (rows, trace), the trace
    with one row per tested or emitted position. Timings are not filled: rows of a batch share time.
    batch_size: rows at once; None is what suits the machine (`rows_at_once`).
    Methods take turns batch by batch, because a model keeps the prompts that it has read last;
    those that draft alike share rows for as long as they agree.
    """
    jobs = [(seed, problem) for seed in seeds for problem in problems]
    asked = [_kept(pair, method, jobs, sampling, trace, max_new_tokens) for method in methods]
    batches = []
    for group in _groups(pair, list(zip(methods, asked)), batch_size):
        rows = batch_size or rows_at_once(pair, len(group))
        # A small pair on a CPU has threads to share the batches.
        size = rows if pair.small else rows * (1 + WAITING)
        batches += [(group, batch, rows) for batch in _batches(group[0][1].missing(), size)]
    batches.sort(key=lambda work: jobs.index(work[1][0]))

    def decoded(own_pair, work):
        group, batch, rows = work
        limit = max_new_tokens or batch[0][1].max_new_tokens
        sharing = [method for method, _ in group]
        found = _decode_batch(own_pair, sharing, batch, rows, sampling, limit, trace)
        for (_, answers), (rows, traces) in zip(group, found):
            answers.keep(batch, rows, traces)

    for _ in track(_each(pair, decoded, batches), "decoding", len(batches)):
        pass
    frames = [_labelled(pair, method, *one.in_order()) for method, one in zip(methods, asked)]
    rows = with_ratios(pd.concat([rows for rows, _ in frames], ignore_index=True))
    if not trace:
        return rows
    return rows, pd.concat([traces for _, traces in frames], ignore_index=True)


def rows_at_once(pair, sharing=1):
    """How many rows are decoded at once: a GPU with much memory takes more in the same time.

    sharing: so many methods begin with the same rows, and have up to a row each in the end.
    """
    rows = ROWS
    if pair.device.type == "cuda":
        _, memory = torch.cuda.mem_get_info(pair.device)
        rows = ROWS_OF_LARGE_GPU if memory >= LARGE_GPU else ROWS
    return rows if sharing == 1 else 3 * rows // (2 * sharing)


def _groups(pair, asked, batch_size):
    """(method, its Answers) in groups of those that are decoded together."""
    groups = []
    for one in asked:
        fits = (group for group in groups if _joins(pair, one, group, batch_size))
        group = next(fits, None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _joins(pair, one, group, batch_size):
    """Whether a method may share the rows of a group: it lacks the same answers, there is room."""
    method, answers = one
    first, known = group[0]
    lacking = answers.missing()
    if len(group) == MOST_TOGETHER or lacking != known.missing():
        return False
    rows = batch_size or rows_at_once(pair, len(group) + 1)
    return share(pair, first, method, min(rows, len(lacking)))


def _kept(pair, method, jobs, sampling, trace, max_new_tokens):
    """The answers of a method that are in the cache. Their grades are those of today's graders.

    A method's label is what a notebook calls it, and nothing that an answer depends on.
    """
    code = (code_version(DECODING), decoder_of(method))
    nameless = replace(method, label=type(method).__name__)
    file = store.cached("answers", code, *identity(pair), nameless, sampling, max_new_tokens)
    return Answers(file.with_suffix(""), jobs, trace, _grade_anew)


def _labelled(pair, method, rows, trace):
    """Kept rows under the names that are asked for: weights and methods may have had others."""
    rows = rows.drop(columns="graded_by").assign(pair=pair.name, method=method.label)
    return rows, trace if trace is None else trace.assign(method=method.label)


def _batches(jobs, batch_size):
    """Jobs [(seed, problem)] in batches; the answers of a batch have one longest length."""
    by_limit = {}
    for job in jobs:
        by_limit.setdefault(job[1].max_new_tokens, []).append(job)
    return [
        alike[first : first + batch_size]
        for alike in by_limit.values()
        for first in range(0, len(alike), batch_size)
    ]


def _each(pair, act, items):
    """act(pair, item) for every item, in order.

    A small pair on a CPU takes an item per core, each with one torch thread and caches of its own.
    """
    if not pair.small:
        yield from (act(pair, item) for item in items)
        return
    count = min(models.ALL_THREADS, AT_MOST_THREADS)
    free = SimpleQueue()
    for _ in range(count):
        free.put(pair.copy())

    def with_own(item):
        own = free.get()
        try:
            return act(own, item)
        finally:
            free.put(own)

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(
        count, initializer=torch.set_num_threads, initargs=(threads,)
    ) as workers:
        yield from workers.map(with_own, items)


def side_by_side(pair, act, items):
    """act(item) for every item, in order; nothing that a model's caches hold may be in it.

    On a small pair's CPU several at once, which wait for the next of `items` where all are busy.
    """
    if not pair.small:
        yield from (act(item) for item in items)
        return
    count = min(models.ALL_THREADS, AT_MOST_THREADS)
    threads = torch.get_num_threads()
    pending = deque()
    with ThreadPoolExecutor(
        count, initializer=torch.set_num_threads, initargs=(threads,)
    ) as workers:
        for item in items:
            pending.append(workers.submit(act, item))
            if len(pending) > count:  # no more items in memory than are being worked on, and one
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _decode_batch(pair, methods, jobs, at_once, sampling, limit, trace):
    """Rows of one batch and their traces (None where none is asked for), by method.

    Both are in the jobs' order; `at_once` of them are decoded at once.
    """
    # Prompts of like length are decoded beside each other.
    order = sorted(range(len(jobs)), key=lambda n: len(str(jobs[n][1].messages)))
    asked = (
        [pair.encode(jobs[n][1].messages) for n in order],
        [key(*jobs[n]) for n in order],
    )
    settings = {
        "sampling": sampling,
        "max_new_tokens": limit,
        "stop": jobs[0][1].stop,
        "trace": trace,
        "rows": at_once,
    }
    if len(methods) == 1:
        found = [decode(pair, *methods, *asked, **settings)]
    else:
        found = decode_together(pair, methods, *asked, **settings)
    return [
        _tidy(pair, method, jobs, [answers[order.index(n)] for n in range(len(jobs))], settings)
        for method, answers in zip(methods, found)
    ]


def _tidy(pair, method, jobs, answers, settings):
    """Graded rows of a method's answers to some jobs, and their traces or None."""
    grades = tasks.grade_many(
        [(problem, answer.text) for (_, problem), answer in zip(jobs, answers)]
    )
    shared = settings["sampling"], settings["max_new_tokens"]
    rows = [
        tidy_row(pair, method, seed, problem, answer, grade, *shared)
        for (seed, problem), answer, grade in zip(jobs, answers, grades)
    ]
    rows = pd.DataFrame(rows).assign(graded_by=_graded_by(jobs))
    if not settings["trace"]:
        return rows, None
    traces = [
        answer.trace.assign(problem_id=problem.id, seed=seed, method=method.label)
        for (seed, problem), answer in zip(jobs, answers)
    ]
    return rows, traces


def _grade_anew(rows, jobs):
    """The rows of a batch as they are, or with the grades of today's graders where these differ."""
    graded_by = _graded_by(jobs)
    if (rows.graded_by == graded_by).all():
        return rows
    answers = [(problem, text) for (_, problem), text in zip(jobs, rows.text)]
    grades = tasks.grade_many(answers)
    return rows.assign(
        score=[grade.score for grade in grades],
        ungraded=[why_ungraded(grade) for grade in grades],
        code=code_version(),
        graded_by=graded_by,
    )


def why_ungraded(grade):
    """Why an answer has no score, in two words ("no judge", "no reference"); "" where it has."""
    return grade.detail.split(":")[0] if math.isnan(grade.score) else ""


# ---- one row at a time -------------------------------------------------------------------------


def timed(pair, methods, problems, *, seed=0, repeats=1, sampling=Sampling(), max_new_tokens=None):
    """Decode one row at a time, untraced, every method in turn on each problem (machines drift).

    Returns one row per problem and method, with seconds by phase: the median of `repeats` runs, so
    that a stall of the machine does not decide. Timings are kept until
    `store.publish_facts`, so that neither an interruption nor a failure further on costs them;
    after that the next run measures anew.
    """
    settings = (sampling, seed, repeats, max_new_tokens)
    code = (code_version(), [decoder_of(method) for method in methods], _graders(problems))
    file = store.cached("timed", code, *identity(pair), methods, settings, problems)
    store.until_published(file)
    done = store.load(file) or []
    if len(done) < len(problems):
        with taking_turns.alone():
            _warm_up(pair, methods, problems[0], sampling)
    for problem in track(problems[len(done) :], "timing"):
        with taking_turns.alone():
            runs = _time_problem(pair, methods, problem, seed, repeats, sampling, max_new_tokens)
        done.append(_middle_runs(runs, problem))
        store.keep(file, done)
    rows = pd.DataFrame([row for rows in done for row in rows]).assign(pair=pair.name)
    return with_ratios(rows)


def _warm_up(pair, methods, problem, sampling):
    """First calls allocate, so they are not timed."""
    prompt = pair.encode(problem.messages)
    for method in methods:
        decode(pair, method, [prompt], [(0, 0)], sampling=sampling, max_new_tokens=WARM_UP_TOKENS)


def _time_problem(pair, methods, problem, seed, repeats, sampling, max_new_tokens):
    """Every run of each method on one problem: a list of tidy rows by the method's number."""
    prompt = pair.encode(problem.messages)
    limit = max_new_tokens or problem.max_new_tokens
    runs = {method: [] for method in range(len(methods))}
    for _ in range(repeats):
        for number, method in enumerate(methods):
            (answer,) = decode(
                pair,
                method,
                [prompt],
                [key(seed, problem)],
                sampling=sampling,
                max_new_tokens=limit,
                stop=problem.stop,
            )
            row = tidy_row(pair, method, seed, problem, answer, None, sampling, limit)
            runs[number].append(row)
    return runs


def _middle_runs(runs, problem):
    """The middle run of each method on one problem, with its score."""
    middle = [median_run(rows) for rows in runs.values()]
    grades = tasks.grade_many([(problem, row["text"]) for row in middle])
    return [
        row | {"score": grade.score, "ungraded": why_ungraded(grade)}
        for row, grade in zip(middle, grades)
    ]


def median_run(rows):
    """The run with the median seconds; of an even number the mean times of the two in the middle.

    Runs of one method on one problem have the same uniforms, so they differ in their times alone.
    """
    in_order = sorted(rows, key=lambda row: row["seconds"])
    below, above = in_order[(len(rows) - 1) // 2], in_order[len(rows) // 2]
    return below | {name: (below[name] + above[name]) / 2 for name in TIMES}


@torch.inference_mode()
def forward_times(pair, context=128, widths=(1, 2, 3, 4, 5, 7, 9, 13), repeats=30, at_most_s=20.0):
    """Median seconds of one forward with scores, by model and number of tokens: the cost model's.

    Models and widths take turns, because a machine's speed drifts; fewer repeats (but five) where
    they take too long.
    """
    cells = [(name, width) for name in ("draft", "target") for width in widths]
    for name in ("draft", "target"):
        getattr(pair, name).start(1, context + max(widths))
    spent = {cell: [] for cell in cells}
    with taking_turns.alone():
        begin = time.perf_counter()
        for turn in range(repeats + 1):
            if turn > 5 and time.perf_counter() - begin > at_most_s:
                break
            for name, width in cells:
                lm = getattr(pair, name)
                tokens = torch.full((1, width), 5, device=pair.device)
                synchronise(pair.device)
                since = time.perf_counter()
                lm.logits(lm.forward(tokens, [context]))
                synchronise(pair.device)
                spent[name, width].append(time.perf_counter() - since)
    rows = [
        {"model": name, "width": width, "seconds": statistics.median(seconds[1:])}  # 0 warms up
        for (name, width), seconds in spent.items()
    ]
    return pd.DataFrame(rows)


# ---- tidy rows ---------------------------------------------------------------------------------


def tidy_row(pair, method, seed, problem, answer, grade, sampling, limit):
    """One tidy row: what was run, on what, what came out."""
    policy = getattr(method, "policy", None)
    rule = getattr(method, "rule", None)
    tau = getattr(rule, "tau", getattr(method, "tau", float("nan")))
    return {
        "pair": pair.name,
        "task": problem.task,
        "problem_id": problem.id,
        "seed": seed,
        "method": method.label,
        "rule": repr(rule) if rule else "",
        "gamma": getattr(policy, "gamma", 0),
        "tau": tau,
        "temperature": sampling.temperature,
        "max_new_tokens": limit,
        "n_tokens": len(answer.tokens),
        "finish": answer.finish,
        "target_calls": answer.target_calls,
        "draft_calls": answer.draft_calls,
        "drafted": answer.drafted,
        "accepted": answer.accepted,
        "rescued": answer.rescued,
        "switches": answer.switches,
        "caught_up": answer.caught_up,
        "score": grade.score if grade else float("nan"),
        "ungraded": why_ungraded(grade) if grade else "",
        "prefill_s": answer.prefill_s,
        "seconds": answer.seconds,
        "draft_s": answer.draft_s,
        "verify_s": answer.verify_s,
        "host_s": answer.host_s,
        "text": answer.text,
        "tokens": answer.tokens,
    } | provenance(pair)


def with_ratios(rows):
    """The rows with the ratios that every notebook reads."""
    return rows.assign(
        accept_ratio=rows.accepted / rows.drafted.where(rows.drafted > 0),
        tokens_per_round=rows.n_tokens / rows.target_calls.where(rows.target_calls > 0),
        tokens_per_s=rows.n_tokens / rows.seconds,
    )


def _graded_by(jobs):
    """`_graders` of the problems of some jobs, as a text."""
    return store.fingerprint(_graders([problem for _, problem in jobs]))


def _graders(problems):
    """What the grades of some problems depend on besides the answers."""
    graders = [tasks.grader(name) for name in sorted({problem.task for problem in problems})]
    means = judge.configured(), sandbox.possible()
    return code_version(GRADING), *means, store.fingerprint(*graders)


def identity(pair):
    """What of a pair a result depends on."""
    return pair.revision, pair.speed, pair.precision, str(pair.device)


def provenance(pair):
    """What every published row carries: weights, device, dtype, library and code versions."""
    return {
        "revision": pair.revision,
        "speed": pair.speed,
        "precision": pair.precision,
        "device": _device_name(str(pair.device)),
        "dtype": str(pair.target.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "code": code_version(),
    }


@cache
def _device_name(device):
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"cpu {platform.machine()} x{torch.get_num_threads()}"
