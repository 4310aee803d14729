"""Answers that wait for a row are those of a batch that takes all at once."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from helpers import decoding, experiments, models, rules, tasks
from helpers.decoding import batch, dispatch
from helpers.methods import (
    Autoregressive,
    EntropyStop,
    Fixed,
    Glimpse,
    Routed,
    Sampling,
    Selective,
    Speculative,
)
from helpers.models import lm
from helpers.models.lm import GROUP
from helpers.stopping import Bandit

SAMPLING = Sampling(1.5, top_k=50)
METHODS = {
    "AS_large": Autoregressive("target"),
    "AS_small": Autoregressive("draft"),
    "selective": Selective(0.3),
    "stepwise": Glimpse(0.5),
    "SP": Speculative(rules.STRICT, Fixed(3)),
    "entropy stop": Speculative(rules.SP_entropy(1.0), EntropyStop(6, 0.5)),
    "history": Speculative(rules.Spike(2.0), Fixed(3)),
    "bandit": Speculative(rules.STRICT, Bandit(3, (Fixed(1), EntropyStop(3, 0.9)))),
}


@pytest.fixture(scope="module")
def asked(pocket):
    """Prompts of unequal length, and their keys."""
    problems = [p for d in ("arithmetic", "law", "facts") for p in tasks.load(f"pocket-{d}", 7)]
    return [pocket.encode(p.messages) for p in problems], [(5, i) for i in range(len(problems))]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Few rows are read together and few have to be free, so that much happens in small batches."""
    assert GROUP > 2
    monkeypatch.setattr(lm, "GROUP", 2)


def same(ours, theirs):
    for own, other in zip(ours, theirs, strict=True):
        assert replace(own, trace=None, seconds=0.0) == replace(other, trace=None, seconds=0.0)
        pd.testing.assert_frame_equal(own.trace, other.trace, rtol=1e-4, atol=1e-6)


def options(**more):
    return {"sampling": SAMPLING, "max_new_tokens": 30, "trace": True} | more


def admissions(monkeypatch):
    """How many rows were live when others joined them, a list that grows."""
    seen = []
    admit = batch.Batch.admit

    def watched(self):
        before = len(self.live)
        admit(self)
        if len(self.live) > before:
            seen.append(before)

    monkeypatch.setattr(batch.Batch, "admit", watched)
    return seen


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("rows", [1, 5])
def test_answers_do_not_depend_on_when_they_begin(pocket, asked, method, rows, monkeypatch):
    pair = pocket.copy()
    at_once = decoding.decode(pair, method, *asked, **options())
    joined = admissions(monkeypatch)
    in_turn = decoding.decode(pair.copy(), method, *asked, **options(rows=rows))
    same(in_turn, at_once)
    assert len(joined) >= (len(asked[0]) - rows) / rows
    assert rows == 1 or any(joined)  # some joined rows that were in the middle of an answer
    assert {len(answer.tokens) for answer in at_once} != {30}


def test_routed_answers_too(asked):
    pair = models.load_pair("pocket", device="cpu", experts=True)
    method = Routed(tau=0.3, back=0.8)
    at_once = decoding.decode(pair, method, *asked, **options())
    same(decoding.decode(pair, method, *asked, **options(rows=4)), at_once)
    assert sum(answer.switches for answer in at_once) > 5


def test_methods_that_share_rows_too(pocket, asked, monkeypatch):
    monkeypatch.setattr(dispatch, "is_cheaper", lambda *facts: True)
    methods = [Speculative(rule, Fixed(3)) for rule in (rules.STRICT, rules.SQRT, rules.Spike(2.0))]
    at_once = decoding.decode_together(pocket, methods, *asked, **options())
    joined = admissions(monkeypatch)
    in_turn = decoding.decode_together(pocket, methods, *asked, **options(rows=5))
    for ours, theirs in zip(in_turn, at_once, strict=True):
        same(ours, theirs)
    assert any(joined)


def test_a_decoder_that_forgets_new_rows_is_found(pocket, asked, monkeypatch):
    """A mutant: the history of an answer that has ended is left to the one that follows it."""
    method = Speculative(rules.Spike(2.0), Fixed(3))
    at_once = decoding.decode(pocket, method, *asked, **options())

    def leaves_what_was_there(self, name, of_new):
        if name not in self.kept:
            self.kept[name] = of_new(len(self.live))
            last = self.kept[name]
            self.unwritten[name] = lambda rows: torch.full_like(last[:1], 3.0).repeat(rows, 1)
        return self.kept[name]

    monkeypatch.setattr(batch.Batch, "remember", leaves_what_was_there)
    with pytest.raises(AssertionError):
        same(decoding.decode(pocket, method, *asked, **options(rows=5)), at_once)


def test_what_a_decoder_keeps_without_a_beginning_is_refused(pocket, asked, monkeypatch):
    def keeps(pair, method, batch, sampling):
        batch.kept["odd"] = torch.zeros(len(batch.live))
        yield from decoding.DECODERS[Autoregressive](pair, method, batch, sampling)

    monkeypatch.setattr(dispatch, "decoder_of", lambda method: keeps)
    with pytest.raises(ValueError, match="put 'odd' into batch.kept.*batch.remember"):
        decoding.decode(pocket, METHODS["AS_large"], *asked, **options(rows=5))


def test_prompts_that_waited_are_read_once_for_all_methods(pocket, asked, monkeypatch):
    pair = pocket.copy()
    reads = []
    read = pair.target._read
    monkeypatch.setattr(pair.target, "_read", lambda *a: reads.append(a[0].numel()) or read(*a))
    decoding.decode(pair, METHODS["AS_large"], *asked, **options(rows=5))
    first = sum(reads)
    reads.clear()
    decoding.decode(pair, METHODS["SP"], *asked, **options(rows=5))
    assert first > 0 and sum(reads) <= 1
    other = [list(reversed(prompt)) for prompt in asked[0]]
    decoding.decode(pair, METHODS["SP"], other, asked[1], **options(rows=5))
    kept = pair.target.kept
    assert sum(reads) > 0
    assert set(kept.own_part) == {tuple(prompt[:-1]) for prompt in other}  # the others are gone
    held = sum(part.nbytes for _, parts in kept.own_part.values() for part in parts)
    assert held == kept.bytes


def test_no_more_prompts_are_kept_than_there_is_room_for(pocket, asked, monkeypatch):
    at_once = decoding.decode(pocket, METHODS["SP"], *asked, **options())
    monkeypatch.setattr(lm, "KEPT_BYTES", 40_000)
    pair = pocket.copy()
    for _ in range(2):
        same(decoding.decode(pair, METHODS["SP"], *asked, **options(rows=5)), at_once)
        assert 0 < pair.target.kept.bytes <= 40_000
        assert len(pair.target.kept.own_part) < len(asked[0])


def test_a_lone_row_reads_its_prompt_whatever_is_kept(pocket, asked, monkeypatch):
    """It may be timed."""
    pair = pocket.copy()
    decoding.decode(pair, METHODS["SP"], *asked, **options())
    assert tuple(asked[0][0][:-1]) in pair.target.kept.own_part
    pair.target.memory = None
    reads = []
    read = pair.target._read
    monkeypatch.setattr(pair.target, "_read", lambda *a: reads.append(a[0].numel()) or read(*a))
    decoding.decode(pair, METHODS["SP"], asked[0][:1], asked[1][:1], **options())
    assert sum(reads) == len(asked[0][0]) - 1


def test_a_large_pair_s_batches_have_answers_that_wait(pocket, monkeypatch, tmp_path):
    problems = tasks.load("pocket-arithmetic", 11)
    sizes = []
    real = experiments.decode

    def watched(pair, method, prompts, keys, **options):
        sizes.append((len(prompts), options["rows"]))
        return real(pair, method, prompts, keys, **options)

    monkeypatch.setattr(experiments, "decode", watched)
    monkeypatch.setattr(experiments.store.common, "CACHE", tmp_path / "small")
    method = METHODS["AS_large"]
    small = experiments.run(pocket, [method], problems, batch_size=3)
    assert sizes == [(3, 3)] * 3 + [(2, 3)]
    sizes.clear()
    monkeypatch.setattr(type(pocket), "small", False)
    monkeypatch.setattr(experiments.store.common, "CACHE", tmp_path / "large")
    large = experiments.run(pocket, [method], problems, batch_size=3)
    assert sizes == [(9, 3), (2, 3)]
    pd.testing.assert_frame_equal(large, small)
