"""Measure how far the packed models of a pair are from fp32 of the same files (make fidelity).

The target writes answers to gsm8k at temperature 1; mean TV, mean |ΔH| and the ratio of mean
entropies are printed for the draft, the exact target and the int8 target, and written to
data/results/PAIR/fidelity.json, from where `make bench` takes them. One reference in fp32 is in
memory at a time: 12 GiB should be free for a target of 1.5 billion parameters.
"""

import argparse
from dataclasses import asdict

import pandas as pd
import torch

from helpers import experiments, models, store, tasks
from helpers.decoding import decode
from helpers.methods import Autoregressive
from helpers.models import fidelity, pairs

POSITIONS = 500  # at least, which holds a TV near 0.01 to about 5 %
BATCH = 8
PATHS = {"draft": ("fast",), "target": ("fast", "int8")}


def answers(pair, problems, positions=POSITIONS):
    """(prompt, answer) token lists, written by the target at temperature 1 until they suffice."""
    texts = []
    for first in range(0, len(problems), BATCH):
        some = problems[first : first + BATCH]
        prompts = [pair.encode(p.messages) for p in some]
        keys = [experiments.key(0, p) for p in some]
        method = Autoregressive("target")
        written = decode(pair, method, prompts, keys, max_new_tokens=some[0].max_new_tokens)
        texts += [(prompt, a.tokens) for prompt, a in zip(prompts, written)]
        if sum(len(tokens) for _, tokens in texts) >= positions:
            break
    return texts


def fidelity_of(pair_name, texts):
    """Fidelity by role and path: {"draft": …, "target": …, "target, int8": …}."""
    preset = models.PAIRS[pair_name]
    device = torch.device("cpu")
    found = {}
    for role, speeds in PATHS.items():
        folder = models.locate(getattr(preset, role), preset)
        reference = pairs.load_lm(folder, None, device, "plain", role)
        for speed in speeds:
            packed = pairs.load_lm(folder, None, device, speed, role)
            name = role if speed == "fast" else f"{role}, {speed}"
            found[name] = fidelity.measure(packed, reference, texts)
            del packed
        del reference
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.fidelity", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--pair", default="qwen2.5-coder")
    given = parser.parse_args(arguments)
    pair = models.load_pair(given.pair)
    if pair.small or pair.device.type != "cpu":
        raise SystemExit(f"{given.pair} is not packed here ({pair.precision}): nothing to compare")
    made_with = experiments.provenance(pair)
    texts = answers(pair, tasks.load("gsm8k", 64))
    del pair
    by_path = {name: asdict(f) for name, f in fidelity_of(given.pair, texts).items()}
    table = pd.DataFrame([{"path": name} | values for name, values in by_path.items()])
    print(table.round(5).to_string(index=False))
    store.publish_facts(given.pair, "fidelity", fidelity=by_path, task="gsm8k", **made_with)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError, MemoryError) as error:
        raise SystemExit(f"error: {error}") from None
