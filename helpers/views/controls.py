"""Rows of controls, and the rules and policies that their values mean."""

import math
from dataclasses import dataclass, is_dataclass, replace
from typing import Callable, NamedTuple

import ipywidgets as ui

from helpers import rules
from helpers.methods import Confidence, EntropyStop, Fixed, SqrtEntropyStop
from helpers.views.deciding import name_of

TOP = 5.0  # right end of a tau slider, nats: there the gate is open everywhere
LONGEST = 16  # right end of a gamma slider

# Three controls fit into a row at 1280 px.
LOOK = {"layout": {"width": "272px"}, "style": {"description_width": "84px"}}

# A name of the rule menu -> its beta; None where the slider sets it.
POWERS = {"√": 0.5, "power β": None, "accept all": 0.0}

# A name of the policy menu -> its class and the field that the slider sets.
POLICIES = {
    "fixed γ": (Fixed, ""),
    "stop where H(q) > threshold": (EntropyStop, "stop"),
    "stop where q(x) < threshold": (Confidence, "threshold"),
    "stop by AdaEDL's bound": (SqrtEntropyStop, "threshold"),
}
# Right ends of their thresholds: q(x) and AdaEDL's bound on the acceptance are at most 1.
ENDS = {EntropyStop: TOP, Confidence: 1.0, SqrtEntropyStop: 1.0}


# ---- single controls ---------------------------------------------------------------------------


class Controls(NamedTuple):
    """A row of controls: `make` returns the widgets, `begin` the values that they begin with."""

    make: Callable[[], list]
    begin: tuple


def control_row(widgets):
    """Widgets beside each other, in lines as wide as the page."""
    return ui.HBox(widgets, layout={"flex_flow": "row wrap"})


def slider(value, top, name, kind=ui.FloatSlider, low=0, step=0.05, **more):
    """A slider that reports its value while it is dragged."""
    return kind(
        value,
        min=low,
        max=top,
        step=step,
        description=name,
        **LOOK,
        **more,
    )


def long_menu(name, options, value):
    """A menu of long lines, as wide as the page. options: [(line, value)]."""
    look = {"layout": {"width": "98%"}, "style": LOOK["style"]}
    return ui.Dropdown(options=options, value=value, description=name, **look)


def bind(menu, moved, settings):
    """Let a menu set a slider.

    settings: choice -> (the slider's value, or None to leave it; whether it may be moved).
    """

    def follow(*_):
        value, movable = settings[menu.value]
        moved.disabled = not movable
        if value is not None:
            moved.value = value

    moved.disabled = not settings[menu.value][1]
    menu.observe(follow, "value")


# ---- a rule ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RuleChoice:
    """A slider for tau, a menu of rules and a slider for beta, which begin at `rule`.

    Besides power rules the menu has `rule` itself, where that is another one: under the entropy
    gate whose tau the slider sets, or as it is where it is another gate.
    """

    rule: object

    @property
    def has_entropy_gate(self):
        """Whether `rule` is the gate whose tau the slider sets."""
        return type(self.rule) is rules.Gated and self.rule.gate == "low_entropy"

    @property
    def is_other_gate(self):
        """Whether `rule` is a gate that the slider has no say in."""
        return rules.is_gated(self.rule) and not self.has_entropy_gate

    @property
    def inner(self):
        """What the menu begins with."""
        return self.rule.inner if self.has_entropy_gate else self.rule

    @property
    def kind(self):
        """The name in the menu that it begins with."""
        if type(self.inner) is not rules.Power:
            return name_of(self.inner)
        return next((name for name, b in POWERS.items() if b == self.inner.beta), "power β")

    def controls(self):
        """The three of them in a row."""
        kind = self.kind
        tau = min(self.rule.tau, TOP) if self.has_entropy_gate else TOP
        beta = self.inner.beta if kind in POWERS else 0.5
        names = list(dict.fromkeys([*POWERS, kind]))

        def make():
            advice = "at the right end the rule applies everywhere"
            tau_slider = slider(tau, TOP, "τ, nats", tooltip=advice)
            menu = ui.Dropdown(options=names, value=kind, description="rule", **LOOK)
            beta_slider = slider(beta, 1, "β")
            fixed = kind if self.is_other_gate else None
            bind(menu, tau_slider, {name: (None, name != fixed) for name in names})
            bind(menu, beta_slider, {name: (POWERS.get(name), name == "power β") for name in names})
            return [tau_slider, menu, beta_slider]

        return Controls(make, (tau, kind, beta))

    def read(self, tau, kind, beta):
        """The rule that the values of the controls mean."""
        if kind in POWERS:
            inner = rules.Power(beta)
        elif self.is_other_gate:
            return self.rule
        else:
            inner = self.inner
        return rules.Gated(math.inf if tau >= TOP else tau, inner)


# ---- a policy ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyChoice:
    """A slider for gamma, a menu of policies and a slider for their threshold.

    They begin at `policy`, which has a place of its own in the menu where it is not of the house.
    """

    policy: object

    @property
    def kind(self):
        """The name in the menu that it begins with."""
        for name, (policy_class, _) in POLICIES.items():
            if policy_class is type(self.policy):
                return name
        return type(self.policy).__name__

    @property
    def settings(self):
        """A name in the menu -> (its usual threshold or None, whether the slider moves it)."""
        settings = {self.kind: (None, False)}
        for name, (policy_class, field) in POLICIES.items():
            settings[name] = (getattr(policy_class(), field, None), bool(field))
        return settings

    def end(self, kind):
        """The right end of the threshold's slider for a name in the menu."""
        policy_class, _ = POLICIES.get(kind, (None, ""))
        return ENDS.get(policy_class, TOP)

    def controls(self):
        """The three of them in a row."""
        kind = self.kind
        settings = self.settings
        names = list(dict.fromkeys([*POLICIES, kind]))
        gamma = self.policy.gamma
        _, field = POLICIES.get(kind, (None, ""))
        threshold = getattr(self.policy, field) if field else 1.0

        def make():
            top = max(LONGEST, gamma)
            gamma_slider = slider(gamma, top, "γ", ui.IntSlider, low=1, step=1)
            menu = ui.Dropdown(options=names, value=kind, description="draft", **LOOK)
            threshold_slider = slider(threshold, self.end(kind), "threshold")

            def stretch(change):
                threshold_slider.max = self.end(change.new)

            # before its value is set, so that the value lies inside
            menu.observe(stretch, "value")
            bind(menu, threshold_slider, settings)
            return [gamma_slider, menu, threshold_slider]

        return Controls(make, (gamma, kind, threshold))

    def read(self, gamma, kind, threshold):
        """The policy that the values of the controls mean."""
        if kind not in POLICIES:
            return replace(self.policy, gamma=gamma) if is_dataclass(self.policy) else self.policy
        policy_class, field = POLICIES[kind]
        # of the same class, it keeps what has no slider, such as the c of AdaEDL's bound
        policy = self.policy if kind == self.kind else policy_class()
        settings = {field: threshold} if field else {}
        return replace(policy, gamma=gamma, **settings)
