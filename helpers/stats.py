"""Statistics: paired two-level bootstrap, McNemar, equivalence, AUROC, Holm, the cost model, verdicts.

Two levels: answers are averaged over seeds within a problem, and problems are resampled. Seeds are not
resampled again, because the spread between problem means already holds their noise (once); resampling both
would count it twice and give intervals that are too wide. Coverage is simulated in tests/test_stats.py.
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
        scale, unit = (100, " %") if percent else (1, "")
        a, b, c = (
            f"{round(scale * v, digits) + 0.0:.{digits}f}"
            for v in (self.estimate, self.low, self.high)
        )
        return f"{a}{unit} [{b}, {c}]"

    def within(self, low, high):
        """The same interval, cut to the values that are possible: few problems can widen it beyond them."""
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
    """95 % interval of a function of column means, problems (rows) resampled together. Returns Interval.

    table (problems, k); `statistic` maps means (..., k) to (...). A percentile bootstrap is too narrow for small n
    (Hesterberg 2015): deviations are widened by sqrt(n/(n-1)), and by what Student's t has over the normal quantile.
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
    with np.errstate(
        invalid="ignore", divide="ignore"
    ):  # a draw without a single problem of one kind says nothing
        spread = (statistic(weights @ table) - estimate) * np.sqrt(n / (n - 1)) * _student(n - 1)
    low, high = np.nanquantile(spread, [0.025, 0.975]) + estimate
    return Interval(estimate, float(low), float(high), n)


def _student(freedom):
    """How much wider than with a known spread a 95 % interval is with one estimated at these degrees of freedom."""
    return stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)


def nothing(why):
    """An interval without a number: `why` is shown in its place, and a verdict on it is undecided."""
    return Interval(float("nan"), float("nan"), float("nan"), 0, why)


NO_JUDGE = nothing("no judge")


def graded(frame, value, methods):
    """The rows of `methods` on problems where each of their answers has a score (open answers need a judge for one)."""
    part = frame[frame.method.isin(methods)]
    return part[~part.problem_id.isin(part.problem_id[part[value].isna()])]


def mean(frame, value, method):
    """Mean of a score in [0, 1] for one method, over graded problems. Returns Interval; NO_JUDGE where there are none."""
    part = graded(frame, value, [method])
    if part.empty and (frame.method == method).any():
        return NO_JUDGE
    return widened(bootstrap(per_problem(part, value))).within(0.0, 1.0)


def difference(frame, value, method, baseline):
    """Paired mean difference method - baseline of a score in [0, 1]. Returns Interval, or NO_JUDGE."""
    part = graded(frame, value, [method, baseline])
    if part.empty and {method, baseline} <= set(frame.method):
        return NO_JUDGE
    table = per_problem(part, value)[[method, baseline]]
    return widened(bootstrap(table, lambda m: m[..., 0] - m[..., 1])).within(-1.0, 1.0)


def widened(interval):
    """Where all problems agree a bootstrap has no width; n problems alike still leave 1 - 0.025^(1/n) unseen (Clopper-Pearson)."""
    if interval.high - interval.low > 1e-9:  # rounding of a mean is no width
        return interval
    unseen = 1 - 0.025 ** (1 / interval.n)
    return Interval(
        interval.estimate, interval.estimate - unseen, interval.estimate + unseen, interval.n
    )


def difference_of_groups(one, others, n_boot=4000, seed=0):
    """Mean of one unpaired sample minus the average of the means of several others. Returns Interval.

    Widened for small samples as in `bootstrap`; the degrees of freedom are Welch and Satterthwaite's.
    """
    rng, samples = np.random.default_rng(seed), [np.asarray(x, float) for x in (one, *others)]
    sizes, share = (
        np.array([len(x) for x in samples]),
        np.array([1.0, *[-1 / len(others)] * len(others)]),
    )
    if sizes.min() < 2:
        raise ValueError(
            f"an interval between groups needs at least 2 problems in each; one has {sizes.min()}"
        )
    means = np.array([x.mean() for x in samples])
    draws = np.stack([x[rng.integers(len(x), size=(n_boot, len(x)))].mean(1) for x in samples], 1)
    noise = share**2 * [x.var(ddof=1) for x in samples] / sizes
    freedom = noise.sum() ** 2 / max((noise**2 / (sizes - 1)).sum(), 1e-300)
    low, high = np.quantile(
        (draws - means) * np.sqrt(sizes / (sizes - 1)) @ share, [0.025, 0.975]
    ) * _student(max(freedom, 1.0))
    estimate = float(means @ share)
    return Interval(estimate, float(low) + estimate, float(high) + estimate, int(sizes.sum()))


def ratio(frame, top, bottom, method):
    """Ratio of sums of two columns for one method (tokens per second, accept ratio). Returns Interval."""
    part = frame[frame.method == method].groupby("problem_id")[[top, bottom]].sum()
    most = 1.0 if (part[top] <= part[bottom]).all() else np.inf  # a share
    return bootstrap(part, lambda m: m[..., 0] / m[..., 1]).within(0.0, most)


def speed_up(frame, method, baseline, top="n_tokens", bottom="seconds"):
    """(tokens per second of method) / (of baseline), paired by problem. Returns Interval."""
    parts = [
        frame[frame.method == m].groupby("problem_id")[[top, bottom]].sum()
        for m in (method, baseline)
    ]
    return bootstrap(
        pd.concat(parts, axis=1).dropna(),
        lambda m: (m[..., 0] / m[..., 1]) / (m[..., 2] / m[..., 3]),
    ).within(0.0, np.inf)


def proportion(successes, n):
    """Wilson interval of a proportion. Returns Interval."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(
            f"a proportion needs 0 <= successes <= n and n >= 1; got {successes} of {n}"
        )
    found = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Interval(successes / n, found.low, found.high, int(n))


def mcnemar(right_a, right_b):
    """Exact McNemar p-value for two paired lists of right/wrong."""
    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values):
    """Holm's step-down adjustment of p-values, in their order."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return adjusted


def roc(signal, label):
    """ROC curve of a signal for a binary label. Returns false and true positive rates, ascending."""
    signal, label = np.asarray(signal, float), np.asarray(label, bool)
    order = np.argsort(-signal, kind="stable")
    last = np.r_[np.diff(signal[order]) != 0, True]  # ties move together
    hits, misses = np.cumsum(label[order])[last], np.cumsum(~label[order])[last]
    return np.r_[0, misses / max(1, (~label).sum())], np.r_[0, hits / max(1, label.sum())]


def auroc(signal, label, cluster=None, n_boot=400, seed=0):
    """Area under the ROC curve (Mann-Whitney), with a cluster bootstrap over problems. Returns Interval.

    The interval is estimate ± t sd on the logit scale, sd from the bootstrap: percentiles are too narrow for few problems.
    """
    signal, label = np.asarray(signal, float), np.asarray(label, bool)
    if label.all() or not label.any():
        raise ValueError("an AUROC needs both classes; all labels are the same")
    codes, _ = pd.factorize(np.arange(len(signal)) if cluster is None else np.asarray(cluster))
    order = np.argsort(signal, kind="stable")
    ranked, ids, groups = (
        label[order],
        codes[order],
        np.unique(signal[order], return_inverse=True)[1],
    )
    rng, n = np.random.default_rng(seed), codes.max() + 1
    draws = [
        _area(ranked, groups, weight[ids])
        for weight in rng.multinomial(n, np.full(n, 1 / n), n_boot)
    ]
    estimate = float(_area(ranked, groups, np.ones(len(ids))))
    if not 0 < estimate < 1 or n < 2:
        return Interval(estimate, float(np.nanmin(draws)), float(np.nanmax(draws)), int(n))
    inside = np.clip(draws, 1e-9, 1 - 1e-9)
    reach = (
        stats.t.ppf(0.975, n - 1) * np.nanstd(np.log(inside / (1 - inside))) * np.sqrt(n / (n - 1))
    )
    low, high = (1 / (1 + (1 / estimate - 1) * np.exp(-side * reach)) for side in (-1, 1))
    return Interval(estimate, float(low), float(high), int(n))


def _area(label, groups, weight):
    """Weighted Mann-Whitney area of labels sorted by signal; `groups` marks ties."""
    size = groups[-1] + 1
    positive, negative = (
        np.bincount(groups, weight * label, size),
        np.bincount(groups, weight * ~label, size),
    )
    below = np.cumsum(negative) - negative / 2
    return (
        (positive * below).sum() / (positive.sum() * negative.sum())
        if positive.sum() and negative.sum()
        else np.nan
    )


# ---- cost model -------------------------------------------------------------------------------------


def tokens_per_round(alpha, gamma):
    """E[tokens per round] = (1 - alpha^(gamma+1)) / (1 - alpha), acceptances independent (Leviathan et al. 2023, eq. 1)."""
    alpha = np.asarray(alpha, float)
    return np.where(
        alpha < 1, (1 - alpha ** (gamma + 1)) / np.where(alpha < 1, 1 - alpha, 1), gamma + 1
    )


def tokens_per_second(per_round, gamma, t_draft, t_verify):
    """Limit without any host time: tokens per round / (gamma t_draft + t_verify(gamma + 1)). Seconds in, 1/s out."""
    return per_round / (gamma * t_draft + t_verify)


def cost_limit(rows, forward):
    """Tokens per second that the cost model allows one speculative method, from its measured rounds.

    rows: untraced generations of the method; forward: experiments.forward_times, interpolated at the mean block.
    """
    rounds, t = rows.target_calls.sum(), forward.set_index(["model", "width"]).seconds
    drafted = rows.drafted.sum() / rounds
    verify = np.interp(drafted + 1, t["target"].index, t["target"])
    return float(tokens_per_second(rows.n_tokens.sum() / rounds, drafted, t["draft", 1], verify))


# ---- verdicts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """holds / does not hold / undecided at this sample size, with how many problems would decide it."""

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
    """Whether an effect lies above or below a threshold, or within ± a margin, by its 95 % interval.

    holds: the whole interval does. does not hold: none of it does. Else undecided, with the number of problems at
    which an interval of this spread around this estimate would clear the threshold (from ten problems on).
    """
    if sum(x is not None for x in (above, below, within)) != 1:
        raise ValueError("a verdict needs exactly one of above=, below=, within=")
    if interval.missing:
        return Verdict(f"undecided: {interval.missing}", interval, float("nan"))
    if within is not None:
        inside, outside = (
            max(abs(interval.low), abs(interval.high)) < within,
            interval.low > within or interval.high < -within,
        )
        threshold, distance = within, abs(within - abs(interval.estimate))
    else:
        threshold = above if above is not None else below
        over, under = interval.low > threshold, interval.high < threshold
        inside, outside = (over, under) if above is not None else (under, over)
        distance = abs(interval.estimate - threshold)
    if inside or outside:
        return Verdict("holds" if inside else "does not hold", interval, threshold)
    if (
        not interval.half_width or interval.n < 10
    ):  # the spread of so few does not tell how many would decide
        return Verdict("undecided at this sample size", interval, threshold)
    needed = int(np.ceil(interval.n * (interval.half_width / max(distance, 1e-9)) ** 2))
    return Verdict("undecided at this sample size", interval, threshold, min(needed, 10**7))


def overall(words):
    """One word for the checks of a claim, any of which refutes it: it holds when all do, and not when one does not."""
    words = list(words)
    if "does not hold" in words:
        return "does not hold"
    return "holds" if words and set(words) == {"holds"} else "undecided at this sample size"


def pareto(frame, x, y):
    """Rows that no other row beats in both columns (larger is better), sorted by x."""
    ranked = frame.sort_values([x, y], ascending=False)
    return ranked[ranked[y] > ranked[y].shift().cummax().fillna(-np.inf)].sort_values(x)
