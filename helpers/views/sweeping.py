"""The sweep: a rule, its threshold, drafting and costs, counted at all positions of a ledger."""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import ipywidgets as ui
import numpy as np
import pandas as pd
from scipy import special

from helpers import ledger, rules
from helpers.ledger.certificate import rescue_chance
from helpers.ledger.grid import grid, knob
from helpers.ledger.paces import place
from helpers.ledger.speeds import time_of
from helpers.methods import Fixed
from helpers.plots import style
from helpers.stats import Interval
from helpers.views import cells, charts, static
from helpers.views.controls import LOOK, TOP, Controls, PolicyChoice, bind, control_row, slider
from helpers.views.deciding import describe, name_of
from helpers.views.strips import Strips, View

# Words of the gate menu -> the gate, and the right end of its threshold.
GATES = {
    "H(q) ≤ τ nats": ("low_entropy", TOP),
    "H(q) > τ nats": ("high_entropy", TOP),
    "max q ≥ τ": ("max_prob", 1.0),
    "H(p) ≤ τ nats": ("target_entropy", TOP),
    "H(p) > τ nats": ("high_target_entropy", TOP),
    "random share τ": ("random", 1.0),
}
# Words of the rule menu -> its class and its number; None where the slider sets it.
KINDS = {
    "√": (rules.Power, 0.5),
    "power β": (rules.Power, None),
    "accept all": (rules.Power, 0.0),
    "lenience ℓ": (rules.Lenience, None),
    "clip ℓ": (rules.Clip, None),
}
NATS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, TOP)  # of the lines over tau
SHARES = tuple(np.linspace(0, 1, 11).round(1))
MOST_KEPT = 2000  # settings whose numbers are kept
REST_S = 0.1  # a control has come to rest when it was not moved for so long
STRICT = "SP"  # in place of a rule's values


# ---- the rule ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GatedChoice:
    """A slider for tau, a menu of gates, a menu of rules and a slider for β or ℓ.

    The rules are those whose numbers the ledger keeps, so that nothing is interpolated: the slider
    takes the nearest. Rules of the reader's own that the ledger was read with are in the menu too,
    and so is the `rule` to begin at, whatever it is.
    """

    book: ledger.Ledger
    rule: object

    @property
    def own(self):
        """Name -> rule, of what is not of the usual grid."""
        usual = grid()
        named = {label: rule for label, rule in self.book.rules.items() if label not in usual}
        if self.kind not in KINDS:
            named[self.kind] = self.inner
        return named

    @property
    def has_known_gate(self):
        """Whether the gate to begin at is one of the menu."""
        return type(self.rule) is rules.Gated

    @property
    def inner(self):
        """What the rule menu begins with; a gate of the reader's own is left as it is."""
        return self.rule.inner if self.has_known_gate else self.rule

    @property
    def kind(self):
        """The name in the rule menu that it begins with."""
        known = knob(self.inner)
        if known is None:
            return name_of(self.inner)
        fixed = (name for name, pair in KINDS.items() if pair == known)
        of_class = (name for name, pair in KINDS.items() if pair == (known[0], None))
        return next(fixed, None) or next(of_class)

    @property
    def begin(self):
        """The values that the four controls begin with."""
        gate = self.rule.gate if self.has_known_gate else "low_entropy"
        words, top = next((words, top) for words, (name, top) in GATES.items() if name == gate)
        tau = float(np.clip(self.rule.tau, 0, top)) if self.has_known_gate else top
        known = knob(self.inner)
        return tau, words, self.kind, known[1] if known else 0.5

    def controls(self):
        """The four of them."""
        tau, words, kind, number = self.begin
        own = dict.fromkeys(self.own, (None, False))

        def make():
            advice = "at the right end an entropy gate is open everywhere"
            tau_slider = slider(tau, GATES[words][1], "τ", tooltip=advice)
            gates = ui.Dropdown(options=list(GATES), value=words, description="relaxed at", **LOOK)
            menu = ui.Dropdown(options=[*KINDS, *own], value=kind, description="rule", **LOOK)
            number_slider = slider(number, 1, "β or ℓ")
            set_by = {name: (value, value is None) for name, (_, value) in KINDS.items()}
            bind(menu, number_slider, set_by | own)

            def stretch(change):
                top = GATES[change.new][1]
                tau_slider.max = top
                tau_slider.step = top / 100

            gates.observe(stretch, "value")
            return [tau_slider, gates, menu, number_slider]

        return Controls(make, (tau, words, kind, number))

    def read(self, tau, words, kind, number):
        """The rule that the values of the controls mean."""
        inner = self._kept(kind, number) if kind in KINDS else self.own[kind]
        if inner == rules.STRICT or rules.is_gated(inner):
            return inner
        gate, top = GATES[words]
        is_everywhere = gate in ("low_entropy", "target_entropy") and tau >= top
        return rules.Gated(math.inf if is_everywhere else tau, inner, gate)

    def _kept(self, kind, number):
        """The rule of a kind that the ledger keeps and whose number is nearest."""
        of_class, fixed = KINDS[kind]
        wanted = number if fixed is None else fixed
        kept = {1.0: rules.STRICT}
        for rule in self.book.rules.values():
            if type(rule) is of_class:
                kept[knob(rule)[1]] = rule
        return kept[min(kept, key=lambda known: abs(known - wanted))]


# ---- what is counted ---------------------------------------------------------------------------


class Measured(NamedTuple):
    """What is counted of one rule and policy, whatever the machine.

    sums: tokens, rounds and drafted tokens of each problem, (problems, 3); the others as in
    Numbers.
    """

    sums: np.ndarray
    calls_per_token: float
    accept: float
    tv: float
    kl: float
    rescued: float


class Numbers(NamedTuple):
    """What a rule, a policy and a machine give.

    speed: tokens per second ÷ the target alone; over_sp: ÷ SP that drafts alike; saved: share of
    SP's target calls; accept: accepted ÷ drafted; tv, kl (nats): per token; rescued: expected share
    of answers with a rescue, NaN where that bounds nothing.
    """

    speed: Interval
    over_sp: Interval
    saved: float
    accept: float
    tv: float
    kl: float
    rescued: float


class Book:
    """A ledger with what was counted on it, kept by the values of the controls."""

    def __init__(self, book, rule, policy):
        self.book = book
        self.rules = GatedChoice(book, rule)
        self.policies = PolicyChoice(policy)
        self.kept = {}
        self.problem, names = pd.factorize(book.answers.problem_id)
        if len(names) < 2:
            raise ValueError(
                f"a sweep needs answers to at least 2 problems; the ledger has {len(names)}"
            )

    def measured(self, rule, policy):
        """Measured for values of the controls; rule: four values, or STRICT."""
        if (rule, policy) not in self.kept:
            if len(self.kept) >= MOST_KEPT:
                del self.kept[next(iter(self.kept))]
            read = rules.STRICT if rule == STRICT else self.rules.read(*rule)
            self.kept[rule, policy] = self._measure(read, self.policies.read(*policy))
        return self.kept[rule, policy]

    def _measure(self, rule, policy):
        counts = ledger.counts(self.book, rule, policy)
        rescued = 0.0
        if rule != rules.STRICT:
            try:
                rescued = float(rescue_chance(self.book, rule, policy).mean())
            except ValueError:  # it can differ from SP without a rescue
                rescued = math.nan
        columns = (counts.frame.emitted, counts.widths.sum(1), counts.frame.drafted)
        sums = [np.bincount(self.problem, np.asarray(column)) for column in columns]
        return Measured(
            np.stack(sums, 1),
            counts.calls_per_token,
            counts.accept_ratio,
            counts.per_token("tv"),
            counts.per_token("kl"),
            rescued,
        )

    def knows(self, rule, policy):
        """Whether these values were counted already."""
        return (rule, policy) in self.kept

    def numbers(self, rule, policy, c, slope):
        """Numbers of values of the controls on the machine of `ledger.machine`."""
        own = self.measured(rule, policy)
        strict = self.measured(STRICT, policy)
        # A round that drafts d tokens takes 1 + (c + slope) d forwards of the target.
        price = np.array([1, c + slope])
        tokens = own.sums[:, 0]
        seconds = own.sums[:, 1:] @ price
        return Numbers(
            _ratio(tokens, seconds, tokens, tokens),
            _ratio(tokens, seconds, strict.sums[:, 0], strict.sums[:, 1:] @ price),
            1 - own.calls_per_token / strict.calls_per_token,
            own.accept,
            own.tv,
            own.kl,
            own.rescued,
        )


def _ratio(a, b, c, d):
    """(sum a / sum b) / (sum c / sum d) over problems. Returns Interval.

    To first order its relative error is sqrt(sum (a/A - b/B - c/C + d/D)²), A, B, C, D the sums:
    some microseconds, where a bootstrap takes 60 ms.
    """
    n = len(a)
    shares = a / a.sum() - b / b.sum() - c / c.sum() + d / d.sum()
    relative = math.sqrt((shares**2).sum() * n / (n - 1))
    ratio = (a.sum() / b.sum()) / (c.sum() / d.sum())
    half = ratio * relative * special.stdtrit(n - 1, 0.975)
    return Interval(ratio, ratio - half, ratio + half, n)


# ---- the view ----------------------------------------------------------------------------------


def sweep(book, forward, *, rule=rules.SP_entropy(1.0), policy=Fixed(4)):
    """What any rule, gate, drafting policy and machine give, at all positions of a ledger.

    book: a Ledger; forward: forward times of this machine (experiments.forward_times), where the
    sliders of the draft's cost c and of the verify slope begin; rule, policy: where theirs begin.
    Lines over tau, with their 95 % band over problems; the dotted level is SP that drafts alike.
    """
    begun = Sweep(book, forward, rule, policy)
    return View(begun.page(), begun.build)


class Sweep:
    """The controls of the sweep, and what is drawn for their values.

    The numbers answer at once; a line over tau that is not known yet is counted point by point
    when the controls have come to rest, so that nobody waits for it while dragging.
    """

    def __init__(self, book, forward, rule, policy):
        self.book = Book(book, rule, policy)
        self.rule_row = self.book.rules.controls()
        self.policy_row = self.book.policies.controls()
        self.machine = place(forward, policy.gamma)
        (self.target_s,) = time_of(forward, "target", [1])
        self.begin = (self.rule_row.begin, self.policy_row.begin, *self.machine)
        self.waiting = None

    # ---- what is drawn -------------------------------------------------------------------------

    def line(self, rule):
        """The values of rules along the line through `rule`: [(tau, values)]."""
        _, words, kind, number = rule
        taus = NATS if GATES[words][1] == TOP else SHARES
        return [(float(tau), (float(tau), words, kind, number)) for tau in taus]

    def missing(self, rule, policy):
        """What of the line has not been counted."""
        return [values for _, values in self.line(rule) if not self.book.knows(values, policy)]

    def state(self, rule, policy, c, slope):
        """Traits of Strips for values of the controls, with as much of the line as is known."""
        since = time.perf_counter()
        here = self.book.numbers(rule, policy, c, slope)
        strict = self.book.numbers(STRICT, policy, c, slope)
        known = {
            tau: self.book.numbers(values, policy, c, slope)
            for tau, values in self.line(rule)
            if self.book.knows(values, policy)
        }
        known[rule[0]] = here
        known = dict(sorted(known.items()))
        took = time.perf_counter() - since
        book = self.book.book
        drafting = f"draft {self.policy_words(policy)}"
        lanes = [
            cells.lane(f"{describe(self.book.rules.read(*rule))}; {drafting}", self.words(here)),
            cells.lane(f"SP: the strict rule; {drafting}", self.words(strict, is_sp=True)),
        ]
        return {
            "lanes": lanes,
            "picture": _picture(known, rule, here, strict),
            "alt": f"lines over tau; at τ = {rule[0]:g}: {self.words(here)}",
            "status": f"all {len(book.positions):,} positions of {len(book):,} answers, "
            f"c = {c:.3g}, verify slope {slope:.3g}: {1000 * took:.0f} ms",
        }

    def policy_words(self, values):
        gamma, kind, threshold = values
        _, movable = self.book.policies.settings[kind]
        return f"{kind.replace('threshold', f'{threshold:g}') if movable else kind}, γ = {gamma}"

    def words(self, numbers, is_sp=False):
        """Numbers in a line."""
        per_second = numbers.speed.estimate / self.target_s
        speed = (
            f"{numbers.speed.show(2)} × AS_large ({per_second:.0f} tokens/s where the target's "
            f"forward takes {style.number(1000 * self.target_s)} ms) · "
            f"accept ratio {numbers.accept:.3f}"
        )
        if is_sp:
            return speed
        if math.isnan(numbers.rescued):
            certificate = "no certificate: it can differ from SP without a rescue"
        else:
            certificate = f"rescues in {_share(numbers.rescued)} of answers, the others are SP's"
        return (
            f"{speed} · {numbers.over_sp.show(3)} × SP · calls saved {_share(numbers.saved)} · "
            f"TV {numbers.tv:.2g} and KL {numbers.kl:.2g} nats per token · {certificate}"
        )

    def page(self):
        """The static picture, with the whole line and its table."""
        rule, policy, *machine = self.begin
        lines = []
        for tau, values in self.line(rule):
            numbers = self.book.numbers(values, policy, *machine)
            lines.append(
                {
                    "τ": "everywhere" if tau >= TOP else f"{tau:g}",
                    "tokens/s ÷ AS_large": numbers.speed.show(2),
                    "÷ SP": numbers.over_sp.show(3),
                    "calls saved": _share(numbers.saved),
                    "accept ratio": f"{numbers.accept:.3f}",
                    "TV per token": f"{numbers.tv:.2g}",
                    "KL per token, nats": f"{numbers.kl:.2g}",
                    "answers with a rescue": _share(numbers.rescued),
                }
            )
        drawn = self.state(*self.begin)
        heading = (
            f"Every position of {len(self.book.book):,} answers: "
            f"{rule[2]} relaxed at {rule[1]}, c = {machine[0]:.3g}"
        )
        table = static.numbers(pd.DataFrame(lines))
        return static.page(heading, drawn["lanes"], drawn["picture"], drawn["alt"], table)

    # ---- the widget ----------------------------------------------------------------------------

    def build(self):
        """The controls above the canvas."""
        self.canvas = Strips()
        self.rule = self.rule_row.make()
        self.policy = self.policy_row.make()
        c, slope = self.machine
        self.costs = [
            _log_slider(c, "draft cost c"),
            slider(slope, max(0.5, slope), "verify slope", step=0.005),
        ]
        controls = [*self.rule, *self.policy, *self.costs]
        for control in controls:
            if hasattr(control, "continuous_update"):
                control.continuous_update = True  # answers come while a slider is dragged
            control.observe(self.moved, "value")
        self.moved()
        *most, number = self.rule
        gamma, draft, threshold = self.policy
        rows = (most, [number, gamma, draft], [threshold, *self.costs])
        return ui.VBox([*map(control_row, rows), self.canvas])

    def values(self):
        """The values of the controls, as `state` takes them."""
        rule = tuple(control.value for control in self.rule)
        policy = tuple(control.value for control in self.policy)
        return rule, policy, *(control.value for control in self.costs)

    def moved(self, *_):
        """Draw at once what is known, and count the rest of the line when there is time."""
        if self.waiting:
            self.waiting.cancel()
            self.waiting = None
        self.draw()
        if self.canvas.failed or not self.missing(*self.values()[:2]):
            return
        try:
            self.waiting = asyncio.get_running_loop().call_later(REST_S, self.go_on)
        except RuntimeError:  # nobody else is served by this thread
            for values in self.missing(*self.values()[:2]):
                self.book.measured(values, self.values()[1])
            self.draw()

    def go_on(self):
        """Count one more point of the line, and let whoever waits have a turn."""
        rule, policy, *_ = self.values()
        missing = self.missing(rule, policy)
        if missing:
            self.book.measured(missing[0], policy)
            self.waiting = asyncio.get_running_loop().call_later(0, self.go_on)
        else:
            self.waiting = None
            self.draw()

    def draw(self):
        self.canvas.show(lambda: self.state(*self.values()))


def _log_slider(value, name):
    """A slider of a ratio, from 0.005 to 1."""
    return ui.FloatLogSlider(
        value,
        min=math.log10(0.005),
        max=0,
        step=0.01,
        description=name,
        readout_format=".3f",
        **LOOK,
    )


def _share(value):
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def _picture(known, rule, here, strict):
    """Four lines over tau. known: tau -> Numbers; here: those of `rule`; strict: those of SP."""
    tau, words, *_ = rule
    taus = list(known)
    measured = list(known.values())
    speeds = [numbers.speed for numbers in measured]
    band = ([s.low for s in speeds], [s.high for s in speeds])
    certificate = "no certificate" if math.isnan(here.rescued) else "answers with a rescue, %"
    panels = [
        ("tokens/s ÷ AS_large", lambda numbers: numbers.speed.estimate, band),
        ("target calls saved, % of SP's", lambda numbers: 100 * numbers.saved, ((), ())),
        ("KL per token, 0.001 nats", lambda numbers: 1000 * numbers.kl, ((), ())),
        (certificate, lambda numbers: 100 * numbers.rescued, ((), ())),
    ]
    drawn = []
    for title, value, (low, high) in panels:
        line = charts.Line(title, charts.ORANGE, taus, [value(n) for n in measured], low, high)
        y = value(here)
        drawn.append(
            charts.Panel(
                title,
                [line],
                x_label=words,
                cursor=tau,
                point=None if math.isnan(y) else (tau, y),
                level=value(strict),
                level_name="SP",
            )
        )
    return charts.chart(drawn)
