"""Rules at equal savings: knobs by bisection, and what each family pays for what it saves.

"Saved" is target calls per token of strict less those of the rule, with the same policy, on the
same positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from helpers import rules
from helpers.ledger.grid import LENIENCES
from helpers.ledger.programme import Counts, counts

STEPS = 24  # of a bisection: a knob to 1e-7 of its range


@dataclass(frozen=True)
class Family:
    """Rules of one knob: `rule(knob)` is (nearly) strict at `strict` and relaxes to `relaxed`."""

    label: str
    rule: Callable[[float], Any]
    strict: float
    relaxed: float


@dataclass(frozen=True)
class Match:
    """A rule of a family that saves as much as was asked for, or comes nearest.

    saved: target calls per token; counts: of the rule; reached: whether it is near enough. around:
    where it is not, what the nearest rules below and above save, if there are both: the family
    goes in steps. Without them it cannot save so much, or so little.
    """

    family: str
    knob: float
    rule: Any
    target_saved: float
    saved: float
    reached: bool
    counts: Counts
    around: tuple = ()


def families(ledger, inner=rules.SQRT):
    """The usual families: gates of `inner` by each signal, and the powers, leniences and clips."""
    signals = ledger.positions
    top = float(signals.H_q.max())
    most = float(signals.H_p.max())
    # max q >= tau: nothing is open above the largest
    peak = float(np.nextafter(np.float32(signals.max_q.max()), np.float32(2)))
    ends = {
        "low_entropy": (-1.0, top),
        "high_entropy": (top, -1.0),
        "max_prob": (peak, 0.0),
        "target_entropy": (-1.0, most),
        "random": (0.0, 1.0),
    }
    listed = [
        Family(f"{gate} gate", lambda tau, gate=gate: rules.Gated(tau, inner, gate), *limits)
        for gate, limits in ends.items()
    ]
    return [
        *listed,
        Family("power", lambda beta: rules.Power(min(max(beta, 0.0), 1.0)), 1.0, 0.0),
        Family("lenience", rules.Lenience, 1.0, LENIENCES[-1]),
        Family("clip", rules.Clip, 1.0, LENIENCES[-1]),
    ]


def match(ledger, family, target_saved, policy, tolerance=1e-4):
    """The rule of a family that saves `target_saved` calls per token, by bisection. Returns Match.

    reached: within `tolerance`, calls per token, and within 2 % of what was asked for. It is not
    where the family cannot save so much, or where one position more or less of a gate is too much.
    A gate's tau is exact to the position; a power, lenience or clip lies between two of the grid's,
    whose numbers are interpolated (read it with read(rules=...) for its own).
    """
    strict = counts(ledger, rules.STRICT, policy).calls_per_token

    def tried(knob):
        rule = family.rule(knob)
        counted = counts(ledger, rule, policy)
        saved = strict - counted.calls_per_token
        reached = abs(saved - target_saved) <= min(tolerance, 0.02 * abs(target_saved))
        return Match(family.label, knob, rule, target_saved, saved, reached, counted)

    low, high = family.strict, family.relaxed
    best = tried(high)
    if best.saved <= target_saved:
        return best
    around = (0.0, best.saved)
    for _ in range(STEPS):
        middle = tried((low + high) / 2)
        if abs(middle.saved - target_saved) < abs(best.saved - target_saved):
            best = middle
        if middle.saved < target_saved:
            low, around = middle.knob, (middle.saved, around[1])
        else:
            high, around = middle.knob, (around[0], middle.saved)
    return best if best.reached else replace(best, around=around)


def achievable(ledger, listed, policy):
    """The most that each family saves: label -> calls per token; "accept all" is the bound."""
    strict = counts(ledger, rules.STRICT, policy).calls_per_token
    most = {"accept all": rules.ACCEPT_ALL} | {f.label: f.rule(f.relaxed) for f in listed}
    return {
        label: strict - counts(ledger, rule, policy).calls_per_token for label, rule in most.items()
    }


def front(ledger, listed, policy, points=12):
    """What every family pays for what it saves, from strict to its most relaxed rule.

    Returns a DataFrame, one row per family and knob: family, knob, saved (calls per token), share
    (of strict's calls), kl and tv (per token), kl_per_call = kl / saved, accept_ratio.
    """
    strict = counts(ledger, rules.STRICT, policy).calls_per_token
    lines = []
    for family in listed:
        for knob in _knobs(ledger, family, points):
            counted = counts(ledger, family.rule(knob), policy)
            saved = strict - counted.calls_per_token
            kl = counted.per_token("kl")
            lines.append(
                {
                    "family": family.label,
                    "knob": knob,
                    "saved": saved,
                    "share": saved / strict,
                    "kl": kl,
                    "tv": counted.per_token("tv"),
                    "kl_per_call": kl / saved if saved > 0 else np.nan,
                    "accept_ratio": counted.accept_ratio,
                }
            )
    return pd.DataFrame(lines)


def _knobs(ledger, family, points):
    """Knobs from strict to relaxed: a gate's at quantiles of its signal where δ lies, else even."""
    rule = family.rule(family.relaxed)
    signal = {"low_entropy": "H_q", "high_entropy": "H_q", "target_entropy": "H_p"}
    signal = (signal | {"max_prob": "max_q"}).get(getattr(rule, "gate", None))
    if signal is None:
        return np.linspace(family.strict, family.relaxed, points + 1)[1:]
    values = ledger.positions[signal].to_numpy(float)
    order = np.argsort(values)
    mass = np.cumsum(ledger.positions.tv.to_numpy(float)[order])
    inner = np.interp(np.arange(1, points) / points, mass / mass[-1], values[order])
    knobs = np.sort([*inner, family.relaxed])
    return knobs if family.relaxed > family.strict else knobs[::-1]
