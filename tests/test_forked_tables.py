"""Tables for a reader: forks that nothing grades or that change little, gates side by side."""

import numpy as np
import pandas as pd
import pytest

from helpers import plots, rules, stats, tables
from helpers.plots import style


def forked(score, **columns):
    """Ten forks of as many problems, half of them at low entropy."""
    return pd.DataFrame(
        {
            "problem_id": [f"p{i}" for i in range(10)],
            "H_q": np.tile([0.1, 2.0], 5),
            "weight": 1.0,
            "harm": score,
        }
    ).assign(**columns)


@pytest.mark.parametrize(
    "forks, words",
    [
        (forked(np.nan, ungraded="no reference"), "no reference"),
        (forked(np.nan), "too few graded forks"),
        (forked([1.0] + [np.nan] * 9, ungraded=""), "too few graded forks"),
        (forked(np.nan).head(0), "too few graded forks"),
    ],
)
def test_the_reason_for_no_number_is_told(forks, words):
    expected = pd.Series(0.1, index=[f"p{i}" for i in range(10)])
    found = (
        tables.per_rescue(forks, "harm"),
        tables.safer_below(forks, "harm", 1.0),
        tables.per_answer(forks, "harm", expected),
    )
    assert [interval.missing for interval in found] == [words] * 3
    assert stats.verdict(found[0], below=0.05).word == f"undecided: {words}"


def test_graded_forks_have_a_number():
    found = tables.per_rescue(forked(1.0, ungraded=""), "harm")
    assert found.estimate == 1 and not found.missing


@pytest.mark.parametrize("n", [8, 50, 300])
def test_a_placebo_that_changes_little_is_not_known_better_than_one_that_changes_nothing(n):
    """By resampling alone, one change in 50 gives a narrower interval than none."""
    rng = np.random.default_rng(n)
    forks = pd.DataFrame({"problem_id": np.arange(n), "H_q": 0.1, "weight": 1.0})
    widths = []
    for changed in range(4):
        harm = np.zeros(n)
        harm[:changed] = -1
        found = tables.per_rescue(forks.assign(harm=harm), "harm")
        assert found.estimate == pytest.approx(-changed / n)
        assert found.low < found.estimate <= found.high
        widths.append(found.half_width)
    assert min(widths[1:]) > widths[0]
    assert widths[0] == pytest.approx(stats.paired_interval(np.zeros(n), np.zeros(n)).half_width)
    uneven = forks.assign(harm=0.0, weight=rng.lognormal(0, 1, n))
    assert tables.per_rescue(uneven, "harm").half_width > widths[0]  # fewer than n to go by


def test_what_gates_buy_is_read_together():
    """The intervals of each column are as wide as of a family of so many gates."""
    rng = np.random.default_rng(0)
    gates = {"τ = 0.1": 0.1, "τ = 1": 1.0, "τ = 2": 2.0}
    right = {name: rng.random(60) < 0.7 for name in ("SP", *gates)}
    rows = [
        {
            "method": name,
            "rule": repr(rules.STRICT if name == "SP" else rules.SP_entropy(gates[name])),
            "problem_id": i,
            "seed": 0,
            "score": float(score),
            "rescued": 0,
        }
        for name, scores in right.items()
        for i, score in enumerate(scores)
    ]
    answers = pd.DataFrame(rows)

    class Paces:
        def ratio(self, gate, baseline):
            return stats.Interval(1.1, 1.0, 1.2, 60)

        calls_saved = ratio

    table = tables.by_gate(answers, Paces())
    assert list(table["gate, nats"]) == list(gates)
    level = 1 - 0.05 / 3
    alone = stats.difference(answers, "score", "τ = 1", "SP", level=level)
    assert table["accuracy − SP"][1] == alone.points()
    wider = Paces().ratio("", "").at_level(level)
    assert set(table["tokens/s ÷ SP"]) == {wider.show(3)}
    assert wider.half_width > 0.1


def test_the_figure_says_that_no_fork_is_graded():
    style.use()
    share = stats.Interval(0.03, 0.02, 0.05, 200)
    figure = plots.rescue_harm([], [], [], {"SP_entropy": {"certificate": share}})
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["no graded forks"]
    assert right.get_ylabel() == "accuracy lost, points"


def test_the_strict_rule_has_no_rescue_and_that_is_no_estimate():
    methods = {"SP": rules.STRICT, "SP_entropy": rules.SP_entropy(1.0)}
    rows = [
        {"method": name, "rule": repr(rule), "problem_id": i, "seed": 0, "rescued": 0.0}
        for name, rule in methods.items()
        for i in range(100)
    ]
    answers = pd.DataFrame(rows)
    strict, relaxed = (tables.rescued_share(answers, name) for name in methods)
    assert (strict.low, strict.estimate, strict.high) == (0.0, 0.0, 0.0) and strict.n == 100
    assert relaxed.estimate == relaxed.low == 0 < relaxed.high
    uncounted = tables.rescued_share(answers.assign(rescued=float("nan")), "SP_entropy")
    assert uncounted.missing
