"""ROC curves and their areas, problems as clusters; the Pareto front."""

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from helpers.stats.intervals import Interval


def roc(signal, label):
    """ROC curve of a signal for a binary label: false and true positive rates, ascending."""
    signal = np.asarray(signal, float)
    label = np.asarray(label, bool)
    order = np.argsort(-signal, kind="stable")
    last = np.r_[np.diff(signal[order]) != 0, True]  # ties move together
    hits = np.cumsum(label[order])[last]
    false_alarms = np.cumsum(~label[order])[last]
    false_rate = np.r_[0, false_alarms / max(1, (~label).sum())]
    true_rate = np.r_[0, hits / max(1, label.sum())]
    return false_rate, true_rate


def auroc(signal, label, cluster=None, n_boot=400, seed=0):
    """Area under the ROC curve (Mann-Whitney), problems resampled as clusters. Returns Interval.

    The interval is estimate ± t sd on the logit scale, with sd from the bootstrap: percentiles are
    too narrow for few problems.
    """
    estimate, draws, n = _areas(signal, label, cluster, n_boot, seed)
    if not 0 < estimate < 1 or n < 2:
        return Interval(estimate, float(np.nanmin(draws)), float(np.nanmax(draws)), n)
    inside = np.clip(draws, 1e-9, 1 - 1e-9)
    sd = np.nanstd(np.log(inside / (1 - inside))) * np.sqrt(n / (n - 1))
    reach = scipy_stats.t.ppf(0.975, n - 1) * sd
    odds_against = 1 / estimate - 1
    low, high = (float(1 / (1 + odds_against * np.exp(-side * reach))) for side in (-1, 1))
    return Interval(estimate, low, high, n)


def auroc_gain(signal, rival, label, cluster=None, n_boot=400, seed=0):
    """A signal's area under the ROC curve minus a rival's on the same positions. Returns Interval.

    Problems are resampled as clusters, for both at once: estimate ± t sd.
    """
    own, own_draws, n = _areas(signal, label, cluster, n_boot, seed)
    other, other_draws, _ = _areas(rival, label, cluster, n_boot, seed)
    middle = own - other
    sd = np.nanstd(own_draws - other_draws) * np.sqrt(n / max(n - 1, 1))
    half = float(scipy_stats.t.ppf(0.975, max(n - 1, 1)) * sd)
    return Interval(middle, middle - half, middle + half, n)


def _areas(signal, label, cluster, n_boot, seed):
    """An area, its bootstrap draws (n_boot,), and the number of clusters that are drawn from.

    The same label, cluster and seed give draws of the same clusters, whatever the signal.
    """
    signal = np.asarray(signal, float)
    label = np.asarray(label, bool)
    if label.all() or not label.any():
        raise ValueError("an AUROC needs both classes; all labels are the same")
    clusters = np.arange(len(signal)) if cluster is None else np.asarray(cluster)
    codes, _ = pd.factorize(clusters)
    order = np.argsort(signal, kind="stable")
    ranked = label[order]
    problems = codes[order]
    _, ties = np.unique(signal[order], return_inverse=True)
    n = int(codes.max() + 1)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot)
    draws = [_area(ranked, ties, weight[problems]) for weight in weights]
    return float(_area(ranked, ties, np.ones(len(problems)))), np.array(draws), n


def _area(label, ties, weight):
    """Weighted Mann-Whitney area of labels sorted by signal; `ties` numbers equal signals."""
    size = ties[-1] + 1
    positive = np.bincount(ties, weight * label, size)
    negative = np.bincount(ties, weight * ~label, size)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return np.nan
    below = np.cumsum(negative) - negative / 2
    return (positive * below).sum() / pairs


def pareto(frame, x, y):
    """Rows that no other row beats in both columns (larger is better), sorted by x."""
    ranked = frame.sort_values([x, y], ascending=False)
    return ranked[ranked[y] > ranked[y].shift().cummax().fillna(-np.inf)].sort_values(x)
