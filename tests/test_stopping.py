"""Draft lengths that remember, and what is fitted for them: lossless, and right by hand."""

import types

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from conftest import table_pair
from test_decoding import DRAFT, TARGET, assert_same, enumerate_runs, fresh, joint

from helpers import decoding, rules, stopping, tasks
from helpers.methods import Confidence, EntropyStop, Fixed, Speculative
from helpers.stopping import Bandit, Calibration, CostStop, Saturation

FALLING = Calibration((0.3, 0.9, 1.09), (0.95, 0.7, 0.3))
COST = CostStop(3, c=0.45, calibration=FALLING)
BLOCKS = Saturation(4, threshold=0.55, growth=0.8, block=2, calibration=FALLING)
BANDIT = Bandit(3, (Fixed(1), EntropyStop(3, 0.9), Confidence(2, 0.4)))
NESTED = Bandit(3, (COST, Fixed(2)))


@pytest.mark.parametrize("policy", [COST, BLOCKS, BANDIT, NESTED], ids=str)
def test_strict_is_the_target_exactly(policy):
    """Every path of the decoder: whatever the policy decides, the output has the target's law."""
    found = enumerate_runs(fresh(), Speculative(rules.STRICT, policy), 4)
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    assert_same(found, joint(4))


@pytest.mark.parametrize("policy", [COST, BANDIT], ids=["cost", "bandit"])
def test_real_uniforms_give_the_targets_joint(policy):
    """Uniforms are drawn again for positions of discarded drafts: chi-square, 0.1 %, fixed seed."""
    n = 8000
    answers = decoding.decode(
        table_pair(DRAFT, TARGET),
        Speculative(rules.STRICT, policy),
        [[0, 1]] * n,
        [(11, i) for i in range(n)],
        max_new_tokens=5,
    )
    want = joint(5)
    counts = dict.fromkeys(want, 0)
    for answer in answers:
        counts[tuple(answer.tokens)] += 1
    chances = np.array(list(want.values()))
    chances = n * chances / chances.sum()
    assert scipy.stats.chisquare(list(counts.values()), chances).pvalue > 1e-3
    lengths = {answer.drafted for answer in answers}
    assert len(lengths) > 3


def test_the_cost_stop_multiplies_what_is_expected():
    """On while prod a(H) times the stake exceeds c; by hand along two rows of entropies."""
    H = torch.tensor([[0.1, 0.3, 0.6, 1.0], [0.9, 0.3, 0.3, 0.3]])
    policy = CostStop(5, c=0.3, calibration=FALLING, stake=0.8)
    memory = None
    alive = np.ones(2)
    for j in range(4):
        on, memory = stopping.decide(policy, H[:, j], None, j, memory)
        alive *= np.interp(H[:, j], FALLING.H, FALLING.accept)
        assert on.tolist() == (alive * 0.8 > 0.3).tolist()
    assert np.interp(0.6, FALLING.H, FALLING.accept) == pytest.approx(0.825)


def test_saturation_decides_at_the_end_of_blocks_alone():
    policy = Saturation(9, threshold=0.7, growth=0.5, block=2, calibration=FALLING)
    H = [0.3, 0.9, 0.3, 0.9, 0.3, 0.3]  # a: .95 .70, .95 .70, .95 .95; bars .7, .85, .925
    memory = None
    answers = []
    for j, h in enumerate(H):
        on, memory = stopping.decide(policy, torch.tensor([h]), None, j, memory)
        answers.append(on.item())
    assert answers == [True, True, True, False, True, True]


def test_the_bandit_tries_every_arm_and_settles_on_the_best():
    """Arms of 1, 2 and 4 drafts where the first two are always accepted and no third is."""
    policy = Bandit(4, (Fixed(1), Fixed(2), Fixed(4)), explore=0.3)
    state = policy.start(1, "cpu")
    chosen = []
    for _ in range(300):
        arm = policy.choose(state)
        cap = policy.arms[arm.item()].gamma
        accepted = torch.tensor([min(cap, 2)])
        state = policy.learn(state, arm, accepted, accepted == cap)
        chosen.append(arm.item())
    assert sorted(chosen[:3]) == [0, 1, 2]
    # rewards: 1/8 + 1/2, 2/8 + 1/2, 2/8 + 1/4
    means = (state[0, 1] / state[0, 0]).tolist()
    assert means == pytest.approx([0.625, 0.75, 0.5])
    assert chosen.count(1) > 200


def test_a_bandit_learns_from_what_stands_in_the_text():
    """A round's reward is a function of n and of whether all was accepted, not of the rest."""
    policy = Bandit(3, (Fixed(1), EntropyStop(3, 0.9)))
    states = []
    for drafted in (2, 3):
        batch = types.SimpleNamespace(kept={"bandit": policy.start(1, "cpu")})
        stopping.end(policy, batch, torch.tensor([1]), torch.tensor([1]), torch.tensor([drafted]))
        states.append(batch.kept["bandit"])
    assert torch.equal(*states) and states[0].any()


@pytest.mark.parametrize("policy", [COST, BLOCKS, NESTED], ids=["cost", "blocks", "bandit"])
def test_a_row_does_not_depend_on_its_neighbours(pocket, policy):
    problems = [p for d in ("arithmetic", "law", "facts") for p in tasks.load(f"pocket-{d}", 4)]
    prompts = [pocket.encode(problem.messages) for problem in problems]
    keys = [(1, i) for i in range(len(prompts))]
    method = Speculative(rules.STRICT, policy)
    together = decoding.decode(pocket, method, prompts, keys, max_new_tokens=30)
    for prompt, key, answer in zip(prompts, keys, together):
        (alone,) = decoding.decode(pocket, method, [prompt], [key], max_new_tokens=30)
        assert alone.tokens == answer.tokens
        assert (alone.drafted, alone.target_calls) == (answer.drafted, answer.target_calls)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Calibration((1.0, 0.5), (0.1, 0.2)), "strictly rising"),
        (lambda: Calibration((), ()), "0 entropies"),
        (lambda: Bandit(8, (Fixed(9),)), "at most its own gamma"),
        (lambda: Bandit(8, ()), "one or more"),
        (lambda: CostStop(0), "gamma was 0"),
        (lambda: stopping.decide(BANDIT, torch.zeros(1), torch.ones(1), 0), "rounds before"),
    ],
)
def test_bad_policies_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
