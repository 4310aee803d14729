"""The benchmark's parts on the pocket pair: what is counted, not how fast it is."""

import gc

import pytest
import torch

from helpers import decoding, tasks
from helpers.make import bench, peers
from helpers.methods import Autoregressive, Fixed, Sampling, Speculative
from helpers.models import linears


@pytest.fixture(scope="module")
def rows(pocket):
    target, draft = peers.load(pocket, "float32")
    contestants = [
        bench.ours(pocket, Autoregressive("target")),
        bench.ours(pocket, Speculative(policy=Fixed(3))),
        peers.plain(pocket, "float32", target)[0],
        peers.assisted(pocket, target, draft)[0],
    ]
    return bench.race(contestants, pocket, tasks.load("pocket-arithmetic", 3))


def test_every_contestant_answers_every_problem(rows):
    assert len(rows) == 12 and rows.groupby("method").problem_id.nunique().eq(3).all()
    assert (
        (rows.decode_s > 0).all()
        and (rows.n_tokens > 1).all()
        and set(rows.method[rows.peer]) == {"generate, float32, dynamic cache", "assisted, fixed 3"}
    )
    summary, speed = bench.table(rows)
    assert summary.loc["AS_large", "÷ AS_large"].startswith("1.00") and len(speed) == 4
    ours = rows[~rows.peer]
    assert ((ours.draft_s + ours.verify_s + ours.host_s + ours.prefill_s) <= ours.seconds).all()


def test_tokens_are_counted_alike(pocket):
    """Greedy: transformers, its assisted generation and ours write the same answer and count the same tokens, eos included."""
    target, draft = peers.load(pocket, "float32")
    problem = tasks.load("pocket-arithmetic", 1)[0]
    prompt = pocket.encode(problem.messages)
    (ours,) = decoding.decode(
        pocket, Speculative(), [prompt], [(0, 0)], sampling=Sampling(0.0), max_new_tokens=80
    )
    tokens = torch.tensor([prompt])
    for more in ({}, {"assistant_model": draft}):
        out = target.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=80,
            eos_token_id=list(pocket.eos),
            pad_token_id=0,
            **more,
        )
        assert out[0, len(prompt) :].tolist() == ours.tokens and ours.finish == "eos"


def test_weights_are_counted_at_their_stored_size(pocket):
    """All weights once, in fp32: the parameters of the model card, the tied head counted once."""
    assert 0.9 * 4 * 2_349_184 < bench.weight_bytes(pocket.target) < 1.1 * 4 * 2_349_184


def test_ten_thousand_tokens_leave_nothing_behind(pocket):
    """The number of living tensors and the cache's memory are the same after 10,000 tokens as after the first run."""

    def run(seed):
        return decoding.decode(
            pocket,
            Speculative(policy=Fixed(4)),
            [[5, 6, 7]] * 20,
            [(seed, i) for i in range(20)],
            max_new_tokens=250,
        )

    def living():
        gc.collect()
        return sum(type(o) is torch.Tensor for o in gc.get_objects())

    endless, pocket.eos = pocket.eos, (10**6,)
    try:
        run(0)
        cells, before, made = pocket.target.memory.keys[0].shape, living(), 0
        for seed in (1, 2):
            made += sum(len(a.tokens) for a in run(seed))
            assert pocket.target.memory.keys[0].shape[2] == cells[2]
        assert made == 10_000 and living() <= before
    finally:
        pocket.eos = endless


def test_the_table_of_linear_layers_has_every_kind(pocket):
    """Kinds take turns, and one row has its projections apart: of the kind that the pair uses."""
    assert {model: list(rows)[-1] for model, rows in bench.tricks(pocket).items()} == {
        "target": "fp32, apart",
        "draft": "fp32, apart",
    }
    kinds = bench.linear_times(pocket.target.config, "int8 rotated", widths=(1, 4), repeats=2)
    here = [kind for kind in bench.LINEARS if linears.works(kind)]
    assert list(kinds) == [*here, "int8 rotated, apart"]
    assert all(list(row) == [1, 4] and min(row.values()) > 0 for row in kinds.values())
