"""Rows of controls, and the rules and policies that their values mean."""

import math
from typing import Callable, NamedTuple

import ipywidgets as ui

from helpers import rules
from helpers.methods import Confidence, EntropyStop, Fixed, SqrtEntropyStop

TOP = 5.0  # right end of a tau slider, nats: there the gate is open everywhere

LOOK = {
    "layout": {"width": "272px"},
    "style": {"description_width": "84px"},
}  # three controls in a row at 1280 px

RULES = {"√": 0.5, "power β": None, "accept all": 0.0}

POLICIES = {
    "fixed γ": (Fixed, ""),
    "stop where H(q) > threshold": (EntropyStop, "stop"),
    "stop where q(x) < threshold": (Confidence, "threshold"),
    "stop by AdaEDL's bound": (SqrtEntropyStop, "threshold"),
}


# ---- controls ------------------------------------------------------------------------------------------


class Controls(NamedTuple):
    """A row of controls: `make` returns the widgets, `begin` holds the values that they begin with."""

    make: Callable[[], list]
    begin: tuple


def slider(value, top, name, kind=ui.FloatSlider, low=0, step=0.05, **more):
    return kind(
        value,
        min=low,
        max=top,
        step=step,
        description=name,
        continuous_update=False,
        **LOOK,
        **more,
    )


def choice(name, options, value):
    options = list(dict.fromkeys(options))
    return Controls(
        lambda: [ui.Dropdown(options=options, value=value, description=name, **LOOK)], (value,)
    )


def tied(name, options, kind, slider):
    """A choice that sets a slider. options: {choice: (value or None to leave it, whether it may be moved)}."""
    pick = ui.Dropdown(options=list(options), value=kind, description=name, **LOOK)

    def follow(*_):
        value, movable = options[pick.value]
        slider.disabled, slider.value = not movable, slider.value if value is None else value

    slider.disabled = not options[kind][1]
    pick.observe(follow, "value")
    return [pick, slider]


def rule_controls(tau, beta):
    """A slider for tau, a choice of rule, a slider for beta; `rule_from` reads their values."""
    tau, kind = min(tau, TOP), next((name for name, b in RULES.items() if b == beta), "power β")
    options = {name: (b, b is None) for name, b in RULES.items()}
    return Controls(
        lambda: [
            slider(tau, TOP, "τ, nats", tooltip="at the right end the rule applies everywhere"),
            *tied("rule", options, kind, slider(beta, 1, "β")),
        ],
        (tau, kind, beta),
    )


def rule_from(tau, kind, beta):
    return rules.Gated(math.inf if tau >= TOP else tau, rules.Power(beta))


def policy_controls(policy):
    """How long a block is drafted; `policy_from` reads the values."""
    kind = next(name for name, (cls, _) in POLICIES.items() if cls is type(policy))
    options = {
        name: (getattr(cls(), field, None), bool(field)) for name, (cls, field) in POLICIES.items()
    }
    begin = (policy.gamma, kind, getattr(policy, POLICIES[kind][1], 1.0))
    return Controls(
        lambda: [
            slider(policy.gamma, 16, "γ", ui.IntSlider, low=1, step=1),
            *tied("draft", options, kind, slider(begin[2], TOP, "threshold")),
        ],
        begin,
    )


def policy_from(gamma, kind, threshold):
    cls, field = POLICIES[kind]
    return cls(gamma, **({field: threshold} if field else {}))


def control_row(children):
    return ui.HBox(children, layout={"flex_flow": "row wrap"})
