"""What notebooks publish for a reader beside their verdicts: numbers, and tables of text.

The generated pages print both and compute nothing. Every table is a DataFrame of strings.
`answers` and `times` are rows of experiments.run and experiments.timed.
"""

import numpy as np
import pandas as pd

from helpers import stats

GATE = "entropy gate, √"  # the family of rules whose place notebook 05 tests
CLIP = "KL-optimal clip"  # the family with the least KL at a position for what it accepts there
CONTROL = "control"  # the setting whose acceptance every family is matched to


def percent(interval):
    """'41.2 % [38.0, 44.4]'."""
    return interval.show(1, percent=True)


def existing(numbers):
    """The numbers without None, and without intervals that have a reason in place of a number."""
    return {
        name: interval
        for name, interval in numbers.items()
        if interval is not None and not interval.missing
    }


def rescued_share(answers, method):
    """Share of a method's answers that hold a rescue: no more of them can differ from SP's.

    Returns Interval; without a number where the engine counts no rescues (vLLM).
    """
    part = answers[answers.method == method]
    if part.rescued.isna().any():
        return stats.nothing("an uncounted share")
    return stats.mean(part.assign(rescue=(part.rescued > 0).astype(float)), "rescue", method)


# ---- notebook 03 -------------------------------------------------------------------------------


def by_gamma(curves):
    """Tokens per second of each method at each block length. curves: method -> [(γ, Interval)]."""
    lines = []
    for method, points in curves.items():
        lines.append({"rule": method} | {f"γ = {g}": speed.show(1) for g, speed in points})
    return pd.DataFrame(lines)


def agreement(found):
    """Predicted and timed tokens per second of each method. found: of ledger.Predicted.against."""
    columns = {
        "method": found.method,
        "predicted tokens/s": [value.show(1) for value in found.predicted],
        "timed tokens/s": [value.show(1) for value in found.timed],
        "timed ÷ predicted": [value.show(2) for value in found.ratio],
        "share of the time that is forwards": [value.show(2) for value in found.of_forwards],
    }
    return pd.DataFrame(columns)


# ---- notebook 04 -------------------------------------------------------------------------------

FEW_FORKED = 5  # problems; the spread of fewer says nothing


def per_rescue(forked, column, at_most=np.inf):
    """Mean of a column of forks.follow over the rescues that a gate at `at_most` nats lets through.

    Every fork counts by its weight; problems are resampled. Returns Interval, without a number
    where fewer than FEW_FORKED problems have a graded fork.
    """
    sums = _fork_sums(forked[forked.H_q <= at_most], column)
    if len(sums) < FEW_FORKED:
        return stats.nothing("too few graded forks")
    mean = stats.bootstrap(sums, lambda means: means[..., 0] / means[..., 1])
    return stats.widened(mean).within(-1.0, 1.0)


def per_answer(forked, column, expected, at_most=np.inf):
    """The same mean times the rescues that an answer is to expect. Returns Interval.

    expected: expected rescues per answer, a value per problem; resampled together with the forks.
    """
    sums = _fork_sums(forked[forked.H_q <= at_most], column)
    if len(sums) < FEW_FORKED:
        return stats.nothing("too few graded forks")
    table = sums.reindex(expected.index, fill_value=0.0).assign(expected=expected)
    return stats.bootstrap(table, lambda means: means[..., 2] * means[..., 0] / means[..., 1])


def safer_below(forked, column, tau):
    """Mean of a column over rescues above `tau` nats minus that over rescues below. Interval."""
    low = _fork_sums(forked[forked.H_q <= tau], column)
    high = _fork_sums(forked[forked.H_q > tau], column)
    if min(len(low), len(high)) < FEW_FORKED:
        return stats.nothing("too few graded forks")
    both = pd.concat([high, low], axis=1).fillna(0.0)

    def gap(means):
        return means[..., 0] / means[..., 1] - means[..., 2] / means[..., 3]

    return stats.widened(stats.bootstrap(both, gap))


def _fork_sums(forked, column):
    """Per problem: the weighted sum of a column over its graded forks, and their weights."""
    graded = forked.dropna(subset=[column])
    columns = {"total": graded.weight * graded[column], "weight": graded.weight}
    return pd.DataFrame(columns).groupby(graded.problem_id).sum()


# ---- notebook 05 -------------------------------------------------------------------------------


def by_gate(answers, times):
    """What each entropy gate, a method "τ = …", buys and costs against the strict rule."""
    lines = []
    for gate in answers.method.unique():
        if gate.startswith("τ = "):
            speed = stats.speed_up(times, gate, "SP").show(2)
            accuracy = stats.difference(answers, "score", gate, "SP")
            lines.append([gate, speed, percent(accuracy), percent(rescued_share(answers, gate))])
    columns = ["gate, nats", "tokens/s ÷ SP", "accuracy − SP", "answers that may differ from SP's"]
    return pd.DataFrame(lines, columns=columns)


def at_equal_acceptance(answers, kl_ratios):
    """The entropy gate against each family of rules, all accepting about as much as each other.

    answers: of one method per family, under its name; kl_ratios: family -> Interval, as below.
    """
    lines = []
    for family, kl_ratio in kl_ratios.items():
        accepted = stats.ratio(answers, "accepted", "drafted", family)
        if family == GATE:
            against = "(itself)"
        else:
            against = percent(stats.difference(answers, "score", GATE, family))
        lines.append([family, percent(accepted), against, kl_ratio.show(2)])
    columns = [
        "at equal acceptance, the entropy gate against",
        "acceptance reached",
        "its accuracy − the rival's",
        "rival's KL ÷ the clip's",
    ]
    return pd.DataFrame(lines, columns=columns)


def kl_ratios(read):
    """KL of each family of rules at the acceptance of the control, as a multiple of the clip's.

    read: probes.measure_rules of rules named "FAMILY|KNOB", several knobs each, and of CONTROL.
    Between two knobs acceptance and KL are taken as linear. Returns {family: Interval}.
    """
    settings = {}
    for rule in read.rule.unique():
        if rule != CONTROL:
            settings.setdefault(rule.rsplit("|", 1)[0], []).append(rule)
    sums = read.assign(one=1.0).pivot_table(
        index="problem_id", columns="rule", values=["accept", "kl", "one"], aggfunc="sum"
    )
    column = {name: i for i, name in enumerate(sums.columns)}

    def per_position(means, kind, names):
        total = means[..., [column[kind, name] for name in names]]
        return total / means[..., [column["one", name] for name in names]]

    def kl_at_control(means, family):
        accept = per_position(means, "accept", settings[family])
        kl = per_position(means, "kl", settings[family])
        return _interpolated(per_position(means, "accept", [CONTROL]), accept, kl)

    def over_clip(means, family):
        least = kl_at_control(means, CLIP)
        # both are 0 at temperature 0, where no rule relaxes anything
        return kl_at_control(means, family) / np.maximum(least, 1e-9)

    return {
        family: stats.bootstrap(sums, lambda means, f=family: over_clip(means, f), n_boot=400)
        for family in settings
    }


def _interpolated(at, x, y):
    """np.interp row by row, x in any order. at: (..., 1); x, y: (..., k). Returns (...)."""
    order = np.lexsort((y, x))
    x = np.take_along_axis(x, order, -1).reshape(-1, x.shape[-1])
    y = np.take_along_axis(y, order, -1).reshape(x.shape)
    values = [np.interp(a, *line) for a, *line in zip(at.reshape(-1), x, y)]
    return np.reshape(values, at.shape[:-1])


# ---- notebook 08 -------------------------------------------------------------------------------


def by_task(answers, times):
    """What speculation and relaxing it buy on each task, the task with most to gain first."""
    tau = times[times.method == "SP_entropy"].tau.iloc[0]
    own_tau = times[times.method == "SP_entropy own τ"].groupby("task").tau.first()
    gains = {task: stats.speed_up(part, "SP", "AS_large") for task, part in times.groupby("task")}
    lines = []
    for task in sorted(gains, key=lambda task: -gains[task].estimate):
        part = answers[answers.task == task]
        accepted = stats.ratio(part, "accepted", "drafted", "SP")
        relaxed = stats.speed_up(times[times.task == task], "SP_entropy", "AS_large")
        if part.score.isna().any():
            change = stats.NO_JUDGE
        else:
            change = stats.difference(part, "score", "SP_entropy", "SP")
        lines.append(
            [
                task,
                accepted.show(0, percent=True),
                gains[task].show(2),
                relaxed.show(2),
                percent(change),
                f"{own_tau[task]:.2f}",
            ]
        )
    columns = [
        "task",
        "SP accepts",
        "SP ÷ AS_large",
        f"SP_entropy (τ = {tau:g}) ÷ AS_large",
        "score, SP_entropy − SP",
        "the task's own τ, nats",
    ]
    return pd.DataFrame(lines, columns=columns)


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
