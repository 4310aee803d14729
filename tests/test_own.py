"""A file of one's own prompts as a task: its rows, its grades, and what is said of a wrong row."""

import gzip
import json
import math
import re

import pandas as pd
import pytest

from helpers import common, experiments, stats, tasks
from helpers.methods import Autoregressive, Fixed, Sampling, Speculative
from helpers.rules import STRICT
from helpers.tasks import sandbox


@pytest.fixture
def written(tmp_path):
    """written(rows or text, name) -> the path of a file of prompts, as text."""

    def write(content, name="mine.jsonl"):
        file = tmp_path / name
        if not isinstance(content, (str, bytes)):
            content = "".join(json.dumps(row) + "\n" for row in content)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(file)

    return write


def in_order(path):
    """Problems in the order of the file."""
    return tasks.own.problems(path)


# ---- which rows --------------------------------------------------------------------------------


def test_rows_become_problems(written):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two and two?"},
    ]
    path = written(
        [
            {"prompt": "One and one?", "answer": 2, "max_new_tokens": 7},
            {"messages": chat, "id": "sum"},
            {"prompt": "Say hello.", "source": "a field of my own"},
        ]
    )
    first, second, third = in_order(path)
    assert first.messages == ({"role": "user", "content": "One and one?"},)
    assert first.max_new_tokens == 7
    assert second.messages == tuple(chat)
    assert second.id == "own-sum"
    assert third.max_new_tokens == 256
    assert {problem.task for problem in (first, second, third)} == {path}
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize("name", ["mine.txt", "mine.text.gz", "mine.md"])
def test_plain_text_is_one_prompt_a_line(written, name):
    text = "\ufeffOne and one?\r\n\r\nSay {hello}.\n".encode()
    path = written(gzip.compress(text) if name.endswith("gz") else text, name)
    prompts = [problem.messages[0]["content"] for problem in in_order(path)]
    assert prompts == ["One and one?", "Say {hello}."]


def test_text_may_begin_with_a_bracket(written):
    """Rows of JSON in a .txt file are rows all the same."""
    text = "{x} is a set. Name it.\n[INST] Say hello.\n"
    prompts = [problem.messages[0]["content"] for problem in in_order(written(text, "mine.txt"))]
    assert prompts == text.splitlines()
    (row,) = in_order(written([{"prompt": "Say hello.", "answer": 3}], "rows.txt"))
    assert row.reference.grader == "last_number"


def test_a_choice_begins_a_larger_one_and_ids_stay(written):
    rows = [{"prompt": f"Say {i}."} for i in range(20)]
    path = written(rows)
    assert tasks.load(path, 5) == tasks.load(path, 9)[:5]
    assert tasks.load(path, 5, seed=1) != tasks.load(path, 5)
    ids = {str(problem.messages): problem.id for problem in tasks.load(path)}
    fewer = tasks.load(written(rows[10:], "other.jsonl"))
    assert all(ids[str(problem.messages)] == problem.id for problem in fewer)


def test_a_prompt_that_comes_twice_is_two_problems(written):
    path = written([{"prompt": "Say hello."}] * 3)
    assert len({problem.id for problem in tasks.load(path)}) == 3


def test_a_file_is_found_from_a_notebook_too(tmp_path, monkeypatch):
    """A kernel of JupyterLab runs in notebooks/, the runner in the repository."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "mine.txt").write_text("Say hello.\n")
    monkeypatch.setattr(common, "ROOT", tmp_path)
    for place in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(place)
        assert len(tasks.load("mine.txt")) == 1


def test_the_recipe(written):
    """The rows that helpers/README.md shows are of three kinds."""
    page = (common.ROOT / "helpers" / "README.md").read_text(encoding="utf-8")
    recipe = page.split("### Your prompts and your models")[1]
    rows = recipe.split("```json\n")[1].split("```")[0]
    graders = [problem.reference.grader for problem in in_order(written(rows))]
    assert graders == ["last_number", "program", ""]


# ---- grades ------------------------------------------------------------------------------------

GRADED = [  # (row without its prompt, an answer that is right, one that is wrong)
    ({"answer": 18}, "That makes 18.", "That makes 19."),
    ({"answer": "1,800"}, "So the answer is 1800.", "So the answer is 180."),
    ({"answer": "C"}, "Answer: C", "Answer: B"),
    ({"answer": "Paris"}, "paris.", "Lyon"),
    ({"answer": ["Paris", "City of Light"]}, "The City of Light", "Lyon"),
    ({"answer": "2", "grader": "exact_match"}, "2", "It is 2, I think"),
    ({"answer": "\\frac{1}{2}", "grader": "math"}, "\\boxed{0.5}", "\\boxed{0.6}"),
    ({"answer": "The cat sat.", "grader": "rouge_l"}, "The cat sat.", "Dogs run."),
]


@pytest.mark.parametrize("row, right, wrong", GRADED)
def test_grades(written, row, right, wrong):
    (problem,) = tasks.load(written([{"prompt": "?"} | row]))
    assert tasks.grade(problem, right).score == 1
    assert tasks.grade(problem, wrong).score == 0


@pytest.mark.parametrize(
    "prompt, test",
    [
        ("Write a function add(a, b).", "assert add(1, 2) == 3\nassert add(0, 0) == 0"),
        ("Write a function add(a, b).", "def check(f):\n    assert f(1, 2) == 3"),
        ('def add(a, b):\n    """Their sum."""\n', "def check(f):\n    assert f(1, 2) == 3"),
    ],
)
def test_programs_are_run(written, prompt, test):
    if not sandbox.isolation():
        pytest.skip("programs cannot be isolated here")
    (problem,) = tasks.load(written([{"prompt": prompt, "test": test, "entry_point": "add"}]))
    right = "```python\ndef add(a, b):\n    return a + b\n```"
    grades = tasks.grade_many([(problem, right), (problem, right.replace("+", "-"))])
    assert [grade.score for grade in grades] == [1, 0]


def test_without_an_answer_there_is_no_score(written):
    problem, other = in_order(
        written([{"prompt": "Say hello."}, {"prompt": "1 + 1?", "answer": 2}])
    )
    grade, known = tasks.grade_many([(problem, "Hello 2"), (other, "2")])
    assert math.isnan(grade.score) and grade.detail == "no reference"
    assert known.score == 1


def test_open_answers_wait_for_a_judge(written, monkeypatch):
    monkeypatch.delenv("SP_JUDGE_MODEL", raising=False)
    row = {"prompt": "Write a poem.", "grader": "judge", "answer": "Roses are red."}
    (problem,) = tasks.load(written([row]))
    assert tasks.grade(problem, "Violets").detail == "no judge"
    assert tasks.scoring._comparison(problem, "Violets")[2] == "Roses are red."


# ---- everything that needs no grade is measured ------------------------------------------------


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")


def test_rows_without_a_reference(written, pocket, no_cache):
    path = written(
        [
            {"prompt": f"Ada has {i} apples. 3 are lost. How many are left?", "max_new_tokens": n}
            for i, n in ((5, 8), (6, 12), (7, 8))
        ]
    )
    problems = tasks.load(path)
    methods = [Autoregressive("target"), Speculative(STRICT, Fixed(2), "SP")]
    rows = experiments.run(pocket, methods, problems)
    assert set(rows.ungraded) == {"no reference"}
    assert rows.score.isna().all()
    assert stats.mean(rows, "score", "SP").show() == "no reference"
    assert stats.difference(rows, "score", "SP", "AS_large").show() == "no reference"
    assert stats.ratio(rows, "accepted", "drafted", "SP").estimate > 0
    # Every answer has the longest length that its own row gives.
    longest = {problem.id: problem.max_new_tokens for problem in problems}
    assert (rows.n_tokens <= rows.problem_id.map(longest)).all()
    assert (rows.max_new_tokens == rows.problem_id.map(longest)).all()
    assert (rows.task == path).all()


def test_answered_rows_count_where_some_have_none(written, pocket, no_cache):
    rows = [{"prompt": f"Ada has {i} apples. 3 are lost. How many are left?"} for i in range(5, 9)]
    for i in (0, 2, 3):
        rows[i]["answer"] = i + 2
    problems = tasks.load(written(rows))
    found = experiments.run(pocket, [Autoregressive("draft")], problems, max_new_tokens=4)
    assert stats.mean(found, "score", "AS_small").n == 3


def test_the_rows_carry_the_name_that_the_pair_was_asked_under(pocket, no_cache):
    """Finished work of the same weights under another name is not published under that name."""
    problems = tasks.load("pocket-facts", 2)
    method = [Autoregressive("draft")]
    sampling = Sampling()
    for name in ("pocket", "mine"):
        pair = pocket.copy()
        pair.name = name
        for rows in (
            experiments.run(pair, method, problems, sampling=sampling, max_new_tokens=4),
            experiments.timed(pair, method, problems, sampling=sampling, max_new_tokens=4),
        ):
            assert set(rows.pair) == {name}


def test_no_judge_stays_no_judge():
    frame = pd.DataFrame({"method": ["SP"], "problem_id": ["a"], "score": [math.nan]})
    assert stats.mean(frame, "score", "SP").show() == "no judge"
    assert stats.mean(frame.assign(ungraded="no judge"), "score", "SP").show() == "no judge"


# ---- wrong files -------------------------------------------------------------------------------

WRONG = [  # (what the file holds, what is said)
    ([{"prompt": "?"}, {"answer": 3}], "line 2: a row needs `prompt` or `messages`, one of them"),
    ([{"prompt": "?", "messages": []}], "line 1: a row needs `prompt` or `messages`, one of them"),
    ([{"prompt": " "}], "line 1: prompt was ' '; it must be a text"),
    ([{"prompt": ["a", "b"]}], "line 1: prompt was ['a', 'b']; it must be a text"),
    ([{"messages": ["hello"]}], "line 1: a message is an object with a role"),
    ([{"messages": [{"role": "bot", "content": "x"}]}], "line 1: a message is an object"),
    ([{"messages": [{"role": "assistant", "content": "x"}]}], "the last message must be the user"),
    ([{"prompt": "?", "anwser": 3}], "line 1: there is no field 'anwser'; 'answer' is meant"),
    ([{"prompt": "?", "answer": 3, "grader": "number"}], "grader was 'number'; choose one of last"),
    ([{"prompt": "?", "grader": "math"}], "line 1: the grader math needs an `answer`"),
    ([{"prompt": "?", "answer": "x", "grader": "last_number"}], "last_number needs a number"),
    ([{"prompt": "?", "answer": "E", "grader": "letter"}], "letter needs one of A, B, C, D"),
    ([{"prompt": "?", "answer": True}], "answer was True; the grader exact_match needs a text or"),
    ([{"prompt": "?", "answer": []}], "answer was []; the grader exact_match needs a text or a"),
    ([{"prompt": "?", "test": "assert f()"}], "a program needs `test` and `entry_point`"),
    ([{"prompt": "?", "test": "f(", "entry_point": "f"}], "line 1: test is no Python"),
    ([{"prompt": "?", "max_new_tokens": 0}], "max_new_tokens was 0; it must be a whole number"),
    ([{"prompt": "?", "max_new_tokens": True}], "max_new_tokens was True; it must be a whole"),
    ([{"prompt": "?", "id": 1}, {"prompt": "!", "id": 1}], "line 2: the id 1 was there before ("),
    ([{"prompt": "?", "id": None}], "line 1: id was None; it must be a text or a whole number"),
    ('{"prompt": "?"}\nSay hello.\n', "line 2: no JSON (Expecting value"),
    ('["?"]\n', "line 1: this is a list; a row is one JSON object on one line"),
    ("\n \n", "line 1: there is no prompt; write one a line"),
    (b"", "line 1: there is no prompt; write one a line"),
    ('{"prompt": "?", "more": ' + "[" * 10**5, "line 1: no JSON (maximum recursion depth"),
    (f'{{"prompt": "?", "answer": {"9" * 5000}}}', "line 1: no JSON (Exceeds the limit (4300"),
    ('{"prompt": "a\\ud83d"}\n', "line 1: '\\ud83d' is half a character; save the text again"),
    ('{"prompt": "é"}\n'.encode("latin-1"), "line 1: no UTF-8"),
]


@pytest.mark.parametrize("content, words", WRONG, ids=range(len(WRONG)))
def test_a_wrong_row_is_named_by_file_and_line(written, content, words):
    path = written(content)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        tasks.load(path)
    assert str(error.value).startswith(f"{path}, line ")
    assert "\n" not in str(error.value)


def test_a_damaged_archive(written):
    path = written(gzip.compress(b'{"prompt": "?"}\n' * 99)[:-20], "mine.jsonl.gz")
    with pytest.raises(ValueError, match=r"mine.jsonl.gz, line \d+: cannot be read"):
        tasks.load(path)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="there is no file of prompts none/mine.jsonl: "):
        tasks.load("none/mine.jsonl")
    with pytest.raises(ValueError, match="no task 'mine'; choose one of .* or give a file"):
        tasks.load("mine")


def test_more_problems_than_rows(written):
    path = written([{"prompt": "?"}])
    with pytest.raises(ValueError, match="2 problems of .* were asked for and 1 are there"):
        tasks.load(path, 2)
