"""Problems of a task, from the first place that has its data.

A task that is a file of prompts (helpers/tasks/own.py) is read from there. Any other's data
is looked up in $SP_DATA (a folder of TASK/*.jsonl[.gz] in upstream field names), then in
data/benchmarks/, then on the hub.
"""

import gzip
import hashlib
import json
import os
import random
import zlib
from dataclasses import replace
from pathlib import Path

from helpers import common
from helpers.tasks import corpus, own
from helpers.tasks.table import (
    POCKET_TASKS,
    POCKET_TOKENS,
    TASKS,
    Problem,
    assistant,
    names,
    user,
)


def load(task, n_problems=None, seed=0):
    """Choose n_problems of a task by seed. Returns [Problem].

    The first problems of a larger choice are the same. Without n_problems: every row of the task's
    file, or 200 problems of a pocket task.
    task: a name, or a file of prompts (helpers/tasks/own.py says what is in it).
    Errors: an unknown task, a negative seed, no data, a damaged file (with file and line), more
    problems than there are.
    """
    check_name(task)
    if n_problems is not None and n_problems < 1:
        raise ValueError(f"n_problems was {n_problems}; it must be 1 or more")
    if seed < 0:  # Python's generator would take -1 for 1
        raise ValueError(f"seed was {seed}; it must be 0 or more")
    if task in POCKET_TASKS and task not in TASKS:
        return _generated(task, n_problems or 200, seed)
    rows = _rows(task) if task in TASKS else own.problems(task)
    if n_problems and n_problems > len(rows):
        raise ValueError(
            f"{n_problems} problems of {task} were asked for and {len(rows)} are there; "
            "lower n_problems"
        )
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    chosen = [rows[i] for i in order[:n_problems]]
    return [_problem(task, *row) for row in chosen] if task in TASKS else chosen


def check_name(task):
    """Refuse a task that is neither a name nor a file of prompts."""
    if task not in names() and not own.is_file(task):
        raise ValueError(
            f"there is no task {task!r}; choose one of {', '.join(names())}, or give a file of "
            "prompts, as my-prompts.jsonl"
        )


def follow(problem, text):
    """The next turn of a conversation in which `text` was the reply to `problem`.

    Returns a Problem, or None after the last turn.
    """
    if not problem.followups:
        return None
    messages = (*problem.messages, assistant(text), user(problem.followups[0]))
    turn = sum(message["role"] == "user" for message in messages)
    first_id = problem.id.split("/turn")[0]
    return replace(
        problem,
        id=f"{first_id}/turn{turn}",
        messages=messages,
        reference=None,
        followups=problem.followups[1:],
    )


def _generated(task, n_problems, seed):
    """Problems of a pocket task."""
    domain = POCKET_TASKS[task]
    return [
        Problem(row["id"], task, (user(row["question"]),), row, POCKET_TOKENS[domain])
        for row in corpus.problems(domain, n_problems, seed)
    ]


def _problem(task, where, identity, row):
    """One row as a Problem; a row that does not fit its task is reported by file and line."""
    entry = TASKS[task]
    try:
        return Problem(
            id=identity,
            task=task,
            messages=tuple(entry.prompt(row)),
            reference=entry.reference(row),
            max_new_tokens=entry.max_new_tokens,
            stop=entry.stop,
            followups=tuple(row.get("turns", ())[1:]),
            meta={key: row[key] for key in ("category", "subject", "level") if key in row},
        )
    except (TypeError, ValueError, LookupError) as error:
        raise ValueError(
            f"{where}: not a row of {task} ({type(error).__name__}: {error}); fetch the file again"
        ) from error


# ---- rows --------------------------------------------------------------------------------------


def _rows(task):
    """A task's rows [(where, id, row)] from the first place that has them."""
    entry = TASKS[task]
    folders = {
        "$SP_DATA": os.environ.get("SP_DATA"),
        "data/benchmarks": common.DATA / "benchmarks",
    }
    places = []  # where it was looked for, for the error
    for name, folder in folders.items():
        if not folder:
            places.append(f"in {name} (not set)")
            continue
        places.append(f"in {name} ({Path(folder) / entry.file})")
        for file in (Path(folder) / entry.file, Path(folder) / f"{entry.file}.gz"):
            if file.exists():
                return _checked(task, read_jsonl(file))
    return _checked(task, _from_hub(task, places))


def _from_hub(task, places):
    """Rows of a task's data set on the hub as [("SOURCE, row N", row)].

    places: where the data was looked for before, for the error that says that it is nowhere.
    """
    entry = TASKS[task]
    how_to = (
        f"put the file at data/benchmarks/{entry.file} or set SP_DATA to a folder that has "
        f"{entry.file}"
    )
    if not entry.hub:
        raise FileNotFoundError(f"no data for {task}: looked {' and '.join(places)}; {how_to}")
    try:
        from datasets import load_dataset

        rows = load_dataset(**entry.hub)
    except Exception as error:
        source = entry.hub.get("data_files", entry.hub["path"])
        raise FileNotFoundError(
            f"no data for {task}: looked {', '.join(places)} and on the hub "
            f"({source}: {type(error).__name__}); {how_to}"
        ) from error
    return [(f"{entry.hub['path']}, row {i}", row) for i, row in enumerate(rows)]


def _checked(task, rows):
    """Give every (where, row) its id; fields must be there and ids must differ."""
    entry = TASKS[task]
    checked = {}  # id -> (where, id, row)
    for where, row in rows:
        row = _in_our_names(row, entry.renamed)
        missing = [name for name in entry.fields if row.get(name) is None]
        if missing:
            raise ValueError(
                f"{where}: no field {missing[0]!r} (it has {', '.join(row)}); fetch the file again"
            )
        if entry.identity:
            identity = f"{task}-{row[entry.identity]}"
        else:
            identity = f"{task}-{_hash(row[entry.fields[0]])}"
            # Upstream repeats a few questions: each repetition gets an id of its own, the same in
            # every run because the order of the file is.
            while identity in checked:
                identity += "+"
        if identity in checked:
            raise ValueError(
                f"{where}: the id {identity} was there before ({checked[identity][0]}); "
                "fetch the file again"
            )
        checked[identity] = (where, identity, row)
    return list(checked.values())


def _in_our_names(row, renamed):
    """A row with the hub's field names replaced by ours, unless it has ours already."""
    return {
        renamed[name] if name in renamed and renamed[name] not in row else name: value
        for name, value in row.items()
    }


def _hash(text):
    return hashlib.sha256(str(text).encode()).hexdigest()[:10]


def read_jsonl(file):
    """Rows of a .jsonl or .jsonl.gz file as ("FILE, line N", row).

    A damaged line is a ValueError that names the file and the line.
    """
    open_file = gzip.open if file.suffix == ".gz" else open
    number = 0
    empty = True
    try:
        with open_file(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8"))
                empty = False
                if not isinstance(row, dict):
                    raise TypeError(f"a row is an object, this is a {type(row).__name__}")
                yield f"{file}, line {number}", row
    except (EOFError, OSError, zlib.error) as error:
        # Reading stopped after the last whole line, so the damage is in the next one.
        raise ValueError(
            f"{file}, line {number + 1}: cannot be read ({error}); fetch the file again"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(
            f"{file}, line {number}: cannot be read ({error}); fetch the file again"
        ) from error
    if empty:
        raise ValueError(f"{file}, line 1: the file is empty; fetch the file again")
