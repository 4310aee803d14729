"""The page of `make gpu`: data/results/gpu/README.md, from the JSON files beside it."""

import pandas as pd

from helpers import common, store
from helpers.make.summary import markdown, paragraphs

FOLDER = "gpu"  # of data/results
PAIRS = ("pocket", "qwen2.5-coder")  # whose speeds are measured
TIMING = "qwen2.5-0.5b-7b"  # the pair that is timed only; its weights' folder below SP_MODELS
NOT_YET = (
    "**No result of a real GPU is here yet.** `make gpu` has run on a pretend GPU "
    "(tests/pretend_device.py) and in rehearsal on a CPU only; whoever has a GPU can change that."
)
REHEARSED = (
    "**A rehearsal** with tiny sizes on a CPU: the path works, and the numbers mean nothing."
)


def write():
    """Write the page beside its results."""
    store.write_text(common.results(FOLDER) / "README.md", page())


def page():
    """data/results/gpu/README.md from the JSON files beside it."""
    names = ["correctness", *PAIRS, TIMING]
    known = {name: store.facts(FOLDER, name) for name in names}
    sections = [
        "# On a GPU",
        "`make gpu` holds every decoder's greedy tokens against transformers' own, times forwards, "
        "asks the cost model, races against transformers' plain and assisted generation, and times "
        "the shapes of Qwen2.5 0.5B and 7B with random weights. It writes this page from the JSON "
        "files beside it; nothing is typed by hand.",
        _status([facts for facts in known.values() if facts]),
    ]
    for name, facts in known.items():
        if facts:
            sections.append(_section(name, facts))
    lacking = [name for name, facts in known.items() if not facts]
    if lacking and len(lacking) < len(known):
        sections.append(f"Parts of `make gpu` without a result here: {', '.join(lacking)}.")
    return paragraphs(*sections) + "\n"


def _status(results):
    """Whether a real GPU has been seen, in the first sentence."""
    measured = [facts for facts in results if "device" in facts]
    if not measured:
        return NOT_YET
    facts = measured[0]
    made = f"torch {facts['torch']}, transformers {facts['transformers']}, code {facts['code']}"
    if facts["rehearsed"]:
        return f"{REHEARSED} ({made})"
    return f"Measured on {facts['device']} on {facts['day']} ({made})."


def _section(name, facts):
    """A part of the page: what was measured, and its tables."""
    title = f"## {'Right' if name == 'correctness' else name}"
    if "left_out" in facts:
        return paragraphs(title, f"Left out: {facts['left_out']}.")
    if "failed" in facts:
        return paragraphs(title, f"**Failed**: {facts['failed']}")
    tables = {
        key: markdown(pd.DataFrame(table["data"], columns=table["columns"]))
        for key, table in facts["tables"].items()
    }
    if name == "correctness":
        return paragraphs(title, _verdict(facts), tables["decoders"])
    return paragraphs(
        title,
        _about(name, facts),
        tables["speed"],
        f"Milliseconds of a forward with scores, at a context of {facts['context']}:",
        tables["forward"],
        "What the cost model makes of these times, if every drafted token were accepted with the "
        "same probability:",
        tables["expected"],
    )


def _verdict(facts):
    """The sentences above the table of decoders."""
    if facts["exact_in_fp32"]:
        exact = "In fp32 every greedy answer of every decoder is that of transformers' generate."
    else:
        exact = "**In fp32 some greedy answers are not those of transformers' generate.**"
    return (
        f"{exact} In bf16 {100 * facts['equal_in_bf16']:.1f} % are, and "
        f"{100 * facts['same_in_bf16']:.1f} % of the tokens stand before the first difference: "
        "kernels for one token and for several round differently, so that a near-tie may fall to "
        "the other side."
    )


def _about(name, facts):
    """The sentences above the tables of a pair."""
    text = f"{facts['n']} problems of {facts['task']}, {facts['dtype']}. "
    if "weights" in facts:
        text = (
            f"**Timing only**, {facts['dtype']}: the weights are {facts['weights']}, the prompts "
            "any tokens, so what is accepted says nothing; the times of forwards and rounds do. "
        )
    share = f"{100 * facts['bandwidth_share']:.0f} %"
    text += f"AS_large reaches {share} of the memory's bandwidth."
    for rival, reason in facts["absent"].items():
        text += f" Not in the race: {rival} ({reason})."
    return text
