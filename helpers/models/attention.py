"""Attention for a CPU in which a token's result does not depend on what is computed beside it.

torch's fused kernel adds in an order that depends on how many tokens are asked for, so a block of
tokens would differ in the last bits from its tokens one by one; and it reads the keys once per
query head. Here the query heads that share a key head are rows of one product: keys are read once.
"""

import math

import torch
import torch.nn.functional as F

from helpers.models.linears import FEWEST_ROWS

CELLS = 128  # keys that are summed in one product; the cache's length is a multiple of it
# From 128 query rows on, MKL multiplies by some shapes of keys (128 cells, heads of 32 or 128) in
# another order on a processor with AMX. A prompt is read in parts that stay well below.
MOST_ROWS = 64


def whole(length):
    """The least multiple of CELLS that holds `length` cells."""
    return -(-length // CELLS) * CELLS


def visibility(positions, length, kv_heads, group):
    """What is added to the scores: 0 up to a token's own position, -inf after it.

    positions (rows, T) -> (rows · kv heads, T · group, length), or FEWEST_ROWS in the middle.
    """
    unseen = torch.arange(length) > positions[:, :, None]
    mask = torch.zeros(unseen.shape).masked_fill_(unseen, -math.inf).repeat_interleave(group, 1)
    if mask.shape[1] < FEWEST_ROWS:
        mask = F.pad(mask, (0, 0, 0, FEWEST_ROWS - mask.shape[1]))
    return mask.repeat_interleave(kv_heads, 0)


def attend(q, keys, values, mask):
    """q (rows, T, kv heads, group, dim), keys and values (rows, kv heads, length, dim), with a mask
    from `visibility` and `length` a multiple of CELLS. Returns (rows, T, kv heads · group · dim).
    """
    rows, T, kv_heads, group, dim = q.shape
    n = T * group
    q = q.transpose(1, 2).reshape(rows * kv_heads, n, dim)
    if n < FEWEST_ROWS:
        q = F.pad(q, (0, 0, 0, FEWEST_ROWS - n))
    keys = keys.flatten(0, 1)
    values = values.flatten(0, 1)
    parts = -(-q.shape[1] // MOST_ROWS)  # of nearly equal size, so none has fewer than FEWEST_ROWS
    pieces = zip(q.tensor_split(parts, 1), mask.tensor_split(parts, 1))
    out = torch.cat([_weighted(some, keys, values, unseen) for some, unseen in pieces], 1)
    out = out[:, :n].view(rows, kv_heads, T, group, dim)
    return out.transpose(1, 2).reshape(rows, T, -1)


def _weighted(q, keys, values, mask):
    """softmax(q K^T / sqrt(dim) + mask) V of queries (heads, up to MOST_ROWS rows, dim)."""
    p = torch.baddbmm(mask, q, keys.transpose(1, 2), alpha=q.shape[-1] ** -0.5).softmax(-1)
    # One product per CELLS keys: the order of a longer sum would depend on its length. Cells after
    # a token's own position add exact zeros.
    out = torch.bmm(p[:, :, :CELLS], values[:, :CELLS])
    for first in range(CELLS, keys.shape[1], CELLS):
        cells = slice(first, first + CELLS)
        out.baddbmm_(p[:, :, cells], values[:, cells])
    return out
