"""Estimates with their intervals over problems: bootstraps, scores, speeds, tasks.

Two levels: answers are averaged over seeds within a problem, and problems are the units. Seeds are
not resampled again: the spread between problem means already holds their noise (once), and
resampling both would count it twice and give intervals that are too wide. Coverage is simulated in
tests/test_stats.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from helpers.stats import binary

LEVEL = 0.95
TAIL_DRAWS = 10  # a quantile with fewer bootstrap draws beyond it is not read off the draws
FEW_CHANGES = 10  # a bootstrap does not see what fewer changed problems leave open


@dataclass(frozen=True)
class Interval:
    """An estimate, its 95 % interval, and the number of problems behind it."""

    estimate: float
    low: float
    high: float
    n: int
    missing: str = ""  # why there is no number, shown in its place

    def __str__(self):
        return self.show()

    def show(self, digits=3, percent=False):
        """'0.412 [0.380, 0.444]', or in per cent; `digits` after the point."""
        return self._written(digits, 100, " %") if percent else self._written(digits, 1, "")

    def points(self, digits=1):
        """A difference of two shares: '-1.5 points [-3.5, -0.3]', not per cent of either."""
        return self._written(digits, 100, " points")

    def _written(self, digits, scale, unit):
        if self.missing:
            return self.missing
        # Adding 0.0 makes -0.0 a plain zero.
        rounded = [round(scale * v, digits) + 0.0 for v in (self.estimate, self.low, self.high)]
        estimate, low, high = (f"{value:.{digits}f}" for value in rounded)
        return f"{estimate}{unit} [{low}, {high}]"

    def within(self, low, high):
        """The same interval, cut to what is possible: few problems can widen it beyond that."""
        return replace(self, low=max(low, self.low), high=min(high, self.high))

    def through(self, function):
        """The interval of a growing function of the estimate: through(np.exp) of a log ratio.

        Where the function divides by a bound that is 0, the interval reaches to infinity.
        """
        with np.errstate(divide="ignore"):
            values = [float(function(np.float64(v))) for v in (self.estimate, self.low, self.high)]
        return Interval(*values, self.n, self.missing)

    def at_level(self, level):
        """The interval at another level, each side stretched as Student's t is.

        Right for bootstraps and means. A score interval has another shape: compute it anew with
        `level=` (see stats.family).
        """
        freedom = max(self.n - 1, 1)
        stretch = _reach(level, freedom) / _reach(LEVEL, freedom)
        low = self.estimate - stretch * (self.estimate - self.low)
        high = self.estimate + stretch * (self.high - self.estimate)
        return replace(self, low=low, high=high)

    @property
    def half_width(self):
        return (self.high - self.low) / 2


def _reach(level, freedom):
    """Student's quantile: how many standard errors an interval reaches to each side."""
    return -special.stdtrit(freedom, (1 - level) / 2)


def per_problem(frame, value, by="method"):
    """Mean over seeds: a table with one row per problem and one column per level of `by`."""
    return frame.pivot_table(
        index="problem_id", columns=by, values=value, aggfunc="mean", sort=False
    )


def bootstrap(table, statistic=lambda means: means[..., 0], n_boot=4000, seed=0, level=LEVEL):
    """Interval of a function of column means, problems (rows) resampled together.

    table (problems, k); `statistic` maps means (..., k) to (...). Returns Interval. A percentile
    bootstrap is too narrow for small n (Hesterberg 2015): deviations are widened by sqrt(n/(n-1)),
    and by what Student's t has over the normal quantile. Levels whose tails hold too few draws are
    stretched from 95 %.
    """
    table = np.asarray(table, dtype=float).reshape(len(table), -1)
    n = len(table)
    if n < 2:
        raise ValueError(f"an interval over problems needs at least 2 of them; there is {n}")
    if np.isnan(table).any():
        raise ValueError(
            "a table for the bootstrap holds missing values: some method lacks some problem"
        )
    estimate = float(statistic(table.mean(0)))
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot) / n
    # A draw that holds no problem of one kind says nothing: its 0/0 is left out of the quantiles.
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = statistic(weights @ table) - estimate
    tail = (1 - level) / 2
    from_draws = level if tail * n_boot >= TAIL_DRAWS else LEVEL
    spread = deviations * np.sqrt(n / (n - 1)) * _student(n - 1, from_draws)
    tail = (1 - from_draws) / 2
    low, high = np.nanquantile(spread, [tail, 1 - tail]) + estimate
    found = Interval(estimate, float(low), float(high), n)
    return found if from_draws == level else found.at_level(level)


def _student(freedom, level=LEVEL):
    """How much wider an interval is when its spread has been estimated (degrees of freedom)."""
    return _reach(level, freedom) / -special.ndtri((1 - level) / 2)


# ---- scores ------------------------------------------------------------------------------------


def nothing(why):
    """An interval without a number: `why` is shown in its place; a verdict on it is undecided."""
    return Interval(float("nan"), float("nan"), float("nan"), 0, why)


NO_JUDGE = nothing("no judge")


def ungraded(frame):
    """What stands in place of a score that no row has: why, as the rows say, or NO_JUDGE."""
    reasons = sorted(set(frame.get("ungraded", ())) & {"no reference", "no sandbox"})
    return nothing(reasons[0]) if reasons else NO_JUDGE


def graded(frame, value, methods):
    """The rows of `methods` on problems where each of their answers has a score.

    Open answers have one only where there is a judge.
    """
    part = frame[frame.method.isin(methods)]
    return part[~part.problem_id.isin(part.problem_id[part[value].isna()])]


def mean(frame, value, method, level=LEVEL):
    """Mean of a score in [0, 1] of one method, over graded problems: Interval, or `ungraded`.

    Right or wrong: Clopper and Pearson's bounds at the effective number of answers (Korn and
    Graubard 1998); other scores: the bootstrap, or the same bounds where it sees too little.
    """
    part = graded(frame, value, [method])
    if part.empty and (frame.method == method).any():
        return ungraded(frame)
    means = per_problem(part, value)[method].to_numpy()
    return score_interval(means, _binary_answers(part, value), level)


def _binary_answers(part, value):
    """Answers per problem where every score is 0 or 1; else None."""
    if not part[value].isin((0, 1)).all():
        return None
    return len(part) / part.problem_id.nunique()


def score_interval(means, answers=None, level=LEVEL):
    """Interval of the mean of problems' scores in [0, 1].

    answers: how many right-or-wrong answers each is the mean of; None for other scores.
    """
    means = np.asarray(means, float)
    n = len(means)
    if n < 2:
        raise ValueError(f"an interval over problems needs at least 2 of them; there is {n}")
    middle = float(means.mean())
    # at most this many problems differ from the commonest score
    informative = n - np.unique(means, return_counts=True)[1].max()
    if answers is None:
        if informative >= min(FEW_CHANGES, n / 2):
            return bootstrap(means, level=level).within(0.0, 1.0)
        size = n
    else:
        mixed = min((means > 0).sum(), (means < 1).sum())
        spread = means.var(ddof=1)
        size = float(binary.effective_size(n, middle * (1 - middle), spread, answers, mixed))
    low, high = binary.clopper_pearson(middle * size, size, level)
    return Interval(middle, low, high, n)


def difference(frame, value, method, baseline, level=LEVEL):
    """Paired mean difference method - baseline of a score. Returns Interval, or `ungraded`.

    Right or wrong, answers paired by seed: Tango's score bounds at the effective number of pairs;
    other scores: the bootstrap, or the same bounds where it sees too little.
    """
    part = graded(frame, value, [method, baseline])
    if part.empty and {method, baseline} <= set(frame.method):
        return ungraded(frame)
    pairs = _pairs(part, value, method, baseline)
    if pairs is not None and np.isin(pairs[[method, baseline]].to_numpy(), (0, 1)).all():
        change = pairs[method] - pairs[baseline]
        by_problem = change.groupby(pairs.problem_id, sort=False)
        gained = (change > 0).groupby(pairs.problem_id, sort=False).mean()
        lost = (change < 0).groupby(pairs.problem_id, sort=False).mean()
        answers = len(pairs) / by_problem.ngroups
        return paired_interval(gained.to_numpy(), lost.to_numpy(), answers, level)
    table = per_problem(part, value)[[method, baseline]]
    if table.isna().any(axis=None):
        raise ValueError(
            f"{method} and {baseline} were not run on the same problems; a paired difference needs "
            "both on each"
        )
    change = (table[method] - table[baseline]).to_numpy()
    if (np.abs(change) > 1e-12).sum() >= min(FEW_CHANGES, len(change) / 2):
        return bootstrap(change, level=level).within(-1.0, 1.0)
    # A change of less than 1 varies less than one of 1 as often as it is large: bounds are wide.
    return paired_interval(np.maximum(change, 0), np.maximum(-change, 0), 1, level)


def _pairs(part, value, method, baseline):
    """One row per problem and seed with both scores; None where answers cannot be paired."""
    keys = ["problem_id", "seed"] if "seed" in part else ["problem_id"]
    if part.duplicated([*keys, "method"]).any():
        return None
    table = part.pivot(index=keys, columns="method", values=value)[[method, baseline]]
    return None if table.isna().any(axis=None) else table.reset_index()


def paired_interval(gained, lost, answers=1, level=LEVEL):
    """Interval of a paired difference of right-or-wrong scores, problems as units.

    gained, lost (problems,): share of a problem's pairs of answers in which only the first, only
    the second was right; answers: pairs per problem.
    """
    gained = np.asarray(gained, float)
    lost = np.asarray(lost, float)
    n = len(gained)
    if n < 2:
        raise ValueError(f"an interval over problems needs at least 2 of them; there is {n}")
    middle = float(gained.mean() - lost.mean())
    per_pair = gained.mean() + lost.mean() - middle**2
    spread = (gained - lost).var(ddof=1)
    informative = ((gained > 0) | (lost > 0)).sum()
    size = binary.effective_size(n, per_pair, spread, answers, informative)
    low, high = binary.tango(gained.mean() * size, lost.mean() * size, size, level)
    return Interval(middle, float(low), float(high), n)


def widened(interval, level=LEVEL):
    """The interval, or Clopper-Pearson's width where it has none because all problems agree.

    n problems that are all alike still leave 1 - 0.025^(1/n) unseen.
    """
    if interval.high - interval.low > 1e-9:  # rounding of a mean is no width
        return interval
    unseen = 1 - ((1 - level) / 2) ** (1 / interval.n)
    middle = interval.estimate
    return Interval(middle, middle - unseen, middle + unseen, interval.n)


def proportion(successes, n, level=LEVEL):
    """Clopper and Pearson's exact interval of a proportion. Returns Interval."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(
            f"a proportion needs 0 <= successes <= n and n >= 1; got {successes} of {n}"
        )
    return Interval(successes / n, *binary.clopper_pearson(successes, n, level), int(n))


# ---- ratios ------------------------------------------------------------------------------------


def ratio(frame, top, bottom, method, level=LEVEL):
    """Ratio of sums of two columns for one method (tokens/s, accept ratio). Returns Interval."""
    part = frame[frame.method == method].groupby("problem_id")[[top, bottom]].sum()
    is_share = (part[top] <= part[bottom]).all()
    most = 1.0 if is_share else np.inf
    return bootstrap(part, lambda m: m[..., 0] / m[..., 1], level=level).within(0.0, most)


def speed_up(frame, method, baseline, top="n_tokens", bottom="seconds", level=LEVEL):
    """(tokens per second of method) / (of baseline), paired by problem. Returns Interval."""
    sums = [
        frame[frame.method == name].groupby("problem_id")[[top, bottom]].sum()
        for name in (method, baseline)
    ]
    both = pd.concat(sums, axis=1).dropna()

    def gain(means):
        return (means[..., 0] / means[..., 1]) / (means[..., 2] / means[..., 3])

    return bootstrap(both, gain, level=level).within(0.0, np.inf)


# ---- groups ------------------------------------------------------------------------------------


def over_tasks(estimates):
    """Mean over tasks of one number per task, tasks as the units. Returns Interval, n = tasks.

    estimates: {task: Interval or number}, on a scale on which they can be averaged (logarithms of
    ratios; `through(np.exp)` leads back). Student's t over tasks: their spread holds both how
    unlike tasks are and each one's own error, as a random-effects model has it. It is a claim about
    tasks like these, not about these.
    """
    values = _values(estimates)
    n = len(values)
    if n < 2:
        raise ValueError(f"a claim about tasks needs at least 2 of them; there is {n}")
    half = _reach(LEVEL, n - 1) * values.std(ddof=1) / np.sqrt(n)
    middle = float(values.mean())
    return Interval(middle, middle - half, middle + half, n)


def between_tasks(ones, others):
    """Mean over some tasks minus mean over others, tasks as the units. Returns Interval.

    ones, others: {task: Interval or number}, as in `over_tasks`. Student's t with one spread for
    both groups, so that a group may be a single task; the other then says how unlike tasks are.
    """
    groups = [_values(ones), _values(others)]
    sizes = [len(group) for group in groups]
    freedom = sum(sizes) - 2
    if min(sizes) < 1 or freedom < 1:
        raise ValueError(
            "a comparison of tasks needs at least 1 in each group and 3 in all; there are "
            f"{sizes[0]} and {sizes[1]}"
        )
    squares = sum(((group - group.mean()) ** 2).sum() for group in groups)
    error = np.sqrt(squares / freedom * (1 / sizes[0] + 1 / sizes[1]))
    middle = float(groups[0].mean() - groups[1].mean())
    half = float(_reach(LEVEL, freedom) * error)
    return Interval(middle, middle - half, middle + half, sum(sizes))


def _values(estimates):
    return np.array([float(getattr(value, "estimate", value)) for value in estimates.values()])
