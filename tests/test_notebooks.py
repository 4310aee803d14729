"""Every notebook executed with small parameters, then checked by nbval; the committed ones; the runner's errors."""

import json
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from helpers import common, stats
from helpers.make import notebooks, readme, summary
from helpers.plots import drawing

NAMES = sorted(f.name for f in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder for the results of small runs."""
    return tmp_path_factory.mktemp("smoke")


def call(*arguments, **environment):
    import os

    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", NAMES)
def test_runs_with_small_parameters_and_passes_nbval(name, smoke):
    done = call(
        "-m", "helpers.make.notebooks", "--only", name[:2], "--smoke", str(smoke), DEVICE="cpu"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    checked = call(
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=300",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(smoke),
        "-c",
        "/dev/null",
        str(smoke / name),
        SP_OUT=str(smoke),
        SP_CACHE=str(smoke / "cache"),
        DEVICE="cpu",
        SP_QUIET="1",
    )
    assert checked.returncode == 0, checked.stdout[-3000:]
    facts = json.loads((smoke / "data/results/pocket" / f"{name[:2]}.json").read_text())
    assert facts["verdict"] in ("holds", "does not hold", "undecided at this sample size")


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_notebook_is_a_finished_piece(name):
    file = ROOT / "notebooks" / name
    book = nbformat.read(file, 4)
    code = [c for c in book.cells if c.cell_type == "code"]
    assert file.stat().st_size < 500_000
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1)), (
        "not executed in order"
    )
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert "widgets" not in book.metadata and "papermill" not in book.metadata
    assert sum(c.cell_type == "markdown" for c in book.cells) >= len(code) - 2
    lengths = sorted(len(c.source.splitlines()) for c in code)
    assert lengths[len(code) // 2] <= 10 and lengths[-1] <= 30
    assert {"claim", "parameters", "setup", "run", "figure", "takeaway"} <= {
        c.id for c in book.cells
    }
    assert book.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "data/results/qwen2.5-coder").glob("**/notebooks/*.ipynb")),
    ids=lambda f: f"{f.parts[-3]}-{f.stem[:2]}",
)
def test_a_kept_execution_is_of_the_notebook_that_is_there(file):
    there, kept = (nbformat.read(f, 4).cells for f in (ROOT / "notebooks" / file.name, file))
    kept = [c for c in kept if "injected-parameters" not in c.metadata.get("tags", [])]
    assert [c.source for c in kept] == [c.source for c in there], (
        "the notebook has changed since: execute it again with its parameters"
    )


@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "data/results").glob("**/[0-9][0-9].json")),
    ids=lambda f: f"{f.parts[-2]}-{f.stem}",
)
def test_a_published_verdict_follows_from_its_checks(file):
    facts = json.loads(file.read_text())
    assert facts["verdict"] == stats.overall(
        facts.get("checks", {"only": facts["verdict"]}).values()
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--pair", "pockets"], "there is no pair 'pockets'; choose one of pocket"),
        (["--only", "42"], "there is no notebook '42'; choose among 01"),
        (
            ["--only", "01", "-p", "n_problem", "5"],
            "no chosen notebook has a parameter 'n_problem'",
        ),
        (
            ["--only", "03", "-p", "n_problems", "many"],
            "n_problems was 'many'; it must be like its default 200",
        ),
        (
            ["--only", "06", "-p", "n_tune", "1"],
            "n_tune was '1'; an interval over problems needs at least 2",
        ),
        (["--only", "03", "--run", "../mine"], "run was '../mine'; a run's name has letters"),
    ],
)
def test_wrong_names_stop_at_once(arguments, words):
    done = call("-m", "helpers.make.notebooks", *arguments)
    assert done.returncode != 0 and words in done.stderr and "Traceback" not in done.stderr


def test_a_failing_notebook_keeps_its_source_and_says_why(tmp_path, monkeypatch):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    source = tmp_path / "99_broken.ipynb"
    nbformat.write(book, source)
    before = source.read_bytes()
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        notebooks.execute(source, book, {}, source)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    "arguments, folder",
    [
        ([], "notebooks"),
        (["-p", "n_problems", "5"], "data/results/pocket/n_problems-5/notebooks"),
        (["--run", "hot"], "data/results/pocket/hot/notebooks"),
        (
            ["--pair", "qwen2.5-coder", "-p", "n_problems", "5"],
            "data/results/qwen2.5-coder/notebooks",
        ),
        (
            ["--pair", "qwen2.5-coder", "-p", "n_problems", "5", "--run", "cold"],
            "data/results/qwen2.5-coder/cold/notebooks",
        ),
    ],
)
def test_no_run_overwrites_another(arguments, folder, tmp_path, monkeypatch):
    """Only the default pair with the default parameters replaces what is in notebooks/; a named run has folders of its own."""
    targets = []
    monkeypatch.setenv("SP_RUN", "")
    monkeypatch.setattr(common, "OUT", tmp_path)
    monkeypatch.setattr(
        notebooks, "execute", lambda file, notebook, parameters, target: targets.append(target)
    )
    notebooks.main(["--only", "01", *arguments])
    assert targets == [
        (ROOT if folder == "notebooks" else tmp_path) / folder / "01_entropy_vs_errors.ipynb"
    ]


def test_figures_are_redrawn_from_results(tmp_path, monkeypatch, smoke):
    """A figure drawn again from its kept arguments is the same picture."""
    kept = sorted((smoke / "data/results/pocket/figures").glob("03_*.json"))
    assert kept, "notebook 03 has kept no figures"
    monkeypatch.setattr(common, "OUT", smoke)
    for file in kept:
        picture = smoke / "figures/pocket" / f"{file.stem}.png"
        before = picture.read_bytes()
        picture.unlink()
        drawing.redraw(file)
        assert picture.read_bytes() == before


def test_readme_tables_are_generated():
    text = (ROOT / "README.md").read_text()
    for table in (readme.verdict_table("pocket"), readme.real_table(), summary.pilot_table()):
        assert table in text, "README.md is behind data/results: run make readme"
    page = (ROOT / "notebooks" / "README.md").read_text()
    assert all(t(pair) in page for t in readme.PAGE.values() for pair in summary.PAIRS), (
        "run make readme"
    )
    assert readme.fill("<!-- a -->\nold\n<!-- /a -->", "a", "new") == "<!-- a -->\nnew\n<!-- /a -->"
    with pytest.raises(ValueError, match="no place marked"):
        readme.fill(text, "moon", "")


def test_the_tables_say_what_the_results_hold(tmp_path, monkeypatch):
    """Made-up results with known ratios come out as such; what is not there is a dash."""
    folder = tmp_path / "data" / "results" / "pocket"
    folder.mkdir(parents=True)
    monkeypatch.setattr(common, "OUT", tmp_path)
    speed = {
        "AS_large": 10,
        "SP_entropy": 5,
        "SP": 8,
        "τ = 1": 12,
        "SP γ=2": 7,
        "SP_entropy γ=2": 9,
    }
    times = pd.DataFrame(
        [
            {
                "task": "sums",
                "problem_id": i,
                "method": m,
                "gamma": 2,
                "accepted": 3,
                "drafted": 4,
                "n_tokens": 40,
                "seconds": 40 / s,
            }
            for m, s in speed.items()
            for i in range(6)
        ]
    )
    times.to_parquet(folder / "03_times.parquet")
    times.to_parquet(folder / "05_times.parquet")
    times.assign(
        score=(times.problem_id < 3) * 1.0,
        rescued=(times.method == "τ = 1") * (times.problem_id < 2),
    ).to_parquet(folder / "05_answers.parquet")
    lines = {
        line.split(" | ")[0].strip("| "): line.split(" | ")
        for line in summary.pilot_table().splitlines()
    }
    ratio = lines["03 · SP_entropy ÷ AS_large"]
    assert ratio[2].startswith("0.50 [0.50, 0.50]<br>n = 6, sums") and ratio[3] == "–"
    assert "| τ = 1 | 1.50 [1.50, 1.50] | 0.0 %" in summary.tau_table(
        "pocket"
    ) and "| 33.3 % [" in summary.tau_table("pocket")
    for run, temperature in (
        ("", 1.0),
        ("cold", 0.0),
    ):  # the second one colder, in a folder of its own
        (folder / run).mkdir(exist_ok=True)
        (folder / run / "03.json").write_text('{"checks": {"it is faster": "holds"}}')
        for name in ("03_times", "03_accuracy"):
            times.assign(temperature=temperature, tau=1.0, score=1.0, rescued=0).to_parquet(
                folder / run / f"{name}.parquet"
            )
    assert [line.split(" | ")[:3] for line in summary.speed_table("pocket").splitlines()[-2:]] == [
        ["| sums, 1", "2, 2", "75 % [75, 75]"],
        ["| sums, 0", "2, 2", "75 % [75, 75]"],
    ]
    assert "has not been run" in summary.speed_table("moon")
    gates = {
        "control": [(0.75, 0.3)],
        "entropy gate, √": [(0.5, 0.2), (1.0, 0.4)],
        "random gate, √": [(1.0, 0.4), (0.5, 0.2)],
        "KL-optimal clip": [(0.5, 0.0), (1.0, 0.2)],
    }
    pd.DataFrame(
        [
            {
                "problem_id": i,
                "rule": m if m == "control" else f"{m}|{k}",
                "accept": accept,
                "kl": kl,
            }
            for i in range(3)
            for m, found in gates.items()
            for k, (accept, kl) in enumerate(found)
        ]
    ).to_parquet(folder / "05_rules.parquet")
    pd.DataFrame(
        [
            {
                "task": "sums",
                "problem_id": i,
                "method": m,
                "score": float("clip" in m),
                "accepted": 3,
                "drafted": 4,
            }
            for m in list(gates)[1:]
            for i in range(3)
        ]
    ).to_parquet(folder / "05_answers.parquet")
    gate, _, clip = summary.equal_table("pocket").splitlines()[-3:]
    assert gate == "| entropy gate, √ | 75.0 % [75.0, 75.0] | (itself) | 3.00 [3.00, 3.00] |"
    assert clip.startswith(
        "| KL-optimal clip | 75.0 % [75.0, 75.0] | -100.0 % ["
    ) and clip.endswith("| 1.00 [1.00, 1.00] |")
    short = summary.short_answer("pocket")
    assert (
        "SP with γ = 2 makes 0.80 [0.80, 0.80] times" in short
        and "it is faster: *holds*" in short
        and "-100.0 %" in short
    )
    assert "| SP | 7.0 [7.0, 7.0] |" in summary.gamma_table(
        "pocket"
    ) and "has not been run" in summary.gamma_table("moon")
    hard = times.assign(
        task="tales",
        seconds=times.seconds * np.where(times.method == "AS_large", 0.5, 1),
        accepted=1,
    )
    both = (
        pd.concat([hard, times])
        .replace("τ = 1", "SP_entropy own τ")
        .assign(tau=0.25, score=1.0, max_new_tokens=64)
    )
    both.to_parquet(folder / "08_times.parquet")
    both.to_parquet(folder / "08_answers.parquet")
    first, second = summary.task_table("pocket").splitlines()[-2:]
    assert (
        first
        == "| sums | 75 % [75, 75] | 0.80 [0.80, 0.80] | 0.50 [0.50, 0.50] | 0.0 % [-45.9, 45.9] | 0.25 |"
    )
    assert (
        second
        == "| tales | 25 % [25, 25] | 0.40 [0.40, 0.40] | 0.25 [0.25, 0.25] | 0.0 % [-45.9, 45.9] | 0.25 |"
    )


def test_one_published_notebook_is_enough_for_the_record(tmp_path, monkeypatch):
    """A notebook without timings, run in JupyterLab, leaves neither a table of times nor a day."""
    folder = tmp_path / "data" / "results" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.setattr(common, "OUT", tmp_path)
    (folder / "01.json").write_text(
        '{"verdict": "holds", "effect": "2 times", "task": "sums", "n": 5}'
    )
    made = {
        "revision": "abc",
        "speed": "fast",
        "device": "cpu",
        "dtype": "float32",
        "torch": "2",
        "transformers": "5",
    }
    pd.DataFrame([made]).to_parquet(folder / "01_answers.parquet")
    assert readme.real_table("mine").endswith(
        "`data/results/mine/` carries these."
    ) and "checksums of the weights: abc." in readme.real_table("mine")
