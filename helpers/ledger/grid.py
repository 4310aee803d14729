"""The rules whose numbers a ledger keeps at every position; gates of them need no reading."""

from helpers import rules

# Denser near strict, where the rules that are compared at equal savings lie.
BETAS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.25, 0.1, 0.0)
LENIENCES = (0.95, 0.9, 0.8, 0.65, 0.5, 0.3, 0.1)


def grid():
    """label -> rule: powers of p/q, leniences and clips. (Strict follows from p, q and δ.)"""
    named = {}
    for beta in BETAS:
        named[f"power {beta:g}"] = rules.Power(beta)
    for lenience in LENIENCES:
        named[f"lenience {lenience:g}"] = rules.Lenience(lenience)
    for lenience in LENIENCES:
        named[f"clip {lenience:g}"] = rules.Clip(lenience)
    return named


def knob(rule):
    """(class, number) of a rule of one knob: β of a power, ℓ of a lenience or clip; else None."""
    for kind, name in ((rules.Power, "beta"), (rules.Lenience, "lenience")):
        if isinstance(rule, kind) and type(rule) in (rules.Power, rules.Lenience, rules.Clip):
            return type(rule), getattr(rule, name)
    return None
