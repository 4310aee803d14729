"""Statistics: paired two-level bootstrap, McNemar, AUROC, Holm, the cost model, verdicts.

Two levels: answers are averaged over seeds within a problem, and problems are resampled. Seeds are
not resampled again: the spread between problem means already holds their noise (once), and
resampling both would count it twice and give intervals that are too wide. Coverage is simulated in
tests/test_stats.py.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats


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
        if self.missing:
            return self.missing
        scale = 100 if percent else 1
        unit = " %" if percent else ""
        # Adding 0.0 makes -0.0 a plain zero.
        rounded = [round(scale * v, digits) + 0.0 for v in (self.estimate, self.low, self.high)]
        estimate, low, high = (f"{value:.{digits}f}" for value in rounded)
        return f"{estimate}{unit} [{low}, {high}]"

    def within(self, low, high):
        """The same interval, cut to what is possible: few problems can widen it beyond that."""
        return replace(self, low=max(low, self.low), high=min(high, self.high))

    @property
    def half_width(self):
        return (self.high - self.low) / 2


def per_problem(frame, value, by="method"):
    """Mean over seeds: a table with one row per problem and one column per level of `by`."""
    return frame.pivot_table(
        index="problem_id", columns=by, values=value, aggfunc="mean", sort=False
    )


def bootstrap(table, statistic=lambda means: means[..., 0], n_boot=4000, seed=0):
    """95 % interval of a function of column means, problems (rows) resampled together.

    table (problems, k); `statistic` maps means (..., k) to (...). Returns Interval. A percentile
    bootstrap is too narrow for small n (Hesterberg 2015): deviations are widened by sqrt(n/(n-1)),
    and by what Student's t has over the normal quantile.
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
    spread = deviations * np.sqrt(n / (n - 1)) * _student(n - 1)
    low, high = np.nanquantile(spread, [0.025, 0.975]) + estimate
    return Interval(estimate, float(low), float(high), n)


def _student(freedom):
    """How much wider a 95 % interval is when its spread has been estimated (degrees of freedom)."""
    return stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)


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


def mean(frame, value, method):
    """Mean of a score in [0, 1] of one method, over graded problems: Interval, or `ungraded`."""
    part = graded(frame, value, [method])
    if part.empty and (frame.method == method).any():
        return ungraded(frame)
    return widened(bootstrap(per_problem(part, value))).within(0.0, 1.0)


def difference(frame, value, method, baseline):
    """Paired mean difference method - baseline of a score. Returns Interval, or `ungraded`."""
    part = graded(frame, value, [method, baseline])
    if part.empty and {method, baseline} <= set(frame.method):
        return ungraded(frame)
    table = per_problem(part, value)[[method, baseline]]
    return widened(bootstrap(table, lambda m: m[..., 0] - m[..., 1])).within(-1.0, 1.0)


def widened(interval):
    """The interval, or Clopper-Pearson's width where it has none because all problems agree.

    n problems that are all alike still leave 1 - 0.025^(1/n) unseen.
    """
    if interval.high - interval.low > 1e-9:  # rounding of a mean is no width
        return interval
    unseen = 1 - 0.025 ** (1 / interval.n)
    middle = interval.estimate
    return Interval(middle, middle - unseen, middle + unseen, interval.n)


def difference_of_groups(one, others, n_boot=4000, seed=0):
    """Mean of one unpaired sample minus the average of the means of others. Returns Interval.

    Widened for small samples as in `bootstrap`; degrees of freedom are Welch and Satterthwaite's.
    """
    rng = np.random.default_rng(seed)
    samples = [np.asarray(sample, float) for sample in (one, *others)]
    sizes = np.array([len(sample) for sample in samples])
    if sizes.min() < 2:
        raise ValueError(
            f"an interval between groups needs at least 2 problems in each; one has {sizes.min()}"
        )
    share = np.array([1.0, *[-1 / len(others)] * len(others)])
    means = np.array([sample.mean() for sample in samples])
    draws = [
        sample[rng.integers(len(sample), size=(n_boot, len(sample)))].mean(1) for sample in samples
    ]
    deviations = (np.stack(draws, 1) - means) * np.sqrt(sizes / (sizes - 1)) @ share
    noise = share**2 * [sample.var(ddof=1) for sample in samples] / sizes
    freedom = noise.sum() ** 2 / max((noise**2 / (sizes - 1)).sum(), 1e-300)
    reach = np.quantile(deviations, [0.025, 0.975]) * _student(max(freedom, 1.0))
    estimate = float(means @ share)
    low, high = (float(bound) + estimate for bound in reach)
    return Interval(estimate, low, high, int(sizes.sum()))


def ratio(frame, top, bottom, method):
    """Ratio of sums of two columns for one method (tokens/s, accept ratio). Returns Interval."""
    part = frame[frame.method == method].groupby("problem_id")[[top, bottom]].sum()
    is_share = (part[top] <= part[bottom]).all()
    most = 1.0 if is_share else np.inf
    return bootstrap(part, lambda m: m[..., 0] / m[..., 1]).within(0.0, most)


def speed_up(frame, method, baseline, top="n_tokens", bottom="seconds"):
    """(tokens per second of method) / (of baseline), paired by problem. Returns Interval."""
    sums = [
        frame[frame.method == name].groupby("problem_id")[[top, bottom]].sum()
        for name in (method, baseline)
    ]
    both = pd.concat(sums, axis=1).dropna()

    def gain(means):
        return (means[..., 0] / means[..., 1]) / (means[..., 2] / means[..., 3])

    return bootstrap(both, gain).within(0.0, np.inf)


def proportion(successes, n):
    """Wilson interval of a proportion. Returns Interval."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(
            f"a proportion needs 0 <= successes <= n and n >= 1; got {successes} of {n}"
        )
    bounds = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Interval(successes / n, bounds.low, bounds.high, int(n))


def mcnemar(right_a, right_b):
    """Exact McNemar p-value for two paired lists of right/wrong."""
    a = np.asarray(right_a, bool)
    b = np.asarray(right_b, bool)
    only_a = int((a & ~b).sum())
    only_b = int((~a & b).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def holm(p_values):
    """Holm's step-down adjustment of p-values, in their order."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return adjusted


def roc(signal, label):
    """ROC curve of a signal for a binary label: false and true positive rates, ascending."""
    signal = np.asarray(signal, float)
    label = np.asarray(label, bool)
    order = np.argsort(-signal, kind="stable")
    last = np.r_[np.diff(signal[order]) != 0, True]  # ties move together
    hits = np.cumsum(label[order])[last]
    false_alarms = np.cumsum(~label[order])[last]
    false_rate = np.r_[0, false_alarms / max(1, (~label).sum())]
    true_rate = np.r_[0, hits / max(1, label.sum())]
    return false_rate, true_rate


def auroc(signal, label, cluster=None, n_boot=400, seed=0):
    """Area under the ROC curve (Mann-Whitney), problems resampled as clusters. Returns Interval.

    The interval is estimate ± t sd on the logit scale, with sd from the bootstrap: percentiles are
    too narrow for few problems.
    """
    signal = np.asarray(signal, float)
    label = np.asarray(label, bool)
    if label.all() or not label.any():
        raise ValueError("an AUROC needs both classes; all labels are the same")
    clusters = np.arange(len(signal)) if cluster is None else np.asarray(cluster)
    codes, _ = pd.factorize(clusters)
    order = np.argsort(signal, kind="stable")
    ranked = label[order]
    problems = codes[order]
    _, ties = np.unique(signal[order], return_inverse=True)
    n = int(codes.max() + 1)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot)
    draws = [_area(ranked, ties, weight[problems]) for weight in weights]
    estimate = float(_area(ranked, ties, np.ones(len(problems))))
    if not 0 < estimate < 1 or n < 2:
        return Interval(estimate, float(np.nanmin(draws)), float(np.nanmax(draws)), n)
    inside = np.clip(draws, 1e-9, 1 - 1e-9)
    sd = np.nanstd(np.log(inside / (1 - inside))) * np.sqrt(n / (n - 1))
    reach = stats.t.ppf(0.975, n - 1) * sd
    odds_against = 1 / estimate - 1
    low, high = (float(1 / (1 + odds_against * np.exp(-side * reach))) for side in (-1, 1))
    return Interval(estimate, low, high, n)


def _area(label, ties, weight):
    """Weighted Mann-Whitney area of labels sorted by signal; `ties` numbers equal signals."""
    size = ties[-1] + 1
    positive = np.bincount(ties, weight * label, size)
    negative = np.bincount(ties, weight * ~label, size)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return np.nan
    below = np.cumsum(negative) - negative / 2
    return (positive * below).sum() / pairs


# ---- cost model --------------------------------------------------------------------------------


def tokens_per_round(alpha, gamma):
    """E[tokens per round] where each draft is accepted with probability alpha, independently.

    (1 - alpha^(gamma+1)) / (1 - alpha), Leviathan et al. 2023, eq. 1.
    """
    alpha = np.asarray(alpha, float)
    below_one = np.where(alpha < 1, 1 - alpha, 1)
    return np.where(alpha < 1, (1 - alpha ** (gamma + 1)) / below_one, gamma + 1)


def tokens_per_second(per_round, gamma, t_draft, t_verify):
    """The limit without any host time: tokens per round / (gamma t_draft + t_verify(gamma + 1)).

    Seconds in, 1/s out.
    """
    return per_round / (gamma * t_draft + t_verify)


def cost_limit(rows, forward):
    """Tokens per second that the cost model allows a speculative method, from its own rounds.

    rows: untraced generations of the method; forward: experiments.forward_times, interpolated at
    the mean block.
    """
    rounds = rows.target_calls.sum()
    drafted = rows.drafted.sum() / rounds
    seconds = forward.set_index(["model", "width"]).seconds
    verify = np.interp(drafted + 1, seconds["target"].index, seconds["target"])
    per_round = rows.n_tokens.sum() / rounds
    return float(tokens_per_second(per_round, drafted, seconds["draft", 1], verify))


# ---- verdicts ----------------------------------------------------------------------------------

UNDECIDED = "undecided at this sample size"
FEW_PROBLEMS = 10  # the spread of fewer does not tell how many would decide


@dataclass(frozen=True)
class Verdict:
    """holds, does not hold, or undecided, with how many problems would decide it."""

    word: str
    interval: Interval
    threshold: float
    n_needed: int | None = None

    def __str__(self):
        if self.n_needed is None:
            return self.word
        count = "more than 100,000" if self.n_needed > 100_000 else f"about {self.n_needed}"
        return f"{self.word} ({count} problems would decide)"


def verdict(interval, above=None, below=None, within=None):
    """Whether an effect lies above or below a threshold, or within ± a margin, by its interval.

    holds: the whole 95 % interval does. does not hold: none of it does. Else undecided, with the
    number of problems at which an interval of this spread around this estimate would clear the
    threshold (from ten problems on).
    """
    if sum(x is not None for x in (above, below, within)) != 1:
        raise ValueError("a verdict needs exactly one of above=, below=, within=")
    if interval.missing:
        return Verdict(f"undecided: {interval.missing}", interval, float("nan"))
    if within is not None:
        threshold = within
        inside = max(abs(interval.low), abs(interval.high)) < within
        outside = interval.low > within or interval.high < -within
        distance = abs(within - abs(interval.estimate))
    elif above is not None:
        threshold = above
        inside = interval.low > above
        outside = interval.high < above
        distance = abs(interval.estimate - above)
    else:
        threshold = below
        inside = interval.high < below
        outside = interval.low > below
        distance = abs(interval.estimate - below)
    if inside:
        return Verdict("holds", interval, threshold)
    if outside:
        return Verdict("does not hold", interval, threshold)
    if not interval.half_width or interval.n < FEW_PROBLEMS:
        return Verdict(UNDECIDED, interval, threshold)
    needed = int(np.ceil(interval.n * (interval.half_width / max(distance, 1e-9)) ** 2))
    return Verdict(UNDECIDED, interval, threshold, min(needed, 10**7))


def overall(words):
    """One word for all checks of a claim: it holds when all do, and does not when one does not."""
    words = list(words)
    if "does not hold" in words:
        return "does not hold"
    return "holds" if words and set(words) == {"holds"} else UNDECIDED


def pareto(frame, x, y):
    """Rows that no other row beats in both columns (larger is better), sorted by x."""
    ranked = frame.sort_values([x, y], ascending=False)
    return ranked[ranked[y] > ranked[y].shift().cummax().fillna(-np.inf)].sort_values(x)
