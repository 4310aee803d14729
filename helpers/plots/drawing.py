"""Drawn figures keep what they were drawn from, so that `make figures` needs no model.

`draw(plots.benchmark, "03_benchmark", pair_name, table=table)` writes the figure to
figures/PAIR/03_benchmark.png, and its arguments beside the results, in data/results/PAIR/figures/:
JSON, with tables as parquet.
"""

import json
from dataclasses import astuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import common, store
from helpers.plots import (
    across_tasks,
    blocks,
    costs,
    damage,
    entropy,
    first_picture,
    selective,
    speakers,
    speed,
    style,
    threshold,
)
from helpers.stats import Interval

# every file of figures, to find the function that a kept figure names
FAMILIES = (
    first_picture,
    entropy,
    selective,
    speed,
    costs,
    damage,
    threshold,
    blocks,
    across_tasks,
    speakers,
)


def draw(function, name, pair, **arguments):
    """Call a figure function, and save its figure and its arguments. Returns the figure.

    function: one of helpers/plots, or one of your own, which `redraw` cannot find again; name: of
    the file; pair: the pair's name. The arguments may hold tables, Intervals, dicts and lists.
    """
    folder = common.results(pair) / "figures"
    record = {"function": function.__name__}
    if _house_function(function.__name__) is not function:
        record["module"] = function.__module__
    record["arguments"] = {
        key: _encode(value, folder / f"{name}.{key}.parquet") for key, value in arguments.items()
    }
    store.write_text(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    return _save(function, name, pair, record, folder)


def redraw(file):
    """Draw one figure again from its kept arguments. Returns the figure.

    file: data/results/PAIR[/RUN]/figures/NAME.json. A figure whose function is not in
    helpers/plots is a ValueError.
    """
    record = json.loads(file.read_text(encoding="utf-8"))
    name = record["function"]
    if "module" in record:
        raise ValueError(
            f"{file} was drawn by {name}, which was defined in {record['module']} and is not in "
            "helpers/plots; execute its notebook again, or move the function there"
        )
    function = _house_function(name)
    if function is None:
        raise ValueError(
            f"{file} asks for plots.{name}, which is not there; execute its notebook again"
        )
    run = file.parents[1].relative_to(common.OUT / "data" / "results")
    return _save(function, file.stem, run, record, file.parent)


def _house_function(name):
    """The figure function of helpers/plots with that name, or None."""
    for family in FAMILIES:
        function = getattr(family, name, None)
        if getattr(function, "__module__", None) == family.__name__:
            return function
    return None


def _save(function, name, run, record, folder):
    """Draw from a record alone, so that drawing and redrawing give the same bytes."""
    arguments = {key: _decode(value, folder) for key, value in record["arguments"].items()}
    style.use()
    figure = function(**arguments)
    with store.replacing(common.figures(run) / f"{name}.png") as temporary:
        # without the name of the software, the same figure has the same bytes everywhere
        figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)
    return figure


# ---- arguments as JSON -------------------------------------------------------------------------


def _encode(value, file):
    """A JSON form of one argument; a table in it is written to `file`.

    Tables, intervals, arrays, dicts with any plain key, and lists of these. Floats keep six digits.
    """
    if isinstance(value, pd.DataFrame):
        store.write_table(file, value)
        return {"table": file.name}
    if isinstance(value, Interval):
        return {"interval": [_encode(part, file) for part in astuple(value)]}
    if isinstance(value, dict):
        return {"dict": [[_encode(key, file), _encode(v, file)] for key, v in value.items()]}
    if isinstance(value, (list, tuple, np.ndarray, pd.Series)):
        return [_encode(item, file) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _decode(value, folder):
    """The argument that `_encode` wrote; tables are read from `folder`."""
    if isinstance(value, list):
        return [_decode(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, body),) = value.items()
    if kind == "table":
        return pd.read_parquet(folder / body)
    if kind == "interval":
        return Interval(*body)
    return {_decode(key, folder): _decode(item, folder) for key, item in body}
