"""How far a number moves from one run of a notebook to the next: the runs on record, side by side.

An interval over problems says what other problems would give on the machine as it was. It does not
say what the same problems give on another day, when other programs share the memory and the caches.
So a notebook publishes its speeds together with those of its earlier runs.
"""

from helpers import common, store

KEPT = 10  # runs


def with_earlier(pair, notebook, numbers):
    """Each number of this run after those of the runs on record, for store.publish_facts(runs=…).

    numbers: name -> stats.Interval. Returns name -> [[estimate, low, high], …], oldest first. A
    record from before this was kept counts as one run.
    """
    record = store.read_json(common.results(pair) / f"{notebook}.json") or {}
    runs = {}
    for name, now in numbers.items():
        earlier = record.get("runs", {}).get(name)
        if earlier is None:
            last = record.get("numbers", {}).get(name)
            earlier = [[last[part] for part in ("estimate", "low", "high")]] if last else []
        values = [] if now.missing else [[now.estimate, now.low, now.high]]
        runs[name] = [*earlier, *values][-KEPT:]
    return runs


def in_words(name, runs, now, digits=2):
    """What the earlier runs on record say beside this one's interval `now`, in a sentence.

    runs: [[estimate, low, high], …] of `with_earlier`.
    """
    earlier = [estimate for estimate, _, _ in (runs if now.missing else runs[:-1])]
    if not earlier:
        return f"{name}: no earlier run is on record, so how far runs differ is not known."
    found = ", ".join(f"{estimate:.{digits}f}" for estimate in earlier)
    if now.missing:
        return f"{name} in earlier runs on record: {found}."
    inside = sum(now.low <= estimate <= now.high for estimate in earlier)
    interval = f"this run's interval [{now.low:.{digits}f}, {now.high:.{digits}f}]"
    if inside == len(earlier):
        judged = f"inside {interval}"
    else:
        judged = f"{inside} of {len(earlier)} inside {interval}, which knows its own run alone"
    return f"{name} in earlier runs on record: {found}; {judged}."


def spread(runs):
    """The least and the largest estimate of the runs on record; None for fewer than two."""
    if len(runs) < 2:
        return None
    estimates = [estimate for estimate, _, _ in runs]
    return min(estimates), max(estimates)
