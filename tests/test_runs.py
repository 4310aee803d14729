"""Runs that are started twice, killed, badly named, or given prompts and models of one's own."""

import errno
import json
import os
import subprocess
import sys

import nbclient
import nbformat
import papermill
import pytest
from conftest import ROOT, call

from helpers import common, models, registration, store
from helpers.make import notebooks, readme, summary
from helpers.make.parameters import check_room
from helpers.models import presets


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Results and finished work of a test go into its own folder."""
    monkeypatch.setattr(common, "OUT", tmp_path / "out")
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")
    for name in ("SP_OUT", "SP_CACHE", "SP_RUN", "SP_QUIET", "SP_PAIR", "SP_PAIRS"):
        monkeypatch.setenv(name, "")
    before = dict(models.PAIRS)
    yield
    models.PAIRS.clear()
    models.PAIRS.update(before)


def planned(*arguments):
    """What the runner would execute: {number of the notebook: parameters}."""
    given = notebooks.read_arguments(list(arguments))
    run = given.run if given.planned else None
    runs = notebooks.plan(notebooks.choose(given.only), given.pair, given.p, run)
    return {file.name[:2]: parameters for file, _, parameters in runs}


PLAN = """
claim = "speculation pays"
pair = "pocket"
looks = 1
[estimators]
"SP is faster" = "a ratio above 1"
[parameters]
task = "pocket-arithmetic"
n_problems = 200
seed = 0
[pair_parameters.mine]
n_problems = 30
[pair_parameters."mine/code"]
task = "pocket-code"
"""


def test_a_planned_run_begins_with_its_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(registration, "FOLDER", tmp_path)
    (tmp_path / "03.toml").write_text(PLAN, encoding="utf-8")
    models.PAIRS["mine"] = models.PAIRS["pocket"]
    mine = ("--pair", "mine", "--only", "03")
    first = planned(*mine, "--planned")["03"]
    assert first == {"n_problems": 30, "pair_name": "mine"}
    assert planned(*mine, "--planned", "-p", "n_problems", "40")["03"]["n_problems"] == 40
    code = planned(*mine, "--planned", "--run", "code")["03"]
    assert code == first | {"task": "pocket-code"}
    assert planned(*mine)["03"] == {"pair_name": "mine"}
    models.PAIRS["other"] = models.PAIRS["pocket"]
    with pytest.raises(ValueError, match=r'03.toml plans nothing for "other"'):
        planned("--pair", "other", "--only", "03", "--planned")


# ---- names of runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [".", "..", "figures", "Figures", "notebooks", ".hidden", "-x", "a/b", "a b", "x."]
)
def test_a_run_that_would_be_another_folder_is_refused(name, monkeypatch):
    with pytest.raises(ValueError, match=r"run was .*; a run's name has letters"):
        notebooks.read_arguments([f"--run={name}"])
    monkeypatch.setenv("SP_RUN", name)  # in JupyterLab
    with pytest.raises(ValueError, match=r"run was .*; a run's name has letters"):
        common.results("pocket")
    assert not common.OUT.exists()


DIFFERENT = [
    {},
    {"seed": "1"},
    {"seed": "-1"},
    {"seed": "1", "tau": "1"},
    {"taus": "[1, 2]"},
    {"taus": "[1, -2]"},
    {"taus": "[-1, 2]"},
    {"taus": "[12]"},
    {"task": "a/mine.jsonl"},
    {"task": "b/mine.jsonl"},
    {"taus": str([n / 10 for n in range(90)])},
    {"taus": str([n / 10 for n in range(91)])},
    {"task": "mine."},
]


def test_other_parameters_give_another_name():
    names = [notebooks.run_of(parameters) for parameters in DIFFERENT]
    assert len(set(names)) == len(DIFFERENT)
    assert names[1] == "seed-1"
    for name in names:
        assert common.checked_run(name) == name and len(name) < 80


def folders_of(*runs):
    """Where each of several commands would put notebook 04 of a pair of the user's own."""
    found = []
    for arguments in runs:
        notebooks.main(["--pair", "mine", "--only", "04", *arguments])
        files = sorted(common.OUT.rglob("04_*.ipynb"), key=lambda file: file.stat().st_mtime_ns)
        found.append(files[-1].parent.parent.relative_to(common.OUT).as_posix())
    return found


def test_two_settings_of_a_pair_share_no_folder(tmp_path, monkeypatch, capsys):
    """The first has the pair's folder, and keeps it when the same command comes again."""

    def execute(file, notebook, parameters, target):
        """Papermill without a kernel: the notebook with its parameters in it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(str(file), str(target), parameters, prepare_only=True)

    (tmp_path / "pairs.toml").write_text('[mine]\ndraft = "me/small"\ntarget = "me/large"\n')
    monkeypatch.setenv("SP_PAIRS", str(tmp_path / "pairs.toml"))
    monkeypatch.setattr(notebooks, "execute", execute)
    hot, cold, again, plain = folders_of(
        ["-p", "tau", "-1"], ["-p", "tau", "1"], ["-p", "tau", "-1"], []
    )
    (common.OUT / "data/results/mine/note.txt").write_text("to be replaced")
    (replaced,) = folders_of(["-p", "tau", "2"])
    assert hot == again == replaced == "data/results/mine"
    assert cold == "data/results/mine/tau-1" and plain == "data/results/mine/defaults"
    printed = capsys.readouterr().out
    assert "was made with other parameters and is kept; this run goes to" in printed
    assert "Verdicts on mine/tau-1:" in printed


def test_a_notebook_that_is_run_by_hand_leaves_the_record_alone(tmp_path, monkeypatch):
    """What `make all` has written stays, and the pages do not show what was tried."""
    publish = "from helpers import store\nstore.publish_facts('pocket', '01', verdict='holds')"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(publish)])
    monkeypatch.setenv("SP_OUT", str(common.OUT))
    store.publish_facts("pocket", "01", verdict="does not hold")
    monkeypatch.delenv("SP_RUN")
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
    assert store.facts("pocket", "01") == {"verdict": "does not hold", "numbers": {}, "tables": {}}
    assert store.facts("pocket/lab", "01")["verdict"] == "holds"
    assert "data/results/pocket/lab; the published record" in book.cells[0].outputs[0].text
    assert summary.runs("pocket") == ["pocket"]
    assert common.run_name() == ""  # this process is no kernel
    with pytest.raises(ValueError, match="run was 'lab'"):
        notebooks.read_arguments(["--run", "lab"])


# ---- one process at a time ---------------------------------------------------------------------

HOLD = """
import sys, time
from helpers import store
with store.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_that_is_being_written_is_refused(tmp_path):
    """The sentence says who has it; when that process is killed the next one takes over."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    other = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=rf"process {other.pid} on .* \(since 20") as error:
            with store.locked(tmp_path):
                pass
        assert "name of its own" in str(error.value)
        assert store.read_json(tmp_path / ".lock.json")["pid"] == other.pid
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    beside = tmp_path / "notebooks"
    beside.mkdir()
    left = [folder / f".{'0' * 32}.01.json" for folder in (tmp_path, beside)]
    for file in left:
        file.write_text("{")
    with store.locked(tmp_path, beside):
        assert store.read_json(tmp_path / ".lock.json")["pid"] == os.getpid()
        assert not any(file.exists() for file in left)
    assert not (tmp_path / ".lock.json").exists()


def test_taking_over_is_said(tmp_path, capsys):
    host = os.uname().nodename
    left = {"pid": 2**22 + 1, "host": host, "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".lock.json").write_text(json.dumps(left))
    with store.locked(tmp_path):
        pass
    assert f"process {2**22 + 1} on {host} (since 2026-01-01" in capsys.readouterr().out
    with store.locked(tmp_path):
        pass
    assert capsys.readouterr().out == ""


def test_a_holder_on_another_machine_cannot_be_seen(tmp_path):
    left = {"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".lock.json").write_text(json.dumps(left))
    with pytest.raises(RuntimeError, match="may still be written by process 1 on elsewhere"):
        with store.locked(tmp_path):
            pass
    assert (tmp_path / ".lock.json").exists()


def test_a_damaged_note_of_the_holder_stops_nobody(tmp_path):
    (tmp_path / ".lock.json").write_text("{")
    with store.locked(tmp_path):
        pass


def test_a_failure_inside_gives_the_folder_back(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), store.locked(tmp_path):
        raise ZeroDivisionError
    with store.locked(tmp_path):
        pass
    assert capsys.readouterr().out == ""


# ---- a kill, a full disk, a damaged file -------------------------------------------------------

# Writes a record over and over; the same rows, so that any cut would be seen. The disk is slow, so
# that most moments are in the middle of writing on a fast machine too.
WRITE = """
import time
import pandas as pd
from helpers import store
to_disk = store._to_disk
store._to_disk = lambda file: (to_disk(file), time.sleep(0.03))
checks = {str(n): "x" for n in range(999)}
frame = pd.DataFrame({"a": range(5000), "text": "x", "b": [f"row {n}" for n in range(5000)]})
print("go", flush=True)
while True:
    with store.locked(store.common.results("pocket")):
        store.publish(frame, "pocket", "01_rows")
        store.publish_facts("pocket", "01", verdict="holds", checks=checks)
        store.keep(store.cached("test", 1), list(range(20000)))
"""


def test_a_kill_leaves_the_old_or_the_new_file(tmp_path):
    """Eight writers, each in a group of its own, killed at moments spread over its writing."""
    environment = os.environ | {"SP_OUT": str(common.OUT), "SP_CACHE": str(common.CACHE)}
    folder = common.results("pocket")
    cut = 0
    for turn in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert writer.stdout.readline() == "go\n"
        try:
            writer.wait(0.05 + 0.023 * turn)
        except subprocess.TimeoutExpired:
            os.killpg(writer.pid, 9)
        writer.wait()
        writer.stdout.close()
        cut += any(store.TEMPORARY.fullmatch(file.name) for file in folder.iterdir())
        if (folder / "01_rows.parquet").exists():
            assert len(store.table("pocket", "01_rows")) == 5000
        if (folder / "01.json").exists():
            assert len(json.loads((folder / "01.json").read_text())["checks"]) == 999
        file = store.cached("test", 1)
        if file.exists():
            assert len(store.load(file)) == 20000
    assert cut, "no kill met a file that was being written"
    with store.locked(folder):
        pass
    assert not any(store.TEMPORARY.fullmatch(file.name) for file in folder.iterdir())


@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, r"01.json cannot be written \(no space left on device\); free some space"),
        (errno.EROFS, r"01.json cannot be written \(read-only file system\); set SP_OUT"),
        (errno.EACCES, r"01.json cannot be written \(permission denied\); set SP_OUT"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(tmp_path, number, words):
    file = tmp_path / "01.json"
    store.write_text(file, "old")
    with pytest.raises(OSError, match=words), store.replacing(file) as temporary:
        temporary.write_text("new")
        raise OSError(number, os.strerror(number))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "out").write_text("a file is in the way")
    with pytest.raises(OSError, match=r"pocket cannot be written .*; set SP_OUT"):
        common.results("pocket")


@pytest.mark.parametrize("content", ["", "{", "[", "\0"])
def test_a_damaged_record_of_times_stops_nothing(content):
    file = common.results("pocket") / "times.json"
    file.write_text(content)
    notebooks.note_time("pocket", "01_x", 3.2)
    assert json.loads(file.read_text())["01_x"]["seconds"] == 3
    file.write_text(content)
    assert summary.time_line() == "No notebook has been timed yet."


def test_results_elsewhere_leave_the_pages_here_alone(monkeypatch, capsys):
    written = []
    monkeypatch.setattr(store, "write_text", lambda file, text: written.append(file))
    readme.main()
    assert not written and "stay as they are" in capsys.readouterr().out
    monkeypatch.setattr(common, "OUT", common.ROOT)
    monkeypatch.setattr(readme, "filled", lambda page: "")
    readme.main()
    pages = [*readme.PAGES, "data/results/gpu/README.md"]
    assert written == [common.ROOT / page for page in pages]


# ---- make all goes on --------------------------------------------------------------------------


PARAMETERS = "n = 0\npair_name = 'pocket'"


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three notebooks, of which the second one fails as its cell says."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    bodies = {"01_one": "a = 1", "02_two": "1 / n", "03_three": "a = 3"}
    for name, body in bodies.items():
        cells = [nbformat.v4.new_code_cell(PARAMETERS), nbformat.v4.new_code_cell(body)]
        cells[0].metadata["tags"] = ["parameters"]
        book = nbformat.v4.new_notebook(cells=cells)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book.metadata["kernelspec"] = kernel
        nbformat.write(book, folder / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", folder)
    return folder


def test_a_failure_keeps_no_other_notebook_from_running(three, capsys):
    """The end names it and why; the record says so until it succeeds."""
    with pytest.raises(RuntimeError, match="1 of 3 notebooks failed. 02_two: ZeroDivisionError"):
        notebooks.main([])
    lines = capsys.readouterr().out.splitlines()
    executed = {file.name for file in (common.OUT / "notebooks").glob("*")}
    assert executed == {"01_one.ipynb", "03_three.ipynb"}
    assert "  02_two                      failed (ZeroDivisionError: division by zero)" in lines
    assert len(list(common.CACHE.glob("partial/*/02_two.ipynb"))) == 1
    assert "02_two on 20" in summary.failures("pocket")
    assert "(ZeroDivisionError: division by zero)" in summary.failures("pocket")
    assert not list(common.OUT.rglob(".*.ipynb"))

    assert len(planned("-p", "n", "1")) == 3
    notebooks.main(["--only", "02", "--run", "again", "-p", "n", "1"])
    assert summary.failures("pocket/again") == ""
    source = three / "02_two.ipynb"
    source.write_text(source.read_text().replace("1 / n", "a = 2"))
    notebooks.main(["--only", "02"])
    assert summary.failures("pocket") == ""
    assert not (common.results("pocket") / notebooks.FAILED).exists()


def test_a_kernel_that_dies_is_a_failed_notebook(three):
    source = three / "02_two.ipynb"
    source.write_text(source.read_text().replace("1 / n", "import os; os._exit(1)"))
    with pytest.raises(RuntimeError, match="1 of 3 notebooks failed. 02_two: its kernel died"):
        notebooks.main([])


# ---- prompts of one's own ----------------------------------------------------------------------


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"Say {n}.\n" for n in range(20)))
    return str(file)


def test_every_notebook_takes_a_file_of_prompts(prompts):
    """With as many problems as there are, tuning apart from what is reported."""
    runs = planned("-p", "task", prompts)
    assert sorted(runs) == sorted(notebooks.available())
    for number, parameters in runs.items():
        given = parameters.get("task") or parameters.get("tasks_used")
        assert given in (prompts, [prompts]), number
        tuning = parameters.get("n_tune", 0)
        assert parameters["n_problems"] + tuning == 20, number
    assert runs["03"]["n_tune"] == 4 and runs["03"]["n_timed"] == runs["03"]["n_read"] == 16
    assert list(runs["05"]) == ["task", "n_problems", "n_timed", "n_read"]  # always in one order


def test_a_number_that_is_asked_for_stays(prompts):
    runs = planned("-p", "task", prompts, "-p", "n_problems", "5", "-p", "n_timed", "6")
    assert all(parameters["n_problems"] == 5 for parameters in runs.values())
    assert runs["03"]["n_tune"] == 4


def test_too_few_prompts_are_a_sentence(prompts, tmp_path):
    with pytest.raises(ValueError, match=r"mine.txt has 20 prompts and 01_.* is to use 30; add"):
        planned("-p", "task", prompts, "-p", "n_problems", "30")
    few = tmp_path / "few.txt"
    few.write_text("One.\nTwo.\nThree.\n")
    with pytest.raises(ValueError, match="has 3 prompts and 03_.* is to use 4, 2 of them apart"):
        planned("--only", "03", "-p", "task", str(few))


def test_tasks_are_checked_before_a_kernel_starts(prompts, tmp_path):
    with pytest.raises(ValueError, match="there is no task 'gsm9k'"):
        planned("--only", "01", "-p", "task", "gsm9k")
    with pytest.raises(ValueError, match="there is no task 'gsm9k'"):
        planned("--only", "08", "-p", "tasks_used", f"['gsm9k', '{prompts}']")
    with pytest.raises(ValueError, match="there is no task 'pocket-story'"):
        planned("--only", "08", "-p", "open_ended", "['pocket-story']")
    with pytest.raises(FileNotFoundError, match="there is no file of prompts gone.jsonl"):
        planned("--only", "01", "-p", "task", "gone.jsonl")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "?"}\n{"prompt": 3}\n')
    with pytest.raises(ValueError, match="bad.jsonl, line 2: prompt was 3"):
        planned("-p", "task", str(bad))


def test_a_prompt_that_is_too_long_is_named_by_its_line(tmp_path):
    """Before a kernel starts; a hub's models are not asked."""
    file = tmp_path / "long.jsonl"
    rows = [{"prompt": "Say it."}, {"prompt": "Say it."}, {"prompt": "x", "max_new_tokens": 1024}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = rf"{file}, line 3: a prompt of \d+ tokens and 1024 new ones exceed the context of 1024"
    with pytest.raises(ValueError, match=words):
        notebooks.main(["--only", "01", "-p", "task", str(file)])
    assert not list(common.OUT.rglob("*.ipynb"))
    check_room("hub", models.Preset("me/small", "me/large"), str(file))


def test_models_that_are_not_there_stop_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MODELS", tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights in .*; run `make models` first"):
        notebooks.main(["--only", "01", "--pair", "qwen2.5-coder"])
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        notebooks.main(["--only", "01", "-p", "draft", "./none", "-p", "target", TARGET])
    assert not list(common.OUT.rglob("*"))


def test_kernels_find_a_file_that_is_named_from_elsewhere(prompts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert planned("--only", "01", "-p", "task", "mine.txt")["01"]["task"] == prompts


def test_a_notebook_states_the_least_that_it_needs(three):
    source = three / "01_one.ipynb"
    book = nbformat.read(source, 4)
    book.metadata["sp_entropy"] = {"least": {"n": 3}}
    nbformat.write(book, source)
    with pytest.raises(ValueError, match="n was 2; 01_one.ipynb needs at least 3"):
        planned("-p", "n", "2")
    assert planned("-p", "n", "3")["01"] == {"n": 3}


def test_a_threshold_that_is_judged_is_among_the_thresholds():
    with pytest.raises(ValueError, match=r"pilot_tau was 0.15; in 02_.* one of taus, \[0.2, 1.0\]"):
        planned("-p", "taus", "[0.2, 1.0]")
    assert planned("--only", "02", "-p", "taus", "[0.2, 1.0]", "-p", "pilot_tau", "1")


def test_what_a_notebook_would_end_on_is_refused_before_it_begins():
    with pytest.raises(ValueError, match="n_problems was 3; 05_.* needs at least 4"):
        planned("--only", "05", "-p", "n_problems", "3")
    with pytest.raises(ValueError, match=r"caps was \[4, 8, 12, 16\]; in 06_.* at most longest, 8"):
        planned("--only", "06", "-p", "longest", "8")
    assert planned("--only", "06", "-p", "longest", "8", "-p", "caps", "[2, 8]")
    with pytest.raises(ValueError, match="seed was '-1'; it must be at least 0"):
        planned("--only", "04", "-p", "seed", "-1")


# ---- models of one's own -----------------------------------------------------------------------

DRAFT = str(ROOT / "data/pocket/draft")
TARGET = str(ROOT / "data/pocket/target")


def test_two_models_on_the_command_line(tmp_path):
    """They are a pair with a name of its own, in the kernels too."""
    arguments = ["--only", "01", "-p", "draft", DRAFT, "-p", "target", TARGET, "-p", "seed", "3"]
    given = notebooks.read_arguments(arguments)
    assert (given.pair, given.run, given.p) == ("draft+target", "", {"seed": "3"})
    assert planned(*arguments)["01"] == {"seed": 3, "pair_name": "draft+target"}
    assert notebooks.read_arguments(["--pair", "mine", *arguments]).pair == "mine"
    code = "from helpers import models; print(models.load_pair('mine', device='cpu').name)"
    done = call("-c", code)
    assert done.stdout == "mine\n", done.stderr[-500:]


def test_two_models_in_a_call():
    pair = models.load_pair(draft=DRAFT, target=TARGET, device="cpu")
    assert pair.name == "draft+target"
    with pytest.raises(ValueError, match="the name pocket belongs to a pair that is known"):
        models.load_pair("pocket", draft=DRAFT, target=TARGET, device="cpu")


def test_a_file_of_pairs(tmp_path, monkeypatch):
    """Folders are seen from the file, and what is no folder is a hub id."""
    (tmp_path / "models" / "small").mkdir(parents=True)
    file = tmp_path / "pairs.toml"
    file.write_text(
        f'[mine]\ndraft = "models/small"\ntarget = "{TARGET}"\nexperts = {{ law = "me/law" }}\n'
        '[hub]\ndraft = "me/small"\ntarget = "me/large"\n'
    )
    monkeypatch.setenv("SP_PAIRS", str(file))
    mine = presets.preset_of("mine")
    assert mine == models.Preset(str(tmp_path / "models/small"), TARGET, {"law": "me/law"})
    assert models.locate(presets.preset_of("hub").draft, mine) == "me/small"
    assert models.PAIRS["hub"].target == "me/large"
    assert planned("--only", "01", "--pair", "hub")["01"] == {"pair_name": "hub"}


@pytest.mark.parametrize("place", [".", "repository"])
def test_the_file_lies_in_the_repository_or_beside_it(tmp_path, monkeypatch, place):
    (tmp_path / "repository").mkdir()
    monkeypatch.setattr(common, "ROOT", tmp_path / "repository")
    (tmp_path / place / "pairs.toml").write_text('[own]\ndraft = "a/b"\ntarget = "a/c"\n')
    assert presets.preset_of("own") == models.Preset("a/b", "a/c")


@pytest.mark.parametrize(
    "text, words",
    [
        ("[mine\n", r"pairs.toml: no TOML \(.*line 1"),
        ('draft = "a/b"\n', r"pairs.toml, pair draft: write \[draft\], then draft ="),
        ('[mine]\ndraft = "a/b"\n', "pair mine: it needs draft and target .*; it has draft"),
        ('[mine]\ndraft = "a/b"\ntarget = 3\n', "pair mine: 3 is neither a hub id nor a folder"),
        ('[mine]\ndraft = "a/b"\ntraget = "a/c"\n', "it has draft, traget"),
        ('["../x"]\ndraft = "a/b"\ntarget = "a/c"\n', "a pair's name was '../x'"),
        ('[pocket]\ndraft = "a/b"\ntarget = "a/c"\n', "the name pocket belongs to a pair"),
    ],
)
def test_a_wrong_file_of_pairs(tmp_path, monkeypatch, text, words):
    file = tmp_path / "pairs.toml"
    file.write_text(text)
    monkeypatch.setenv("SP_PAIRS", str(file))
    with pytest.raises(ValueError, match=words):
        presets.preset_of("mine")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-p", "draft", "a/b"], "a pair needs a draft and a target; give -p target too"),
        (
            ["-p", "draft", "a", "-p", "target", "b", "--pair", "qwen2.5-coder"],
            "the name qwen2.5-coder belongs to a pair that is known",
        ),
        (["--pair", "nobody"], "there is no pair 'nobody'; choose one of pocket, .* pairs.toml"),
    ],
)
def test_wrong_models_stop_at_once(arguments, words):
    with pytest.raises(ValueError, match=words):
        planned("--only", "01", *arguments)


def test_a_pair_without_experts_skips_the_notebook_about_them(monkeypatch, capsys):
    """All others are executed, and the end says why that one was not."""
    executed = []
    monkeypatch.setattr(notebooks, "execute", lambda file, *others: executed.append(file.name[:2]))
    notebooks.main(["-p", "draft", DRAFT, "-p", "target", TARGET])
    assert executed == [f"0{n}" for n in range(1, 9)]
    lines = capsys.readouterr().out.rstrip().splitlines()
    reason = "the pair draft+target has no experts, which it is about"
    assert f"09_expert_routing.ipynb is skipped: {reason}" in lines
    assert lines[-10] == "Verdicts on draft+target:"
    assert lines[-1].split(None, 1) == ["09_expert_routing", f"skipped ({reason})"]
    with pytest.raises(ValueError, match="no notebook is left to execute"):
        notebooks.main(["--only", "09", "-p", "draft", DRAFT, "-p", "target", TARGET])


def test_a_folder_that_is_not_there_is_no_hub_id():
    for where in ("./none", "/none/such", "one/two/three"):
        preset = presets.preset_of("mine", where, TARGET)
        with pytest.raises(FileNotFoundError, match="there is no folder .*(none|three)"):
            models.locate(preset.draft, preset)
