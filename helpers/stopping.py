"""How many tokens to draft, by what was learned: of other texts, of the block, of past rounds.

As in helpers/methods.py, a policy decides from the prefix and from tokens that are kept. Two kinds
need more than `go_on(H, q_x, j)`. A policy with `remember(memory, H, q_x, j)` carries a number per
row along a block and decides by `go_on_after(memory, j)`. A `Bandit` carries what it has learned
from one round to the next.
"""

from dataclasses import dataclass

import torch

from helpers.methods import Fixed

SURE = 1e-6  # no calibrated probability is smaller: logarithms stay finite


@dataclass(frozen=True)
class Calibration:
    """Probability that a drafted token is accepted, by its H(q) in nats: linear between knots.

    Fitted on other texts by helpers/learned.py; constant beyond the first and the last knot.
    """

    H: tuple
    accept: tuple

    def __post_init__(self):
        rising = all(a < b for a, b in zip(self.H, self.H[1:]))
        if not self.H or len(self.H) != len(self.accept) or not rising:
            raise ValueError(
                f"the calibration has {len(self.H)} entropies and {len(self.accept)} acceptances; "
                "it needs as many of both, entropies strictly rising"
            )

    def __call__(self, H):
        """Calibrated acceptance at entropies H, any shape."""
        knots = torch.tensor(self.H, dtype=H.dtype, device=H.device)
        values = torch.tensor(self.accept, dtype=H.dtype, device=H.device)
        if len(self.H) == 1:
            return values.expand_as(H)
        right = torch.searchsorted(knots, H.contiguous()).clamp(1, len(self.H) - 1)
        left = right - 1
        share = ((H - knots[left]) / (knots[right] - knots[left])).clamp(0, 1)
        return torch.lerp(values[left], values[right], share)


@dataclass(frozen=True)
class CostStop(Fixed):
    """Draft on while P(everything drafted so far is accepted) times `stake` exceeds the cost c.

    The next draft costs c of a call to the target, and is worth something only where all before it
    are accepted: with probability prod a(H_i), a the calibration. Then it brings `stake` of a call:
    the chance that it is accepted itself, times the calls that a token costs. To maximise tokens
    per second the stake is the mean acceptance ÷ tokens per unit of time (Dinkelbach).
    """

    c: float = 0.1
    calibration: Calibration = Calibration((0.0,), (0.8,))
    stake: float = 1.0
    adaptive = True

    def remember(self, memory, H, q_x, j):
        """log prod a(H) of slots 0 to j."""
        chance = self.calibration(H).clamp(min=SURE).log()
        return chance if memory is None else memory + chance

    def go_on_after(self, memory, j):
        return memory.exp() * self.stake > self.c


@dataclass(frozen=True)
class Saturation(Fixed):
    """Decide after every `block` drafts: on while their mean calibrated acceptance is high enough.

    The bar is `threshold` after the first block and nears 1 by the factor `growth` from block to
    block, 1 - (1 - threshold) growth^k, so that a long draft has to be the surer. Source: PACER
    (Zhang et al. 2026, arXiv 2602.01274) verifies drafts block by block with a trained layer,
    and stops where a block fails. That layer needs training on hidden states; its answer is
    replaced by the acceptance that H(q) predicts, so this is PACER's schedule and not its judge.
    """

    threshold: float = 0.6
    growth: float = 0.9
    block: int = 2
    calibration: Calibration = Calibration((0.0,), (0.8,))
    adaptive = True

    def remember(self, memory, H, q_x, j):
        """Sum of a(H) over the drafts of the block that slot j is in."""
        chance = self.calibration(H)
        return chance if memory is None or j % self.block == 0 else memory + chance

    def go_on_after(self, memory, j):
        if (j + 1) % self.block:
            return torch.ones_like(memory, dtype=torch.bool)
        bar = 1 - (1 - self.threshold) * self.growth ** (j // self.block)
        return memory / self.block >= bar


@dataclass(frozen=True)
class Bandit(Fixed):
    """One of several policies per round, by UCB1 on what past rounds of the answer brought.

    Source: TapOut (Sridhar et al. 2025, arXiv 2511.02017), a bandit over stopping rules with a
    reward that blends accepted length and acceptance rate: r = alpha n / gamma + (1 - alpha) n / d.
    Two differences. It learns anew in each answer, or a row would depend on its neighbours and on
    the order of the problems. And d is not what was drafted where a token was rejected, but the
    arm's cap: how far an arm drafted past the rejection depends on uniforms of positions that are
    drafted again, and a choice by them would bias the output. Fixed arms draft up to their cap, so
    for them d is what was drafted; after a block that was accepted whole it is always n.
    """

    gamma: int = 8
    arms: tuple = (Fixed(2), Fixed(4), Fixed(8))
    alpha: float = 0.5
    explore: float = 1.0
    adaptive = True

    def __post_init__(self):
        super().__post_init__()
        if not self.arms or any(arm.gamma > self.gamma for arm in self.arms):
            raise ValueError(
                f"the arms draft up to {[arm.gamma for arm in self.arms]} tokens; a bandit needs "
                f"one or more, each of at most its own gamma, {self.gamma}"
            )

    def start(self, rows, device):
        """Before the first round: how often each arm was chosen, its rewards, (rows, 2, arms)."""
        return torch.zeros(rows, 2, len(self.arms), device=device)

    def choose(self, learned):
        """The arm of each row: those never tried first, then the largest upper bound. (rows,)."""
        times = learned[:, 0]
        total = times.sum(1, keepdim=True).clamp(min=1)
        width = self.explore * (2 * total.log() / times.clamp(min=1)).sqrt()
        bound = learned[:, 1] / times.clamp(min=1) + width
        return torch.where(times == 0, torch.inf, bound).argmax(1)

    def learn(self, learned, arm, accepted, whole):
        """What is known after a round that accepted so many drafts, `whole`: all of them."""
        caps = torch.tensor([one.gamma for one in self.arms], device=arm.device)
        rate = torch.where(whole, 1.0, accepted / caps[arm])
        reward = self.alpha * accepted / self.gamma + (1 - self.alpha) * rate
        chosen = torch.nn.functional.one_hot(arm, len(self.arms)).to(learned.dtype)
        return learned + torch.stack([chosen, chosen * reward[:, None]], 1)


def begin(policy, batch):
    """The arm that each row of a bandit draws in this round; None for other policies."""
    if not isinstance(policy, Bandit):
        return None
    device = batch.tokens.device
    return policy.choose(batch.remember("bandit", lambda rows: policy.start(rows, device)))


def end(policy, batch, arm, accepted, drafted):
    """A bandit learns from a round; nothing else does. All (rows,)."""
    if arm is not None:
        learned = batch.kept["bandit"]
        batch.kept["bandit"] = policy.learn(learned, arm, accepted, accepted == drafted)


def decide(policy, H, q_x, j, memory=None, arm=None):
    """Whether each row drafts on after slot j (bool, the shape of H), and what is remembered."""
    if isinstance(policy, Bandit):
        if arm is None:
            raise ValueError(
                "a bandit's choice depends on the rounds before it, which are not known here; "
                "decode with it, or count its arms one by one"
            )
        memory = memory or [None] * len(policy.arms)
        answers = []
        for k, one in enumerate(policy.arms):
            on, memory[k] = decide(one, H, q_x, j, memory[k])
            answers.append(on & (j + 1 < one.gamma))
        return torch.stack(answers).gather(0, arm[None])[0], memory
    if hasattr(policy, "remember"):
        memory = policy.remember(memory, H, q_x, j)
        return policy.go_on_after(memory, j), memory
    return policy.go_on(H, q_x, j), None
