"""How far a packed model is from fp32 of the same weights: the draft's entropy is what is studied.

Teacher-forced on given answers, so that nothing but the arithmetic differs between the two.
"""

from dataclasses import dataclass

import torch

from helpers import rules

# What a packed path must keep to: mean TV from fp32, and the ratio of mean entropies.
DRAFT_TV = 0.05
DRAFT_H = 0.05
EXACT_TV = 1e-4
INT8_TARGET_TV = 0.03


@dataclass(frozen=True)
class Fidelity:
    """Distance of a model's distributions from the reference's, averaged over `n` positions.

    tv is the total variation, dh the absolute difference of entropies in nats, h_ratio the mean
    entropy ÷ the reference's, h the reference's mean entropy in nats.
    """

    precision: str
    n: int
    tv: float
    dh: float
    h_ratio: float
    h: float


@torch.inference_mode()
def answer_distributions(lm, prompt, answer):
    """The model's distributions (N, V) at the N tokens of `answer` after `prompt`, token lists."""
    tokens = torch.tensor([list(prompt) + list(answer)], device=lm.device)
    lm.prefill(tokens[:, : len(prompt)], [len(prompt)], tokens.shape[1])
    hidden = lm.forward(tokens[:, len(prompt) - 1 : -1], [len(prompt) - 1])
    return lm.logits(hidden[0]).softmax(-1)


def measure(packed, reference, texts):
    """Fidelity of the LM `packed` to the LM `reference` on texts, a list of (prompt, answer)."""
    sums = torch.zeros(4, dtype=torch.float64)
    n = 0
    for prompt, answer in texts:
        q = answer_distributions(packed, prompt, answer)
        p = answer_distributions(reference, prompt, answer)
        h_q = rules.entropy(q)
        h_p = rules.entropy(p)
        distances = torch.stack([rules.tv(q, p), (h_q - h_p).abs(), h_q, h_p])
        sums += distances.double().sum(1).cpu()
        n += len(h_p)
    tv, dh, h_q, h_p = (sums / n).tolist()
    return Fidelity(packed.precision, n, tv, dh, h_q / h_p, h_p)
