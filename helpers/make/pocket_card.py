"""Measure the shipped pocket models and write their model card, data/pocket/README.md (the end of `make pocket`)."""

import json

from helpers import common, experiments, models, tasks
from helpers.methods import Autoregressive
from helpers.tasks.corpus import DOMAINS

N = 200
TEXT = """# The pocket models

A target, a general draft, and three experts of the draft's size (mathematics, code, law): Qwen2-style decoders with one tokenizer
of {vocab} tokens (byte-level BPE, single digits), trained from random weights by this project on a corpus that a program writes. They are
made for studying decoding on a laptop, know nothing about the world, and are good for nothing else.

**Data.** Seven domains (`helpers/tasks/corpus.py`): {domains}. Names and facts are invented. A question belongs to the held-out tenth when a hash
of its text says so, so no training document can hold a test question. `make pocket` repeats the training from its seeds.

| model | layers × width | parameters | steps | tokens | last loss, nats | seed | minutes on 2 CPU cores |
|---|---|---|---|---|---|---|---|
{training}

**Measured**: share of right answers on {n} held-out problems per domain, temperature 1, one answer each. News and facts are closed book, stories are graded by
whether they keep what was asked for.

| domain | {names} |
|---|{bars}|
{scores}

**Cost**: one forward of one token takes {draft_ms:.2f} ms (draft) and {target_ms:.2f} ms (target) on {device}, a ratio of {ratio:.2f}.

**Licence.** MIT, like the code that made them. No third-party text, weights or tokenizer went into them.
"""


def main():
    pair = models.load_pair("pocket", experts=True)
    methods = [
        Autoregressive(name, label)
        for name, label in (
            ("target", "target"),
            ("draft", "draft"),
            *((e, f"expert-{e}") for e in pair.experts),
        )
    ]
    scores = []
    for domain in DOMAINS:
        rows = experiments.run(pair, methods, tasks.load(f"pocket-{domain}", N))
        mean = rows.groupby("method").score.mean()
        scores.append(f"| {domain} | " + " | ".join(f"{mean[m.label]:.0%}" for m in methods) + " |")
    training = []
    for m in methods:
        folder = common.DATA / "pocket" / m.label
        fact, config = (
            json.loads((folder / f).read_text()) for f in ("training.json", "config.json")
        )
        training.append(
            f"| {m.label} | {config['num_hidden_layers']} × {config['hidden_size']} | {fact['parameters']:,} | {fact['steps']} | "
            f"{fact['tokens'] / 1e6:.1f}M | {fact['loss']:.3f} | {fact['seed']} | {fact['seconds'] / 60:.0f} |"
        )
    ms = experiments.forward_times(pair, widths=(1,)).set_index("model").seconds * 1000
    (common.DATA / "pocket" / "README.md").write_text(
        TEXT.format(
            vocab=pair.target.vocab_size,
            domains=", ".join(DOMAINS),
            training="\n".join(training),
            n=N,
            names=" | ".join(m.label for m in methods),
            bars="|".join("---" for _ in methods),
            scores="\n".join(scores),
            draft_ms=ms["draft"],
            target_ms=ms["target"],
            ratio=ms["draft"] / ms["target"],
            device=experiments.provenance(pair)["device"],
        )
    )


if __name__ == "__main__":
    main()
