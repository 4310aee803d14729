"""Acceptance rules that every comparison rests on: powers, lenience, and two kinds of clip.

Sources: strict rule and residual, Leviathan et al. 2023 (arXiv 2211.17192) and Chen et al. 2023
(arXiv 2302.01318); lenience, Leviathan et al. 2023, appendix A.5; the least KL at a position for
what is accepted there, mentored decoding (Tran-Thien 2023, "An optimal lossy variant of speculative
decoding", huggingface.co/blog/vivien/optimal-lossy-variant-of-speculative-decoding), which bounds
the KL at each position.
"""

import math
from dataclasses import dataclass

import torch

from helpers.rules.distances import TINY, normalised
from helpers.rules.signals import known

STEPS = 60  # of a bisection: a level to the last bit


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
        return normalised((p - q).clamp(min=0), fallback=p)


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
    """Clip at a fixed level: lenience with the residual that makes o = clip(q, t2 p, p/l).

    Of all rules that accept as much at a position this one has the least KL(o||p) *there* (mentored
    decoding, Tran-Thien 2023). It is not the best for a given *mean* acceptance: see EqualPrice.

    t2 solves sum (t2 p - q)+ = sum (q - p/l)+, so tokens that the draft forgot are topped up only
    as far as the rejected mass reaches, instead of in proportion to (p - q)+.
    """

    def residual(self, p, q):
        """Replacement distribution norm((t2 p - q)+), shape (..., V)."""
        rejected = (q - p / self.lenience).clamp(min=0).sum(-1, keepdim=True)
        t2 = _water_level(p, q, rejected)
        return normalised((t2 * p - q).clamp(min=0), fallback=p)


@dataclass(frozen=True)
class EqualPrice:
    """The least mean KL(o||p) for as much *mean* acceptance: a clip with t1/t2 = ratio everywhere.

    At each position o = clip(q, t2 p, t1 p) with sum (q - t1 p)+ = R = sum (t2 p - q)+. To reject
    less there costs dKL/dR = -log(t1/t2) nats; were it cheaper at one position than at another,
    acceptance could be moved there, so at the optimum the price log(ratio) is the same everywhere.
    ratio 1 is strict; a large one accepts nearly every token that the target can produce. Mentored
    decoding (Tran-Thien 2023) solves the problem at one position, with a bound on the KL there.
    """

    ratio: float = 1.0
    looks_at = ("laws",)

    def __post_init__(self):
        if not 1 <= self.ratio < math.inf:
            raise ValueError(f"ratio was {self.ratio}; it must be a number of 1 (strict) or more")

    def accept_given(self, p_x, q_x, signals):
        """Acceptance probability min(1, t1 p/q) of drafted tokens; t1 comes from signals.laws."""
        laws = known(signals, "laws")
        t1 = laws.fact(self.upper_level(laws.p, laws.q)[..., 0])
        return (t1 * p_x / q_x.clamp(min=TINY)).clamp(max=1)

    def residual(self, p, q):
        """Replacement distribution norm((t2 p - q)+), shape (..., V)."""
        t2 = self.upper_level(p, q) / self.ratio
        return normalised((t2 * p - q).clamp(min=0), fallback=p)

    def upper_level(self, p, q):
        """t1 in [1, ratio] with sum (q - t1 p)+ = sum (t1/ratio p - q)+. (..., V) -> (..., 1).

        The left side falls with t1 and the right side rises; at t1 = 1 the left is the larger, at
        t1 = ratio the right.
        """
        low = torch.ones_like(p[..., :1])
        high = torch.full_like(low, self.ratio)
        for _ in range(STEPS):
            middle = (low + high) / 2
            above = (q - middle * p).clamp(min=0).sum(-1, keepdim=True)
            below = (middle / self.ratio * p - q).clamp(min=0).sum(-1, keepdim=True)
            low = torch.where(above > below, middle, low)
            high = torch.where(above > below, high, middle)
        return high


STRICT = Power(1.0)
SQRT = Power(0.5)
ACCEPT_ALL = Power(0.0)


def _water_level(p, q, mass):
    """t in [0, 1] with sum (t p - q)+ = mass, by bisection. (..., V), (..., 1) -> (..., 1)."""
    low = torch.zeros_like(mass)
    high = torch.ones_like(mass)
    for _ in range(STEPS):
        middle = (low + high) / 2
        too_much = (middle * p - q).clamp(min=0).sum(-1, keepdim=True) > mass
        low = torch.where(too_much, low, middle)
        high = torch.where(too_much, middle, high)
    return high
