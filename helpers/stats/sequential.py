"""Looking at a study before its end: O'Brien and Fleming's bounds, and verdicts that keep them."""

import functools
from dataclasses import replace

import numpy as np
from scipy import optimize
from scipy import stats as scipy_stats

from helpers.stats.intervals import LEVEL
from helpers.stats.verdicts import UNDECIDED, at_level, without_number

NODES = 120  # of the quadrature between two bounds: constants to 1e-6


@functools.cache
def looks(k, alpha=1 - LEVEL):
    """O'Brien and Fleming's bounds of |z| for k equally spaced looks: a tuple of k numbers.

    z_i = c sqrt(k / i), where c makes the chance of any look crossing `alpha` when there is no
    effect (O'Brien and Fleming 1979; Jennison and Turnbull 2000, table 2.3).
    """
    if k < 1 or k != int(k):
        raise ValueError(f"the number of looks was {k!r}; it must be a whole number from 1 on")
    shape = np.sqrt(k / np.arange(1, k + 1))
    one_look = scipy_stats.norm.isf(alpha / 2)
    if k == 1:
        return (float(one_look),)
    last = optimize.brentq(
        lambda c: crossing(tuple(c * shape)) - alpha, one_look - 1e-3, one_look + 1, xtol=1e-9
    )
    return tuple(float(bound) for bound in last * shape)


def crossing(bounds):
    """Chance that |z| crosses any of its bounds at equally spaced looks without an effect.

    The score S_i = z_i sqrt(i) is a walk with steps of variance 1; its density among those that
    have not crossed is carried from look to look (Armitage, McPherson and Rowe 1969).
    """
    points, weights = np.polynomial.legendre.leggauss(NODES)
    limits = np.array(bounds) * np.sqrt(np.arange(1, len(bounds) + 1))
    at = points * limits[0]
    inside = weights * limits[0] * scipy_stats.norm.pdf(at)
    for limit in limits[1:]:
        onto = points * limit
        step = scipy_stats.norm.pdf(onto[:, None] - at[None, :])
        inside = weights * limit * (step @ inside)
        at = onto
    return float(1 - inside.sum())


def sequential_verdict(compared, look, planned, above=None, below=None, within=None):
    """A verdict at look number `look` (from 1 on) of `planned` equally spaced ones.

    compared: Interval, or a function of level= that returns one (see stats.family), of the problems
    so far. It is widened to O'Brien and Fleming's bound ("repeated confidence interval", Jennison
    and Turnbull 1989), so a study may stop at the first look that decides. "go on" before the last.
    """
    if not 1 <= look <= planned:
        raise ValueError(f"look was {look}; {planned} are planned, counted from 1")
    bound = looks(planned)[look - 1]
    interval = at_level(compared, 1 - 2 * scipy_stats.norm.sf(bound))
    found = without_number(interval, above, below, within)
    if found.word == UNDECIDED and look < planned:
        return replace(found, word="go on")
    return found
