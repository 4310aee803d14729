"""Acceptance rules of speculative sampling, and what they do to the output distribution.

A rule is an acceptance probability a(x) for a drafted token, and a residual r to draw the
replacement from after a rejection. What comes out has the law o(x) = q(x) a(x) + R r(x), with
R = 1 - sum_x q(x) a(x). Everything here is a pure function of tensors: p (target) and q (draft)
are the warped distributions that are sampled from, shape (..., V); H_q is the entropy of the
draft's unwarped softmax, in nats.

A rule of one's own needs `accept(p_x, q_x)` and `residual(p, q)`, a gate of one's own
`open(signals)` and an `inner` rule (helpers/README.md has a recipe). A rule that looks at more than
the token's two probabilities has `accept_given(p_x, q_x, signals)` in place of `accept`.
"""

from helpers.rules.basic import (
    ACCEPT_ALL,
    SQRT,
    STRICT,
    Clip,
    EqualPrice,
    Lenience,
    Power,
)
from helpers.rules.distances import TINY, entropy, jsd, kl, overshoot, tv
from helpers.rules.gates import (
    GATES,
    ByClass,
    EntropyAndMargin,
    Gated,
    Growing,
    Learned,
    Oracle,
    SP_entropy,
    Spike,
    WarpedEntropy,
    is_gated,
    looks_at,
    outside,
    per_temperature,
    token_classes,
)
from helpers.rules.law import (
    NOT_RELAXED,
    accept_prob,
    is_open,
    mean_accept_prob,
    output_distribution,
    residual,
)
from helpers.rules.rivals import (
    MARS,
    Additive,
    Cactus,
    Cascade,
    Ensemble,
    FLy,
    FromTarget,
    Fuzzy,
    Supported,
    Tightened,
    TokenCascade,
    chow,
)
from helpers.rules.signals import NO_TOKEN, RECENT, Laws, Signals, recent
from helpers.rules.support import needs_support_alone, on_support

Rule = Power | Lenience | Clip | EqualPrice | Gated
