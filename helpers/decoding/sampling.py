"""From probabilities to tokens: the draw, and the uniforms that make runs coupled."""

import numpy as np
import torch

DRAFT, ACCEPT, REPLACE, GATE = range(4)  # the purposes of a position's uniforms


def sample(probs, u):
    """Inverse-CDF draw: the first token whose cumulative probability exceeds u.

    (..., V), (...) -> (...), long.
    """
    cdf = probs.cumsum(-1)
    total = cdf[..., -1:]
    point = torch.minimum(u[..., None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, point, right=True).squeeze(-1)


def accepts(a, u):
    """Whether the uniform u accepts a token with acceptance probability a: bool, their shape."""
    return u < a


def uniforms(keys, length):
    """Uniforms in [0, 1) of shape (rows, length, 4), one per purpose.

    Row b depends on keys[b] = (seed, problem number) alone.
    """
    tables = []
    for key in keys:
        generator = np.random.Generator(np.random.Philox(key=[int(k) % 2**64 for k in key]))
        tables.append(generator.random((length, 4), np.float32))
    return torch.from_numpy(np.stack(tables))
