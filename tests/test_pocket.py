"""The corpus, its graders and the shipped models."""

import hashlib
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from helpers import experiments, tasks
from helpers.make import pocket as pocket_training
from helpers.methods import Autoregressive
from helpers.models import load_pair
from helpers.tasks import corpus

# Checksums of the first hundred rows of each domain.
TRAINED_ON = {
    "arithmetic": "c558e5b0876be2df",
    "algebra": "1b080511ead30456",
    "code": "8b909001f609accd",
    "facts": "11b32b7a6f65d433",
    "news": "ea059d17f5a30be2",
    "stories": "4b938132738b777d",
    "law": "e72c5860b74b46c2",
}


@pytest.mark.parametrize("domain", corpus.DOMAINS)
def test_rows_are_a_pure_function_and_held_out(domain):
    train = [corpus.sample(domain, seed, "train") for seed in range(200)]
    test = [corpus.sample(domain, seed, "test") for seed in range(200)]
    assert train == [corpus.sample(domain, seed, "train") for seed in range(200)]
    assert test == [corpus.sample(domain, seed, "test") for seed in range(200)]

    train_questions = {row["question"] for row in train}
    test_questions = {row["question"] for row in test}
    assert not train_questions & test_questions
    assert not any(corpus.in_test(question) for question in train_questions)
    assert all(corpus.in_test(question) for question in test_questions)


def test_rows_do_not_depend_on_the_hash_seed():
    code = (
        "from helpers.tasks import corpus\n"
        "print([corpus.sample(domain, 3)['question'] for domain in corpus.DOMAINS])"
    )
    outputs = set()
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("domain", corpus.DOMAINS)
def test_the_corpus_is_the_one_that_the_models_were_trained_on(domain):
    """The order in which a generator draws is part of the data."""
    texts = []
    for seed in range(100):
        row = corpus.sample(domain, seed)
        texts += [row["question"], row["answer"], str(row["check"])]
    checksum = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert checksum.startswith(TRAINED_ON[domain])


@pytest.mark.parametrize("domain", [d for d in corpus.DOMAINS if d != "code"])
def test_graders_know_right_from_wrong(domain):
    """The reference answer is right; the answer to another question is (nearly always) wrong."""
    rows = corpus.problems(domain, 60)
    assert all(corpus.grade(domain, row, row["answer"]).score == 1 for row in rows)
    swapped = [
        corpus.grade(domain, row, other["answer"]).score for row, other in zip(rows, rows[1:])
    ]
    right_by_chance = 0.6 if domain == "law" else 0.1  # most law cases end with "no"
    assert sum(score == 1 for score in swapped) <= right_by_chance * len(swapped)
    assert corpus.grade(domain, rows[0], "").score == 0


def test_problems_have_stable_ids_and_grow():
    few = corpus.problems("arithmetic", 5)
    many = corpus.problems("arithmetic", 50)
    assert many[:5] == few
    assert len({row["id"] for row in many}) == 50
    assert corpus.problems("arithmetic", 5, seed=1) != few


def test_more_problems_than_there_are():
    with pytest.raises(ValueError, match=r"only \d+ distinct held-out problems; 5000 were asked"):
        corpus.problems("facts", 5000)


def test_shipped_models_are_what_the_card_says():
    folder = ROOT / "data" / "pocket"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert size <= 30e6
    card = (folder / "README.md").read_text()
    lines = {}  # of its tables, by first cell
    for line in card.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            lines[cells[0]] = cells
    for name in ("draft", "target", "expert-math", "expert-code", "expert-law"):
        training = json.loads((folder / name / "training.json").read_text())
        assert training["steps"] == training["of"]
        assert f"{training['parameters']:,}" in lines[name]


def test_the_target_is_strong_and_the_draft_is_weak(pocket):
    """Design targets on 64 held-out stories: at least 80 % and well below it, at a fixed seed."""
    methods = [Autoregressive("draft"), Autoregressive("target")]
    rows = experiments.run(pocket, methods, tasks.load("pocket-arithmetic", 64))
    score = rows.groupby("method").score.mean()
    assert score["AS_large"] >= 0.8
    assert score["AS_small"] <= 0.4


def test_an_unknown_domain_is_a_sentence():
    with pytest.raises(ValueError, match="choose one of arithmetic"):
        corpus.sample("poetry", 0)
    sentence = "there is no task 'pocket-poetry'; choose one of pocket-arithmetic"
    with pytest.raises(ValueError, match=sentence):
        tasks.load("pocket-poetry")


def test_what_is_trained_is_not_trained_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pocket_training, "train", lambda *arguments: pytest.fail("trained again"))
    pocket_training.main([])
    assert capsys.readouterr().out.count("is trained; remove") == len(pocket_training.MODELS)
    monkeypatch.setattr(pocket_training, "FOLDER", tmp_path)
    assert not pocket_training.is_trained("draft")


def test_another_seed_trains_a_pair_of_its_own(monkeypatch, tmp_path):
    """Other weights, other texts, and the shipped folder is left alone."""
    trained = []
    monkeypatch.setattr(
        pocket_training, "train", lambda name, *rest: trained.append((name, rest[-1]))
    )
    monkeypatch.setattr(pocket_training.common, "MODELS", tmp_path)
    pocket_training.main(["--seed", "21"])
    assert trained == [("draft", 21), ("target", 21)]
    assert (tmp_path / "pocket-21" / "tokenizer" / "tokenizer.json").exists()
    assert pocket_training.folder_of(pocket_training.SEED) == ROOT / "data" / "pocket"

    shape = pocket_training.MODELS["draft"].shape
    first, again, other = (
        pocket_training.build(shape, "cpu", seed)[0].get_input_embeddings().weight
        for seed in (pocket_training.SEED, pocket_training.SEED, 21)
    )
    assert first.equal(again) and not first.equal(other)


def test_pairs_of_other_seeds_say_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(pocket_training.common, "MODELS", tmp_path)
    with pytest.raises(FileNotFoundError, match="run `make pocket SEED=21` first"):
        load_pair("pocket-21")
