"""Draw the README's first picture: `python -m helpers.make.first_picture` (part of make pocket).

One short answer of the pocket pair, decoded by SP and by SP_entropy from the same random numbers.
It was picked because every fate of a token occurs in it, and because the rescued token does harm;
how often that happens is notebook 04's question.
"""

from helpers import experiments, models, plots, rules, tasks
from helpers.methods import Fixed, Speculative

PROBLEM = "arithmetic-13244e8c41"
SEED = 1
TAU = 1.0
GAMMA = 4


def answer(pair, problem, method):
    """One decoded answer as plots.two_rules takes it, and whether it is right."""
    rows, trace = experiments.run(pair, [method], [problem], seeds=(SEED,), trace=True)
    trace = trace.assign(
        text=[pair.tokenizer.decode([token]) for token in trace.token],
        fate=[_fate(row) for row in trace.itertuples()],
    )
    tokens = trace[["position", "text", "fate", "H_q", "p_x", "q_x"]]
    return tokens.reset_index(drop=True), bool(rows.score.iloc[0] == 1)


def _fate(row):
    """What became of a recorded token: written by the target, rejected, rescued or kept."""
    if row.source != "draft":
        return "target"
    if not row.accepted:
        return "rejected"
    return "rescued" if row.rescued else "kept"


def arguments(pair):
    """What plots.two_rules is called with."""
    problem = next(p for p in tasks.load("pocket-arithmetic", 200) if p.id == PROBLEM)
    strict, strict_right = answer(pair, problem, Speculative(rules.STRICT, Fixed(GAMMA), "SP"))
    relaxed, relaxed_right = answer(
        pair, problem, Speculative(rules.SP_entropy(TAU), Fixed(GAMMA), "SP_entropy")
    )
    return {
        "question": problem.messages[-1]["content"],
        "strict": strict,
        "relaxed": relaxed,
        "right": [strict_right, relaxed_right],
        "tau": TAU,
    }


if __name__ == "__main__":
    pair = models.load_pair("pocket")
    plots.draw(plots.two_rules, "strict_and_relaxed", "pocket", **arguments(pair))
