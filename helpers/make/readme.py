"""Fill in the generated places of the pages (make readme, and the end of make all).

A place stands between <!-- name --> and <!-- /name -->. What is written into it comes from
data/results (helpers/make/summary.py), or from the first lines of the files in helpers/. The page
of `make gpu` is written anew as a whole (helpers/make/gpu_page.py).
"""

import re

import pandas as pd

from helpers import common, store
from helpers.make import gpu_page, people, stops, summary, trainings

# The parts of helpers/, in the order in which the argument runs.
PARTS = {
    "": "the research core",
    "rules": "what is accepted",
    "stats": "what may be said",
    "models": "models",
    "decoding": "decoders",
    "tasks": "problems and grading",
    "ledger": "expected counts in place of random runs",
    "plots": "figures",
    "views": "sliders",
    "vllm": "the same rules inside vLLM",
    "make": "what the Makefile calls",
}


def code_map():
    """Every file of helpers/ with the first line of what it says about itself, part by part."""
    tables = []
    for folder, title in PARTS.items():
        place = common.ROOT / "helpers" / folder
        rows = []
        for kind in ("*.py", "*.js", "*.css"):
            for file in sorted(place.glob(kind)):
                address = file.relative_to(common.ROOT / "helpers")
                if file.name != "__init__.py":
                    rows.append({title: f"[{address}]({address})", "": first_line(file)})
        tables.append(summary.markdown(pd.DataFrame(rows)))
    return summary.paragraphs(*tables)


def first_line(file):
    """The first line of the docstring or comment that a file begins with, or ""."""
    line = file.read_text(encoding="utf-8").partition("\n")[0]
    words = re.fullmatch(r'(?:"""|//|/\*)\s*(.*?)\s*(?:"""|\*/)?', line)
    return words[1] if words else ""


PAGES = {
    "README.md": {
        "answer": summary.answer,
        "verdicts": summary.verdict_table,
        "time": summary.time_line,
    },
    "data/results/README.md": {
        "checks": lambda: summary.checks("pocket"),
        "trainings": trainings.page,
        "real": lambda: summary.checks("qwen2.5-coder"),
        "pilot": summary.pilot_table,
        "time": summary.time_table,
        "fidelity": summary.fidelity,
        "scores": summary.scores,
        "bench": summary.benchmark,
    },
    "data/results/DEPLOYING.md": {
        "people": people.recommendations,
        "answer": summary.answer,
        "speed": summary.speed_table,
        "gates": summary.gate_table,
        "gammas": summary.gamma_table,
        "stops": stops.table,
        "place": summary.gate_answer,
        "equal": summary.equal_table,
        "tasks": summary.task_table,
    },
    "helpers/README.md": {"map": code_map},
}


def fill(text, name, body, page="README.md"):
    """Replace what stands between <!-- name --> and <!-- /name -->."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, re.S):
        raise ValueError(f"{page} has no place marked <!-- {name} --> … <!-- /{name} -->")
    # A table right below a comment would be read as part of the comment: blank lines around it.
    return re.sub(pattern, lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text, flags=re.S)


def filled(page):
    """The text of a page with all its places filled in."""
    text = (common.ROOT / page).read_text(encoding="utf-8")
    for name, body in PAGES[page].items():
        text = fill(text, name, body(), page)
    return text


def main():
    if common.OUT != common.ROOT:
        print(f"the pages of this checkout stay as they are: SP_OUT keeps results in {common.OUT}")
        return
    for page in PAGES:
        store.write_text(common.ROOT / page, filled(page))
    gpu_page.write()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
