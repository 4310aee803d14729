"""What to deploy on a machine: draft length, what relaxing adds and costs, where that holds.

Policies are chosen on one half of the answers and everything is reported on the other half. A
machine is its forward times, as of ledger.medians or ledger.machine.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from helpers import learned, ledger, rules, stats
from helpers.common import track
from helpers.ledger import certificate
from helpers.ledger.table import LONGEST
from helpers.methods import Confidence, EntropyStop, Fixed, SqrtEntropyStop
from helpers.stopping import Calibration, CostStop

ALONE = "target alone"
CAPS = (8, LONGEST)  # of drafts that stop
NEAR_ENOUGH = 0.98  # of the best tokens per second: below it an advice is another one
COSTS = tuple(np.geomspace(0.005, 1.0, 31))
SURE = {"holds": "speculate", "does not hold": "target alone"}  # else it is undecided
RELAXED = {
    "√ everywhere": rules.SQRT,
    "SP_entropy, τ = 0.1": rules.SP_entropy(0.1),
    "SP_entropy, τ = 0.5": rules.SP_entropy(0.5),
    "SP_entropy, τ = 1": rules.SP_entropy(1.0),
    "lenience 0.8": rules.Lenience(0.8),
    "lenience 0.5": rules.Lenience(0.5),
    "ensemble, 10 % draft": rules.Ensemble(0.1),
    "ensemble, 30 % draft": rules.Ensemble(0.3),
    "accept all, τ = 0.1": rules.Gated(0.1, rules.ACCEPT_ALL),
    "accept all, τ = 0.5": rules.Gated(0.5, rules.ACCEPT_ALL),
}


# ---- counts of one half ------------------------------------------------------------------------


@dataclass
class Half:
    """A ledger of one half of the answers, with the counts that were taken of it."""

    book: ledger.Ledger
    kept: dict = field(default_factory=dict)

    def counts(self, policy, rule=rules.STRICT):
        key = (policy, rule)
        if key not in self.kept:
            self.kept[key] = ledger.counts(self.book, rule, policy)
        return self.kept[key]

    @property
    def alone(self):
        return ledger.alone(self.book, "target")

    def tokens_per_s(self, policy, forward):
        """Of strict SP, as a number."""
        counts = self.counts(policy)
        return counts.total("emitted") / ledger.seconds(counts, forward).sum()

    def speed(self, policy, forward):
        """Tokens per second of strict SP, or of the target alone (policy None). Interval."""
        return ledger.speed(self.alone if policy is None else self.counts(policy), forward)

    def gain(self, policy, forward, over=None, rule=rules.STRICT):
        """Tokens per second ÷ strict SP's by the policy `over`, or the target's alone. Interval."""
        rival = self.alone if over is None else self.counts(over)
        return ledger.speed_ratio(self.counts(policy, rule), rival, forward)


def over_problems(frame, columns, statistic):
    """Interval of a statistic of problems' sums. frame: has problem_id; columns: per answer."""
    table = pd.DataFrame(np.stack([np.asarray(column) for column in columns], 1))
    table = table.groupby(frame.problem_id.to_numpy(), sort=False).sum()
    return stats.bootstrap(table, statistic).within(0.0, np.inf)


def halves(pair, problems, sampling):
    """The target's answers to each half of the problems, read: (to choose on, to report)."""
    ensembles = {"ensemble 0.1": rules.Ensemble(0.1), "ensemble 0.3": rules.Ensemble(0.3)}
    middle = len(problems) // 2
    read = []
    for part in (problems[:middle], problems[middle:]):
        book = ledger.written_by_target(pair, part, rules=ensembles, sampling=sampling)
        read.append(Half(book))
    return read


# ---- the draft length --------------------------------------------------------------------------


def policies(calibration):
    """label -> policy, of all that are tried: fixed lengths, and stops by four signals.

    calibration: acceptance by the draft's entropy, of the half on which policies are chosen.
    """
    tried = {f"γ = {gamma}": Fixed(gamma) for gamma in range(1, LONGEST + 1)}
    for cap in CAPS:
        most = f"γ ≤ {cap}"
        for stop in (0.1, 0.25, 0.5, 1.0, 1.5, 2.0):
            tried[f"{most}, stop at H(q) > {stop:g} nats"] = EntropyStop(cap, stop)
        for least in (0.3, 0.5, 0.7, 0.9):
            tried[f"{most}, stop at q(x) < {least:g}"] = Confidence(cap, least)
        for bound in (0.4, 0.5, 0.6, 0.7, 0.8):
            label = f"{most}, stop at 1 − √(0.2 H(q)) < {bound:g}"
            tried[label] = SqrtEntropyStop(cap, 0.2, bound)
        for chance in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
            label = f"{most}, stop at P(all accepted) ≤ {chance:g}"
            tried[label] = CostStop(cap, chance, calibration)
    return tried


def calibrated(book):
    """Acceptance by the draft's entropy, in numbers short enough to be copied from a page."""
    found = learned.calibrate(book.positions, "tv")
    knots = {_short(H): _short(accept) for H, accept in zip(found.H, found.accept)}
    return Calibration(tuple(knots), tuple(knots.values()))


def _short(value):
    return float(f"{value:.3g}")


def choose(tuning, forward, tried):
    """(label of the best fixed γ, of the best stop, of the one to take) on one half.

    The stop is taken where its gain over the fixed γ lies above 1 with its whole interval.
    """
    speeds = {label: tuning.tokens_per_s(policy, forward) for label, policy in tried.items()}
    fixed = max((label for label in tried if not tried[label].adaptive), key=speeds.get)
    stop = max((label for label in tried if tried[label].adaptive), key=speeds.get)
    gain = tuning.gain(tried[stop], forward, over=tried[fixed])
    return fixed, stop, stop if gain.low > 1 else fixed


# ---- the advice --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Advice:
    """What to deploy, with what it rests on; every Interval is of the reported half.

    word: "speculate", "target alone" or "undecided". chosen, fixed, stop: labels of policies;
    policy: of the chosen one. speeds, gains: of the target alone and these three (tokens per
    second; ÷ the target's alone). over_fixed: the stop ÷ the fixed γ. relaxed: a Relaxed for each
    rule. elsewhere: an Elsewhere for each c, rising; region: from which c to which the advice is
    the same; c: this machine's. n: problems of the reported half; stops: how many were tried.
    """

    word: str
    pays: stats.Verdict
    chosen: str
    policy: Fixed
    fixed: str
    stop: str
    speeds: dict
    gains: dict
    over_fixed: stats.Interval
    tokens_per_round: stats.Interval
    by_gamma: list
    relaxed: dict
    elsewhere: list
    region: tuple
    c: float
    n: int
    stops: int


@dataclass(frozen=True)
class Relaxed:
    """What a relaxed rule adds to SP at the same draft length, and what it costs. Intervals.

    saved (calls per token) and share (of SP's calls); ratio (tokens per second ÷ SP's); against
    (÷ the target's alone); tv and kl (nats) per token; rescued: share of answers with a rescue.
    """

    saved: stats.Interval
    share: stats.Interval
    ratio: stats.Interval
    against: stats.Interval
    tv: stats.Interval
    kl: stats.Interval
    rescued: stats.Interval


@dataclass(frozen=True)
class Elsewhere:
    """A machine whose draft costs c: what would be taken there, and what the advised one gains."""

    c: float
    chosen: str
    word: str
    gain: stats.Interval  # of the policy chosen there ÷ the target alone
    advised: stats.Interval  # of the advised policy ÷ the target alone
    share: float  # of the tokens per second of the one chosen there that the advised one reaches


def advise(tuning, reported, forward):
    """What to deploy on a machine, from both halves. Returns Advice."""
    tried = policies(calibrated(tuning.book))
    for policy in track(tried.values(), "draft lengths"):
        tuning.counts(policy)
    fixed, stop, chosen = choose(tuning, forward, tried)
    policy = tried[chosen]
    shown = {ALONE: None} | {label: tried[label] for label in (fixed, stop)}
    gains = {label: reported.gain(tried[label], forward) for label in (fixed, stop)}
    pays = stats.verdict(gains[chosen], above=1)
    word = SURE.get(pays.word, "undecided")
    here, _ = ledger.place(forward, policy.gamma)
    machines = ledger.with_draft_at(forward, sorted((*COSTS, here)))
    elsewhere = []
    for c, other in track(machines.items(), "other machines"):
        elsewhere.append(_elsewhere(tuning, reported, other, c, tried, chosen))
    return Advice(
        word=word,
        pays=pays,
        chosen=chosen,
        policy=policy,
        fixed=fixed,
        stop=stop,
        speeds={label: reported.speed(one, forward) for label, one in shown.items()},
        gains=gains,
        over_fixed=reported.gain(tried[stop], forward, over=tried[fixed]),
        tokens_per_round=ledger.tokens_per_round(reported.counts(policy)),
        by_gamma=[
            (gamma, reported.speed(Fixed(gamma), forward)) for gamma in range(1, LONGEST + 1)
        ],
        relaxed={
            label: relaxed(reported, rule, policy, forward)
            for label, rule in track(RELAXED.items(), "relaxed rules")
        },
        elsewhere=elsewhere,
        region=region(elsewhere, here, word),
        c=here,
        n=reported.book.answers.problem_id.nunique(),
        stops=sum(policy.adaptive for policy in tried.values()),
    )


def _elsewhere(tuning, reported, forward, c, tried, advised):
    chosen = choose(tuning, forward, tried)[2]
    gain = reported.gain(tried[chosen], forward)
    best = tuning.tokens_per_s(tried[chosen], forward)
    return Elsewhere(
        c=c,
        chosen=chosen,
        word=SURE.get(stats.verdict(gain, above=1).word, "undecided"),
        gain=gain,
        advised=reported.gain(tried[advised], forward),
        share=tuning.tokens_per_s(tried[advised], forward) / best,
    )


def region(elsewhere, c, word):
    """(least, most) c around this machine's at which the advice stays the same.

    The same: the word is, and where it is to speculate, the advised policy reaches NEAR_ENOUGH of
    the one that would be chosen there.
    """
    costs = [place.c for place in elsewhere]
    same = [
        place.word == word and (word != "speculate" or place.share >= NEAR_ENOUGH)
        for place in elsewhere
    ]
    low = high = costs.index(c)
    while low > 0 and same[low - 1]:
        low -= 1
    while high < len(costs) - 1 and same[high + 1]:
        high += 1
    return costs[low], costs[high]


def relaxed(reported, rule, policy, forward):
    """What a relaxed rule adds at a policy, and what it costs, on one half. Returns Relaxed."""
    strict = reported.counts(policy)
    counts = reported.counts(policy, rule)
    rescued = certificate.rescue_chance(reported.book, rule, policy)
    of_answers = [rescued, np.ones_like(rescued)]
    return Relaxed(
        saved=ledger.calls_saved(counts, strict),
        share=ledger.calls_saved_share(counts, strict),
        ratio=reported.gain(policy, forward, over=policy, rule=rule),
        against=reported.gain(policy, forward, rule=rule),
        tv=ledger.tv_per_token(counts).within(0.0, np.inf),
        kl=_finite(counts),
        rescued=_share(over_problems(counts.frame, of_answers, lambda m: m[..., 0] / m[..., 1])),
    )


def _share(interval):
    """An unbiased estimate of a share may lie above 1, which it cannot be."""
    return interval.through(lambda share: min(share, 1.0))


def _finite(counts):
    """KL per token; infinite where a rule lets through what the target never writes."""
    if np.isfinite(counts.total("kl")):
        return ledger.kl_per_token(counts).within(0.0, np.inf)
    return stats.Interval(np.inf, np.inf, np.inf, counts.frame.problem_id.nunique())
