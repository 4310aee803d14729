"""Tasks and their prompts. Nothing here knows a model.

One table, TASKS: adding a task is one entry and one grader (helpers/tasks/grading.py).
"""

from dataclasses import dataclass, field
from typing import Any, Callable

from helpers.tasks import corpus, grading

USER = ("\nUser:",)  # where a model without a chat template begins to ask itself


@dataclass(frozen=True)
class Problem:
    """One question: chat messages, the reference its grader needs, and when an answer ends."""

    id: str
    task: str
    messages: tuple
    reference: Any
    max_new_tokens: int
    stop: tuple = ()
    followups: tuple = ()  # later user turns (mt_bench)
    meta: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A line of the table: local file, hub source, fields it needs, how a row becomes a prompt, its grader."""

    file: str
    hub: dict  # arguments of datasets.load_dataset
    fields: tuple
    prompt: Callable  # row -> list of messages
    reference: Callable  # row -> whatever the grader needs
    grade: Callable  # (reference, text) -> Grade, Program, or None where only a judge can say
    max_new_tokens: int
    identity: str = ""  # field that names a row upstream; "": a hash of its first field
    stop: tuple = USER
    renamed: dict = field(default_factory=dict)  # the hub's field name -> ours, where they differ


def user(text):
    """One user message."""
    return {"role": "user", "content": text}


def _shots(pairs, ask):
    """Few-shot exemplars as earlier turns of the chat, then the question."""
    turns = [m for q, a in pairs for m in (user(q), {"role": "assistant", "content": a})]
    return [*turns, user(ask)]


# Four of the eight chain-of-thought exemplars of Wei et al. 2022 (arXiv 2201.11903, table 20).
GSM8K_SHOTS = (
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there "
        "will be 21 trees. How many trees did the grove workers plant today?",
        "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have been "
        "21 - 15 = 6. The answer is 6.",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
        "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
        "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating 35, they "
        "had 74 - 35 = 39. The answer is 39.",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars left. "
        "23 - 15 = 8. The answer is 8.",
    ),
)

# Our own, in the form that TriviaQA and NQ are usually asked in (five examples, a few words each).
QA_SHOTS = (
    ("Who wrote the novel Pride and Prejudice?", "Jane Austen"),
    ("what is the chemical symbol of gold", "Au"),
    ("In which year did the Berlin Wall come down?", "1989"),
    ("which is the longest river in south america", "Amazon"),
    ("Which sport is played at Wimbledon?", "tennis"),
)

QA = "Answer with a name or a few words only.\n{}"

# The wording of OpenAI's simple-evals.
CHOICE = (
    "Answer the following multiple choice question. The last line of your response should be of the following "
    "format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering."
    "\n\n{}\n\n{}"
)

COMPLETE = (
    "Complete this function. Answer with the whole function in one code block.\n```python\n{}```"
)


def _qa(row):
    return _shots([(QA.format(q), a) for q, a in QA_SHOTS], QA.format(row["question"]))


def _law(row):
    choices = "\n".join(
        f"{letter}) {text}" for letter, text in zip("ABCD", row["choices"], strict=True)
    )
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
    "gsm8k": Task(
        "gsm8k/test.jsonl",
        dict(path="openai/gsm8k", name="main", split="test"),
        ("question", "answer"),
        lambda r: _shots(GSM8K_SHOTS, r["question"]),
        _solution,
        grading.last_number,
        320,
    ),
    "math500": Task(
        "math500/test.jsonl",
        dict(path="HuggingFaceH4/MATH-500", split="test"),
        ("problem", "answer", "unique_id"),
        lambda r: [user(f"{r['problem']}\nPut your final answer within \\boxed{{}}.")],
        lambda r: r["answer"],
        grading.math,
        640,
        "unique_id",
    ),
    "humaneval": Task(
        "humaneval/HumanEval.jsonl",
        dict(path="openai/openai_humaneval", split="test"),
        ("task_id", "prompt", "test", "entry_point"),
        lambda r: [user(COMPLETE.format(r["prompt"]))],
        lambda r: {k: r[k] for k in ("prompt", "test", "entry_point")},
        grading.humaneval,
        400,
        "task_id",
    ),
    "mt_bench": Task(
        "mt_bench/question.jsonl",
        dict(path="HuggingFaceH4/mt_bench_prompts", split="train"),
        ("turns", "question_id"),
        _first_turn,
        lambda r: None,
        grading.open_ended,
        512,
        "question_id",
        renamed={"prompt": "turns", "prompt_id": "question_id"},
    ),
    "alpaca_eval": Task(
        "alpaca_eval/alpaca_eval.jsonl",  # `output`: the baseline that a judge compares with
        dict(
            path="json",
            split="train",
            data_files="hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval.json",
        ),
        ("instruction", "output"),
        lambda r: [user(r["instruction"])],
        lambda r: r["output"],
        grading.open_ended,
        512,
    ),
    "triviaqa": Task(
        "triviaqa/validation.jsonl",
        dict(path="mandarjoshi/trivia_qa", name="unfiltered.nocontext", split="validation"),
        ("question", "answer"),
        _qa,
        lambda r: _some(r["answer"]["aliases"]),
        grading.exact_match,
        32,
        stop=("\n",),
    ),
    "nq_open": Task(
        "nq_open/NQ-open.dev.jsonl",
        dict(path="google-research-datasets/nq_open", split="validation"),
        ("question", "answer"),
        _qa,
        lambda r: _some(r["answer"]),
        grading.exact_match,
        32,
        stop=("\n",),
    ),
    "cnn_dailymail": Task(
        "cnn_dailymail/test.jsonl",
        dict(path="abisee/cnn_dailymail", name="3.0.0", split="test"),
        ("article", "highlights", "id"),
        lambda r: [user(f"Summarise in three sentences:\n\n{r['article']}")],
        lambda r: r["highlights"],
        grading.rouge_l,
        160,
        "id",
    ),
    "spec_bench": Task(
        "spec_bench/question.jsonl",
        dict(
            path="json",
            split="train",
            data_files="https://raw.githubusercontent.com/hemingkx/Spec-Bench/main/"
            "data/spec_bench/question.jsonl",
        ),
        ("turns", "category", "question_id"),
        _first_turn,
        lambda r: (r["category"], r.get("reference")),
        grading.spec_bench,
        512,
        "question_id",
    ),
    "law": Task(
        "law/mmlu_professional_law/test.jsonl",
        dict(path="cais/mmlu", name="professional_law", split="test"),
        ("question", "choices", "answer"),
        _law,
        lambda r: dict(enumerate("ABCD"))[int(r["answer"])],
        grading.letter,
        320,
    ),
}

POCKET_TOKENS = {
    "arithmetic": 80,
    "algebra": 80,
    "code": 64,
    "facts": 32,
    "news": 40,
    "stories": 80,
    "law": 56,
}

NAMES = (*(f"pocket-{d}" for d in corpus.DOMAINS), *TASKS)
