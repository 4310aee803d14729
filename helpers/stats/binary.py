"""Scores that are right or wrong: exact and score intervals, with problems as the units.

Several answers to one problem are worth fewer than as many problems. How many they are worth is the
*effective sample size*: n problems whose mean has variance s² count as n v / s², where v is the
variance that one right-or-wrong answer has (Kish 1965). Few events tell little about s², so it is
drawn towards the safe side, one answer's worth per problem, by PRIOR imagined problems there.
Coverage and one-sided misses are computed and simulated in tests/test_stats.py.
"""

import numpy as np
from scipy import stats as scipy_stats

PRIOR = 8.0  # problems that must show a difference before their own spread counts for half
_HALVINGS = 60  # of an interval of length 2: beyond the precision of a float


def clopper_pearson(successes, n, level=0.95):
    """Exact bounds of a proportion (Clopper and Pearson 1934): low, high.

    Counts may be fractions, as effective ones are (Korn and Graubard 1998).
    """
    tail = (1 - level) / 2
    low = scipy_stats.beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = scipy_stats.beta.isf(tail, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def tango(only_first, only_second, n, level=0.95):
    """Score bounds of a difference of two paired proportions (Tango 1998): low, high.

    only_first, only_second: pairs in which only the first, only the second is right, of n pairs;
    arrays are taken element by element. Bounds are where the score statistic reaches the normal
    quantile; it falls as the difference grows.
    """
    reach = scipy_stats.norm.isf((1 - level) / 2)
    low = _where_score_is(reach, only_first, only_second, n)
    high = _where_score_is(-reach, only_first, only_second, n)
    return low, high


def _where_score_is(value, only_first, only_second, n):
    shape = np.broadcast_shapes(*map(np.shape, (only_first, only_second, n)))
    below = np.full(shape, -1.0)
    above = np.full(shape, 1.0)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        too_low = _score(middle, only_first, only_second, n) > value
        below = np.where(too_low, middle, below)
        above = np.where(too_low, above, middle)
    return (below + above) / 2


def _score(delta, first, second, n):
    """Tango's statistic at a difference `delta`.

    (first - second - n delta) / sqrt(n (2 p + delta (1 - delta))), where p is the most likely
    probability of "only the second is right" given delta: the larger root of
    2n p² + (-first - second + (2n - first + second) delta) p - second delta (1 - delta) = 0.
    """
    b = -first - second + (2 * n - first + second) * delta
    c = -second * delta * (1 - delta)
    p = (np.sqrt(np.maximum(b**2 - 8 * n * c, 0)) - b) / (4 * n)
    variance = np.maximum(n * (2 * p + delta * (1 - delta)), 1e-300)
    return (first - second - n * delta) / np.sqrt(variance)


def effective_size(n, per_answer, per_problem, answers, informative):
    """How many independent pairs or answers n problems are worth, between n and n × answers.

    per_answer: variance of one right-or-wrong answer; per_problem: variance of a problem's mean
    over its answers; informative: problems on which the two can be told apart.
    """
    observed = np.where(per_answer > 0, per_problem / np.maximum(per_answer, 1e-300), 1.0)
    weight = informative**2 / (informative**2 + PRIOR**2)
    share = weight * observed + (1 - weight)
    return n / np.clip(share, 1 / answers, 1.0)
