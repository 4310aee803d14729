"""Graders, each as its benchmark's authors grade: (reference, text) -> Grade, Program or None.

A Program (helpers/tasks/sandbox.py) is graded by running it; None means that only a judge could say.
"""

import math as _math
import re
import string
import textwrap
import threading
from collections import Counter
from typing import NamedTuple

from helpers.tasks.sandbox import Program


class Grade(NamedTuple):
    """score in [0, 1], NaN where nothing can judge the answer; detail says why."""

    score: float
    detail: str


# ---- numbers (GSM8K) ------------------------------------------------------------------------------

NUMBER = r"(?:(?<![\w)\]])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"
CLAUSE = r"((?:[^\n.]|\.(?=\d))*)"
MARKS = (
    r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)",
    r"####([^\n]*)",
    rf"answer is:?{CLAUSE}",
    rf"answer:(?=[^A-Za-z\n]*\d){CLAUSE}",
)  # "Answer: 3" is a mark, "Answer: Jo has 3 ..." a heading
REASON = r",(?!\s*\d)|(?<=\w) \(| because| since| which| so "
# what makes a number after a mark a part of something else: 9 x 2, 3 1/2, 12,34, 18 or 20, 10^3, 2\sqrt{3}, 18 thousand, 4 hours 20 minutes
GOES_ON = (
    r"(?:,|\s+\d+\s*/|\s+or\s+|\s*(?:[-+/^x×÷]|\\times|\\cdot|\\div))\s*[\d.(]|\s*\\(?:sqrt|pi)|\s*\^|k\b|e\d"
    r"|\s*(?:hundred|thousand|million|billion|dozen)\b|\s+[a-z]+,?\s+(?:and\s+)?\d"
)


def tidy(text):
    """Text in which numbers are plain: no Markdown, $, LaTeX spacing or Unicode minus; \\frac{a}{b} is a/b."""
    text = re.sub(
        r"(?<=\d)\s*(?<!\*)\*(?!\*)\s*(?=\d)", " x ", text.replace("−", "-").replace("–", " - ")
    )
    text = re.sub(r"\\[$!,;: ]|\$", "", re.sub(r"[*_`]", " ", text.replace("{,}", ",")))
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    return re.sub(r"(?<=\d)-", " - ", re.sub(r"\s+:", ":", text))  # 20-5 is a difference


def numbers(text):
    """All numbers of a text as floats, with thousands' commas understood."""
    return [float(n.replace(",", "")) for n in re.findall(NUMBER, tidy(text))]


def _claimed(clause):
    """The number that a clause after an answer mark claims: NaN for an expression, None where there is no number.

    A quotient has its value; any other unfinished sum is no answer, whatever its first number is.
    """
    clause = re.split(REASON, clause)[0].split("=")[-1]
    found = re.search(rf"({NUMBER})(?:\s*/\s*({NUMBER}))?", clause)
    if not found:
        return None
    top, bottom = (float(n.replace(",", "")) if n else 1.0 for n in found.groups())
    return _math.nan if not bottom or re.match(GOES_ON, clause[found.end() :]) else top / bottom


def last_number(reference, text):
    """GSM8K: the number of the last answer mark, else the last number, equals the one after `####` (Cobbe 2021).

    Marks are `####`, a box, "the answer is", "Answer:". In "the answer is 20 - 2 = 18" the result counts.
    """
    right, text = numbers(reference.split("####")[-1])[-1], tidy(text)
    found = numbers(text)[-1:]
    for mark in re.finditer("|".join(MARKS), text, re.I):
        claim = _claimed(next(g for g in mark.groups() if g is not None))
        found = [claim] if claim is not None else found
    if not found:
        return Grade(0.0, f"no number, right is {right:g}")
    return Grade(float(abs(found[0] - right) < 1e-6), f"answered {found[0]:g}, right is {right:g}")


# ---- mathematics (MATH) ---------------------------------------------------------------------------


def last_boxes(text):
    """The content of the last \boxed{}, with those that only "and", "or" or a comma parts from it; None without any."""
    boxes = []
    for begin in re.finditer(r"\\boxed\s*\{", text):
        depth, end = 1, begin.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0) * (text[end - 1] != "\\")
            end += 1
        if not depth:
            between = text[boxes[-1][1] if boxes else 0 : begin.start()]
            together = boxes and re.fullmatch(r"[\s$,]*(?:and|or)?[\s$]*(?:\w\s*=\s*)?", between)
            boxes = [*(boxes if together else ()), (text[begin.end() : end - 1], end)]
    return ", ".join(content for content, _ in boxes) if boxes else None


def math(reference, text):
    """MATH: the last box (Hendrycks et al. 2021), else the last expression, equals the reference by math-verify."""
    from math_verify import parse, verify

    # its clock is a signal, which only the main thread may set
    clock = 5 if threading.current_thread() is threading.main_thread() else None
    boxed = last_boxes(text)
    said = text if boxed is None else f"\\boxed{{{boxed}}}"
    right, said = (parse(t, parsing_timeout=clock) for t in (f"${reference}$", said))
    return Grade(float(verify(right, said, timeout_seconds=clock)), f"right is {reference}")


# ---- short answers (TriviaQA, NQ) -----------------------------------------------------------------


def normalise(text):
    """SQuAD normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    words = "".join(c for c in text.lower() if c not in string.punctuation + "‘’´“”")
    # where nothing is left ("---", "The The") the text stands for itself: else an empty answer would equal it
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split()) or text.strip().lower()


def f1(alias, answer):
    """F1 of the words that two texts share after SQuAD normalisation."""
    said, right = normalise(answer).split(), normalise(alias).split()
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0


def exact_match(aliases, text):
    """TriviaQA, NQ: the first line equals an alias after SQuAD normalisation; the best F1 is in the detail."""
    answer = text.strip().split("\n")[0]
    best = max(f1(a, answer) for a in aliases)
    return Grade(
        float(any(normalise(answer) == normalise(a) for a in aliases)),
        f"answered {normalise(answer)!r}, right is {aliases[0]!r}, F1 {best:.2f}",
    )


# ---- multiple choice (MMLU) -----------------------------------------------------------------------

# An article is no choice: in "the answer is a landlord" and "Answer: A court may" the letter begins a phrase.
# Neither is one of several: "A or B", "(A) and (B)".
LETTER = (
    r"[\s*_$\\({\[`\"']*(?:boxed\{|text\{|choice |option )*[*(\[{]*([A-D])"
    r"(?![\w'’])(?!\s+(?!is |as |be|since |and )[a-z])"
    r"(?![)\]}*.$\s]*(?:and|or|[,;/|&])\s*[(\[*]*(?-i:[A-D])\b)"
)
CHOICES = (
    rf"answer(?: choice| option)?(?: is|:)+(?: the)?{LETTER}",
    rf"\\boxed\{{{LETTER}",
    rf"\b(?:choice|option)(?: is|:)+(?!\s*\n){LETTER}",  # "each option:" above a list names none
    rf"\bis (?:choice|option){LETTER}",
)
LINE = r"^[\s*(\[]*([A-D])(?:[).:\]*]+(?=\s|$)|\s*$)"


def _alone(text):
    """The letter that ends a text on a line of its own, or begins it where no other line begins with another."""
    last = re.search(r"^[\s*(\[]*([A-D])[).:\]*\s]*\Z", text, re.M)
    first, lines = re.match(LINE, text, re.M), set(re.findall(LINE, text, re.M))
    return [last[1]] if last else [first[1]] if first and len(lines) == 1 else []


def letter(reference, text):
    """Multiple choice: the letter after the last "answer", else in a box, after "option is", else standing alone."""
    found = next((f for f in (re.findall(p, text, re.I) for p in CHOICES) if f), None) or _alone(
        text
    )
    return Grade(
        float(bool(found) and found[-1].upper() == reference),
        f"answered {found[-1:] or None}, right is {reference}",
    )


# ---- summaries, open answers ----------------------------------------------------------------------


def rouge_l(reference, text):
    """Summary-level ROUGE-L F1 (Lin 2004) by rouge-score, one sentence a line, stemmed."""
    from rouge_score import rouge_scorer

    lines = [re.sub(r"(?<=[.!?])\s+", "\n", t.strip()) for t in (reference, text)]
    score = (
        rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True)
        .score(*lines)["rougeLsum"]
        .fmeasure
    )
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
    return {
        "words": len(words),
        "distinct_1": new[1],
        "distinct_2": new[2],
        "repetition": 1 - new[4],
    }


# ---- programs (HumanEval, pocket-code) ------------------------------------------------------------


def extract_code(text, name):
    """The code of a chat answer: its fenced block that defines `name`, else its first block, else from the first
    line that looks like Python, else the text as it is (a bare continuation)."""
    blocks = re.findall(r"^[ \t]*```\w*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", text, re.S | re.M)
    blocks = [textwrap.dedent(b) for b in blocks]
    if blocks:
        return next((b for b in blocks if f"def {name}" in b), blocks[0])
    begin = re.search(r"^(?:(?:from|import|def|class) |@)", text, re.M)
    return text[begin.start() :] if begin and f"def {name}" in text else text


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
    return Program(text[max(text.find("def "), 0) :], name, reference["check"])
