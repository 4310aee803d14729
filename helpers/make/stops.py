"""Whether to end a block by the draft's entropy, by what a drafted token costs (strict rule).

Notebook 06 answers this at the cost of the machine on which it ran. Here it is answered at round
costs, from the part of notebook 05's ledger that each pair publishes. Every policy is chosen on
half of its problems, and speeds are of the other half. The strict rule alone: answers stay the
target's, so that only speeds are compared.
"""

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pandas as pd

from helpers import ledger, rules
from helpers.ledger import judging
from helpers.ledger.table import LONGEST
from helpers.make import summary
from helpers.methods import Confidence, EntropyStop, Fixed
from helpers.stats import Interval

LEDGER = "05_ledger"  # the published part of notebook 05's
FEWEST = 4  # problems of a ledger: each half needs two for an interval
COSTS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of a drafted token, in steps of the target

# The settings of notebook 06.
CAPS = (4, 8, 12, 16)
NATS = np.geomspace(0.05, 3, 13).round(3)
LEAST = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FAMILIES = {
    "fixed": [Fixed(gamma) for gamma in range(1, LONGEST + 1)],
    "entropy": [EntropyStop(cap, float(nats)) for cap in CAPS for nats in NATS],
    "confidence": [Confidence(cap, least) for cap in CAPS for least in LEAST],
}


@dataclass(frozen=True)
class Stop:
    """The best entropy stop at one cost: its settings, and its tokens per second ÷ others'."""

    policy: EntropyStop
    gamma: int  # the best fixed block
    over_fixed: Interval  # ÷ that of the best fixed block
    confidence_over_fixed: Interval  # the same of the best stop by the drafted token's probability
    over_target: Interval  # ÷ that of the target alone


def halves(pair):
    """A pair's published ledger in two: what is tuned on, what is reported. None without one."""
    book = ledger.load(summary.made(pair, "05"), LEDGER)
    if book is None:
        return None
    ids = book.answers.problem_id.unique()
    if len(ids) < FEWEST:
        return None
    return book.of_problems(ids[0::2]), book.of_problems(ids[1::2])


def best(tuning, reported, costs):
    """The Stop at each cost: {cost: Stop}."""
    on_tuning, on_reported = (
        cache(partial(ledger.counts, book, rules.STRICT)) for book in (tuning, reported)
    )
    alone = ledger.alone(reported, "target")
    found = {}
    for cost in costs:
        forward = ledger.machine(cost)
        chosen = {
            family: judging.fastest(policies, on_tuning, forward)
            for family, policies in FAMILIES.items()
        }
        counted = {family: on_reported(policy) for family, policy in chosen.items()}
        found[cost] = Stop(
            chosen["entropy"],
            chosen["fixed"].gamma,
            ledger.speed_ratio(counted["entropy"], counted["fixed"], forward),
            ledger.speed_ratio(counted["confidence"], counted["fixed"], forward),
            ledger.speed_ratio(counted["entropy"], alone, forward),
        )
    return found


def table():
    """The pairs' Stops at COSTS, as a table of the page on deploying."""
    lines = []
    sizes = []
    for pair in summary.PAIRS:
        books = halves(pair)
        if books is None:
            continue
        for cost, stop in best(*books, COSTS).items():
            lines.append(
                {
                    "pair": summary.made(pair, "05"),
                    "a drafted token costs": f"{cost:g}",
                    "best fixed γ": stop.gamma,
                    "best entropy stop": f"H(q) > {stop.policy.stop:.2g}, γ ≤ {stop.policy.gamma}",
                    "÷ best fixed γ": stop.over_fixed.show(2),
                    "confidence stop ÷ best fixed γ": stop.confidence_over_fixed.show(2),
                    "entropy stop ÷ AS_large": stop.over_target.show(2),
                }
            )
        tuned, shown = (book.answers.problem_id.nunique() for book in books)
        sizes.append(f"{summary.made(pair, '05')}: tuned on {tuned} problems, {shown} reported")
    if not lines:
        return "Notebook 05, which publishes the ledger, has not been run yet."
    samples = f"Sizes: {'; '.join(sizes)}. Exploratory: no plan was written down before."
    return summary.paragraphs(summary.markdown(pd.DataFrame(lines)), samples)
