"""From scores to tokens: the warp, the inverse-CDF draw, and the uniforms that make runs coupled and repeatable."""
from dataclasses import dataclass

import numpy as np
import torch

DRAFT, ACCEPT, REPLACE, GATE = range(4)     # the purposes of a position's uniforms


@dataclass(frozen=True)
class Sampling:
    """Temperature, top-k and top-p: the warp from scores to the distribution that is sampled from."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature was {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(f"top_p was {self.top_p} and top_k {self.top_k}; they need 0 < top_p <= 1 and top_k >= 0")

    @property
    def plain(self):
        return self.temperature == 1 and not self.top_k and self.top_p == 1

    def warp(self, logits):
        """Scores (..., V) -> probabilities (..., V); one-hot at temperature 0."""
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        logits = logits / self.temperature
        if self.top_k:
            smallest = logits.topk(min(self.top_k, logits.shape[-1])).values[..., -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if self.top_p < 1:
            ranked, order = logits.sort(-1, descending=True)
            before = ranked.softmax(-1).cumsum(-1) - ranked.softmax(-1)
            drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            logits = logits.masked_fill(drop, -torch.inf)
        return logits.softmax(-1)


def sample(probs, u):
    """Inverse-CDF draw: the first token whose cumulative probability exceeds u. (..., V), (...) -> (...) long."""
    cdf = probs.cumsum(-1)
    total = cdf[..., -1:]
    point = torch.minimum(u[..., None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, point, right=True).squeeze(-1)


def accepts(a, u):
    """Whether a token with acceptance probability a is accepted by the uniform u: bool, the common shape."""
    return u < a


def uniforms(keys, length):
    """Uniforms in [0, 1) of shape (rows, length, 4); row b depends on keys[b] = (seed, problem number) alone."""
    table = [np.random.Generator(np.random.Philox(key=[int(k) % 2**64 for k in key])).random((length, 4), np.float32)
             for key in keys]
    return torch.from_numpy(np.stack(table))
