"""Fill in the README's generated tables from data/results: `python -m helpers.make.readme` (part of make all)."""

import json
import re

import pandas as pd

from helpers import common
from helpers.make import summary

NOTEBOOKS = {
    "01_entropy_vs_errors": "the draft's entropy peaks where the draft goes wrong",
    "02_entropy_selective": "calling the target only where H(q) > τ restores its accuracy",
    "03_main_benchmark": "speculation pays, and relaxing it where the draft is sure pays more",
    "04_acceptance_anatomy": "relaxed tokens are harmless where entropy is low",
    "05_threshold_sensitivity": "there is a τ with more speed at equal accuracy",
    "06_dynamic_gamma": "drafting on while entropy is low beats a fixed γ",
    "07_aggressive_gamma": "accepting everything at low entropy breaks the γ ceiling",
    "08_cross_task": "open-ended writing gains less than tasks with an answer",
    "09_expert_routing": "the expert with least entropy should take over",
}
# the tables of notebooks/README.md
PAGE = {
    "short": summary.short_answer,
    "speed": summary.speed_table,
    "task": summary.task_table,
    "tau": summary.tau_table,
    "gamma": summary.gamma_table,
    "equal": summary.equal_table,
}


def facts(pair, number):
    """A notebook's published verdict for a pair, or None."""
    file = common.OUT / "data" / "results" / pair / f"{number}.json"
    return json.loads(file.read_text()) if file.exists() else None


def _verdict(f):
    """The word for the whole claim, and for each of its checks."""
    each = "; ".join(f"{claim}: *{word}*" for claim, word in f.get("checks", {}).items())
    return f"**{f['verdict']}**" + (f"<br>{each}" if each else "")


def verdict_table(pair):
    """Markdown: one row per notebook that is there, with its verdict on this pair."""
    lines = [
        "| notebook | the claim under test | verdict | measured | pilot |",
        "|---|---|---|---|---|",
    ]
    for name, claim in NOTEBOOKS.items():
        if not (common.ROOT / "notebooks" / f"{name}.ipynb").exists():
            continue
        f = facts(pair, name[:2])
        found = (
            (_verdict(f), f"{f['effect']} ({sizes(pair, name[:2])})", f["pilot"])
            if f
            else ("not run", "", "")
        )
        lines.append(f"| [`{name}`](notebooks/{name}.ipynb) | {claim} | {' | '.join(found)} |")
    return "\n".join(lines)


def real_table(pair="qwen2.5-coder"):
    """Markdown: the verdicts of the notebooks that have been run on the real pair, then of its runs with other settings."""
    lines = [f"| notebook | verdict on {pair} | measured |", "|---|---|---|"]
    for name in NOTEBOOKS:
        for run in summary.runs(pair):
            if f := facts(run, name[:2]):
                book = f"data/results/{run}/notebooks/{name}.ipynb"
                title = f"[`{name}`]({book})" + (f"<br>{run.split('/')[1]}" if run != pair else "")
                lines.append(
                    f"| {title} | {_verdict(f)} | {f['effect']} ({sizes(run, name[:2])}) |"
                )
    return (
        "\n".join([*lines, "", record(pair)])
        if len(lines) > 2
        else f"No notebook has been run on {pair} yet."
    )


def record(pair):
    """One sentence: the weights, the machine, the libraries and the days of a pair's published results."""
    home = common.OUT / "data" / "results" / pair
    files = [
        file
        for file in sorted(home.glob("**/[0-9][0-9]_*.parquet"))
        if file.parent.name != "figures"
    ]
    rows = pd.concat(
        [
            pd.read_parquet(
                file, columns=["revision", "speed", "device", "dtype", "torch", "transformers"]
            )
            for file in files
        ]
    )
    days = sorted(
        {
            t["date"]
            for file in home.glob("**/times.json")
            for t in json.loads(file.read_text()).values()
        }
    )
    found = {name: ", ".join(sorted(rows[name].unique())) for name in rows}
    when = (
        f" from {days[0]} to {days[-1]}" if len(days) > 1 else f" on {days[0]}" if days else ""
    )  # JupyterLab notes no day
    return (
        f"Executed{when} on {found['device']} ({found['dtype']}, layers {found['speed']}), torch "
        f"{found['torch']}, transformers {found['transformers']}; checksums of the weights: {found['revision']}. Every row of the tables in "
        f"`data/results/{pair}/` carries these."
    )


def time_table(pair="pocket"):
    """Markdown: what each notebook took when it was last executed, and on what."""
    file = common.OUT / "data" / "results" / pair / "times.json"
    times = json.loads(file.read_text()) if file.exists() else {}
    if not times:
        return "No notebook has been timed yet."
    total, one = sum(t["seconds"] for t in times.values()), next(iter(times.values()))
    machine = "with a GPU" if one["gpu"] else f"on {one['cores']} CPU cores"
    each = ", ".join(f"{name[:2]} {t['seconds']} s" for name, t in sorted(times.items()))
    return f"`make all` on the pocket pair took {total / 60:.0f} minutes {machine} ({each}), after about two minutes of set-up."


def bench_table(pair):
    """Markdown: the benchmark of a pair, when make bench has been run on it."""
    f = facts(pair, "bench")
    if f is None:
        return f"The benchmark has not been run on {pair} yet."
    columns = ("method", "tokens/s", "÷ AS_large", "÷ best peer", "draft", "verify", "host")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in f["table"]]
    achieved = ", ".join(f"{name} {share:.2f}" for name, share in f["achieved"].items())
    gammas = ", ".join(f"{name} {gamma}" for name, gamma in f["gammas"].items())
    return "\n".join(
        [
            f"**`{pair}`**, {f['n']} problems of {f['task']}, one answer at a time, {f['device']}, torch {f['torch']}, "
            f"transformers {f['transformers']}:",
            "",
            *lines,
            "",
            f"Best γ (cap of the dynamic one): {gammas}. Achieved ÷ limit: {achieved}. Peak memory of our methods "
            f"{f['peak_gib']:.1f} GiB.",
            *(line for model, times in f["linears"].items() for line in _linears(model, times)),
        ]
    )


def _linears(model, times):
    """Markdown: milliseconds of all linear layers of the draft or the target, by kind and number of tokens."""
    widths = list(next(iter(times.values())))
    return [
        "",
        f"All linear layers of the {model}, milliseconds, by how many tokens go through at once:",
        "",
        "| linear layers | " + " | ".join(widths) + " |",
        "|---" * (len(widths) + 1) + "|",
        *(
            f"| {name} | "
            + " | ".join(f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}" for ms in row.values())
            + " |"
            for name, row in times.items()
        ),
    ]


def joined(table):
    """A generated table of both pairs, one under the other; those of notebook 05 of a pair's other runs too."""
    runs = [
        run
        for pair in summary.PAIRS
        for run in (
            summary.runs(pair) if table in (summary.tau_table, summary.equal_table) else [pair]
        )
    ]
    found = [
        table(run)
        for run in runs
        if run in summary.PAIRS or summary.published(run, "05_answers") is not None
    ]
    return ("\n" if table is summary.short_answer else "\n\n").join(found)


TIMED = {
    "03": "SP",
    "05": "SP",
    "06": "SP fixed γ",
    "07": "Selective",
}  # a method that is timed on the reported problems only


def sizes(run, number):
    """How many problems are behind a notebook's verdict: answered, and timed."""
    f, times = (
        facts(run, number),
        summary.published(run, f"{number}_times") if number in TIMED else None,
    )
    timed = (
        ""
        if times is None
        else f", {times[times.method == TIMED[number]].problem_id.nunique()} of them timed"
    )
    return f"{f['task']}, {f['n']} problems{timed}" + (
        "; τ chosen on half of them" if number == "05" else ""
    )


def fill(text, name, body):
    """Replace what stands between <!-- name --> and <!-- /name -->."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(pattern, text, re.S):
        raise ValueError(f"README.md has no place marked <!-- {name} --> … <!-- /{name} -->")
    return re.sub(pattern, lambda m: m.group(1) + body + "\n" + m.group(2), text, flags=re.S)


if __name__ == "__main__":
    readme = common.ROOT / "README.md"
    text = readme.read_text()
    text = fill(text, "verdicts", verdict_table("pocket"))
    text = fill(text, "real", real_table())
    text = fill(text, "pilot", summary.pilot_table())
    text = fill(text, "time", time_table())
    text = fill(
        text, "bench", "\n\n".join(bench_table(pair) for pair in ("pocket", "qwen2.5-coder"))
    )
    readme.write_text(text)
    page = common.ROOT / "notebooks" / "README.md"
    text = page.read_text()
    for name, table in PAGE.items():
        text = fill(text, name, joined(table))
    page.write_text(text)
