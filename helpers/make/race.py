"""A race whose times can be trusted: who answers which problem when, and which times count.

A machine's speed drifts, and now and then it stalls. So contestants take turns in random order
within each problem; everybody answers every problem an odd number of times, and the run with the
median time counts; an answer that took much longer than its own other repeats with equal counts is
timed again; and one contestant races twice under two labels, which shows what is left of the noise.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from helpers import experiments, stats, store, taking_turns
from helpers.common import track

STALL = 1.5  # an answer that took so many times the best of its own repeats is timed again,
RESOLUTION = 0.002  # if that is so many seconds more: a scheduler's own jitter is no stall
ATTEMPTS = 2  # at most so often
PAUSE = 0.05  # seconds before an answer, in which the threads of the one before go to sleep
COUNTS = ("n_tokens", "target_calls", "drafted", "accepted")  # equal in runs that can be compared
MEASURED = ("seconds", "prefill_s")
EXACT = "target"
RELAXED = "relaxed"
DRAFT = "draft"


@dataclass(frozen=True)
class Contestant:
    """Who races.

    answer(prompt, key, limit) takes the prompt's token ids, the key of the answer's random numbers
    (two ints) and the most tokens to write. It returns a dict with n_tokens, seconds (of
    everything) and prefill_s (of reading the prompt), and with counts and seconds by phase where
    they are known. samples: what the answers are drawn from, EXACT for the target's own
    distribution, RELAXED for one that a rule bends, DRAFT for the draft's. peer: whether it is
    somebody else's program.
    """

    label: str
    answer: Callable
    peer: bool = False
    samples: str = EXACT


class Absent(Exception):
    """A rival cannot race here; the message says why, and the table shows it."""


def race(contestants, pair, problems, repeats=3, seed=0, file=None):
    """Every contestant answers every problem `repeats` times, an odd number.

    The runs of finished problems are kept in `file`, where one is given: a race that was stopped
    goes on from there. Returns one row per run, in the contestants' order: facts of the problem,
    the contestant and the repeat, what the run counted and took, decode_s (seconds without reading
    the prompt),
    tokens_per_s of decoding, `timed_again` (how often this run replaced one that had stalled),
    `settled` (False where it is still much slower than another repeat) and `is_median` (True for
    the run that counts).
    """
    if repeats < 1 or repeats % 2 == 0:
        raise ValueError(
            f"repeats was {repeats}; give an odd number, so that the median time is a run's own"
        )
    done = (store.load(file) if file else None) or []
    for problem in track(problems[len(done) :], "racing"):
        # of the problem's own, so that a race which goes on has the order it would have had
        order = random.Random(f"{seed} {problem.id}")
        turn = Turn(pair, problem, seed)
        runs = {contestant.label: [] for contestant in contestants}
        for repeat in range(repeats):
            for contestant in order.sample(contestants, len(contestants)):
                runs[contestant.label].append(turn.run(contestant, repeat))
        for contestant in order.sample(contestants, len(contestants)):
            settle(runs[contestant.label], partial(turn.run, contestant))
        done.append([run for c in contestants for run in with_median(runs[c.label])])
        if file:
            store.keep(file, done)
    rows = [run for runs in done for run in runs]
    return pd.DataFrame(rows).assign(**experiments.provenance(pair))


@dataclass
class Turn:
    """One problem, to be answered by everybody."""

    pair: object
    problem: object
    seed: int

    def __post_init__(self):
        self.prompt = self.pair.encode(self.problem.messages)
        self.key = experiments.key(self.seed, self.problem)

    def run(self, contestant, repeat):
        """One timed answer as a dict."""
        time.sleep(PAUSE)
        with taking_turns.alone():
            run = contestant.answer(self.prompt, self.key, self.problem.max_new_tokens)
        decode_s = max(run["seconds"] - run["prefill_s"], 1e-6)
        facts = {
            "pair": self.pair.name,
            "task": self.problem.task,
            "problem_id": self.problem.id,
            "seed": self.seed,
            "method": contestant.label,
            "peer": contestant.peer,
            "samples": contestant.samples,
            "prompt_tokens": len(self.prompt),
            "repeat": repeat,
            "timed_again": 0,
        }
        return facts | run | {"decode_s": decode_s, "tokens_per_s": run["n_tokens"] / decode_s}


# ---- which times count -------------------------------------------------------------------------


def stalled(runs):
    """Places of the runs that took more than STALL times the best of the others with equal counts.

    The best of them and not their median: nothing makes a run faster than it is, and two of three
    may have stalled. Runs without a twin of equal counts cannot be judged.
    """
    late = []
    for i, run in enumerate(runs):
        twins = [other for j, other in enumerate(runs) if j != i and _alike(run, other)]
        if any(_is_late(run[part], [other[part] for other in twins]) for part in MEASURED):
            late.append(i)
    return late


def _alike(run, other):
    """Whether two runs did the same work, as far as is counted."""
    return all(run.get(count) == other.get(count) for count in COUNTS)


def _is_late(seconds, others):
    """Whether a time is a stall beside those of the other repeats, of which there may be none."""
    best = min(others, default=seconds)
    return seconds > STALL * best and seconds - best > RESOLUTION


def settle(runs, again):
    """Replace, in place, runs that stalled by new ones, again(repeat); mark what is left."""
    for attempt in range(1, ATTEMPTS + 1):
        for i in stalled(runs):
            runs[i] = again(runs[i]["repeat"]) | {"timed_again": attempt}
    unsettled = stalled(runs)
    for i, run in enumerate(runs):
        run["settled"] = i not in unsettled


def with_median(runs):
    """The runs, `is_median` True for the one with the median seconds of decoding per token.

    Per token, because repeats of a peer may differ in length.
    """
    per_token = [run["decode_s"] / run["n_tokens"] for run in runs]
    middle = per_token.index(statistics.median(per_token))
    return [run | {"is_median": i == middle} for i, run in enumerate(runs)]


# ---- the control -------------------------------------------------------------------------------


def twin(contestant):
    """The same contestant under a second label: any ratio of the two but 1 is noise."""
    return replace(contestant, label=f"{contestant.label} (again)")


def control(rows, contestant):
    """Tokens per second of a contestant's twin ÷ its own, over the runs that count. Interval."""
    return stats.speed_up(rows, twin(contestant).label, contestant.label, bottom="decode_s")


# ---- who won -----------------------------------------------------------------------------------


def speeds(rows):
    """Tokens per second of decoding by label, in the order of the labels: {label: Interval}."""
    labels = rows.method.unique()
    return {label: stats.ratio(rows, "n_tokens", "decode_s", label) for label in labels}


def fastest(rows, speed):
    """The label in `rows` with the highest estimate in `speed`; None where there are no rows."""
    return max(rows.method.unique(), key=lambda label: speed[label].estimate, default=None)


def sentence(rows, absent):
    """Who is fastest, for the line above the table. rows: the runs that count, without a control.

    absent: {rival: why}. Only those that sample from the target itself can win; the draft alone is
    another model, and a relaxed rule is named beside the winner.
    """
    speed = speeds(rows)
    exact = rows[rows.samples == EXACT]
    ours = fastest(exact[~exact.peer], speed)
    peer = fastest(exact[exact.peer], speed)
    relaxed = fastest(rows[rows.samples == RELAXED], speed)
    if peer is None:
        text = f"{ours} makes {_rate(speed[ours])}, and nobody else raced"
    else:
        ratio = stats.speed_up(rows, ours, peer, bottom="decode_s")
        text = _comparison(ours, peer, speed, ratio)
        if relaxed:
            ratio = stats.speed_up(rows, relaxed, peer, bottom="decode_s")
            text += f"; relaxed, our {relaxed} makes {ratio.show(2)} × {peer}"
    missing = f" Not in the race: {', '.join(absent)}." if absent else ""
    return f"Of those that sample from the target itself, {text}.{missing}"


def _comparison(ours, peer, speed, ratio):
    """Our fastest against the fastest peer; ratio: the Interval of ours ÷ theirs."""
    if ratio.low > 1:
        return (
            f"ours is the fastest: {ours} with {_rate(speed[ours])}, {ratio.show(2)} × the fastest "
            f"peer, {peer}"
        )
    if ratio.high < 1:
        return (
            f"{peer} is the fastest with {_rate(speed[peer])}, and our fastest, {ours}, makes "
            f"{ratio.show(2)} of that"
        )
    return (
        f"our {ours} with {_rate(speed[ours])} and {peer} with {_rate(speed[peer])} are the "
        f"fastest and cannot be told apart on {ratio.n} problems: ours makes {ratio.show(2)} × "
        "theirs"
    )


def _rate(interval):
    """'12.3 tokens per second'."""
    return f"{interval.estimate:.1f} tokens per second"
