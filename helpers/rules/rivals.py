"""The field's other lossy rules, as rules and gates of the same frame.

Each says its source and, where its residual is not norm((p - q)+), its own. What comes out of any
of them is computed, never assumed: `rules.output_distribution`. Letters are this project's: p is
the target's distribution, q the draft's (several of the papers have them the other way round).
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from helpers.rules.basic import ACCEPT_ALL, STRICT, Power
from helpers.rules.distances import TINY, normalised
from helpers.rules.gates import Gated, refuse_nan
from helpers.rules.signals import known

# ---- rules -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Additive:
    """The pilot's additive rule, a = min(1, p/q + b); b = 0 is strict, the pilot's b is 0.5.

    Source: the pilot's public code. (Its residual, norm((p - q)+), is clamped at 1e-9 per entry
    there, which leaks mass to every token; not here.)
    """

    b: float = 0.5

    def __post_init__(self):
        if not 0 <= self.b <= 1:
            raise ValueError(f"b was {self.b}; it must lie in [0, 1], and 0 is strict")

    def accept(self, p_x, q_x):
        """Acceptance probability of a drafted token; p_x, q_x of any one shape."""
        return (p_x / q_x.clamp(min=TINY) + self.b).clamp(max=1)

    residual = Power.residual


@dataclass(frozen=True)
class Ensemble:
    """Strict against the mixture (1 - w) p + w q, so o is that mixture; w = 0 is strict.

    Source: the static ensemble of DIVERSED (Wang et al. 2026, arXiv 2604.07622), which also learns
    w from the context; that needs training and is not here. As mixture - q = (1 - w) (p - q), the
    residual norm((mixture - q)+) is norm((p - q)+).
    """

    w: float = 0.1

    def __post_init__(self):
        if not 0 <= self.w <= 1:
            raise ValueError(f"w was {self.w}; the draft's weight must lie in [0, 1]")

    def accept(self, p_x, q_x):
        """Acceptance probability of a drafted token; p_x, q_x of any one shape."""
        return (((1 - self.w) * p_x + self.w * q_x) / q_x.clamp(min=TINY)).clamp(max=1)

    residual = Power.residual


@dataclass(frozen=True)
class Cactus:
    """a = min(1, h/q) with h = p + sqrt(2 delta p (1 - p)), the most that a KL budget leaves x.

    Source: Cactus (Hao and Mou 2026, arXiv 2604.04987) and its code, github.com/MANGA-UOFA/Cactus,
    cactus/cactus.py: given the drafted token n, the target is replaced by h_n at n and by
    s_n p, s_n = (1 - h_n) / (1 - p_n), elsewhere, and strict verifies against that; delta = 0 is
    strict. So the residual depends on the token that was rejected. The token is thrown away, and
    only the residual's mean over all rejected tokens, with weights (q_n - h_n)+, reaches the
    output: that mean is what is sampled from here. Where n is rejected, h_n < q_n, so
    r_n = norm((s_n p - q)+), without n.

    The budget is delta for each drafted token, not for the output law: its KL may be larger.
    """

    delta: float = 0.1

    def __post_init__(self):
        if not self.delta >= 0:
            raise ValueError(f"delta was {self.delta}; it must be a number of nats, 0 (strict) up")

    def accept(self, p_x, q_x):
        """Acceptance probability of a drafted token; p_x, q_x of any one shape."""
        return (self.raised(p_x) / q_x.clamp(min=TINY)).clamp(max=1)

    def raised(self, p):
        """h, the target's probability of a token as its budget raises it; any shape."""
        return (p + (2 * self.delta * p * (1 - p)).clamp(min=0).sqrt()).clamp(max=1)

    def residual(self, p, q):
        """The mean of the residuals of all tokens that may be rejected. (..., V) -> (..., V).

        sum_n w_n (s_n p - q)+ / Z_n with Z_n = sum_x (s_n p - q)+. Token x gains from n where
        s_n > q/p at x, so both sums run over tokens in the order of q/p: V log V steps.
        """
        kept_type = p.dtype
        p, q = p.double(), q.double()  # differences of long sums
        h = self.raised(p)
        w = (q - h).clamp(min=0)
        s = ((1 - h) / (1 - p).clamp(min=TINY)).clamp(max=1)
        floor = q / p.clamp(min=TINY)  # x gains where s_n exceeds it

        order = floor.argsort(-1)
        ranked = floor.gather(-1, order).contiguous()
        p_below = _sums_before(p.gather(-1, order))
        q_below = _sums_before(q.gather(-1, order))
        gaining = torch.searchsorted(ranked, s.contiguous())  # how many tokens gain from n
        Z = (s * p_below.gather(-1, gaining) - q_below.gather(-1, gaining)).clamp(min=TINY)
        share = torch.where(w > 0, w / Z, 0.0)

        by_s = s.argsort(-1)
        s_ranked = s.gather(-1, by_s).contiguous()
        share = share.gather(-1, by_s)
        from_p = _sums_before(share * s_ranked)
        from_q = _sums_before(share)
        first = torch.searchsorted(s_ranked, floor.contiguous(), right=True)  # the first s_n above
        above_p = from_p[..., -1:] - from_p.gather(-1, first)
        above_q = from_q[..., -1:] - from_q.gather(-1, first)
        return normalised((p * above_p - q * above_q).clamp(min=0), fallback=p).to(kept_type)


def _sums_before(values):
    """Sums of the first 0, 1, ..., V values. (..., V) -> (..., V + 1)."""
    return torch.nn.functional.pad(values.cumsum(-1), (1, 0))


@dataclass(frozen=True)
class TokenCascade:
    """The token-specific cascade: drafted tokens that the target likes enough stay as they are.

    Strict against pi = q on the tokens with p >= (1 - alpha) max p, plus what q has elsewhere times
    p; so o is pi. Source: Narasimhan et al. 2024 (arXiv 2405.19261), the rule Token-v3, equation
    15, and github.com/google-research/google-research, speculative_cascades. The set of tokens is
    taken from the warped p. alpha = 0 keeps the target's first token alone.
    """

    alpha: float = 0.5

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha was {self.alpha}; it must lie in [0, 1]")

    looks_at = ("laws",)

    def accept_given(self, p_x, q_x, signals):
        """Acceptance probability min(1, pi/q) of drafted tokens; the rest of pi from the laws."""
        laws = known(signals, "laws")
        best = laws.fact(laws.p.amax(-1))
        elsewhere = laws.fact(self.elsewhere(laws.p, laws.q))
        pi = torch.where(p_x >= (1 - self.alpha) * best, q_x, 0.0) + elsewhere * p_x
        return (pi / q_x.clamp(min=TINY)).clamp(max=1)

    def residual(self, p, q):
        """Replacement distribution norm((pi - q)+), shape (..., V)."""
        pi = torch.where(self.kept(p), q, 0.0) + self.elsewhere(p, q)[..., None] * p
        return normalised((pi - q).clamp(min=0), fallback=p)

    def kept(self, p):
        """The tokens that stay as drafted: bool (..., V)."""
        return p >= (1 - self.alpha) * p.amax(-1, keepdim=True)

    def elsewhere(self, p, q):
        """The draft's probability of all other tokens. (..., V) -> (...)."""
        return torch.where(self.kept(p), 0.0, q).sum(-1)


@dataclass(frozen=True)
class MARS:
    """Accept the target's second token too, where its score is over theta of the first's.

    Elsewhere strict. The one rule here that does something at temperature 0, where strict takes the
    target's first token alone. Source: MARS (Song et al. 2026, arXiv 2601.15498): greedy, the
    target's first token is accepted, the second where z2/z1 > theta (0.9 in the paper), z the
    scores before the softmax; the ratio is not the probabilities' and changes when all scores are
    shifted. At a temperature above 0 the exact match becomes the strict test here; how the paper
    does that could not be read. theta of 1 or more is strict where scores are positive.
    """

    theta: float = 0.9
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.theta)

    def accept_given(self, p_x, q_x, signals):
        """Acceptance probability of drafted tokens, signals.laws.token."""
        laws = known(signals, "laws")
        near = laws.score_ratio > self.theta
        second = known(laws, "token") == laws.runner_up
        return torch.where(near & second, 1.0, STRICT.accept(p_x, q_x))

    residual = Power.residual


@dataclass(frozen=True)
class Supported:
    """Accept every token that the target can produce, p > 0, and none that it cannot."""

    def accept(self, p_x, q_x):
        """1 or 0; p_x, q_x of any one shape."""
        return (p_x > 0).to(p_x.dtype)

    residual = Power.residual


@dataclass(frozen=True)
class FromTarget:
    """Accept nothing and draw from p itself: the position costs a call, and o is p.

    Its residual is p: norm((p - q)+), which is right after the strict test, would emit that instead
    of p.
    """

    def accept(self, p_x, q_x):
        """0; p_x, q_x of any one shape."""
        return torch.zeros_like(p_x)

    def residual(self, p, q):
        """p, (..., V)."""
        return p


# ---- gates -------------------------------------------------------------------------------------


def chow(alpha):
    """Chow's deferral rule: q itself where max q >= 1 - alpha, strict elsewhere.

    Source: Narasimhan et al. 2024 (arXiv 2405.19261), equation 2. It is a gate of accept-all.
    """
    return Gated(1 - alpha, ACCEPT_ALL, "max_prob")


@dataclass(frozen=True)
class Cascade:
    """Speculative cascade [OPT]: q itself, unless max q < max p - alpha TV(p, q): then strict.

    Where it does not defer to the target, o is q, elsewhere p: a gate of accept-all that sees the
    target. Source: Narasimhan et al. 2024 (arXiv 2405.19261), equation 10; as in their code the
    largest probabilities are unwarped and TV is of the warped distributions. A large negative alpha
    always defers, so it is strict.
    """

    alpha: float = 0.0
    inner: Any = field(default=ACCEPT_ALL)
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.alpha)

    def open(self, signals):
        laws = known(signals, "laws")
        return laws.max_q >= laws.max_p - self.alpha * laws.tv


@dataclass(frozen=True)
class Fuzzy:
    """Fuzzy speculative decoding: every token accepted where JSD(p, q) <= T, none elsewhere.

    Where it rejects, the replacement is drawn from p itself, so o is q or p; strict there would
    emit p too, and accept more. Source: Holsman et al. 2025 (arXiv 2502.20704) and their code,
    github.com/maxholsman/fsd: a threshold on the divergence of the unwarped distributions, no coin.
    """

    T: float = 0.1
    inner: Any = field(default=ACCEPT_ALL)
    outside: Any = field(default=FromTarget())
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.T)

    def open(self, signals):
        return known(signals, "laws").jsd <= self.T


@dataclass(frozen=True)
class FLy:
    """FLy's gate: where the target's top-3 entropy is >= threshold, any token it can produce.

    Source: FLy (Li et al. 2025, arXiv 2511.22972), its code github.com/AMD-AGI/FLy and the vLLM
    pull request 50808: a native rejection is overruled where the entropy of the three largest
    probabilities (not divided by their sum) reaches a threshold, the token has p > 0, *and* the
    next `window` drafts are all accepted natively. With window = 0 that is this gate, and its law
    is known position by position. With a window, whether x stays depends on drafts after x, so
    there is no a(x) of the position: `look_ahead` carries it out in decoding, and no output law per
    position exists (what is computed and traced is that of window 0, which relaxes more).
    """

    threshold: float = 0.3
    window: int = 0
    inner: Any = field(default=Supported())
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.threshold)
        if not (isinstance(self.window, int) and self.window >= 0):
            raise ValueError(f"window was {self.window!r}; it must be a whole number, 0 or more")

    def open(self, signals):
        return known(signals, "laws").top3_entropy_p >= self.threshold

    def look_ahead(self, relaxed, native, inside):
        """Which slots of a block stay, bool (rows, g), given both tests' answers at every slot.

        relaxed: the gated test's; native: strict's, by the same uniforms; inside: drafted slots.
        """
        followed = inside
        for ahead in range(1, self.window + 1):
            later = torch.zeros_like(native)
            later[:, :-ahead] = (native & inside)[:, ahead:]
            followed = followed & later
        return native | (relaxed & followed)


@dataclass(frozen=True)
class Tightened:
    """The opposite hypothesis: where both models are unsure, the target writes the token itself.

    Where H(q) > tau_q, H(p) > tau_p and at least `overlap` of their n likeliest tokens are shared,
    the draft's token is rejected and replaced from p; strict elsewhere. Source: EASD (Su et al.
    2025, arXiv 2512.23765), of which the abstract could be read: "rejected and re-sampled by the
    target". Re-sampling from p leaves o = p everywhere, so this changes no text's law and only
    costs calls; what EASD gains in accuracy must come from another re-sampling, not read here.
    """

    tau_q: float
    tau_p: float
    overlap: float = 0.8
    n: int = 5
    inner: Any = field(default=FromTarget())
    looks_at = ("target", "laws")

    def __post_init__(self):
        refuse_nan(self.tau_q)
        refuse_nan(self.tau_p)

    def open(self, signals):
        unsure = (signals.H_q > self.tau_q) & (known(signals, "H_p") > self.tau_p)
        return unsure & (known(signals, "laws").overlap(self.n) >= self.overlap)
