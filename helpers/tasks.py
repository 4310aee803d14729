"""Problems, prompts and where their data comes from. Nothing here knows a model.

One table, TASKS: adding a task is one entry and one grader (helpers/grading.py). Data is looked up in
$SP_DATA (a folder of TASK/*.jsonl[.gz] in upstream field names), then data/benchmarks/, then the hub.
"""
import gzip
import hashlib
import json
import os
import random
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

from helpers import grading, judge, paths, sandbox
from helpers.grading import Grade
from helpers.pocket import corpus


USER = ("\nUser:",)         # where a model without a chat template begins to ask itself


@dataclass(frozen=True)
class Problem:
    """One question: chat messages, the reference its grader needs, and when an answer ends."""

    id: str
    task: str
    messages: tuple
    reference: Any
    max_new_tokens: int
    stop: tuple = ()
    followups: tuple = ()       # later user turns (mt_bench)
    meta: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A line of the table: local file, hub source, fields it needs, how a row becomes a prompt, its grader."""

    file: str
    hub: dict                   # arguments of datasets.load_dataset
    fields: tuple
    prompt: Callable            # row -> list of messages
    reference: Callable         # row -> whatever the grader needs
    grade: Callable             # (reference, text) -> Grade, Program, or None where only a judge can say
    max_new_tokens: int
    identity: str = ""          # field that names a row upstream; "": a hash of its first field
    stop: tuple = USER
    renamed: dict = field(default_factory=dict)     # the hub's field name -> ours, where they differ


def user(text):
    """One user message."""
    return {"role": "user", "content": text}


def _shots(pairs, ask):
    """Few-shot exemplars as earlier turns of the chat, then the question."""
    turns = [m for q, a in pairs for m in (user(q), {"role": "assistant", "content": a})]
    return [*turns, user(ask)]


# Four of the eight chain-of-thought exemplars of Wei et al. 2022 (arXiv 2201.11903, table 20).
GSM8K_SHOTS = (
    ("There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there "
     "will be 21 trees. How many trees did the grove workers plant today?",
     "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have been "
     "21 - 15 = 6. The answer is 6."),
    ("If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
     "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5."),
    ("Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
     "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating 35, they "
     "had 74 - 35 = 39. The answer is 39."),
    ("Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
     "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars left. "
     "23 - 15 = 8. The answer is 8."),
)
# Our own, in the form that TriviaQA and NQ are usually asked in (five examples, a few words each).
QA_SHOTS = (("Who wrote the novel Pride and Prejudice?", "Jane Austen"),
            ("what is the chemical symbol of gold", "Au"),
            ("In which year did the Berlin Wall come down?", "1989"),
            ("which is the longest river in south america", "Amazon"),
            ("Which sport is played at Wimbledon?", "tennis"))
QA = "Answer with a name or a few words only.\n{}"
# The wording of OpenAI's simple-evals.
CHOICE = ("Answer the following multiple choice question. The last line of your response should be of the following "
          "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering."
          "\n\n{}\n\n{}")
COMPLETE = "Complete this function. Answer with the whole function in one code block.\n```python\n{}```"


def _qa(row):
    return _shots([(QA.format(q), a) for q, a in QA_SHOTS], QA.format(row["question"]))


def _law(row):
    choices = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCD", row["choices"], strict=True))
    return [user(CHOICE.format(row["question"], choices))]


def _solution(row):
    """gsm8k's reference, which the grader reads after ####."""
    if not grading.numbers(row["answer"].split("####")[-1]):
        raise ValueError("its answer ends without a number")
    return row["answer"]


def _some(aliases):
    """The accepted answers, of which there must be one."""
    if not aliases or isinstance(aliases, str):
        raise ValueError("it has no list of answers")
    return list(aliases)


def _first_turn(row):
    return [user(row["turns"][0])]


TASKS = {
    "gsm8k": Task("gsm8k/test.jsonl", dict(path="openai/gsm8k", name="main", split="test"), ("question", "answer"),
                  lambda r: _shots(GSM8K_SHOTS, r["question"]), _solution, grading.last_number, 320),
    "math500": Task("math500/test.jsonl", dict(path="HuggingFaceH4/MATH-500", split="test"),
                    ("problem", "answer", "unique_id"),
                    lambda r: [user(f"{r['problem']}\nPut your final answer within \\boxed{{}}.")],
                    lambda r: r["answer"], grading.math, 640, "unique_id"),
    "humaneval": Task("humaneval/HumanEval.jsonl", dict(path="openai/openai_humaneval", split="test"),
                      ("task_id", "prompt", "test", "entry_point"), lambda r: [user(COMPLETE.format(r["prompt"]))],
                      lambda r: {k: r[k] for k in ("prompt", "test", "entry_point")}, grading.humaneval, 400,
                      "task_id"),
    "mt_bench": Task("mt_bench/question.jsonl", dict(path="HuggingFaceH4/mt_bench_prompts", split="train"),
                     ("turns", "question_id"), _first_turn, lambda r: None, grading.open_ended, 512, "question_id",
                     renamed={"prompt": "turns", "prompt_id": "question_id"}),
    "alpaca_eval": Task("alpaca_eval/alpaca_eval.jsonl",       # `output`: the baseline that a judge compares with
                        dict(path="json", split="train",
                             data_files="hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval.json"),
                        ("instruction", "output"), lambda r: [user(r["instruction"])], lambda r: r["output"],
                        grading.open_ended, 512),
    "triviaqa": Task("triviaqa/validation.jsonl",
                     dict(path="mandarjoshi/trivia_qa", name="unfiltered.nocontext", split="validation"),
                     ("question", "answer"), _qa, lambda r: _some(r["answer"]["aliases"]), grading.exact_match, 32,
                     stop=("\n",)),
    "nq_open": Task("nq_open/NQ-open.dev.jsonl", dict(path="google-research-datasets/nq_open", split="validation"),
                    ("question", "answer"), _qa, lambda r: _some(r["answer"]), grading.exact_match, 32, stop=("\n",)),
    "cnn_dailymail": Task("cnn_dailymail/test.jsonl", dict(path="abisee/cnn_dailymail", name="3.0.0", split="test"),
                          ("article", "highlights", "id"),
                          lambda r: [user(f"Summarise in three sentences:\n\n{r['article']}")],
                          lambda r: r["highlights"], grading.rouge_l, 160, "id"),
    "spec_bench": Task("spec_bench/question.jsonl",
                       dict(path="json", split="train",
                            data_files="https://raw.githubusercontent.com/hemingkx/Spec-Bench/main/"
                            "data/spec_bench/question.jsonl"),
                       ("turns", "category", "question_id"), _first_turn, lambda r: (r["category"], r.get("reference")),
                       grading.spec_bench, 512, "question_id"),
    "law": Task("law/mmlu_professional_law/test.jsonl", dict(path="cais/mmlu", name="professional_law", split="test"),
                ("question", "choices", "answer"), _law, lambda r: dict(enumerate("ABCD"))[int(r["answer"])],
                grading.letter, 320),
}
POCKET_TOKENS = {"arithmetic": 80, "algebra": 80, "code": 64, "facts": 32, "news": 40, "stories": 80, "law": 56}
NAMES = (*(f"pocket-{d}" for d in corpus.DOMAINS), *TASKS)


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
        return [Problem(r["id"], task, (user(r["question"]),), r, POCKET_TOKENS[domain])
                for r in corpus.problems(domain, n_problems or 200, seed)]
    rows = _rows(task)
    if n_problems and n_problems > len(rows):
        raise ValueError(f"{n_problems} problems of {task} were asked for and {len(rows)} are there; lower n_problems")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [_problem(task, *rows[i]) for i in order[:n_problems]]


def _problem(task, where, identity, row):
    """One row as a Problem; a row that does not fit its task is reported by file and line."""
    entry = TASKS[task]
    try:
        meta = {k: row[k] for k in ("category", "subject", "level") if k in row}
        return Problem(identity, task, tuple(entry.prompt(row)), entry.reference(row), entry.max_new_tokens, entry.stop,
                       tuple(row.get("turns", ())[1:]), meta)
    except (TypeError, ValueError, LookupError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where}: not a row of {task} ({said}); fetch the file again") from error


def follow(problem, text):
    """The next turn of a conversation in which `text` was the reply to `problem`, or None after the last turn."""
    if not problem.followups:
        return None
    messages = (*problem.messages, {"role": "assistant", "content": text}, user(problem.followups[0]))
    turn = sum(m["role"] == "user" for m in messages)
    return replace(problem, id=f"{problem.id.split('/turn')[0]}/turn{turn}", messages=messages, reference=None,
                   followups=problem.followups[1:])


def grade_many(answers):
    """Grade [(Problem, text)]: programs run in parallel in the sandbox, open answers go to the judge if there is one.

    Returns [Grade] in the same order; a score is NaN where nothing can judge the answer ("no judge").
    """
    grades = [_grade(problem, text) for problem, text in answers]
    programs = [i for i, g in enumerate(grades) if isinstance(g, sandbox.Program)]
    for i, (ok, detail) in zip(programs, sandbox.execute_many([grades[i] for i in programs])):
        grades[i] = Grade(float(ok), detail)
    judged = [i for i, g in enumerate(grades) if g is None]
    pairs = [(p.messages, text, p.reference if isinstance(p.reference, str) else None)
             for p, text in (answers[i] for i in judged)]
    for i, verdict in zip(judged, judge.compare_many(pairs)):
        grades[i] = verdict
    return grades


def grade(problem, text):
    """Grade one answer. Returns Grade(score in [0, 1], or NaN where nothing can judge it, detail)."""
    return grade_many([(problem, text)])[0]


def _grade(problem, text):
    """A Grade, a Program that has to be run, or None where only a judge can say."""
    if problem.task == "pocket-code":
        return grading.pocket_code(problem.reference, text)
    if problem.task.startswith("pocket-"):
        return Grade(*corpus.grade(problem.task.removeprefix("pocket-"), problem.reference, text))
    return TASKS[problem.task].grade(problem.reference, text)


def _rows(task):
    """A task's rows [(where, id, row)] from the first place that has them."""
    entry, tried = TASKS[task], []
    for name, root in (("$SP_DATA", os.environ.get("SP_DATA")), ("data/benchmarks", paths.DATA / "benchmarks")):
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
            f"data/benchmarks/{entry.file} or set SP_DATA to a folder that has {entry.file}") from error
    return _checked(task, ((f"{entry.hub['path']}, row {i}", row) for i, row in enumerate(rows)))


def _checked(task, rows):
    """Give every (where, row) its id; fields must be there and ids must differ."""
    entry, seen = TASKS[task], {}
    for where, row in rows:
        row = {entry.renamed.get(k, k) if entry.renamed.get(k) not in row else k: v for k, v in row.items()}
        missing = [f for f in entry.fields if row.get(f) is None]
        if missing:
            raise ValueError(f"{where}: no field {missing[0]!r} (it has {', '.join(row)}); fetch the file again")
        identity = f"{task}-{row[entry.identity] if entry.identity else _hash(row[entry.fields[0]])}"
        while not entry.identity and identity in seen:      # upstream repeats a question: its own id, in the same order
            identity += "+"
        if identity in seen:
            raise ValueError(f"{where}: the id {identity} was there before ({seen[identity][0]}); fetch the file again")
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
    except (EOFError, OSError, zlib.error) as error:        # reading stopped after the last whole line
        raise ValueError(f"{file}, line {number + 1}: cannot be read ({error}); fetch the file again") from error
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{file}, line {number}: cannot be read ({error}); fetch the file again") from error
    if empty:
        raise ValueError(f"{file}, line 1: the file is empty; fetch the file again")
