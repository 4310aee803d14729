"""Answers that are kept one by one: nothing that was decoded before is decoded again.

Many notebooks ask for the same answers of a method, each among others. An answer does not depend on
the rows beside which it is decoded (in int8 to the bit, in floating point but for rounding), so it
may come from any batch: a method in one setting has a folder in the cache, with a file for each
batch.
"""

import pandas as pd

from helpers import store


class Answers:
    """The kept answers of one method in one setting to some jobs [(seed, problem)].

    folder: where its batches lie. trace: whether an answer counts only with its trace.
    grade_anew(rows, jobs): a batch's rows with today's grades, or the same rows where these are.
    """

    def __init__(self, folder, jobs, trace, grade_anew):
        self.folder = folder
        self.jobs = jobs
        self.keys = [store.fingerprint(job) for job in jobs]
        self.trace = trace
        self.rows = []
        self.traces = []
        self._found = set()
        for file in sorted(folder.glob("*.pkl")):
            batch = store.load(file)
            if batch and (batch["trace"] is not None or not trace):
                self._take(file, batch, grade_anew)

    def _take(self, file, batch, grade_anew):
        """Take from a batch the answers that are asked for and were not found yet."""
        own = set(self.keys) - self._found
        if own.isdisjoint(batch["rows"].job):
            return
        rows = grade_anew(batch["rows"], batch["jobs"])
        if rows is not batch["rows"]:
            store.keep(file, batch | {"rows": rows})
        self._add(rows[rows.job.isin(own)], batch["trace"])

    def _add(self, rows, trace):
        self._found |= set(rows.job)
        self.rows.append(rows)
        if self.trace:
            self.traces.append(trace[trace.job.isin(rows.job)])

    def missing(self):
        """The jobs without an answer, in order; one that is asked for twice is there once."""
        known = set(self._found)
        missing = []
        for key, job in zip(self.keys, self.jobs):
            if key not in known:
                known.add(key)
                missing.append(job)
        return missing

    def keep(self, jobs, rows, trace):
        """Keep a batch: rows in the order of its jobs, and the rows' traces in the same order.

        rows: DataFrame; trace: one DataFrame for each row, or None.
        """
        keys = [store.fingerprint(job) for job in jobs]
        rows = rows.assign(job=keys)
        if trace is not None:
            parts = [part.assign(job=key) for part, key in zip(trace, keys)]
            trace = pd.concat(parts, ignore_index=True).astype({"job": "category"})
        file = self.folder / f"{store.fingerprint(keys, trace is not None)}.pkl"
        store.keep(file, {"jobs": jobs, "rows": rows, "trace": trace})
        self._add(rows, trace)

    def in_order(self):
        """(rows, trace) of all jobs, in the order of the jobs; trace is None where none is asked.

        Errors: KeyError where one is missing.
        """
        rows = pd.concat(self.rows).set_index("job").loc[self.keys].reset_index(drop=True)
        if not self.trace:
            return rows, None
        steps = pd.concat([part.astype({"job": str}) for part in self.traces])
        order = pd.DataFrame({"job": self.keys})
        return rows, order.merge(steps, on="job").drop(columns="job")
