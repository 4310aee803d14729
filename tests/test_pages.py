"""The generated pages: rendered from the published record, short, never behind it."""

import re

import nbformat
import pandas as pd
import pytest
from conftest import ROOT

from helpers import common, models, store
from helpers.make import first_picture, notebooks, readme, summary
from helpers.stats import Interval

NOTE = "made with a draft whose int8 layers doubled its entropy; to be replaced"


@pytest.fixture
def record(tmp_path, monkeypatch):
    """An empty data/results, and a function that publishes made-up facts of a run into it."""
    monkeypatch.setattr(common, "OUT", tmp_path)

    def publish(run, name, **facts):
        pair, _, settings = run.partition("/")
        monkeypatch.setenv("SP_RUN", settings)
        known = {"verdict": "holds", "task": "sums", "n": 6, "timed": 4, "temperature": 1.0}
        store.publish_facts(pair, name, **(known | facts))

    return publish


def interval(estimate, width=0.05):
    return Interval(estimate, estimate - width, estimate + width, 6)


def cells(markdown):
    """The cells of the tables in a Markdown text, one list per row, without heads and rules."""
    lines = markdown.splitlines()
    rows = []
    for line, below in zip(lines, [*lines[1:], ""]):
        if line.startswith("| ") and not below.startswith("|:-"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


# ---- what stands in the repository -------------------------------------------------------------


@pytest.mark.parametrize("page", readme.PAGES)
def test_a_page_is_not_behind_the_record(page, monkeypatch):
    """A notebook of the reader's own that no `make all` has executed yet need not be there."""
    first_page = (ROOT / "README.md").read_text(encoding="utf-8")
    executed = {k: f for k, f in notebooks.available().items() if f"[{f.stem}]" in first_page}
    assert len(executed) >= 9
    monkeypatch.setattr(notebooks, "available", lambda: executed)
    assert readme.filled(page) == (ROOT / page).read_text(encoding="utf-8"), "run make readme"


def test_the_readme_is_short():
    """At most 10 kB, not counting the rows and links of notebooks of the reader's own."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines(keepends=True)
    ours = [line for line in lines if not re.match(r"(\| )?\[[1-9]\d", line)]
    assert len("".join(ours).encode()) <= 10_000
    assert max(len(line.rstrip("\n")) for line in lines if line.startswith("|")) <= 160


@pytest.mark.parametrize("page", readme.PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.M)
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not ((ROOT / page).parent / link).exists()] == []


def test_the_real_pairs_results_say_what_they_were_made_with():
    """Wherever a page names the real pair's results with ¹, the sentence stands on the page."""
    for page in ("README.md", "data/results/README.md", "data/results/DEPLOYING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        marked = summary.note("qwen2.5-coder")
        assert ("qwen2.5-coder¹" in text) == bool(marked)
        assert marked in text


def test_every_setting_of_the_code_is_in_the_table():
    text = (ROOT / "helpers/README.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(SP_\w+)`", text, re.M))
    files = [*(ROOT / "helpers").rglob("*.py"), *(ROOT / "tests/browser").glob("*.py")]
    tests = [ROOT / "tests" / name for name in ("time_limit.py", "test_kills.py")]
    files += [*tests, ROOT / "Makefile", ROOT / ".ci/run"]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert table == set(re.findall(r"\bSP_[A-Z][A-Z_]+\b", code))


def test_the_map_names_every_file():
    text = (ROOT / "helpers/README.md").read_text(encoding="utf-8")
    files = [*(ROOT / "helpers").rglob("*.py"), *(ROOT / "helpers").rglob("*.js")]
    names = {str(f.relative_to(ROOT / "helpers")) for f in files if f.name != "__init__.py"}
    assert {name for name in names if f"]({name})" not in text} == set()


# ---- places ------------------------------------------------------------------------------------


def test_only_what_stands_between_the_marks_is_replaced():
    text = "one\n<!-- a -->\nold\n<!-- /a -->\ntwo\n"
    new = readme.fill(text, "a", "| new |")
    assert new == "one\n<!-- a -->\n\n| new |\n\n<!-- /a -->\ntwo\n"
    assert readme.fill(new, "a", "| new |") == new
    with pytest.raises(ValueError, match="PAGE.md has no place marked <!-- moon -->"):
        readme.fill(text, "moon", "", "PAGE.md")


def test_a_table_keeps_its_texts():
    """Numbers stay as they were written, a bar inside a cell is no border, a gap is a dash."""
    frame = pd.DataFrame({"a": ["1.00", "|x|"], "b": ["0.50 [0.4, 0.6]", None]})
    assert cells(summary.markdown(frame)) == [["1.00", "0.50 [0.4, 0.6]"], ["\\|x\\|", "–"]]


# ---- from the record ---------------------------------------------------------------------------


def test_nothing_published_crashes_no_page(record):
    for page, places in readme.PAGES.items():
        for name, body in places.items():
            assert body().strip(), f"{name} of {page} is empty"
    assert "Not run yet: pocket 03 and 05, qwen2.5-coder 03 and 05." in summary.answer()
    assert cells(summary.verdict_table())[0][2:] == ["–", "–"]


def test_a_record_without_numbers_crashes_no_page(record):
    for pair in summary.PAIRS:
        for number in notebooks.available():
            record(pair, number)
    for places in readme.PAGES.values():
        for body in places.values():
            assert body()
    assert "SP_entropy against SP.** *pocket*: speed –; accuracy –" in summary.answer()
    assert set(cells(summary.speed_table())[0][5:]) == {"–"}


def test_the_answer_says_on_which_side_of_no_difference_an_interval_lies(record, tmp_path):
    record(
        "pocket",
        "03",
        numbers={
            "sp_over_large": interval(2.27),
            "entropy_over_sp": interval(1.01),
            "accuracy_change": interval(-0.1),
        },
    )
    record("pocket", "05", numbers={"over_random": interval(0.2)})
    record("qwen2.5-coder", "03", numbers={"sp_over_large": interval(0.8)})
    (tmp_path / "data/results/qwen2.5-coder/note.txt").write_text(f"{NOTE}\n")
    first, second, third = summary.answer().splitlines()[:3]
    assert "*pocket*: faster, 2.27 [2.22, 2.32] ×" in first
    assert "*qwen2.5-coder¹*: slower, 0.80 [0.75, 0.85] ×" in first
    assert (
        "*pocket*: speed undecided, 1.01 [0.96, 1.06] ×; less accurate, -10.0 points [-15.0, -5.0]"
        in second
    )
    assert "*pocket*: more accurate, 20.0 points [15.0, 25.0]." in third
    assert "qwen2.5-coder" not in third
    assert "pocket: sums, 6 problems, 4 timed as a check; 6 in the third line" in summary.answer()
    assert "Not run yet: qwen2.5-coder 05." in summary.answer()
    assert summary.answer().endswith(f"¹ qwen2.5-coder: {NOTE}.")


def test_a_pair_that_was_not_run_is_named_and_has_no_empty_places(record):
    record("pocket", "03", numbers={"sp_over_large": interval(2.27)})
    record("pocket", "05", numbers={"over_random": interval(0.2)})
    text = summary.answer()
    assert text.count("qwen2.5-coder") == 1
    assert text.endswith("Not run yet: qwen2.5-coder 03 and 05.")


def test_the_answer_says_how_far_runs_differ(record):
    """An interval over problems does not say it."""
    runs = {"sp_over_large": [[2.85, 2.7, 3.0], [2.27, 2.1, 2.4], [2.4, 2.3, 2.5]]}
    record("pocket", "03", numbers={"sp_over_large": interval(2.4)}, runs=runs)
    first = summary.answer().splitlines()[0]
    assert "*pocket*: faster, 2.40 [2.35, 2.45] × (2.27 to 2.85 in 3 runs)." in first


def test_a_speed_stands_with_the_costs_at_which_it_holds(record):
    claim = "SP is faster than AS_large"
    where = "where the draft costs less than 0.7 of the target (here 0.2)"
    numbers = {"sp_over_large": interval(2.4), "entropy_over_sp": interval(1.0)}
    record("pocket", "03", numbers=numbers, regions={claim: f"{claim} {where}"})
    first, second = summary.answer().splitlines()[:2]
    assert f"*pocket*: faster, 2.40 [2.35, 2.45] ×; shown to be faster {where}." in first
    assert "*pocket*: speed undecided, 1.00 [0.95, 1.05] ×; accuracy –." in second
    row = cells(summary.speed_table())[0]
    assert row[6:9] == [
        "2.40 [2.35, 2.45]",
        "less than 0.7 of the target (here 0.2)",
        "1.00 [0.95, 1.05]",
    ]


def test_the_readmes_rows_are_one_word_a_pair_and_every_word_is_a_link(record):
    record("pocket", "01", claim="Entropy marks errors")
    record("pocket", "02", verdict="does not hold", claim="x " * 200)
    record("qwen2.5-coder", "01", verdict="undecided at this sample size")
    table = summary.verdict_table()
    first, second = cells(table)[:2]
    assert first[1:] == ["Entropy marks errors", "[holds][01]", "[undecided][01r]"]
    assert second[2:] == ["[refuted][02]", "–"] and second[1].endswith("x …")
    assert max(len(line) for line in table.splitlines() if line.startswith("|")) <= 160
    links = dict(re.findall(r"^\[(.+?)\]: (\S+)$", table, re.M))
    assert links["01"] == "notebooks/01_entropy_vs_errors.ipynb"
    assert links["01r"] == "data/results/qwen2.5-coder/notebooks/01_entropy_vs_errors.ipynb"


def test_tables_of_several_runs_stand_under_one_another(record):
    """Block lengths are in order, also those that only the second pair has."""
    short = pd.DataFrame([["SP", "7.0"]], columns=["rule", "γ = 4"])
    long = pd.DataFrame([["SP", "8.0", "9.0"]], columns=["rule", "γ = 2", "γ = 12"])
    record("pocket", "03", tables={"gammas": long}, n_tuned=15)
    record("qwen2.5-coder/cold", "03", tables={"gammas": short}, task="gsm8k", timed=None)
    text = summary.gamma_table()
    head = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    assert head == ["pair", "rule", "γ = 2", "γ = 4", "γ = 12"]
    assert cells(text) == [
        ["pocket", "SP", "8.0", "–", "9.0"],
        ["qwen2.5-coder/cold", "SP", "–", "7.0", "–"],
    ]
    assert "Sizes: pocket: sums, 15 tuning problems, exploratory; " in text
    assert "qwen2.5-coder/cold: gsm8k, – tuning problems, exploratory." in text


def test_a_run_is_a_row_of_the_speed_table(record):
    numbers = {"sp_over_large": interval(1.5), "certificate": interval(0.3)}
    gammas = {"SP": 2, "SP_entropy": 4}
    record("qwen2.5-coder", "03", numbers=numbers, gammas=gammas, tau=1.0)
    record("qwen2.5-coder/cold", "03", temperature=0.0)
    warm, cold = cells(summary.speed_table())
    assert warm[:4] == ["qwen2.5-coder", "sums", "1", "1"]
    assert (
        warm[4] == "2, 4" and warm[6] == "1.50 [1.45, 1.55]" and warm[-1] == "30.0 % [25.0, 35.0]"
    )
    sizes = "qwen2.5-coder: sums, 6 problems, 4 timed as a check, exploratory; "
    assert sizes in summary.speed_table()
    assert cold[:5] == ["qwen2.5-coder/cold", "sums", "0", "–", "–, –"]


def test_every_check_has_a_row_and_a_notebook_is_named_once(record):
    record(
        "pocket",
        "01",
        checks={"it is fast": "holds", "it is good": "does not hold"},
        verdict="does not hold",
        effect="2 times",
        pilot="3 times",
    )
    text = summary.checks("pocket")
    rows = cells(text)
    link = "[01_entropy_vs_errors](../../notebooks/01_entropy_vs_errors.ipynb)"
    assert rows[0] == [link, "**does not hold**, exploratory", "it is fast", "holds"]
    assert rows[1] == ["", "", "it is good", "does not hold"]
    assert "- **01** 2 times (sums, 6 problems, 4 timed as a check). Pilot: 3 times." in text


def test_pages_say_which_results_were_planned(record):
    """Registered is what kept to a plan committed before; a record from before there were plans
    is exploratory, like one that differs from its plan."""
    planned = {"status": "registered", "differs": [], "exploratory": ["a finer look"]}
    strayed = {"status": "exploratory", "differs": ["tau: 0.9, registered was 1.0"]}
    head = pd.DataFrame([["SP", "7.0"]], columns=["rule", "γ = 4"])
    for number in ("01", "02", "05"):
        record("pocket", number, registered=planned, checks={"it is fast": "holds"})
    record("pocket", "03", registered=strayed, tables={"gammas": head}, n_tuned=15)
    record("qwen2.5-coder", "01")
    record("qwen2.5-coder", "03", registered=planned, tables={"gammas": head}, n_tuned=4)
    first_page = summary.verdict_table()
    assert (
        "*Registered* (run by a plan committed before it): pocket 01 to 02, 05, qwen2.5-coder 03. "
        "*Exploratory* (not so): pocket 03, qwen2.5-coder 01." in first_page
    )
    text = summary.checks("pocket")
    words = [row[1] for row in cells(text) if row[1]]
    standing = ["registered", "registered", "exploratory", "registered"]
    assert words == [f"**holds**, {word}" for word in standing]
    assert "Pilot: –. Beside its plan, deciding nothing: a finer look." in text
    assert "Pilot: –. Not as planned: tau: 0.9, registered was 1.0." in text
    sizes = "pocket: sums, 15 tuning problems, exploratory; "
    sizes += "qwen2.5-coder: sums, 4 tuning problems, registered, but for: a finer look."
    assert sizes in summary.gamma_table()


def test_the_pilots_numbers_stand_beside_ours(record):
    numbers = {"accept_SP": interval(0.5), "accept_tau_1": interval(0.6)}
    record("pocket", "05", numbers=numbers)
    rows = {row[1]: row for row in cells(summary.pilot_table())}
    line = rows["accept ratio, SP → τ = 1"]
    assert line[2] == "36.7 % → 37.5 %"
    assert line[3:] == ["50.0 % [45.0, 55.0] → 60.0 % [55.0, 65.0] (n = 6)", "–"]
    assert len(rows) == len(summary.PILOT)


def test_a_race_shows_what_its_record_has(record):
    """Columns that a record lacks are left out; who could not run is named with the reason."""
    line = {"method": "SP", "tokens/s": "9.0", "TV from fp32": "0.0100", "median": "8"}
    record(
        "pocket",
        "bench",
        table=[line],
        sentence="SP wins.",
        absent={"llama.cpp": "no compiler"},
        control="SP",
        batches={"AS_large": 43.2, "AS_large, int8 target": 106.4},
        batch="32 answers at once",
        numbers={"control": interval(1.0)},
        linears={"draft": {"fp32": {"1": 0.05849, "2": 363.4}}},
    )
    text = summary.benchmark()
    assert cells(text) == [["SP", "9.0", "0.0100"], ["fp32", "0.0585", "363"]]
    assert "SP wins." in text and "Not in the race: llama.cpp (no compiler)." in text
    assert "SP ÷ itself under a second label: 1.000 [0.950, 1.050]." in text
    assert "32 answers at once: AS_large 43; AS_large, int8 target 106." in text


def test_an_interval_without_a_number_says_why(record):
    missing = Interval(float("nan"), float("nan"), float("nan"), 0, "no judge")
    record("pocket", "03", numbers={"accuracy_change": missing})
    assert "accuracy undecided, no judge" in summary.answer()
    assert "no judge" in summary.speed_table()


def test_one_published_notebook_is_enough_for_the_record(record, tmp_path):
    """A notebook without timings, run in JupyterLab, leaves neither a table of times nor a day."""
    record("mine", "01", effect="2 times")
    made_with = {
        "revision": "abc",
        "speed": "fast",
        "device": "cpu",
        "dtype": "float32",
        "torch": "2",
        "transformers": "5",
    }
    store.write_table(tmp_path / "data/results/mine/01_answers.parquet", pd.DataFrame([made_with]))
    text = summary.checks("mine")
    assert "Executed on cpu (float32, layers fast)" in text
    assert text.endswith("`data/results/mine/` carries these.")


def test_a_notebook_without_a_title_still_has_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "11_bare.ipynb")
    assert cells(summary.verdict_table()) == [["[11_bare][11]", "", "–", "–"]]


# ---- the picture -------------------------------------------------------------------------------


def test_the_first_picture_is_of_what_the_models_do(tmp_path, monkeypatch):
    """The kept tokens and fates are those of a fresh run, and all fates occur."""
    monkeypatch.setattr(common, "CACHE", tmp_path)
    arguments = first_picture.arguments(models.load_pair("pocket"))
    folder = ROOT / "data/results/pocket/figures"
    for name in ("strict", "relaxed"):
        kept = pd.read_parquet(folder / f"strict_and_relaxed.{name}.parquet")
        assert arguments[name][["text", "fate"]].equals(kept[["text", "fate"]])
    assert set(arguments["relaxed"].fate) == {"kept", "target", "rejected", "rescued"}
    assert arguments["right"] == [True, False]


def test_seconds_are_whole_where_another_pair_lacks_a_notebook(monkeypatch):
    whole = {"01_a": {"seconds": 19}, "04_b": {"seconds": 58}}
    times = {"pocket": whole, "qwen2.5-coder": {"01_a": {"seconds": 279}}}
    monkeypatch.setattr(summary, "_times", lambda run: times.get(run, {}))
    monkeypatch.setattr(summary, "_machine", lambda times: "on a machine")
    cells = re.findall(r"[^|\s]+", summary.time_table())
    assert {"19", "58", "279", "–"} <= set(cells) and "58.0" not in cells


def test_the_gate_is_placed_among_its_rivals_by_what_the_table_says(record):
    kl, word = "KL per 1,000 tokens, nats", "the gate costs less KL"
    undecided = "undecided: no KL to compare"
    rivals = [("1", "holds"), ("2", "holds"), ("3", "does not hold"), ("inf", undecided)]
    rivals += [("4", "undecided at this sample size"), ("5", "(itself)"), ("6", None)]
    table = pd.DataFrame({kl: [k for k, _ in rivals], word: [w for _, w in rivals]})
    numbers = {"kl_over_random": interval(2.0), "over_random": interval(0.0)}
    record("pocket", "05", numbers=numbers, tables={"equal": table})
    assert summary.gate_answer() == (
        "- *pocket*: its KL is 2.00 [1.95, 2.05] × that of random positions; less than that of 2 "
        "rivals and of 1 whose KL is infinite, more than that of 1, undecided for 1. Against "
        "random positions: accuracy undecided, 0.0 points [-5.0, 5.0]."
    )


def test_a_loss_within_the_margin_is_called_so(record):
    check = "SP_entropy is as accurate as SP"
    for held, words in (
        ("holds", "less accurate by less than the notebook's margin, -2.0"),
        ("does not hold", "less accurate, -2.0"),
    ):
        numbers = {"accuracy_change": interval(-0.02, 0.01)}
        record("pocket", "03", numbers=numbers, checks={check: held})
        assert words in summary._accuracy("pocket", "03", "accuracy_change", check)


def test_tasks_stand_beside_what_a_stopwatch_said(record):
    tasks = pd.DataFrame({"task": ["sums", "tales"], "faster?": ["holds", "holds"]})
    record("pocket", "08", tables={"tasks": tasks})
    rows = [
        {"task": task, "method": method, "n_tokens": 12, "seconds": seconds}
        for task, times in {"sums": (6.0, 3.0), "tales": (4.0, 5.0)}.items()
        for method, seconds in zip(("AS_large", "SP_entropy"), times)
    ]
    store.publish(pd.DataFrame(rows), "pocket", "08_times")
    shown = {row[1]: row[-1] for row in cells(summary.task_table())}
    assert shown["sums"] == "2.00" and shown["tales"] == "0.80"


def test_a_method_of_the_race_is_named_with_how_its_blocks_ended():
    policies = {"SP": "Fixed(gamma=2)", "SP+dyn": "EntropyStop(gamma=8, stop=0.5)"}
    known = {"gammas": {"SP": 2, "SP+dyn": 8}, "policies": policies}
    assert summary._policy(known, "SP") == "SP γ = 2"
    assert summary._policy(known, "SP+dyn") == "SP+dyn to H(q) > 0.5, γ ≤ 8"
    assert summary._policy({"gammas": {"SP": 4}}, "SP") == "SP γ = 4"
