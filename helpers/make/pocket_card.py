"""Measure the shipped pocket models and write their model card, data/pocket/README.md.

This is the end of `make pocket`.
"""

import json

import pandas as pd

from helpers import common, experiments, models, store, tasks
from helpers.methods import Autoregressive
from helpers.tasks.corpus import DOMAINS

FOLDER = common.DATA / "pocket"
N = 200  # problems per domain

TEXT = """# The pocket models

A target, a general draft, and three experts of the draft's size (mathematics, code, law):
Qwen2-style decoders with one tokenizer of {vocab} tokens (byte-level BPE, single digits), trained
from random weights by this project on a corpus that a program writes. They are made for studying
decoding on a laptop, know nothing about the world, and are good for nothing else.

**Data.** Seven domains (`helpers/tasks/corpus.py`):
{domains}. Names and facts are invented. A
question belongs to the held-out tenth when a hash of its text says so, so no training document can
hold a test question. `make pocket` repeats the training from its seeds.

{training}

**Measured**: share of right answers on {n} held-out problems per domain, temperature 1, one answer
each. News and facts are closed book, stories are graded by whether they keep what was asked for.

{scores}

**Cost**: one forward of one token takes {draft_ms:.2f} ms (draft) and {target_ms:.2f} ms (target)
on {device}, a ratio of {ratio:.2f}.

**Licence.** MIT, like the code that made them. No third-party text, weights or tokenizer went into
them.
"""


def training_table(names):
    """How each model was trained, from the two files beside its weights: a Markdown table."""
    rows = []
    for name in names:
        training = json.loads((FOLDER / name / "training.json").read_text())
        config = json.loads((FOLDER / name / "config.json").read_text())
        row = {
            "model": name,
            "layers × width": f"{config['num_hidden_layers']} × {config['hidden_size']}",
            "parameters": f"{training['parameters']:,}",
            "steps": f"{training['steps']}",
            "tokens": f"{training['tokens'] / 1e6:.1f}M",
            "last loss, nats": f"{training['loss']:.3f}",
            "seed": f"{training['seed']}",
            "minutes on 2 CPU cores": f"{training['seconds'] / 60:.0f}",
        }
        rows.append(row)
    return markdown(rows)


def score_table(pair, methods):
    """The share of right answers of every method in every domain: a Markdown table."""
    rows = []
    for domain in DOMAINS:
        answers = experiments.run(pair, methods, tasks.load(f"pocket-{domain}", N))
        mean = answers.groupby("method").score.mean()
        shares = {method.label: f"{100 * mean[method.label]:.0f} %" for method in methods}
        rows.append({"domain": domain, **shares})
    return markdown(rows)


def markdown(rows):
    """Rows of text as a Markdown table."""
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def main():
    pair = models.load_pair("pocket", experts=True)
    methods = [Autoregressive("target", "target"), Autoregressive("draft", "draft")]
    methods += [Autoregressive(expert, f"expert-{expert}") for expert in pair.experts]
    times = experiments.forward_times(pair, widths=(1,))
    milliseconds = times.set_index("model").seconds * 1000
    card = TEXT.format(
        vocab=pair.target.vocab_size,
        domains=", ".join(DOMAINS),
        training=training_table([method.label for method in methods]),
        n=N,
        scores=score_table(pair, methods),
        draft_ms=milliseconds["draft"],
        target_ms=milliseconds["target"],
        ratio=milliseconds["draft"] / milliseconds["target"],
        device=experiments.provenance(pair)["device"],
    )
    store.write_text(FOLDER / "README.md", card)


if __name__ == "__main__":
    main()
