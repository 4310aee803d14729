"""Distributions over the few tokens that are left of a vocabulary by top-k and top-p.

Two or three dozen of 150,000 tokens have any probability then, and nothing that a rule makes of p
and q has more: q a, (p - q)+ and their sums are 0 elsewhere.
"""

from dataclasses import replace

import torch

from helpers.rules.gates import is_gated, outside

SPARSE = 0.25  # of a vocabulary, above which a support is not worth looking up
PACKAGE = __name__.rpartition(".")[0]


def needs_support_alone(rule):
    """Whether a rule's numbers are the same `on_support`: it is one of this project's.

    A reader's own rule may give something to tokens that neither model does.
    """
    parts = [rule]
    if is_gated(rule):
        parts += [rule.inner, outside(rule)]
    return all(type(part).__module__.startswith(f"{PACKAGE}.") for part in parts)


def on_support(p, q, signals, token):
    """(p, q, signals, token) over the tokens that p or q can produce; as they are, where many.

    p and q (..., V), token (...): it is one of them, and becomes its place among them.
    """
    shape = token.shape
    p_rows, q_rows = p.flatten(0, -2), q.flatten(0, -2)
    possible = (p_rows > 0) | (q_rows > 0)
    possible.scatter_(-1, token.reshape(-1, 1), True)
    count = possible.sum(-1)
    width = int(count.max())
    if width > SPARSE * possible.shape[-1]:
        return p, q, signals, token
    row, which = possible.nonzero(as_tuple=True)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    words = torch.full((len(count), width), -1, device=row.device)
    words[row, place] = which

    def over_words(law):
        few = torch.where(words >= 0, law.gather(-1, words.clamp(min=0)), 0.0)
        return few.view(*shape, width)

    p, q = over_words(p_rows), over_words(q_rows)
    if signals.laws is not None:
        laws = signals.laws.over(words.view(*shape, width), p, q)
        signals = replace(signals, laws=laws)
    here = (words == token.reshape(-1, 1)).float().argmax(-1)
    return p, q, signals, here.view(shape)
