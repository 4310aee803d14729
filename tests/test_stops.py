"""Ending a block by the draft's entropy: chosen on one half of a ledger, shown on the other."""

import pytest

from helpers import ledger, rules
from helpers.make import stops


@pytest.fixture(scope="module")
def books():
    """A few problems of the published pocket ledger: (tuned on, reported)."""
    return [
        half.of_problems(half.answers.problem_id.unique()[:6]) for half in stops.halves("pocket")
    ]


def test_a_ledger_is_halved_without_a_problem_in_both():
    tuning, reported = (set(book.answers.problem_id) for book in stops.halves("pocket"))
    assert tuning.isdisjoint(reported)
    whole = ledger.load("pocket", stops.LEDGER)
    assert tuning | reported == set(whole.answers.problem_id)


@pytest.mark.parametrize("cost", [0.1, 0.7])
def test_settings_are_chosen_on_one_half_and_speeds_are_of_the_other(books, cost):
    """By hand: a round is a step of the target, and every drafted token costs `cost` of one."""

    def per_step(book, policy):
        counted = ledger.counts(book, rules.STRICT, policy)
        return counted.total("emitted") / (
            counted.total("rounds") + cost * counted.total("drafted")
        )

    tuning, reported = books
    stop = stops.best(tuning, reported, [cost])[cost]
    best = {
        family: max(policies, key=lambda policy: per_step(tuning, policy))
        for family, policies in stops.FAMILIES.items()
    }
    shown = {family: per_step(reported, policy) for family, policy in best.items()}
    assert stop.policy == best["entropy"]
    assert stop.gamma == best["fixed"].gamma
    assert stop.over_fixed.estimate == pytest.approx(shown["entropy"] / shown["fixed"])
    found = stop.confidence_over_fixed.estimate
    assert found == pytest.approx(shown["confidence"] / shown["fixed"])
    # The target alone makes a token per step.
    assert stop.over_target.estimate == pytest.approx(shown["entropy"])
    # These problems tell the halves apart: chosen on what is reported, something would differ.
    cheating = stops.best(reported, reported, [cost])[cost]
    assert (cheating.policy, cheating.gamma) != (stop.policy, stop.gamma)


def test_before_a_run_the_table_is_a_sentence(monkeypatch):
    monkeypatch.setattr(ledger, "load", lambda run, name: None)
    assert stops.halves("pocket") is None
    assert stops.table() == "Notebook 05, which publishes the ledger, has not been run yet."
