"""Notebook 05 killed at random moments, also while it writes: nothing is lost or mixed.

Two kills; SP_KILLS=20 makes twenty, and as many of notebook 02 (half an hour).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from conftest import ROOT

from helpers import experiments, store

KILLS = int(os.environ.get("SP_KILLS") or 2)
IN_A_ROW = 2  # kills of a run before it may complete: the second one meets a run that resumes
RUN = "killed"
SMALL = {
    "02": dict(n_problems=6, n_seeds=1, taus=[0.15], step_taus=[0.2, 0.6]),
    "05": dict(n_problems=12, n_seeds=1, n_timed=4, n_read=6, repeats=1, taus=[0.2, 1.0]),
}
KILLED = sorted(SMALL) if os.environ.get("SP_KILLS") else ["05"]  # it has a ledger and timings
CLOCK = {*experiments.TIMES, "tokens_per_s"}  # columns that no two runs have equal
BY_CLOCK = ("speed", "timed", "gates")  # in the names of such numbers and tables


def started(number, folder):
    """The runner in a process group of its own, writing into a folder."""
    parameters = []
    for name, value in SMALL[number].items():
        parameters += ["-p", name, str(value)]
    runner = [sys.executable, "-m", "helpers.make.notebooks", "--only", number, "--run", RUN]
    places = {"SP_OUT": str(folder), "SP_CACHE": str(folder / "cache"), "DEVICE": "cpu"}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [*runner, *parameters],
            cwd=ROOT,
            env=os.environ | places,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def family(runner):
    """A runner's kernel and what else it has started: they have groups of their own."""
    try:
        return psutil.Process(runner.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(runner, others):
    """Kill all of them at one moment, as a loss of power would."""
    for process in others:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()
    psutil.wait_procs(others, timeout=30)


def unfinished(folder):
    """Names of files that are being written, or were when their writer was killed."""
    names = {name for _, _, files in os.walk(folder) for name in files}
    return {name for name in names if store.TEMPORARY.fullmatch(name)}


def complete(number, folder):
    """Let a run end by itself. Returns its seconds from the moment at which it had its folder."""
    runner = started(number, folder)
    begin = has_its_folder(runner, folder)
    assert runner.wait(1800) == 0, (folder / "log").read_text(errors="replace")[-3000:]
    return time.monotonic() - begin


def has_its_folder(runner, folder):
    """The moment at which a run has its folder, after all the imports."""
    holder = folder / "data/results/pocket" / RUN / ".lock.json"
    while runner.poll() is None:
        held = store.read_json(holder)
        if held and held["pid"] == runner.pid:
            break
        time.sleep(0.02)
    return time.monotonic()


def published(folder):
    """What does not depend on the clock: {file: table or facts}."""
    found = {}
    results = folder / "data/results/pocket" / RUN
    for file in results.glob("*.parquet"):
        table = pd.read_parquet(file)
        found[file.name] = table.drop(columns=CLOCK & set(table.columns))
    for file in results.glob("0?.json"):
        facts = json.loads(file.read_text(encoding="utf-8"))
        for group in ("numbers", "tables"):
            for name in list(facts[group]):
                if any(word in name for word in BY_CLOCK):
                    del facts[group][name]
        found[file.name] = {group: facts[group] for group in ("numbers", "tables")}
    assert len(found) >= 2
    return found


def differing(one, other):
    """Names of what two runs have published differently."""
    names = {name for name in one.keys() | other.keys() if name not in one or name not in other}
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        same = a.equals(b) if isinstance(a, pd.DataFrame) else json.dumps(a) == json.dumps(b)
        if not same:
            names.add(name)
    return names


@pytest.mark.minutes(20)
@pytest.mark.parametrize("number", KILLED)
def test_a_killed_run_completes_with_equal_tables(number, tmp_path):
    """Every other kill waits for a file that is being written."""
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    seconds = complete(number, undisturbed)
    expected = published(undisturbed)
    draw = random.Random(number)
    kills = while_writing = 0
    while kills < KILLS or not while_writing:
        folder = tmp_path / "disturbed"
        folder.mkdir()
        for turn in range(IN_A_ROW):
            left = unfinished(folder)
            runner = started(number, folder)
            # A run that resumes has less to do.
            moment = has_its_folder(runner, folder) + draw.random() * seconds / (turn + 1)
            while runner.poll() is None and time.monotonic() < moment:
                time.sleep(0.01)
            others = family(runner)
            while kills % 2 and runner.poll() is None and unfinished(folder) <= left:
                others = others or family(runner)
            if runner.poll() is None:
                kill(runner, others)
                kills += 1
                while_writing += not unfinished(folder) <= left
        complete(number, folder)
        assert differing(published(folder), expected) == set()
        assert not unfinished(folder / "data") and not unfinished(folder / "figures")
        shutil.rmtree(folder)
    print(f"\n{number}: {kills} kills, {while_writing} of them while a file was being written")


def test_a_difference_would_be_seen():
    one = {"a.parquet": pd.DataFrame({"x": [1.0, None]}), "a.json": {"numbers": {"n": 1.0}}}
    assert differing(one, one) == set()
    other = one | {"a.parquet": pd.DataFrame({"x": [1.0 + 1e-15, None]})}
    assert differing(one, other) == {"a.parquet"}
    other = {"a.parquet": one["a.parquet"], "a.json": {"numbers": {"n": 2.0}}, "b": {}}
    assert differing(one, other) == {"a.json", "b"}
