"""Graders, each as its benchmark's authors grade: (reference, text) -> Grade, Program or None.

A Program (helpers/sandbox.py) is graded by running it; None means that only a judge could say.
"""
import math as _math
import re
import string
import textwrap
import threading
from collections import Counter
from typing import NamedTuple

from helpers.sandbox import Program


class Grade(NamedTuple):
    """score in [0, 1], NaN where nothing can judge the answer; detail says why."""

    score: float
    detail: str


# ---- numbers (GSM8K) ------------------------------------------------------------------------------

NUMBER = r"(?:(?<![\w)\]])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"
CLAUSE = r"((?:[^\n.]|\.(?=\d))*)"
MARKS = (r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)", r"####([^\n]*)", rf"answer[*_]* is:?{CLAUSE}",
         rf"answer[*_]*:(?=[^A-Za-z\n]*\d){CLAUSE}")     # "Answer: 3" is a mark, "Answer: Jo has 3 ..." a heading
REASON = r",(?!\d)|(?<=\w) \(| because| since| which| so "


def numbers(text):
    """All numbers of a text as floats: thousands' commas, $, LaTeX spacing and Unicode minus are understood."""
    text = text.replace("−", "-").replace("–", " - ").replace("{,}", ",")
    text = re.sub(r"\\[$!,;: ]|\$", "", re.sub(r"[*_`]", " ", text))
    text = re.sub(r"(?<=\d)-", " - ", text)         # 20-5 is a difference
    return [float(n.replace(",", "")) for n in re.findall(NUMBER, text)]


def last_number(reference, text):
    """GSM8K: the number of the last answer mark, else the last number, equals the one after `####` (Cobbe 2021).

    Marks are `####`, a box, "the answer is", "Answer:". In "the answer is 20 - 2 = 18" the result counts.
    """
    right, found = numbers(reference.split("####")[-1])[-1], numbers(text)[-1:]
    for mark in re.finditer("|".join(MARKS), text, re.I):
        said = re.split(REASON, next(g for g in mark.groups() if g is not None))[0]
        found = numbers(said.split("=")[-1])[:1] or found
    if not found:
        return Grade(0.0, f"no number, right is {right:g}")
    return Grade(float(abs(found[0] - right) < 1e-6), f"answered {found[0]:g}, right is {right:g}")


# ---- mathematics (MATH) ---------------------------------------------------------------------------

def math(reference, text):
    """MATH: the boxed answer equals the reference up to form, by math-verify."""
    from math_verify import parse, verify
    # its clock is a signal, which only the main thread may set
    clock = 5 if threading.current_thread() is threading.main_thread() else None
    right, said = (parse(t, parsing_timeout=clock) for t in (f"${reference}$", text))
    return Grade(float(verify(right, said, timeout_seconds=clock)), f"right is {reference}")


# ---- short answers (TriviaQA, NQ) -----------------------------------------------------------------

def normalise(text):
    """SQuAD normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation + "‘’´“”")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(alias, answer):
    """F1 of the words that two texts share after SQuAD normalisation."""
    said, right = normalise(answer).split(), normalise(alias).split()
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0


def exact_match(aliases, text):
    """TriviaQA, NQ: the first line equals an alias after SQuAD normalisation; the best F1 is in the detail."""
    answer = text.strip().split("\n")[0]
    best = max(f1(a, answer) for a in aliases)
    return Grade(float(any(normalise(answer) == normalise(a) for a in aliases)),
                 f"answered {normalise(answer)!r}, right is {aliases[0]!r}, F1 {best:.2f}")


# ---- multiple choice (MMLU) -----------------------------------------------------------------------

# An article is no choice: in "the answer is a landlord" and "Answer: A court may" the letter begins a phrase.
LETTER = (r"[\s*_$\\({\[`\"']*(?:boxed\{|text\{|choice |option )*[*(\[{]*([A-D])"
          r"(?![\w'’])(?!\s+(?!is |as |be|since |and )[a-z])")
CHOICES = (rf"answer(?: choice| option)?(?: is|:)+(?: the)?{LETTER}",
           rf"\\boxed\{{{LETTER}",
           rf"\b(?:choice|option)(?: is|:)*{LETTER}",
           r"(?m)^[\s*(\[]*([A-D])(?:[).:\]*]+(?=\s|$)|\s*$)")


def letter(reference, text):
    """Multiple choice: the letter after the last "answer", else in a box, after "option", alone at a line's start."""
    for pattern in CHOICES:
        found = re.findall(pattern, text, re.I if pattern != CHOICES[-1] else 0)
        if found:
            break
    return Grade(float(bool(found) and found[-1].upper() == reference),
                 f"answered {found[-1:] or None}, right is {reference}")


# ---- summaries, open answers ----------------------------------------------------------------------

def rouge_l(reference, text):
    """Summary-level ROUGE-L F1 (Lin 2004) by rouge-score, one sentence a line, stemmed."""
    from rouge_score import rouge_scorer
    lines = [re.sub(r"(?<=[.!?])\s+", "\n", t.strip()) for t in (reference, text)]
    score = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True).score(*lines)["rougeLsum"].fmeasure
    return Grade(score, "ROUGE-L")


def spec_bench(reference, text):
    """Spec-Bench, by category: numbers for mathematics, ROUGE-L for summaries, best F1 for retrieved answers."""
    category, right = reference
    if category == "math_reasoning":
        return last_number(right[0], text)
    if category == "summarization":
        return rouge_l(right[0], text)
    if category == "rag":
        return Grade(max(f1(alias, text) for alias in right[0]), "F1")
    return None


def open_ended(reference, text):
    """No program can say: left to the judge, where there is one."""
    return None


def measures(text):
    """What can be said of an open answer by itself: words, distinct-1 and -2 (Li et al. 2016), repetition.

    repetition is the share of 4-grams that had been there before; shares of nothing are NaN.
    """
    words = re.findall(r"\w+", text.lower())
    grams = {n: list(zip(*(words[i:] for i in range(n)))) for n in (1, 2, 4)}
    new = {n: len(set(g)) / len(g) if g else _math.nan for n, g in grams.items()}
    return {"words": len(words), "distinct_1": new[1], "distinct_2": new[2], "repetition": 1 - new[4]}


# ---- programs (HumanEval, pocket-code) ------------------------------------------------------------

def extract_code(text, name):
    """The code of a chat answer: its fenced block that defines `name`, else its first block, else from the first
    line that looks like Python, else the text as it is (a bare continuation)."""
    blocks = re.findall(r"^[ \t]*```\w*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", text, re.S | re.M)
    blocks = [textwrap.dedent(b) for b in blocks]
    if blocks:
        return next((b for b in blocks if f"def {name}" in b), blocks[0])
    begin = re.search(r"^(?:(?:from|import|def|class) |@)", text, re.M)
    return text[begin.start():] if begin and f"def {name}" in text else text


def humaneval(reference, text):
    """HumanEval: the answer passes all tests (Chen et al. 2021); one without the function continues the prompt."""
    prompt, name = reference["prompt"], reference["entry_point"]
    code = extract_code(text, name)
    if f"def {name}" not in code:
        code = prompt + (code if code[:1].isspace() else textwrap.indent(code, "    "))
    return Program(code, name, f"{reference['test']}\n\ncheck({name})\n", prompt)


def pocket_code(reference, text):
    """pocket-code: the answer from its first `def` on passes the row's assertions."""
    name = re.match(r"assert (\w+)\(", reference["check"]).group(1)
    return Program(text[max(text.find("def "), 0):], name, reference["check"])
