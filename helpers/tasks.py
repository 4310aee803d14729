"""Problems, prompts and where their data comes from. Nothing here knows a model.

One table, TASKS: adding a task is one entry and one grader (helpers/grading.py). Data is looked up in
$SP_DATA (a folder of TASK/*.jsonl[.gz] in upstream field names), then data/benchmarks/, then the hub.
"""
import gzip
import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from helpers import grading, paths
from helpers.grading import Grade
from helpers.pocket import corpus


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
    hub: tuple                  # (id, config, split)
    fields: tuple
    prompt: Callable            # row -> list of messages
    reference: Callable         # row -> whatever the grader needs
    grade: Callable             # (reference, text) -> Grade
    max_new_tokens: int
    identity: Callable = None   # row -> stable id; the row number where there is none
    stop: tuple = ()


def user(text):
    """One user message."""
    return {"role": "user", "content": text}


def _shots(pairs, ask):
    """Few-shot exemplars as earlier turns of the chat, then the question."""
    turns = [m for q, a in pairs for m in (user(q), {"role": "assistant", "content": a})]
    return [*turns, user(ask)]


# Four of the eight chain-of-thought exemplars of Wei et al. 2022 (arXiv 2201.11903, table 20).
GSM8K_SHOTS = (
    ("There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there will be "
     "21 trees. How many trees did the grove workers plant today?",
     "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have been "
     "21 - 15 = 6. The answer is 6."),
    ("If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
     "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5."),
    ("Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
     "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating 35, they had "
     "74 - 35 = 39. The answer is 39."),
    ("Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
     "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars left. "
     "23 - 15 = 8. The answer is 8."),
)
CHOICE = "{question}\n{choices}\nAnswer with the letter of the right choice on the last line, as `Answer: X`."


def _law(row):
    choices = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"]))
    return [user(CHOICE.format(question=row["question"], choices=choices))]


TASKS = {
    "gsm8k": Task("gsm8k/test.jsonl", ("openai/gsm8k", "main", "test"), ("question", "answer"),
                  lambda r: _shots(GSM8K_SHOTS, r["question"]), lambda r: r["answer"], grading.last_number, 320),
    "math500": Task("math500/test.jsonl", ("HuggingFaceH4/MATH-500", None, "test"), ("problem", "answer"),
                    lambda r: [user(f"{r['problem']}\nPut your final answer within \\boxed{{}}.")], lambda r: r["answer"],
                    grading.math, 640, lambda r: r["unique_id"]),
    "humaneval": Task("humaneval/HumanEval.jsonl", ("openai/openai_humaneval", None, "test"),
                      ("task_id", "prompt", "test", "entry_point"),
                      lambda r: [user(f"Complete this function. Answer with the whole function in one code block.\n"
                                      f"```python\n{r['prompt']}```")],
                      lambda r: {k: r[k] for k in ("prompt", "test", "entry_point")}, grading.humaneval, 400,
                      lambda r: r["task_id"]),
    "mt_bench": Task("mt_bench/question.jsonl", ("HuggingFaceH4/mt_bench_prompts", None, "train"), ("turns",),
                     lambda r: [user(r["turns"][0])], lambda r: None, grading.open_ended, 512, lambda r: r["question_id"]),
    "alpaca_eval": Task("alpaca_eval/alpaca_eval.jsonl", ("tatsu-lab/alpaca_eval", None, "eval"), ("instruction",),
                        lambda r: [user(r["instruction"])], lambda r: None, grading.open_ended, 512),
    "triviaqa": Task("triviaqa/validation.jsonl", ("mandarjoshi/trivia_qa", "unfiltered.nocontext", "validation"),
                     ("question", "answer"), lambda r: [user(f"Answer with a name or a few words only. {r['question']}")],
                     lambda r: r["answer"]["aliases"], grading.exact_match, 32),
    "nq_open": Task("nq_open/NQ-open.dev.jsonl", ("google-research-datasets/nq_open", None, "validation"),
                    ("question", "answer"), lambda r: [user(f"Answer with a name or a few words only. {r['question']}?")],
                    lambda r: r["answer"], grading.exact_match, 32),
    "cnn_dailymail": Task("cnn_dailymail/test.jsonl", ("abisee/cnn_dailymail", "3.0.0", "test"), ("article", "highlights"),
                          lambda r: [user(f"Summarise in three sentences:\n\n{r['article']}")], lambda r: r["highlights"],
                          grading.rouge_l, 160, lambda r: r["id"]),
    "spec_bench": Task("spec_bench/question.jsonl", ("hemingkx/Spec-Bench", None, "train"), ("turns", "category"),
                       lambda r: [user(r["turns"][0])], lambda r: None, grading.open_ended, 512, lambda r: r["question_id"]),
    "law": Task("law/mmlu_professional_law/test.jsonl", ("cais/mmlu", "professional_law", "test"),
                ("question", "choices", "answer"), _law, lambda r: "ABCD"[int(r["answer"])], grading.letter, 320),
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
    entry, rows = TASKS[task], _rows(task)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if n_problems and n_problems > len(rows):
        raise ValueError(f"{n_problems} problems of {task} were asked for and {len(rows)} are there; lower n_problems")
    problems = []
    for i in order[:n_problems]:
        row = rows[i]
        identity = entry.identity(row) if entry.identity else i
        problems.append(Problem(f"{task}-{identity}", task, tuple(entry.prompt(row)), entry.reference(row),
                                entry.max_new_tokens, entry.stop, tuple(row.get("turns", ())[1:]),
                                {k: row[k] for k in ("category", "subject", "level") if k in row}))
    return problems


def grade_many(answers):
    """Grade [(Problem, text)]; programs run in parallel in the sandbox. Returns [Grade] in the same order."""
    from helpers import sandbox
    programs, grades = {}, []
    for i, (problem, text) in enumerate(answers):
        if problem.task == "pocket-code":
            found = {}
            corpus.grade("code", problem.reference, text, lambda p: (found.setdefault("p", p) is None, ""))
            programs[i] = found["p"]
            grades.append(None)
        elif problem.task == "humaneval":
            programs[i] = grading.humaneval_program(problem.reference, text)
            grades.append(None)
        elif problem.task.startswith("pocket-"):
            grades.append(Grade(*corpus.grade(problem.task.removeprefix("pocket-"), problem.reference, text)))
        else:
            grades.append(TASKS[problem.task].grade(problem.reference, text))
    for i, (ok, detail) in zip(programs, sandbox.execute_many(list(programs.values()))):
        grades[i] = Grade(float(ok), detail)
    return grades


def grade(problem, text):
    """Grade one answer. Returns Grade(score in [0, 1], or NaN where nothing can judge it, detail)."""
    return grade_many([(problem, text)])[0]


def _rows(task):
    """A task's rows from the first place that has them."""
    entry, tried = TASKS[task], []
    for root in (os.environ.get("SP_DATA"), paths.DATA / "benchmarks"):
        if not root:
            tried.append("$SP_DATA (not set)")
            continue
        for file in (Path(root) / entry.file, Path(root) / f"{entry.file}.gz"):
            if file.exists():
                return read_jsonl(file, entry.fields)
        tried.append(str(Path(root) / entry.file))
    name, config, split = entry.hub
    try:
        from datasets import load_dataset
        return list(load_dataset(name, config, split=split))
    except Exception as error:
        raise FileNotFoundError(
            f"no data for {task}: looked for {tried[0]}, for {tried[1]} and on the hub ({name}; {type(error).__name__}); "
            f"put {Path(entry.file).name} into data/benchmarks/{task}/ or set SP_DATA to a folder that has it") from error


def read_jsonl(file, fields=()):
    """Rows of a .jsonl or .jsonl.gz file; a damaged one is reported by file and line."""
    rows, number = [], 0
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    rows.append(json.loads(line))
                    missing = [f for f in fields if f not in rows[-1]]
                    if missing:
                        raise ValueError(f"{file}, line {number}: no field {missing[0]!r} (it has {', '.join(rows[-1])})")
    except (EOFError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}, line {number + 1}: cannot be read ({error}); fetch the file again") from error
    if not rows:
        raise ValueError(f"{file} is empty; fetch the file again")
    return rows
