"""What is fitted on other texts: against an optimiser, a known law, and a gate that leaks."""

import dataclasses
import math

import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import torch
from conftest import ROOT

from helpers import learned, ledger, rules, tasks


def positions(problems=30, length=40, seed=0):
    """Positions whose rejections follow a known logistic law of the features."""
    rng = np.random.default_rng(seed)
    n = problems * length
    H = rng.exponential(0.6, n)
    frame = pd.DataFrame(
        {
            "problem_id": np.repeat([f"p{i}" for i in range(problems)], length),
            "position": np.tile(np.arange(length), problems),
            "H_q": H,
            "max_q": np.exp(-H) * rng.uniform(0.8, 1, n),
            "margin": rng.uniform(0, 1, n),
        }
    )
    score = -2 + 2.0 * H - 1.0 * frame.margin + 0.3 * np.log1p(frame.position)
    frame["chance"] = 1 / (1 + np.exp(-score))
    frame["rejected"] = rng.uniform(size=n) < frame.chance
    return frame


def test_the_logistic_fit_is_the_one_an_optimiser_finds():
    table = positions()
    x, y = learned.features(table), table.rejected.to_numpy(float)
    scaled = (x - x.mean(0)) / x.std(0)

    def loss(w):
        score = w[0] + scaled @ w[1:]
        penalty = learned.RIDGE * (w[0] ** 2 + len(x) * (w[1:] ** 2).sum()) / 2
        return np.logaddexp(0, score).sum() - y @ score + penalty

    best = scipy.optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-6})
    own = best.x[1:] / x.std(0)
    want = [best.x[0] - own @ x.mean(0), *own]
    assert np.allclose(learned.logistic(x, y), want, atol=1e-4)


def test_the_learned_gate_finds_the_law_and_says_the_same_as_its_table():
    table = positions(200)
    weights = learned.fit(table, "rejected")
    guess = learned.expected(table, weights)
    assert np.abs(guess - table.chance).mean() < 0.02
    laws = rules.Laws(*[torch.tensor(two_words(table.max_q, table.margin))] * 4)
    signals = rules.Signals(
        torch.tensor(table.H_q.to_numpy()),
        max_q=torch.tensor(table.max_q.to_numpy()),
        position=torch.tensor(table.position.to_numpy()),
        laws=laws,
    )
    for tau in (0.1, 0.3):
        assert (rules.Learned(tau, weights).open(signals).numpy() == (guess <= tau)).all()


def two_words(best, margin):
    """Rows of three numbers whose two largest differ by the margin (N, 3)."""
    best = best.to_numpy()
    return np.stack([best, best - margin.to_numpy(), best - margin.to_numpy() - 1], 1)


def test_a_gate_is_fitted_on_other_problems_than_it_is_read_on():
    """Other labels of the problems that it is read on change nothing, those of the others do."""
    table = positions()
    read_on = ["p3", "p7"]
    mine = table.problem_id.isin(read_on)
    before = learned.fit_elsewhere(table, table.problem_id, read_on, "rejected")
    for changed, is_same in ((mine, True), (~mine, False)):
        labels = table.rejected.where(~changed, ~table.rejected)
        after = learned.fit_elsewhere(
            table.assign(rejected=labels), table.problem_id, read_on, "rejected"
        )
        assert np.allclose(before, after) == is_same
    with pytest.raises(ValueError, match="all 30 problems, and nothing is left"):
        learned.fit_elsewhere(table, table.problem_id, set(table.problem_id))


def weights_of_the_notebook(source, book, problems, n_read):
    """The weights of the learned gate in notebook 05, by its own cells."""
    names = {
        "rules": rules,
        "learned": learned,
        "book": book,
        "problems": problems,
        "n_problems": len(problems),
        "n_read": n_read,
        "rule_families": {},
    }
    exec(source, names)
    make, _ = names["rule_families"]["learned gate, √"]
    return make(0.1).weights, [problem.id for problem in names["chosen"]]


@pytest.mark.parametrize("n_read", [4, 100])
def test_notebook_05_does_not_let_the_learned_gate_see_what_it_is_read_on(pocket, n_read):
    """Nor where it is to be read on more answers than there are; a mutant that leaks is seen."""
    (file,) = (ROOT / "notebooks").glob("05_*.ipynb")
    cells = {cell.id: cell.source for cell in nbformat.read(file, 4).cells}
    source = cells["rivals"]
    problems = tasks.load("pocket-arithmetic", 10)
    book = ledger.written_by_target(pocket, problems, continuations=0)

    def is_blind(source):
        before, read_on = weights_of_the_notebook(source, book, problems, n_read)
        mine = np.repeat(book.answers.problem_id.isin(read_on).to_numpy(), book.lengths)
        unlike = book.positions.assign(tv=book.positions.tv.where(~mine, 1 - book.positions.tv))
        other = dataclasses.replace(book, positions=unlike)
        after, _ = weights_of_the_notebook(source, other, problems, n_read)
        assert 2 <= len(read_on) < 10
        return np.allclose(before, after)

    call = 'learned.fit_elsewhere(book.positions, of_problem, read_on, "tv")'
    assert call in source and is_blind(source)
    assert not is_blind(source.replace(call, 'learned.fit(book.positions, "tv")'))


def test_separable_and_one_sided_tables_have_a_finite_fit():
    table = positions(10)
    for labels in (table.H_q > 0.5, table.H_q > 99):
        weights = learned.fit(table.assign(rejected=labels), "rejected")
        guess = learned.expected(table, weights)
        assert all(math.isfinite(weight) for weight in weights)
        assert np.abs(guess - labels).mean() < 0.15


def test_a_calibration_never_rises_and_is_right_where_it_should_be():
    table = positions(300)
    fitted = learned.calibrate(table, "rejected")
    assert len(fitted.H) <= learned.KNOTS and list(fitted.H) == sorted(fitted.H)
    assert all(a >= b for a, b in zip(fitted.accept, fitted.accept[1:]))
    accept = fitted(torch.tensor(table.H_q.to_numpy())).numpy()
    parts = table.assign(said=accept, was=1 - table.rejected).groupby(pd.qcut(table.H_q, 8))
    told = parts[["said", "was"]].mean()
    assert np.abs(told.said - told.was).max() < 0.04
    # it takes probabilities as well, and equal entropies
    flat = pd.DataFrame({"H_q": [0.5] * 40, "delta": [0.25] * 40})
    assert learned.calibrate(flat)(torch.tensor([0.0, 3.0])).tolist() == [0.75, 0.75]
