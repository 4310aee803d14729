"""Draft lengths judged: counts of direct runs, shares of an oracle's gain, and costs that decide.

What the ledger cannot count, because it learns while it writes or writes other texts, is run; its
counts then stand in the same frame (`from_runs`) and take the same forward times.
"""

import numpy as np
import pandas as pd

from helpers import stats
from helpers.ledger import speeds
from helpers.ledger.programme import Counts

# ---- counts of direct runs ---------------------------------------------------------------------


def from_runs(rows, trace):
    """Counts of one method's direct runs, where the ledger's would be expected ones.

    rows, trace: of one method, from experiments.run(trace=True); the answers keep their order.
    Speculative runs: rounds are taken to have drafted an answer's mean, which is exact where
    verifying costs a constant more per token. Selective and one model alone: a call of the target
    reads all tokens since its last one. tv and kl are not counted (NaN).
    """
    trace = trace[trace.method.isin(rows.method)]
    spoken = trace.source == "target"
    is_selective = not rows.drafted.any()
    if is_selective:
        widths = _gaps(rows, trace[spoken])
    else:
        widths = _around(rows.drafted / rows.target_calls, rows.target_calls)
    whole = trace[trace.source == "bonus"].groupby(["problem_id", "seed"]).size()
    answers = pd.MultiIndex.from_frame(rows[["problem_id", "seed"]])
    frame = rows[["problem_id", "seed"]].assign(
        rounds=rows.target_calls.astype(float),
        drafted=(rows.draft_calls if is_selective else rows.drafted).astype(float),
        accepted=rows.accepted.astype(float),
        emitted=rows.n_tokens.astype(float),
        full=whole.reindex(answers, fill_value=0).to_numpy(float),
        tv=np.nan,
        kl=np.nan,
    )
    return Counts(frame.reset_index(drop=True), widths, widths)


def _around(mean, rounds):
    """`rounds` split between the whole numbers below and above a mean, (answers, most + 1)."""
    mean = mean.to_numpy(float)
    below = np.floor(mean).astype(int)
    widths = np.zeros((len(mean), below.max() + 2))
    answer = np.arange(len(mean))
    widths[answer, below] = (1 - (mean - below)) * rounds
    widths[answer, below + 1] = (mean - below) * rounds
    return widths


def _gaps(rows, by_target):
    """Calls of the target by how many tokens beside the last it reads, (answers, most + 1)."""
    widths = np.zeros((len(rows), int(rows.n_tokens.max()) + 1))
    parts = dict(list(by_target.groupby(["problem_id", "seed"]).position))
    for answer, key in enumerate(zip(rows.problem_id, rows.seed)):
        if key in parts:
            read = np.diff(np.sort(parts[key]), prepend=-1)
            np.add.at(widths[answer], read - 1, 1)
    return widths


# ---- against an oracle, on other machines, against runs ----------------------------------------


def share_of_gain(counts, fixed, oracle, forward):
    """What part of the oracle's gain over a fixed γ another policy reaches, in tokens per second.

    1 is the oracle, 0 the fixed γ, negative what is slower. All three of the same answers. Returns
    Interval, or why there is none.
    """
    columns = []
    for one in (counts, fixed, oracle):
        columns += [one.frame.emitted, speeds.seconds(one, forward)]
    columns = pd.concat([pd.Series(np.asarray(column)) for column in columns], axis=1)
    table = columns.groupby(counts.frame.problem_id.to_numpy()).sum()

    def share(means):
        per_second = means[..., 0::2] / means[..., 1::2]
        gain = per_second[..., 2] - per_second[..., 1]
        # a draw of problems in which the oracle gains nothing says nothing of shares
        gain = np.where(gain > 0, gain, np.nan)
        return (per_second[..., 0] - per_second[..., 1]) / gain

    if np.isnan(share(table.to_numpy().mean(0))):
        return stats.nothing("nothing to gain")
    return stats.bootstrap(table, share)


def fastest(settings, counted, forward):
    """The setting with the most tokens per second. counted: setting -> Counts."""

    def per_second(setting):
        counts = counted(setting)
        return counts.total("emitted") / speeds.seconds(counts, forward).sum()

    return max(settings, key=per_second)


def over_machines(rivals, baseline, tuning, reported, machines):
    """Speed against a baseline on many machines, every method at its best setting there.

    rivals: label -> settings; baseline: label, settings, and where they are chosen (setting ->
    Counts). tuning, reported: setting -> Counts, of the answers on which rivals' settings are
    chosen and of those that are reported. machines: x -> forward times. Returns a DataFrame that
    `ledger.region` reads: x, method, baseline, ratio, low, high.
    """
    name, known, chosen_on = baseline
    lines = []
    for x, forward in machines.items():
        theirs = reported(fastest(known, chosen_on, forward))
        for label, settings in rivals.items():
            mine = reported(fastest(settings, tuning, forward))
            line = {"x": x, "method": label, "baseline": name}
            lines.append(line | _as_columns(speeds.speed_ratio(mine, theirs, forward)))
    return pd.DataFrame(lines)


def next_step(settings, own, tuning, reported, machines):
    """What a longer block brings past the γ that is best for a rule: the ceiling, on many machines.

    settings: of that rule, γ ascending; own: of another rule, in the same order, whose speed one
    step past the best of `settings` is divided by its speed there. The rest is as above. Machines
    where the longest is the best have no row. Returns a DataFrame: x, ratio, low, high.
    """
    lines = []
    for x, forward in machines.items():
        best = settings.index(fastest(settings, tuning, forward))
        if best + 1 < len(own):
            here, further = (reported(setting) for setting in own[best : best + 2])
            lines.append({"x": x} | _as_columns(speeds.speed_ratio(further, here, forward)))
    return pd.DataFrame(lines)


def _as_columns(ratio):
    return {"ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}


def direct_over_expected(runs, counts):
    """Tokens per round of direct runs ÷ those of a ledger, on the same problems. Returns Interval.

    1 where the ledger predicts them. runs: of `from_runs`.
    """
    sums = [one.frame.groupby("problem_id")[["emitted", "rounds"]].sum() for one in (runs, counts)]
    return stats.bootstrap(pd.concat(sums, axis=1), _ratio_of_ratios)


def timed_over_predicted(times, label, counts, forward):
    """Tokens per second of timed answers ÷ those that counts predict for their problems. Interval.

    times: experiments.timed; counts: of answers to at least these problems.
    """
    own = times[times.method == label]
    timed = own.groupby("problem_id")[["n_tokens", "seconds"]].sum()
    predicted = counts.frame.assign(predicted_s=speeds.seconds(counts, forward))
    predicted = predicted.groupby("problem_id")[["emitted", "predicted_s"]].sum()
    return stats.bootstrap(timed.join(predicted), _ratio_of_ratios)


def _ratio_of_ratios(means):
    """(first column ÷ second) ÷ (third ÷ fourth)."""
    return (means[..., 0] / means[..., 1]) / (means[..., 2] / means[..., 3])
