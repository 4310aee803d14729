"""How fast methods are: predicted from a ledger and forward times, or timed, by the same names.

The seconds of an answer are linear in what its rounds did: `parts` of the counts times `prices` of
the forwards. So draws of both, problems and forward times, give an interval.
"""

import time
from dataclasses import replace

import numpy as np
import pandas as pd

from helpers import common, rules, stats, taking_turns
from helpers.decoding import decode
from helpers.ledger.programme import counts
from helpers.ledger.speeds import alone, calls_saved_share, time_of
from helpers.ledger.table import LONGEST
from helpers.methods import Autoregressive, Fixed, Sampling, Speculative

WIDTHS = np.arange(1, LONGEST + 2)  # of the target's forwards
CELLS = [("target", int(width)) for width in WIDTHS] + [("draft", 1), ("draft", 2)]
DRAWS = 4000  # of a bootstrap
FEWEST_TURNS = 5
AT_MOST_S = 20.0  # of timing steps of a small pair: 30 turns
AT_MOST_S_OF_LARGE = 600.0  # of any other, of which a single turn can take that long
ROUNDS = 6  # of one kind in a turn
ROUNDS_OF_LARGE = 2


# ---- forward times -----------------------------------------------------------------------------


def forward_repeats(pair, context=128, *, sampling=Sampling(), turns=30, at_most_s=None, seed=0):
    """Seconds of single steps of the decoders, every repeat of them.

    A step of the target of `width` tokens is a round that verifies them, with all that the host
    does in it; one of the draft is a drafted token: forward, draw and entropy. They are timed in
    the decoders themselves, because on a small pair a forward is only half of a step. A turn has
    the target alone and blocks of 1 to 16 drafted tokens, in a random order: a machine's speed
    drifts, and what ran just before matters. Fewer turns (but five) where they take longer than
    `at_most_s`; where none is given, 20 s for a small pair and 10 minutes for any other. (With five
    turns, ratios of speeds are known to about a tenth, whatever the number of problems.)
    Returns a DataFrame: turn, model, width, seconds.
    """
    if at_most_s is None:
        at_most_s = AT_MOST_S if pair.small else AT_MOST_S_OF_LARGE
    draw = np.random.default_rng(seed)
    prompt = draw.integers(pair.target.vocab_size, size=context).tolist()
    endless = replace(pair, eos=())  # these answers mean nothing, and must not end
    rows = []
    with taking_turns.alone():
        begin = time.perf_counter()
        # The first turn warms up.
        for turn in common.track(range(-1, turns), "times of steps"):
            if turn >= FEWEST_TURNS and time.perf_counter() - begin > at_most_s:
                break
            widths = draw.permutation(WIDTHS).tolist()
            rows += _one_turn(endless, widths, prompt, sampling, (seed, turn + 1))
    table = pd.DataFrame(rows)
    return table[table.turn >= 0].reset_index(drop=True)


def _one_turn(pair, widths, prompt, sampling, key):
    """The rows of one turn of `forward_repeats`, with steps of the target in this order."""
    rows = []
    drafted = 0
    draft_s = 0.0
    turn = key[1] - 1
    for width in widths:
        answer = _some_rounds(pair, width, prompt, sampling, key)
        drafted += answer.drafted
        draft_s += answer.draft_s
        seconds = (answer.verify_s + answer.host_s) / answer.rounds
        rows.append({"turn": turn, "model": "target", "width": width, "seconds": seconds})
    for width in (1, 2):  # what the draft has to read again is in its mean
        rows.append({"turn": turn, "model": "draft", "width": width, "seconds": draft_s / drafted})
    return rows


def _some_rounds(pair, width, prompt, sampling, key):
    """A few rounds that verify `width` tokens each, as a Generation with its seconds."""
    rounds = ROUNDS if pair.small else ROUNDS_OF_LARGE
    method = Autoregressive("target")
    if width > 1:
        method = Speculative(rules.STRICT, Fixed(width - 1))
    (answer,) = decode(
        pair,
        method,
        [prompt],
        [key],
        sampling=sampling,
        max_new_tokens=(rounds + 1) * width + 1,  # room for whole blocks to the last round
        on_round=lambda answers: answers[0].rounds == rounds,
    )
    return answer


def middle_context(ledger):
    """How many tokens stand before the middle of an answer, on average."""
    return int((ledger.answers.prompt_length + ledger.answers.n_tokens / 2).mean())


def medians(repeats):
    """The table of forward times (model, width, seconds) of `forward_repeats`."""
    return repeats.groupby(["model", "width"], as_index=False).seconds.median()


def busyness(repeats):
    """How far apart the quartiles of a forward's times are, as a ratio: 1 on a quiet machine.

    That of a typical step, or of the target's single token if it is larger: every comparison with
    the target alone rests on that one.
    """
    by_cell = repeats.groupby(["model", "width"]).seconds
    apart = by_cell.quantile(0.75) / by_cell.quantile(0.25)
    return float(max(apart.median(), apart["target", 1]))


def place(forward, gamma):
    """Where a machine is among others: (c, slope), as `machine` takes them.

    c is the draft's forward ÷ the target's; slope what each further token of a verified block of
    γ + 1 costs on average, in forwards of the target.
    """
    (draft,) = time_of(forward, "draft", [1])
    one, block = time_of(forward, "target", [1, gamma + 1])
    return float(draft / one), float((block / one - 1) / gamma)


# ---- seconds as parts times prices -------------------------------------------------------------


def parts(counted):
    """What an answer's seconds are linear in: (answers, 19).

    Rounds that verified 1, 2, … 17 tokens, drafted tokens, and blocks accepted whole, after which
    the draft reads two tokens at once.
    """
    table = np.zeros((len(counted.frame), len(WIDTHS) + 2))
    table[:, : counted.widths.shape[1]] = counted.widths
    table[:, -2] = counted.frame.drafted
    table[:, -1] = counted.frame.full
    return table


def prices(forward):
    """Seconds of each of the parts, (19,). forward: forward times, or a `machine`."""
    one, two = time_of(forward, "draft", [1, 2])
    return np.array([*time_of(forward, "target", WIDTHS), one, two - one])


def _drawn_prices(repeats, n_boot, seed=0):
    """Prices of medians over turns that are drawn again, (n_boot, 19)."""
    wide = repeats.pivot(index="turn", columns=["model", "width"], values="seconds")[CELLS]
    turns = wide.to_numpy()
    drawn = np.random.default_rng(seed).integers(len(turns), size=(n_boot, len(turns)))
    table = np.median(turns[drawn], axis=1)
    table[:, -1] -= table[:, -2]
    return table


def by_problem(counted, *columns):
    """Parts, and further columns (one value per answer), summed over each problem's answers."""
    problem, names = pd.factorize(counted.frame.problem_id)
    table = np.column_stack([*columns, parts(counted)])
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, problem, table)
    return pd.DataFrame(sums, index=names)


# ---- paces -------------------------------------------------------------------------------------


def counted(ledger, method):
    """Counts of any method that a ledger knows: speculative, or one model alone."""
    if isinstance(method, Autoregressive):
        return alone(ledger, method.model)
    return counts(ledger, method.rule, method.policy)


class Predicted:
    """Speeds of methods from a ledger's expected counts and forward times.

    repeats: of `forward_repeats`. Intervals draw problems (paired between methods) and turns of the
    forward times; relaxed rules are counted on the target's texts (see `counts`).
    """

    predicts = True

    def __init__(self, ledger, methods, repeats):
        self.counts = {method.label: counted(ledger, method) for method in methods}
        self.typical = prices(medians(repeats))
        self.drawn = _drawn_prices(repeats, DRAWS)

    def speed(self, label):
        """Tokens per second. Returns Interval."""
        return stats.bootstrap(self._table(label), self._per_second, DRAWS)

    def ratio(self, label, baseline):
        """Tokens per second ÷ those of a baseline on the same answers. Returns Interval."""
        table = np.hstack([self._table(label), self._table(baseline)])
        width = table.shape[1] // 2

        def gain(means):
            top = self._per_second(means[..., :width])
            return top / self._per_second(means[..., width:])

        return stats.bootstrap(table, gain, DRAWS).within(0.0, np.inf)

    def accept_ratio(self, label):
        """Accepted ÷ drafted. Returns Interval."""
        return self._share(label, "accepted", "drafted")

    def tokens_per_round(self, label):
        """Tokens per target call. Returns Interval."""
        return self._share(label, "emitted", "rounds")

    def calls_saved(self, label, baseline):
        """Share of a baseline's target calls per token that is saved. Returns Interval."""
        return calls_saved_share(self.counts[label], self.counts[baseline])

    def against(self, times):
        """How well timed answers agree with what was predicted for their problems.

        times: rows of experiments.timed. Returns a DataFrame, one row per method: method,
        predicted, timed (tokens per second), ratio (timed ÷ predicted), and of_forwards, the time
        that the forwards of the run's own counts should take ÷ what it took: what is left to 1 is
        not forwards. All Intervals over problems.
        """
        lines = []
        for label in self.counts:
            own = times[times.method == label]
            if own.empty:
                continue
            run = own.groupby("problem_id")[["n_tokens", "seconds"]].sum()
            run["forwards"] = _own_parts(own) @ self.typical
            table = run.join(pd.DataFrame(self._table(label), self._problems(label)), how="inner")
            lines.append({"method": label} | self._agreement(table.to_numpy()))
        return pd.DataFrame(lines)

    def _agreement(self, table):
        """Intervals over problems: columns tokens, seconds, of forwards, then as in `_table`."""

        def timed(means):
            return means[..., 0] / means[..., 1]

        def predicted(means):
            return self._per_second(means[..., 3:])

        return {
            "predicted": stats.bootstrap(table, predicted, DRAWS),
            "timed": stats.bootstrap(table, timed, DRAWS),
            "ratio": stats.bootstrap(table, lambda m: timed(m) / predicted(m), DRAWS),
            "of_forwards": stats.bootstrap(table, lambda m: m[..., 2] / m[..., 1], DRAWS),
        }

    def _table(self, label):
        """Per problem: tokens, then the parts."""
        counted = self.counts[label]
        return by_problem(counted, counted.frame.emitted).to_numpy()

    def _problems(self, label):
        return pd.unique(self.counts[label].frame.problem_id)

    def _per_second(self, means):
        """Tokens per second of column means (…, 1 + 19); each draw has its own prices."""
        at = self.typical if means.ndim == 1 else self.drawn
        return means[..., 0] / (means[..., 1:] * at).sum(-1)

    def _share(self, label, top, bottom):
        frame = self.counts[label].frame
        sums = frame.groupby("problem_id", sort=False)[[top, bottom]].sum()
        return stats.bootstrap(sums, lambda means: means[..., 0] / means[..., 1])


def _own_parts(rows):
    """Parts of each problem's timed answers, from their counts: (problems, 19), sorted by id.

    All blocks of a problem are taken as long as their mean, between two widths.
    """
    sums = rows.groupby("problem_id")[["target_calls", "draft_calls", "drafted"]].sum()
    table = np.zeros((len(sums), len(WIDTHS) + 2))
    rounds = sums.target_calls.to_numpy(float)
    mean = np.divide(sums.drafted, rounds, out=np.zeros(len(sums)), where=rounds > 0)
    below = np.minimum(mean.astype(int), LONGEST - 1)
    row = np.arange(len(sums))
    table[row, below] = rounds * (1 - (mean - below))
    table[row, below + 1] = rounds * (mean - below)
    table[:, -2] = np.where(rounds > 0, sums.drafted, sums.draft_calls)
    return table


class Timed:
    """The same speeds from timed answers alone, where single forwards cannot be timed (vLLM)."""

    predicts = False

    def __init__(self, times):
        self.times = times

    def speed(self, label):
        """Tokens per second. Returns Interval."""
        return stats.ratio(self.times, "n_tokens", "seconds", label)

    def ratio(self, label, baseline):
        """Tokens per second ÷ those of a baseline on the same problems. Returns Interval."""
        return stats.speed_up(self.times, label, baseline)

    def accept_ratio(self, label):
        """Accepted ÷ drafted. Returns Interval."""
        return stats.ratio(self.times, "accepted", "drafted", label)

    def tokens_per_round(self, label):
        """Tokens per target call. Returns Interval."""
        return stats.ratio(self.times, "n_tokens", "target_calls", label)

    def calls_saved(self, label, baseline):
        """Share of a baseline's target calls per token that is saved. Returns Interval."""
        per_call = stats.speed_up(self.times, label, baseline, bottom="target_calls")
        return per_call.through(lambda ratio: 1 - 1 / max(ratio, 1e-9))
