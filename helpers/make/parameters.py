"""Parameters of a notebook: what it declares, and what a text means, checked before it runs."""

import ast
import math
from pathlib import Path

from helpers.ledger.table import LONGEST
from helpers.methods import Sampling
from helpers.models import pairs
from helpers.models.presets import locate
from helpers.tasks import own

OF_AN_INTERVAL = ("n_problems", "n_timed", "n_tune", "n_read")  # how many problems it is over
LEAST = {
    "n_seeds": 1,
    "repeats": 1,
    "tensor_parallel_size": 1,
    "margin": 0,
    "exchange": 0,
    "seed": 0,  # numpy takes no other
}
BLOCKS = ("gamma", "gammas", "caps", "longest")  # drafted tokens per round


def declared(notebook):
    """Parameters of a notebook's tagged cell: {name: default}."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError("a notebook needs exactly one cell tagged `parameters`")
    defaults = {}
    for node in ast.parse(cells[0].source).body:
        if isinstance(node, ast.AnnAssign):
            defaults[node.target.id] = ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign):
            defaults[node.targets[0].id] = ast.literal_eval(node.value)
    return defaults


def injected(notebook):
    """The text of the cell in which an executed notebook was given its parameters; "" if none."""
    cells = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    return "\n".join(cell.source for cell in cells)


def check_room(pair_name, preset, task):
    """Refuse a file of prompts with a row that is too long for a pair's folders, by its line.

    A hub id is not asked; what its models cannot hold is refused when they read it.
    """
    folders = [locate(where, preset) for where in (preset.draft, preset.target)]
    if not own.is_file(task) or not all(Path(folder).is_dir() for folder in folders):
        return
    context = min(pairs.read_config(folder).max_position_embeddings for folder in folders)
    tokenizer = pairs.load_tokenizer(folders[1])
    unloaded = pairs.Pair(pair_name, None, None, tokenizer, (), {}, revision="", speed="")
    for where, problem in own.numbered(task):
        length = len(unloaded.encode(problem.messages))
        if length + problem.max_new_tokens > context:
            raise ValueError(
                f"{where}: a prompt of {length} tokens and {problem.max_new_tokens} new ones "
                f"exceed the context of {context}; shorten the prompt or lower max_new_tokens"
            )


def typed(name, text, default):
    """A parameter's text as the type of its default; an error says what was expected."""
    if isinstance(default, str):
        if name == "speed" and text not in pairs.SPEEDS:
            raise ValueError(f"parameter speed was {text!r}; it must be {', '.join(pairs.SPEEDS)}")
        return text
    value = _literal(text)
    if not _alike(value, default):
        raise ValueError(f"parameter {name} was {text!r}; it must be like its default {default!r}")
    expected = _expected(name, value)
    if expected:
        raise ValueError(f"parameter {name} was {text!r}; {expected}")
    return value


def _literal(text):
    """'3' -> 3, 'inf' -> float('inf'), '[1, 2]' -> [1, 2]; what is no literal stays text."""
    if text in ("inf", "-inf", "nan"):
        return float(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _alike(value, default):
    """Whether a value may stand for a default: a whole number may for a float, a bool may not."""
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):
        if not isinstance(value, (list, tuple)):
            return False
        return not default or all(_alike(item, default[0]) for item in value)
    return isinstance(value, type(default))


def _expected(name, value):
    """What a number has to be that is of the right type but no use; "" where it is one."""
    if name in OF_AN_INTERVAL and value < 2:
        return "an interval over problems needs at least 2 of them"
    if name in LEAST and value < LEAST[name]:
        return f"it must be at least {LEAST[name]}"
    many = value if isinstance(value, (list, tuple)) else [value]
    if not many:
        return "give at least one"
    if name in BLOCKS and not all(1 <= gamma <= LONGEST for gamma in many):
        return f"a block has 1 to {LONGEST} drafted tokens"
    if name == "quantile" and not 0 <= value <= 1:
        return "it must be a share, from 0 to 1"
    if any(isinstance(item, float) and math.isnan(item) for item in many):
        return "give a number"
    if name in ("temperature", "top_k", "top_p"):
        return _of_sampling(name, value)
    return ""


def _of_sampling(name, value):
    if math.isinf(value):
        return "it must be finite"
    try:
        Sampling(**{name: value})
    except ValueError as error:
        return str(error).split("; ")[-1]
    return ""
