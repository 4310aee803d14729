"""Loading: where rows come from, which are chosen, what an id is, and what is said of damaged data."""

import gzip
import json
import math

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
    """A folder for SP_DATA with 40 rows of gsm8k and three of mt_bench; put(task, bytes) writes another file."""
    monkeypatch.setenv("SP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATA", tmp_path / "none")

    def put(task, content, packed=False):
        file = tmp_path / (tasks.TASKS[task].file + ".gz" * packed)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    put("gsm8k", jsonl(ROWS))
    put("mt_bench", jsonl(TURNS))
    return put


def jsonl(rows):
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()


@pytest.mark.parametrize("task", tasks.TASKS)
def test_real_task_loads(task, shared_datasets, monkeypatch):
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    problems = tasks.load(task)
    assert len(problems) >= 80
    assert len({p.id for p in problems}) == len(problems)
    assert all(
        p.id.startswith(f"{task}-")
        and p.messages[-1]["role"] == "user"
        and p.messages[-1]["content"].strip()
        for p in problems
    )
    again, other = tasks.load(task, 20), tasks.load(task, 20, seed=1)
    assert again == problems[:20]  # a smaller choice begins the larger one
    assert [p.id for p in other] != [p.id for p in again]  # the seed chooses
    by_id = {p.id: p for p in problems}
    assert all(by_id[p.id] == p for p in other)  # and an id names a problem, not a place
    graded = tasks.TASKS[task].grade(problems[0].reference, "nothing of use")
    assert graded is None or isinstance(graded, tasks.sandbox.Program) or graded.score < 0.2


@pytest.mark.parametrize("domain", corpus.DOMAINS)
def test_pocket_task_loads(domain):
    problems = tasks.load(f"pocket-{domain}", 5)
    assert [p.id for p in problems] == [p.id for p in tasks.load(f"pocket-{domain}", 9)][:5]
    assert [p.id for p in problems] != [p.id for p in tasks.load(f"pocket-{domain}", 5, seed=1)]


def test_ids_do_not_depend_on_the_other_rows(data):
    everything = {p.messages[-1]["content"]: p.id for p in tasks.load("gsm8k")}
    data("gsm8k", jsonl(ROWS[:7:-1]))
    assert all(everything[p.messages[-1]["content"]] == p.id for p in tasks.load("gsm8k"))


def test_a_repeated_question_without_upstream_id_gets_its_own(data):
    data("gsm8k", jsonl([ROWS[0], ROWS[1], ROWS[0]]))
    assert len({p.id for p in tasks.load("gsm8k")}) == 3


def test_lookup_order(data, tmp_path, monkeypatch):
    """$SP_DATA first, then data/benchmarks, then the hub; packed files too."""
    monkeypatch.setattr(common, "DATA", tmp_path / "repository")
    there = tmp_path / "repository" / "benchmarks" / "gsm8k"
    there.mkdir(parents=True)
    (there / "test.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS[:5])))
    assert len(tasks.load("gsm8k")) == 40
    monkeypatch.delenv("SP_DATA")
    assert len(tasks.load("gsm8k")) == 5
    (there / "test.jsonl.gz").unlink()
    asked = {}
    monkeypatch.setattr("datasets.load_dataset", lambda **source: asked.update(source) or ROWS[:3])
    assert len(tasks.load("gsm8k")) == 3
    assert asked == {"path": "openai/gsm8k", "name": "main", "split": "test"}


def test_the_hubs_other_field_names(data, monkeypatch):
    monkeypatch.delenv("SP_DATA")
    rows = [
        {"prompt": ["Write.", "Shorten."], "prompt_id": 81, "category": "writing", "reference": []}
    ]
    monkeypatch.setattr("datasets.load_dataset", lambda **source: rows)
    (problem,) = tasks.load("mt_bench")
    assert (problem.id, problem.messages[0]["content"], problem.followups) == (
        "mt_bench-81",
        "Write.",
        ("Shorten.",),
    )


def test_no_data_says_where_it_was_looked_for(data, tmp_path, monkeypatch):
    def offline(**source):
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(FileNotFoundError) as error:
        tasks.load("law")
    said = str(error.value)
    assert (
        "$SP_DATA" in said
        and "data/benchmarks" in said
        and "hub (cais/mmlu: ConnectionError)" in said
    )
    assert "set SP_DATA" in said and "\n" not in said


HALF = gzip.compress(
    b"".join(json.dumps(r | {"noise": hash(str(r)) % 2**60}).encode() + b"\n" for r in ROWS)
)
DAMAGED = {
    "truncated gzip": (
        HALF[: len(HALF) // 2],
        True,
        r"line \d+: cannot be read \(Compressed file ended",
    ),
    "broken gzip": (HALF[:40] + b"\0" * 30 + HALF[70:], True, r"line \d+: cannot be read"),
    "no gzip": (jsonl(ROWS), True, r"line 1: cannot be read \(Not a gzipped file"),
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
        jsonl(ROWS[:30]) + '{"question": "é", "answer": "#### 1"}\n'.encode("latin-1"),
        False,
        r"line 31: cannot be read \('utf-8' codec",
    ),
    "two bytes a letter": (
        jsonl(ROWS).decode().encode("utf-16"),
        False,
        r"line 1: cannot be read \('utf-8' codec",
    ),
    "cut in a line": (jsonl(ROWS)[:-20], False, r"line 40: cannot be read \(Unterminated string"),
    "no object": (
        b"[1, 2]\n",
        False,
        r"line 1: cannot be read \(a row is an object, this is a list",
    ),
    "a page of HTML": (
        b"<!DOCTYPE html>\n<html>",
        False,
        r"line 1: cannot be read \(Expecting value",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_data(data, name):
    """One sentence with file and line."""
    content, packed, said = DAMAGED[name]
    data("gsm8k", b"").unlink()
    file = data("gsm8k", content, packed)
    with pytest.raises(ValueError, match=said) as error:
        tasks.load("gsm8k")
    assert str(error.value).startswith(f"{file}, line ") and "\n" not in str(error.value)
    assert str(error.value).endswith("fetch the file again")


def test_duplicate_id(data):
    file = data("mt_bench", jsonl([*TURNS, TURNS[0] | {"turns": ["Else."]}]))
    with pytest.raises(
        ValueError, match=r"line 4: the id mt_bench-81 was there before \(.*line 1\)"
    ) as error:
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


@pytest.mark.parametrize(
    "task, n, said",
    [
        ("gsm9k", 1, "choose one of .*gsm8k"),
        ("gsm8k", 0, "must be 1 or more"),
        ("gsm8k", 41, "41 problems .* and 40 are there"),
    ],
)
def test_wrong_arguments(data, task, n, said):
    with pytest.raises(ValueError, match=said):
        tasks.load(task, n)


def test_conversation_of_three_turns(data):
    first = tasks.load("mt_bench")[0]
    second = tasks.follow(first, "A poem.")
    third = tasks.follow(second, "Poem.")
    assert [m["role"] for m in third.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in third.messages[1:]] == [
        "A poem.",
        "Shorten it.",
        "Poem.",
        "Translate it.",
    ]
    assert [second.id, third.id] == [f"{first.id}/turn2", f"{first.id}/turn3"]
    assert tasks.follow(third, "Gedicht.") is None


def test_few_shot_examples_do_not_hold_test_questions(shared_datasets, monkeypatch):
    monkeypatch.setenv("SP_DATA", str(shared_datasets))
    shown = {
        m["content"]
        for task in ("gsm8k", "triviaqa", "nq_open")
        for m in tasks.load(task, 1)[0].messages[:-1]
    }
    asked = {
        p.messages[-1]["content"]
        for task in ("gsm8k", "triviaqa", "nq_open")
        for p in tasks.load(task)
    }
    assert not shown & asked


def test_open_answers_without_a_judge(data, monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    answers = [(p, "A poem.") for p in tasks.load("mt_bench")] + [
        (tasks.load("gsm8k", 1)[0], "#### 2")
    ]
    grades = tasks.grade_many(answers)
    assert all(math.isnan(g.score) and g.detail == "no judge" for g in grades[:3])
    assert not math.isnan(grades[3].score)


def test_grades_keep_their_order(data):
    problems = tasks.load("gsm8k")
    answers = [(p, p.reference if i % 3 else "none") for i, p in enumerate(problems)]
    assert [g.score for g in tasks.grade_many(answers)] == [float(i % 3 > 0) for i in range(40)]
    assert tasks.grade(problems[1], problems[1].reference) == grading.last_number(
        problems[1].reference, problems[1].reference
    )
