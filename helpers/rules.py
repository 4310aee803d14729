"""Acceptance rules of speculative sampling, and what they do to the output distribution.

A rule is an acceptance probability a(x) for a drafted token, and a residual r to draw the
replacement from after a rejection. What comes out has the law o(x) = q(x) a(x) + R r(x), with
R = 1 - sum_x q(x) a(x). Everything here is a pure function of tensors: p (target) and q (draft)
are the warped distributions that are sampled from, shape (..., V); H_q is the entropy of the
draft's unwarped softmax, in nats.

A rule of one's own needs `accept(p_x, q_x)` and `residual(p, q)`; a gate of one's own needs
`open(signals)` and an `inner` rule (helpers/README.md has a recipe).

Sources: strict rule and residual, Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023
(arXiv 2302.01318); lenience, Leviathan et al. 2023, appendix A.5. That clipping has the least KL at
given acceptance is the water-filling argument in notebook 05.
"""

import math
from dataclasses import dataclass, field

import torch

TINY = 1e-38


@dataclass(frozen=True)
class Signals:
    """What a gate may look at, one value per tested position: each a tensor of the shape of p_x."""

    H_q: torch.Tensor  # entropy of the draft, nats, unwarped
    H_p: torch.Tensor | None = None  # entropy of the target, nats, unwarped
    max_q: torch.Tensor | None = None  # the draft's largest probability, unwarped
    u_gate: torch.Tensor | None = None  # a uniform that nothing else uses

    def each(self, function):
        """The same signals with `function` applied to every tensor that is there."""
        values = (self.H_q, self.H_p, self.max_q, self.u_gate)
        return Signals(*(None if value is None else function(value) for value in values))

    def at(self, row, slot):
        """The signals at one slot per row: (rows, slots) -> (rows,)."""
        return self.each(lambda value: value[row, slot])


@dataclass(frozen=True)
class Power:
    """a = min(1, (p/q)^beta): beta 1 is strict, 1/2 the square-root rule, 0 accepts everything."""

    beta: float = 1.0

    def __post_init__(self):
        if not 0 <= self.beta <= 1:
            raise ValueError(
                f"beta was {self.beta}; a power rule needs 0 (accept all) <= beta <= 1 (strict)"
            )

    def accept(self, p_x, q_x):
        """Acceptance probability of a drafted token; p_x, q_x of any one shape."""
        if self.beta == 0:
            return torch.ones_like(p_x)
        ratio = (p_x / q_x.clamp(min=TINY)).clamp(max=1)
        return ratio if self.beta == 1 else ratio.pow(self.beta)

    def residual(self, p, q):
        """Replacement after a rejection: norm((p - q)+), or p where p = q. (..., V) -> (..., V)."""
        return _normalised((p - q).clamp(min=0), fallback=p)


@dataclass(frozen=True)
class Lenience:
    """a = min(1, p / (l q)), 0 < l <= 1 (Leviathan et al. 2023, A.5); l = 1 is strict."""

    lenience: float = 1.0

    def __post_init__(self):
        if not 0 < self.lenience <= 1:
            raise ValueError(
                f"lenience was {self.lenience}; it must lie in (0, 1], and 1 is strict"
            )

    def accept(self, p_x, q_x):
        """Acceptance probability of a drafted token; p_x, q_x of any one shape."""
        return (p_x / (self.lenience * q_x).clamp(min=TINY)).clamp(max=1)

    residual = Power.residual


@dataclass(frozen=True)
class Clip(Lenience):
    """Lenience with the residual that makes o = clip(q, t2 p, p/l), p/l with l the lenience.

    Of all rules that accept as much at a position this one has the least KL(o||p) there.

    t2 solves sum (t2 p - q)+ = sum (q - p/l)+, so tokens that the draft forgot are topped up only
    as far as the rejected mass reaches, instead of in proportion to (p - q)+.
    """

    def residual(self, p, q):
        """Replacement distribution norm((t2 p - q)+), shape (..., V)."""
        rejected = (q - p / self.lenience).clamp(min=0).sum(-1, keepdim=True)
        t2 = _water_level(p, q, rejected)
        return _normalised((t2 * p - q).clamp(min=0), fallback=p)


STRICT = Power(1.0)
SQRT = Power(0.5)
ACCEPT_ALL = Power(0.0)
NOT_RELAXED = (STRICT, Lenience(1.0), Clip(1.0))
GATES = ("low_entropy", "high_entropy", "max_prob", "target_entropy", "random")


@dataclass(frozen=True)
class Gated:
    """`inner` where the gate is open, strict elsewhere.

    gate           open where
    low_entropy    H(q) <= tau   (SP_entropy; tau < 0 is strict, tau = inf is `inner` everywhere)
    high_entropy   H(q) > tau    (control: the opposite sign)
    target_entropy H(p) <= tau   (control: needs the target, so it cannot save a call)
    max_prob       max q >= tau  (control: confidence instead of entropy)
    random         u < tau       (control: same rule at random positions, tau is the rate)
    """

    tau: float
    inner: Power | Lenience | Clip = field(default=SQRT)
    gate: str = "low_entropy"

    def __post_init__(self):
        if math.isnan(self.tau):
            raise ValueError(
                "tau was NaN; it must be a number of nats "
                "(negative: strict, inf: relaxed everywhere)"
            )
        if self.gate not in GATES:
            raise ValueError(f"gate was {self.gate!r}; choose one of {', '.join(GATES)}")

    def open(self, signals: Signals):
        """Where the inner rule applies: bool, the shape of the signals."""
        match self.gate:
            case "low_entropy":
                return signals.H_q <= self.tau
            case "high_entropy":
                return signals.H_q > self.tau
            case "target_entropy":
                return signals.H_p <= self.tau
            case "max_prob":
                return signals.max_q >= self.tau
            case "random":
                return signals.u_gate < self.tau


Rule = Power | Lenience | Clip | Gated


def SP_entropy(tau: float, beta: float = 0.5) -> Gated:
    """The rule under test: min(1, (p/q)^beta) where H(q) <= tau nats, strict elsewhere."""
    return Gated(tau, Power(beta))


def is_gated(rule):
    """Whether a rule is an inner rule where a gate is open and strict elsewhere."""
    return hasattr(rule, "open")


def needs_target(rule):
    """Whether a rule's gate looks at the target's entropy; one of the reader's own may."""
    if isinstance(rule, Gated):
        return rule.gate == "target_entropy"
    return is_gated(rule)


def is_open(rule: Rule, signals: Signals):
    """Where `rule` departs from strict: bool, the shape of the signals."""
    if is_gated(rule):
        return rule.open(signals)
    return torch.full_like(signals.H_q, rule not in NOT_RELAXED, dtype=torch.bool)


def accept_prob(rule: Rule, p_x, q_x, signals: Signals):
    """a(x) for drafted tokens, in [0, 1]; p_x, q_x and the signals share one shape."""
    if not is_gated(rule):
        return rule.accept(p_x, q_x)
    return torch.where(rule.open(signals), rule.inner.accept(p_x, q_x), STRICT.accept(p_x, q_x))


def residual(rule: Rule, p, q, signals: Signals):
    """r of a rejected position, summing to 1. p, q (..., V), signals (...) -> (..., V)."""
    if not is_gated(rule):
        return rule.residual(p, q)
    standard = STRICT.residual(p, q)
    if type(rule.inner).residual is Power.residual:
        return standard
    return torch.where(rule.open(signals)[..., None], rule.inner.residual(p, q), standard)


def output_distribution(rule: Rule, p, q, signals: Signals):
    """o(x) = q a + R r, what one speculative step really samples from, and R. (..., V), (...)."""
    wide = signals.each(lambda value: value[..., None].expand_as(p))
    kept = q * accept_prob(rule, p, q, wide)
    rejected = (1 - kept.sum(-1)).clamp(min=0)
    return kept + rejected[..., None] * residual(rule, p, q, signals), rejected


def entropy(probs):
    """Shannon entropy in nats over the last axis. (..., V) -> (...)."""
    return -torch.special.xlogy(probs, probs).sum(-1)


def tv(a, b):
    """Total variation distance over the last axis, in [0, 1]. (..., V) -> (...)."""
    return 0.5 * (a - b).abs().sum(-1)


def kl(a, b):
    """KL(a || b) in nats over the last axis, (..., V) -> (...); inf where only a has mass."""
    return (torch.special.xlogy(a, a) - torch.special.xlogy(a, b)).sum(-1)


def overshoot(o, p):
    """max_x o(x)/p(x) over tokens that o can produce: the most inflated one. (..., V) -> (...)."""
    return torch.where(o > 0, o / p.clamp(min=TINY), torch.zeros_like(o)).amax(-1)


def _normalised(mass, fallback):
    """Divide by the sum over the last axis; where nothing is left (p = q) return `fallback`."""
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total.clamp(min=TINY), fallback)


def _water_level(p, q, mass):
    """t in [0, 1] with sum (t p - q)+ = mass, by bisection. (..., V), (..., 1) -> (..., 1)."""
    low = torch.zeros_like(mass)
    high = torch.ones_like(mass)
    for _ in range(60):
        middle = (low + high) / 2
        too_much = (middle * p - q).clamp(min=0).sum(-1, keepdim=True) > mass
        low = torch.where(too_much, low, middle)
        high = torch.where(too_much, middle, high)
    return high
