"""Grades of many answers: programs run in the sandbox, open answers go to the judge, if any."""

import math
import warnings
from functools import cache, partial

from helpers.tasks import corpus, grading, judge, own, sandbox
from helpers.tasks.grading import Grade
from helpers.tasks.sandbox import Program
from helpers.tasks.table import POCKET_TASKS, TASKS

UNGRADED = (
    "programs are not graded: model-written code cannot be isolated here (Linux with `unshare` and "
    "user namespaces is needed); SP_UNSAFE_EXECUTE=1 runs it with limits on time, memory and files "
    "only"
)


def grade_many(answers):
    """Grade [(Problem, text)]: programs run in parallel, open answers are compared by the judge.

    Returns [Grade] in the same order; a score is NaN where nothing can judge the answer ("no
    judge", "no reference", "no sandbox").
    """
    grades = [_grade_or_work(problem, text) for problem, text in answers]

    programs = [i for i, grade in enumerate(grades) if isinstance(grade, Program)]
    for i, run in zip(programs, _run_all([grades[i] for i in programs])):
        grades[i] = run

    open_ended = [i for i, grade in enumerate(grades) if grade is None]
    verdicts = judge.compare_many([_comparison(*answers[i]) for i in open_ended])
    for i, verdict in zip(open_ended, verdicts):
        grades[i] = verdict
    return grades


def _run_all(programs):
    """Grades of Programs; NaN where they can be neither isolated nor, by the user's word, run."""
    if programs and not sandbox.possible():
        _say_ungraded()
        return [Grade(math.nan, "no sandbox") for _ in programs]
    return [Grade(float(passed), detail) for passed, detail in sandbox.execute_many(programs)]


@cache
def _say_ungraded():
    """Say once that programs are not graded, and why."""
    warnings.warn(UNGRADED, stacklevel=4)


def grade(problem, text):
    """Grade one answer. Returns Grade(score, detail).

    The score is in [0, 1], or NaN where nothing can judge the answer.
    """
    return grade_many([(problem, text)])[0]


def grader(task):
    """The function (reference, text) -> Grade, Program or None that grades a task's answers."""
    if task in TASKS:
        return TASKS[task].grade
    if task == "pocket-code":
        return grading.pocket_code
    if task in POCKET_TASKS:
        return partial(corpus.grade, POCKET_TASKS[task])
    if own.is_file(task):
        return own.grade
    raise ValueError(f"there is no grader for task {task!r}; add an entry to helpers.tasks.TASKS")


def _grade_or_work(problem, text):
    """A Grade, a Program that has to be run, or None where only a judge can say."""
    result = grader(problem.task)(problem.reference, text)
    if result is None or isinstance(result, (Grade, Program)):
        return result
    raise TypeError(
        f"the grader of task {problem.task!r} returned {result!r}; it must return "
        "tasks.Grade(score, detail), a Program to run, or None where only a judge can say"
    )


def _comparison(problem, text):
    """What the judge compares an answer with: a reference that is itself an answer, or nothing."""
    other = problem.reference
    if isinstance(other, own.Reference):
        other = other.answer
    other = other if isinstance(other, str) else None
    return problem.messages, text, other
