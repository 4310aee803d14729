"""Statistics against known values and by simulated coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

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


def test_small_groups_cover():
    def simulate(rng):
        return stats.difference_of_groups(
            rng.normal(0, 1, 6), [rng.normal(k, 1 + k, 4) for k in range(4)], n_boot=800
        )

    assert 0.92 <= covers(simulate, -1.5) <= 0.99


def test_auroc_covers_with_clusters():
    """40 problems of 20 positions that share an offset; the true area is known by simulation."""

    def draw(rng, n):
        shift = rng.normal(0, 0.5, n).repeat(20)
        label = rng.random(n * 20) < 0.3
        return rng.normal(0, 1, n * 20) + shift + 0.8 * label, label, np.arange(n).repeat(20)

    truth = stats.auroc(*draw(np.random.default_rng(99), 20000), n_boot=2).estimate
    assert 0.93 <= covers(lambda rng: stats.auroc(*draw(rng, 40), n_boot=200), truth, 600) <= 0.97


def test_wilson_covers():
    assert 0.93 <= covers(lambda rng: stats.proportion(rng.binomial(80, 0.3), 80), 0.3) <= 0.97


def test_groups_cover():
    def simulate(rng):
        return stats.difference_of_groups(
            rng.normal(0, 1, 40), [rng.normal(1, 2, 60), rng.normal(3, 1, 50)], n_boot=800
        )

    assert 0.93 <= covers(simulate, -2.0) <= 0.97


def test_auroc_equals_mann_whitney():
    signal, label = RNG.integers(0, 5, 300).astype(float), RNG.random(300) < 0.4  # many ties
    u = mannwhitneyu(signal[label], signal[~label]).statistic / (label.sum() * (~label).sum())
    assert stats.auroc(signal, label).estimate == pytest.approx(u, abs=1e-12)
    assert np.trapezoid(*stats.roc(signal, label)[::-1]) == pytest.approx(u, abs=1e-12)


def test_mcnemar_known_value():
    """6 against 1 discordant pairs: two-sided exact p = 2 (C(7,0) + C(7,1)) / 2^7."""
    a, b = [1] * 6 + [0] + [1] * 5, [0] * 6 + [1] + [1] * 5
    assert stats.mcnemar(a, b) == pytest.approx(2 * 8 / 128)
    assert stats.mcnemar([1, 0], [1, 0]) == 1.0


def test_holm_known_value():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


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


def test_undecided_says_how_many_problems_decide():
    found = stats.verdict(stats.Interval(0.1, -0.1, 0.3, 100), above=0)
    assert found.n_needed == 400 and "about 400 problems" in str(found)
    nothing = stats.verdict(stats.Interval(0.0, -0.2, 0.2, 100), above=0)
    assert "more than 100,000 problems" in str(nothing)


def test_pareto():
    frame = pd.DataFrame({"x": [1, 2, 3, 3, 0.5], "y": [3, 2, 1, 0.5, 2.9]}, index=list("abcde"))
    assert list(stats.pareto(frame, "x", "y").index) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda: stats.bootstrap([[1.0]]), "at least 2"),
        (lambda: stats.difference_of_groups([1.0, 2.0], [[3.0]]), "at least 2"),
        (lambda: stats.bootstrap([[1.0], [np.nan]]), "missing"),
        (lambda: stats.auroc([1.0, 2.0], [True, True]), "both classes"),
        (lambda: stats.proportion(3, 2), "of 2"),
        (lambda: stats.verdict(stats.Interval(0, 0, 0, 2)), "exactly one"),
    ],
)
def test_bad_input(act, words):
    with pytest.raises(ValueError, match=words):
        act()


def test_no_observed_difference_is_not_certainty():
    """8 problems alike leave a difference of up to 37 % unseen; 200 leave under 2 %."""
    for n, unseen in ((8, 1 - 0.025 ** (1 / 8)), (200, 1 - 0.025 ** (1 / 200))):
        frame = pd.DataFrame(
            {"problem_id": list(range(n)) * 2, "method": ["a"] * n + ["b"] * n, "score": 1.0}
        )
        found = stats.difference(frame, "score", "a", "b")
        assert (found.estimate, found.high) == (0, pytest.approx(unseen))
        assert (
            stats.mean(frame, "score", "a").low == pytest.approx(1 - unseen)
            and stats.mean(frame, "score", "a").high == 1
        )
    assert stats.verdict(found, within=0.05).word == "holds"


def test_one_refuted_check_refutes_the_claim():
    yes, no, open_ = "holds", "does not hold", "undecided at this sample size"
    assert [stats.overall(w) for w in ([yes, yes], [yes, no], [open_, no], [yes, open_], [])] == [
        yes,
        no,
        no,
        open_,
        open_,
    ]
