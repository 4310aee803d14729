"""What the generated pages show, rendered from the record that the notebooks publish.

A notebook writes its verdict, its numbers and its tables to data/results/PAIR/NN.json
(`store.publish_facts`); each function here returns the Markdown of one generated place. Nothing is
computed again. A *run* is a pair, or PAIR/RUN for a pair's run with settings of its own. What a
record lacks is shown as –.
"""

import re
import textwrap
from dataclasses import dataclass
from functools import partial

import nbformat
import pandas as pd

from helpers import common, drift, store
from helpers.make import notebooks
from helpers.stats import Interval

PAIRS = ("pocket", "qwen2.5-coder")  # the columns of the pages
DASH = "–"
CLAIM_WIDTH = 82  # keeps a row of the README's table within 160 characters
SHORT = {"holds": "holds", "does not hold": "refuted"}  # every other verdict is "undecided"
NARROW = 0.05  # the width of a ratio's interval below which it is shown with three digits
PAYS = "SP is faster than AS_large"  # a claim of notebook 03
STAND_IN = "gpu"  # the run of a pair that speaks where the pair's own was not made


# ---- the record --------------------------------------------------------------------------------


def folder(run):
    return common.OUT / "data" / "results" / run


def runs(pair):
    """The pair itself, then its runs with settings of their own: [PAIR, "PAIR/humaneval", ...].

    What somebody has tried in JupyterLab is no part of the record.
    """
    names = [f.name for f in sorted(folder(pair).glob("*/")) if any(f.glob("[0-9][0-9].json"))]
    return [pair, *(f"{pair}/{name}" for name in names if name != common.LAB)]


def every_run():
    """The runs of all pairs of the pages, one list."""
    return [run for pair in PAIRS for run in runs(pair)]


def made(pair, notebook):
    """The run that speaks for a pair: its own, or PAIR/gpu where a notebook was run there only."""
    other = f"{pair}/{STAND_IN}"
    return other if facts(other, notebook) and not facts(pair, notebook) else pair


def elsewhere(pair):
    """Which notebooks another run of a pair speaks for, in a sentence; "" where none."""
    keys = [key for key in notebooks.available() if made(pair, key) != pair]
    return f"{pair} {_ranges(keys)}: its run {STAND_IN}." if keys else ""


def facts(run, notebook):
    """What a notebook (its number) published for a run; an empty dict where nothing is."""
    return store.facts(run, notebook) or {}


def number(run, notebook, name):
    """One published number (Interval), or None."""
    found = facts(run, notebook).get("numbers", {}).get(name)
    return Interval(**found) if found else None


def shown(run, notebook, name, digits=2, percent=False):
    """One published number as text, or –."""
    interval = number(run, notebook, name)
    return interval.show(digits, percent=percent) if interval else DASH


def points(run, notebook, name):
    """One published difference of accuracies as text, or –."""
    interval = number(run, notebook, name)
    return interval.points() if interval else DASH


def table(run, notebook, name):
    """One published table (DataFrame of texts), or None."""
    found = facts(run, notebook).get("tables", {}).get(name)
    return pd.DataFrame(found["data"], columns=found["columns"]) if found else None


# ---- Markdown ----------------------------------------------------------------------------------


def markdown(frame):
    """A DataFrame of texts as a Markdown table; a missing cell is –."""
    cells = frame.astype(object).where(frame.notna(), DASH).map(str)
    cells = cells.map(lambda text: text.replace("|", "\\|").replace("\n", " "))
    # Without disable_numparse "1.00" would be written as 1.
    return cells.to_markdown(index=False, disable_numparse=True)


def tight(table):
    """A Markdown table without what lines its columns up: the first page has little room."""
    return re.sub(r":-+\|", ":--|", re.sub(r"(?<=[^|\s]) +\|", " |", table))


def paragraphs(*parts):
    """Markdown parts with a blank line between them; empty ones are left out."""
    return "\n\n".join(part for part in parts if part)


def note(pair):
    """The sentence that belongs to every result of a pair: data/results/PAIR/note.txt, or ""."""
    file = folder(pair) / "note.txt"
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def notes(pairs=PAIRS):
    """The sentences that belong to the results in a table, to stand below it."""
    return "\n".join(f"¹ {pair}: {note(pair)}." for pair in pairs if note(pair))


def marked(run):
    """A run's name, with ¹ where a sentence belongs to all results of its pair."""
    return f"{run}¹" if note(run.split("/")[0]) else run


def standing(run, notebook):
    """'registered' where a run kept to a plan that was committed before it, else 'exploratory'."""
    found = facts(run, notebook).get("registered") or {}
    return "registered" if found.get("status") == "registered" else "exploratory"


def standing_of_all(run, notebook):
    """The same with what a registered run reports beside its plan: 'registered, but for …'."""
    word = standing(run, notebook)
    beside = (facts(run, notebook).get("registered") or {}).get("exploratory", [])
    return f"{word}, but for: {', '.join(beside)}" if beside and word == "registered" else word


def standings():
    """Which notebooks' results are registered and which are exploratory, in a line."""
    meanings = {"registered": "run by a plan committed before it", "exploratory": "not so"}
    parts = []
    for word, meaning in meanings.items():
        found = []
        for pair in PAIRS:
            published = [key for key in notebooks.available() if facts(made(pair, key), key)]
            keys = [key for key in published if standing(made(pair, key), key) == word]
            if keys:
                found.append(f"{pair} {_ranges(keys)}")
        if found:
            parts.append(f"*{word.capitalize()}* ({meaning}): {', '.join(found)}.")
    return " ".join(parts)


def _ranges(keys):
    """'01 to 03, 05' of ascending numbers."""
    spans = []
    for key in keys:
        if spans and int(key) == int(spans[-1][-1]) + 1:
            spans[-1] = [spans[-1][0], key]
        else:
            spans.append([key])
    return ", ".join(" to ".join(span) for span in spans)


def sizes(run, notebook):
    """How many problems are behind a notebook's numbers: answered, and timed."""
    known = facts(run, notebook)
    text = f"{known.get('task', DASH)}, {known.get('n', DASH)} problems"
    return f"{text}, {known['timed']} timed as a check" if known.get("timed") else text


def tuning_size(run, notebook):
    """On how many problems settings were tuned; none of them is among those reported."""
    known = facts(run, notebook)
    return f"{known.get('task', DASH)}, {known.get('n_tuned', DASH)} tuning problems"


def reading_size(run, notebook):
    """How many problems were answered, and how many of these answers were read for KL."""
    known = facts(run, notebook)
    return f"{sizes(run, notebook)}, {known.get('n_read', DASH)} answers read for KL"


def task_size(run, notebook):
    """How many problems of each task were answered and timed, and how."""
    known = facts(run, notebook)
    return (
        f"γ = {known.get('gamma', DASH)}, {known.get('n_per_task', DASH)} problems per task, "
        f"{known.get('timed_per_task', DASH)} timed as a check, for at most "
        f"{known.get('max_new_tokens', DASH)} tokens"
    )


def stacked(notebook, name, sizes=sizes, extended=lambda run, frame: frame):
    """One Markdown table of a table that a notebook published in several runs.

    sizes: (run, notebook) -> how many problems are behind it, in words; extended: (run, table) ->
    the table with further columns.
    """
    frames = []
    samples = []
    for run in every_run():
        frame = table(run, notebook, name)
        if frame is not None:
            frame = extended(run, frame)
            frame.insert(0, "pair", marked(run))
            frames.append(frame)
            samples.append(f"{run}: {sizes(run, notebook)}, {standing_of_all(run, notebook)}")
    if not frames:
        return f"Notebook {notebook} has not published this table yet."
    together = pd.concat(frames, ignore_index=True)
    columns = sorted(together, key=_block_length)
    return paragraphs(markdown(together[columns]), f"Sizes: {'; '.join(samples)}.", notes())


def _block_length(column):
    """The sort key of columns: those named "γ = N" by N, after the others in their order."""
    length = re.fullmatch(r"γ = (\d+)", column)
    return int(length.group(1)) if length else 0


# ---- README.md ---------------------------------------------------------------------------------


def _against(interval, middle, above, below, undecided):
    """In words, on which side of `middle` an interval lies."""
    if interval.missing or interval.low <= middle <= interval.high:
        return undecided
    return above if interval.low > middle else below


def _speed(run, name, claim):
    """'faster, 1.49 [1.38, 1.59] × (1.43 to 1.62 in 3 runs); faster where the draft costs …'"""
    gain = number(run, "03", name)
    if gain is None:
        return f"speed {DASH}"
    digits = 3 if gain.high - gain.low < NARROW else 2
    text = f"{_against(gain, 1, 'faster', 'slower', 'speed undecided')}, {gain.show(digits)} ×"
    runs = facts(run, "03").get("runs", {}).get(name, [])
    ends = drift.spread(runs)
    if ends:
        text += f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f} in {len(runs)} runs)"
    where = _where(run, claim)
    return f"{text}; shown to be faster {where}" if where else text


def _where(run, claim):
    """Where a claim of notebook 03 holds: 'where the draft costs …', or "" if that is unknown."""
    return facts(run, "03").get("regions", {}).get(claim, "").removeprefix(f"{claim} ")


def _accuracy(run, notebook, name, as_accurate=""):
    """'less accurate, -1.5 points [-2.5, -0.7]'

    as_accurate: the notebook's check that the change is within its margin, where it has one.
    """
    change = number(run, notebook, name)
    if change is None:
        return f"accuracy {DASH}"
    word = _against(change, 0, "more accurate", "less accurate", "accuracy undecided")
    within = facts(run, notebook).get("checks", {}).get(as_accurate) == "holds"
    if within and change.high < 0:
        word += " by less than the notebook's margin"
    return f"{word}, {change.points()}"


def answer():
    """Three lines: SP against the target, SP_entropy against SP, entropy against chance."""

    def speculation(run):
        return _speed(run, "sp_over_large", PAYS)

    def relaxing(run):
        faster = _speed(run, "entropy_over_sp", "SP_entropy is faster than SP")
        change = _accuracy(run, "03", "accuracy_change", "SP_entropy is as accurate as SP")
        return f"{faster}; {change}"

    def placing(run):
        return _accuracy(run, "05", "over_random")

    questions = {
        "SP against the target alone": (speculation, "03"),
        "SP_entropy against SP": (relaxing, "03"),
        "The entropy gate against random positions that save as many calls": (placing, "05"),
    }
    lines = []
    for question, (found, key) in questions.items():
        runs = [made(pair, key) for pair in PAIRS]
        each = [f"*{marked(run)}*: {found(run)}" for run in runs if facts(run, key)]
        lines.append(f"- **{question}.** {'. '.join(each) or DASH}.")
    return paragraphs("\n".join(lines), _sizes_of_the_answer(), notes())


def _sizes_of_the_answer():
    """The first two lines are from notebook 03, the third one is from notebook 05."""
    each = []
    missing = []
    for pair in PAIRS:
        if facts(pair, "03"):
            third = facts(made(pair, "05"), "05").get("n", DASH)
            each.append(f"{pair}: {sizes(pair, '03')}; {third} in the third line")
        not_run = [key for key in ("03", "05") if not facts(made(pair, key), key)]
        if not_run:
            missing.append(f"{pair} {' and '.join(not_run)}")
    sentences = [f"Sizes: {'. '.join(each)}."] if each else []
    if missing:
        sentences.append(f"Not run yet: {', '.join(missing)}.")
    return " ".join(sentences)


def claim(file, run="pocket"):
    """What a notebook claims, in a sentence: from its record, or else from its title."""
    recorded = facts(run, file.name[:2]).get("claim")
    return recorded or notebooks.title(nbformat.read(file, 4))


def _executed(run, file, root=""):
    """The address of an executed notebook; `root` is the way from the page to the repository."""
    if run == "pocket":
        return f"{root}notebooks/{file.name}"
    return f"{root}data/results/{run}/notebooks/{file.name}"


def verdict_table():
    """One short row per notebook: its claim and one word for each pair, linked by reference.

    Beneath it, which of them are registered. What ¹ means the page says with its answer.
    """
    rows = []
    links = []
    for key, file in notebooks.available().items():
        words = textwrap.shorten(claim(file), CLAIM_WIDTH, placeholder=" …")
        row = {"notebook": f"[{file.stem}][{key}]", "claim": words}
        for pair in PAIRS:
            label = key if pair == "pocket" else f"{key}r"
            run = made(pair, key)
            verdict = facts(run, key).get("verdict")
            row[marked(pair)] = DASH
            if verdict:
                row[marked(pair)] = f"[{SHORT.get(verdict, 'undecided')}][{label}]"
            if verdict or label == key:
                links.append(f"[{label}]: {_executed(run, file)}")
        rows.append(row)
    failed = paragraphs(*(failures(pair) for pair in PAIRS))
    table = tight(markdown(pd.DataFrame(rows)))
    other_runs = " ".join(filter(None, map(elsewhere, PAIRS)))
    return paragraphs(table, f"{standings()} {other_runs}".strip(), failed, "\n".join(links))


def failures(run):
    """Which notebooks failed when they were last executed, and why; "" where none did."""
    failed = store.read_json(folder(run) / notebooks.FAILED) or {}
    each = [f"{name} on {known['date']} ({known['reason']})" for name, known in failed.items()]
    if not each:
        return ""
    return (
        f"Failed at their last execution on {run}, so that what is said of them is older: "
        f"{'; '.join(each)}."
    )


def time_line(pair="pocket"):
    """What `make all` took when it was last executed, and on what."""
    times = _times(pair)
    if not times:
        return "No notebook has been timed yet."
    total = sum(t["seconds"] for t in times.values())
    return (
        f"`make all` on the {pair} pair took {total / 60:.0f} minutes {_machine(times)}, after "
        "about two minutes of set-up."
    )


def _times(pair):
    return store.read_json(folder(pair) / "times.json") or {}


def _machine(times):
    any_of_them = next(iter(times.values()))
    return "with a GPU" if any_of_them["gpu"] else f"on {any_of_them['cores']} CPU cores"


# ---- data/results/README.md --------------------------------------------------------------------


def checks(pair):
    """Check by check, then what was measured: every notebook in every run of one pair."""
    parts = []
    for run in runs(pair):
        published = [f for k, f in notebooks.available().items() if facts(run, k)]
        if published:
            parts += [
                f"### {marked(run)}",
                markdown(pd.DataFrame(_check_rows(run, published))),
                failures(run),
                "\n".join(_measured_line(run, file.name[:2]) for file in published),
                record(run),
            ]
    if not parts:
        return f"No notebook has been run on {pair} yet."
    return paragraphs(*parts, notes([pair]))


def _check_rows(run, published):
    """One row per check; a notebook's name and verdict stand in the first of its rows."""
    rows = []
    for file in published:
        known = facts(run, file.name[:2])
        name = f"[{file.stem}]({_executed(run, file, root='../../')})"
        verdict = f"**{known['verdict']}**, {standing(run, file.name[:2])}"
        for check, word in (known.get("checks") or {DASH: DASH}).items():
            rows.append({"notebook": name, "verdict": verdict, "check": check, "found": word})
            name = verdict = ""
    return rows


def _measured_line(run, key):
    """What a notebook measured, on how much, and the pilot's number: an item of a list."""
    known = facts(run, key)
    effect = known.get("effect", DASH)
    measured = f"- **{key}** {effect} ({sizes(run, key)}). Pilot: {known.get('pilot', DASH)}."
    return measured + _beside_the_plan(run, key)


def _beside_the_plan(run, key):
    """What differs from a notebook's plan, or else what it reports beside it; "" for neither."""
    found = facts(run, key).get("registered") or {}
    if found.get("differs"):
        return f" Not as planned: {'; '.join(found['differs'])}."
    if found.get("exploratory"):
        return f" Beside its plan, deciding nothing: {'; '.join(found['exploratory'])}."
    return ""


def record(run):
    """One sentence: the weights, the machine, the libraries and the days of a run's results."""
    tables = sorted(folder(run).glob("[0-9][0-9]_*.parquet"))
    if not tables:
        return ""
    columns = ["revision", "speed", "device", "dtype", "torch", "transformers"]
    rows = pd.concat([pd.read_parquet(file, columns=columns) for file in tables])
    of = {name: ", ".join(sorted(rows[name].unique())) for name in columns}
    return (
        f"Executed {_days(run)}on {of['device']} ({of['dtype']}, layers {of['speed']}), torch "
        f"{of['torch']}, transformers {of['transformers']}; checksums of the models' folders: "
        f"{of['revision']}. Every row of the tables in `data/results/{run}/` carries these."
    )


def _days(run):
    """'on 2026-11-25 ', 'from … to … ', or '' (JupyterLab notes no day)."""
    days = sorted({known["date"] for known in _times(run).values()})
    if not days:
        return ""
    return f"on {days[0]} " if len(days) == 1 else f"from {days[0]} to {days[-1]} "


@dataclass(frozen=True)
class Remeasured:
    """A number of the pilot, the published numbers that measure it again, and why they differ."""

    what: str
    notebook: str
    pilot: str
    names: tuple  # of numbers in the notebook's record; several are shown with arrows between
    why: str
    digits: int = 2
    percent: bool = False


PILOT = (
    Remeasured(
        "mean entropy, wrong ÷ right answers",
        "01",
        "several times",
        ("entropy_ratio",),
        "Right answers hold unsure tokens too: token by token, entropy identifies on both pairs "
        "what the target rejects (AUROC in notebook 01), answer by answer much less on pocket.",
    ),
    Remeasured(
        "tokens by the target at τ = 0.15",
        "02",
        "14.2 %",
        ("target_share",),
        "How often H(q) exceeds a fixed τ is a property of the draft: one τ opens different "
        "shares on different pairs.",
        digits=1,
        percent=True,
    ),
    Remeasured(
        "accuracy, draft → τ = 0.15 → target",
        "02",
        "20 % → 80 % → 80 %",
        ("accuracy_draft", "accuracy_selective", "accuracy_target"),
        "So few problems cannot tell the pilot's accuracies apart; the pairs' targets differ in "
        "what they can do.",
        digits=0,
        percent=True,
    ),
    Remeasured(
        "tokens/s, AS_large → SP_entropy",
        "03",
        "27.5 → 21.7",
        ("speed_AS_large", "speed_SP_entropy"),
        "Other hardware and other sizes: only ratios can be compared between columns.",
        digits=1,
    ),
    Remeasured(
        "SP_entropy ÷ AS_large",
        "03",
        "0.79",
        ("entropy_over_large",),
        "Speculation pays when drafting and verifying a block costs less than writing its "
        "tokens one by one (the layer tables below show the costs here); the pilot's loop was "
        "not optimised.",
    ),
    Remeasured(
        "accept ratio, SP → τ = 1",
        "05",
        "36.7 % → 37.5 %",
        ("accept_SP", "accept_tau_1"),
        "Acceptance depends on how alike the two models are; a τ of 1 changes it little.",
        digits=1,
        percent=True,
    ),
    Remeasured(
        "tokens/s, SP → τ = 1",
        "05",
        "21.2 → 21.4",
        ("speed_SP", "speed_tau_1"),
        "The two speeds here are of the same problems, so that their ratio is known far better "
        "than either of them (the gates' table on the page on deploying).",
        digits=1,
    ),
    Remeasured(
        "drafted per round, cap 12",
        "06",
        "3.82",
        ("drafted_per_round",),
        "The pocket draft is sure of most of its tokens, so it drafts on longer before its "
        "entropy stops it.",
    ),
    Remeasured(
        "accept ratio, fixed γ → entropy stop",
        "06",
        "65.2 % → 79.2 %",
        ("accept_fixed", "accept_stop"),
        "The direction is the same: stopping where entropy is high wastes fewer drafts.",
        digits=1,
        percent=True,
    ),
    Remeasured(
        "tokens/s, fixed γ → entropy stop",
        "06",
        "21.9 → 23.9",
        ("speed_fixed", "speed_stop"),
        "The baseline here is the best fixed γ; in the pilot it was one fixed γ.",
        digits=1,
    ),
)


def pilot_table():
    """The pilot's numbers beside ours with their sample sizes, and why they differ."""
    rows = []
    reasons = []
    for line in PILOT:
        row = {"notebook": line.notebook, "number": line.what, "pilot": line.pilot}
        for pair in PAIRS:
            row[marked(pair)] = _measured_again(made(pair, line.notebook), line)
        rows.append(row)
        reasons.append(f"- {line.notebook}, {line.what}: {line.why}")
    return paragraphs(markdown(pd.DataFrame(rows)), notes(), "\n".join(reasons))


def _measured_again(run, line):
    """Our values with arrows between, and on how many problems; – where there is none."""
    found = [number(run, line.notebook, name) for name in line.names]
    known = [interval for interval in found if interval]
    if not known:
        return DASH
    values = [shown(run, line.notebook, n, line.digits, line.percent) for n in line.names]
    where = f", {STAND_IN}" if run.endswith(f"/{STAND_IN}") else ""
    return f"{' → '.join(values)} (n = {known[0].n}{where})"


def time_table():
    """What each notebook took, run by run: seconds."""
    rows = []
    for run in every_run():
        times = _times(run)
        if times:
            row = {"seconds": f"{marked(run)}, {_machine(times)}"}
            row |= {name[:2]: str(t["seconds"]) for name, t in sorted(times.items())}
            rows.append(row)
    return markdown(pd.DataFrame(rows)) if rows else "No notebook has been timed yet."


# The columns of the race that are shown, where a record has them.
RACE = (
    "method",
    "tokens/s",
    "÷ AS_large",
    "÷ best peer",
    "TV from fp32",
    "H ÷ fp32",
    "draft",
    "verify",
    "host",
)


def benchmark():
    """The race of `make bench` and the cost of the linear layers, one pair after the other."""
    return paragraphs(*(_benchmark(pair) for pair in PAIRS), notes())


def fidelity(pair="qwen2.5-coder"):
    """What `make fidelity` found: how far the packed layers are from fp32 of the same file."""
    known = facts(pair, "fidelity")
    if not known:
        return f"`make fidelity` has not been run on {pair} yet."
    lines = []
    for model, measured in known["fidelity"].items():
        lines.append(
            {
                "model": model,
                "layers": measured["precision"],
                "TV": f"{measured['tv']:.2g}",
                "difference of entropy, nats": f"{measured['dh']:.2g}",
                "mean entropy ÷ fp32's": f"{measured['h_ratio']:.4f}",
                "mean entropy in fp32, nats": f"{measured['h']:.3f}",
            }
        )
    positions = next(iter(known["fidelity"].values()))["n"]
    return paragraphs(
        f"**{pair}**, means over {positions} positions of {known['task']} answers that the target "
        f"wrote at temperature 1, {known['device']}:",
        markdown(pd.DataFrame(lines)),
    )


def scores(pair="qwen2.5-coder"):
    """What `make scores` found: right answers at temperature 0, beside the makers' own numbers."""
    known = facts(pair, "scores")
    if not known:
        return f"`make scores` has not been run on {pair} yet."
    lines = []
    for name in known["numbers"]:
        task, model = name.split(" ", 1)
        published = known["published"].get(task, {})
        share = number(pair, "scores", name)
        line = {"task": task, "model": model, "right here": share.show(1, percent=True)}
        line["problems"] = share.n
        line["published, %"] = f"{published[model]:g}" if model in published else DASH
        line["gap, points"] = DASH
        if model in published:
            line["gap, points"] = f"{100 * share.estimate - published[model]:+.1f}"
        line["published for"] = published.get("how", DASH)
        lines.append(line)
    sources = sorted({entry["from"] for entry in known["published"].values()})
    return paragraphs(
        f"**{pair}**, {known['precision']}, temperature 0:",
        markdown(pd.DataFrame(lines)),
        f"Published: {'; '.join(sources)}.",
    )


def _benchmark(pair):
    known = facts(pair, "bench")
    if not known:
        return f"The benchmark has not been run on {pair} yet."
    layers = []
    for model, milliseconds in known.get("linears", {}).items():
        layers += [
            f"All linear layers of the {model}, milliseconds, by how many tokens go through at "
            "once:",
            markdown(_layers(milliseconds)),
        ]
    return paragraphs(
        # A race that carries its layers' fidelity was not run with the layers of the pair's note.
        f"### {pair if known.get('fidelity') else marked(pair)}",
        *_race(known),
        _beside_the_race(pair, known),
        *layers,
        *_other_races(pair),
    )


def _race(known):
    """Who won a race, how it was run, and its table: paragraphs."""
    race = pd.DataFrame(known.get("table", [{"method": DASH}]))
    absent = [f"{name} ({reason})" for name, reason in known.get("absent", {}).items()]
    return [
        known.get("sentence", "")
        or "This race was run before llama.cpp and OpenVINO GenAI were in it.",
        f"{known.get('n', DASH)} problems of {known.get('task', DASH)}, one answer at a time, "
        f"{known.get('device', DASH)}, torch {known.get('torch', DASH)}, transformers "
        f"{known.get('transformers', DASH)}:",
        markdown(race[[column for column in RACE if column in race]]),
        f"Not in the race: {'; '.join(absent)}." if absent else "",
    ]


def _other_races(pair):
    """The races on other tasks than the pair's usual one: paragraphs."""
    parts = []
    for file in sorted(folder(pair).glob("bench_*.json")):
        known = facts(pair, file.stem)
        parts += [f"#### On {known['task']}", *_race(known)]
    return parts


def _beside_the_race(pair, known):
    """The sentences below the race: block lengths, limits, memory, and the race's own noise."""
    policies = ", ".join(_policy(known, name) for name in known.get("gammas", {}))
    achieved = [f"{name} {share:.2f}" for name, share in known.get("achieved", {}).items()]
    text = (
        f"Fastest blocks, tuned on other problems: {policies or DASH}. Achieved ÷ limit: "
        f"{', '.join(achieved) or DASH}."
    )
    if "peak_gib" in known:
        text += f" Peak memory of our methods {known['peak_gib']:.1f} GiB."
    batches = [f"{name} {speed:.0f}" for name, speed in known.get("batches", {}).items()]
    if batches:
        text += f" Tokens per second, {known['batch']}: {'; '.join(batches)}."
    if number(pair, "bench", "control"):
        text += (
            f" {known['control']} ÷ itself under a second label: "
            f"{shown(pair, 'bench', 'control', 3)}."
        )
    return text


def _policy(known, name):
    """'SP γ = 2', or 'SP+dyn to H(q) > 0.5, γ ≤ 8': how a method of the race ended its blocks."""
    gamma = known["gammas"][name]
    stop = re.search(r"EntropyStop\(.*stop=([\d.]+)", known.get("policies", {}).get(name, ""))
    return f"{name} to H(q) > {stop[1]}, γ ≤ {gamma}" if stop else f"{name} γ = {gamma}"


def _layers(milliseconds):
    """Milliseconds by kind of layer and number of tokens (dict of dicts) as a table of texts."""

    def text(value):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

    rows = []
    for kind, by_width in milliseconds.items():
        rows.append({"linear layers": kind} | {width: text(ms) for width, ms in by_width.items()})
    return pd.DataFrame(rows)


# ---- data/results/DEPLOYING.md -----------------------------------------------------------------


def _sampled(known):
    """'1', or '1, k 20, p 0.9': how a run sampled."""
    if "temperature" not in known:
        return DASH
    words = [f"{known['temperature']:g}"]
    if known.get("top_k"):
        words.append(f"k {known['top_k']}")
    if known.get("top_p", 1) < 1:
        words.append(f"p {known['top_p']:g}")
    return ", ".join(words)


def speed_table():
    """What notebook 03 found in each run: what speculation buys, and what relaxing it adds."""
    rows = [_speed_row(run) for run in every_run() if facts(run, "03")]
    if not rows:
        return "Notebook 03 has not been run yet."
    samples = [
        f"{run}: {sizes(run, '03')}, {standing_of_all(run, '03')}"
        for run in every_run()
        if facts(run, "03")
    ]
    return paragraphs(markdown(pd.DataFrame(rows)), f"Sizes: {'; '.join(samples)}.", notes())


def _speed_row(run):
    known = facts(run, "03")
    gammas = known.get("gammas", {})
    settings = [str(gammas.get(method, DASH)) for method in ("SP", "SP_entropy")]
    cost = "where the draft costs "
    return {
        "pair": marked(run),
        "task": known.get("task", DASH),
        "T": _sampled(known),
        "τ": f"{known['tau']:g}" if "tau" in known else DASH,
        "γ of SP, SP_entropy": ", ".join(settings),
        "SP accepts": shown(run, "03", "accept_SP", 0, percent=True),
        "SP ÷ AS_large": shown(run, "03", "sp_over_large"),
        "SP is faster where the draft costs": _where(run, PAYS).removeprefix(cost) or DASH,
        "SP_entropy ÷ SP": shown(run, "03", "entropy_over_sp"),
        "accuracy, SP − AS_large": points(run, "03", "accuracy_sp_minus_large"),
        "accuracy, SP_entropy − SP": points(run, "03", "accuracy_change"),
        "answers that may differ": shown(run, "03", "certificate", 1, percent=True),
    }


def gate_answer():
    """What the equal-savings table says of the entropy gate, pair by pair: a list."""
    lines = []
    for pair in PAIRS:
        run = made(pair, "05")
        frame = table(run, "05", "equal")
        if frame is None:
            continue
        words = frame["the gate costs less KL"]
        infinite = frame["KL per 1,000 tokens, nats"].eq("inf") & words.str.startswith("undecided")
        counts = words[~infinite].value_counts()
        less, more = (counts.get(word, 0) for word in ("holds", "does not hold"))
        rest = counts[counts.index.str.startswith("undecided")].sum()
        beyond = f" and of {infinite.sum()} whose KL is infinite" if infinite.any() else ""
        lines.append(
            f"- *{marked(run)}*: its KL is {shown(run, '05', 'kl_over_random')} × that of random "
            f"positions; less than that of {less} rivals{beyond}, more than that of {more}, "
            f"undecided for {rest}. Against random positions: "
            f"{_accuracy(run, '05', 'over_random')}."
        )
    return "\n".join(lines) or "Notebook 05 has not been run yet."


def task_table():
    """What notebook 08 found in each run, task by task, with what the stopwatch said."""
    return stacked("08", "tasks", task_size, _with_timed)


def _with_timed(run, frame):
    """The table of tasks with SP_entropy's timed tokens per second ÷ those of AS_large."""
    rows = store.table(run, "08_times")
    if rows is None or "task" not in frame:
        return frame
    sums = rows.groupby(["task", "method"])[["n_tokens", "seconds"]].sum()
    speed = (sums.n_tokens / sums.seconds).unstack()
    if not {"SP_entropy", "AS_large"} <= set(speed):
        return frame
    ratio = (speed["SP_entropy"] / speed["AS_large"]).map("{:.2f}".format)
    frame["the same, timed"] = frame.task.map(ratio)
    return frame


gate_table = partial(stacked, "05", "gates")
gamma_table = partial(stacked, "03", "gammas", tuning_size)
equal_table = partial(stacked, "05", "equal", reading_size)
