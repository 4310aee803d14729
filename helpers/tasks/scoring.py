"""Grades of many answers: programs run in the sandbox, open answers go to the judge if there is one."""

from helpers.tasks import corpus, grading, judge, sandbox
from helpers.tasks.grading import Grade
from helpers.tasks.table import TASKS


def grade_many(answers):
    """Grade [(Problem, text)]: programs run in parallel in the sandbox, open answers go to the judge if there is one.

    Returns [Grade] in the same order; a score is NaN where nothing can judge the answer ("no judge").
    """
    grades = [_grade(problem, text) for problem, text in answers]
    programs = [i for i, g in enumerate(grades) if isinstance(g, sandbox.Program)]
    for i, (ok, detail) in zip(programs, sandbox.execute_many([grades[i] for i in programs])):
        grades[i] = Grade(float(ok), detail)
    judged = [i for i, g in enumerate(grades) if g is None]
    pairs = [
        (p.messages, text, p.reference if isinstance(p.reference, str) else None)
        for p, text in (answers[i] for i in judged)
    ]
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
