"""What can be run: the sampling, draft-length policies, and methods, frozen dataclasses all.

A notebook builds them. Each kind of method has a decoder in helpers/decoding.
"""

from dataclasses import dataclass, field

import torch

from helpers import rules


@dataclass(frozen=True)
class Sampling:
    """Temperature, top-k and top-p: from scores to the distribution that is sampled from."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature was {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(
                f"top_p was {self.top_p} and top_k {self.top_k}; "
                "they need 0 < top_p <= 1 and top_k >= 0"
            )

    @property
    def plain(self):
        """Whether the distribution is the model's own softmax."""
        return self.temperature == 1 and not self.top_k and self.top_p == 1

    def warp(self, logits):
        """Scores (..., V) -> probabilities (..., V); one-hot at temperature 0."""
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        logits = logits / self.temperature
        if self.top_k or self.top_p < 1:
            logits = logits.masked_fill(logits < self._least(logits), -torch.inf)
        return logits.softmax(-1)

    def _least(self, logits):
        """The smallest score (..., 1) that is kept; what equals it is kept too.

        Only the k likeliest are ranked where k is given: a vocabulary takes long to sort.
        """
        size = logits.shape[-1]
        ranked = logits.topk(min(self.top_k or size, size)).values
        if self.top_p == 1:
            return ranked[..., -1:]
        probs = ranked.softmax(-1)
        before = probs.cumsum(-1) - probs
        last = (before < self.top_p).sum(-1, keepdim=True) - 1
        return ranked.gather(-1, last)


# ---- how many tokens are drafted ---------------------------------------------------------------
# A policy decides from the prefix and the token that was just drawn and is kept. It never drops a
# token because of its value: that would bias the output.


@dataclass(frozen=True)
class Fixed:
    """Draft `gamma` tokens."""

    gamma: int = 4
    adaptive = False

    def __post_init__(self):
        if not (isinstance(self.gamma, int) and self.gamma >= 1):
            raise ValueError(
                f"gamma was {self.gamma!r}; it must be a whole number of drafted tokens, 1 or more"
            )

    def go_on(self, H, q_x, j):
        """Whether to draft another token after slot j: bool, the shape of H (nats) and q_x."""
        return torch.ones_like(H, dtype=torch.bool)


@dataclass(frozen=True)
class EntropyStop(Fixed):
    """Keep the token just drawn, then stop where H(q) > `stop` nats; at most `gamma` tokens."""

    stop: float = 1.0
    adaptive = True

    def go_on(self, H, q_x, j):
        return H <= self.stop


@dataclass(frozen=True)
class Confidence(Fixed):
    """Stop after a token with q(x) < `threshold`.

    transformers calls it assistant_confidence_threshold, 0.4 by default.
    """

    threshold: float = 0.4
    adaptive = True

    def go_on(self, H, q_x, j):
        return q_x >= self.threshold


@dataclass(frozen=True)
class SqrtEntropyStop(Fixed):
    """Stop where 1 - sqrt(c H) < `threshold`, a bound on the acceptance.

    AdaEDL (arXiv 2410.18351) has c = 0.2; SVIP (arXiv 2411.18462) is of the same form.
    """

    c: float = 0.2
    threshold: float = 0.5
    adaptive = True

    def go_on(self, H, q_x, j):
        return 1 - (self.c * H).clamp(min=0).sqrt() >= self.threshold


# ---- methods -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Autoregressive:
    """One model alone, one token at a time: AS_small (draft), AS_large (target), or an expert."""

    model: str = "target"
    label: str = ""

    def __post_init__(self):
        usual = {"draft": "AS_small", "target": "AS_large"}
        object.__setattr__(self, "label", self.label or usual.get(self.model, self.model))


@dataclass(frozen=True)
class Selective:
    """The draft writes; the target writes the token where the gate opens. No verification.

    gate "entropy": H(q) > tau, in nats. Controls: "random", u < tau, and "periodic", the share tau
    of the positions, evenly spaced.
    """

    tau: float = 1.0
    gate: str = "entropy"
    label: str = "Selective"

    def __post_init__(self):
        if self.tau != self.tau:
            raise ValueError("tau was NaN; it must be a number")
        if self.gate not in ("entropy", "random", "periodic"):
            raise ValueError(f"gate was {self.gate!r}; choose entropy, random or periodic")

    def ask(self, H, u, position):
        """Whether the target makes this token: bool (rows,)."""
        if self.gate == "entropy":
            return H > self.tau
        if self.gate == "random":
            return u < self.tau
        return torch.floor((position + 1) * self.tau) > torch.floor(position * self.tau)


@dataclass(frozen=True)
class Speculative:
    """Draft a block by `policy`, verify it at once, accept by `rule`.

    SP is rule = STRICT; SP_entropy is rule = rules.SP_entropy(tau).
    """

    rule: rules.Rule = rules.STRICT
    policy: Fixed = field(default_factory=Fixed)
    label: str = "SP"

    @property
    def per_round(self):
        """The most tokens that a round can add: a whole block and the bonus."""
        return self.policy.gamma + 1


@dataclass(frozen=True)
class Glimpse:
    """GlimpRouter: the draft's entropy at a step's first token gives the whole step to a model.

    Where H(q) >= tau nats there, the target writes the step, its first token too; else the draft.
    A step ends where the answer's text does so in one of `ends`. The paper (arXiv 2601.05110)
    ends steps at empty lines, which answers of few tokens do not have; it also lets the target
    write all that follows the thinking, which these models do not do.
    """

    tau: float = 1.0
    ends: tuple = ("\n", ".", "!", "?")
    label: str = "GlimpRouter"

    def __post_init__(self):
        if self.tau != self.tau:
            raise ValueError("tau was NaN; it must be a number of nats")
        if not self.ends or isinstance(self.ends, str):
            raise ValueError(
                f'ends was {self.ends!r}; it must be texts at which a step ends, such as (".",)'
            )


@dataclass(frozen=True)
class Routed:
    """Small models only: where the draft's H(q) > tau, all are asked and one of them speaks.

    choose "entropy": the surest of draft and experts takes over. An expert hands back to the draft
    when its own entropy exceeds `back` nats; the draft may then ask again.
    Controls: "random" keeps the draft with probability `keep` (without it: as often as any other
    model) and else hands over to an expert, each as likely; "mean": nobody takes over, the token
    is drawn from the average of all models' distributions (everywhere, if tau < 0).
    """

    tau: float = 0.5
    back: float = 0.5
    choose: str = "entropy"
    keep: float | None = None
    label: str = "Routed"

    def __post_init__(self):
        if self.tau != self.tau or self.back != self.back:
            raise ValueError("tau or back was NaN; both must be numbers of nats")
        if self.choose not in ("entropy", "random", "mean"):
            raise ValueError(f"choose was {self.choose!r}; use entropy, random or mean")
        if self.keep is not None and not 0 <= self.keep <= 1:
            raise ValueError(f"keep was {self.keep}; it is a probability, between 0 and 1")
