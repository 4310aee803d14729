"""What three people are told to deploy follows from the record, whatever it says."""

import pandas as pd
import pytest

from helpers import ledger, store
from helpers.make import people, stops, summary
from helpers.methods import EntropyStop
from helpers.stats import Interval

FAST = (1.5, 2.0)


def told(monkeypatch, sp, relaxed, checks=()):
    """The advice where SP ÷ AS_large and SP_entropy ÷ SP have these intervals (low, high)."""
    ratios = [Interval(sum(ends) / 2, *ends, n=9) for ends in (sp, relaxed)]
    known = {"checks": dict(checks), "tau": 1.0}
    monkeypatch.setattr(summary, "facts", lambda run, number: known)
    return people._words("some", 0.25, {"SP": (4, ratios[0]), "SP_entropy": (6, ratios[1])})


def test_the_target_alone_where_speculation_does_not_pay(monkeypatch):
    words = told(monkeypatch, (0.8, 0.9), (1.1, 1.2))
    assert words.startswith("the target alone; ") and "slower than it" in words
    words = told(monkeypatch, (0.9, 1.2), (1.1, 1.2))
    assert words.startswith("the target alone; ") and "not told from it" in words


@pytest.mark.parametrize(
    "relaxed, words",
    [
        ((1.002, 1.008), "too little"),
        ((0.93, 0.97), "too little"),
        ((0.996, 1.011), "not shown to be 1 % more"),
        ((0.98, 1.12), "not shown to be 1 % more"),
    ],
)
def test_a_gain_that_is_small_or_not_shown_is_called_so(monkeypatch, relaxed, words):
    holds = dict.fromkeys(people.LOSSES, "holds")
    assert f"Not relaxed: relaxed it makes {sum(relaxed) / 2:.3f}" in told(
        monkeypatch, FAST, relaxed, holds
    )
    assert words in told(monkeypatch, FAST, relaxed, holds)


def test_relaxed_only_where_no_check_says_that_its_loss_is_too_large(monkeypatch):
    gains = (1.02, 1.08)
    for checks in (("holds", "holds"), ("holds", "undecided")):
        words = told(monkeypatch, FAST, gains, zip(people.LOSSES, checks))
        assert "Relaxed it makes" in words and "× SP at γ = 6" in words
    for checks in (("holds", "does not hold"), ("undecided", "undecided")):
        assert "its price is not known" in told(
            monkeypatch, FAST, gains, zip(people.LOSSES, checks)
        )


@pytest.mark.parametrize(
    "gain, words",
    [
        ((1.02, 1.08), "End a block where H(q) > 0.75 nats, after 12 tokens at most: that makes"),
        ((1.0, 1.008), "A fixed γ: to end a block where H(q) > 0.75 nats"),
        ((0.97, 1.0), "too little."),
        ((0.99, 1.06), "not shown to be 1 % more."),
    ],
)
def test_blocks_are_ended_by_entropy_only_where_that_is_shown_to_pay(gain, words):
    ratio = Interval(sum(gain) / 2, *gain, n=9)
    told = people._stop_words(stops.Stop(EntropyStop(12, 0.75), 4, ratio, ratio, ratio))
    assert words in told and ratio.show(2) in told


def test_what_a_drafted_token_costs_is_read_off_the_timed_answers(monkeypatch):
    """AS_large takes 2 s a token; a round of SP drafts 3 at 0.5 s each and verifies for 3 s."""
    rows = [
        {"method": "AS_large", "seconds": 40.0, "draft_s": 0.0, "drafted": 0, "target_calls": 20},
        {"method": "SP", "seconds": 22.5, "draft_s": 7.5, "drafted": 15, "target_calls": 5},
    ]
    facts = {"gammas": {"SP": 4}, "tau": 1.0, "checks": {}}
    monkeypatch.setattr(store, "table", lambda pair, name: pd.DataFrame(rows))
    monkeypatch.setattr(summary, "facts", lambda run, number: facts)
    assert people.cost_here("some") == pytest.approx(0.5 / 2 + (3 / 2 - 1) / 3)
    facts.pop("gammas")  # killed between its tables and its facts
    assert people.cost_here("some") is None
    assert people.cost_on_gpu("some") == pytest.approx(0.5 / 2 + (3 / 2 - 1) / 3)


def test_every_person_is_told_about_every_pair():
    words = people.recommendations()
    assert [words.count(f"**{person.who}**") for person in people.PEOPLE] == [1, 1, 1, 1]
    # Of a measured GPU those pairs are told alone that have run on one.
    measured = [person for person in people.PEOPLE if person.cost == people.ON_GPU]
    assert len(measured) == 1 and people.cost_on_gpu("pocket") is None
    assert words.count("*pocket*: ") == len(people.PEOPLE) - 1
    assert words.count("*qwen2.5-coder*: ") == len(people.PEOPLE)
    # Whoever is told to speculate is told how to end a block, and nobody else is.
    advised = words.count("End a block where") + words.count("A fixed γ: to end a block")
    assert advised == words.count(": SP at γ = ")


def test_before_a_run_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(ledger, "load", lambda run, name: None)
    words = people.recommendations()
    assert words.count("notebook 05, which publishes the ledger, has not been run") >= 2
    monkeypatch.setattr(store, "table", lambda pair, name: None)
    assert people.recommendations() == "Notebook 03 has not been run yet."
