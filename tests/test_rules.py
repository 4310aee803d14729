"""Closed forms of the acceptance rules."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import torch

from helpers import rules
from helpers.rules import Clip, Gated, Lenience, Power, Signals, SP_entropy

torch.manual_seed(0)
P, Q = (torch.randn(200, 7, dtype=torch.float64).mul(2).softmax(-1) for _ in range(2))
SIGNALS = Signals(
    rules.entropy(Q), rules.entropy(P), Q.amax(-1), torch.rand(200, dtype=torch.float64)
)
RELAXED = [
    Power(0.5),
    Power(0.0),
    Power(0.8),
    Lenience(0.4),
    SP_entropy(1.2),
    SP_entropy(math.inf),
    Gated(0.5, Power(0), "random"),
    Gated(1.0, Power(0.5), "high_entropy"),
    Gated(0.5, Power(0.5), "max_prob"),
    Gated(1.0, Power(0.5), "target_entropy"),
]


def test_strict_output_is_the_target():
    o, R = rules.output_distribution(rules.STRICT, P, Q, SIGNALS)
    assert torch.allclose(o, P, atol=1e-12)
    assert torch.allclose(R, rules.tv(P, Q), atol=1e-12)


@pytest.mark.parametrize("rule", RELAXED, ids=str)
def test_tv_is_delta_minus_rejection(rule):
    """Every relaxed rule with the standard residual lies on TV = delta - R."""
    o, R = rules.output_distribution(rule, P, Q, SIGNALS)
    assert torch.allclose(o.sum(-1), torch.ones(200, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rules.tv(o, P), rules.tv(P, Q) - R, atol=1e-12)


@pytest.mark.parametrize("rule", RELAXED[:5], ids=str)
def test_expected_rescues_are_the_damage(rule):
    """E[rescues per tested position] = sum q (a - strict a) = TV(o, p)."""
    wide = Signals(SIGNALS.H_q[:, None].expand_as(P))
    rescues = (Q * (rules.accept_prob(rule, P, Q, wide) - rules.STRICT.accept(P, Q))).sum(-1)
    assert torch.allclose(
        rescues, rules.tv(rules.output_distribution(rule, P, Q, SIGNALS)[0], P), atol=1e-12
    )


def test_square_root_closed_form():
    o, _ = rules.output_distribution(Power(0.5), P, Q, SIGNALS)
    low = P < Q
    assert torch.allclose(o[low], (P * Q).sqrt()[low], atol=1e-12)
    assert rules.overshoot(o, P).max() > 1.5


def test_a_wrong_residual_is_noticed():
    """A mutant with residual p leaves the line, so the test above can fail."""
    kept = Q * Power(0.5).accept(P, Q)
    o = kept + (1 - kept.sum(-1, keepdim=True)) * P
    assert not torch.allclose(rules.tv(o, P), rules.tv(P, Q) - (1 - kept.sum(-1)), atol=1e-3)


def test_gate_limits():
    shut, open_ = SP_entropy(-1.0), SP_entropy(math.inf)
    assert torch.equal(
        rules.accept_prob(shut, P[:, 0], Q[:, 0], SIGNALS), rules.STRICT.accept(P[:, 0], Q[:, 0])
    )
    assert torch.equal(
        rules.accept_prob(open_, P[:, 0], Q[:, 0], SIGNALS), Power(0.5).accept(P[:, 0], Q[:, 0])
    )
    assert not rules.is_open(shut, SIGNALS).any() and rules.is_open(open_, SIGNALS).all()
    assert (
        not rules.is_open(rules.STRICT, SIGNALS).any()
        and rules.is_open(Lenience(0.5), SIGNALS).all()
    )


def test_equal_distributions_cannot_be_rejected():
    """Empty residual: p = q accepts everything, and the residual falls back to p."""
    o, R = rules.output_distribution(rules.STRICT, P, P, SIGNALS)
    assert R.max() < 1e-12 and torch.allclose(o, P)
    assert torch.equal(rules.STRICT.residual(P, P), P)


@pytest.mark.parametrize("lenience", [0.9, 0.5, 0.2])
def test_the_clip_has_the_least_kl_that_an_optimiser_finds(lenience):
    """scipy minimises KL(k + s || p) over what is kept, k <= q with sum 1 - R, and added, s."""
    o, rejected = rules.output_distribution(Clip(lenience), P, Q, SIGNALS)
    ours = rules.kl(o, P)
    for i in range(8):
        p, q, R = P[i].numpy(), Q[i].numpy(), rejected[i].item()
        n = len(p)

        def kl_of(parts, p=p, n=n):
            mass = np.clip(parts[:n] + parts[n:], 1e-12, None)
            return (mass * np.log(mass / p)).sum()

        start = np.concatenate([q * (1 - R), p * R])
        best = scipy.optimize.minimize(
            kl_of,
            start,
            method="SLSQP",
            bounds=[*((0, x) for x in q), *((0, 1) for _ in q)],
            constraints=[
                {"type": "eq", "fun": lambda parts, n=n, R=R: parts[:n].sum() - (1 - R)},
                {"type": "eq", "fun": lambda parts, n=n, R=R: parts[n:].sum() - R},
            ],
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert best.success
        assert ours[i].item() == pytest.approx(best.fun, abs=1e-5)
    # and another rule has more: the test can fail
    other, _ = rules.output_distribution(Lenience(lenience), P, Q, SIGNALS)
    assert (rules.kl(other, P) - ours).max() > 1e-4


@dataclass(frozen=True)
class KeepsHalf:
    """A rule of one's own: accepts half of what strict accepts, and replaces from p itself."""

    def accept(self, p_x, q_x):
        return (p_x / q_x).clamp(max=1) / 2

    def residual(self, p, q):
        return p


def test_a_gate_uses_the_residual_of_a_rule_of_ones_own():
    """Inside the open gate o = q a + R p with the rule's own a; outside it is strict: o = p."""
    gated = Gated(1.2, KeepsHalf())
    o, _ = rules.output_distribution(gated, P, Q, SIGNALS)
    inside = SIGNALS.H_q <= 1.2
    kept = torch.minimum(P, Q) / 2
    by_hand = kept + (1 - kept.sum(-1, keepdim=True)) * P
    assert inside.any() and (~inside).any()
    assert torch.allclose(o[inside], by_hand[inside], atol=1e-12)
    assert torch.allclose(o[~inside], P[~inside], atol=1e-12)
    assert not torch.allclose(o[inside], P[inside], atol=1e-3)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: SP_entropy(math.nan), "NaN"),
        (lambda: Power(1.5), "beta"),
        (lambda: Lenience(0), "lenience"),
        (lambda: Gated(1.0, gate="moon"), "low_entropy"),
    ],
)
def test_bad_rules_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
