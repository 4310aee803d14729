"""What notebooks publish for a reader beside their verdicts: numbers, and tables of text.

The generated pages print both and compute nothing. Every table is a DataFrame of strings.
`answers` and `times` are rows of experiments.run and experiments.timed.
"""

from functools import partial

import numpy as np
import pandas as pd

from helpers import rules, stats

GATE = "entropy gate, √"  # the family of rules whose place notebook 05 tests
RANDOM = "random gate, √"
CLIP = "clip at a fixed level"  # the least KL at a position for what it accepts there
OPTIMUM = "optimum (one price)"  # the least mean KL for what it accepts on average


def percent(interval):
    """'41.2 % [38.0, 44.4]'."""
    return interval.show(1, percent=True)


def pace(interval):
    """Tokens per second, without a decimal from 100 on: '672 [587, 784]', '18.4 [17.9, 18.9]'."""
    return interval.show(0 if interval.estimate >= 100 else 1)


def existing(numbers):
    """The numbers without None, and without intervals that have a reason in place of a number."""
    return {
        name: interval
        for name, interval in numbers.items()
        if interval is not None and not interval.missing
    }


def rescued_share(answers, method):
    """Share of a method's answers that hold a rescue: no more of them can differ from SP's.

    Returns Interval: exactly 0 for the strict rule, which cannot rescue; without a number where the
    engine counts no rescues (vLLM).
    """
    part = answers[answers.method == method]
    if (part.rule == repr(rules.STRICT)).all():
        return stats.Interval(0.0, 0.0, 0.0, part.problem_id.nunique())
    if part.rescued.isna().any():
        return stats.nothing("an uncounted share")
    return stats.mean(part.assign(rescue=(part.rescued > 0).astype(float)), "rescue", method)


# ---- notebook 03 -------------------------------------------------------------------------------


def by_gamma(curves):
    """Tokens per second of each method at each block length. curves: method -> [(γ, Interval)]."""
    lines = []
    for method, points in curves.items():
        lines.append({"rule": method} | {f"γ = {g}": pace(speed) for g, speed in points})
    return pd.DataFrame(lines)


def agreement(found):
    """Predicted and timed tokens per second of each method. found: of ledger.Predicted.against."""
    columns = {
        "method": found.method,
        "predicted tokens/s": [pace(value) for value in found.predicted],
        "timed tokens/s": [pace(value) for value in found.timed],
        "timed ÷ predicted": [value.show(2) for value in found.ratio],
        "time of its own steps ÷ time taken": [value.show(2) for value in found.of_forwards],
    }
    return pd.DataFrame(columns)


# ---- notebook 04 -------------------------------------------------------------------------------

FEW_FORKED = 5  # problems; the spread of fewer says nothing


def per_rescue(forked, column, at_most=np.inf):
    """Mean of a column of forks.follow over the rescues that a gate at `at_most` nats lets through.

    Every fork counts by its weight; problems are resampled. Where few problems differ from the
    rest, as of the placebo, resampling sees too little: then Tango's score bounds, at the number of
    problems that the weights are worth (Kish 1965). Returns Interval, without a number where fewer
    than FEW_FORKED problems have a graded fork; a column `ungraded` may say why.
    """
    kept = forked[forked.H_q <= at_most]
    sums = _fork_sums(kept, column)
    if len(sums) < FEW_FORKED:
        return _too_few(forked, column)
    found = stats.bootstrap(sums, lambda means: means[..., 0] / means[..., 1])
    commonest = (sums.total / sums.weight).round(9).value_counts().iloc[0]
    if len(sums) - commonest < min(stats.FEW_CHANGES, len(sums) / 2):
        found = _of_few(kept, column, found)
    return found.within(-1.0, 1.0)


def _of_few(forked, column, found):
    """The same estimate with Tango's score bounds. found: of the bootstrap."""
    gained, lost = (
        _fork_sums(forked.assign(part=(sign * forked[column]).clip(lower=0)), "part")
        for sign in (1, -1)
    )
    weight = gained.weight.to_numpy()
    size = weight.sum() ** 2 / (weight**2).sum()
    shares = [size * part.total.sum() / weight.sum() for part in (gained, lost)]
    low, high = stats.tango(*shares, size)
    return stats.Interval(found.estimate, float(low), float(high), found.n)


def per_answer(forked, column, expected, at_most=np.inf):
    """The same mean times the rescues that an answer is to expect. Returns Interval.

    expected: expected rescues per answer, a value per problem; resampled together with the forks.
    """
    sums = _fork_sums(forked[forked.H_q <= at_most], column)
    if len(sums) < FEW_FORKED:
        return _too_few(forked, column)
    table = sums.reindex(expected.index, fill_value=0.0).assign(expected=expected)
    return stats.bootstrap(table, lambda means: means[..., 2] * means[..., 0] / means[..., 1])


def safer_below(forked, column, tau):
    """Mean of a column over rescues above `tau` nats minus that over rescues below. Interval."""
    low = _fork_sums(forked[forked.H_q <= tau], column)
    high = _fork_sums(forked[forked.H_q > tau], column)
    if min(len(low), len(high)) < FEW_FORKED:
        return _too_few(forked, column)
    both = pd.concat([high, low], axis=1).fillna(0.0)

    def gap(means):
        return means[..., 0] / means[..., 1] - means[..., 2] / means[..., 3]

    return stats.widened(stats.bootstrap(both, gap))


def _too_few(forked, column):
    """What stands in place of a mean over forks: why none is graded, where `ungraded` tells."""
    if len(forked) and "ungraded" in forked and forked[column].isna().all():
        return stats.ungraded(forked)
    return stats.nothing("too few graded forks")


def _fork_sums(forked, column):
    """Per problem: the weighted sum of a column over its graded forks, and their weights."""
    graded = forked.dropna(subset=[column])
    columns = {"total": graded.weight * graded[column], "weight": graded.weight}
    return pd.DataFrame(columns).groupby(graded.problem_id).sum()


# ---- notebook 05 -------------------------------------------------------------------------------


def by_gate(answers, paces):
    """What each entropy gate, a method "τ = …", buys and costs against the strict rule.

    paces: ledger.Predicted of the same methods and of SP. The gates are read together, so the
    intervals of a column hold together, but for the last: each of its bounds is a certificate.
    """
    gates = [method for method in answers.method.unique() if method.startswith("τ = ")]
    saved = stats.family({gate: paces.calls_saved(gate, "SP") for gate in gates}, above=0)
    speed = stats.family({gate: paces.ratio(gate, "SP") for gate in gates}, above=1)
    change = stats.family(
        {gate: partial(stats.difference, answers, "score", gate, "SP") for gate in gates}, below=0
    )
    lines = []
    for gate in gates:
        shown = saved.intervals[gate].show(2, percent=True), speed.intervals[gate].show(3)
        differ = percent(rescued_share(answers, gate))
        lines.append([gate, *shown, change.intervals[gate].points(), differ])
    columns = [
        "gate, nats",
        "target calls saved",
        "tokens/s ÷ SP",
        "accuracy − SP",
        "answers that may differ from SP's",
    ]
    return pd.DataFrame(lines, columns=columns)


def at_equal_savings(matches, strict, kl, accuracy, run=None):
    """The entropy gate against each family of rules that saves as many target calls as it does.

    matches: family -> ledger.Match; strict: SP's target calls per token; kl: stats.Family of the
    log of the gate's KL ÷ the rival's, below 0; accuracy: stats.Family of the gate's accuracy less
    a rival's, of some rivals; run: family -> (knob, Interval of the share of SP's calls that it
    saves), of what no ledger can count.
    """
    lines = []
    for family, match in matches.items():
        row = [family, f"{match.knob:.4g}", _what_is_saved(match, strict)]
        row.append(f"{1e3 * match.counts.per_token('kl'):.3f}")
        if family == GATE:
            row += ["(itself)"] * 3
        elif family in kl.intervals:
            ratio = kl.intervals[family].through(np.exp).show(2)
            row += [ratio, kl.words[family]]
            gain = accuracy.intervals.get(family)
            row.append(gain.points() if gain else None)
        else:
            row += [None] * 3
        lines.append(row)
    for family, (knob, saved) in (run or {}).items():
        shown = f"{saved.show(2, percent=True)} (a direct run)"
        lines.append([family, f"{knob:.4g}", shown, *[None] * 4])
    columns = [
        "at equal savings, the entropy gate against",
        "knob",
        "target calls saved",
        "KL per 1,000 tokens, nats",
        "gate's KL ÷ rival's",
        "the gate costs less KL",
        "its accuracy − the rival's",
    ]
    return pd.DataFrame(lines, columns=columns)


def _what_is_saved(match, strict):
    """The share of SP's calls that a rule saves, and why it is not as much as was asked for.

    Short: pandas shows no more than 50 characters of a cell.
    """
    saved = f"{100 * match.saved / strict:.3f}"
    if match.reached:
        return f"{saved} %"
    if match.around:
        below, above = (f"{100 * value / strict:.3f}" for value in match.around)
        return f"{saved} % (in steps: {below} or {above} %)"
    most = "most" if match.saved < match.target_saved else "least"
    return f"{saved} % (not matched: at {most})"


# ---- notebook 09 -------------------------------------------------------------------------------


def best_elsewhere(rows, part, label):
    """Each part's answers by the method with the best mean score in the other parts.

    rows: answers of several methods; part: a value per row, such as a half of the problems. Scores
    are averaged within tasks first. Returns rows, all with the method `label`.
    """
    chosen = []
    for here in sorted(set(part)):
        others = rows[part != here]
        by_task = others.groupby(["method", "task"], sort=False).score.mean()
        best = by_task.groupby("method", sort=False).mean().fillna(0.0).idxmax()
        chosen.append(rows[(part == here) & (rows.method == best)])
    return pd.concat(chosen).assign(method=label)
