"""The recipes of helpers/README.md, followed to the letter."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT

from helpers import common, experiments, rules, store, tasks

RECIPES = (ROOT / "helpers" / "README.md").read_text(encoding="utf-8")


def blocks(recipe, language="python"):
    """The code blocks of one recipe."""
    section = RECIPES.split(f"\n### {recipe}\n")[1].split("\n### ")[0].split("\n## ")[0]
    parts = section.split("```")[1::2]
    return [part.removeprefix(language) for part in parts if part.startswith(language)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def problems():
    return tasks.load("pocket-arithmetic", 4)


def test_a_rule(pocket, problems):
    """It runs in every way, accepts at least what strict does, and keeps TV = delta - R."""
    scope = {}
    exec(blocks("A rule")[0], scope)
    rows, trace = experiments.run(pocket, [scope["method"]], problems, trace=True)
    assert rows.accepted.sum() > 0 and {"relaxed", "strict"} >= set(trace.path.dropna())
    assert len(experiments.timed(pocket, [scope["method"]], problems[:2])) == 2
    g = torch.Generator().manual_seed(0)
    p, q = (torch.randn(50, 6, generator=g, dtype=torch.float64).softmax(-1) for _ in range(2))
    o, R = rules.output_distribution(scope["Half"](), p, q, rules.Signals(rules.entropy(q)))
    assert torch.allclose(rules.tv(o, p), rules.tv(p, q) - R, atol=1e-9)


def test_a_policy(pocket, problems):
    """It is lossless (its greedy text is the target's), and it stops blocks before the cap."""
    from helpers.methods import Autoregressive, Sampling

    scope = {}
    exec(blocks("A policy")[0], scope)
    methods = [scope["method"], Autoregressive("target")]
    rows = experiments.run(pocket, methods, problems, sampling=Sampling(0.0))
    texts = rows.pivot(index="problem_id", columns="method", values="text")
    assert (texts["AS_large"] == texts[scope["method"].label]).all()
    warm = experiments.run(pocket, [scope["method"]], problems)
    assert 1 < warm.drafted.sum() / warm.target_calls.sum() < 12


def test_a_task(pocket, tmp_path, monkeypatch):
    """A file and a line in the table: its problems load, are answered and are graded."""
    from helpers.methods import Autoregressive

    folder = tmp_path / "data" / "doubling"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(blocks("A task", "json")[0].strip() + "\n")
    monkeypatch.setenv("SP_DATA", str(tmp_path / "data"))
    before = set(tasks.TASKS)
    scope = {}
    try:
        exec(blocks("A task")[0], scope)
        right = {problem.id: problem.reference for problem in scope["problems"]}
        assert set(right.values()) == {"14", "18"}
        rows = experiments.run(pocket, [Autoregressive("target")], scope["problems"])
        by_hand = [float(right[row.problem_id] in row.text) for row in rows.itertuples()]
        assert list(rows.score) == by_hand
        # An edited grader grades anew, in batches and in timed runs.
        entry = tasks.TASKS["doubling"]
        edited = replace(entry, grade=lambda reference, text: tasks.Grade(0.75, "edited"))
        experiments.timed(pocket, [Autoregressive("draft")], scope["problems"])
        tasks.TASKS["doubling"] = edited
        anew = experiments.run(pocket, [Autoregressive("target")], scope["problems"])
        timed = experiments.timed(pocket, [Autoregressive("draft")], scope["problems"])
        assert (anew.score == 0.75).all() and (timed.score == 0.75).all()
    finally:
        for name in set(tasks.TASKS) - before:
            del tasks.TASKS[name]


RUN = """
from helpers import experiments, models, tasks, store
from helpers.decoding.mixture import Mixture
pair = models.load_pair("pocket", device="cpu")
rows, trace = experiments.run(pair, [Mixture()], tasks.load("pocket-facts", 3), trace=True)
assert (rows.target_calls == rows.n_tokens).all() and set(trace.source) == {"mixture"}
print(store.code_version())
"""


def test_a_decoder(tmp_path):
    """A new file in decoding/ and a line in its table, in a copy of the package."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=ignore)
    os.symlink(ROOT / "data", tmp_path / "data")
    source, line = blocks("A decoder")
    (tmp_path / "helpers" / "decoding" / "mixture.py").write_text(source)
    with open(tmp_path / "helpers" / "decoding" / "dispatch.py", "a") as table:
        table.write(line)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=os.environ | {"SP_CACHE": str(tmp_path / "cache"), "DEVICE": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() != store.code_version(), "a new decoder must count as new code"
