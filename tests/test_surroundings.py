"""Where programs run: an ASCII locale, no docstrings, a full disk, a checkout that is read-only."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT, call

from helpers import common
from helpers.make import notebooks
from helpers.tasks import sandbox

# What LC_ALL=C alone does not do: Python would take UTF-8 all the same.
BARE = dict(LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONOPTIMIZE="2")
HELP = ("notebooks", "advise", "bench", "fidelity", "scores", "gpu", "trainings")
SMALL = ("-p", "n_problems", "4", "-p", "n_seeds", "1", "-p", "taus", "[0.15]")
STEPS = ("-p", "step_taus", "[0.2, 0.6]")

# Every entry point in one process, as `python -m` would start each: imports take the longest.
ENTRY_POINTS = """
import locale, runpy, sys
from helpers import common
assert False, "python -O leaves this out"
print(locale.getpreferredencoding(False), sys.flags.optimize)
print("γ = 4, τ ≤ 1")
for name, *arguments in {commands!r}:
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(f"helpers.make.{{name}}", run_name="__main__")
    except SystemExit as end:
        print(name, "ended with", end.code)
from helpers import models
try:
    models.load_pair()
except RuntimeError as error:
    print(error)
"""


def test_every_command_runs_without_utf_8_and_docstrings(tmp_path):
    """What the locale cannot say is a question mark.

    Transformers reads its own docstrings: without them no model is loaded, and make takes the
    setting away.
    """
    commands = [[name, "--help"] for name in HELP]
    commands += [["notebooks", "--run", "figures"], ["notebooks", "--only", "99"], ["readme"]]
    places = {"SP_OUT": str(tmp_path), "SP_CACHE": str(tmp_path / "cache")}
    script = tmp_path / "entry_points.py"
    script.write_text(ENTRY_POINTS.format(commands=commands), encoding="utf-8")
    done = call(str(script), **BARE, **places, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"(ANSI_X3.4-1968|US-ASCII|ascii) 2", lines[0])
    assert lines[1] == "? = 4, ? ? 1"
    assert [line for line in lines if line.endswith("ended with 0")] == [
        f"{name} ended with 0" for name in HELP
    ]
    assert any(line.startswith("notebooks ended with error: run was 'figures'") for line in lines)
    assert any(
        line.startswith("notebooks ended with error: there is no notebook") for line in lines
    )
    assert "stay as they are" in done.stdout
    assert lines[-1].startswith("python -OO (PYTHONOPTIMIZE=2) leaves out the docstrings"), lines
    assert "\nunexport PYTHONOPTIMIZE\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def run_02(folder, **environment):
    """Notebook 02 with the smallest parameters, its results in a folder."""
    places = {"SP_OUT": str(folder / "out"), "SP_CACHE": str(folder / "cache"), "DEVICE": "cpu"}
    command = ("-m", "helpers.make.notebooks", "--only", "02", "--run", "small")
    return call(*command, *SMALL, *STEPS, **environment, **places)


def test_a_notebook_runs_without_utf_8_and_assertions(tmp_path):
    done = run_02(tmp_path, **BARE | {"PYTHONOPTIMIZE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stdout + done.stderr
    results = tmp_path / "out/data/results/pocket/small"
    assert "τ = 0.15" in json.loads((results / "02.json").read_text(encoding="utf-8"))["effect"]
    executed = (results / "notebooks/02_entropy_selective.ipynb").read_text(encoding="utf-8")
    assert "τ = 0.15" in executed


# ---- disks that cannot be written ---------------------------------------------------------------

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
# A cell that keeps more and more, and one that loads a model and publishes.
FILLS = """
from helpers import store
for n in range(200):
    store.keep(store.cached("filling", n), "x" * 20_000)
"""
PUBLISHES = """
from helpers import models, store
store.publish_facts("pocket", "01", verdict=models.load_pair("pocket", device="cpu").name)
"""
# The runner over a folder of one's own, which has a notebook of one such cell.
RUN = """
import sys
from pathlib import Path
from helpers.make import notebooks
notebooks.FOLDER = Path(sys.argv.pop(1))
try:
    notebooks.main(sys.argv[1:])
except (ValueError, RuntimeError, OSError) as error:
    raise SystemExit(f"error: {error}") from None
"""
READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$PYTHON" "$@"'


def in_own_mounts(script, *arguments, **environment):
    """Run a shell script that may mount what nobody else sees; skip where that is not allowed."""
    trial = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here, so no disk can be made full or read-only")
    return subprocess.run(
        [*UNSHARE, "sh", "-ec", script, "sh", *arguments],
        cwd=ROOT,
        env=os.environ | environment | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )


def runner_over(folder, body):
    """A script that runs a notebook of one cell, and where that notebook is."""
    cells = [nbformat.v4.new_code_cell("pair_name = 'pocket'"), nbformat.v4.new_code_cell(body)]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (folder / "notebooks").mkdir()
    nbformat.write(notebook, folder / "notebooks" / "01_cell.ipynb")
    (folder / "run.py").write_text(RUN)
    return str(folder / "run.py"), str(folder / "notebooks")


def test_a_full_disk_is_a_sentence(tmp_path):
    """A real one, of two megabytes: the notebook, its note and its record all meet its end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_own_mounts(
        'mount -t tmpfs -o size=2m none "$1"; shift; exec "$PYTHON" "$@"',
        str(disk),
        *runner_over(tmp_path, FILLS),
        PYTHONPATH=str(ROOT),
        SP_OUT=str(disk / "out"),
        SP_CACHE=str(disk / "cache"),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r"error: .*cannot be written \(no space left on device\).*\n", done.stderr
    ), done.stderr[-2000:]
    assert "free some space; the same command goes on from what is finished" in done.stdout


def test_a_read_only_checkout_needs_two_folders_elsewhere(tmp_path):
    """It says so, and with them it runs."""
    command = ["-m", "helpers.make.notebooks", "--only", "02", "--run", "small"]
    here = {"SP_OUT": "", "SP_CACHE": "", "DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    refused = in_own_mounts(READ_ONLY, str(ROOT), *command, **here)
    assert refused.returncode == 1
    assert re.fullmatch(
        r"error: .* cannot be written \(read-only file system\); set SP_OUT and SP_CACHE to "
        r"folders that can be written\n",
        refused.stderr,
    ), refused.stderr[-2000:]
    elsewhere = {"SP_OUT": str(tmp_path / "out"), "SP_CACHE": str(tmp_path / "cache")}
    command = runner_over(tmp_path, PUBLISHES)
    done = in_own_mounts(READ_ONLY, str(ROOT), *command, **here | elsewhere)
    assert done.returncode == 0, done.stderr[-2000:]
    record = tmp_path / "out/data/results/pocket/01.json"
    assert json.loads(record.read_text())["verdict"] == "pocket"


# ---- other systems ------------------------------------------------------------------------------


def test_where_no_process_can_be_forked_programs_are_not_run(monkeypatch):
    """Windows: not even for a user who says that limits alone will do."""
    monkeypatch.setattr(sandbox, "isolation", lambda: None)
    monkeypatch.setenv("SP_UNSAFE_EXECUTE", "1")
    assert sandbox.possible()
    monkeypatch.delattr(os, "fork")
    assert not sandbox.possible()
    with pytest.raises(RuntimeError, match="cannot be isolated here"):
        sandbox.execute("1 + 1")


# ---- long lists ---------------------------------------------------------------------------------


def test_a_long_list_of_tasks_has_a_name_and_a_plan(tmp_path):
    """Sixty files of prompts: the run's folder has a name that every system takes."""
    files = []
    for number in range(60):
        file = tmp_path / f"prompts-{number:02d}-ü.txt"
        file.write_text("One.\nTwo.\nThree.\nFour.\nFive.\nSix.\n", encoding="utf-8")
        files.append(str(file))
    arguments = ["--only", "08", "-p", "tasks_used", repr(files)]
    given = notebooks.read_arguments(arguments)
    assert common.checked_run(given.run) == given.run and len(given.run) < 100
    ((_, _, parameters),) = notebooks.plan(notebooks.choose("08"), given.pair, given.p)
    assert parameters["tasks_used"] == files


# ---- setting up ---------------------------------------------------------------------------------


def recipe(*settings):
    """What `make setup` would do on a fresh checkout."""
    make = ["make", "-n", "-W", "requirements.txt", ".venv/.ready", *settings]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_machine_without_a_gpu_need_not_fetch_cuda():
    """Torch alone is taken from PyTorch's index, and by default that index is not asked."""
    assert "download.pytorch.org" not in recipe()
    lines = recipe("TORCH=cpu").replace("\\\n", "").splitlines()
    asking = [line for line in lines if "https://download.pytorch.org/whl/cpu" in line]
    assert len(asking) == 1 and "--no-deps" in asking[0] and "^torch==" in asking[0]
    order = [lines.index(asking[0])]
    order += [n for n, line in enumerate(lines) if line.endswith("-r requirements.txt")]
    assert len(order) == 2 and order[0] < order[1]
    pinned = re.findall("^torch==.*", (ROOT / "requirements.txt").read_text(), re.M)
    assert len(pinned) == 1 and re.fullmatch(r"torch==[\d.]+", pinned[0])
