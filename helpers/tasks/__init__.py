"""Problems, prompts, data and grading. Nothing here knows a model."""

from helpers.tasks.grading import Grade
from helpers.tasks.loading import follow, load, read_jsonl
from helpers.tasks.scoring import grade, grade_many
from helpers.tasks.table import NAMES, TASKS, Problem, Task
