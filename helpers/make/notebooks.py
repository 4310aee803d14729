"""Execute the notebooks in order, each into a temporary file first (make all).

    python -m helpers.make.notebooks [--pair P] [--only "01 03-05"] [-p NAME VALUE]... [--run NAME]

Every file `notebooks/NN_name.ipynb` is executed; there is no list to add a new one to. Names are
checked before anything runs. A notebook is executed into a temporary file and replaces its source
only after success; where one fails the others are executed all the same. notebooks/ holds the
default pair with the default parameters; with another pair the executed notebook goes to
data/results/PAIR/notebooks/. A run with a name of its own (--run; the default pair's gets one from
its parameters) has its tables in data/results/PAIR/RUN/ and its figures in figures/PAIR/RUN/, so
that none overwrites another; one process at a time writes there.

Any notebook takes `-p task FILE`, a file of one's own prompts (helpers/tasks/own.py), and
`-p draft MODEL -p target MODEL`, two models of one's own.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import nbformat
import papermill
import torch
from nbclient.exceptions import DeadKernelError
from papermill.translators import translate_parameters

from helpers import common, registration, store, tasks
from helpers.make.parameters import check_room, declared, injected, typed
from helpers.models import presets

FOLDER = common.ROOT / "notebooks"
DEFAULT_PAIR = "pocket"
CELL_TIMEOUT_S = 4 * 3600
KERNEL_TIMEOUT_S = 300  # for a kernel to start: on a busy machine a minute is too short
TUNING_SHARE = 5  # of a file of prompts one part in so many is for tuning, unless -p says otherwise
COUNTS = ("n_problems", "n_timed", "n_read")  # parameters that say how many prompts are needed
LONGEST_NAME = 60  # characters of a run's name that is made from its parameters
FAILED = "failed.json"  # in a run's folder: the notebooks whose last execution failed, and why
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
    """Paths of the notebooks that are named, each once; '' is all of them.

    wanted: numbers, ranges of numbers and file names, with spaces or commas between:
    "01 03", "1,3", "03-05", "notebooks/03_main_benchmark.ipynb". Errors: a name that is none.
    """
    have = available()
    chosen = []
    for name in re.split(r"[\s,]+", wanted.strip(" ,")):
        if name:
            chosen += _named(name, have)
    return list(dict.fromkeys(chosen)) or list(have.values())


def _named(name, have):
    """The notebooks that one word means: a number, a range of numbers, or a file's name."""
    numbers = re.fullmatch(r"(\d{1,2})(?:(?:-|\.\.)(\d{1,2}))?", name)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        ends = {f"{first:02d}", f"{last:02d}"}
        if first <= last and ends <= set(have):
            return [file for number, file in have.items() if first <= int(number) <= last]
    for file in have.values():
        if Path(name).name.removesuffix(".ipynb") == file.stem:
            return [file]
    raise ValueError(
        f"there is no notebook {name!r}; choose among {' '.join(have)}, several as in "
        '"01 03" or "03-05"'
    )


def title(notebook):
    """What a notebook's first heading says, without number and "Claim:": the claim in words."""
    for cell in notebook.cells:
        heading = re.match(r"#\s+(?:\d+\s*·\s*)?(?:Claim:\s*)?(.+)", cell.source)
        if cell.cell_type == "markdown" and heading:
            return heading.group(1).strip()
    return ""


def published_as(notebook):
    """The name under which a notebook publishes its verdict ('01'); None if it never does."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    call = re.search(r"publish_facts\(\s*pair_name,\s*[\"'](\w+)[\"']", code)
    return call.group(1) if call else None


def without_experts(files, pair):
    """Why notebooks that need a pair's experts are left out where it has none: {path: reason}."""
    preset = presets.preset_of(pair)
    command = presets.experts_to_make(preset)
    if preset.experts and not command:
        return {}
    reason = f"the pair {pair} has no experts, which it is about"
    if command:
        reason = f"the experts of {pair}, which it is about, are not made yet: `{command}`"
    return {file: reason for file in files if _needs_experts(nbformat.read(file, 4))}


def _needs_experts(notebook):
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return re.search(r"load_pair\(.*experts=True", "\n".join(code)) is not None


# ---- parameters --------------------------------------------------------------------------------


def plan(files, pair, given, planned_run=None):
    """What each notebook is run with: [(path, notebook, parameters)]. Names are checked here.

    With the name of a planned run ("" has one too), its plan's parameters stand for the defaults.
    """
    presets.preset_of(pair)
    runs = []
    known = set()
    for file in files:
        notebook = nbformat.read(file, 4)
        defaults = declared(notebook)
        wanted = dict(given)
        # A notebook over several tasks takes the one that is given, too.
        if "task" in wanted and "task" not in defaults and "tasks_used" in defaults:
            wanted.setdefault("tasks_used", repr([wanted.pop("task")]))
            known.add("task")
        known |= set(defaults)
        parameters = {
            name: typed(name, text, defaults[name])
            for name, text in wanted.items()
            if name in defaults
        }
        for name in ("task", "tasks_used", "open_ended"):
            if name in parameters:
                parameters[name] = _for_kernels(parameters[name])
        if planned_run is not None:
            parameters = _planned(file, pair, planned_run, defaults) | parameters
        parameters |= _fitted(file, defaults, parameters)
        _check_stated(file, notebook, defaults | parameters)
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


def _planned(file, pair, run, defaults):
    """What a notebook's registered plan changes among its defaults, for a pair and a run."""
    found = registration.load(file.name[:2], pair, run)
    if found is None:
        where = os.path.relpath(registration.FOLDER / f"{file.name[:2]}.toml")
        named = f'"{pair}/{run}"' if run else f'"{pair}"'
        raise ValueError(
            f"{where} plans nothing for {named}; write [pair_parameters.{named}] there, or leave "
            "--planned out"
        )
    return {name: value for name, value in found.parameters.items() if value != defaults.get(name)}


def _for_kernels(task):
    """A task, or a list of them, as kernels find it: they run in the repository's folder."""
    if not isinstance(task, str):
        return [_for_kernels(name) for name in task]
    tasks.check_name(task)
    if not tasks.is_file(task):
        return task
    file = tasks.find(task)
    inside = common.ROOT / task
    return task if inside.is_file() and inside.samefile(file) else str(file)


def _fitted(file, defaults, given):
    """Numbers of problems that files of prompts can give, where no others are asked for.

    Errors: a file with a wrong row, or with too few rows for what is asked.
    """
    names = [given["task"]] if "task" in given else given.get("tasks_used", [])
    rows = {name: len(tasks.load(name)) for name in names if tasks.is_file(name)}
    if not rows:
        return {}
    name = min(rows, key=rows.get)
    have = rows[name]
    fitted = {}
    tuning = given.get("n_tune", defaults.get("n_tune", 0))
    if "n_tune" in defaults and "n_tune" not in given:
        tuning = fitted["n_tune"] = min(tuning, max(2, have // TUNING_SHARE))
    counts = [count for count in COUNTS if count in defaults]
    for count in counts:
        if count not in given:
            fitted[count] = min(defaults[count], max(2, have - tuning))
    asked = defaults | given | fitted
    needed = max(asked[count] for count in counts) + tuning
    if needed > have:
        apart = f", {tuning} of them apart for tuning (n_tune)" if tuning else ""
        raise ValueError(
            f"{name} has {have} prompts and {file.name} is to use {needed}{apart}; add prompts or "
            f"lower {', '.join(counts)}"
        )
    return {count: value for count, value in fitted.items() if value != defaults[count]}


def _check_stated(file, notebook, parameters):
    """Refuse numbers that a notebook's metadata exclude: too small, too large, not among others."""
    stated = notebook.metadata.get("sp_entropy", {})
    for name, number in stated.get("least", {}).items():
        if name in parameters and parameters[name] < number:
            raise ValueError(
                f"parameter {name} was {parameters[name]}; {file.name} needs at least {number}"
            )
    for name, others in stated.get("among", {}).items():
        if name in parameters and parameters[name] not in parameters[others]:
            raise ValueError(
                f"parameter {name} was {parameters[name]}; in {file.name} it must be one of "
                f"{others}, {parameters[others]}"
            )
    for name, other in stated.get("most", {}).items():
        if name in parameters and max(parameters[name]) > parameters[other]:
            raise ValueError(
                f"parameter {name} was {parameters[name]}; in {file.name} each must be at most "
                f"{other}, {parameters[other]}"
            )


def check_models(runs, pair):
    """Refuse a pair whose folders are not there, and prompts that are too long for its models."""
    preset = presets.preset_of(pair)
    places = [preset.draft, preset.target]
    if any(_needs_experts(notebook) for _, notebook, _ in runs):
        places += preset.experts.values()
    for where in places:
        presets.locate(where, preset)
    used = [[values.get("task"), *values.get("tasks_used", ())] for _, _, values in runs]
    for task in dict.fromkeys(task for names in used for task in names if task):
        check_room(pair, preset, task)


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
    Errors: RuntimeError, with the reason in a sentence.
    """
    with store.replacing(target) as temporary:
        try:
            papermill.execute_notebook(
                str(file),
                str(temporary),
                parameters,
                kernel_name="python3",
                start_timeout=KERNEL_TIMEOUT_S,
                cwd=str(common.ROOT),
                execution_timeout=CELL_TIMEOUT_S,
                extra_arguments=["--log-level=40"],
                progress_bar=sys.stderr.isatty(),
            )
        except Exception as error:  # whatever it is, the other notebooks go on
            raise RuntimeError(
                f"{_reason(error)}; {_keep_partial(temporary, target)}finished work is in the "
                "cache, and the same command goes on from there"
            ) from None
        strip = ["--keep-output", "--keep-count", "--keep-id", "--extra-keys", " ".join(STRIPPED)]
        command = [sys.executable, "-m", "nbstripout", *strip, str(temporary)]
        if subprocess.run(command).returncode:
            raise RuntimeError(f"nbstripout could not tidy {target.name}; it stays as it was")


def _reason(error):
    """Why a notebook failed, in one line."""
    if isinstance(error, papermill.PapermillExecutionError):
        text = f"{error.ename}: {error.evalue}"
    elif isinstance(error, DeadKernelError):
        text = "its kernel died, perhaps of too little memory"
    else:
        text = str(error)
    return (text.strip() or type(error).__name__).splitlines()[0]


def _keep_partial(temporary, target):
    """Keep what a failed notebook has got to, and say where."""
    if not temporary.exists():
        return ""
    folder = hashlib.sha256(str(target.parent).encode()).hexdigest()[:8]
    kept = common.CACHE / "partial" / folder / target.name
    with store.replacing(kept) as copy:
        shutil.copyfile(temporary, copy)
    return f"the partial notebook is {kept}, "


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
        "--planned",
        action="store_true",
        help="begin with the parameters of the plans in notebooks/registered; -p changes them",
    )
    parser.add_argument(
        "--smoke", metavar="FOLDER", help="run with each notebook's smoke parameters, into FOLDER"
    )
    given = parser.parse_args(arguments)
    common.checked_run(given.run)
    given.p = dict(given.p)
    models = [given.p.pop(role, None) for role in ("draft", "target")]
    if any(models):
        # make hands over the default pair's name where none was chosen.
        name = None if given.pair == DEFAULT_PAIR else given.pair
        given.pair = presets.give(name, *models)
    if not given.run and given.pair == DEFAULT_PAIR:
        given.run = run_of(given.p)
    return given


def run_of(parameters):
    """A run's name from its parameters {name: text}: other parameters give another name.

    Where a text has more than letters, digits and dots (a minus, a list), a checksum is added.
    """
    plain = True
    parts = []
    for name, text in parameters.items():
        if not re.fullmatch(r"[A-Za-z0-9_.]+", text):
            plain = False
        shown = Path(text).name if name == "task" and tasks.is_file(text) else text
        parts.append(f"{name}-{shown}")
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", "_".join(parts))
    if plain and len(words) <= LONGEST_NAME and not words.endswith("."):
        return words
    checksum = hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:6]
    return f"{words[:LONGEST_NAME].strip('-.')}-{checksum}"


def main(arguments=None):
    given = read_arguments(arguments)
    files = choose(given.only)
    skipped = without_experts(files, given.pair)
    left = [file for file in files if file not in skipped]
    runs = plan(left, given.pair, given.p, given.run if given.planned else None)
    for file, reason in skipped.items():
        print(f"{file.name} is skipped: {reason}", flush=True)
    if not runs:
        raise ValueError("no notebook is left to execute; choose others, or another pair")
    check_models(runs, given.pair)
    if not given.smoke:
        given.run = _apart(runs, given)
    # The kernels read these: see the table of settings in helpers/README.md.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    os.environ["SP_QUIET"] = "1"
    os.environ["SP_RUN"] = given.run
    for name, folder in (("SP_OUT", common.OUT), ("SP_CACHE", common.CACHE)):
        if os.environ.get(name):
            os.environ[name] = str(folder)  # kernels run in another folder
    if given.smoke:
        os.environ["SP_OUT"] = os.path.abspath(given.smoke)
        os.environ["SP_CACHE"] = str(Path(given.smoke).absolute() / "cache")
    _warn_of_shared_names(runs)
    folder = Path(given.smoke) if given.smoke else common.results(given.pair)
    others = []
    if not given.smoke:
        others = [common.figures(given.pair), folder / "figures"]
        others += {_target(file, parameters, given).parent for file, _, parameters in runs}
    with store.locked(folder, *others):
        failed = {}
        for file, notebook, parameters in runs:
            if given.smoke:
                parameters = smoke_parameters(file, notebook)
            reason = _execute_and_note(file, notebook, parameters, given)
            if reason:
                failed[file.stem] = reason
    if not given.smoke:
        run = f"{given.pair}/{given.run}" if given.run else given.pair
        left_out = {file.stem: f"skipped ({reason})" for file, reason in skipped.items()}
        left_out |= {name: f"failed ({reason})" for name, reason in failed.items()}
        print(verdicts(run, files, left_out))
    if failed:
        each = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise RuntimeError(f"{len(failed)} of {len(runs)} notebooks failed. {each}")


def _execute_and_note(file, notebook, parameters, given):
    """Execute one notebook and note its time, or why it failed: that is returned, else None."""
    target = _target(file, parameters, given)
    begin = time.time()
    if parameters and not given.smoke:
        shown = ", ".join(f"{name} = {value!r}" for name, value in parameters.items())
        print(f"{file.name} with {shown} ...", flush=True)
    else:
        print(f"{file.name} ...", flush=True)
    try:
        execute(file, notebook, parameters, target)
    except (RuntimeError, OSError) as error:
        print(f"{file.name} failed: {error}", flush=True)
        reason = str(error).split("; ")[0]
    else:
        reason = None
        took = time.time() - begin
        print(f"{file.name} done in {took:.0f} s -> {os.path.relpath(target)}", flush=True)
        if not given.smoke:
            note_time(given.pair, target.stem, took)
    if not given.smoke:
        note_failure(given.pair, target.stem, reason)
    return reason


def _target(file, parameters, given):
    """Where an executed notebook goes; only the default pair's as it stands replace the source."""
    if given.smoke:
        return Path(given.smoke) / file.name
    if parameters or given.run:
        return common.results(given.pair) / "notebooks" / file.name
    # Where results go elsewhere this checkout stays as it is.
    return file if common.OUT == common.ROOT else common.OUT / "notebooks" / file.name


def _apart(runs, given):
    """The run's name; one from its parameters where the pair's folder holds others' executions.

    Otherwise `-p tau -1` and `-p tau 1` would write over each other. What a pair's note.txt says
    is to be replaced may be.
    """
    folder = common.OUT / "data" / "results" / given.pair
    if given.run or given.pair == DEFAULT_PAIR or (folder / "note.txt").exists():
        return given.run
    for file, _, parameters in runs:
        kept = folder / "notebooks" / file.name
        if not kept.exists():
            continue
        anew = translate_parameters("python3", "python", parameters, "Parameters")
        if injected(nbformat.read(kept, 4)).strip() != anew.strip():
            name = run_of(given.p) or "defaults"
            print(
                f"note: {os.path.relpath(kept)} was made with other parameters and is kept; this "
                f"run goes to a folder of its own, {folder / name} (RUN=NAME chooses another)",
                flush=True,
            )
            return name
    return ""


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
    times = store.read_json(file) or {}
    times[name] = {
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.is_available(),
        "date": date.today().isoformat(),
    }
    store.write_text(file, json.dumps(times, indent=1) + "\n")


def note_failure(pair, name, reason):
    """Remember why a notebook's last execution failed, until one succeeds (reason None)."""
    file = common.results(pair) / FAILED
    failed = store.read_json(file) or {}
    failed.pop(name, None)
    if reason:
        failed[name] = {"reason": reason, "date": date.today().isoformat()}
    if failed:
        store.write_text(file, json.dumps(failed, indent=1) + "\n")
    else:
        file.unlink(missing_ok=True)


def verdicts(run, files, left_out):
    """The lines that an execution ends with: each notebook and what it found. run: PAIR[/RUN].

    left_out: name of a notebook -> what became of it, where it has found nothing this time.
    """
    lines = [f"\nVerdicts on {run}:"]
    for file in files:
        facts = store.facts(run, file.name[:2])
        found = facts["verdict"] if facts else "none was published"
        lines.append(f"  {file.stem:<28}{left_out.get(file.stem, found)}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished work is in data/cache and the same command goes on from there"
        ) from None
