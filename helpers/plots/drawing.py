"""Drawn figures keep what they were drawn from, so that `make figures` redraws them all without a model.

`draw(plots.benchmark, "03_benchmark", pair_name, table=table)` writes figures/PAIR/03_benchmark.png and the
arguments beside the results, in data/results/PAIR/figures/: JSON, with tables as parquet.
"""

import json
from dataclasses import astuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import common
from helpers.plots import (
    across_tasks,
    blocks,
    damage,
    entropy,
    selective,
    speakers,
    speed,
    style,
    threshold,
)
from helpers.stats import Interval

# every file of figures, to find the function that a kept figure names
FAMILIES = (entropy, selective, speed, damage, threshold, blocks, across_tasks, speakers)


def draw(function, name, pair, **arguments):
    """Call a function of helpers/plots, save its figure and its arguments. Returns the figure."""
    folder = common.results(pair) / "figures"
    folder.mkdir(exist_ok=True)
    kept = {k: _encode(v, folder / f"{name}.{k}.parquet") for k, v in arguments.items()}
    (folder / f"{name}.json").write_text(
        json.dumps({"function": function.__name__, "arguments": kept}, indent=1) + "\n"
    )
    return _save(
        function, name, pair, {k: _decode(v, folder) for k, v in kept.items()}
    )  # as redraw will, to the pixel


def redraw(file):
    """Draw one figure again from its kept arguments. file: data/results/PAIR[/RUN]/figures/NAME.json."""
    record = json.loads(file.read_text())
    name = record["function"]
    function = next((getattr(f, name) for f in FAMILIES if hasattr(f, name)), None)
    if function is None:
        raise ValueError(
            f"{file} asks for plots.{record['function']}, which is not there; execute its notebook again"
        )
    return _save(
        function,
        file.stem,
        file.parents[1].relative_to((common.OUT / "data" / "results")),
        {k: _decode(v, file.parent) for k, v in record["arguments"].items()},
    )


def _save(function, name, pair, arguments):
    style.use()
    figure = function(**arguments)
    figure.savefig(
        common.figures(pair) / f"{name}.png", metadata={"Software": None}
    )  # no dates: same figure, same bytes
    plt.close(figure)
    return figure


def _encode(value, file):
    """A JSON form of tables, intervals, arrays, dicts with any plain key, and lists of these."""
    if isinstance(value, pd.DataFrame):
        value.to_parquet(file, index=False)
        return {"table": file.name}
    if isinstance(value, Interval):
        return {"interval": [_encode(v, file) for v in astuple(value)]}
    if isinstance(value, dict):
        return {"dict": [[_encode(k, file), _encode(v, file)] for k, v in value.items()]}
    if isinstance(value, (list, tuple, np.ndarray, pd.Series)):
        return [_encode(v, file) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _decode(value, folder):
    if isinstance(value, list):
        return [_decode(v, folder) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, body),) = value.items()
    if kind == "table":
        return pd.read_parquet(folder / body)
    if kind == "interval":
        return Interval(*body)
    return {_decode(k, folder): _decode(v, folder) for k, v in body}
