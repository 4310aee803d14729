"""Execute the notebooks in order, each into a temporary file first (make all).

    python -m helpers.make.notebooks [--pair P] [--only "01 03"] [-p NAME VALUE]... [--run NAME]

Every file `notebooks/NN_name.ipynb` is executed; there is no list to add a new one to. Names are
checked before anything runs. A notebook is executed into a temporary file and replaces its source
only after success. notebooks/ holds the default pair with the default parameters; with another
pair the executed notebook goes to data/results/PAIR/notebooks/. A run with a name of its own
(--run; the default pair's gets one from its parameters) has its tables in data/results/PAIR/RUN/
and its figures in figures/PAIR/RUN/, so that none overwrites another.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import nbformat
import papermill
import torch
from nbclient.exceptions import DeadKernelError

from helpers import common, store
from helpers.models import PAIRS

FOLDER = common.ROOT / "notebooks"
DEFAULT_PAIR = "pocket"
CELL_TIMEOUT_S = 4 * 3600
COUNTS = ("n_problems", "n_timed", "n_tune")  # how many problems an interval is taken over
STRIPPED = (
    "metadata.papermill",
    "cell.metadata.papermill",
    "metadata.widgets",
    "cell.metadata.execution",
    "metadata.language_info.version",
)


# ---- which notebooks there are -----------------------------------------------------------------


def available():
    """Notebooks by number: {'01': path, ...}."""
    numbered = {}
    for file in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        number = file.name[:2]
        if number in numbered:
            raise ValueError(
                f"{numbered[number].name} and {file.name} have the same number, under which "
                "results are kept; rename one of them"
            )
        numbered[number] = file
    return numbered


def choose(wanted):
    """Paths of the notebooks named by number or file name; '' is all, an unknown one an error."""
    have = available()
    names = wanted.split() or list(have)
    unknown = [name for name in names if Path(name).name[:2] not in have]
    if unknown:
        raise ValueError(f"there is no notebook {unknown[0]!r}; choose among {' '.join(have)}")
    return [have[Path(name).name[:2]] for name in names]


def title(notebook):
    """What a notebook's first heading says, without its number: the claim in words."""
    for cell in notebook.cells:
        heading = re.match(r"#\s+(?:\d+\s*·\s*)?(.+)", cell.source)
        if cell.cell_type == "markdown" and heading:
            return heading.group(1).strip()
    return ""


def published_as(notebook):
    """The name under which a notebook publishes its verdict ('01'); None if it never does."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    call = re.search(r"publish_facts\(\s*pair_name,\s*[\"'](\w+)[\"']", code)
    return call.group(1) if call else None


# ---- parameters --------------------------------------------------------------------------------


def declared(notebook):
    """Parameters of a notebook's tagged cell: {name: default}."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError("a notebook needs exactly one cell tagged `parameters`")
    defaults = {}
    for node in ast.parse(cells[0].source).body:
        if isinstance(node, ast.AnnAssign):
            defaults[node.target.id] = ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign):
            defaults[node.targets[0].id] = ast.literal_eval(node.value)
    return defaults


def typed(name, text, default):
    """A parameter's text as the type of its default; an error says what was expected."""
    if isinstance(default, str):
        return text
    value = _literal(text)
    if not _alike(value, default):
        raise ValueError(f"parameter {name} was {text!r}; it must be like its default {default!r}")
    if name in COUNTS and value < 2:
        raise ValueError(
            f"parameter {name} was {text!r}; an interval over problems needs at least 2 of them"
        )
    return value


def _literal(text):
    """'3' -> 3, 'inf' -> float('inf'), '[1, 2]' -> [1, 2]; what is no literal stays text."""
    if text in ("inf", "-inf", "nan"):
        return float(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _alike(value, default):
    """Whether a value may stand for a default: a whole number may for a float, a bool may not."""
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple))
    return isinstance(value, type(default))


def plan(files, pair, given):
    """What each notebook is run with: [(path, notebook, parameters)]. Names are checked here."""
    if pair not in PAIRS:
        raise ValueError(f"there is no pair {pair!r}; choose one of {', '.join(PAIRS)}")
    runs = []
    known = set()
    for file in files:
        notebook = nbformat.read(file, 4)
        defaults = declared(notebook)
        known |= set(defaults)
        parameters = {
            name: typed(name, text, defaults[name])
            for name, text in given.items()
            if name in defaults
        }
        if pair != defaults.get("pair_name"):
            parameters["pair_name"] = pair
        runs.append((file, notebook, parameters))
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"no chosen notebook has a parameter {unknown[0]!r}; they have "
            f"{', '.join(sorted(known))}"
        )
    return runs


def smoke_parameters(file, notebook):
    """The small parameters that a notebook carries in its metadata, for the tests."""
    small = notebook.metadata.get("sp_entropy", {}).get("smoke")
    if small is None:
        raise ValueError(
            f"{file.name} has no small parameters for the tests; put them into its metadata "
            'as {"sp_entropy": {"smoke": {"n_problems": 8}}}'
        )
    return dict(small)


# ---- execution ---------------------------------------------------------------------------------


def execute(file, notebook, parameters, target):
    """Run one notebook into `target`.

    A failed run leaves `target` as it was and keeps the partial notebook in the cache.
    """
    partial = common.CACHE / "partial" / file.name
    partial.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(file),
            str(partial),
            parameters,
            kernel_name="python3",
            cwd=str(common.ROOT),
            execution_timeout=CELL_TIMEOUT_S,
            extra_arguments=["--log-level=40"],
            progress_bar=sys.stderr.isatty(),
        )
    except (papermill.PapermillExecutionError, DeadKernelError, TimeoutError) as error:
        reason = str(error)
        if isinstance(error, papermill.PapermillExecutionError):
            reason = f"{error.ename}: {error.evalue}"
        raise RuntimeError(
            f"{file.name} failed ({reason}); the partial notebook is {partial}, finished work is "
            "in the cache, and the same command goes on from there"
        ) from None
    strip = ["--keep-output", "--keep-count", "--keep-id", "--extra-keys", " ".join(STRIPPED)]
    subprocess.run([sys.executable, "-m", "nbstripout", *strip, str(partial)], check=True)
    os.replace(partial, target)


def read_arguments(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.notebooks", description="Execute the notebooks in order."
    )
    parser.add_argument("--pair", default=DEFAULT_PAIR)
    parser.add_argument("--only", default="", help='notebook numbers, as in "01 03"')
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter"
    )
    parser.add_argument(
        "--run", default="", help="a name for this run, when a pair is run with several settings"
    )
    parser.add_argument(
        "--smoke", metavar="FOLDER", help="run with each notebook's smoke parameters, into FOLDER"
    )
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"[\w.-]*", given.run):
        raise ValueError(
            f"run was {given.run!r}; a run's name has letters, digits, dots and dashes only"
        )
    if not given.run and given.pair == DEFAULT_PAIR:
        settings = "_".join("-".join(pair) for pair in given.p)
        given.run = re.sub(r"[^\w.]+", "-", settings)
    return given


def main(arguments=None):
    given = read_arguments(arguments)
    runs = plan(choose(given.only), given.pair, dict(given.p))
    # The kernels read these: see the table of settings in helpers/README.md.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    os.environ["SP_QUIET"] = "1"
    os.environ["SP_RUN"] = given.run
    if given.smoke:
        os.environ["SP_OUT"] = given.smoke
        os.environ["SP_CACHE"] = str(Path(given.smoke) / "cache")
    _warn_of_shared_names(runs)
    for file, notebook, parameters in runs:
        if given.smoke:
            parameters = smoke_parameters(file, notebook)
            target = Path(given.smoke) / file.name
        elif parameters or given.run:
            target = common.results(given.pair) / "notebooks" / file.name
        else:
            target = file
        begin = time.time()
        print(f"{file.name} ...", flush=True)
        execute(file, notebook, parameters, target)
        took = time.time() - begin
        print(f"{file.name} done in {took:.0f} s -> {os.path.relpath(target)}", flush=True)
        if not given.smoke:
            note_time(given.pair, target.stem, took)
    if not given.smoke:
        run = f"{given.pair}/{given.run}" if given.run else given.pair
        print(verdicts(run, [file for file, _, _ in runs]))


def _warn_of_shared_names(runs):
    """Say when a copied notebook would overwrite the results of the one that it was copied from."""
    for file, notebook, _ in runs:
        name = published_as(notebook)
        if name not in (None, file.name[:2]):
            print(
                f"note: {file.name} publishes its results as {name}, over those of notebook "
                f'{name}; write "{file.name[:2]}" where its cells say "{name}" to keep both',
                flush=True,
            )


def note_time(pair, name, seconds):
    """Remember when a notebook was executed and how long it took: data/results/PAIR/times.json."""
    file = common.results(pair) / "times.json"
    times = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    times[name] = {
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.is_available(),
        "date": date.today().isoformat(),
    }
    store.write_text(file, json.dumps(times, indent=1) + "\n")


def verdicts(run, files):
    """The lines that an execution ends with: each notebook and what it found. run: PAIR[/RUN]."""
    lines = [f"\nVerdicts on {run}:"]
    for file in files:
        facts = store.facts(run, file.name[:2])
        found = facts["verdict"] if facts else "none was published"
        lines.append(f"  {file.stem:<28}{found}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished work is in data/cache and the same command goes on from there"
        ) from None
