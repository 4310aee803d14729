"""Speeds predicted by name, checked by timed answers, and other machines: where claims hold."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import ledger, rules, tables, tasks
from helpers.ledger import dearer, paces
from helpers.methods import Autoregressive, EntropyStop, Fixed, Speculative
from helpers.stats import Interval

KINDS = {
    "SP": lambda gamma: Speculative(rules.STRICT, Fixed(gamma)),
    "SP+dyn": lambda gamma: Speculative(rules.STRICT, EntropyStop(gamma, 1.0)),
}
METHODS = [
    Autoregressive("draft"),
    Autoregressive("target"),
    Speculative(rules.STRICT, Fixed(4), "SP"),
    Speculative(rules.SP_entropy(1.0), EntropyStop(9, 0.7), "SP_entropy"),
]


@pytest.fixture(scope="module")
def books(pocket):
    """Two small ledgers of different problems."""
    problems = tasks.load("pocket-arithmetic", 14, seed=3)
    return [
        ledger.written_by_target(pocket, some, continuations=60)
        for some in (problems[:6], problems[6:])
    ]


def repeats(noise=0.0, turns=20, seed=0):
    """Forward times as forward_repeats returns them: a straight line, times lognormal noise."""
    random = np.random.default_rng(seed)
    rows = []
    for turn in range(turns):
        for model, width in paces.CELLS:
            mean = 1e-3 if model == "draft" else 5e-3 * (1 + 0.05 * (width - 1))
            seconds = mean * np.exp(noise * random.normal())
            rows.append({"turn": turn, "model": model, "width": width, "seconds": seconds})
    return pd.DataFrame(rows)


# ---- forward times -----------------------------------------------------------------------------


def test_every_turn_has_every_step_once_and_in_another_order(pocket, monkeypatch):
    """Blocks of 0 to 16 drafts, each round whole, though an end token is drawn now and then."""
    log = []
    plain = paces.decode

    def logged(pair, method, *arguments, **options):
        (answer,) = plain(pair, method, *arguments, **options)
        gamma = method.policy.gamma if isinstance(method, Speculative) else 0
        assert answer.rounds == answer.target_calls == paces.ROUNDS
        assert answer.drafted == paces.ROUNDS * gamma
        log.append(gamma)
        return [answer]

    monkeypatch.setattr(paces, "decode", logged)
    table = ledger.forward_repeats(pocket, context=7, turns=6, at_most_s=600)
    turns = [log[first : first + 17] for first in range(0, len(log), 17)]
    assert len(turns) == 7  # one warms up
    assert all(sorted(turn) == list(range(17)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 7
    assert list(table.turn.unique()) == list(range(6))
    assert (table.seconds > 0).all()
    assert table.groupby("turn").size().eq(len(paces.CELLS)).all()


@pytest.mark.parametrize(
    ("small", "a_turn_s", "given", "expected"),
    [
        (True, 0.5, None, 30),  # all of them
        (True, 2.0, None, 10),  # begun within 20 s, as is the turn that warms up
        (False, 25.0, None, 24),  # 10 minutes
        (False, 25.0, 5, 5),  # never fewer
        (False, 400.0, None, 5),
    ],
)
def test_steps_of_a_large_pair_are_timed_for_minutes(monkeypatch, small, a_turn_s, given, expected):
    """On a clock that moves by `a_turn_s` with every turn, and at no other time."""
    clock = SimpleNamespace(now=0.0)

    def one_turn(pair, widths, prompt, sampling, key):
        clock.now += a_turn_s
        return [{"turn": key[1] - 1, "model": "target", "width": 1, "seconds": 1.0}]

    monkeypatch.setattr(paces, "_one_turn", one_turn)
    monkeypatch.setattr(paces, "replace", lambda pair, eos: pair)
    monkeypatch.setattr(paces.time, "perf_counter", lambda: clock.now)
    pair = SimpleNamespace(small=small, target=SimpleNamespace(vocab_size=10))
    table = ledger.forward_repeats(pair, at_most_s=given)
    assert table.turn.nunique() == expected


def test_the_place_of_a_machine_is_what_it_was_made_of():
    c, slope = ledger.place(ledger.medians(repeats()), 12)
    assert (c, slope) == pytest.approx((0.2, 0.05))
    c, _ = ledger.place(ledger.with_draft_at(ledger.medians(repeats()), [0.37])[0.37], 12)
    assert c == pytest.approx(0.37)


def test_a_load_that_comes_and_goes_moves_no_price_and_is_noticed():
    quiet = repeats(noise=0.005)
    loaded = quiet.assign(seconds=quiet.seconds * np.where(quiet.turn % 5 < 3, 1, 3))
    assert paces.prices(ledger.medians(loaded)) == pytest.approx(
        paces.prices(ledger.medians(quiet)), rel=0.03, abs=1e-4
    )
    assert ledger.busyness(quiet) < 1.1 < 2 < ledger.busyness(loaded)
    single = (quiet.model == "target") & (quiet.width == 1) & (quiet.turn % 5 < 3)
    assert ledger.busyness(quiet.assign(seconds=quiet.seconds * (1 + 2 * single))) > 2


# ---- paces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_parts_times_prices_are_the_seconds_of_the_ledger(books, method):
    forward = ledger.medians(repeats(noise=0.3))
    found = paces.counted(books[0], method)
    assert paces.parts(found) @ paces.prices(forward) == pytest.approx(
        ledger.seconds(found, forward)
    )


def test_a_predicted_speed_is_the_ledgers_and_its_interval_draws_the_times_too(books):
    still = ledger.Predicted(books[0], METHODS, repeats())
    noisy = ledger.Predicted(books[0], METHODS, repeats(noise=0.5))
    counts = ledger.counts(books[0], rules.STRICT, Fixed(4))
    known = ledger.speed(counts, ledger.medians(repeats()))
    assert still.speed("SP").estimate == pytest.approx(known.estimate)
    # one token a call for every problem: all of its spread is that of the times
    alone = still.speed("AS_large")
    assert alone.high - alone.low < 1e-6 * alone.estimate
    alone = noisy.speed("AS_large")
    assert alone.high - alone.low > 0.05 * alone.estimate


def test_intervals_hold_the_true_speed_as_often_as_they_say(books, monkeypatch):
    """Times alone vary: 200 machines, of which at most 10 + 3 sd = 20 may be missed."""
    monkeypatch.setattr(paces, "DRAWS", 400)
    truth = 1 / 5e-3
    missed = 0
    for seed in range(200):
        found = ledger.Predicted(books[0], METHODS[1:2], repeats(0.2, seed=seed)).speed("AS_large")
        missed += not found.low <= truth <= found.high
    assert missed <= 20


def timed_as(predicted, book, slower):
    """Timed rows of SP that took `slower` times what was predicted for each problem."""
    counts = predicted.counts["SP"]
    seconds = paces.parts(counts) @ predicted.typical
    frame = counts.frame
    return pd.DataFrame(
        {
            "method": "SP",
            "problem_id": frame.problem_id,
            "n_tokens": frame.emitted,
            "seconds": slower * seconds,
            "target_calls": frame.rounds,
            "draft_calls": frame.drafted,
            "drafted": frame.drafted,
        }
    )


@pytest.mark.parametrize("slower", [1.0, 1.25])
def test_timed_answers_are_compared_with_their_own_problems(books, slower):
    predicted = ledger.Predicted(books[0], METHODS, repeats())
    times = timed_as(predicted, books[0], slower)
    # of fewer problems than were read, and in another order
    found = predicted.against(times.iloc[[4, 1, 2]])
    (ratio,), (of_forwards,) = found.ratio, found.of_forwards
    assert list(found.method) == ["SP"]
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx([1 / slower] * 3)
    # a straight line of verify times: taking all blocks as long as their mean loses nothing
    assert of_forwards.estimate == pytest.approx(1 / slower, rel=1e-3)


def test_the_table_of_predicted_and_timed_paces_has_the_digits_that_are_earned():
    fast, slow = Interval(1569.31, 1378.14, 1778.32, 8), Interval(18.42, 17.9, 18.96, 8)
    ratio = Interval(1.204, 1.01, 1.45, 8)
    line = {"method": "SP", "predicted": fast, "timed": slow, "ratio": ratio, "of_forwards": ratio}
    (shown,) = tables.agreement(pd.DataFrame([line])).to_dict("records")
    assert shown == {
        "method": "SP",
        "predicted tokens/s": "1569 [1378, 1778]",
        "timed tokens/s": "18.4 [17.9, 19.0]",
        "timed ÷ predicted": "1.20 [1.01, 1.45]",
        "time of its own steps ÷ time taken": "1.20 [1.01, 1.45]",
    }
    by_gamma = tables.by_gamma({"SP": [(4, fast), (8, slow)]})
    assert list(by_gamma.iloc[0]) == ["SP", "1569 [1378, 1778]", "18.4 [17.9, 19.0]"]


def test_timed_paces_answer_the_same_questions(books):
    predicted = ledger.Predicted(books[0], METHODS, repeats())
    times = timed_as(predicted, books[0], 1.0).assign(
        accepted=predicted.counts["SP"].frame.accepted
    )
    paced = ledger.Timed(pd.concat([times, times.assign(method="slow", seconds=1.0)]))
    for question in ("speed", "accept_ratio", "tokens_per_round"):
        ours = getattr(paced, question)("SP").estimate
        assert ours == pytest.approx(getattr(predicted, question)("SP").estimate)
    assert paced.ratio("SP", "SP").estimate == 1
    assert paced.calls_saved("SP", "slow").estimate == pytest.approx(0)


# ---- other machines ----------------------------------------------------------------------------


def test_only_the_sum_of_draft_and_verify_cost_counts(books):
    machines = {0: ledger.machine(0.25, 0.05), 1: ledger.machine(0.05, 0.25)}
    pairs = [(label, ledger.ALONE) for label in KINDS]
    table = ledger.speed_ups(*books, KINDS, pairs, machines | {2: ledger.machine(0.3, 0.05)})
    first, second, dearer_one = (table[table.x == x].set_index("method").ratio for x in range(3))
    assert first.to_numpy() == pytest.approx(second.to_numpy(), rel=1e-9)
    assert (dearer_one < first).all()


def test_speed_ups_are_the_ledgers_at_the_gamma_that_other_problems_choose(books):
    tuning, reported = books
    here = ledger.machine(0.1, 0.02)
    table = ledger.speed_ups(tuning, reported, KINDS, [("SP+dyn", "SP")], {0.1: here})

    def fastest(book, kind):
        found = [ledger.counts(book, m.rule, m.policy) for m in map(kind, range(1, 17))]
        return found, int(np.argmax([ledger.speed(one, here).estimate for one in found]))

    own, rival = (fastest(tuning, kind)[1] for kind in (KINDS["SP+dyn"], KINDS["SP"]))
    assert table.gamma.item() == own + 1
    shown = fastest(reported, KINDS["SP+dyn"])[0][own], fastest(reported, KINDS["SP"])[0][rival]
    assert table.ratio.item() == pytest.approx(ledger.speed_ratio(*shown, here).estimate)


def falling(end=1.0):
    """SP ÷ AS_large = 1.2 - log10(100 x) / 2, ± 0.1, at x from 0.01 on; dyn is its mirror image."""
    x = np.geomspace(0.01, end, 21)
    ratio = 1.2 - np.log10(100 * x) / 2
    part = pd.DataFrame({"x": x, "gamma": np.arange(21), "ratio": ratio})
    part = part.assign(low=ratio - 0.1, high=ratio + 0.1, method="SP", baseline=ledger.ALONE)
    rising = part.assign(method="dyn", ratio=2 - ratio, low=1.9 - ratio, high=2.1 - ratio)
    return pd.concat([part, rising])


def test_a_region_ends_where_the_interval_leaves_the_threshold():
    table = falling()
    sp, dyn = ledger.Claim("SP"), ledger.Claim("dyn")
    ((start, holds_to),) = ledger.spans(table, sp)
    ((_, open_to),) = ledger.spans(table, sp, "high")
    assert start == pytest.approx(0.01)
    assert holds_to == pytest.approx(10**-1.8)  # 1.1 - log10(100 x) / 2 = 1
    assert open_to == pytest.approx(10**-1.4)
    words = [ledger.word_at(table, sp, x) for x in (0.011, 0.025, 0.05, 7.0)]
    assert words == ["holds", "undecided", "does not hold", "does not hold"]
    where = "where the draft costs less than 0.016 of the target"
    where += " (not excluded: less than 0.04) (here 0.2)"
    assert ledger.region(table, sp, 0.2) == f"SP is faster than AS_large {where}"
    assert "costs more than 0.04 of" in ledger.region(table, dyn)
    tried = "whatever the draft costs, from 0.01 to 1 of the target"
    dear = ledger.region(table, ledger.Claim("SP", above=2))
    assert dear == f"SP is faster than AS_large by more than 100 % nowhere, {tried}"
    open_still = ledger.region(table, ledger.Claim("SP", above=1.2))
    possible = "(not excluded: less than 0.016)"
    assert open_still.endswith(f"20 % nowhere that is shown, {tried} {possible}")
    assert ledger.region(table, ledger.Claim("SP", above=0.05)).endswith(f" {tried}")
    assert str(ledger.Claim("A", "B", 1.01)) == "A is faster than B by more than 1 %"


def test_what_verifying_costs_is_taken_off_the_cost_of_the_draft():
    table = falling()
    found = ledger.where_claims_hold(table, table, [ledger.Claim("SP")], slopes=(0.0, 0.012))
    own, free, dear = found["SP is faster than AS_large"].values()
    assert own == free
    assert dear["undecided"][0][1] == pytest.approx(free["undecided"][0][1] - 0.012)
    assert dear["holds"] == []  # would hold below c = 0.004, and 0.01 is the least that is shown


def test_between_two_machines_a_ratio_lies_on_the_line_between_theirs():
    gamma, ratio, low, high = ledger.at(falling(), "SP", ledger.ALONE, np.array([0.02, 0.1, 9.0]))
    assert ratio == pytest.approx([1.2 - np.log10(2) / 2, 0.7, 0.2])
    assert high - low == pytest.approx([0.2] * 3)
    assert list(gamma) == [3, 10, 20]


def test_published_costs_have_their_sources_order():
    for by_parameters, timed in dearer.PUBLISHED.values():
        assert 0.005 < by_parameters < timed < 1
