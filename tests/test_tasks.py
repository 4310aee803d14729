"""Loading: where rows come from, which are chosen, what an id is, what is said of damaged data."""

import gzip
import json
import math
import re

import pytest

from helpers import common, tasks
from helpers.tasks import corpus, grading

ROWS = [
    {"question": f"How much is {i} + {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"}
    for i in range(40)
]
TURNS = [
    {
        "question_id": 81 + i,
        "category": "writing",
        "turns": [f"Write {i}.", "Shorten it.", "Translate it."],
    }
    for i in range(3)
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder for SP_DATA with 40 rows of gsm8k and three of mt_bench.

    data(task, bytes) writes another file there.
    """
    monkeypatch.setenv("SP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATA", tmp_path / "none")

    def put(task, content, packed=False):
        file = tmp_path / (tasks.TASKS[task].file + (".gz" if packed else ""))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    put("gsm8k", jsonl(ROWS))
    put("mt_bench", jsonl(TURNS))
    return put


@pytest.fixture
def own_task():
    """Takes a task that a test adds out of the table again."""
    before = dict(tasks.TASKS)
    yield
    tasks.TASKS.clear()
    tasks.TASKS.update(before)


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def question(problem):
    """The text of the last message of a problem."""
    return problem.messages[-1]["content"]


# ---- which rows, and their ids -----------------------------------------------------------------


@pytest.mark.parametrize("task", tasks.TASKS)
def test_real_task_loads(task, shared_datasets, monkeypatch):
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    problems = tasks.load(task)
    assert len(problems) >= 80
    by_id = {problem.id: problem for problem in problems}
    assert len(by_id) == len(problems)
    for problem in problems:
        assert problem.id.startswith(f"{task}-")
        assert problem.messages[-1]["role"] == "user"
        assert question(problem).strip()

    some = tasks.load(task, 20)
    others = tasks.load(task, 20, seed=1)
    assert some == problems[:20]  # a smaller choice begins the larger one
    assert [problem.id for problem in others] != [problem.id for problem in some]
    assert all(by_id[problem.id] == problem for problem in others)  # an id names a problem

    grade = tasks.TASKS[task].grade(problems[0].reference, "nothing of use")
    assert grade is None or isinstance(grade, tasks.sandbox.Program) or grade.score < 0.2


@pytest.mark.parametrize("domain", corpus.DOMAINS)
def test_pocket_task_loads(domain):
    problems = tasks.load(f"pocket-{domain}", 5)
    more = tasks.load(f"pocket-{domain}", 9)
    others = tasks.load(f"pocket-{domain}", 5, seed=1)
    assert problems == more[:5]
    assert [problem.id for problem in problems] != [problem.id for problem in others]


def test_a_negative_seed_is_refused():
    """Python's generator gives -1 what 1 has."""
    with pytest.raises(ValueError, match="seed was -1; it must be 0 or more"):
        tasks.load("pocket-arithmetic", 5, seed=-1)


def test_ids_do_not_depend_on_the_other_rows(data):
    before = {question(problem): problem.id for problem in tasks.load("gsm8k")}
    data("gsm8k", jsonl(ROWS[:7:-1]))
    after = tasks.load("gsm8k")
    assert len(after) == 32
    assert all(before[question(problem)] == problem.id for problem in after)


def test_a_repeated_question_without_upstream_id_gets_its_own(data):
    data("gsm8k", jsonl([ROWS[0], ROWS[1], ROWS[0]]))
    assert len({problem.id for problem in tasks.load("gsm8k")}) == 3


@pytest.mark.parametrize(
    "task, n, sentence",
    [
        ("gsm9k", 1, "choose one of .*gsm8k"),
        ("gsm8k", 0, "must be 1 or more"),
        ("gsm8k", 41, "41 problems .* and 40 are there"),
    ],
)
def test_wrong_arguments(data, task, n, sentence):
    with pytest.raises(ValueError, match=sentence):
        tasks.load(task, n)


# ---- where data is looked for ------------------------------------------------------------------


def test_lookup_order(data, tmp_path, monkeypatch):
    """$SP_DATA first, then data/benchmarks, then the hub; packed files too."""
    monkeypatch.setattr(common, "DATA", tmp_path / "repository")
    folder = tmp_path / "repository" / "benchmarks" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "test.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS[:5])))
    assert len(tasks.load("gsm8k")) == 40

    monkeypatch.delenv("SP_DATA")
    assert len(tasks.load("gsm8k")) == 5

    (folder / "test.jsonl.gz").unlink()
    sources = []

    def load_dataset(**source):
        sources.append(source)
        return ROWS[:3]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(tasks.load("gsm8k")) == 3
    assert sources == [{"path": "openai/gsm8k", "name": "main", "split": "test"}]


def test_the_hubs_other_field_names(data, monkeypatch):
    monkeypatch.delenv("SP_DATA")
    row = {
        "prompt": ["Write.", "Shorten."],
        "prompt_id": 81,
        "category": "writing",
        "reference": [],
    }
    monkeypatch.setattr("datasets.load_dataset", lambda **source: [row])
    (problem,) = tasks.load("mt_bench")
    assert problem.id == "mt_bench-81"
    assert question(problem) == "Write."
    assert problem.followups == ("Shorten.",)


def test_no_data_says_where_it_was_looked_for(data, monkeypatch):
    def offline(**source):
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(FileNotFoundError) as error:
        tasks.load("law")
    sentence = str(error.value)
    assert "$SP_DATA" in sentence
    assert "data/benchmarks" in sentence
    assert "hub (cais/mmlu: ConnectionError)" in sentence
    assert "set SP_DATA" in sentence
    assert "\n" not in sentence


# ---- damaged data ------------------------------------------------------------------------------

NOISY_ROWS = [row | {"noise": hash(str(row)) % 2**60} for row in ROWS]  # compresses badly
PACKED = gzip.compress(jsonl(NOISY_ROWS))
LATIN_1 = '{"question": "é", "answer": "#### 1"}\n'.encode("latin-1")
UNREADABLE = "cannot be read"
DAMAGED = {  # (content of the file, whether its name ends in .gz, what is said of it)
    "truncated gzip": (
        PACKED[: len(PACKED) // 2],
        True,
        rf"line \d+: {UNREADABLE} \(Compressed file ended",
    ),
    "broken gzip": (PACKED[:40] + b"\0" * 30 + PACKED[70:], True, rf"line \d+: {UNREADABLE}"),
    "no gzip": (jsonl(ROWS), True, rf"line 1: {UNREADABLE} \(Not a gzipped file"),
    "empty gzip": (b"", True, r"line 1: the file is empty"),
    "empty file": (b"", False, r"line 1: the file is empty"),
    "blank lines": (b"\n\n", False, r"the file is empty"),
    "missing field": (
        jsonl([*ROWS[:2], {"question": "?"}]),
        False,
        r"line 3: no field 'answer' \(it has question\)",
    ),
    "null field": (
        jsonl([{"question": None, "answer": "#### 1"}]),
        False,
        r"line 1: no field 'question'",
    ),
    "wrong encoding": (
        jsonl(ROWS[:30]) + LATIN_1,
        False,
        rf"line 31: {UNREADABLE} \('utf-8' codec",
    ),
    "two bytes a letter": (
        jsonl(ROWS).decode().encode("utf-16"),
        False,
        rf"line 1: {UNREADABLE} \('utf-8' codec",
    ),
    "cut in a line": (jsonl(ROWS)[:-20], False, rf"line 40: {UNREADABLE} \(Unterminated string"),
    "no object": (
        b"[1, 2]\n",
        False,
        rf"line 1: {UNREADABLE} \(a row is an object, this is a list",
    ),
    "a page of HTML": (
        b"<!DOCTYPE html>\n<html>",
        False,
        rf"line 1: {UNREADABLE} \(Expecting value",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_data(data, name):
    """One sentence with file and line."""
    content, packed, sentence = DAMAGED[name]
    data("gsm8k", b"").unlink()
    file = data("gsm8k", content, packed)
    with pytest.raises(ValueError, match=sentence) as error:
        tasks.load("gsm8k")
    assert str(error.value).startswith(f"{file}, line ")
    assert str(error.value).endswith("fetch the file again")
    assert "\n" not in str(error.value)


def test_duplicate_id(data):
    file = data("mt_bench", jsonl([*TURNS, TURNS[0] | {"turns": ["Else."]}]))
    sentence = r"line 4: the id mt_bench-81 was there before \(.*line 1\)"
    with pytest.raises(ValueError, match=sentence) as error:
        tasks.load("mt_bench")
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize(
    "task, row",
    [
        ("mt_bench", {"question_id": 1, "turns": []}),
        ("triviaqa", {"question": "?", "answer": ["x"]}),
        ("law", {"question": "?", "choices": ["a", "b", "c"], "answer": 0}),
        ("law", {"question": "?", "choices": ["a", "b", "c", "d"], "answer": 4}),
        ("law", {"question": "?", "choices": ["a", "b", "c", "d"], "answer": -1}),
        ("nq_open", {"question": "?", "answer": []}),
        ("nq_open", {"question": "?", "answer": "Paris"}),
        ("gsm8k", {"question": "?", "answer": "#### "}),
    ],
)
def test_row_of_another_shape(data, task, row):
    data(task, jsonl([row]))
    with pytest.raises(ValueError, match=f"line 1: not a row of {task}"):
        tasks.load(task)


# ---- a task of the user's own ------------------------------------------------------------------


@pytest.mark.parametrize("place", ["$SP_DATA", "data/benchmarks"])
def test_a_task_that_a_notebook_adds(place, own_task, tmp_path, monkeypatch):
    """One entry in TASKS and one grader: then it is named, loaded and graded like any other."""
    monkeypatch.delenv("SP_DATA", raising=False)
    if place == "$SP_DATA":
        monkeypatch.setenv("SP_DATA", str(tmp_path))
        file = tmp_path / "mine" / "test.jsonl"
    else:
        monkeypatch.setattr(common, "DATA", tmp_path)
        file = tmp_path / "benchmarks" / "mine" / "test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(
        '{"question": "How many legs has a spider?", "answer": "8"}\n'
        '{"question": "How many legs has a cat?", "answer": "4"}\n'
    )

    def grade(reference, text):
        right = reference in text.split()
        return tasks.Grade(float(right), f"right is {reference}")

    assert "mine" not in tasks.NAMES
    tasks.TASKS["mine"] = tasks.Task(
        file="mine/test.jsonl",
        fields=("question", "answer"),
        prompt=lambda row: [tasks.user(row["question"])],
        reference=lambda row: row["answer"],
        grade=grade,
        max_new_tokens=40,
    )
    assert tasks.NAMES[-1] == "mine"

    problems = tasks.load("mine")
    assert {question(problem): problem.reference for problem in problems} == {
        "How many legs has a spider?": "8",
        "How many legs has a cat?": "4",
    }
    assert tasks.load("mine", 1) == problems[:1]
    answers = [(problem, f"It has {problem.reference} legs") for problem in problems]
    assert tasks.grade_many(answers) == [
        tasks.Grade(1.0, f"right is {problem.reference}") for problem in problems
    ]
    assert tasks.grade(problems[0], "48").score == 0


def own(**changes):
    """A small task, or another one with some of its parts changed."""
    parts = dict(
        file="mine/test.jsonl",
        fields=("question", "answer"),
        prompt=lambda row: [tasks.user(row["question"])],
        reference=lambda row: row["answer"],
        grade=lambda reference, text: tasks.Grade(float(reference in text), "as it says"),
        max_new_tokens=40,
    )
    return tasks.Task(**(parts | changes))


def test_an_entry_that_is_changed_takes_effect(data, own_task):
    """A cell that is run again after an edit grades by the new body."""
    tasks.TASKS["mine"] = own()
    data("mine", jsonl([{"question": "1 + 1?", "answer": "2"}]))
    (problem,) = tasks.load("mine")
    assert tasks.grade(problem, "It is 2.").score == 1
    tasks.TASKS["mine"] = own(
        grade=lambda reference, text: tasks.Grade(float(reference == text), "exactly"),
        max_new_tokens=8,
    )
    assert tasks.grade(problem, "It is 2.").score == 0
    assert tasks.load("mine")[0].max_new_tokens == 8


def test_a_local_task_without_its_file(data, own_task):
    """There is no hub to ask, so the sentence names the two places only."""
    tasks.TASKS["mine"] = own()
    with pytest.raises(FileNotFoundError) as error:
        tasks.load("mine")
    sentence = str(error.value)
    assert "looked in $SP_DATA (" in sentence
    assert "and in data/benchmarks (" in sentence
    assert "hub" not in sentence
    assert sentence.endswith("set SP_DATA to a folder that has mine/test.jsonl")


def test_a_grader_that_returns_no_grade(data, own_task):
    tasks.TASKS["mine"] = own(grade=lambda reference, text: reference in text)
    data("mine", jsonl([{"question": "1 + 1?", "answer": "2"}]))
    sentence = "the grader of task 'mine' returned True; it must return tasks.Grade"
    with pytest.raises(TypeError, match=re.escape(sentence)):
        tasks.grade(tasks.load("mine")[0], "2")


def test_fields_that_are_no_tuple():
    with pytest.raises(ValueError, match="must be a tuple of one or more field names"):
        own(fields=("question"))


def test_a_task_that_has_left_the_table(data, own_task):
    tasks.TASKS["mine"] = own()
    data("mine", jsonl([{"question": "1 + 1?", "answer": "2"}]))
    (problem,) = tasks.load("mine")
    del tasks.TASKS["mine"]
    assert "mine" not in tasks.NAMES
    with pytest.raises(ValueError, match="there is no grader for task 'mine'; add an entry"):
        tasks.grade(problem, "2")
    with pytest.raises(ValueError, match="there is no task 'mine'; choose one of"):
        tasks.load("mine")


# ---- conversations, prompts, many grades -------------------------------------------------------


def test_conversation_of_three_turns(data):
    first = tasks.load("mt_bench")[0]
    second = tasks.follow(first, "A poem.")
    third = tasks.follow(second, "Poem.")
    roles = [message["role"] for message in third.messages]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    texts = [message["content"] for message in third.messages[1:]]
    assert texts == ["A poem.", "Shorten it.", "Poem.", "Translate it."]
    assert second.id == f"{first.id}/turn2"
    assert third.id == f"{first.id}/turn3"
    assert tasks.follow(third, "Gedicht.") is None


def test_few_shot_examples_do_not_hold_test_questions(shared_datasets, monkeypatch):
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    examples = set()
    questions = set()
    for task in ("gsm8k", "triviaqa", "nq_open"):
        problems = tasks.load(task)
        examples |= {message["content"] for message in problems[0].messages[:-1]}
        questions |= {question(problem) for problem in problems}
    assert not examples & questions


def test_open_answers_without_a_judge(data, monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    answers = [(problem, "A poem.") for problem in tasks.load("mt_bench")]
    answers.append((tasks.load("gsm8k", 1)[0], "#### 2"))
    *open_grades, number_grade = tasks.grade_many(answers)
    assert len(open_grades) == 3
    assert all(math.isnan(grade.score) and grade.detail == "no judge" for grade in open_grades)
    assert not math.isnan(number_grade.score)


def test_grades_keep_their_order(data):
    problems = tasks.load("gsm8k")
    wrong = range(0, 40, 3)
    answers = [
        (problem, "none" if i in wrong else problem.reference) for i, problem in enumerate(problems)
    ]
    scores = [grade.score for grade in tasks.grade_many(answers)]
    assert scores == [0.0 if i in wrong else 1.0 for i in range(40)]
    reference = problems[1].reference
    assert tasks.grade(problems[1], reference) == grading.last_number(reference, reference)
