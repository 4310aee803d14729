"""Rules of any kind at equal savings: read at some knobs, then nearer and nearer to the wanted one.

`ledger.match` needs numbers at every knob, which a ledger has of the gates, powers, leniences and
clips that it keeps. What looks at both models' whole distributions has to be read knob by knob.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from helpers import probes, rules, stats, taking_turns
from helpers.ledger.matching import Match
from helpers.ledger.programme import counts
from helpers.ledger.reading import of_rule, over_support
from helpers.ledger.table import Ledger
from helpers.methods import Sampling


def with_rules(ledger, pair, problems, named, *, sampling=Sampling()):
    """The same ledger with the numbers of more rules, all of their coins summed out.

    problems: those whose answers the ledger has; named: {label: rule}, to be asked for by label.
    Both models read the answers again, and keep what `counts` needs.
    """
    by_id = {problem.id: problem for problem in problems}
    asked = [by_id[name] for name in ledger.answers.problem_id]
    ends = np.cumsum(ledger.lengths)[:-1]
    answers = [part.tolist() for part in np.split(ledger.positions.token.to_numpy(), ends)]
    numbers_of = taking_turns.step(_numbers)
    frames = [
        numbers_of(reading, named)
        for reading in probes.read(pair, asked, answers, sampling=sampling)
    ]
    more = pd.concat(frames, ignore_index=True)
    positions = pd.concat([ledger.positions, more], axis=1)
    return Ledger(ledger.answers, positions, ledger.continuations, ledger.rules | named)


def _numbers(reading, named):
    """What `counts` needs of every rule along one reading, a column each."""
    token = torch.tensor(reading.frame.token.to_list(), device=reading.p.device)[:, None]
    p_y, q_y = (law.gather(-1, token)[:, 0] for law in (reading.p, reading.q))
    signals = reading.signals()
    whole = reading, signals, token
    few = over_support(*whole)
    columns = {}
    for label, rule in named.items():
        of_it, _ = of_rule(rule, *(few if rules.needs_support_alone(rule) else whole), p_y, q_y)
        columns |= {f"{label}|{name}": values for name, values in of_it.items()}
    return pd.DataFrame({name: v.float().cpu().numpy() for name, v in columns.items()})


def equal_savings(read, listed, target_saved, policy, rounds=6, tolerance=1e-4):
    """Families of rules, read at their knobs and then where they save `target_saved`.

    read: {label: rule} -> Ledger of always the same answers, as `with_rules`; listed: family ->
    (knob -> rule, two knobs or more, from strict to relaxed); target_saved: target calls per token.
    Each further reading takes more knobs of every family that is not near enough yet, as
    `ledger.match` has it, between the two neighbours that enclose the target: the one on the
    straight line, then the one halfway, then both and the quarters, for what is not reached by then
    goes in steps. Returns (DataFrame family, knob, saved and kl per token of the first reading;
    family -> Match with the rule that came nearest).
    """
    asked = {family: list(knobs) for family, (_, knobs) in listed.items()}
    tried = {family: [] for family in listed}
    first = None
    for turn in range(rounds + 1):
        for match in _read_matches(read, listed, asked, target_saved, policy, tolerance):
            tried[match.family].append(match)
        first = first if turn else _points(tried)
        asked = {}
        for family, matches in tried.items():
            knobs = _next_knobs(matches, target_saved, turn)
            if knobs:
                asked[family] = knobs
        if not asked:
            break
    return first, {family: _nearest(matches, target_saved) for family, matches in tried.items()}


def _read_matches(read, listed, asked, target_saved, policy, tolerance):
    """A Match of every knob that is asked for, from one reading of them all."""
    named = {}
    for family, knobs in asked.items():
        make, _ = listed[family]
        named |= {(family, knob): make(knob) for knob in knobs}
    book = read({f"{family} at {knob!r}": rule for (family, knob), rule in named.items()})
    strict = counts(book, rules.STRICT, policy).calls_per_token
    enough = min(tolerance, 0.02 * abs(target_saved))
    found = []
    for (family, knob), rule in named.items():
        counted = counts(book, f"{family} at {knob!r}", policy)
        saved = strict - counted.calls_per_token
        reached = abs(saved - target_saved) <= enough
        found.append(Match(family, knob, rule, target_saved, saved, reached, counted))
    return found


def _points(tried):
    """What each knob saves and costs, one row each."""
    lines = []
    for family, matches in tried.items():
        for match in matches:
            kl = match.counts.per_token("kl")
            lines.append({"family": family, "knob": match.knob, "saved": match.saved, "kl": kl})
    return pd.DataFrame(lines, columns=["family", "knob", "saved", "kl"])


def _nearest(matches, target_saved):
    """The Match that came nearest; if not near enough, with what lies around the target."""
    best = min(matches, key=lambda match: abs(match.saved - target_saved))
    enclosing = _enclosing(matches, target_saved)
    if best.reached or not enclosing:
        return best
    return replace(best, around=tuple(match.saved for match in enclosing))


def _next_knobs(matches, target_saved, turn):
    """Knobs between the two neighbours that enclose the target; [] where there is no need or none.

    turn: how many readings there were before the last.
    """
    enclosing = _enclosing(matches, target_saved)
    if not enclosing or any(match.reached for match in matches):
        return []
    low, high = enclosing
    on_the_line = (target_saved - low.saved) / (high.saved - low.saved)
    shares = [on_the_line], [0.5], [0.25, 0.5, 0.75, on_the_line]
    return [low.knob + share * (high.knob - low.knob) for share in shares[min(turn, 2)]]


def _enclosing(matches, target_saved):
    """The neighbours (below, above) between which the target lies; None where it lies between none.

    Of `matches` the first two stand in the direction from strict to relaxed.
    """
    sign = 1 if matches[0].knob <= matches[1].knob else -1
    in_order = sorted(matches, key=lambda match: sign * match.knob)
    for low, high in zip(in_order, in_order[1:]):
        if low.saved <= target_saved < high.saved:
            return low, high
    return None


def log_kl_ratio(own, other):
    """Log of KL per token of one rule's Counts ÷ another's on the same answers. Returns Interval.

    Paired over problems; without a number where one of the two costs no KL, or an infinite one.
    `.through(np.exp)` is the ratio's.
    """
    columns = ["kl", "emitted"]
    sums = [one.frame.groupby("problem_id")[columns].sum() for one in (own, other)]
    table = pd.concat(sums, axis=1).to_numpy()
    totals = table[:, [0, 2]].sum(0)
    if np.isfinite(totals[0]) and not np.isfinite(totals[1]):
        return stats.nothing("the other's KL is infinite")
    if not (np.isfinite(totals) & (totals > 0)).all():
        return stats.nothing("no KL to compare")

    def log_ratio(means):
        found = np.log(means[..., 0] / means[..., 1]) - np.log(means[..., 2] / means[..., 3])
        # a draw of problems without any KL says nothing of the ratio
        return np.where(np.isfinite(found), found, np.nan)

    return stats.bootstrap(table, log_ratio)
