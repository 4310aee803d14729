"""The corpus, its graders and the shipped models."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from helpers import tasks
from helpers.tasks import corpus, load


@pytest.mark.parametrize("domain", corpus.DOMAINS)
def test_rows_are_a_pure_function_and_held_out(domain):
    rows = [corpus.sample(domain, i, split) for split in ("train", "test") for i in range(200)]
    assert rows == [
        corpus.sample(domain, i, split) for split in ("train", "test") for i in range(200)
    ]
    train, test = ({r["question"] for r in part} for part in (rows[:200], rows[200:]))
    assert (
        not train & test and not any(map(corpus.in_test, train)) and all(map(corpus.in_test, test))
    )


def test_rows_do_not_depend_on_the_hash_seed():
    code = "from helpers.tasks import corpus; print([corpus.sample(d, 3)['question'] for d in corpus.DOMAINS])"
    out = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": s, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for s in ("0", "1")
    }
    assert len(out) == 1


@pytest.mark.parametrize("domain", [d for d in corpus.DOMAINS if d != "code"])
def test_graders_know_right_from_wrong(domain):
    """The reference answer is right; the answer to another question is (nearly always) wrong."""
    rows = corpus.problems(domain, 60)
    assert all(corpus.grade(domain, r, r["answer"])[0] == 1 for r in rows)
    swapped = [corpus.grade(domain, a, b["answer"])[0] for a, b in zip(rows, rows[1:])]
    assert sum(s == 1 for s in swapped) <= (0.6 if domain == "law" else 0.1) * len(swapped)
    assert corpus.grade(domain, rows[0], "")[0] == 0


def test_problems_have_stable_ids_and_grow():
    few, many = corpus.problems("arithmetic", 5), corpus.problems("arithmetic", 50)
    assert many[:5] == few and len({r["id"] for r in many}) == 50
    assert corpus.problems("arithmetic", 5, seed=1) != few


def test_shipped_models_are_what_the_card_says():
    size = sum(f.stat().st_size for f in (ROOT / "data/pocket").rglob("*") if f.is_file())
    assert size <= 30e6
    card = (ROOT / "data/pocket/README.md").read_text()
    for name in ("draft", "target", "expert-math", "expert-code", "expert-law"):
        fact = json.loads((ROOT / "data/pocket" / name / "training.json").read_text())
        assert (
            fact["steps"] == fact["of"]
            and f"| {name} |" in card
            and f"{fact['parameters']:,}" in card
        )


def test_the_target_is_strong_and_the_draft_is_weak(pocket):
    """Design targets on 64 held-out stories: at least 80 % and well below it (one-sided, fixed seed)."""
    from helpers import experiments
    from helpers.methods import Autoregressive

    rows = experiments.run(
        pocket, [Autoregressive("draft"), Autoregressive("target")], load("pocket-arithmetic", 64)
    )
    score = rows.groupby("method").score.mean()
    assert score["AS_large"] >= 0.8 and score["AS_small"] <= 0.4


def test_an_unknown_domain_is_a_sentence():
    with pytest.raises(ValueError, match="choose one of arithmetic"):
        corpus.sample("poetry", 0)
    with pytest.raises(
        ValueError, match="there is no task 'pocket-poetry'; choose one of pocket-arithmetic"
    ):
        tasks.load("pocket-poetry")
