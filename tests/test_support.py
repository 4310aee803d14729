"""Reading rules over the tokens that p or q can produce gives what the whole vocabulary gives."""

import pandas as pd
import pytest
import torch

from helpers import rules
from helpers.ledger import reading
from helpers.ledger.grid import grid
from helpers.methods import Sampling
from helpers.probes import Reading

POSITIONS, WORDS = 40, 400
SAMPLINGS = {
    "top-k": Sampling(1.0, 8),
    "top-p": Sampling(1.0, 0, 0.5),
    "both": Sampling(0.8, 8, 0.9),
    "greedy": Sampling(0.0),
}
NAMED = grid() | {
    "gate": rules.SP_entropy(3.0),
    "high gate": rules.Gated(3.0, gate="high_entropy"),
    "max-prob gate": rules.Gated(0.1, gate="max_prob"),
    "target's gate": rules.Gated(3.0, gate="target_entropy"),
    "random gate": rules.Gated(0.3, gate="random"),
    "accept all": rules.ACCEPT_ALL,
    "gated clip": rules.Gated(3.0, inner=rules.Clip(0.5)),
    "additive": rules.Additive(0.2),
    "ensemble": rules.Ensemble(0.3),
    "cactus": rules.Cactus(0.3),
    "equal price": rules.EqualPrice(1.5),
    "cascade": rules.Cascade(-0.3),
    "token cascade": rules.TokenCascade(0.8),
    "fuzzy": rules.Fuzzy(0.3),
    "FLy": rules.FLy(0.5),
    "MARS": rules.MARS(0.5),
    "margin": rules.EntropyAndMargin(3.0, 0.1),
    "oracle": rules.Oracle(0.3),
    "warped": rules.WarpedEntropy(1.0),
    "tightened": rules.Tightened(1.0, 1.0),
    "by class": rules.ByClass((0.0, 2.0, 4.0), bytes(n % 3 for n in range(WORDS))),
}


def read(sampling, spread=3.0):
    """A Reading of two random models that are not unlike each other, and tokens of the target's."""
    generator = torch.Generator().manual_seed(3)
    common = torch.randn(POSITIONS, WORDS, generator=generator) * spread
    scores = [common + torch.randn(POSITIONS, WORDS, generator=generator) for _ in range(2)]
    raw_q, raw_p = (score.softmax(-1) for score in scores)
    q, p = (sampling.warp(score) for score in scores)
    token = torch.multinomial(p, 1, generator=generator)[:, 0]
    columns = {"problem_id": "one", "position": range(POSITIONS), "token": token.tolist()}
    u = torch.rand(POSITIONS, 4, generator=generator)
    return Reading(pd.DataFrame(columns), u, raw_q, q, raw_p, p, scores[1].topk(2).values)


def numbers(seen, rule, p_y, q_y):
    found, o = reading.of_rule(rule, *seen, p_y, q_y)
    return found | reading._mixed_kl(seen[0], o)


@pytest.mark.parametrize("rule", NAMED.values(), ids=NAMED.keys())
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_few_tokens_give_the_numbers_of_all(sampling, rule):
    whole = read(sampling)
    token = torch.tensor(whole.frame.token.to_list())[:, None]
    p_y, q_y = (law.gather(-1, token)[:, 0] for law in (whole.p, whole.q))
    all_of_it = whole, whole.signals(), token
    few = reading.over_support(*all_of_it)
    assert few[0].p.shape[-1] < WORDS / 4
    there, here = (numbers(seen, rule, p_y, q_y) for seen in (all_of_it, few))
    for name in there:
        torch.testing.assert_close(here[name], there[name], rtol=1e-4, atol=1e-6)


def test_the_written_token_keeps_its_probabilities_even_where_no_model_gives_it_any():
    whole = read(SAMPLINGS["top-k"])
    token = torch.tensor(whole.frame.token.to_list())[:, None]
    token[5] = whole.raw_p[5].argmin()  # what rounding can leave: neither p nor q has it
    few, signals, place = reading.over_support(whole, whole.signals(), token)
    for law, full in ((few.p, whole.p), (few.q, whole.q)):
        torch.testing.assert_close(law.gather(-1, place), full.gather(-1, token), rtol=0, atol=0)
        torch.testing.assert_close(law.sum(-1), full.sum(-1))
    words = signals.laws.words
    assert words[5].gather(-1, place[5]) == token[5] and (words >= -1).all()


class Leaking(rules.Power):
    """A reader's own rule, whose residual gives something to every token."""


def test_rules_of_others_are_read_over_the_whole_vocabulary():
    assert all(map(rules.needs_support_alone, NAMED.values()))
    whole = [Leaking(0.5), rules.Gated(1.0, inner=Leaking(0.5))]
    assert not any(map(rules.needs_support_alone, whole))


def test_facts_of_laws_are_computed_once(monkeypatch):
    whole = read(SAMPLINGS["top-k"])
    token = torch.tensor(whole.frame.token.to_list())[:, None]
    few, signals, place = reading.over_support(whole, whole.signals(), token)
    times = []
    real = rules.signals.jsd
    monkeypatch.setattr(rules.signals, "jsd", lambda *laws: times.append(1) or real(*laws))
    p_y, q_y = (law.gather(-1, token)[:, 0] for law in (whole.p, whole.q))
    for T in (0.1, 0.2, 0.4):
        reading.of_rule(rules.Fuzzy(T), few, signals, place, p_y, q_y)
    assert len(times) == 1


def test_a_distribution_over_the_whole_vocabulary_is_read_whole():
    whole = read(Sampling(), spread=0.1)
    token = torch.tensor(whole.frame.token.to_list())[:, None]
    seen = (whole, whole.signals(), token)
    few, signals, place = reading.over_support(*seen)
    assert few.p is whole.p and few.q is whole.q and signals is seen[1]
    assert torch.equal(place, token)
