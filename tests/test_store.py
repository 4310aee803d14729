"""What a cached result belongs to: everything that made it, the code of a reader's own rule too."""

import os
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


def test_a_damaged_cache_file_counts_as_absent(tmp_path):
    """Cut off anywhere, with one bit turned, of another program, or of another result."""
    value = {"rows": [1.5, "two"], "more": list(range(30))}
    file = tmp_path / "a.pkl"
    store.keep(file, value)
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [b"not a pickle", pickle.dumps(value), b"\0" * 100]
    for at in range(len(whole)):
        turned = bytearray(whole)
        turned[at] ^= 1 << at % 8
        damaged.append(bytes(turned))
    for content in damaged:
        file.write_bytes(content)
        assert store.load(file) is None, content
    other = tmp_path / "b.pkl"
    other.write_bytes(whole)  # under a name that belongs to other facts
    assert store.load(other) is None
    assert store.load(tmp_path / "absent.pkl") is None
    store.keep(file, value)
    assert store.load(file) == value


class Gone:
    """Of a value that is kept, and cannot be made again later."""

    def __reduce__(self):
        return int, ("nothing",)


def test_what_cannot_be_made_again_counts_as_absent(tmp_path):
    file = tmp_path / "a.pkl"
    store.keep(file, Gone())
    assert store.load(file) is None


def test_a_cache_that_cannot_be_read_or_written_is_told_apart(tmp_path):
    """A folder where the file should be: no result, and a sentence when there is one to keep."""
    file = tmp_path / "a.pkl"
    file.mkdir()
    (file / "inside").write_text("")
    assert store.load(file) is None
    with pytest.raises(OSError, match=r"a.pkl cannot be written \(.*\); set SP_OUT and SP_CACHE"):
        store.keep(file, 1)
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("")
    assert store.load(in_the_way / "runs" / "a.pkl") is None
    with pytest.raises(OSError, match=r"a.pkl cannot be written \(.*\); set SP_OUT and SP_CACHE"):
        store.keep(in_the_way / "runs" / "a.pkl", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pkl", "cache"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_is_no_object_counts_as_absent(content, tmp_path):
    file = tmp_path / "times.json"
    file.write_bytes(content)
    assert store.read_json(file) is None
    store.write_text(file, '{"a": 1}')
    assert store.read_json(file) == {"a": 1}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.json"
    store.write_text(file, "old")
    with pytest.raises(KeyboardInterrupt), store.replacing(file) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_run_has_left_in_the_cache_goes_a_day_later(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")
    folder = common.CACHE / "runs"
    folder.mkdir(parents=True)
    young, old = (folder / f".{digit * 32}.a.pkl" for digit in "01")
    kept = folder / "b.pkl"
    for file in (young, old, kept):
        file.write_text("")
    for file in (old, kept):
        os.utime(file, (1, 1))
    with store.locked(tmp_path / "run"):
        assert set(folder.iterdir()) == {young, kept}


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
