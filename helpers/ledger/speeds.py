"""From expected counts to tokens per second, on this machine or one given by two numbers.

Every Interval is a bootstrap over problems, paired where two methods are compared. The times of the
forwards are taken as known.
"""

import numpy as np
import pandas as pd

from helpers import stats
from helpers.ledger.programme import Counts


def alone(ledger, model):
    """Counts of one model alone, "target" (AS_large) or "draft" (AS_small), on the same answers."""
    if model not in ("draft", "target"):
        raise ValueError(f"model was {model!r}; choose draft or target")
    tokens = ledger.lengths.astype(float)
    none = np.zeros_like(tokens)
    is_target = model == "target"
    frame = ledger.answers[["problem_id", "seed"]].assign(
        rounds=tokens if is_target else none,
        drafted=none if is_target else tokens,
        accepted=none,
        emitted=tokens,
        full=none,
        tv=none,
        kl=none,
    )
    rounds = np.array(frame.rounds)[:, None]
    return Counts(frame, rounds, rounds)


def machine(c, slope=0.0):
    """Forward times of a machine on which a token of the draft costs `c` of the target's, in units
    of one forward of the target: verifying w tokens takes 1 + slope (w - 1).

    Returns what `experiments.forward_times` does; tokens per second become multiples of AS_large.
    """
    if c < 0 or slope < 0:
        raise ValueError(f"c was {c} and slope {slope}; neither can be negative")
    rows = []
    for width in (1, 2):
        rows.append({"model": "draft", "width": width, "seconds": float(c)})
        rows.append({"model": "target", "width": width, "seconds": 1 + slope * (width - 1)})
    return pd.DataFrame(rows)


def seconds(counts, forward):
    """Expected seconds of every answer, (N,).

    forward: `medians` (columns model, width, seconds) or `machine`. A round that drafted d tokens
    verifies d + 1; a drafted token is one step of the draft, of two tokens after a block that was
    accepted whole.
    """
    drafted = np.arange(counts.widths.shape[1])
    verify = counts.widths @ time_of(forward, "target", drafted + 1)
    one, two = time_of(forward, "draft", np.array([1, 2]))
    draft = counts.frame.drafted * one + counts.frame.full * (two - one)
    return (verify + draft).to_numpy()


def time_of(forward, model, widths):
    """Seconds of one forward of `widths` tokens: linear between widths, and on past the last."""
    table = forward[forward.model == model].sort_values("width")
    known = table.width.to_numpy(float)
    times = table.seconds.to_numpy(float)
    if not len(known):
        raise ValueError(f"the table of forward times has no rows of the {model}")
    inside = np.interp(widths, known, times)
    if len(known) == 1:
        return inside
    rise = (times[-1] - times[-2]) / (known[-1] - known[-2])
    return inside + np.maximum(widths - known[-1], 0) * max(rise, 0.0)


# ---- with intervals ----------------------------------------------------------------------------


def tokens_per_round(counts):
    """Tokens per target call. Returns Interval."""
    return _ratio(counts.frame, counts.frame.emitted, counts.frame.rounds)


def calls_per_token(counts):
    """Target calls per token. Returns Interval."""
    return _ratio(counts.frame, counts.frame.rounds, counts.frame.emitted)


def accept_ratio(counts):
    """Accepted ÷ drafted. Returns Interval."""
    return _ratio(counts.frame, counts.frame.accepted, counts.frame.drafted)


def kl_per_token(counts):
    """KL (nats) of the output laws against the target's, per token. Returns Interval."""
    return _ratio(counts.frame, counts.frame.kl, counts.frame.emitted)


def tv_per_token(counts):
    """TV of the output laws to the target's, per token: rescues per token. Returns Interval."""
    return _ratio(counts.frame, counts.frame.tv, counts.frame.emitted)


def speed(counts, forward):
    """Tokens per second. Returns Interval."""
    return _ratio(counts.frame, counts.frame.emitted, seconds(counts, forward))


def speed_ratio(counts, baseline, forward):
    """Tokens per second of one ÷ of a baseline on the same answers. Returns Interval."""
    columns = [
        counts.frame.emitted,
        seconds(counts, forward),
        baseline.frame.emitted,
        seconds(baseline, forward),
    ]
    table = _by_problem(counts.frame, columns)
    return stats.bootstrap(
        table, lambda m: (m[..., 0] / m[..., 1]) / (m[..., 2] / m[..., 3])
    ).within(0.0, np.inf)


def calls_saved(counts, baseline):
    """Target calls per token of a baseline less those of `counts`, same answers. Interval."""
    return stats.bootstrap(_calls(counts, baseline), lambda m: _per_token(m, 2) - _per_token(m, 0))


def calls_saved_share(counts, baseline):
    """The same as a share of the baseline's calls. Returns Interval."""
    return stats.bootstrap(
        _calls(counts, baseline), lambda m: 1 - _per_token(m, 0) / _per_token(m, 2)
    )


def _calls(counts, baseline):
    columns = [
        counts.frame.rounds,
        counts.frame.emitted,
        baseline.frame.rounds,
        baseline.frame.emitted,
    ]
    return _by_problem(counts.frame, columns)


def _per_token(means, first):
    return means[..., first] / means[..., first + 1]


def _ratio(frame, top, bottom):
    """Ratio of two sums over problems. Returns Interval."""
    table = _by_problem(frame, [top, bottom])
    return stats.bootstrap(table, lambda m: _per_token(m, 0))


def _by_problem(frame, columns):
    """Sums of columns (one value per answer) over the answers to each problem: (problems, k)."""
    problem, _ = pd.factorize(frame.problem_id)
    return np.stack([np.bincount(problem, np.asarray(column)) for column in columns], 1)
