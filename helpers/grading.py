"""Graders, each as its benchmark's authors grade: (reference, text) -> Grade."""
import math as _math
import re
import string
from typing import NamedTuple


class Grade(NamedTuple):
    """score in [0, 1], NaN where nothing can judge the answer; detail says why."""

    score: float
    detail: str


def _numbers(text):
    return [n.replace(",", "").rstrip(".") for n in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text.replace("$", ""))]


def last_number(reference, text):
    """GSM8K: the number after the last answer mark, else the last number, equals the one after `####` (Cobbe et al. 2021)."""
    right = float(_numbers(reference.split("####")[-1])[-1])
    marked = re.findall(r"(?:\\boxed\{|####|answer is:?)\s*\\?\$?\s*(-?\d[\d,]*(?:\.\d+)?)", text, re.I)
    found = (_numbers(marked[-1]) if marked else _numbers(text))[-1:]
    return Grade(float(bool(found) and abs(float(found[0]) - right) < 1e-6), f"answered {found or None}, right is {right:g}")


def math(reference, text):
    """MATH: the boxed answer equals the reference up to form, by math-verify."""
    from math_verify import parse, verify
    ok = verify(parse(f"${reference}$"), parse(text))
    return Grade(float(ok), f"right is {reference}")


def normalise(text):
    """SQuAD normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(aliases, text):
    """TriviaQA, NQ: the first line equals one of the aliases after SQuAD normalisation."""
    answer = normalise(text.strip().split("\n")[0])
    return Grade(float(any(answer == normalise(a) for a in aliases)), f"answered {answer!r}, right is {aliases[0]!r}")


def letter(reference, text):
    """Multiple choice: the letter after the last `Answer:`, else a lone letter at the start."""
    found = re.findall(r"[Aa]nswer(?: is)?:?\s*\**\(?([A-D])\b", text) or re.findall(r"^\s*\(?([A-D])\b", text)
    return Grade(float(bool(found) and found[-1] == reference), f"answered {found[-1:] or None}, right is {reference}")


def rouge_l(reference, text):
    """ROUGE-L F1 of a summary, by rouge-score."""
    from rouge_score import rouge_scorer
    score = rouge_scorer.RougeScorer(["rougeLsum"], use_stemmer=True).score(reference, text)["rougeLsum"].fmeasure
    return Grade(score, "ROUGE-L")


def open_ended(reference, text):
    """No reference: nothing can judge the answer."""
    return Grade(_math.nan, "no judge")


def humaneval_program(reference, text):
    """The program that decides a HumanEval answer: the model's code, the tests, the call of check."""
    blocks = re.findall(r"```(?:python)?\n(.*?)(?:```|$)", text, re.S)
    code = next((b for b in blocks if f"def {reference['entry_point']}" in b), blocks[0] if blocks else text)
    if f"def {reference['entry_point']}" not in code:
        code = reference["prompt"] + code
    head = reference["prompt"].split("def ")[0]        # imports that the prompt promised
    return f"{head}\n{code}\n\n{reference['test']}\n\ncheck({reference['entry_point']})\n"


def humaneval(reference, text):
    """HumanEval: all tests pass, in the sandbox (Chen et al. 2021)."""
    from helpers import sandbox
    ok, detail = sandbox.execute(humaneval_program(reference, text))
    return Grade(float(ok), detail)
