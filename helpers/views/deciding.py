"""Recorded tests decided again under another rule, and rules in words."""

import math

import numpy as np
import pandas as pd
import torch

from helpers import rules
from helpers.decoding.sampling import accepts

# Columns that deciding needs; a trace in which nothing was tested may lack them.
RECORDED = ("H_q", "H_p", "p_x", "q_x", "max_q", "u", "accepted")

GATES = {
    "low_entropy": "where H(q) ≤ {:g} nats",
    "high_entropy": "where H(q) > {:g} nats",
    "target_entropy": "where H(p) ≤ {:g} nats",
    "high_target_entropy": "where H(p) > {:g} nats",
    "max_prob": "where max q ≥ {:g}",
    "random": "at random positions, {:.0f} % of them",
}
POWERS = {0.5: "√", 0.0: "accept all", 1.0: "strict"}


# ---- deciding again ----------------------------------------------------------------------------


class NotRecorded(ValueError):
    """A rule needs to know what a trace does not record."""


class RecordedSignals:
    """What a gate may look at in a trace: rules.Signals, but for the uniform of a random gate."""

    def __init__(self, tests):
        self.H_q = _tensor(tests.H_q)
        self.H_p = _tensor(tests.H_p)
        self.max_q = _tensor(tests.max_q)

    @property
    def u_gate(self):
        raise NotRecorded(
            "a trace does not record the uniforms of a random gate; choose another rule"
        )


def redecide(trace, rule):
    """Decide every recorded test of one answer again under `rule`, from its recorded p, q, H and u.

    rule: any with `accept`, or a gate with `open` and `inner`. Returns the trace with accepted,
    path and rescued anew, and with columns tested; a, the acceptance probability; changed, where
    the decision is another one than the recorded; counterfactual, on rows after the first change,
    which that rule would not have produced (each is still judged on the prefix that was recorded).
    """
    rows = trace.reset_index(drop=True)
    absent = [name for name in RECORDED if name not in rows]
    rows = rows.reindex(columns=[*rows, *absent])
    tested = (rows.source == "draft") & rows.u.notna()
    recorded = rows.accepted.eq(True)
    tests = rows[tested]
    rows = rows.assign(
        tested=tested,
        a=np.nan,
        accepted=False,
        path=pd.Series(index=rows.index, dtype=object),
        rescued=False,
    )

    # A drafted token x is accepted where u < a(x), and rescued where the strict rule's
    # a(x) = min(1, p(x) / q(x)) would have rejected it.
    p_x = _tensor(tests.p_x)
    q_x = _tensor(tests.q_x)
    u = _tensor(tests.u)
    signals = RecordedSignals(tests)
    a = rules.accept_prob(rule, p_x, q_x, signals)
    accepted = accepts(a, u)
    strict = accepts(rules.STRICT.accept(p_x, q_x), u)
    is_open = rules.is_open(rule, signals)
    rows.loc[tested, "a"] = a.numpy()
    rows.loc[tested, "accepted"] = accepted.numpy()
    rows.loc[tested, "path"] = np.where(is_open.numpy(), "relaxed", "strict")
    rows.loc[tested, "rescued"] = (accepted & ~strict).numpy()

    changed = tested & (rows.accepted != recorded)
    counterfactual = changed.cumsum().shift(fill_value=0) > 0
    return rows.assign(changed=changed, counterfactual=counterfactual)


def as_written(trace, rule):
    """The trace of an answer that `rule` wrote itself, with the columns of `redecide`.

    A gate at random positions cannot be decided again; then the trace's own decisions stand, and
    `a` is missing.
    """
    try:
        return redecide(trace, rule)
    except NotRecorded:
        tested = (trace.source == "draft") & trace.u.notna()
        written = {name: trace[name].eq(True) for name in ("accepted", "rescued")}
        return trace.assign(tested=tested, a=np.nan, changed=False, counterfactual=False, **written)


def everywhere(rule):
    """A rule as it is where some tau opens the entropy gate; another gate stays as it is."""
    has_entropy_gate = type(rule) is rules.Gated and rule.gate == "low_entropy"
    if rules.is_gated(rule) and not has_entropy_gate:
        return rule
    return rules.Gated(math.inf, rule.inner if has_entropy_gate else rule)


def reroute(rows, names, tau, back):
    """Who would speak at each position of a routed answer, from every model's recorded entropy.

    rows: its trace, with H_NAME of every model; names: the models, "draft" first; tau, back: nats,
    of helpers.methods.Routed, which takes the surest. An entropy that is missing compares as false,
    so that nobody takes over there.
    """
    speaker = "draft"
    speakers = []
    for H in rows[[f"H_{name}" for name in names]].to_dict("records"):
        if speaker != "draft" and H[f"H_{speaker}"] > back:
            speaker = "draft"
        if speaker == "draft" and H["H_draft"] > tau:
            speaker = min(names, key=lambda name: H[f"H_{name}"])
        speakers.append(speaker)
    return speakers


def _tensor(column):
    """A column of a trace in the precision in which it was recorded."""
    return torch.tensor(column.astype(float).to_numpy(), dtype=torch.float32)


# ---- rules in words ----------------------------------------------------------------------------


def describe(rule):
    """A rule in words: "√ where H(q) ≤ 1 nats, strict elsewhere"."""
    if not rules.is_gated(rule):
        return "the strict rule" if rule == rules.STRICT else f"{name_of(rule)} everywhere"
    inner = name_of(rule.inner)
    if type(rule) is not rules.Gated:
        elsewhere = name_of(rules.outside(rule))
        return f"{inner} where {name_of(rule)} is open, {elsewhere} elsewhere"
    if rule.gate == "low_entropy" and rule.tau == math.inf:
        return f"{inner} everywhere"
    threshold = 100 * rule.tau if rule.gate == "random" else rule.tau
    where = GATES[rule.gate].format(threshold)
    return f"{inner} {where}, strict elsewhere"


def name_of(rule):
    """A rule's or a gate's short name: "√", "lenience 0.5", or its class with its settings."""
    if type(rule) is rules.Power:
        return POWERS.get(rule.beta, f"power β = {rule.beta:g}")
    if type(rule) is rules.Lenience:
        return f"lenience {rule.lenience:g}"
    if type(rule) is rules.Clip:
        return f"clip at the fixed level {rule.lenience:g}"
    if type(rule) is rules.EqualPrice:
        return f"optimum (one price) {rule.ratio:g}"
    settings = []
    for name, value in getattr(rule, "__dict__", {}).items():
        if name in ("inner", "outside", "classes") or name.startswith("_"):
            continue
        settings.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    name = type(rule).__name__
    return f"{name}({', '.join(settings)})" if settings else name
