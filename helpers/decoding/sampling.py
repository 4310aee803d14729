"""From probabilities to tokens: the inverse-CDF draw, and the uniforms that make runs coupled and repeatable."""

import numpy as np
import torch

DRAFT, ACCEPT, REPLACE, GATE = range(4)  # the purposes of a position's uniforms


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
    table = [
        np.random.Generator(np.random.Philox(key=[int(k) % 2**64 for k in key])).random(
            (length, 4), np.float32
        )
        for key in keys
    ]
    return torch.from_numpy(np.stack(table))
