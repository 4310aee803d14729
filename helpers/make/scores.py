"""Score both models of a pair at temperature 0 beside what their makers publish (make scores).

A model that is loaded, prompted and graded right scores about what its makers say. So AS_small and
AS_large answer the problems below greedily, and the shares of right answers are written to
data/results/PAIR/scores.json beside the published numbers. What differs is named there: the files
here hold 4-bit weights (Q4_K_M), the prompt is this project's, and a part of the problems is asked.
"""

import argparse

from helpers import experiments, models, stats, store, tasks
from helpers.methods import Autoregressive, Sampling

REPORT = "Qwen2.5-Coder technical report, arXiv 2409.12186"
PROBLEMS = {"gsm8k": 200, "humaneval": None}  # problems asked of each task; None: all there are
ROLES = {"AS_small": "draft", "AS_large": "target"}
# Per cent of right answers by the makers: bf16 weights, greedy. A task is left out where no number
# of these tuned models was found.
PUBLISHED = {
    "qwen2.5-coder": {
        "humaneval": {
            "AS_small": 61.6,
            "AS_large": 70.7,
            "how": "no examples, all 164 problems, EvalPlus",
            "from": REPORT,
        },
    },
}


def measure(pair, task, n):
    """Shares of right answers at temperature 0: {label: stats.Interval}.

    pair: Pair; task: a name from tasks.NAMES; n: problems, or None for all that there are.
    """
    problems = tasks.load(task, n)
    methods = [Autoregressive(role, label=label) for label, role in ROLES.items()]
    rows = experiments.run(pair, methods, problems, sampling=Sampling(0.0))
    return {label: stats.mean(rows, "score", label) for label in ROLES}


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.scores", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--pair", default="qwen2.5-coder")
    given = parser.parse_args(arguments)
    if given.pair not in PUBLISHED:
        raise ValueError(
            f"the pair was {given.pair}; published scores are known of {', '.join(PUBLISHED)} "
            "(helpers/make/scores.py has the table)"
        )
    pair = models.load_pair(given.pair, speed="int8")
    numbers = {}
    for task, n in PROBLEMS.items():
        for label, share in measure(pair, task, n).items():
            numbers[f"{task} {label}"] = share
            print(f"{task}, {label}: {share.show(1, percent=True)}", flush=True)
    store.publish_facts(
        given.pair,
        "scores",
        numbers=numbers,
        published=PUBLISHED[given.pair],
        temperature=0.0,
        **experiments.provenance(pair),
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, FileNotFoundError, MemoryError) as error:
        raise SystemExit(f"error: {error}") from None
