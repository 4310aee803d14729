"""A rule at work: acceptance, residual, and the law of what comes out, all coins summed out."""

import torch

from helpers.rules.basic import STRICT, Clip, EqualPrice, Lenience
from helpers.rules.gates import Gated, has_standard_residual, is_gated, outside
from helpers.rules.rivals import Additive, Cactus, Ensemble

NOT_RELAXED = (
    STRICT,
    Lenience(1.0),
    Clip(1.0),
    EqualPrice(1.0),
    Additive(0.0),
    Ensemble(0.0),
    Cactus(0.0),
)


def is_open(rule, signals):
    """Where `rule` departs from strict: bool, the shape of the signals."""
    if is_gated(rule):
        return rule.open(signals)
    return torch.full_like(signals.H_q, rule not in NOT_RELAXED, dtype=torch.bool)


def accept_prob(rule, p_x, q_x, signals):
    """a(x) for drafted tokens, in [0, 1]; p_x, q_x and the signals share one shape."""
    if is_gated(rule):
        inside = accept_prob(rule.inner, p_x, q_x, signals)
        return torch.where(
            rule.open(signals), inside, accept_prob(outside(rule), p_x, q_x, signals)
        )
    if hasattr(rule, "accept_given"):
        return rule.accept_given(p_x, q_x, signals)
    return rule.accept(p_x, q_x)


def mean_accept_prob(rule, p_x, q_x, signals):
    """a(x) with the coin of a random gate summed out; otherwise `accept_prob`."""
    if not _is_random(rule):
        return accept_prob(rule, p_x, q_x, signals)
    relaxed = accept_prob(rule.inner, p_x, q_x, signals)
    return torch.lerp(accept_prob(STRICT, p_x, q_x, signals), relaxed, _rate(rule))


def residual(rule, p, q, signals):
    """r of a rejected position, summing to 1. p, q (..., V), signals (...) -> (..., V)."""
    if not is_gated(rule):
        return rule.residual(p, q)
    closed = outside(rule).residual(p, q)
    if has_standard_residual(rule.inner) and has_standard_residual(outside(rule)):
        return closed
    return torch.where(rule.open(signals)[..., None], rule.inner.residual(p, q), closed)


def output_distribution(rule, p, q, signals):
    """o(x), what one speculative step really samples from, and R. (..., V), (...).

    o = q a + R r. A random gate emits the mixture of strict's and its inner rule's laws: its coin
    is summed out, in R too.
    """
    if _is_random(rule):
        relaxed, rejected = output_distribution(rule.inner, p, q, signals)
        _, strict_rejected = output_distribution(STRICT, p, q, signals)
        # p + rate (o - p), as strict emits p
        mixture = torch.lerp(p, relaxed, _rate(rule))
        return mixture, torch.lerp(strict_rejected, rejected, _rate(rule))
    kept = q * accept_prob(rule, p, q, signals.beside(p, q))
    rejected = (1 - kept.sum(-1)).clamp(min=0)
    return kept + rejected[..., None] * residual(rule, p, q, signals), rejected


def _is_random(rule):
    return isinstance(rule, Gated) and rule.gate == "random"


def _rate(rule):
    """The share of positions at which a random gate is open."""
    return min(max(rule.tau, 0.0), 1.0)
