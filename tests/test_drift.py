"""Runs on record, side by side: how far a number moves between them."""

import pytest

from helpers import common, drift, stats, store

NARROW = stats.Interval(2.4, 2.3, 2.5, 20)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "OUT", tmp_path)
    monkeypatch.setenv("SP_RUN", "")


def run(estimate):
    """One run of a notebook: its number after those on record, published; what is then known."""
    now = stats.Interval(estimate, estimate - 0.1, estimate + 0.1, 20)
    runs = drift.with_earlier("pocket", "03", {"speed": now})
    store.publish_facts("pocket", "03", numbers={"speed": now}, runs=runs)
    return runs["speed"]


def test_runs_follow_one_another_and_old_ones_go():
    estimates = [2 + i / 10 for i in range(drift.KEPT + 3)]
    for estimate in estimates:
        runs = run(estimate)
    assert [value for value, _, _ in runs] == pytest.approx(estimates[-drift.KEPT :])
    assert drift.spread(runs) == pytest.approx((2.3, 3.2))


def test_a_record_without_runs_counts_as_one():
    """As the notebooks published before runs were kept."""
    store.publish_facts("pocket", "03", numbers={"speed": stats.Interval(2.27, 2.13, 2.41, 20)})
    assert [value for value, _, _ in run(2.85)] == [2.27, 2.85]


def test_another_run_of_the_pair_has_a_record_of_its_own(monkeypatch):
    run(2.27)
    monkeypatch.setenv("SP_RUN", "hot")
    assert len(run(2.85)) == 1 and drift.spread(run(2.9)) == (2.85, 2.9)


def test_a_run_outside_the_interval_is_said():
    first = drift.in_words("SP ÷ AS_large", [[2.4, 2.3, 2.5]], NARROW)
    assert "no earlier run is on record" in first and drift.spread([[2.4, 2.3, 2.5]]) is None
    near = drift.in_words("SP ÷ AS_large", [[2.35, 2.2, 2.5], [2.4, 2.3, 2.5]], NARROW)
    assert (
        near
        == "SP ÷ AS_large in earlier runs on record: 2.35; inside this run's interval [2.30, 2.50]."
    )
    runs = [[2.85, 2.7, 3.0], [2.35, 2.2, 2.5], [2.4, 2.3, 2.5]]
    far = drift.in_words("SP ÷ AS_large", runs, NARROW)
    assert "record: 2.85, 2.35; 1 of 2 inside this run's interval [2.30, 2.50], which" in far


def test_a_run_without_a_number_adds_none():
    run(2.27)
    missing = stats.nothing("no judge")
    runs = drift.with_earlier("pocket", "03", {"speed": missing})
    assert runs["speed"] == [[2.27, pytest.approx(2.17), pytest.approx(2.37)]]
    assert drift.in_words("it", runs["speed"], missing) == "it in earlier runs on record: 2.27."
