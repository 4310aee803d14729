"""What three people are told to deploy follows from the record, whatever it says."""

import pandas as pd
import pytest

from helpers import store
from helpers.make import people, summary
from helpers.stats import Interval

LAPTOP, GPU, SERVER = people.PEOPLE


def told(monkeypatch, person, sp, relaxed, checks=()):
    """The advice where SP ÷ AS_large and SP_entropy ÷ SP have these intervals (low, high)."""
    intervals = [Interval(sum(ends) / 2, *ends, n=9) for ends in (sp, relaxed)]
    known = {"checks": dict(checks), "tau": 1.0, "gammas": {"SP": 4}}
    monkeypatch.setattr(summary, "facts", lambda run, number: known)
    monkeypatch.setattr(people, "_as_published", lambda pair: (4, *intervals))
    monkeypatch.setattr(people, "_at", lambda pair, cost: (4, *intervals))
    monkeypatch.setattr(people, "cost_here", lambda pair: 0.25)
    return people._advice("some", person)


@pytest.mark.parametrize("person", people.PEOPLE)
def test_the_target_alone_where_speculation_does_not_pay(monkeypatch, person):
    assert "the target alone; " in told(monkeypatch, person, (0.8, 0.9), (1.1, 1.2))
    assert "slower than it" in told(monkeypatch, person, (0.8, 0.9), (1.1, 1.2))
    assert "not told from it" in told(monkeypatch, person, (0.9, 1.2), (1.1, 1.2))


@pytest.mark.parametrize("check", people.LOSSES)
def test_relaxed_only_where_it_gains_and_its_loss_is_known_to_be_small(monkeypatch, check):
    fast, gains, little = (1.5, 2.0), (1.02, 1.08), (1.002, 1.008)
    assert "Relaxed at τ = 1" in told(monkeypatch, GPU, fast, gains, {check: "holds"})
    not_shown = told(monkeypatch, GPU, fast, gains, {check: "undecided"})
    assert "Not relaxed" in not_shown and "not shown to be worth it" in not_shown
    for word in ("holds", "undecided"):
        assert "too little" in told(monkeypatch, GPU, fast, little, {check: word})


def test_what_a_drafted_token_costs_is_read_off_the_timed_answers(monkeypatch):
    """AS_large takes 2 s a token; a round of SP drafts 4 at 0.5 s each and verifies for 3 s."""
    rows = [
        {"method": "AS_large", "seconds": 40.0, "draft_s": 0.0, "drafted": 0, "target_calls": 20},
        {"method": "SP", "seconds": 25.0, "draft_s": 10.0, "drafted": 20, "target_calls": 5},
    ]
    times = pd.DataFrame(rows).assign(gamma=[0, 4])
    monkeypatch.setattr(store, "table", lambda pair, name: times)
    assert people.cost_here("some") == pytest.approx(0.5 / 2 + (3 / 2 - 1) / 4)


def test_every_person_is_told_about_every_pair_that_ran():
    words = people.recommendations()
    assert [words.count(f"**{person.who}**") for person in people.PEOPLE] == [1, 1, 1]
    assert words.count("*pocket*: ") == len(people.PEOPLE)


def test_before_any_run_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(store, "table", lambda pair, name: None)
    assert people.recommendations() == "Notebooks 03 and 05 have not been run yet."
