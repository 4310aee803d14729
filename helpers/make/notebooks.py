"""Execute the notebooks in order: `python -m helpers.make.notebooks [--pair P] [--only "01 03"] [-p name value ...] [--smoke DIR]`.

Names are checked before anything runs. A notebook is executed into a temporary file and replaces its source
only after success. notebooks/ holds the default pair with the default parameters; with another pair the executed notebook
goes to data/results/PAIR/notebooks/. A run with a name of its own (--run; the default pair's gets one from its parameters)
has its tables in data/results/PAIR/RUN/ and its figures in figures/PAIR/RUN/, so that none overwrites another.
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

from helpers import common
from helpers.models import PAIRS

FOLDER = common.ROOT / "notebooks"
CELL_TIMEOUT_S = 4 * 3600
COUNTS = ("n_problems", "n_timed", "n_tune")  # how many problems an interval is taken over
STRIP = (
    "--keep-output",
    "--keep-count",
    "--keep-id",
    "--extra-keys",
    "metadata.papermill cell.metadata.papermill metadata.widgets cell.metadata.execution metadata.language_info.version",
)


def available():
    """Notebooks by number: {'01': path, ...}."""
    return {file.name[:2]: file for file in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))}


def choose(wanted):
    """Paths of the notebooks named by number or file name ('' for all); an unknown one is an error."""
    have = available()
    names = wanted.split() or list(have)
    unknown = [n for n in names if Path(n).name[:2] not in have]
    if unknown:
        raise ValueError(f"there is no notebook {unknown[0]!r}; choose among {' '.join(have)}")
    return [have[Path(n).name[:2]] for n in names]


def declared(notebook):
    """Parameters of a notebook's tagged cell: {name: default}."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError("a notebook needs exactly one cell tagged `parameters`")
    tree = ast.parse(cells[0].source)
    return {
        node.target.id if isinstance(node, ast.AnnAssign) else node.targets[0].id: ast.literal_eval(
            node.value
        )
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
    }


def typed(name, text, default):
    """A parameter's text as the type of its default; an error says what was expected."""
    if isinstance(default, str):
        return text
    try:
        value = float(text) if text in ("inf", "-inf", "nan") else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    wanted = (
        (int, float)
        if isinstance(default, float)
        else (list, tuple)
        if isinstance(default, (list, tuple))
        else type(default)
    )
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ValueError(f"parameter {name} was {text!r}; it must be like its default {default!r}")
    if name in COUNTS and value < 2:
        raise ValueError(
            f"parameter {name} was {text!r}; an interval over problems needs at least 2 of them"
        )
    return value


def plan(files, pair, given):
    """What each notebook is run with: [(path, notebook, parameters)]. Every name is checked before anything runs."""
    if pair not in PAIRS:
        raise ValueError(f"there is no pair {pair!r}; choose one of {', '.join(PAIRS)}")
    runs, known = [], {}
    for file in files:
        notebook = nbformat.read(file, 4)
        names = declared(notebook)
        known |= names
        chosen = {k: typed(k, v, names[k]) for k, v in given.items() if k in names}
        runs.append(
            (
                file,
                notebook,
                chosen | ({"pair_name": pair} if pair != names.get("pair_name") else {}),
            )
        )
    unknown = [k for k in given if k not in known]
    if unknown:
        raise ValueError(
            f"no chosen notebook has a parameter {unknown[0]!r}; they have {', '.join(sorted(known))}"
        )
    return runs


def execute(file, notebook, parameters, target):
    """Run one notebook into `target`; a failed run leaves `target` as it was and keeps the partial notebook."""
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
        reason = (
            f"{error.ename}: {error.evalue}"
            if isinstance(error, papermill.PapermillExecutionError)
            else str(error)
        )
        raise RuntimeError(
            f"{file.name} failed ({reason}); the partial notebook is {partial}, finished work is in the cache, "
            "and the same command goes on from there"
        ) from None
    subprocess.run([sys.executable, "-m", "nbstripout", *STRIP, str(partial)], check=True)
    os.replace(partial, target)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.notebooks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--pair", default="pocket")
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
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    os.environ["SP_QUIET"] = "1"
    if given.smoke:
        os.environ |= {"SP_OUT": given.smoke, "SP_CACHE": str(Path(given.smoke) / "cache")}
    runs = plan(choose(given.only), given.pair, dict(given.p))
    if not re.fullmatch(r"[\w.-]*", given.run):
        raise ValueError(
            f"run was {given.run!r}; a run's name has letters, digits, dots and dashes only"
        )
    default = given.pair == parser.get_default("pair")
    os.environ["SP_RUN"] = given.run or (
        re.sub(r"[^\w.]+", "-", "_".join("-".join(p) for p in given.p)) if default else ""
    )
    for file, notebook, parameters in runs:
        if given.smoke:
            parameters, target = (
                dict(notebook.metadata["sp_entropy"]["smoke"]),
                Path(given.smoke) / file.name,
            )
        elif parameters or os.environ["SP_RUN"]:
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


def note_time(pair, name, seconds):
    """Remember when a notebook was executed and how long it took, for the README: data/results/PAIR/times.json."""
    file = common.results(pair) / "times.json"
    times = json.loads(file.read_text()) if file.exists() else {}
    times[name] = {
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.is_available(),
        "date": date.today().isoformat(),
    }
    file.write_text(json.dumps(times, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished work is in data/cache and the same command goes on from there"
        ) from None
