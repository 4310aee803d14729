"""Problems of a task, from the first place that has its data.

Data is looked up in $SP_DATA (a folder of TASK/*.jsonl[.gz] in upstream field names), then in data/benchmarks/,
then on the hub.
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
from helpers.tasks import corpus
from helpers.tasks.table import NAMES, POCKET_TOKENS, TASKS, Problem, user


def load(task, n_problems=None, seed=0):
    """n_problems of a task, chosen by seed (the first ones of a larger choice are the same). Returns [Problem].

    Errors: an unknown task, no data, a damaged file (with file and line), more problems than there are.
    """
    if task not in NAMES:
        raise ValueError(f"there is no task {task!r}; choose one of {', '.join(NAMES)}")
    if n_problems is not None and n_problems < 1:
        raise ValueError(f"n_problems was {n_problems}; it must be 1 or more")
    if task.startswith("pocket-"):
        domain = task.removeprefix("pocket-")
        return [
            Problem(r["id"], task, (user(r["question"]),), r, POCKET_TOKENS[domain])
            for r in corpus.problems(domain, n_problems or 200, seed)
        ]
    rows = _rows(task)
    if n_problems and n_problems > len(rows):
        raise ValueError(
            f"{n_problems} problems of {task} were asked for and {len(rows)} are there; lower n_problems"
        )
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [_problem(task, *rows[i]) for i in order[:n_problems]]


def _problem(task, where, identity, row):
    """One row as a Problem; a row that does not fit its task is reported by file and line."""
    entry = TASKS[task]
    try:
        meta = {k: row[k] for k in ("category", "subject", "level") if k in row}
        return Problem(
            identity,
            task,
            tuple(entry.prompt(row)),
            entry.reference(row),
            entry.max_new_tokens,
            entry.stop,
            tuple(row.get("turns", ())[1:]),
            meta,
        )
    except (TypeError, ValueError, LookupError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where}: not a row of {task} ({said}); fetch the file again") from error


def follow(problem, text):
    """The next turn of a conversation in which `text` was the reply to `problem`, or None after the last turn."""
    if not problem.followups:
        return None
    messages = (
        *problem.messages,
        {"role": "assistant", "content": text},
        user(problem.followups[0]),
    )
    turn = sum(m["role"] == "user" for m in messages)
    return replace(
        problem,
        id=f"{problem.id.split('/turn')[0]}/turn{turn}",
        messages=messages,
        reference=None,
        followups=problem.followups[1:],
    )


def _rows(task):
    """A task's rows [(where, id, row)] from the first place that has them."""
    entry, tried = TASKS[task], []
    for name, root in (
        ("$SP_DATA", os.environ.get("SP_DATA")),
        ("data/benchmarks", common.DATA / "benchmarks"),
    ):
        for file in (Path(root) / entry.file, Path(root) / f"{entry.file}.gz") if root else ():
            if file.exists():
                return _checked(task, read_jsonl(file))
        tried.append(f"{name} ({Path(root) / entry.file})" if root else f"{name} (not set)")
    try:
        from datasets import load_dataset

        rows = load_dataset(**entry.hub)
    except Exception as error:
        source = entry.hub.get("data_files", entry.hub["path"])
        raise FileNotFoundError(
            f"no data for {task}: looked in {tried[0]}, in {tried[1]} and on the hub "
            f"({source}: {type(error).__name__}); put the file at "
            f"data/benchmarks/{entry.file} or set SP_DATA to a folder that has {entry.file}"
        ) from error
    return _checked(task, ((f"{entry.hub['path']}, row {i}", row) for i, row in enumerate(rows)))


def _checked(task, rows):
    """Give every (where, row) its id; fields must be there and ids must differ."""
    entry, seen = TASKS[task], {}
    for where, row in rows:
        row = {
            entry.renamed.get(k, k) if entry.renamed.get(k) not in row else k: v
            for k, v in row.items()
        }
        missing = [f for f in entry.fields if row.get(f) is None]
        if missing:
            raise ValueError(
                f"{where}: no field {missing[0]!r} (it has {', '.join(row)}); fetch the file again"
            )
        identity = (
            f"{task}-{row[entry.identity] if entry.identity else _hash(row[entry.fields[0]])}"
        )
        while (
            not entry.identity and identity in seen
        ):  # upstream repeats a question: its own id, in the same order
            identity += "+"
        if identity in seen:
            raise ValueError(
                f"{where}: the id {identity} was there before ({seen[identity][0]}); fetch the file again"
            )
        seen[identity] = (where, identity, row)
    return list(seen.values())


def _hash(text):
    return hashlib.sha256(str(text).encode()).hexdigest()[:10]


def read_jsonl(file):
    """Rows of a .jsonl or .jsonl.gz file as ("FILE, line N", row); a damaged line is reported as such."""
    number, empty = 0, True
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row, empty = json.loads(line.decode("utf-8")), False
                    if not isinstance(row, dict):
                        raise TypeError(f"a row is an object, this is a {type(row).__name__}")
                    yield f"{file}, line {number}", row
    except (EOFError, OSError, zlib.error) as error:  # reading stopped after the last whole line
        raise ValueError(
            f"{file}, line {number + 1}: cannot be read ({error}); fetch the file again"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(
            f"{file}, line {number}: cannot be read ({error}); fetch the file again"
        ) from error
    if empty:
        raise ValueError(f"{file}, line 1: the file is empty; fetch the file again")
