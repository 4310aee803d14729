"""Scores beside the makers' own: asked at temperature 0, published with their gap."""

import pytest

from helpers import common, experiments, store, tasks
from helpers.make import scores, summary
from helpers.methods import Sampling

PUBLISHED = {
    "pocket-arithmetic": {
        "AS_small": 40.0,
        "AS_large": 90.0,
        "how": "no examples",
        "from": "a report",
    }
}


@pytest.fixture
def measured(pocket, tmp_path, monkeypatch):
    """What `make scores` writes of the pocket pair, were something published of it."""
    monkeypatch.setattr(common, "OUT", tmp_path)
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(scores, "PUBLISHED", {"pocket": PUBLISHED})
    monkeypatch.setattr(scores, "PROBLEMS", {"pocket-arithmetic": 20, "pocket-facts": 10})
    monkeypatch.setattr(scores.models, "load_pair", lambda name, speed: pocket)
    scores.main(["--pair", "pocket"])
    return store.facts("pocket", "scores")


def test_shares_are_those_of_greedy_answers(measured, pocket):
    problems = tasks.load("pocket-arithmetic", 20)
    method = scores.Autoregressive("target")
    rows = experiments.run(pocket, [method], problems, sampling=Sampling(0.0))
    found = measured["numbers"]["pocket-arithmetic AS_large"]
    assert found["estimate"] == rows.score.mean() and found["n"] == 20
    assert set(measured["numbers"]) == {
        f"{task} {model}"
        for task in ("pocket-arithmetic", "pocket-facts")
        for model in ("AS_small", "AS_large")
    }


def test_the_gap_stands_beside_what_is_published_and_nothing_beside_what_is_not(measured):
    text = summary.scores("pocket")
    here = 100 * measured["numbers"]["pocket-arithmetic AS_large"]["estimate"]
    (line,) = [row for row in text.splitlines() if "arithmetic" in row and "AS_large" in row]
    assert f"{here - 90:+.1f}" in line and "| 90 " in line and "no examples" in line
    assert all("–" in row for row in text.splitlines() if "pocket-facts" in row)
    assert text.endswith("Published: a report.")


def test_a_pair_of_which_nothing_is_published_is_one_sentence():
    with pytest.raises(ValueError, match="the pair was pocket; published scores are known of qwen"):
        scores.main(["--pair", "pocket"])
