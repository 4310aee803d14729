"""Graders, each as its benchmark's authors grade: (reference, text) -> Grade, Program or None.

A Program (helpers/tasks/sandbox.py) is graded by running it; None means that only a judge could
say.
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


# ---- numbers (GSM8K) -----------------------------------------------------------------------------

NUMBER = r"(?:(?<![\w)\]])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"
# What follows a mark, up to the end of the sentence or line.
CLAUSE = r"((?:[^\n.]|\.(?=\d))*)"
# What announces the answer. "Answer: 3" does; "Answer: Jo has 3 ..." is the heading of a solution.
MARKS = (
    r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)",
    r"####([^\n]*)",
    rf"answer is:?{CLAUSE}",
    rf"answer:(?=[^A-Za-z\n]*\d){CLAUSE}",
)
# Where the answer ends and its reason begins.
REASON = r",(?!\s*\d)|(?<=\w) \(| because| since| which| so "
# What makes the number before it a part of something else: 9 x 2, 3 1/2, 12,34, 18 or 20, 10^3,
# 2\sqrt{3}, 18 thousand, 4 hours 20 minutes.
GOES_ON = (
    r"(?:,|\s+\d+\s*/|\s+or\s+|\s*(?:[-+/^x×÷]|\\times|\\cdot|\\div))\s*[\d.(]"
    r"|\s*\\(?:sqrt|pi)|\s*\^|k\b|e\d"
    r"|\s*(?:hundred|thousand|million|billion|dozen)\b"
    r"|\s+[a-z]+,?\s+(?:and\s+)?\d"
)


def tidy(text):
    r"""Text with plain numbers.

    No Markdown, $, LaTeX spacing or Unicode minus; \frac{a}{b} is a/b.
    """
    text = text.replace("−", "-").replace("–", " - ")
    # 3*4 is a product; any other star is Markdown.
    text = re.sub(r"(?<=\d)\s*(?<!\*)\*(?!\*)\s*(?=\d)", " x ", text)
    text = text.replace("{,}", ",")
    text = re.sub(r"[*_`]", " ", text)
    text = re.sub(r"\\[$!,;: ]|\$", "", text)
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\s+:", ":", text)
    # 20-5 is a difference, not 20 and a negative number.
    return re.sub(r"(?<=\d)-", " - ", text)


def numbers(text):
    """All numbers of a text as floats, with thousands' commas understood."""
    return [_float(number) for number in re.findall(NUMBER, tidy(text))]


def _float(number):
    return float(number.replace(",", ""))


def _claimed(clause):
    """The number that the clause after an answer mark claims.

    A quotient has its value. Any other unfinished sum is no answer, whatever its first number is:
    NaN. None where the clause has no number.
    """
    answer = re.split(REASON, clause)[0].split("=")[-1]
    quotient = re.search(rf"({NUMBER})(?:\s*/\s*({NUMBER}))?", answer)
    if not quotient:
        return None
    top, bottom = quotient.groups()
    divisor = _float(bottom) if bottom else 1.0
    if divisor == 0 or re.match(GOES_ON, answer[quotient.end() :]):
        return _math.nan
    return _float(top) / divisor


def last_number(reference, text):
    """GSM8K: the answer's number equals the one after `####` in the reference (Cobbe et al. 2021).

    The answer's number is that of its last mark (`####`, a box, "the answer is", "Answer:"), else
    its last number. In "the answer is 20 - 2 = 18" the result counts.
    """
    right = numbers(reference.split("####")[-1])[-1]
    text = tidy(text)
    all_numbers = numbers(text)
    answered = all_numbers[-1] if all_numbers else None
    for mark in re.finditer("|".join(MARKS), text, re.I):
        clause = next(group for group in mark.groups() if group is not None)
        claimed = _claimed(clause)
        if claimed is not None:
            answered = claimed
    if answered is None:
        return Grade(0.0, f"no number, right is {right:g}")
    return Grade(float(abs(answered - right) < 1e-6), f"answered {answered:g}, right is {right:g}")


# ---- mathematics (MATH) --------------------------------------------------------------------------


def last_boxes(text):
    r"""The content of the last \boxed{}; None without any.

    Boxes that only "and", "or" or a comma parts from the last one belong to the same answer.
    """
    boxes = []  # (content, where it ends) of the boxes of one answer
    for begin in re.finditer(r"\\boxed\s*\{", text):
        end = _closing_brace(text, begin.end())
        if end is None:
            continue
        if boxes:
            between = text[boxes[-1][1] : begin.start()]
            if not re.fullmatch(r"[\s$,]*(?:and|or)?[\s$]*(?:\w\s*=\s*)?", between):
                boxes = []
        boxes.append((text[begin.end() : end - 1], end))
    return ", ".join(content for content, _ in boxes) if boxes else None


def _closing_brace(text, begin):
    """The position after the brace that closes the one before `begin`, or None."""
    depth = 1
    for i in range(begin, len(text)):
        if text[i] in "{}" and text[i - 1] != "\\":
            depth += 1 if text[i] == "{" else -1
        if depth == 0:
            return i + 1
    return None


def math(reference, text):
    """MATH: the answer equals the reference by math-verify (Hendrycks et al. 2021).

    The answer is the last box, else the last expression.
    """
    from math_verify import parse, verify

    # math-verify's time limit is a signal, which only the main thread may set.
    seconds = 5 if threading.current_thread() is threading.main_thread() else None
    boxed = last_boxes(text)
    if boxed is not None:
        text = f"\\boxed{{{boxed}}}"
    right = parse(f"${reference}$", parsing_timeout=seconds)
    answer = parse(text, parsing_timeout=seconds)
    equal = verify(right, answer, timeout_seconds=seconds)
    return Grade(float(equal), f"right is {reference}")


# ---- short answers (TriviaQA, NQ) ----------------------------------------------------------------


def normalise(text):
    """SQuAD normalisation (Rajpurkar et al. 2016).

    Lower case, no punctuation, no articles, single spaces.
    """
    letters = "".join(c for c in text.lower() if c not in string.punctuation + "‘’´“”")
    words = re.sub(r"\b(a|an|the)\b", " ", letters).split()
    # Where nothing is left ("---", "The The") the text stands for itself: else an empty answer
    # would equal it.
    return " ".join(words) or text.strip().lower()


def f1(alias, answer):
    """F1 of the words that two texts share after SQuAD normalisation."""
    answered = normalise(answer).split()
    right = normalise(alias).split()
    shared = sum((Counter(answered) & Counter(right)).values())
    return 2 * shared / (len(answered) + len(right)) if shared else 0.0


def exact_match(aliases, text):
    """TriviaQA, NQ: the first line equals an alias after SQuAD normalisation.

    The best F1 is in the detail.
    """
    first_line = text.strip().split("\n")[0]
    answer = normalise(first_line)
    right = any(answer == normalise(alias) for alias in aliases)
    best = max(f1(alias, first_line) for alias in aliases)
    return Grade(float(right), f"answered {answer!r}, right is {aliases[0]!r}, F1 {best:.2f}")


# ---- multiple choice (MMLU) ----------------------------------------------------------------------

# A letter that is chosen. An article is no choice: in "the answer is a landlord" and "Answer: A
# court may" the letter begins a phrase. Neither is one of several: "A or B", "(A) and (B)".
LETTER = (
    r"[\s*_$\\({\[`\"']*(?:boxed\{|text\{|choice |option )*[*(\[{]*([A-D])"
    r"(?![\w'’])(?!\s+(?!is |as |be|since |and )[a-z])"
    r"(?![)\]}*.$\s]*(?:and|or|[,;/|&])\s*[(\[*]*(?-i:[A-D])\b)"
)
# Ways to name it, best first. An "each option:" above a list of options names none.
CHOICES = (
    rf"answer(?: choice| option)?(?: is|:)+(?: the)?{LETTER}",
    rf"\\boxed\{{{LETTER}",
    rf"\b(?:choice|option)(?: is|:)+(?!\s*\n){LETTER}",
    rf"\bis (?:choice|option){LETTER}",
)
LINE = r"^[\s*(\[]*([A-D])(?:[).:\]*]+(?=\s|$)|\s*$)"


def _letters_alone(text):
    """The letter on the last line by itself, else the one that begins the text, as a list.

    The letter at the beginning counts only where no other line begins with another one.
    """
    last = re.search(r"^[\s*(\[]*([A-D])[).:\]*\s]*\Z", text, re.M)
    if last:
        return [last[1]]
    first = re.match(LINE, text, re.M)
    if first and len(set(re.findall(LINE, text, re.M))) == 1:
        return [first[1]]
    return []


def letter(reference, text):
    """Multiple choice: the letter that the answer names last.

    After the word "answer", else in a box, else after "option is", else standing alone.
    """
    letters = []
    for pattern in CHOICES:
        letters = letters or re.findall(pattern, text, re.I)
    letters = letters or _letters_alone(text)
    right = bool(letters) and letters[-1].upper() == reference
    return Grade(float(right), f"answered {letters[-1:] or None}, right is {reference}")


# ---- summaries, open answers ---------------------------------------------------------------------


def rouge_l(reference, text):
    """Summary-level ROUGE-L F1 (Lin 2004) by rouge-score, one sentence a line, stemmed."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True)
    scores = scorer.score(_one_sentence_a_line(reference), _one_sentence_a_line(text))
    return Grade(scores["rougeLsum"].fmeasure, "ROUGE-L")


def _one_sentence_a_line(text):
    return re.sub(r"(?<=[.!?])\s+", "\n", text.strip())


def spec_bench(reference, text):
    """Spec-Bench, by category, with reference = (category, right answers).

    Numbers for mathematics, ROUGE-L for summaries, the best F1 for retrieved answers.
    """
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
    """What can be said of an open answer by itself: words, distinct-1 and -2, repetition.

    distinct-n is the share of n-grams that are different (Li et al. 2016); repetition is the share
    of 4-grams that had been there before. Shares of nothing are NaN.
    """
    words = re.findall(r"\w+", text.lower())
    return {
        "words": len(words),
        "distinct_1": _share_distinct(words, 1),
        "distinct_2": _share_distinct(words, 2),
        "repetition": 1 - _share_distinct(words, 4),
    }


def _share_distinct(words, n):
    grams = list(zip(*(words[i:] for i in range(n))))
    return len(set(grams)) / len(grams) if grams else _math.nan


# ---- programs (HumanEval, pocket-code) -----------------------------------------------------------


def extract_code(text, name):
    """The code of a chat answer.

    Its fenced block that defines `name`, else its first block, else from the first line that looks
    like Python, else the text as it is (a bare continuation).
    """
    fenced = re.findall(r"^[ \t]*```\w*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", text, re.S | re.M)
    blocks = [textwrap.dedent(block) for block in fenced]
    for block in blocks:
        if f"def {name}" in block:
            return block
    if blocks:
        return blocks[0]
    begin = re.search(r"^(?:(?:from|import|def|class) |@)", text, re.M)
    if begin and f"def {name}" in text:
        return text[begin.start() :]
    return text


def humaneval(reference, text):
    """HumanEval: the answer passes all tests (Chen et al. 2021).

    An answer without the function continues the prompt.
    """
    prompt = reference["prompt"]
    name = reference["entry_point"]
    code = extract_code(text, name)
    if f"def {name}" not in code:
        body = code if code[:1].isspace() else textwrap.indent(code, "    ")
        code = prompt + body
    tests = f"{reference['test']}\n\ncheck({name})\n"
    return Program(code, entry=name, tests=tests, setup=prompt)


def pocket_code(reference, text):
    """pocket-code: the answer from its first `def` on passes the row's assertions."""
    name = re.match(r"assert (\w+)\(", reference["check"]).group(1)
    begin = max(text.find("def "), 0)
    return Program(text[begin:], entry=name, tests=reference["check"])
