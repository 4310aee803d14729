"""How many tokens to draft: the best fixed γ, stops against it, and how far an oracle gets."""

import numpy as np
import pandas as pd

from helpers import rules
from helpers.ledger import speeds
from helpers.ledger.programme import Counts, counts
from helpers.ledger.table import LONGEST
from helpers.methods import Fixed


def oracle(ledger, gamma, rule=rules.STRICT):
    """Counts of a stop that knows what would be rejected and drafts just what is accepted.

    Its rounds are those of a fixed γ, with no draft wasted: no stop does better with blocks of at
    most γ where a further accepted token is worth its draft.
    """
    fixed = counts(ledger, rule, Fixed(gamma))
    some = fixed.acceptances[:, 1:].sum(1)
    frame = fixed.frame.assign(drafted=fixed.frame.accepted, full=some)
    return Counts(frame, fixed.acceptances, fixed.acceptances)


def best_gamma(ledger, forward, policies=None, *, rule=rules.STRICT, longest=LONGEST):
    """Tokens per second of every fixed γ, of other policies, and of the oracle.

    policies: label -> policy. forward: experiments.forward_times or `machine`. Returns a DataFrame:
    label, kind (fixed, policy, oracle), gamma, speed (Interval), best (the fastest fixed γ), and
    share, what part of the oracle's gain over the best fixed γ is reached.
    """
    lines = []
    for gamma in range(1, longest + 1):
        lines.append(("fixed", f"γ = {gamma}", gamma, counts(ledger, rule, Fixed(gamma))))
    for label, policy in (policies or {}).items():
        lines.append(("policy", label, policy.gamma, counts(ledger, rule, policy)))
    ideal = [oracle(ledger, gamma, rule) for gamma in range(1, longest + 1)]
    per_second = [_speed(one, forward) for one in ideal]
    top = int(np.argmax(per_second))
    lines.append(("oracle", "oracle", top + 1, ideal[top]))
    table = pd.DataFrame(lines, columns=["kind", "label", "gamma", "counts"])
    table["tokens_per_s"] = [_speed(one, forward) for one in table.counts]
    table["speed"] = [speeds.speed(one, forward) for one in table.counts]
    fixed = table[table.kind == "fixed"].tokens_per_s
    table["best"] = table.index == fixed.idxmax()
    gain = table.tokens_per_s.iloc[-1] - fixed.max()
    table["share"] = (table.tokens_per_s - fixed.max()) / gain if gain > 0 else np.nan
    return table


def _speed(counted, forward):
    return counted.total("emitted") / speeds.seconds(counted, forward).sum()
