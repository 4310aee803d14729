"""Statistics against published values, by enumeration, and by simulated coverage.

Simulated shares carry a Monte-Carlo error: with 1,000 draws one of 0.05 has a standard error of
0.007, with 4,000 one of 0.8 has 0.006. Bounds leave three of them.
"""

from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from scipy.stats import binom, mannwhitneyu, multinomial, norm

from helpers import stats

RNG = np.random.default_rng(0)


def covers(simulate, truth, n=1000):
    """Share of simulations whose 95 % interval holds the truth."""
    hits = 0
    for i in range(n):
        interval = simulate(np.random.default_rng(i))
        hits += interval.low <= truth <= interval.high
    return hits / n


def test_paired_difference_covers():
    """Two methods, 60 unlike problems, 3 noisy seeds: the interval covers 93 to 97 %."""

    def simulate(rng):
        easy = rng.beta(2, 2, 60)[:, None]
        a, b = (rng.random((60, 3)) < np.clip(easy + shift, 0, 1) for shift in (0.0, 0.0))
        return stats.bootstrap(
            np.stack([a.mean(1), b.mean(1)], 1), lambda m: m[..., 0] - m[..., 1], n_boot=800
        )

    assert 0.93 <= covers(simulate, 0.0) <= 0.97


def test_speed_ratio_covers():
    """Ratio of sums over 40 problems whose lengths differ."""

    def simulate(rng):
        tokens = rng.integers(20, 80, 40)
        slow, fast = (
            tokens * 0.02 * rng.lognormal(0, 0.2, 40),
            tokens * 0.01 * rng.lognormal(0, 0.2, 40),
        )
        return stats.bootstrap(
            np.stack([tokens, fast, tokens, slow], 1),
            lambda m: (m[..., 0] / m[..., 1]) / (m[..., 2] / m[..., 3]),
            n_boot=800,
        )

    assert 0.93 <= covers(simulate, 2.0) <= 0.97


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_few_problems_cover(n):
    """Percentiles alone are too narrow here."""

    def simulate(rng):
        return stats.bootstrap(rng.normal(1, 1, n), n_boot=800)

    assert 0.92 <= covers(simulate, 1.0) <= 0.99


def test_auroc_covers_with_clusters():
    """40 problems of 20 positions that share an offset; the true area is known by simulation."""

    def draw(rng, n):
        shift = rng.normal(0, 0.5, n).repeat(20)
        label = rng.random(n * 20) < 0.3
        return rng.normal(0, 1, n * 20) + shift + 0.8 * label, label, np.arange(n).repeat(20)

    truth = stats.auroc(*draw(np.random.default_rng(99), 20000), n_boot=2).estimate
    assert 0.93 <= covers(lambda rng: stats.auroc(*draw(rng, 40), n_boot=200), truth, 600) <= 0.97


def test_a_gain_in_auroc_covers_and_pairs_its_signals():
    """A rival with noise of its own on the same positions; apart, the two areas vary far more."""

    def draw(rng, n):
        shift = rng.normal(0, 0.5, n).repeat(20)
        label = rng.random(n * 20) < 0.3
        signal = rng.normal(0, 1, n * 20) + shift + 0.8 * label
        return signal, signal + rng.normal(0, 0.5, n * 20), label, np.arange(n).repeat(20)

    truth = stats.auroc_gain(*draw(np.random.default_rng(99), 20000), n_boot=2).estimate
    gain = partial(stats.auroc_gain, n_boot=100)
    assert 0.92 <= covers(lambda rng: gain(*draw(rng, 40)), truth, 400) <= 0.98
    signal, rival, label, cluster = draw(np.random.default_rng(0), 40)
    found = stats.auroc_gain(signal, rival, label, cluster)
    own, other = (stats.auroc(values, label, cluster) for values in (signal, rival))
    assert found.estimate == pytest.approx(own.estimate - other.estimate)
    assert found.half_width < 0.5 * np.hypot(own.half_width, other.half_width)
    same = stats.auroc_gain(signal, np.exp(signal), label, cluster)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)


def test_auroc_equals_mann_whitney():
    signal, label = RNG.integers(0, 5, 300).astype(float), RNG.random(300) < 0.4  # many ties
    u = mannwhitneyu(signal[label], signal[~label]).statistic / (label.sum() * (~label).sum())
    assert stats.auroc(signal, label).estimate == pytest.approx(u, abs=1e-12)
    assert np.trapezoid(*stats.roc(signal, label)[::-1]) == pytest.approx(u, abs=1e-12)


def test_cost_model():
    """Independent acceptance simulated against the closed form; alpha = 1 emits gamma + 1."""
    accepted = (RNG.random((200_000, 4)) < 0.7).cumprod(1).sum(1) + 1
    assert stats.tokens_per_round(0.7, 4) == pytest.approx(accepted.mean(), abs=0.01)
    assert stats.tokens_per_round(1.0, 4) == 5
    assert stats.tokens_per_second(3.0, 4, 0.01, 0.06) == pytest.approx(30)


@pytest.mark.parametrize(
    "interval, kind, word",
    [
        ((0.1, 0.02, 0.2), {"above": 0}, "holds"),
        ((-0.1, -0.2, -0.01), {"above": 0}, "does not hold"),
        ((0.1, -0.1, 0.3), {"above": 0}, "undecided at this sample size"),
        ((0.01, -0.02, 0.04), {"within": 0.05}, "holds"),
        ((0.2, 0.1, 0.3), {"within": 0.05}, "does not hold"),
        ((0.04, 0.0, 0.08), {"within": 0.05}, "undecided at this sample size"),
        ((0.9, 0.8, 0.97), {"below": 1}, "holds"),
    ],
)
def test_verdicts(interval, kind, word):
    assert stats.verdict(stats.Interval(*interval, 100), **kind).word == word


def test_pareto():
    frame = pd.DataFrame({"x": [1, 2, 3, 3, 0.5], "y": [3, 2, 1, 0.5, 2.9]}, index=list("abcde"))
    assert list(stats.pareto(frame, "x", "y").index) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda: stats.bootstrap([[1.0]]), "at least 2"),
        (lambda: stats.bootstrap([[1.0], [np.nan]]), "missing"),
        (lambda: stats.auroc([1.0, 2.0], [True, True]), "both classes"),
        (lambda: stats.proportion(3, 2), "of 2"),
        (lambda: stats.verdict(stats.Interval(0, 0, 0, 2)), "exactly one"),
    ],
)
def test_bad_input(act, words):
    with pytest.raises(ValueError, match=words):
        act()


def test_one_refuted_check_refutes_the_claim():
    yes, no, open_ = "holds", "does not hold", "undecided at this sample size"
    assert [stats.overall(w) for w in ([yes, yes], [yes, no], [open_, no], [yes, open_], [])] == [
        yes,
        no,
        no,
        open_,
        open_,
    ]


# ---- right or wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table, level, bounds",
    [
        # (both, only the first, only the second, neither) right
        ((59, 6, 16, 80), 0.95, (-0.1240, -0.0054)),  # Fagerland et al. 2014, Cavo et al. 2012
        ((1, 1, 7, 12), 0.95, (-0.517, -0.026)),  # Fagerland et al. 2014, Bentur et al. 2009
        ((8, 3, 1, 2), 0.95, (-0.1670, 0.4327)),  # Tang et al. 2010
        ((565, 28, 25, 0), 0.90, (-0.0148, 0.0247)),  # R's PropCIs::scoreci.mp(25, 28, 618)
    ],
)
def test_paired_difference_is_as_published(table, level, bounds):
    _, first, second, _ = table
    found = stats.tango(first, second, sum(table), level)
    digits = 3 if table[0] == 1 else 4
    assert tuple(np.round(found, digits)) == bounds


def test_no_pair_that_differs_leaves_the_closed_form():
    """Tango's bounds without discordant pairs are ± z² / (n + z²)."""
    z2 = norm.isf(0.025) ** 2
    for n in (8, 50, 400):
        assert stats.tango(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), abs=1e-9)


@cache
def every_outcome(n, most=130):
    """All counts of gains and losses up to `most` each, with their intervals: four arrays."""
    gains, losses = (x.ravel() for x in np.indices((min(n, most) + 1,) * 2))
    possible = gains + losses <= n
    gains, losses = gains[possible], losses[possible]
    return gains, losses, *stats.tango(gains, losses, n)


def enumerated_misses(n, rate, share):
    """Exact chances that the interval lies above, below the truth; `share` of changes are losses.

    One answer per problem.
    """
    gains, losses, low, high = every_outcome(n)
    chances = [rate * (1 - share), rate * share, 1 - rate]
    chance = multinomial.pmf(np.stack([gains, losses, n - gains - losses], 1), n, chances)
    assert chance.sum() > 1 - 1e-6
    truth = rate * (1 - 2 * share)
    return chance[low > truth + 1e-9].sum(), chance[high < truth - 1e-9].sum()


@pytest.mark.parametrize("n", [8, 20, 50, 100, 200, 400])
def test_paired_difference_covers_exactly(n):
    """Enumerated: changes in 0.5 to 20 % of problems, none to all of them losses.

    The null is rejected in at most 5.5 % (it was 8.9 % at n = 8), and the bound that a claim of "no
    loss" rests on misses in at most 3 %. The bound next to 0 may miss in 5.5 % where all changes
    go one way: the known price of score intervals.
    """
    for rate in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        assert sum(enumerated_misses(n, rate, 0.5)) <= 0.055
        for share in (0.75, 1.0):
            too_high, too_low = enumerated_misses(n, rate, share)
            assert too_high <= 0.03 and too_low <= 0.055


def changes(rng, n, seeds, rate, alike, share, draws=1000):
    """-1, 0, 1 for each (draw, problem, seed): losses and gains at a mean `rate`.

    alike: correlation of the answers to one problem in whether they change; a problem's changes all
    go one way, a loss with probability `share`.
    """
    if alike == 1:
        of_problem = (rng.random((draws, n)) < rate).astype(float)
    else:
        shape = rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1)
        of_problem = rng.beta(*shape, (draws, n))
    changed = rng.random((draws, n, seeds)) < of_problem[..., None]
    is_loss = rng.random((draws, n, 1)) < share
    return np.where(is_loss, -1, 1) * changed


@pytest.mark.parametrize("n", [8, 50, 200, 400])
@pytest.mark.parametrize("alike", [0.001, 0.3, 1])
def test_several_answers_to_a_problem_cover(n, alike):
    """Simulated, 300 draws: 2 to 6 answers per problem that are unrelated, related, or the same."""
    rng = np.random.default_rng(n)
    for seeds, rate, share in ((2, 0.02, 1.0), (3, 0.005, 0.5), (3, 0.2, 0.5), (6, 0.05, 1.0)):
        drawn = changes(rng, n, seeds, rate, alike, share, draws=300)
        found = [stats.paired_interval((d > 0).mean(1), (d < 0).mean(1), seeds) for d in drawn]
        truth = rate * (1 - 2 * share)
        too_high = np.mean([interval.low > truth for interval in found])
        too_low = np.mean([interval.high < truth for interval in found])
        assert too_high <= 0.03 + 0.03 and too_low <= 0.055 + 0.035
        assert too_high + too_low <= 0.06 + 0.04


def test_several_answers_are_worth_what_they_tell():
    """Many unrelated answers count one by one; answers that are all alike count once."""
    rng = np.random.default_rng(1)
    apart = rng.choice([-1, 0, 1], (400, 3), p=[0.1, 0.8, 0.1])
    for drawn, worth in ((apart, 1200), (np.tile(apart[:, :1], 3), 400)):
        found = stats.paired_interval((drawn > 0).mean(1), (drawn < 0).mean(1), 3)
        low, high = stats.tango((drawn > 0).mean() * worth, (drawn < 0).mean() * worth, worth)
        assert found.high - found.low == pytest.approx(float(high - low), rel=0.1)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("n", [8, 50, 200])
def test_a_change_never_makes_an_interval_narrower_than_none(n, seeds):
    """One change in 50 gave a narrower interval than none."""
    widths = []
    for changed in range(4):
        lost = np.zeros(n)
        lost[:changed] = 1 / seeds
        found = stats.paired_interval(np.zeros(n), lost, seeds)
        widths.append(found.high - found.low)
    assert min(widths[1:]) > widths[0]


def frame_of(scores):
    """Rows of experiments.run from {method: (problems, seeds) scores}."""
    rows = [
        {"problem_id": problem, "seed": seed, "method": method, "score": float(score)}
        for method, table in scores.items()
        for problem, line in enumerate(table)
        for seed, score in enumerate(np.atleast_1d(line))
    ]
    return pd.DataFrame(rows)


def test_difference_pairs_by_seed():
    """The same means per problem, but each seed's answer changed: more can hide behind that."""
    a = np.tile([[1, 0]], (60, 1))
    still = stats.difference(frame_of({"a": a, "b": a}), "score", "a", "b")
    crossed = stats.difference(frame_of({"a": a, "b": 1 - a}), "score", "a", "b")
    assert still.estimate == crossed.estimate == 0
    shuffled = frame_of({"a": a, "b": 1 - a}).sample(frac=1, random_state=1)
    assert stats.difference(shuffled, "score", "a", "b") == crossed
    assert crossed.half_width != still.half_width


def test_difference_of_right_and_wrong_is_the_score_interval():
    a, b = np.ones(161), np.ones(161)
    b[:6] = 0
    a[6:22] = 0
    found = stats.difference(frame_of({"a": a, "b": b}), "score", "a", "b")
    assert (round(found.low, 4), round(found.high, 4)) == (-0.1240, -0.0054)
    wider = stats.difference(frame_of({"a": a, "b": b}), "score", "a", "b", level=0.99)
    assert wider.low < found.low and wider.high > found.high and wider.n == 161


def test_scores_between_keep_the_bootstrap_unless_little_changes():
    rng = np.random.default_rng(0)
    a = rng.random(50)
    b = np.clip(a + rng.normal(0.02, 0.05, 50), 0, 1)
    found = stats.difference(frame_of({"a": a, "b": b}), "score", "a", "b")
    table = np.stack([a, b], 1)
    assert found == stats.bootstrap(table @ [1, -1])
    one = a.copy()
    one[0] = 1 - one[0]
    few = stats.difference(frame_of({"a": a, "b": one}), "score", "a", "b")
    none = stats.difference(frame_of({"a": a, "b": a}), "score", "a", "b")
    assert few.half_width > none.half_width > 0.03


def test_difference_needs_the_same_problems():
    both = frame_of({"a": [0.5, 0.2, 0.1], "b": [0.5, 0.2]})
    with pytest.raises(ValueError, match="same problems"):
        stats.difference(both, "score", "a", "b")


@pytest.mark.parametrize("n", [8, 20, 50, 100, 200, 400])
def test_proportions_are_exact(n):
    """Enumerated: each bound misses in at most 2.5 %, whatever the truth."""
    found = [stats.proportion(k, n) for k in range(n + 1)]
    for truth in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.99):
        chance = binom.pmf(np.arange(n + 1), n, truth)
        assert sum(c for c, i in zip(chance, found) if i.low > truth) <= 0.025
        assert sum(c for c, i in zip(chance, found) if i.high < truth) <= 0.025


def test_mean_of_right_and_wrong():
    """One answer each: Clopper and Pearson's; three alike: the same, not a third as wide."""
    right = np.r_[np.ones(41), np.zeros(9)]
    one = stats.mean(frame_of({"a": right}), "score", "a")
    exact = stats.proportion(41, 50)
    assert (one.low, one.high) == pytest.approx((exact.low, exact.high))
    alike = stats.mean(frame_of({"a": np.tile(right[:, None], 3)}), "score", "a")
    assert (alike.low, alike.high) == pytest.approx((exact.low, exact.high), abs=1e-6)
    perfect = stats.mean(frame_of({"a": np.ones((8, 3))}), "score", "a")
    assert perfect.high == 1 and perfect.low == pytest.approx(0.025 ** (1 / 8))


@pytest.mark.parametrize("middle", [0.01, 0.2, 0.6])
def test_mean_covers_with_several_answers(middle):
    """Simulated, 1,000 draws: 60 unlike problems, 3 answers each; bounds miss in at most 2.5 %."""

    def simulate(rng):
        easy = rng.beta(middle, 1 - middle, 60)
        right = rng.random((60, 3)) < easy[:, None]
        return stats.score_interval(right.mean(1), 3)

    assert covers(simulate, middle) >= 0.95 - 0.02


# ---- how many would decide ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{"above": 0.0}, {"within": 3.0}])
def test_the_number_that_would_decide_has_its_power(kind):
    """8,000 studies with a known error of 1: of those left undecided, the next decides in 80 %.

    The truth is drawn evenly over a wide range; a new study of the number that the first asks for
    is judged by its own interval. Planning for the estimate itself gave 51 %.
    """
    rng = np.random.default_rng(0)
    n = 100
    reach = norm.isf(0.025)
    decided = []
    for truth in rng.uniform(-7, 7, 8000):
        first = rng.normal(truth, 1)
        found = stats.verdict(stats.Interval(first, first - reach, first + reach, n), **kind)
        if found.word != stats.UNDECIDED:
            continue
        error = np.sqrt(n / found.n_needed)
        second = rng.normal(truth, error)
        bounds = (second - reach * error, second + reach * error)
        word = stats.verdict(stats.Interval(second, *bounds, found.n_needed), **kind).word
        decided.append(word != stats.UNDECIDED)
    assert len(decided) > 2000
    assert np.mean(decided) == pytest.approx(0.8, abs=3 * 0.4 / np.sqrt(len(decided)))


def test_the_number_that_would_decide_holds_for_answers():
    """The same from right-or-wrong answers: changes in 10 %, two in three of them gains."""
    rng = np.random.default_rng(1)
    truths = rng.uniform(-0.1, 0.1, 600)
    decided = []
    for truth in truths:
        chances = [(0.1 + truth) / 2, (0.1 - truth) / 2, 0.9]

        def study(n, chances=chances):
            gained, lost, _ = rng.multinomial(n, chances)
            low, high = stats.tango(gained, lost, n)
            return stats.Interval((gained - lost) / n, float(low), float(high), n)

        found = stats.verdict(study(150), above=0)
        if found.word == stats.UNDECIDED and found.n_needed < 10**7:
            decided.append(stats.verdict(study(found.n_needed), above=0).word != stats.UNDECIDED)
    assert np.mean(decided) == pytest.approx(0.8, abs=3 * 0.4 / np.sqrt(len(decided)) + 0.02)


@pytest.mark.parametrize(
    "needed, words",
    [(7, "about 7"), (57, "about 57"), (286, "about 290"), (5718, "about 5,700")]
    + [(99_960, "about 100,000"), (100_001, "more than 100,000")],
)
def test_the_problems_that_are_needed_have_the_digits_that_can_be_known(needed, words):
    found = stats.Verdict(stats.UNDECIDED, stats.Interval(0.1, -0.1, 0.3, 100), 0.0, needed)
    told = f"{words} problems would decide with 80 % power, this rests on 100"
    assert str(found) == f"{stats.UNDECIDED} ({told})"
    # A margin is said; a 0 is of the claim itself, as are a ratio's 1 and an AUROC's 0.5.
    margin = stats.Verdict(stats.UNDECIDED, found.interval, -0.05, needed)
    assert str(margin) == f"{stats.UNDECIDED} (margin 5 points; {told})"
    for own in (0.0, 0.5, 1.0, 1.01):
        assert str(stats.Verdict("holds", found.interval, own)) == "holds"
    assert str(stats.Verdict("holds", found.interval, 0.025)) == "holds (margin 2.5 points)"


def test_undecided_names_its_power():
    found = stats.verdict(stats.Interval(0.1, -0.1, 0.3, 100), above=0)
    assert str(found).endswith(" problems would decide with 80 % power, this rests on 100)")
    # the truth taken as known to be 0.1, one error from 0: (1.96 + 0.84)² = 7.85 times as many
    assert found.n_needed > 785
    never = stats.verdict(stats.Interval(0.0, -0.2, 0.2, 10**6), above=0)
    assert "more than 100,000 problems" in str(never)
    assert stats.verdict(stats.Interval(0.1, -0.1, 0.3, 5), above=0).n_needed is None


# ---- several at once ---------------------------------------------------------------------------


def seven(rng, effects, n=40):
    """Bootstrap-like intervals of independent means with these effects, in errors."""
    found = {}
    for i, effect in enumerate(effects):
        sample = rng.normal(effect / np.sqrt(n), 1, n)
        half = stats.over_tasks(dict(enumerate(sample))).half_width
        middle = sample.mean()
        found[i] = stats.Interval(middle, middle - half, middle + half, n)
    return found


def test_a_family_without_effects_is_rarely_wrong_anywhere():
    """1,000 families of seven nulls: one by one 30 % decide something, together at most 5 %."""
    alone = together = missed = 0
    for i in range(1000):
        compared = seven(np.random.default_rng(i), [0] * 7)
        alone += any(stats.verdict(x, above=0).word != stats.UNDECIDED for x in compared.values())
        found = stats.family(compared, above=0)
        together += any(word != stats.UNDECIDED for word in found.words.values())
        missed += found.intervals[found.best()].low > 0
    assert alone > 250
    assert together <= 50 + 21 and missed <= 25 + 15


def holm(p_values):
    """Holm's step-down adjustment of p-values, in their order."""
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * (len(order) - np.arange(len(order))))
    adjusted = np.empty(len(order))
    adjusted[order] = stepped.clip(max=1)
    return adjusted


def test_a_family_is_holms():
    """Verdicts equal Holm's adjusted p-values < 0.05, and more is decided than by Bonferroni."""
    more = 0
    for i in range(200):
        compared = seven(np.random.default_rng(i), [0, 1, 2, 2.5, 3, 3, 4])
        found = stats.family(compared, above=0)
        freedom = 39
        reach = scipy_stats.t.isf(0.025, freedom)
        t = [reach * abs(x.estimate) / x.half_width for x in compared.values()]
        p = holm(2 * scipy_stats.t.sf(t, freedom))
        assert [word != stats.UNDECIDED for word in found.words.values()] == list(p < 0.05)
        more += sum(p < 0.05) > sum(x.low > 0 or x.high < 0 for x in found.intervals.values())
    assert more > 20


def test_a_family_recomputes_scores_and_shows_what_is_missing():
    rng = np.random.default_rng(3)
    base = (rng.random(300) < 0.6).astype(float)
    better = np.where(rng.random(300) < 0.2, 1.0, base)
    frame = frame_of({"a": base, "b": better, "c": base})
    compared = {m: partial(stats.difference, frame, "score", m, "a") for m in "bc"}
    found = stats.family(compared | {"d": stats.NO_JUDGE}, above=0)
    assert found.words["b"] == "holds" and found.best() == "b"
    assert found.verdicts["d"].word == "undecided: no judge"
    assert found.intervals["b"] == stats.difference(frame, "score", "b", "a", level=0.975)
    assert list(found.intervals) == ["b", "c", "d"]
    # after b has left, c is judged alone
    assert found.verdicts["c"].interval == stats.difference(frame, "score", "c", "a")


# ---- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "difference, saved, word",
    [
        ((0.0, -0.01, 0.01), (0.3, 0.29, 0.31), "holds"),  # 3 points are allowed
        ((-0.04, -0.045, -0.035), (0.3, 0.29, 0.31), "does not hold"),  # worth less than it costs
        ((-0.08, -0.09, -0.07), (0.9, 0.89, 0.91), "does not hold"),  # cheap, but past the margin
        ((0.0, -0.01, 0.01), (0.035, 0.03, 0.04), stats.UNDECIDED),  # within 5 points, not 0.35
        ((-0.03, -0.06, 0.0), (0.9, 0.89, 0.91), stats.UNDECIDED),
    ],
)
def test_no_loss(difference, saved, word):
    found = stats.no_loss(
        stats.Interval(*difference, 200), stats.Interval(*saved, 200), exchange=0.1, margin=0.05
    )
    assert found.word == word
    if word == stats.UNDECIDED:
        assert found.n_needed > 200


def test_no_loss_is_rarely_said_of_a_method_at_the_edge():
    """600 answers each; accuracy lost is just what the saving pays for, and both move together."""
    exchange = 0.1
    said = 0
    for i in range(1000):
        rng = np.random.default_rng(i)
        # 4 % of problems lose; calls saved are 40 % on average, and more where the answer is lost
        lost = rng.random(600) < 0.04
        saving = rng.normal(0.4 + 0.3 * (lost - 0.04), 0.1)
        middle = saving.mean()
        half = 1.96 * saving.std() / np.sqrt(600)
        found = stats.no_loss(
            stats.paired_interval(np.zeros(600), lost),
            stats.Interval(middle, middle - half, middle + half, 600),
            exchange,
            margin=0.2,
        )
        said += found.word == "holds"
    assert said / 1000 <= 0.03 + 0.015


def test_no_loss_keeps_the_reason_for_a_missing_number():
    found = stats.no_loss(stats.NO_JUDGE, stats.Interval(0.1, 0.0, 0.2, 9), 0.1, 0.05)
    assert found.word == "undecided: no judge"


def test_null_contrast():
    good = stats.null_contrast("SP - AS_large", stats.Interval(0.003, -0.012, 0.019, 200))
    assert good == "SP - AS_large, known to be 0: 0.3 points [-1.2, 1.9], as it should be"
    bad = stats.null_contrast("SP ÷ SP", stats.Interval(1.2, 1.1, 1.3, 9), 1, 2, False)
    assert bad.startswith("SP ÷ SP, known to be 1: 1.20 [1.10, 1.30], which misses it")


# ---- tasks as units ----------------------------------------------------------------------------


def test_claims_about_tasks_cover():
    """7 tasks drawn from many, each known with an error: covered, where problems pooled are not."""
    pooled = 0

    def simulate(rng):
        nonlocal pooled
        tasks = rng.normal(0.2, 0.15, 7)
        answers = {i: rng.normal(mean, 0.3, 50) for i, mean in enumerate(tasks)}
        everything = np.concatenate(list(answers.values()))
        half = 1.96 * everything.std() / np.sqrt(len(everything))
        pooled += abs(everything.mean() - 0.2) <= half
        return stats.over_tasks({i: sample.mean() for i, sample in answers.items()})

    assert 0.93 <= covers(simulate, 0.2) <= 0.97
    assert pooled / 1000 < 0.7


@pytest.mark.parametrize("sizes", [(1, 6), (3, 4)])
def test_comparisons_of_tasks_cover(sizes):
    """One writing task against six others, too."""

    def simulate(rng):
        groups = [dict(enumerate(rng.normal(i, 0.5, size))) for i, size in enumerate(sizes)]
        return stats.between_tasks(*groups)

    assert 0.93 <= covers(simulate, -1.0) <= 0.97


def test_tasks_count_as_tasks():
    gains = {name: stats.Interval(x, 0.5, 9, 200) for name, x in zip("abc", (1.0, 2.0, 4.0))}
    logs = {name: gain.through(np.log) for name, gain in gains.items() if name != "a"}
    assert stats.over_tasks(logs).n == 2
    assert stats.over_tasks(logs).through(np.exp).estimate == pytest.approx(np.sqrt(8))
    for act in (lambda: stats.over_tasks({"a": 1.0}), lambda: stats.between_tasks({}, gains)):
        with pytest.raises(ValueError, match="at least"):
            act()


def test_a_ratio_that_may_be_0_saves_anything_down_to_minus_infinity():
    """As of a few answers timed on a busy machine: nothing is decided, and nothing fails."""
    saved = stats.Interval(0.576, 0.0, 12.855, 30).through(lambda ratio: 1 - 1 / ratio)
    assert saved.low == -np.inf and saved.high == pytest.approx(1 - 1 / 12.855)
    assert "[-inf, " in saved.points()
    found = stats.no_loss(stats.Interval(0.0, -0.01, 0.01, 30), saved, 0.1, 0.05)
    assert found.word == "undecided at this sample size"
    assert "more than 100,000 problems" in str(found)


# ---- looks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "k, bounds",
    [
        (1, (1.960,)),
        (2, (2.797, 1.977)),
        (3, (3.471, 2.454, 2.004)),
        (4, (4.049, 2.863, 2.337, 2.024)),
        (5, (4.562, 3.226, 2.634, 2.281, 2.040)),
    ],
)
def test_bounds_of_looks_are_as_published(k, bounds):
    """O'Brien and Fleming's constants, Jennison and Turnbull 2000, table 2.3."""
    assert stats.looks(k) == pytest.approx(bounds, abs=6e-4)


def test_looking_early_keeps_the_level():
    """2,000 studies without an effect, four looks: a plain 95 % interval would decide in 12.6 %."""
    rng = np.random.default_rng(0)
    wrong = naive = 0
    for _ in range(2000):
        sample = rng.normal(0, 1, 400)
        words = []
        plain = []
        for look in (1, 2, 3, 4):
            part = sample[: 100 * look]
            half = 1.96 / np.sqrt(len(part))
            interval = stats.Interval(part.mean(), part.mean() - half, part.mean() + half, 10**6)
            words.append(stats.sequential_verdict(interval, look, 4, above=0).word)
            plain.append(stats.verdict(interval, above=0).word)
        wrong += any(word in ("holds", "does not hold") for word in words)
        naive += any(word in ("holds", "does not hold") for word in plain)
        assert words[0] in ("go on", "holds", "does not hold")
    assert naive / 2000 > 0.10
    assert wrong / 2000 == pytest.approx(0.05, abs=3 * 0.005)


def test_a_look_beyond_the_plan_is_refused():
    with pytest.raises(ValueError, match="3 are planned"):
        stats.sequential_verdict(stats.Interval(0, -1, 1, 50), 4, 3, above=0)
    with pytest.raises(ValueError, match="whole number"):
        stats.looks(0)


def test_levels_beyond_the_draws_are_stretched():
    """A first look of five wants 99.9995 %: no bootstrap of 4,000 draws can be read there."""
    sample = RNG.normal(0, 1, 200)
    usual = stats.bootstrap(sample)
    far = stats.bootstrap(sample, level=1 - 5e-6)
    assert far.half_width / usual.half_width == pytest.approx(4.56 / 1.96, rel=0.05)
    near = stats.bootstrap(sample, level=0.99)
    assert near.half_width == pytest.approx(usual.at_level(0.99).half_width, rel=0.08)
