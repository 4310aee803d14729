"""What is fitted on other texts: acceptance by entropy, and the gate that expects a rejection.

Both take a table of positions, one row per token, as `probes.scan` returns it: problem_id,
position, H_q (nats), max_q, margin, and delta = TV(p, q), the probability that strict rejects there
(a ledger calls it tv). Cross-fitted: nothing is judged by what was fitted on its own problem.
"""

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from helpers import rules
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


def folds_of(positions, folds=5):
    """A fold per position, (N,): every problem is in one fold, whatever its seeds."""
    problem, names = pd.factorize(positions.problem_id)
    if len(names) < folds:
        raise ValueError(
            f"there are {len(names)} problems for {folds} folds; cross-fitting needs at least one "
            "per fold"
        )
    return problem % folds


def cross_fitted(positions, rejected="delta", folds=5):
    """Weights per fold, each fitted on all other folds: a list of tuples, with `folds_of`."""
    fold = folds_of(positions, folds)
    return [fit(positions[fold != k], rejected) for k in range(folds)]


def out_of_fold(positions, rejected="delta", folds=5):
    """The probability of a rejection that gates fitted on other problems expect, (N,)."""
    fold = folds_of(positions, folds)
    guess = np.zeros(len(positions))
    for k, weights in enumerate(cross_fitted(positions, rejected, folds)):
        guess[fold == k] = expected(positions[fold == k], weights)
    return guess


def gate(tau, positions, inner=rules.SQRT, rejected="delta"):
    """The learned gate fitted on some positions, open where it expects rejections <= tau."""
    return rules.Learned(tau, fit(positions, rejected), inner)
