"""The ledger itself: what both models say along answers of the target, as tables and arrays."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from helpers import rules, store
from helpers.ledger.grid import grid, knob

LONGEST = 16  # the longest block that a ledger can count
OF_RULE = ("R", "W", "h", "tv", "kl")  # the numbers kept of every rule
RATES = (1 / 32, 1 / 8, 1 / 4, 1 / 2)  # of a random gate, at which the KL of the mixture is kept
LEAST = 1e-12  # what is below it counts as 0, and nothing is divided by less
POLICIES_KEPT = 64  # what depends on a policy alone is kept of so many


class Continued(NamedTuple):
    """Continuations: answer and position of the rejected token, (C,); then (C, steps) each."""

    answer: np.ndarray
    position: np.ndarray
    H: np.ndarray
    q_x: np.ndarray
    is_end: np.ndarray


@dataclass
class Ledger:
    """What both models say at every position of answers that the target wrote.

    answers: one row per answer: problem_id, seed, prompt_length, n_tokens, ended (eos, stop or
    limit), max_new_tokens. positions: one row per token, answers one after the other: position,
    token, p_y, q_y (warped), H_q, H_p (nats, unwarped), max_q, margin, max_p, tv = δ, is_end; and
    of every rule "LABEL|R", its probability to reject there; |W = q a / p and |h = q a / o at the
    token; |tv and |kl (nats) of its output law o against p; |kl@λ of (1 - λ) p + λ o.
    continuations: drafts that went on after a rejected token (helpers/ledger/reading.py).
    rules: label -> rule.
    """

    answers: pd.DataFrame
    positions: pd.DataFrame
    continuations: pd.DataFrame
    rules: dict = field(default_factory=grid)

    def __len__(self):
        return len(self.answers)

    def of_problems(self, ids):
        """The part of the ledger that is about some problems (ids). Returns Ledger."""
        answer = self.answers.problem_id.isin(set(ids)).to_numpy()
        position = np.repeat(answer, self.lengths)
        new_row = np.cumsum(position) - 1
        begun = self.continuations.row.to_numpy().astype(int)
        goes_on = self.continuations[position[begun]]
        goes_on = goes_on.assign(
            row=new_row[goes_on.row.to_numpy().astype(int)].astype("int32"),
            continuation=pd.factorize(goes_on.continuation)[0].astype("int32"),
        )
        return Ledger(
            self.answers[answer].reset_index(drop=True),
            self.positions[position].reset_index(drop=True),
            goes_on.reset_index(drop=True),
            self.rules,
        )

    def save(self, pair_name, name):
        """Publish as three tables, NAME_answers, NAME_positions and NAME_continuations."""
        store.publish(self.answers, pair_name, f"{name}_answers")
        store.publish(self.positions, pair_name, f"{name}_positions")
        store.publish(self.continuations, pair_name, f"{name}_continuations")

    # ---- padded arrays: (answers, the longest answer + a block), what is past an end is 0 ------

    @cached_property
    def lengths(self):
        """Tokens of each answer, (N,)."""
        return self.answers.n_tokens.to_numpy()

    @cached_property
    def width(self):
        """Tokens of the longest answer."""
        return int(self.lengths.max())

    @cached_property
    def room(self):
        """How many drafts a block that starts at each position may have at most, (N, width)."""
        left = self.answers.max_new_tokens.to_numpy()[:, None] - np.arange(self.width) - 1
        return np.maximum(left, 0)

    @cached_property
    def inside(self):
        """Which cells of a padded array hold a token."""
        return np.arange(self.width + LONGEST + 1) < self.lengths[:, None]

    @cached_property
    def _padded(self):
        return {}

    def padded(self, column):
        """One column of `positions` as (answers, width + LONGEST + 1), float64."""
        if column not in self._padded:
            values = np.zeros(self.inside.shape)
            values[self.inside] = self.positions[column].to_numpy()
            self._padded[column] = values
        return self._padded[column]

    @cached_property
    def signals(self):
        """What a gate may look at, padded."""
        names = [field.name for field in fields(rules.Signals)]
        kept = [name for name in names if name in self.positions]
        return rules.Signals(**{name: torch.from_numpy(self.padded(name)) for name in kept})

    @cached_property
    def continuation_arrays(self):
        """The continuations as arrays: where each began, and (continuations, steps) of each."""
        table = self.continuations
        steps = LONGEST + 1
        row = table.row[table.step == 0].to_numpy().astype(int)
        place = table.continuation.to_numpy().astype(int), table.step.to_numpy().astype(int)
        arrays = {}
        # A step that did not fit into the draft's context was not made.
        for name, missing in (("H_q", 0), ("q_x", 0), ("is_end", True)):
            arrays[name] = np.full((len(row), steps), missing, table[name].dtype)
            arrays[name][place] = table[name]
        answer = np.repeat(np.arange(len(self)), self.lengths)[row]
        position = self.positions.position.to_numpy()[row]
        return Continued(answer, position, arrays["H_q"], arrays["q_x"], arrays["is_end"])

    @cached_property
    def strict(self):
        """What the strict rule does: it rejects with δ, and w = min(1, q / p) at the token."""
        p_y = self.padded("p_y")
        ratio = self.padded("q_y") / np.maximum(p_y, LEAST)
        # Where rounding makes a token impossible that was written, nothing is known of it.
        w = np.where(p_y > 0, np.minimum(ratio, 1), 1.0)
        none = np.zeros_like(w)
        return {"R": self.padded("tv"), "W": w, "h": w, "tv": none, "kl": none}

    # ---- what a policy does --------------------------------------------------------------------

    @cached_property
    def _of_policies(self):
        return {}

    def of_policy(self, function, policy):
        """function(self, policy), an array, worked out once for a policy that cannot change."""
        if not _cannot_change(policy):
            return function(self, policy)
        if (function, policy) not in self._of_policies:
            if len(self._of_policies) >= POLICIES_KEPT:
                del self._of_policies[next(iter(self._of_policies))]
            array = function(self, policy)
            array.flags.writeable = False  # it is handed out again
            self._of_policies[function, policy] = array
        return self._of_policies[function, policy]

    # ---- what a rule does ----------------------------------------------------------------------

    def label_of(self, rule):
        """The label under which a rule's numbers are kept; None where they are not."""
        if isinstance(rule, str):
            return rule if f"{rule}|R" in self.positions else None
        return next((label for label, known in self.rules.items() if known == rule), None)

    def of_rule(self, rule):
        """R, W, h, tv, kl of a rule at every position: {name: padded array}.

        rule: one of the ledger's, its label, or any gate (rules.Gated, or one's own) of one. A
        power, lenience or clip between two of the ledger's is interpolated: linearly in β or log ℓ,
        the KL as the square of what is linear. A random gate is the mixture law with its coin
        summed out: R, W and tv are linear in its rate, KL / rate is taken as linear between RATES.
        Errors of the mean KL on the pocket pair: powers 4 %, leniences and clips 7 %, random gates
        2 % from a rate of 0.15 on and 6 % at 0.06; of the calls saved 3 %. Pass the rule itself to
        `read` where that matters.
        """
        if rule in (rules.STRICT, "strict"):
            return self.strict
        label = self.label_of(rule)
        if label is not None:
            return {name: self.padded(f"{label}|{name}") for name in OF_RULE}
        if isinstance(rule, rules.Gated) and rule.gate == "random":
            return self._random(rule)
        if rules.is_gated(rule):
            strict = self.strict
            inner = self.of_rule(rule.inner)
            is_open = np.asarray(rule.open(self.signals))
            return {name: np.where(is_open, inner[name], strict[name]) for name in OF_RULE}
        return self._between(rule)

    def _random(self, rule):
        """A random gate: o = (1 - λ) p + λ o_inner, a = (1 - λ) a_strict + λ a_inner."""
        label = self.label_of(rule.inner)
        if label is None:
            raise ValueError(self._unknown(rule.inner))
        rate = min(max(rule.tau, 0.0), 1.0)
        strict = self.strict
        inner = self.of_rule(label)
        if rate in (0, 1):
            return inner if rate else strict
        mixed = {n: (1 - rate) * strict[n] + rate * inner[n] for n in ("R", "W", "tv")}
        # h = q a / o, and at the token o / p = W / h for a rule that may take it from the draft.
        o_over_p = (1 - rate) + rate * self._o_over_p(inner)
        mixed["h"] = np.where(mixed["W"] > 0, mixed["W"] / np.maximum(o_over_p, LEAST), 0.0)
        known = np.array([0.0, *RATES, 1.0])
        slopes = [self.padded(f"{label}|kl@{at:g}") / at for at in RATES] + [inner["kl"]]
        # KL((1 - λ) p + λ o) / λ goes to 0 with λ: its slope there is half the χ² distance.
        slopes = [np.zeros_like(inner["kl"]), *slopes]
        after = int(np.clip(np.searchsorted(known, rate), 1, len(known) - 1))
        share = (rate - known[after - 1]) / (known[after] - known[after - 1])
        mixed["kl"] = rate * _linear(slopes[after - 1], slopes[after], share)
        return mixed

    @staticmethod
    def _o_over_p(columns):
        """o(y) / p(y) at every position."""
        return np.where(columns["h"] > LEAST, columns["W"] / np.maximum(columns["h"], LEAST), 1.0)

    def _between(self, rule):
        """A rule of one knob between two that are kept: linear in β, or in log ℓ."""
        own = knob(rule)
        if own is None:
            raise ValueError(self._unknown(rule))
        kind, value = own
        kept = {1.0: rules.STRICT}  # β = 1 and ℓ = 1 alike
        for known in self.rules.values():
            if type(known) is kind:
                kept[knob(known)[1]] = known
        knots = np.array(sorted(kept))
        if not knots[0] <= value <= knots[-1]:
            raise ValueError(
                f"the ledger has no numbers of {rule!r}; its knob lies outside "
                f"{knots[0]:g} to {knots[-1]:g}: pass it to read(rules={{label: rule}})"
            )
        after = int(np.clip(np.searchsorted(knots, value), 1, len(knots) - 1))
        low, high = knots[after - 1], knots[after]
        scale = (lambda x: x) if kind is rules.Power else np.log
        share = (scale(value) - scale(low)) / (scale(high) - scale(low))
        below = self.of_rule(kept[low])
        above = self.of_rule(kept[high])
        columns = {name: _linear(below[name], above[name], share) for name in OF_RULE}
        # Near strict KL is of second order in the knob, so it is its root that is nearly linear.
        columns["kl"] = _linear(np.sqrt(below["kl"]), np.sqrt(above["kl"]), share) ** 2
        return columns

    def _unknown(self, rule):
        return (
            f"the ledger has no numbers of {rule!r}; it has {', '.join(self.rules)}, gates of "
            "these, and what lies between: pass others to read(rules={label: rule})"
        )


def _cannot_change(policy):
    """Whether a policy is a frozen dataclass of numbers and the like, equal where it acts alike."""
    parameters = vars(type(policy)).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        return False
    try:
        hash(policy)
    except TypeError:
        return False
    return True


def _linear(below, above, share):
    """(1 - share) below + share above; an infinite end that has no share does not count."""
    if share in (0, 1):
        return above if share else below
    return (1 - share) * below + share * above


def load(run, name, named_rules=None):
    """A published ledger of a pair or one of its runs (PAIR/RUN); None where there is none.

    named_rules: label -> rule for rules beyond the usual grid; without it they are asked for by
    label.
    """
    names = [f"{name}_answers", f"{name}_positions", f"{name}_continuations"]
    tables = [store.table(run, one) for one in names]
    if any(one is None for one in tables):
        return None
    return Ledger(*tables, rules=grid() | (named_rules or {}))
