"""What a cached result belongs to: everything that made it, the code of a reader's own rule too."""

import pickle
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

from helpers import common, rules, store
from helpers.methods import EntropyStop, Fixed, Speculative

# A cell as a reader writes it; BODY and CONSTANT are what the reader edits.
CELL = """
from dataclasses import dataclass
import torch
from helpers import rules, store
from helpers.methods import Fixed, Speculative

FACTOR = {constant}

def half(q_x):
    return q_x / {divisor}

@dataclass(frozen=True)
class Half:
    def accept(self, p_x, q_x):
        assert "beta" not in {{"alpha", "gamma", "delta"}}
        return torch.where(p_x * FACTOR >= half(q_x), 1.0, p_x / q_x)
    residual = rules.Power.residual

@dataclass(frozen=True)
class Early(Fixed):
    def go_on(self, H, q_x, j):
        return H <= {stop}

print(store.fingerprint(Speculative(rules.Gated(1.0, inner=Half()), Early(4), "mine")))
"""


def fingerprint_of(constant=1.0, divisor=2, stop=0.5, before="", same_process=True):
    """The fingerprint of the method that a cell builds, in this process or in a fresh one."""
    cell = before + CELL.format(constant=constant, divisor=divisor, stop=stop)
    if not same_process:
        run = [sys.executable, "-c", cell]
        return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    printed = []
    exec(cell, {"__name__": "__main__", "print": lambda text: printed.append(f"{text}\n")})
    return printed[0]


def test_the_same_cell_is_the_same_object_in_every_process():
    first = fingerprint_of()
    assert first == fingerprint_of()
    assert first == fingerprint_of(same_process=False)
    assert first == fingerprint_of(before="# another line above\n\n\n")


@pytest.mark.parametrize(
    "edit",
    [{"divisor": 1e9}, {"constant": 3.0}, {"stop": 0.6}],
    ids=["the body of a function it calls", "a global it reads", "the policy's body"],
)
def test_an_edited_body_is_another_object(edit):
    """All of these print the same: repr(method) is no key."""
    assert fingerprint_of(**edit) != fingerprint_of()


def test_values_of_the_projects_own_classes_tell_apart():
    seen = {
        store.fingerprint(value)
        for value in (
            Speculative(),
            Speculative(rules.SP_entropy(1.0)),
            Speculative(rules.SP_entropy(1.0), Fixed(5)),
            Speculative(rules.SP_entropy(1.0), EntropyStop(5)),
            Speculative(rules.Gated(1.0, rules.Clip(0.5))),
            Speculative(rules.Gated(1.0, rules.Lenience(0.5))),
            1,
            1.0,
            "1",
            True,
            [1],
            [[1]],
            {"a": 1},
            {"b": 1},
        )
    }
    assert len(seen) == 14


@pytest.mark.parametrize("damage", [b"", b"not a pickle", pickle.dumps([1, 2, 3])[:-4]])
def test_a_damaged_cache_file_counts_as_absent(damage, tmp_path):
    file = tmp_path / "a.pkl"
    file.write_bytes(damage)
    assert store.load(file) is None
    store.keep(file, [1, 2, 3])
    assert store.load(file) == [1, 2, 3]
    assert store.load(tmp_path / "absent.pkl") is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    store.write_text(file, "old")
    with pytest.raises(KeyboardInterrupt), store.replacing(file) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_a_rule_that_is_edited_is_decoded_anew(pocket, tmp_path, monkeypatch):
    """The recipe's rule with 2 changed to 1e9 accepts more; label and repr stay the same."""
    from helpers import experiments, tasks

    monkeypatch.setattr(common, "CACHE", tmp_path)
    problems = tasks.load("pocket-news", 8)

    def accepted(divisor):
        cell = textwrap.dedent(CELL.format(constant=1.0, divisor=divisor, stop=99))
        space = {"__name__": "__main__", "print": lambda text: None}
        exec(cell, space)
        method = Speculative(space["Half"](), space["Early"](4), "mine")
        rows = experiments.run(pocket, [method], problems)
        times = experiments.timed(pocket, [method], problems[:2])
        return rows.accepted.sum() / rows.drafted.sum(), times.accepted.sum()

    strict, timed_strict = accepted(2)
    everything, timed_everything = accepted(1e9)
    assert everything == 1 and strict < 1
    assert timed_everything != timed_strict
    assert accepted(2) == (strict, timed_strict)
