"""Tasks and their prompts.

One table, TASKS: adding a task is one entry and one grader (helpers/tasks/grading.py). An entry may
be added from a notebook too: `load` and `grade` look at the table as it is when they are called.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from helpers.tasks import corpus, grading

# A model without a chat template goes on after its answer by writing the user's next question:
# the answer ends there.
USER = ("\nUser:",)


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


@dataclass(frozen=True, kw_only=True)
class Task:
    """A line of the table: where rows are, how a row becomes a problem, and how it is graded.

    file: path of a .jsonl file (or .jsonl.gz) inside $SP_DATA or data/benchmarks.
    fields: what every row must have; the first one's text names a row where `identity` does not.
    prompt: row -> list of chat messages (see `user`).
    reference: row -> whatever the grader needs.
    grade: (reference, text) -> Grade, a Program to run, or None where only a judge could say.
    hub: arguments of datasets.load_dataset; empty for a task whose data is only a local file.
    identity: the field that names a row upstream; "" for a hash of its first field.
    renamed: the hub's field name -> ours, where they differ.
    """

    file: str
    fields: tuple
    prompt: Callable
    reference: Callable
    grade: Callable
    max_new_tokens: int
    hub: dict = field(default_factory=dict)
    identity: str = ""
    stop: tuple = USER
    renamed: dict = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.fields, str) or not self.fields:
            raise ValueError(
                f"fields of a task was {self.fields!r}; it must be a tuple of one or more "
                'field names, such as ("question", "answer")'
            )


def user(text):
    """One user message."""
    return {"role": "user", "content": text}


def assistant(text):
    """One message of the model."""
    return {"role": "assistant", "content": text}


# ---- prompts -----------------------------------------------------------------------------------

# Four of the eight chain-of-thought exemplars of Wei et al. 2022 (arXiv 2201.11903, table 20).
GSM8K_SHOTS = (
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. "
        "After they are done, there will be 21 trees. How many trees did the grove workers plant "
        "today?",
        "There are 15 trees originally. Then there were 21 trees after some more were planted. "
        "So there must have been 21 - 15 = 6. The answer is 6.",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the "
        "parking lot?",
        "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they "
        "have left in total?",
        "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had "
        "32 + 42 = 74. After eating 35, they had 74 - 35 = 39. The answer is 39.",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. "
        "So she has 23 - 15 dollars left. 23 - 15 = 8. The answer is 8.",
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
    "Answer the following multiple choice question. The last line of your response should be of "
    "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. "
    "Think step by step before answering.\n\n{}\n\n{}"
)

COMPLETE = (
    "Complete this function. Answer with the whole function in one code block.\n```python\n{}```"
)


def _with_shots(shots, question):
    """Few-shot exemplars [(question, answer)] as earlier turns of the chat, then the question."""
    messages = []
    for example, answer in shots:
        messages += [user(example), assistant(answer)]
    return [*messages, user(question)]


def _gsm8k_prompt(row):
    return _with_shots(GSM8K_SHOTS, row["question"])


def _math_prompt(row):
    return [user(f"{row['problem']}\nPut your final answer within \\boxed{{}}.")]


def _humaneval_prompt(row):
    return [user(COMPLETE.format(row["prompt"]))]


def _first_turn(row):
    return [user(row["turns"][0])]


def _qa_prompt(row):
    shots = [(QA.format(question), answer) for question, answer in QA_SHOTS]
    return _with_shots(shots, QA.format(row["question"]))


def _summary_prompt(row):
    return [user(f"Summarise in three sentences:\n\n{row['article']}")]


def _law_prompt(row):
    lettered = zip("ABCD", row["choices"], strict=True)
    choices = "\n".join(f"{letter}) {text}" for letter, text in lettered)
    return [user(CHOICE.format(row["question"], choices))]


# ---- references --------------------------------------------------------------------------------


def _gsm8k_solution(row):
    """The whole worked solution, of which the grader reads the number after ####."""
    if not grading.numbers(row["answer"].split("####")[-1]):
        raise ValueError("its answer ends without a number")
    return row["answer"]


def _humaneval_tests(row):
    return {key: row[key] for key in ("prompt", "test", "entry_point")}


def _aliases(aliases):
    """The accepted answers, of which there must be one."""
    if not aliases or isinstance(aliases, str):
        raise ValueError("it has no list of answers")
    return list(aliases)


def _law_letter(row):
    letters = dict(enumerate("ABCD"))  # a dict, so that -1 is no letter
    return letters[int(row["answer"])]


# ---- the table ---------------------------------------------------------------------------------

TASKS = {
    "gsm8k": Task(
        file="gsm8k/test.jsonl",
        hub=dict(path="openai/gsm8k", name="main", split="test"),
        fields=("question", "answer"),
        prompt=_gsm8k_prompt,
        reference=_gsm8k_solution,
        grade=grading.last_number,
        max_new_tokens=320,
    ),
    "math500": Task(
        file="math500/test.jsonl",
        hub=dict(path="HuggingFaceH4/MATH-500", split="test"),
        fields=("problem", "answer", "unique_id"),
        identity="unique_id",
        prompt=_math_prompt,
        reference=lambda row: row["answer"],
        grade=grading.math,
        max_new_tokens=640,
    ),
    "humaneval": Task(
        file="humaneval/HumanEval.jsonl",
        hub=dict(path="openai/openai_humaneval", split="test"),
        fields=("task_id", "prompt", "test", "entry_point"),
        identity="task_id",
        prompt=_humaneval_prompt,
        reference=_humaneval_tests,
        grade=grading.humaneval,
        max_new_tokens=400,
    ),
    "mt_bench": Task(
        file="mt_bench/question.jsonl",
        hub=dict(path="HuggingFaceH4/mt_bench_prompts", split="train"),
        renamed={"prompt": "turns", "prompt_id": "question_id"},
        fields=("turns", "question_id"),
        identity="question_id",
        prompt=_first_turn,
        reference=lambda row: None,
        grade=grading.open_ended,
        max_new_tokens=512,
    ),
    "alpaca_eval": Task(
        file="alpaca_eval/alpaca_eval.jsonl",
        hub=dict(
            path="json",
            split="train",
            data_files="hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval.json",
        ),
        fields=("instruction", "output"),
        prompt=lambda row: [user(row["instruction"])],
        reference=lambda row: row["output"],  # the baseline that a judge compares with
        grade=grading.open_ended,
        max_new_tokens=512,
    ),
    "triviaqa": Task(
        file="triviaqa/validation.jsonl",
        hub=dict(path="mandarjoshi/trivia_qa", name="unfiltered.nocontext", split="validation"),
        fields=("question", "answer"),
        prompt=_qa_prompt,
        reference=lambda row: _aliases(row["answer"]["aliases"]),
        grade=grading.exact_match,
        max_new_tokens=32,
        stop=("\n",),
    ),
    "nq_open": Task(
        file="nq_open/NQ-open.dev.jsonl",
        hub=dict(path="google-research-datasets/nq_open", split="validation"),
        fields=("question", "answer"),
        prompt=_qa_prompt,
        reference=lambda row: _aliases(row["answer"]),
        grade=grading.exact_match,
        max_new_tokens=32,
        stop=("\n",),
    ),
    "cnn_dailymail": Task(
        file="cnn_dailymail/test.jsonl",
        hub=dict(path="abisee/cnn_dailymail", name="3.0.0", split="test"),
        fields=("article", "highlights", "id"),
        identity="id",
        prompt=_summary_prompt,
        reference=lambda row: row["highlights"],
        grade=grading.rouge_l,
        max_new_tokens=160,
    ),
    "spec_bench": Task(
        file="spec_bench/question.jsonl",
        hub=dict(
            path="json",
            split="train",
            data_files="https://raw.githubusercontent.com/hemingkx/Spec-Bench/main/"
            "data/spec_bench/question.jsonl",
        ),
        fields=("turns", "category", "question_id"),
        identity="question_id",
        prompt=_first_turn,
        reference=lambda row: (row["category"], row.get("reference")),
        grade=grading.spec_bench,
        max_new_tokens=512,
    ),
    "law": Task(
        file="law/mmlu_professional_law/test.jsonl",
        hub=dict(path="cais/mmlu", name="professional_law", split="test"),
        fields=("question", "choices", "answer"),
        prompt=_law_prompt,
        reference=_law_letter,
        grade=grading.letter,
        max_new_tokens=320,
    ),
}

# The tasks whose problems a program writes (helpers/tasks/corpus.py): name -> domain.
POCKET_TASKS = {f"pocket-{domain}": domain for domain in corpus.DOMAINS}
POCKET_TOKENS = {
    "arithmetic": 80,
    "algebra": 80,
    "code": 64,
    "facts": 32,
    "news": 40,
    "stories": 80,
    "law": 56,
}


def names():
    """The names of all tasks at this moment, those that were added to TASKS among them."""
    return (*POCKET_TASKS, *TASKS)
