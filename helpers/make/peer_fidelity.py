"""How far a rival's distributions are from fp32 of the same file, where it shows them: llama.cpp.

At every position of answers that the target wrote, the rival's next-token distribution is compared
with that of transformers' own modules in fp32: total variation TV, and entropy H in nats.
"""

import math

import torch

from helpers import models
from helpers.common import track
from helpers.make import gguf_peers
from helpers.models import pairs
from helpers.models.fidelity import answer_distributions
from helpers.models.presets import preset_of

SHOWN = 3000  # tokens of a distribution that are read; the rest of them is one cell


def llamacpp(pair, answers, positions):
    """Fidelity of llama.cpp on a pair's GGUF files: {"draft": …, "target": …} as in `summary`.

    answers: (prompt, answer) in token ids, of which the first `positions` answer tokens are read.
    Absent where llama.cpp is.
    """
    gguf_peers.check_device(pair)
    files = gguf_peers.files(pair)
    context = max(len(prompt) + len(answer) for prompt, answer in answers) + gguf_peers.MARGIN
    preset = preset_of(pair.name)
    fidelity = {}
    for role, file in files.items():  # one reference in fp32 is in memory at a time
        rival = gguf_peers.LlamaCpp(file, context)
        folder = models.locate(getattr(preset, role), preset)
        reference = pairs.load_lm(folder, None, pair.device, "plain", role)
        fidelity[role] = summary(measure(reference, rival.likeliest, answers, positions))
        del rival, reference
    return fidelity


def measure(reference, likeliest, answers, positions):
    """Compare two models position by position. Returns a list of (TV, H of fp32, H of the rival).

    reference: a models.LM in fp32. likeliest(tokens, count): the rival's likeliest next tokens
    after `tokens`, {id: probability}. answers, positions: see `llamacpp`.
    """
    compared = []
    for prompt, answer in track(answers, "fidelity"):
        answer = answer[: positions - len(compared)]
        if not answer:
            break
        for i, p in enumerate(answer_distributions(reference, prompt, answer)):
            compared.append(compare(p, likeliest(prompt + answer[:i], SHOWN)))
    return compared


def compare(p, q):
    """TV and both entropies of p (V,) and of q, known on its likeliest tokens: {id: probability}.

    What is not shown of q is one cell, with what p has there: so TV is a lower bound (short by less
    than either's mass in that cell), and the entropies are of the same cells and can be divided.
    """
    p = p.double()
    shown_p = p[torch.tensor(list(q))]
    shown_q = torch.tensor(list(q.values()), dtype=p.dtype)
    p_cells = torch.cat([shown_p, (1 - shown_p.sum()).clamp(min=0)[None]])
    q_cells = torch.cat([shown_q, (1 - shown_q.sum()).clamp(min=0)[None]])
    tv = 0.5 * (p_cells - q_cells).abs().sum()
    return float(tv), _entropy(p_cells), _entropy(q_cells)


def _entropy(p):
    """Entropy in nats of probabilities (n,), of which some may be 0."""
    return float(torch.special.entr(p).sum())


def summary(compared):
    """What is published: mean TV, ratio of the mean entropies, mean |ΔH| in nats, positions."""
    n = len(compared)
    h_fp32 = math.fsum(h for _, h, _ in compared)
    h_rival = math.fsum(h for _, _, h in compared)
    return {
        "tv": math.fsum(tv for tv, _, _ in compared) / n,
        "h_ratio": h_rival / h_fp32,
        "dh": math.fsum(abs(h - other) for _, h, other in compared) / n,
        "n": n,
    }
