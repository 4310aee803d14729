"""Rivals, adaptive gates and draft lengths that remember, on a pretend GPU: the CPU's answers."""

import pytest
from test_gpu_path import COUNTS, answers_of, cpu, pretend, prompts  # noqa: F401

from helpers import rules
from helpers.methods import EntropyStop, Fixed, Speculative
from helpers.stopping import Bandit, Calibration, CostStop, Saturation

FALLING = Calibration((0.1, 0.5, 1.0), (0.95, 0.7, 0.3))
RULES = (
    rules.EqualPrice(2.0),
    rules.Cactus(0.1),
    rules.TokenCascade(0.5),
    rules.MARS(0.9),
    rules.Cascade(0.5),
    rules.Fuzzy(0.1),
    rules.FLy(0.3, 1),
    rules.Tightened(0.3, 0.3),
    rules.Spike(0.5),
    rules.EntropyAndMargin(1.0, 0.3),
    rules.Growing(0.5),
    rules.ByClass((0.1, 0.5, 0.9), bytes([0, 1, 2]) * 4000),
    rules.WarpedEntropy(0.5),
    rules.Learned(0.1, (-2.0, 1.0, 0.5, -0.5, 0.1)),
)
POLICIES = (
    CostStop(5, 0.3, FALLING),
    Saturation(5, calibration=FALLING),
    Bandit(4, (Fixed(2), EntropyStop(4, 0.5))),
)
METHODS = [
    *(Speculative(rule, Fixed(3), type(rule).__name__) for rule in RULES),
    *(Speculative(rules.STRICT, policy, type(policy).__name__) for policy in POLICIES),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_a_gpu_gives_the_same_answers(cpu, pretend, prompts, method):  # noqa: F811
    """Three rows, traced: the same tokens and counts, and nothing waits for the device."""
    here = answers_of(cpu, method, prompts, trace=True)
    there = answers_of(pretend, method, prompts, trace=True)
    for a, b in zip(here, there, strict=True):
        assert [getattr(a, name) for name in COUNTS] == [getattr(b, name) for name in COUNTS]
