"""What is fitted on other texts: acceptance by entropy, and the gate that expects a rejection.

Both take a table of positions, one row per token, as `probes.scan` returns it: position, H_q
(nats), max_q, margin, and delta = TV(p, q), the probability that strict rejects there (a ledger
calls it tv). Nothing is judged by what was fitted on its own problem: `fit_elsewhere`.
"""

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from helpers.stopping import Calibration

KNOTS = 24  # of a calibration
RIDGE = 1e-3  # per position, on standardised weights: separable data have a finite fit
NEWTON = 50  # steps at most; a handful is usual


def calibrate(positions, rejected="delta"):
    """Acceptance by H(q) that never rises with it: isotonic regression, at KNOTS quantiles of H.

    positions: the table; rejected: the column of probabilities, or of booleans. Returns
    stopping.Calibration.
    """
    table = positions.sort_values("H_q")
    H = table.H_q.to_numpy(float)
    accept = 1 - table[rejected].to_numpy(float)
    fitted = isotonic_regression(accept, increasing=False).x
    groups = np.array_split(np.arange(len(H)), min(KNOTS, len(H)))
    knots = pd.DataFrame(
        {
            "H": [float(np.float32(H[group].mean())) for group in groups],
            "accept": [float(fitted[group].mean()) for group in groups],
        }
    )
    knots = knots.groupby("H", as_index=False).accept.mean()  # many entropies may be equal
    return Calibration(tuple(knots.H), tuple(knots.accept))


def features(positions):
    """What the learned gate sees, (N, 4): H(q), max q, margin, log(1 + position)."""
    columns = [positions[name].to_numpy(float) for name in ("H_q", "max_q", "margin")]
    return np.stack([*columns, np.log1p(positions.position.to_numpy(float))], 1)


def logistic(x, y):
    """Weights (intercept first) that maximise the likelihood of y in [0, 1] given x (N, k).

    By Newton's method, with a small ridge on the standardised weights.
    """
    centre = x.mean(0)
    scale = x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.column_stack([np.ones(len(x)), (x - centre) / scale])
    ridge = np.full(design.shape[1], RIDGE * len(x))
    ridge[0] = RIDGE  # keeps the intercept finite where no rejection was ever seen
    weights = np.zeros(design.shape[1])
    for _ in range(NEWTON):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -40, 40)))
        gradient = design.T @ (y - p) - ridge * weights
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    own = weights[1:] / scale
    return np.array([weights[0] - own @ centre, *own])


def fit(positions, rejected="delta"):
    """Weights of rules.Learned, fitted on a table of positions: a tuple of 5."""
    weights = logistic(features(positions), positions[rejected].to_numpy(float))
    return tuple(float(weight) for weight in weights)


def expected(positions, weights):
    """The probability of a rejection that a learned gate expects at each position, (N,)."""
    score = weights[0] + features(positions) @ np.array(weights[1:])
    return 1 / (1 + np.exp(-score))


def fit_elsewhere(positions, problem_id, read_on, rejected="delta"):
    """Weights of a gate that is to be read on some problems, fitted on all the others.

    positions: the table; problem_id: of each position, (N,); read_on: ids. ValueError where no
    other problem is left to fit on.
    """
    is_other = ~np.isin(np.asarray(problem_id, str), list(read_on))
    if not is_other.any():
        raise ValueError(
            f"the learned gate is to be read on all {len(set(problem_id))} problems, and nothing "
            "is left to fit it on; read it on fewer"
        )
    return fit(positions[is_other], rejected)
