"""What may be said: verdicts on an interval, on a family of them, on a loss and its price."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special

from helpers.stats.intervals import LEVEL, Interval

UNDECIDED = "undecided at this sample size"
FEW_PROBLEMS = 10  # the spread of fewer does not tell how many would decide
POWER = 0.8
MOST = 10**7  # problems: beyond this a number of them means "never"


@dataclass(frozen=True)
class Verdict:
    """holds, does not hold, or undecided, with how many problems would decide it."""

    word: str
    interval: Interval
    threshold: float
    n_needed: int | None = None

    def __str__(self):
        notes = []
        # a threshold of 0, or beyond a half, is of the claim itself: a ratio's 1, an AUROC's 0.5
        if 0 < abs(self.threshold) < 0.5:
            notes.append(f"margin {100 * abs(self.threshold):.3g} points")
        if self.n_needed is not None:
            notes.append(self._decides())
        return f"{self.word} ({'; '.join(notes)})" if notes else self.word

    def _decides(self):
        """How many problems would decide, beside how many the interval rests on."""
        count = "more than 100,000"
        if self.n_needed <= 100_000:
            # of a number that rests on one estimate, two digits are earned
            count = f"about {round(self.n_needed, 2 - len(str(self.n_needed))):,}"
        power = f"{100 * POWER:.0f} % power"
        return f"{count} problems would decide with {power}, this rests on {self.interval.n}"


def verdict(interval, above=None, below=None, within=None):
    """Whether an effect lies above or below a threshold, or within ± a margin, by its interval.

    holds: the whole 95 % interval does. does not hold: none of it does. Else undecided, with
    `problems_needed` to decide it, from ten problems on.
    """
    found = without_number(interval, above, below, within)
    if found.word != UNDECIDED or not interval.half_width or interval.n < FEW_PROBLEMS:
        return found
    return replace(found, n_needed=problems_needed(interval, *_allowed(above, below, within)))


def without_number(interval, above=None, below=None, within=None):
    """The same verdict without how many problems would decide: of adjusted and early intervals."""
    if sum(x is not None for x in (above, below, within)) != 1:
        raise ValueError("a verdict needs exactly one of above=, below=, within=")
    if interval.missing:
        return Verdict(f"undecided: {interval.missing}", interval, float("nan"))
    low, high = _allowed(above, below, within)
    threshold = next(x for x in (within, above, below) if x is not None)
    if low < interval.low and interval.high < high:
        return Verdict("holds", interval, threshold)
    if interval.low > high or interval.high < low:
        return Verdict("does not hold", interval, threshold)
    return Verdict(UNDECIDED, interval, threshold)


def _allowed(above, below, within):
    """Where an effect may lie: (low, high)."""
    if within is not None:
        return -within, within
    return (above, np.inf) if above is not None else (-np.inf, below)


def problems_needed(interval, low, high):
    """How many new problems decide with 80 % power whether an effect lies in (low, high).

    The estimate has an error of its own, so the effect is not taken to be where the estimate is: it
    is drawn from Normal(estimate, error²), and power is averaged over it ("assurance", O'Hagan et
    al. 2005). A new estimate of N problems then varies by error² (1 + n / N) around the old one;
    it decides where its interval, error sqrt(n / N) wide, lies inside or outside. Planning for the
    estimate itself gives a study that decides in about half of all cases.
    """
    reach = -special.ndtri((1 - LEVEL) / 2)
    error = interval.half_width / reach
    if not np.isfinite(error):
        return MOST
    low, high = ((bound - interval.estimate) / error for bound in (low, high))

    def power(log_growth):
        new = np.exp(-log_growth / 2)  # its error, in errors of the old estimate
        spread = np.sqrt(1 + new**2)
        outside = special.ndtr((low - reach * new) / spread)
        outside += special.ndtr(-(high + reach * new) / spread)
        top = special.ndtr((high - reach * new) / spread)
        inside = top - special.ndtr((low + reach * new) / spread)
        return outside + max(inside, 0.0)

    most = np.log(MOST / interval.n)
    if most <= 0 or power(most) < POWER:
        return MOST
    if power(0.0) >= POWER:
        return interval.n + 1
    growth = np.exp(optimize.brentq(lambda x: power(x) - POWER, 0.0, most))
    return int(np.ceil(interval.n * growth))


def overall(words):
    """One word for all checks of a claim: it holds when all do, and does not when one does not."""
    words = list(words)
    if "does not hold" in words:
        return "does not hold"
    return "holds" if words and set(words) == {"holds"} else UNDECIDED


# ---- several at once ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Comparisons that are read together: a simultaneous interval and a verdict for each."""

    intervals: dict  # label -> Interval: all hold together in 95 % of cases (Bonferroni)
    verdicts: dict  # label -> Verdict by Holm's step-down; its interval is the one that decided

    def best(self):
        """The label with the largest estimate: `intervals` of it may be quoted though chosen."""
        known = {label: i.estimate for label, i in self.intervals.items() if not i.missing}
        return max(known, key=known.get)

    @property
    def words(self):
        return {label: found.word for label, found in self.verdicts.items()}


def family(compared, above=None, below=None, within=None):
    """Verdicts and intervals of comparisons that are read together, adjusted for their number.

    compared: {label: Interval, or a function of level= that returns one}. Accuracies have to be
    functions, `functools.partial(stats.difference, answers, "score", "A", "B")`: their intervals
    change shape with the level; a bootstrap's Interval is stretched. Holm 1979: of k comparisons,
    each is judged at 1 - 0.05 / k; those decided leave, and the rest are judged again at the level
    for their number, until none is decided. One wrong decision or more in at most 5 % of cases.
    """
    waiting = {}
    intervals = {}
    for label, comparison in compared.items():
        found = at_level(comparison, LEVEL)
        if found.missing:
            intervals[label] = found
        else:
            waiting[label] = comparison
    verdicts = {label: without_number(i, above, below, within) for label, i in intervals.items()}
    together = 1 - (1 - LEVEL) / max(len(waiting), 1)
    intervals |= {label: at_level(comparison, together) for label, comparison in waiting.items()}
    while waiting:
        level = 1 - (1 - LEVEL) / len(waiting)
        decided = {}
        for label, comparison in waiting.items():
            verdicts[label] = without_number(at_level(comparison, level), above, below, within)
            if verdicts[label].word in ("holds", "does not hold"):
                decided[label] = verdicts[label]
        if not decided:
            break
        waiting = {label: waiting[label] for label in waiting if label not in decided}
    in_order = {label: intervals[label] for label in compared}
    return Family(in_order, {label: verdicts[label] for label in compared})


def at_level(comparison, level):
    """A comparison's interval at a level."""
    if callable(comparison):
        return comparison(level=level)
    return comparison if comparison.missing or level == LEVEL else comparison.at_level(level)


# ---- losses ------------------------------------------------------------------------------------


def net_gain(difference, saved, exchange):
    """Accuracy gained, with target calls saved counted as `exchange` points per per cent.

    difference: Interval of accuracy, method - baseline; saved: Interval of the share of target
    calls saved (0.1 is ten per cent); both as fractions. Returns Interval. Bounds add up: wide
    enough whatever the two have to do with each other, since sd(a + b) <= sd(a) + sd(b).
    """
    if exchange < 0:
        raise ValueError(f"the exchange rate was {exchange}; it cannot be negative")
    if difference.missing or saved.missing:
        return Interval(np.nan, np.nan, np.nan, 0, difference.missing or saved.missing)
    bounds = [
        getattr(difference, name) + exchange * getattr(saved, name)
        for name in ("estimate", "low", "high")
    ]
    return Interval(*bounds, min(difference.n, saved.n))


def no_loss(difference, saved, exchange, margin):
    """Whether a method loses so little accuracy that its saving pays for it. Returns Verdict.

    The rule, with `exchange` and `margin` fixed before the run:
      holds           the net gain, accuracy + exchange × share of calls saved, is above 0, *and*
                      accuracy is above -margin, each by its whole 95 % interval;
      does not hold   the whole interval of one of the two is below;
      undecided       else, with the problems that the slower of the two needs.
    Both have to hold, so neither is adjusted (intersection-union, Berger 1982): a method at the
    edge of either is passed in at most 2.5 % of cases. exchange: points of accuracy per per cent of
    target calls; margin: a fraction (0.05 is five points). The Verdict's interval is the net gain.
    """
    net = verdict(net_gain(difference, saved, exchange), above=0)
    if net.interval.missing:
        return net
    bounded = verdict(difference, above=-margin)
    word = overall([net.word, bounded.word])
    needed = None
    if word == UNDECIDED:
        needed = max((v.n_needed for v in (net, bounded) if v.n_needed), default=None)
    return Verdict(word, net.interval, 0.0, needed)


def null_contrast(name, interval, null=0.0, digits=1, points=True):
    """A sentence about a contrast that is known to be `null`, to stand beside one that is not.

    'SP - AS_large, known to be 0: 0.3 points [-1.2, 1.9], as it should be'. points: whether it is a
    difference of shares; a ratio is none.
    """
    if interval.missing:
        return f"{name}, known to be {null:g}: {interval.missing}"
    right = interval.low <= null <= interval.high
    judged = "as it should be" if right else "which misses it, as one in twenty does by chance"
    shown = interval.points(digits) if points else interval.show(digits)
    return f"{name}, known to be {null:g}: {shown}, {judged}"
