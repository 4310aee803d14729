"""Draft lengths judged: counts of runs by hand and against the ledger, shares, machines."""

import numpy as np
import pandas as pd
import pytest

from helpers import experiments, learned, ledger, rules, tasks
from helpers.ledger import judging
from helpers.methods import Autoregressive, EntropyStop, Fixed, Selective, Speculative
from helpers.stopping import CostStop, Saturation

SEEDS = (0, 1)


def rows(**columns):
    """Two answers to two problems, as experiments.run has them."""
    zero = dict.fromkeys(("target_calls", "draft_calls", "drafted", "accepted"), [0, 0])
    facts = {"problem_id": ["a", "b"], "seed": [0, 0], "method": "it", "n_tokens": [6, 4]}
    return pd.DataFrame(facts | zero | columns)


def said(**sources):
    """A trace from a string per problem, a letter per position: t(arget), d(raft), b(onus)."""
    names = {"t": "target", "d": "draft", "b": "bonus", "r": "residual"}
    lines = []
    for problem, letters in sources.items():
        for position, letter in enumerate(letters):
            lines.append((problem, 0, "it", position, names[letter]))
    return pd.DataFrame(lines, columns=["problem_id", "seed", "method", "position", "source"])


# Verifying w tokens takes 10 + w, a token of the draft 1, two at once 1.5.
TIMES = pd.DataFrame(
    [("target", w, 10.0 + w) for w in (1, 2, 17)] + [("draft", 1, 1.0), ("draft", 2, 1.5)],
    columns=["model", "width", "seconds"],
)


# ---- counts of runs ----------------------------------------------------------------------------


def test_seconds_of_speculative_runs_by_hand():
    table = rows(target_calls=[2, 2], draft_calls=[4, 3], drafted=[4, 3], accepted=[4, 1])
    counts = judging.from_runs(table, said(a="ddbddb", b="drdr"))
    # two rounds that verified 3 tokens, 4 drafts, both blocks whole
    assert ledger.seconds(counts, TIMES)[0] == pytest.approx(2 * 13 + 4 + 2 * 0.5)
    # 3 drafts in two rounds: one verified 2 tokens and one 3
    assert ledger.seconds(counts, TIMES)[1] == pytest.approx(12 + 13 + 3)
    assert counts.tokens_per_round == 10 / 4


def test_a_call_of_the_target_reads_what_it_has_not_read():
    table = rows(target_calls=[2, 0], draft_calls=[6, 4])
    counts = judging.from_runs(table, said(a="ddtddt", b="dddd"))
    # two calls that read three tokens each; the draft reads every token
    np.testing.assert_allclose(ledger.seconds(counts, TIMES), [2 * 13 + 6, 4])


def test_one_model_alone_has_no_drafts():
    counts = judging.from_runs(rows(target_calls=[6, 4]), said(a="tttttt", b="tttt"))
    np.testing.assert_allclose(ledger.seconds(counts, TIMES), [6 * 11, 4 * 11])


@pytest.fixture(scope="module")
def book(pocket):
    return ledger.written_by_target(pocket, problems(), SEEDS, continuations=400)


def problems():
    return tasks.load("pocket-arithmetic", 60)


@pytest.fixture(scope="module")
def calibration(book):
    return learned.calibrate(book.positions, "tv")


def test_runs_are_those_that_the_ledger_expects(pocket, book, calibration):
    """Strict rule, five policies: six numbers each within 4 standard errors, as the seed is fixed.

    A false alarm would come once in 500 times. A draft that goes on to its cap would be 40 off.
    """
    policies = {
        "AS": None,
        "fixed": Fixed(8),
        "entropy": EntropyStop(16, 0.7),
        "cost": CostStop(16, 0.5, calibration),
        "saturation": Saturation(16, 0.8, 0.9, 2, calibration),
    }
    methods = [
        Speculative(rules.STRICT, policy, label) if policy else Autoregressive("target", "AS")
        for label, policy in policies.items()
    ]
    answers, trace = experiments.run(pocket, methods, problems(), SEEDS, trace=True)
    for method in methods:
        label = method.label
        runs = judging.from_runs(answers[answers.method == label], trace)
        if label == "AS":
            expected = ledger.alone(book, "target")
        else:
            expected = ledger.counts(book, rules.STRICT, method.policy)
        assert list(runs.frame.problem_id) == list(expected.frame.problem_id)
        ratio = judging.direct_over_expected(runs, expected)
        assert abs(ratio.estimate - 1) <= 2 * ratio.half_width + 1e-9, label
        if label != "AS":
            wide = runs.total("drafted") / runs.total("rounds")
            predicted = expected.total("drafted") / expected.total("rounds")
            assert wide == pytest.approx(predicted, rel=0.06), label


def test_selective_runs_cost_a_call_per_token_of_the_target(pocket):
    answers, trace = experiments.run(pocket, [Selective(0.3)], problems()[:8], trace=True)
    counts = judging.from_runs(answers, trace)
    assert counts.total("rounds") == (trace.source == "target").sum()
    assert counts.total("drafted") == answers.n_tokens.sum()
    read = counts.widths @ np.arange(1, counts.widths.shape[1] + 1)
    last = trace[trace.source == "target"].groupby("problem_id").position.max() + 1
    assert read.sum() == last.sum()


# ---- choices, shares, machines -----------------------------------------------------------------


def counts_of(rounds, drafted):
    """Counts of two equal answers of 12 tokens, as many drafts in every round."""
    width = drafted // rounds
    frame = pd.DataFrame({"problem_id": ["a", "b"], "seed": 0, "emitted": 12.0, "full": 0.0})
    frame = frame.assign(rounds=float(rounds), drafted=float(drafted), accepted=12.0 - rounds)
    widths = np.zeros((2, width + 1))
    widths[:, width] = rounds
    return ledger.Counts(frame, widths, widths)


SETTINGS = {2: counts_of(6, 12), 4: counts_of(4, 16), 8: counts_of(3, 24)}


def test_the_best_setting_is_the_one_for_the_machine():
    def best(c):
        return judging.fastest(SETTINGS, SETTINGS.get, ledger.machine(c))

    # seconds: 6 + 12 c, 4 + 16 c, 3 + 24 c
    assert [best(c) for c in (0.01, 0.2, 0.6)] == [8, 4, 2]


def test_shares_are_of_the_oracles_gain():
    fixed, mine, oracle = counts_of(6, 12), counts_of(4, 12), counts_of(3, 12)
    share = judging.share_of_gain(mine, fixed, oracle, ledger.machine(0.0))
    # tokens per second 2, 3 and 4
    assert share.estimate == pytest.approx(0.5)
    assert judging.share_of_gain(oracle, fixed, oracle, ledger.machine(0.0)).estimate == 1
    none = judging.share_of_gain(mine, fixed, fixed, ledger.machine(0.0))
    assert none.missing == "nothing to gain"


def test_every_machine_has_its_own_best_settings():
    machines = {c: ledger.machine(c) for c in (0.01, 0.6)}
    table = judging.over_machines(
        {"any": [2, 4, 8]}, ("two", [2], SETTINGS.get), SETTINGS.get, SETTINGS.get, machines
    )
    assert list(table.ratio) == pytest.approx([(6 + 0.12) / (3 + 0.24), 1.0])
    where = ledger.region(table, ledger.Claim("any", "two", above=1.5))
    assert "where the draft costs less than" in where


def test_the_next_step_is_past_the_best_and_there_is_none_past_the_longest():
    machines = {c: ledger.machine(c) for c in (0.01, 0.2)}
    table = judging.next_step([2, 4, 8], [2, 4, 8], SETTINGS.get, SETTINGS.get, machines)
    assert list(table.x) == [0.2]
    assert table.ratio.item() == pytest.approx((4 + 3.2) / (3 + 4.8))


def test_timed_answers_against_their_own_problems():
    times = pd.DataFrame(
        {"method": "it", "problem_id": ["b", "a"], "n_tokens": 12, "seconds": [12.0, 12.0]}
    )
    counts = counts_of(6, 12)  # six seconds an answer where the draft is free
    ratio = judging.timed_over_predicted(times, "it", counts, ledger.machine(0.0))
    assert ratio.estimate == pytest.approx(0.5)
