"""Distributions over the few tokens that are left of a vocabulary by top-k and top-p.

Two or three dozen of 150,000 tokens have any probability then, and nothing that a rule makes of p
and q has more: q a, (p - q)+ and their sums are 0 elsewhere.
"""

import torch

from helpers.rules.gates import is_gated, looks_at, outside

SPARSE = 0.25  # of a vocabulary, above which a support is not worth looking up
PACKAGE = __name__.rpartition(".")[0]


def needs_support_alone(rule):
    """Whether a rule's numbers are the same `on_support`: one of this project's, without laws.

    A reader's own rule may give something to tokens that neither model does.
    """
    parts = [rule]
    if is_gated(rule):
        parts += [rule.inner, outside(rule)]
    ours = all(type(part).__module__.startswith(f"{PACKAGE}.") for part in parts)
    return ours and not looks_at(rule, "laws")


def on_support(p, q, token):
    """(p, q, token) over the tokens that p or q can produce; as they are, where these are many.

    p and q (..., V), token (...): it is one of them, and becomes its place among them.
    """
    shape = token.shape
    p_rows, q_rows = p.flatten(0, -2), q.flatten(0, -2)
    possible = (p_rows > 0) | (q_rows > 0)
    possible.scatter_(-1, token.reshape(-1, 1), True)
    count = possible.sum(-1)
    width = int(count.max())
    if width > SPARSE * possible.shape[-1]:
        return p, q, token
    row, which = possible.nonzero(as_tuple=True)
    place = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    support = torch.full((len(count), width), -1, device=row.device)
    support[row, place] = which

    def at_support(law):
        few = torch.where(support >= 0, law.gather(-1, support.clamp(min=0)), 0.0)
        return few.view(*shape, width)

    here = (support == token.reshape(-1, 1)).float().argmax(-1)
    return at_support(p_rows), at_support(q_rows), here.view(shape)
