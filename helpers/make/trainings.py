"""How much hangs on one training: the pocket pair from three seeds, side by side (make trainings).

    python -m helpers.make.trainings

Draft and target are trained from two more seeds (helpers/make/pocket.py). Notebooks 01 to 07 are
executed with the plans' parameters on all three pairs, away from the published results, so that
code and machine are the same for all three; what is there already is not done again (after a change
of the code remove data/cache/trainings). Their numbers are kept in data/results/trainings.json, and
the page of results shows those named here, with the record's "note", if somebody has written one.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pandas as pd

from helpers import common, store
from helpers.make import summary
from helpers.stats import Interval

PAIRS = ("pocket", "pocket-21", "pocket-22")  # the shipped one, and one from each other seed
KEYS = tuple(f"{number:02d}" for number in range(1, 8))
FOLDER = common.CACHE / "trainings"  # what SP_OUT is for these executions
RECORD = "trainings.json"
MODULE = (sys.executable, "-m")


@dataclass(frozen=True)
class Headline:
    """A number of a notebook's record, what it is in words, and how it is written."""

    key: str
    name: str
    what: str
    unit: str = "ratio"  # or "share", "points"

    def show(self, interval):
        """The number with its interval, as text."""
        if self.unit == "points":
            return interval.points()
        return interval.show(3 if self.unit == "ratio" else 1, percent=self.unit == "share")


# The effects that the notebooks report first; all their other numbers are in the record.
HEADLINES = (
    Headline("01", "entropy_ratio", "mean entropy, wrong ÷ right answers"),
    Headline("01", "auroc_entropy", "AUROC of entropy for rejected tokens"),
    Headline("02", "target_share", "tokens by the target", "share"),
    Headline("02", "accuracy_selective", "accuracy of Selective", "share"),
    Headline("02", "over_random", "its accuracy − that of random positions", "points"),
    Headline("03", "sp_over_large", "tokens/s, SP ÷ AS_large"),
    Headline("03", "entropy_over_sp", "tokens/s, SP_entropy ÷ SP"),
    Headline("03", "accuracy_change", "accuracy, SP_entropy − SP", "points"),
    Headline("04", "calls_saved", "target calls saved", "share"),
    Headline("04", "loss_low", "lost by one rescue at low entropy", "points"),
    Headline("04", "loss_high", "lost by one rescue above", "points"),
    Headline("05", "best_speed", "tokens/s at the chosen τ ÷ SP"),
    Headline("05", "over_random", "accuracy at equal savings − random gate", "points"),
    Headline("05", "kl_over_random", "KL at equal savings ÷ random gate"),
    Headline("06", "gain_SP", "tokens/s, entropy stop ÷ best fixed γ, SP"),
    Headline("06", "gain_SP_entropy", "the same, SP_entropy"),
    Headline("07", "gain", "tokens/s, SP_aggressive ÷ SP"),
    Headline("07", "accuracy_change", "accuracy, SP_aggressive − SP", "points"),
    Headline("07", "further", "tokens/s at the next γ ÷ at SP's best"),
)


# ---- the runs ----------------------------------------------------------------------------------


def train(pair):
    """Train a pair of another seed than the shipped one's, unless it is there (make pocket)."""
    _, _, seed = pair.partition("-")
    if not seed:
        return
    command = [*MODULE, "helpers.make.pocket", "--seed", seed]
    if subprocess.run(command, cwd=common.ROOT).returncode:
        raise RuntimeError(f"the pair {pair} could not be trained; `make trainings` goes on there")


def execute(pair, folder=FOLDER):
    """Run the notebooks on a pair, those that have published nothing in `folder` yet.

    Errors: RuntimeError where a notebook fails.
    """
    missing = [key for key in KEYS if not _record(folder, pair, key).exists()]
    if not missing:
        return
    command = [*MODULE, "helpers.make.notebooks", "--planned", "--pair", pair]
    done = subprocess.run(
        [*command, "--only", " ".join(missing)],
        cwd=common.ROOT,
        env={**os.environ, "SP_OUT": str(folder)},
    )
    if done.returncode:
        raise RuntimeError(
            f"a notebook failed on {pair}; finished ones are kept in {folder}, and "
            "`make trainings` goes on from there"
        )


def _record(folder, pair, key):
    return folder / "data" / "results" / pair / f"{key}.json"


def gather(folder=FOLDER):
    """What the notebooks found on every pair: {pair: {"01": {checks, numbers}, ...}}, and times."""
    found = {}
    for pair in PAIRS:
        found[pair] = {}
        for key in KEYS:
            facts = json.loads(_record(folder, pair, key).read_text(encoding="utf-8"))
            kept = ("verdict", "checks", "registered", "numbers", "task", "n")
            found[pair][key] = {name: facts[name] for name in kept}
    times = _record(folder, PAIRS[0], KEYS[0]).with_name("times.json")
    known = list(json.loads(times.read_text(encoding="utf-8")).values())
    last = max(known, key=lambda execution: execution["date"])
    return {"date": last["date"], "cores": last["cores"], "pairs": found}


# ---- the table ---------------------------------------------------------------------------------


def comparison(record):
    """The headline numbers of the three pairs in columns, and how far their estimates spread."""
    rows = []
    for line in HEADLINES:
        found = [known[line.key]["numbers"].get(line.name) for known in record["pairs"].values()]
        intervals = [Interval(**numbers) if numbers else None for numbers in found]
        row = {"notebook": line.key, "number": line.what}
        for pair, interval in zip(record["pairs"], intervals):
            row[pair] = line.show(interval) if interval else summary.DASH
        row["from … to"] = _spread(line, intervals)
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(line, intervals):
    """The smallest and the largest estimate, in the line's unit; – where one is missing."""
    if any(interval is None or interval.missing for interval in intervals):
        return summary.DASH
    ends = [bound(interval.estimate for interval in intervals) for bound in (min, max)]
    shown = [line.show(Interval(end, end, end, n=1)).split(" [")[0] for end in ends]
    return " … ".join(shown)


def agreement(record):
    """On how many checks all three pairs have the same word, and which are the others."""
    known = list(record["pairs"].values())
    checks = [(key, check) for key in KEYS for check in known[0][key]["checks"]]
    words = {check: [pair[check[0]]["checks"].get(check[1]) for pair in known] for check in checks}
    others = [
        f"{key}, {check}: {', '.join(found)}"
        for (key, check), found in words.items()
        if len(set(found)) > 1
    ]
    same = f"{len(checks) - len(others)} of {len(checks)} checks have the same word on all three."
    return f"{same} The others: {'; '.join(others)}." if others else same


def page():
    """The part of the page of results: the table and the words beneath it."""
    record = store.read_json(common.OUT / "data" / "results" / RECORD)
    if not record:
        return "`make trainings` has not been run yet."
    first = next(iter(record["pairs"].values()))["03"]
    made = f"Executed on {record['date']} on {record['cores']} CPU cores"
    sizes = f"{made}, {first['task']}, {first['n']} problems. {record.get('note', '')}".strip()
    return summary.paragraphs(summary.markdown(comparison(record)), f"{agreement(record)} {sizes}")


def main(arguments=None):
    argparse.ArgumentParser(
        prog="python -m helpers.make.trainings",
        description="Notebooks 01 to 07 on the pocket pair from three seeds, side by side.",
    ).parse_args(arguments)
    for pair in PAIRS:
        train(pair)
        execute(pair)
    text = json.dumps(gather(), indent=1, ensure_ascii=False) + "\n"
    store.write_text(common.OUT / "data" / "results" / RECORD, text)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished work is kept and `make trainings` goes on from there"
        ) from None
