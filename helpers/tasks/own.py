"""A file of the user's own prompts as a task: `tasks.load("my-prompts.jsonl")`.

One JSON object a line, with `prompt` (text) or `messages` (a chat), and if wanted

    answer          what is right; without one the answer has no score ("no reference")
    grader          one of GRADERS; left out, it follows from the answer (see `_grader_of`)
    test            Python that tests a program: assertions, or a function check(candidate)
    entry_point     the name of the function that they call
    id              a name of the row, else a checksum of its messages
    max_new_tokens  the longest answer (256)

Or plain text, one prompt a line. Other fields are left alone, unless one is a misspelled name of
these.
"""

import difflib
import gzip
import hashlib
import json
import math
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from helpers import common
from helpers.tasks import grading
from helpers.tasks.grading import Grade
from helpers.tasks.table import USER, Problem, user

FIELDS = (
    "prompt",
    "messages",
    "answer",
    "grader",
    "test",
    "entry_point",
    "id",
    "max_new_tokens",
)
ROLES = ("system", "user", "assistant")
LONGEST_ANSWER = 256  # tokens, of a row that does not say


class Reference(NamedTuple):
    """What an answer is graded by: a name of GRADERS ("" for none) and what that one needs."""

    grader: str
    answer: object = None


# ---- reading -----------------------------------------------------------------------------------


def is_file(task):
    """Whether a task's name means a file of prompts: it has a folder or an ending."""
    return "/" in task or "\\" in task or bool(Path(task).suffix)


def find(task):
    """The file that is meant: from the working folder, or else from the repository's.

    A notebook's kernel runs in either.
    """
    given = Path(task).expanduser()
    places = [Path.cwd() / given, common.ROOT / given]
    for file in places:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"there is no file of prompts {task}: looked for {' and '.join(map(str, set(places)))}; "
        "give its whole path"
    )


def problems(task):
    """All rows of a file of prompts, as [Problem] in the order of the file."""
    return [problem for _, problem in numbered(task)]


def numbered(task):
    """[("FILE, line N", Problem)] of a file of prompts.

    Errors: a row that cannot be used, by file and line, in one sentence.
    """
    file = find(task)
    lines = {}  # id -> where its row is
    found = []
    for line, row in _rows(file):
        where = f"{file}, line {line}"
        problem = _problem(task, where, row)
        identity = problem.id
        if "id" in row and identity in lines:
            raise ValueError(
                f"{where}: the id {row['id']!r} was there before ({lines[identity]}); give every "
                "row an id of its own, or none"
            )
        while identity in lines:  # the same prompt once more is another problem
            identity += "+"
        lines[identity] = where
        found.append((where, replace(problem, id=identity)))
    if not found:
        raise ValueError(f"{file}, line 1: there is no prompt; write one a line")
    return found


def _rows(file):
    """(number of the line, row) of a file; a line of plain text is a row with a prompt."""
    lines = _lines(file)
    as_json = _is_json(file, lines)
    for number, text in lines:
        if not text.strip():
            continue
        if not as_json:
            yield number, {"prompt": text.strip()}
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # a number or a nesting beyond all bounds too
            raise ValueError(
                f"{where}: no JSON ({error}); write one object a line, or plain text into a file "
                "that ends in .txt"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}: this is a {type(row).__name__}; a row is one JSON object on one line, "
                'as {"prompt": "…"}'
            )
        half = re.search("[\ud800-\udfff]", json.dumps(row, ensure_ascii=False))
        if half:  # of a character beyond the first 65,536, which a program has cut in two
            raise ValueError(f"{where}: {half[0]!r} is half a character; save the text again")
        yield number, row


def _is_json(file, lines):
    """Whether a file's lines are JSON: by its ending, else by its first line.

    Text may begin with a bracket too, so in a .txt file the first line has to be an object.
    """
    if ".jsonl" in file.suffixes:
        return True
    first = next((text for _, text in lines if text.strip()), "")
    if file.suffix != ".txt":
        return first.lstrip().startswith(("{", "["))
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _lines(file):
    """[(number, text)] of a file, packed or not."""
    open_file = gzip.open if file.suffix == ".gz" else open
    numbered = []
    try:
        with open_file(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                # Windows' editors begin a file with a mark of their own.
                encoding = "utf-8-sig" if number == 1 else "utf-8"
                numbered.append((number, line.decode(encoding)))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}, line {len(numbered) + 1}: no UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file}, line {len(numbered) + 1}: cannot be read ({error}); save the file again"
        ) from None
    return numbered


# ---- rows --------------------------------------------------------------------------------------


def _problem(task, where, row):
    """One row as a Problem."""
    for name in row:
        meant = difflib.get_close_matches(name, FIELDS, 1, cutoff=0.8)
        if meant and name not in FIELDS and len(name) > 3:
            raise ValueError(f"{where}: there is no field {name!r}; {meant[0]!r} is meant")
    messages = _messages(where, row)
    limit = row.get("max_new_tokens", LONGEST_ANSWER)
    if type(limit) is not int or limit < 1:
        raise ValueError(f"{where}: max_new_tokens was {limit!r}; it must be a whole number from 1")
    identity = row.get("id")
    if "id" in row and not (type(identity) is int or (isinstance(identity, str) and identity)):
        raise ValueError(f"{where}: id was {identity!r}; it must be a text or a whole number")
    if identity is None:
        text = json.dumps(messages, ensure_ascii=False, sort_keys=True)
        identity = hashlib.sha256(text.encode()).hexdigest()[:10]
    return Problem(
        id=f"own-{identity}",
        task=task,
        messages=messages,
        reference=_reference(where, row, messages),
        max_new_tokens=limit,
        stop=USER,
    )


def _messages(where, row):
    """The chat of a row."""
    if ("prompt" in row) == ("messages" in row):
        raise ValueError(
            f"{where}: a row needs `prompt` or `messages`, one of them (it has {_listed(row)})"
        )
    if "prompt" in row:
        if not isinstance(row["prompt"], str) or not row["prompt"].strip():
            raise ValueError(f"{where}: prompt was {row['prompt']!r}; it must be a text")
        return (user(row["prompt"]),)
    chat = row["messages"]
    if not isinstance(chat, list) or not chat:
        raise ValueError(f"{where}: messages must be a list of messages, it was {chat!r}")
    for message in chat:
        is_message = isinstance(message, dict) and isinstance(message.get("content"), str)
        if not is_message or message.get("role") not in ROLES:
            raise ValueError(
                f"{where}: a message is an object with a role ({', '.join(ROLES)}) and a content "
                f"(text), this one is {message!r}"
            )
    if chat[-1]["role"] != "user":
        raise ValueError(f"{where}: the last message must be the user's, it is {chat[-1]!r}")
    return tuple({"role": m["role"], "content": m["content"]} for m in chat)


def _listed(row):
    return ", ".join(row) or "no field"


# ---- answers -----------------------------------------------------------------------------------


def _reference(where, row, messages):
    """What a row's answer is graded by."""
    answer = row.get("answer")
    name = row.get("grader")
    if name is None:
        name = _grader_of(row)
    if name not in ("", *GRADERS):
        raise ValueError(f"{where}: grader was {name!r}; choose one of {', '.join(GRADERS)}")
    if name in ("", "judge"):
        if answer is not None and not isinstance(answer, str):
            raise ValueError(f"{where}: a judge compares with a text, answer was {answer!r}")
        return Reference(name, answer)
    if name == "program":
        return Reference(name, _tests(where, row, messages))
    if answer is None:
        raise ValueError(f"{where}: the grader {name} needs an `answer`")
    _, needs, ready = GRADERS[name]
    try:
        return Reference(name, ready(answer))
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: answer was {answer!r}; the grader {name} needs {needs}"
        ) from None


def _grader_of(row):
    """The grader of a row that names none.

    A row with tests is a program, a number the last number, one of A to D a letter, any other
    answer an exact match; without an answer there is none.
    """
    if "test" in row:
        return "program"
    answer = row.get("answer")
    if answer is None:
        return ""
    if isinstance(answer, list):
        return "exact_match"
    text = str(answer).strip()
    if re.fullmatch(rf"\$?(?:{grading.NUMBER})%?", text):
        return "last_number"
    return "letter" if re.fullmatch("[A-D]", text) else "exact_match"


def _text(answer):
    """An answer as text, as most graders need it."""
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise TypeError(answer)
    if not str(answer).strip():
        raise ValueError(answer)
    return str(answer)


def _with_number(answer):
    if not grading.numbers(_text(answer)):
        raise ValueError(answer)
    return _text(answer)


def _one_letter(answer):
    if not re.fullmatch("[A-Da-d]", _text(answer).strip()):
        raise ValueError(answer)
    return answer.strip().upper()


def _aliases(answer):
    aliases = answer if isinstance(answer, list) else [answer]
    if not aliases:
        raise ValueError(answer)
    return [_text(alias) for alias in aliases]


def _tests(where, row, messages):
    """Reference of a program: the tests, what they call, and what the prompt itself defines."""
    for name in ("test", "entry_point"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise ValueError(f"{where}: a program needs `test` and `entry_point`, both texts")
    entry = row["entry_point"].strip()
    if not entry.isidentifier():
        raise ValueError(f"{where}: entry_point was {entry!r}; it must be a function's name")
    try:
        compile(row["test"], "test", "exec")
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{where}: test is no Python ({error})") from None
    test = row["test"]
    if not re.search(r"^def check\(", test, re.M):  # plain assertions
        test = f"{test}\n\n\ndef check(candidate):\n    pass"
    # HumanEval's prompts are Python that the answer may continue; most prompts are English.
    prompt = messages[-1]["content"]
    return {"prompt": prompt if _is_python(prompt) else "", "test": test, "entry_point": entry}


def _is_python(text):
    """Whether a text defines something in Python."""
    try:
        compile(text, "prompt", "exec")
    except (SyntaxError, ValueError):
        return False
    return bool(re.search(r"^(?:def|class|import|from) ", text, re.M))


# Name of a grader -> (how it grades, what it needs in words, how an answer becomes that).
GRADERS = {
    "last_number": (grading.last_number, "a number", _with_number),
    "math": (grading.math, "a text in LaTeX", _text),
    "exact_match": (grading.exact_match, "a text or a list of texts", _aliases),
    "letter": (grading.letter, "one of A, B, C, D", _one_letter),
    "rouge_l": (grading.rouge_l, "a text", _text),
    "program": (grading.humaneval, "tests", None),
    "judge": (grading.open_ended, "a text", None),
}


def grade(reference, text):
    """Grade an answer to a row of a file: a Grade, a Program to run, or None for the judge."""
    if not reference.grader:
        return Grade(math.nan, "no reference")
    how, _, _ = GRADERS[reference.grader]
    return how(reference.answer, text)
