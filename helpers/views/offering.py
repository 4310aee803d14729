"""Which answers a menu offers first, and in which words: those in which a rule changes something.

Found from traces alone: nothing is decoded or graded here.
"""

import math
import textwrap
from typing import NamedTuple

import numpy as np

from helpers import rules
from helpers.tasks.own import Reference
from helpers.views.deciding import everywhere, redecide

FIRST_WORDS = 70  # characters of a question in a menu
LONGEST_REFERENCE = 40  # characters of an expected answer


class Offer(NamedTuple):
    """A recorded answer that a menu offers.

    tau: the least gate, nats, that rescues a token in it: 0 where the rule has another gate,
    infinite where nothing is rescued at all. matters: whether the methods' answers to it, from the
    same random numbers, have different scores.
    """

    problem_id: str
    seed: int
    tau: float
    score: float
    matters: bool

    @property
    def order(self):
        """Answers in which something changes come first, and of these the ones where it matters."""
        return self.tau == math.inf, not self.matters, self.tau


def offers(trace, rule, answers=None, strict=None):
    """Offers of one method's recorded answers, in the order of a menu.

    trace: of that method, with problem_id, seed and method; answers: rows of experiments.run, from
    which the scores come; strict: the name of the method with the strict rule, if there is one.
    """
    method = trace.method.iloc[0]
    scores = scores_of(answers)
    made = []
    for (problem_id, seed), tau in _least_tau(trace, rule).items():
        by_method = scores.get((problem_id, seed), {})
        score = by_method.get(method, math.nan)
        rivals = [strict] if strict not in (None, method) else list(by_method)
        others = [by_method.get(name, math.nan) for name in rivals]
        # NaN, an answer without a score, differs from nothing
        matters = any(abs(other - score) > 0 for other in others)
        made.append(Offer(problem_id, seed, tau, score, matters))
    return sorted(made, key=lambda offer: offer.order)


def _least_tau(trace, rule):
    """{(problem_id, seed): the least tau that rescues a token of the answer, or infinity}.

    Behind a token that was rescued when the answer was recorded the text is no longer the strict
    rule's: what could be rescued there counts no more.
    """
    open_rule = everywhere(rule)
    decided = redecide(trace, open_rule)
    by_answer = [decided.problem_id, decided.seed]
    was_rescued = np.zeros(len(decided), bool)
    if "rescued" in trace:
        was_rescued = trace.rescued.eq(True).to_numpy()
    before = decided.assign(n=was_rescued).groupby(["problem_id", "seed"], sort=False).n.cumsum()
    is_common = before.to_numpy() - was_rescued == 0
    has_gate = open_rule is not rule
    H = decided.H_q.astype(float) if has_gate else 0.0 * decided.position
    tau = H.where(decided.rescued & is_common, math.inf)
    return tau.groupby(by_answer, sort=False).min().to_dict()


def scores_of(answers):
    """{(problem_id, seed): {method: score}} of rows of experiments.run."""
    scores = {}
    if answers is not None:
        columns = (answers.problem_id, answers.seed, answers.method, answers.score)
        for problem_id, seed, method, score in zip(*columns):
            scores.setdefault((problem_id, seed), {})[method] = float(score)
    return scores


def strict_method(trace):
    """The name of the first method in a trace that took no relaxed path, or None."""
    if "path" not in trace:
        return None
    was_relaxed = trace.path.eq("relaxed").groupby(trace.method, sort=False).any()
    return next((name for name, relaxed in was_relaxed.items() if not relaxed), None)


def opening(offered, rule):
    """The offer to open with: `rule` rescues a token in it, and it matters, if there is one."""
    tau = gate(rule)
    return min(offered, key=lambda offer: (offer.tau > tau, *offer.order))


def gate(rule):
    """The tau of a rule's entropy gate, nats; infinite for any other rule."""
    is_entropy_gate = type(rule) is rules.Gated and rule.gate == "low_entropy"
    return rule.tau if is_entropy_gate else math.inf


# ---- in words ----------------------------------------------------------------------------------


def words(offer, problem, show_seed=False):
    """The line of a menu: when something changes, the grade, what is right, the first words."""
    parts = ["no ★ at any τ"]
    if offer.tau < math.inf:
        parts = [f"★ from τ = {math.ceil(100 * offer.tau) / 100:g}" if offer.tau else "★"]
    if show_seed:
        parts.append(f"seed {offer.seed}")
    return " · ".join(parts + known(problem, offer.problem_id, offer.score))


def known(problem, problem_id, score):
    """What is known of an answer and its question: the grade, what is right, the first words."""
    if problem is None:
        return [*filter(None, [graded(score)]), str(problem_id)]
    question = " ".join(problem.messages[-1]["content"].split())
    first_words = textwrap.shorten(question, FIRST_WORDS, placeholder=" …")
    return [*filter(None, [graded(score), expected(problem)]), first_words]


def graded(score):
    """A score as a word; "" where there is none."""
    if math.isnan(score):
        return ""
    return {0.0: "wrong", 1.0: "right"}.get(score, f"score {score:.2f}")


def expected(problem):
    """What is right, where that is a short text; "" elsewhere."""
    reference = problem.reference
    if isinstance(reference, Reference):
        reference = reference.answer
    if isinstance(reference, dict):  # of a pocket problem
        reference = reference.get("check")
    if not isinstance(reference, (str, int, float)):
        return ""
    text = " ".join(str(reference).split())
    return f"expected {text}" if 0 < len(text) <= LONGEST_REFERENCE else ""


def verdict(score, problem):
    """The grade of an answer and what is right: "wrong, expected 43"; "" without a grade."""
    grade = graded(score)
    return ", ".join(filter(None, [grade, expected(problem) if problem else ""])) if grade else ""
