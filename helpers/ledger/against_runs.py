"""The ledger's counts beside those of direct runs of the same methods: does it predict them?"""

import pandas as pd

from helpers import experiments, rules, stats
from helpers.ledger.programme import counts
from helpers.ledger.reading import written_by_target
from helpers.methods import EntropyStop, Fixed, Sampling, Speculative

METHODS = (
    Speculative(rules.STRICT, Fixed(1), label="SP, γ = 1"),
    Speculative(rules.STRICT, Fixed(4), label="SP, γ = 4"),
    Speculative(rules.STRICT, Fixed(12), label="SP, γ = 12"),
    Speculative(rules.STRICT, EntropyStop(12, 1.0), label="SP, stop at 1 nat"),
    Speculative(rules.SQRT, Fixed(4), label="√ everywhere, γ = 4"),
    Speculative(rules.SP_entropy(1.0), Fixed(4), label="√ below 1 nat, γ = 4"),
)
NUMBERS = {
    "tokens per round": ("emitted", "rounds", "n_tokens", "target_calls"),
    "accept ratio": ("accepted", "drafted", "accepted", "drafted"),
}


def check(
    pair, problems, seeds=(0, 1), *, methods=METHODS, sampling=Sampling(), continuations=1000
):
    """Predict every method from answers of the target, and run it on the same problems and seeds.

    Returns a DataFrame, one row per method and number: method, number, predicted, direct
    (Interval), inside (whether the prediction lies in it), z = their paired difference in standard
    errors over problems (texts of both are random). 300 problems and two seeds take about a
    minute on the pocket pair.
    """
    book = written_by_target(pair, problems, seeds, sampling=sampling, continuations=continuations)
    runs = experiments.run(pair, list(methods), problems, seeds, sampling=sampling)
    lines = []
    for method in methods:
        counted = counts(book, method.rule, method.policy)
        own = runs[runs.method == method.label]
        for number, (top, bottom, run_top, run_bottom) in NUMBERS.items():
            both = pd.concat(
                [
                    counted.frame.groupby("problem_id")[[top, bottom]].sum(),
                    own.groupby("problem_id")[[run_top, run_bottom]].sum(),
                ],
                axis=1,
            ).to_numpy()
            predicted, direct, error = (
                stats.bootstrap(both, lambda m: m[..., 0] / m[..., 1]),
                stats.bootstrap(both, lambda m: m[..., 2] / m[..., 3]),
                stats.bootstrap(both, lambda m: m[..., 0] / m[..., 1] - m[..., 2] / m[..., 3]),
            )
            lines.append(
                {
                    "method": method.label,
                    "number": number,
                    "predicted": predicted.estimate,
                    "direct": direct,
                    "inside": direct.low <= predicted.estimate <= direct.high,
                    "z": error.estimate / max(error.half_width / 1.96, 1e-12),
                }
            )
    return pd.DataFrame(lines)
