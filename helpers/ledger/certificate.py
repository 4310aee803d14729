"""The certificate: how many answers hold a rescue, without bias, from the target's texts alone.

Decode by the strict and by a relaxed rule with the same uniforms: both write the same text until
the relaxed rule first accepts a token that strict rejects, a rescue. So the share of answers with a
rescue bounds how far the accuracies of the two can be apart, whatever the grader. Until the first
rescue the text is strict's, so what a relaxed rule does to later texts plays no part: unlike the
relaxed rule's speed this is no estimate.
"""

import numpy as np

from helpers import rules
from helpers.ledger.programme import _alive, drafted
from helpers.ledger.table import LEAST
from helpers.rules.gates import has_standard_residual, outside


def rescue_chance(ledger, rule, policy):
    """Expected number of first rescues (one or none) in every answer of a ledger, (N,).

    The mean over answers is P(an answer holds a rescue); a single one may exceed 1.
    rule: one that accepts at least what strict does and replaces a rejected token as strict does;
    others differ from strict in more than rescues: ValueError.

    Given the text, a tested token is strict's rejection with probability 1 - w; of the tokens that
    strict rejects the relaxed rule accepts TV(o, p) / δ. With V(s) the chance that a round starts
    at s and nothing was rescued before, and e = (1 - w) (1 - TV / δ),

        V(0) = 1,    V(s + n + 1) += V(s) w_s … w_{s+n-1} e_{s+n},

    without e for the bonus token. The first rescue then falls on slot n of a round from s with
    probability V(s) w_s … w_{s+n-1} TV_{s+n}: the token at s + n itself is summed out, because
    given the text rescues are few and certain there, and the mean over texts would be rough.
    """
    strict = ledger.of_rule(rules.STRICT)
    columns = ledger.of_rule(rule)
    delta = strict["R"]
    _refuse(rule, columns["R"], delta)
    rescued = np.divide(columns["tv"], delta, out=np.zeros_like(delta), where=delta > LEAST)
    rejected = (1 - strict["W"]) * (1 - rescued.clip(0, 1))

    drafts = ledger.of_policy(drafted, policy)
    width = ledger.width
    inside = ledger.inside[:, :width].astype(float)
    alive = _alive(inside, drafts, strict["W"])
    gamma = len(drafts) - 1
    ends = alive.copy()
    rescues = np.zeros_like(inside)  # the first one in a round from s, if that begins
    for n in range(gamma):
        ends[n] *= np.where(drafts[n], rejected[:, n : n + width], 1)
        rescues += alive[n] * drafts[n] * columns["tv"][:, n : n + width]
    ends = ends.transpose(1, 2, 0)
    starts = np.zeros((len(ledger), width + gamma + 1))
    starts[:, 0] = 1
    for s in range(width):
        starts[:, s + 1 : s + gamma + 2] += starts[:, s, None] * ends[:, s]
    return (starts[:, :width] * rescues).sum(1)


def _refuse(rule, R, delta):
    """A ValueError for a rule that can differ from strict without a rescue."""
    inner = getattr(rule, "inner", rule)
    is_plain = has_standard_residual(inner) and outside(rule) == rules.STRICT
    if not is_plain or (R > delta + 1e-4).any():
        raise ValueError(
            f"{rule!r} can differ from strict without a rescue, so that rescues bound nothing; the "
            "certificate is for rules that accept at least what strict does and replace a rejected "
            "token as strict does"
        )
