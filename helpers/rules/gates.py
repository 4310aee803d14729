"""Gates: an inner rule where something is seen in the signals, strict elsewhere.

A gate has `open(signals)` and an `inner` rule; `looks_at` names what decoding has to keep for it:
"target" (H_p), "laws", "history" (H_recent). A gate of the reader's own that names nothing gets all
of them. Where a gate has an `outside` rule, that one stands in for strict where it is closed.

Whatever a gate looks at before the token is drawn leaves the rule's output law what it is per
position. A gate may also look at the drafted token, because the law is computed with a(x) as it is.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from helpers.rules.basic import SQRT, STRICT, Clip, EqualPrice, Lenience, Power
from helpers.rules.signals import known

GATES = (
    "low_entropy",
    "high_entropy",
    "max_prob",
    "target_entropy",
    "high_target_entropy",
    "random",
)
OF_THE_TARGET = ("target_entropy", "high_target_entropy")


@dataclass(frozen=True)
class Gated:
    """`inner` where the gate is open, strict elsewhere.

    gate                 open where
    low_entropy          H(q) <= tau  (SP_entropy; tau < 0 is strict, tau = inf `inner` everywhere)
    high_entropy         H(q) > tau   (control: the opposite sign)
    target_entropy       H(p) <= tau  (control: needs the target, so it cannot save a call)
    high_target_entropy  H(p) > tau   (where FLy, EARS and typical acceptance relax)
    max_prob             max q >= tau (control: confidence instead of entropy)
    random               u < tau      (control: same rule at random positions, tau is the rate)
    """

    tau: float
    inner: Power | Lenience | Clip | EqualPrice = field(default=SQRT)
    gate: str = "low_entropy"

    def __post_init__(self):
        refuse_nan(self.tau)
        if self.gate not in GATES:
            raise ValueError(f"gate was {self.gate!r}; choose one of {', '.join(GATES)}")

    @property
    def looks_at(self):
        return ("target",) if self.gate in OF_THE_TARGET else ()

    def open(self, signals):
        """Where the inner rule applies: bool, the shape of the signals."""
        match self.gate:
            case "low_entropy":
                return signals.H_q <= self.tau
            case "high_entropy":
                return signals.H_q > self.tau
            case "target_entropy":
                return signals.H_p <= self.tau
            case "high_target_entropy":
                return signals.H_p > self.tau
            case "max_prob":
                return signals.max_q >= self.tau
            case "random":
                return signals.u_gate < self.tau


def SP_entropy(tau: float, beta: float = 0.5) -> Gated:
    """The rule under test: min(1, (p/q)^beta) where H(q) <= tau nats, strict elsewhere."""
    return Gated(tau, Power(beta))


def refuse_nan(tau):
    """A ValueError where tau is no number."""
    if math.isnan(tau):
        raise ValueError(
            "tau was NaN; it must be a number of nats (negative: strict, inf: relaxed everywhere)"
        )


# ---- thresholds that adapt ---------------------------------------------------------------------


@dataclass(frozen=True)
class Spike:
    """Closed at a relative spike, H(q) > mean + k sd of the last five entropies; open elsewhere.

    The five are those of the positions before, as far as the draft has computed them: it computes
    none where the target adds a bonus token. Where fewer than two are known nothing can be called a
    spike, and the gate is open. A later proposal of the pilot's.
    """

    k: float = 1.0
    inner: Any = SQRT
    looks_at = ("history",)

    def __post_init__(self):
        refuse_nan(self.k)

    def open(self, signals):
        before = known(signals, "H_recent")
        there = ~before.isnan()
        count = there.sum(-1)
        values = before.nan_to_num(0.0)
        mean = values.sum(-1) / count.clamp(min=1)
        squares = torch.where(there, (values - mean[..., None]) ** 2, 0.0)
        sd = (squares.sum(-1) / count.clamp(min=1)).sqrt()
        return (signals.H_q <= mean + self.k * sd) | (count < 2)


@dataclass(frozen=True)
class EntropyAndMargin:
    """Open where H(q) <= tau and the draft's largest probability leads by `margin` or more."""

    tau: float
    margin: float = 0.5
    inner: Any = SQRT
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.tau)

    def open(self, signals):
        return (signals.H_q <= self.tau) & (known(signals, "laws").margin_q >= self.margin)


@dataclass(frozen=True)
class Growing:
    """Open where H(q) <= tau + slope * position: an answer's end is trusted more than its start.

    slope: nats per token; negative, the gate closes as the answer grows.
    """

    tau: float
    slope: float = 0.01
    inner: Any = SQRT
    looks_at = ()

    def __post_init__(self):
        refuse_nan(self.tau)

    def open(self, signals):
        return signals.H_q <= self.tau + self.slope * known(signals, "position")


NUMBER, PUNCTUATION, WORD = range(3)  # classes of tokens


@dataclass(frozen=True)
class ByClass:
    """Open where H(q) <= the tau of a token's class: number, punctuation, word (anything else).

    classes: one byte per token of the vocabulary, `token_classes`. of "previous": the class of the
    token before, which is known when the draft speaks; before the first token of an answer the tau
    of words holds. of "drafted": the class of the token under test. Then the acceptance depends on
    x, which changes the output law at the position, not only where it is relaxed: o is computed
    with that a(x). As a >= min(1, p/q) still, the residual stays norm((p - q)+), and so the inner
    rule must have that residual.
    """

    taus: tuple
    classes: bytes
    of: str = "previous"
    inner: Any = SQRT

    def __post_init__(self):
        if len(self.taus) != 3 or any(math.isnan(tau) for tau in self.taus):
            raise ValueError(f"taus were {self.taus}; give three, of numbers, punctuation, words")
        if self.of not in ("previous", "drafted"):
            raise ValueError(f"of was {self.of!r}; choose previous or drafted")
        if self.of == "drafted" and not has_standard_residual(self.inner):
            raise ValueError(
                f"the inner rule was {self.inner!r}; a gate that looks at the drafted token needs "
                "one with the residual norm((p - q)+), such as a Power or a Lenience"
            )

    @property
    def looks_at(self):
        return ("laws",) if self.of == "drafted" else ()

    def open(self, signals):
        if self.of == "drafted":
            token = known(known(signals, "laws"), "token")
        else:
            token = known(signals, "previous")
        device = token.device
        kind = torch.frombuffer(bytearray(self.classes), dtype=torch.uint8).to(device).long()
        # No token before is looked up as the first one, and then given the tau of words.
        kind = torch.where(token < 0, WORD, kind[token.clamp(min=0)])
        taus = torch.tensor(self.taus, dtype=signals.H_q.dtype, device=device)
        return signals.H_q <= taus[kind]


def token_classes(texts):
    """The class of every token, from its text in the order of ids: bytes for ByClass."""
    classes = bytearray()
    for text in texts:
        letters = text.strip()
        if letters and all(letter.isdigit() for letter in letters):
            classes.append(NUMBER)
        elif letters and not any(letter.isalnum() for letter in letters):
            classes.append(PUNCTUATION)
        else:
            classes.append(WORD)
    return bytes(classes)


def per_temperature(tau, temperature, inner=SQRT):
    """The gate H(q)/T <= tau as a Gated: at one temperature it is the low-entropy gate at tau T."""
    return Gated(tau * temperature, inner)


@dataclass(frozen=True)
class WarpedEntropy:
    """Open where the entropy of the *warped* q, after temperature, top-k and top-p, is <= tau.

    What the pilot's code takes; all other gates take the unwarped one, so that tau means the same
    at every temperature.
    """

    tau: float
    inner: Any = SQRT
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.tau)

    def open(self, signals):
        return known(signals, "laws").H_warped <= self.tau


# ---- upper bounds ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Oracle:
    """Open where TV(p, q) <= tau: the gate that sees what every other one guesses."""

    tau: float
    inner: Any = SQRT
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.tau)

    def open(self, signals):
        return known(signals, "laws").tv <= self.tau


@dataclass(frozen=True)
class Learned:
    """Open where a logistic regression expects strict to reject with probability <= tau.

    weights: intercept, then one per feature: H(q), max q, margin, log(1 + position), as
    helpers/learned.py fits them on other texts. All that it looks at is the draft's.
    """

    tau: float
    weights: tuple
    inner: Any = SQRT
    looks_at = ("laws",)

    def __post_init__(self):
        refuse_nan(self.tau)
        if len(self.weights) != 5:
            raise ValueError(f"weights were {self.weights}; it needs an intercept and 4 features")

    def open(self, signals):
        features = (
            signals.H_q,
            signals.max_q,
            known(signals, "laws").margin_q,
            torch.log1p(known(signals, "position").to(signals.H_q.dtype)),
        )
        score = self.weights[0]
        for weight, feature in zip(self.weights[1:], features):
            score = score + weight * feature
        return torch.sigmoid(score) <= self.tau


# ---- questions about rules ---------------------------------------------------------------------


def is_gated(rule):
    """Whether a rule is an inner rule where a gate is open and another one elsewhere."""
    return hasattr(rule, "open")


def outside(rule):
    """The rule that holds where a gate is closed: strict, unless the gate brings another."""
    return getattr(rule, "outside", STRICT)


def has_standard_residual(rule):
    """Whether a rule replaces a rejected token from norm((p - q)+)."""
    return getattr(type(rule), "residual", None) is Power.residual


def looks_at(rule, name):
    """Whether a rule or its gate looks at "target", "laws" or "history".

    A gate of the reader's own that does not say what it looks at may look at all.
    """
    if is_gated(rule):
        own = getattr(rule, "looks_at", ("target", "laws", "history"))
        return name in own or looks_at(rule.inner, name) or looks_at(outside(rule), name)
    return name in getattr(rule, "looks_at", ())
