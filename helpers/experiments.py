"""Methods × problems × seeds -> tidy tables. Finished work is kept, so an interrupted run goes on where it was.

`run` decodes many rows at once and is cached under data/cache/ by everything that determines its result.
`timed` decodes one row at a time, methods interleaved, and keeps its timings only until the notebook has published.
Readings of single positions are in helpers/probes.py.
"""

import hashlib
import json
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import pandas as pd
import torch

from helpers import common, models, tasks
from helpers.common import track
from helpers.decoding import decode
from helpers.methods import Sampling, Speculative
from helpers.tasks import judge

# What an answer depends on besides its job (which holds the prompt), and what its grade does.
DECODING = ("rules.py", "methods.py", "models/*.py", "decoding/*.py", "experiments.py", "probes.py")
GRADING = ("tasks/*.py",)
_unpublished = set()  # files of the timings that no notebook has published yet


def key(seed, problem):
    """The uniforms' key of one job: (seed, a number from the problem's id)."""
    return seed, int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:7], "big")


def run(
    pair,
    methods,
    problems,
    seeds=(0,),
    *,
    sampling=Sampling(),
    batch_size=64,
    trace=False,
    max_new_tokens=None,
):
    """Decode every method on every (problem, seed), many rows at once.

    Returns a DataFrame with one row per generation; with trace=True a pair (rows, trace), the trace with one
    row per tested or emitted position. Timings are not filled: rows of a batch share their time.
    """
    jobs = [(seed, problem) for seed in seeds for problem in problems]
    chunks = [
        (method, jobs[i : i + batch_size])
        for method in methods
        for i in range(0, len(jobs), batch_size)
    ]
    decoded = _each(
        pair, lambda own, chunk: _chunk(own, *chunk, sampling, trace, max_new_tokens), chunks
    )
    frames = list(track(decoded, "decoding", len(chunks)))
    rows = _tidy(pd.concat([f[0] for f in frames], ignore_index=True))
    return (rows, pd.concat([f[1] for f in frames], ignore_index=True)) if trace else rows


def _each(pair, act, items):
    """act(pair, item) in order. A small pair on a CPU takes one item per core, each with one torch thread and own caches."""
    if not pair.small:
        yield from (act(pair, item) for item in items)
        return
    count, free = min(models.ALL_THREADS, 4), SimpleQueue()
    for _ in range(count):
        free.put(pair.copy())

    def with_own(item):
        own = free.get()
        try:
            return act(own, item)
        finally:
            free.put(own)

    with ThreadPoolExecutor(
        count, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)
    ) as pool:
        yield from pool.map(with_own, items)


def _chunk(pair, method, jobs, sampling, trace, max_new_tokens):
    """One batch: from the cache when everything that determines it is the same, else decoded and kept.

    Only the grades are taken again when it is the graders, or the judge, that have changed.
    """
    limit = max_new_tokens or max(p.max_new_tokens for _, p in jobs)
    facts = [
        code_version(DECODING),
        pair.revision,
        pair.speed,
        str(pair.device),
        method,
        sampling,
        limit,
        jobs,
    ]
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    file, traced = (common.CACHE / "runs" / f"{name}{kind}.pkl" for kind in ("", "-traced"))
    graded_by = code_version(GRADING), judge.configured()
    file = traced if trace or traced.exists() else file
    if file.exists():
        rows, traces, by = pd.read_pickle(file)
        if by != graded_by:
            problems = {(seed, p.id): p for seed, p in jobs}
            answers = [(problems[r.seed, r.problem_id], r.text) for r in rows.itertuples()]
            rows = rows.assign(
                score=[g.score for g in tasks.grade_many(answers)], code=code_version()
            )
            _keep(file, (rows, traces, graded_by))
        return rows, traces if trace else None
    order = sorted(range(len(jobs)), key=lambda i: len(str(jobs[i][1].messages)))
    prompts = [pair.encode(jobs[i][1].messages) for i in order]
    answers = decode(
        pair,
        method,
        prompts,
        [key(*jobs[i]) for i in order],
        sampling=sampling,
        max_new_tokens=limit,
        stop=jobs[0][1].stop,
        trace=trace,
    )
    grades = tasks.grade_many([(jobs[i][1], a.text) for i, a in zip(order, answers)])
    rows = pd.DataFrame(
        [
            _row(pair, method, *jobs[i], a, g, sampling, limit)
            for i, a, g in zip(order, answers, grades)
        ]
    )
    traces = (
        pd.concat(
            [
                a.trace.assign(problem_id=jobs[i][1].id, seed=jobs[i][0], method=method.label)
                for i, a in zip(order, answers)
            ],
            ignore_index=True,
        )
        if trace
        else None
    )
    _keep(file, (rows, traces, graded_by))
    return rows, traces


def _keep(file, what):
    """Write a cache file in one move."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.to_pickle(what, file.with_suffix(".tmp"))
    os.replace(file.with_suffix(".tmp"), file)


def timed(pair, methods, problems, *, seed=0, repeats=1, sampling=Sampling(), max_new_tokens=None):
    """Decode one row at a time, untraced, every method in turn on each problem (machines drift).

    Returns one row per problem and method, with seconds by phase: of `repeats` runs the one with the median seconds, so
    that a stall of the machine does not decide. Timings are kept until `publish_facts`, so that neither an interruption
    nor a failure further on costs them; after that the next run measures anew.
    """
    facts = [
        code_version(),
        pair.revision,
        pair.speed,
        str(pair.device),
        methods,
        sampling,
        seed,
        repeats,
        max_new_tokens,
        problems,
    ]
    file = common.CACHE / "timed" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.pkl"
    done = pd.read_pickle(file) if file.exists() else []
    _unpublished.add(file)
    for method in methods if len(done) < len(problems) else ():  # warm-up: first calls allocate
        decode(
            pair,
            method,
            [pair.encode(problems[0].messages)],
            [(0, 0)],
            sampling=sampling,
            max_new_tokens=8,
        )
    for problem in track(problems[len(done) :], "timing"):
        prompt, limit = pair.encode(problem.messages), max_new_tokens or problem.max_new_tokens
        rows = []
        for _ in range(repeats):
            for method in methods:
                (answer,) = decode(
                    pair,
                    method,
                    [prompt],
                    [key(seed, problem)],
                    sampling=sampling,
                    max_new_tokens=limit,
                    stop=problem.stop,
                )
                rows.append(_row(pair, method, seed, problem, answer, None, sampling, limit))
        runs = [
            sorted(rows[i :: len(methods)], key=lambda r: r["seconds"]) for i in range(len(methods))
        ]
        middle = [r[(len(r) - 1) // 2] for r in runs]
        grades = tasks.grade_many([(problem, r["text"]) for r in middle])
        done.append([r | {"score": g.score} for r, g in zip(middle, grades)])
        _keep(file, done)
    return _tidy(pd.DataFrame([row for rows in done for row in rows]))


@torch.inference_mode()
def forward_times(pair, context=128, widths=(1, 2, 3, 4, 5, 7, 9, 13), repeats=30, at_most_s=20.0):
    """Median seconds of one draft and one target forward with scores, by number of tokens: the cost model's input.

    Models and widths take turns, because a machine's speed drifts; fewer repeats (but five) where they take too long.
    """
    cells = [(name, width) for name in ("draft", "target") for width in widths]
    for name in ("draft", "target"):
        getattr(pair, name).start(1, context + max(widths))
    spent, begin = {cell: [] for cell in cells}, time.perf_counter()
    for turn in range(repeats + 1):
        if turn > 5 and time.perf_counter() - begin > at_most_s:
            break
        for name, width in cells:
            lm, tokens = getattr(pair, name), torch.full((1, width), 5, device=pair.device)
            _synchronise(pair.device)
            since = time.perf_counter()
            lm.logits(lm.forward(tokens, [context]))
            _synchronise(pair.device)
            spent[name, width].append(time.perf_counter() - since)
    return pd.DataFrame(
        [
            {
                "model": name,
                "width": width,
                "seconds": statistics.median(seconds[1:]),
            }  # the first warms up
            for (name, width), seconds in spent.items()
        ]
    )


def _synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def _row(pair, method, seed, problem, answer, grade, sampling, limit):
    """One tidy row: what was run, on what, what came out."""
    policy, rule = getattr(method, "policy", None), getattr(method, "rule", None)
    return {
        "pair": pair.name,
        "task": problem.task,
        "problem_id": problem.id,
        "seed": seed,
        "method": method.label,
        "rule": repr(rule) if rule else "",
        "gamma": getattr(policy, "gamma", 0),
        "tau": getattr(rule, "tau", getattr(method, "tau", float("nan"))),
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
        "prefill_s": answer.prefill_s,
        "seconds": answer.seconds,
        "draft_s": answer.draft_s,
        "verify_s": answer.verify_s,
        "host_s": answer.host_s,
        "text": answer.text,
        "tokens": answer.tokens,
    } | provenance(pair)


def _tidy(rows):
    """Add the ratios that every notebook reads."""
    return rows.assign(
        accept_ratio=rows.accepted / rows.drafted.where(rows.drafted > 0),
        tokens_per_round=rows.n_tokens / rows.target_calls.where(rows.target_calls > 0),
        tokens_per_s=rows.n_tokens / rows.seconds,
    )


@cache
def code_version(names=DECODING + GRADING):
    """Checksum of the code that a decoded and graded answer depends on."""
    here = Path(__file__).parent
    return hashlib.sha256(
        b"".join(f.read_bytes() for n in names for f in sorted(here.glob(n)))
    ).hexdigest()[:12]


def provenance(pair):
    """What every published row carries: weights, device, dtype, library and code versions."""
    import transformers

    return {
        "revision": pair.revision,
        "speed": pair.speed,
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


def publish(frame, pair_name, name):
    """Write a table to data/results/PAIR/NAME.parquet, in one move; the published record of a notebook."""
    file = common.results(pair_name) / f"{name}.parquet"
    slim = frame.drop(columns=[c for c in ("tokens", "text") if c in frame])
    slim.to_parquet(file.with_suffix(".tmp"), index=False)
    os.replace(file.with_suffix(".tmp"), file)
    return file


def publish_facts(pair_name, name, **facts):
    """Write a notebook's verdict and headline numbers to data/results/PAIR/NAME.json (the README reads them).

    This is a notebook's last word: the timings behind it are on record, and the next run measures anew.
    """
    file = common.results(pair_name) / f"{name}.json"
    file.write_text(json.dumps(facts, indent=1, default=float) + "\n")
    while _unpublished:
        _unpublished.pop().unlink(missing_ok=True)
    return file


def with_gamma(method, gamma):
    """The same speculative method at another block length."""
    if not isinstance(method, Speculative):
        raise ValueError(f"{method.label} drafts nothing, so it has no gamma")
    return replace(method, policy=replace(method.policy, gamma=gamma))
