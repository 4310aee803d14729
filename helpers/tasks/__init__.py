"""Problems, prompts, data and grading. Nothing here knows a model."""

from helpers.tasks.grading import Grade
from helpers.tasks.loading import check_name, follow, load, read_jsonl
from helpers.tasks.own import find, is_file
from helpers.tasks.scoring import grade, grade_many, grader
from helpers.tasks.table import TASKS, Problem, Task, names, user


def __getattr__(name):
    """tasks.NAMES: the names of all tasks, those that a notebook has added to TASKS among them."""
    if name == "NAMES":
        return names()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
