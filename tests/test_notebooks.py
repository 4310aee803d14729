"""Notebooks with small parameters, their views moved; the committed ones; the runner."""

import json
import re
import shutil

import nbformat
import pytest
from conftest import ROOT, call

from helpers import common, stats, store
from helpers.make import notebooks, summary
from helpers.plots import drawing

NAMES = sorted(f.name for f in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
RUNNER = ("-m", "helpers.make.notebooks")
NBVAL = (
    "-m",
    "pytest",
    "--nbval-lax",
    "--nbval-current-env",
    "--nbval-cell-timeout=300",
    "-q",
    "-p",
    "no:cacheprovider",
    "-c",
    "/dev/null",
)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder for the results of small runs."""
    return tmp_path_factory.mktemp("smoke")


def has_views(book):
    return any("views." in cell.source for cell in book.cells)


def check_executed(file, folder):
    """A verdict is published under an executed notebook's name."""
    book = nbformat.read(file, 4)
    facts = published(book, folder)
    assert json.loads(facts.read_bytes())["verdict"] in (
        "holds",
        "does not hold",
        "undecided at this sample size",
    )
    shown = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ())]
    assert has_views(book) == any(WIDGET in data for data in shown)


def published(book, folder):
    """The file of what a notebook has published."""
    return folder / "data/results/pocket" / f"{notebooks.published_as(book)}.json"


@pytest.fixture
def surroundings(monkeypatch):
    """The runner in this process, which saves its imports; what it sets is taken back."""
    monkeypatch.setenv("DEVICE", "cpu")
    for name in ("SP_OUT", "SP_CACHE", "SP_RUN", "SP_QUIET"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def moving(tmp_path, monkeypatch):
    """Kernels in which a view's controls are moved when it is shown (moved_views.py)."""
    startup = tmp_path / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    # It leaves no name in the kernel that a notebook could have forgotten to import.
    (startup / "views.py").write_text(
        f"__import__('sys').path.append({str(ROOT / 'tests')!r})\n__import__('moved_views')\n"
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.parametrize("name", NAMES)
def test_runs_with_small_parameters(name, smoke, surroundings, request):
    if has_views(nbformat.read(ROOT / "notebooks" / name, 4)):
        request.getfixturevalue("moving")
    notebooks.main(["--only", name[:2], "--smoke", str(smoke)])
    check_executed(smoke / name, smoke)


def test_passes_nbval(smoke, monkeypatch):
    """In the notebook's own folder, as by hand: results have a folder of their own then."""
    file = smoke / NAMES[0]
    facts = published(nbformat.read(file, 4), smoke)
    before = facts.read_bytes()
    monkeypatch.delenv("SP_RUN", raising=False)
    places = {"SP_OUT": str(smoke), "SP_CACHE": str(smoke / "cache")}
    options = ("--rootdir", str(smoke), str(file))
    checked = call(*NBVAL, *options, **places, DEVICE="cpu", SP_QUIET="1")
    assert checked.returncode == 0, checked.stdout[-3000:]
    assert facts.read_bytes() == before
    assert (facts.parent / "lab" / facts.name).exists()


# A view that works as it is shown, and not as its slider is moved.
BREAKS = """
from helpers.views.controls import Controls, slider
from helpers.views.recorded import _view

def state(tau):
    if tau > 1:
        raise KeyError("of the callback")
    return {"lanes": []}

_view("A view", [Controls(lambda: [slider(1, 2, "τ")], (1,))], state)
"""


def test_a_view_that_breaks_when_it_is_moved_fails_its_notebook(tmp_path, moving):
    """It says so in a sentence, and in a batch makes no widget: neither papermill sees that."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BREAKS)])
    nbformat.write(book, tmp_path / "view.ipynb")
    with pytest.raises(RuntimeError, match="This did not work: KeyError: 'of the callback'"):
        notebooks.execute(tmp_path / "view.ipynb", book, {}, tmp_path / "done.ipynb")


def test_a_copied_notebook_needs_no_edit_elsewhere(tmp_path, monkeypatch, surroundings, capsys):
    """It is found, and has a row in the README's table with its title."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks" / "01_entropy_vs_errors.ipynb", folder / "10_again.ipynb")

    def execute(file, notebook, parameters, target):
        assert (file, target) == (folder / "10_again.ipynb", tmp_path / "10_again.ipynb")
        assert parameters == notebook.metadata["sp_entropy"]["smoke"]
        monkeypatch.setattr(common, "OUT", tmp_path)
        store.publish_facts("pocket", notebooks.published_as(notebook), verdict="holds")

    monkeypatch.setattr(notebooks, "FOLDER", folder)
    monkeypatch.setattr(notebooks, "execute", execute)
    notebooks.main(["--smoke", str(tmp_path)])
    assert "10_again.ipynb publishes its results as 01" in capsys.readouterr().out
    assert (tmp_path / "data/results/pocket/01.json").exists()
    assert "| [10_again][10] | the draft's entropy peaks" in summary.verdict_table()


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
    """But for the parameters that it was given, unless its pair's results are to be replaced."""
    note = summary.note("qwen2.5-coder")
    kept = nbformat.read(file, 4).cells
    kept = [c for c in kept if "injected-parameters" not in c.metadata.get("tags", [])]
    sources = [c.source for c in kept]
    if note:
        assert note in sources, "remove note.txt of the pair when its results are replaced"
        return
    there = nbformat.read(ROOT / "notebooks" / file.name, 4).cells
    assert sources == [c.source for c in there], (
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
        (["--only", "03-12"], "there is no notebook '03-12'; choose among 01"),
        (["--only", "05-03"], "there is no notebook '05-03'; choose among 01"),
        (["--only", "03;05"], "there is no notebook '03;05'; choose among 01"),
        (["--only", "01", "-p", "temperature", "-1"], "it must be 0 (greedy) or more"),
        (["--only", "01", "-p", "temperature", "inf"], "temperature was 'inf'; it must be finite"),
        (["--only", "01", "-p", "top_p", "1.5"], "top_p was '1.5'; they need 0 < top_p <= 1"),
        (["--only", "01", "-p", "speed", "int4"], "speed was 'int4'; it must be fast, int8, plain"),
        (["--only", "03", "-p", "gammas", "[4, 20]"], "a block has 1 to 16 drafted tokens"),
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
def test_wrong_names_stop_at_once(arguments, words, surroundings):
    with pytest.raises((ValueError, RuntimeError), match=re.escape(words)):
        notebooks.main(arguments)


def test_a_wrong_name_is_one_sentence_on_the_screen():
    done = call(*RUNNER, "--pair", "pockets")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: there is no pair 'pockets'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "wanted, numbers",
    [
        ("", "01 02 03 04 05 06 07 08 09"),
        ("03,05", "03 05"),
        ("01-03", "01 02 03"),
        ("3, 1..2 03", "03 01 02"),
        ("notebooks/04_acceptance_anatomy.ipynb 07_aggressive_gamma", "04 07"),
    ],
)
def test_notebooks_are_named_as_a_person_would(wanted, numbers):
    assert [file.name[:2] for file in notebooks.choose(wanted)] == numbers.split()


def test_two_notebooks_with_one_number_are_refused(tmp_path, monkeypatch):
    for name in ("10_one", "10_two"):
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="10_one.ipynb and 10_two.ipynb have the same number"):
        notebooks.choose("")


def test_a_notebook_without_small_parameters_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"10_mine.ipynb has no small parameters .* metadata"):
        notebooks.smoke_parameters(tmp_path / "10_mine.ipynb", nbformat.v4.new_notebook())


@pytest.mark.parametrize(
    "text, default, value",
    [
        ("3", 1, 3),
        ("3", 1.0, 3),
        ("inf", 1.0, float("inf")),
        ("[1, 2]", (4,), [1, 2]),
        ("True", False, True),
        ("03", "03", "03"),
    ],
)
def test_a_parameter_has_the_type_of_its_default(text, default, value):
    assert notebooks.typed("name", text, default) == value


@pytest.mark.parametrize(
    "text, default",
    [("1.5", 1), ("True", 1), ("True", 1.0), ("1", False), ("3", [1]), ("[1, 'a']", [1.0])],
)
def test_a_parameter_of_another_type_is_refused(text, default):
    with pytest.raises(ValueError, match="it must be like its default"):
        notebooks.typed("name", text, default)


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
    """Only the default pair with the default parameters replaces what is in notebooks/.

    Where results go elsewhere, that is notebooks/ there: the checkout stays as it is.
    """
    targets = []
    monkeypatch.setenv("SP_RUN", "")
    monkeypatch.setattr(common, "OUT", tmp_path)
    monkeypatch.setattr(
        notebooks, "execute", lambda file, notebook, parameters, target: targets.append(target)
    )
    monkeypatch.setattr(common, "MODELS", tmp_path / "models")
    for role in ("draft", "target"):
        (common.MODELS / "qwen2.5-coder" / role).mkdir(parents=True)
    notebooks.main(["--only", "01", *arguments])
    assert targets == [tmp_path / folder / "01_entropy_vs_errors.ipynb"]


def test_an_execution_ends_with_the_verdicts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SP_RUN", "")
    monkeypatch.setattr(common, "OUT", tmp_path)
    monkeypatch.setattr(notebooks, "execute", lambda *arguments: None)
    store.publish_facts("pocket", "01", verdict="does not hold")
    notebooks.main([])
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert lines[-len(NAMES) - 1] == "Verdicts on pocket:"
    assert lines[-len(NAMES)].split(None, 1) == ["01_entropy_vs_errors", "does not hold"]
    assert lines[-1].split(None, 1) == [NAMES[-1].removesuffix(".ipynb"), "none was published"]


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
