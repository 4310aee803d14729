"""Rules of any kind at equal savings: what is read, what is reached, and KL side by side."""

import numpy as np
import pytest

from helpers import ledger, models, rules, stats, tables, tasks
from helpers.ledger import equal_savings
from helpers.methods import Fixed

POLICY = Fixed(4)


@pytest.fixture(scope="module")
def pocket():
    pair = models.load_pair("pocket")
    problems = tasks.load("pocket-algebra", 14, 0)
    return pair, problems, ledger.written_by_target(pair, problems, [0], continuations=0)


@pytest.fixture(scope="module")
def read(pocket):
    pair, problems, book = pocket
    return lambda named: equal_savings.with_rules(book, pair, problems, named)


@pytest.fixture(scope="module")
def half_of_sqrt(pocket):
    _, _, book = pocket
    strict, relaxed = (ledger.counts(book, r, POLICY) for r in (rules.STRICT, rules.SQRT))
    return (strict.calls_per_token - relaxed.calls_per_token) / 2


def test_what_is_read_again_is_what_the_ledger_has(pocket, read):
    _, _, book = pocket
    again = read({"√": rules.SQRT, "random": rules.Gated(0.25, gate="random")})
    known = {"√": rules.SQRT, "random": rules.Gated(0.25, gate="random")}
    for label, rule in known.items():
        mine = again.of_rule(label)
        theirs = book.of_rule(rule)
        for name in ("R", "W", "h", "tv", "kl"):
            inside = [values[name][book.inside] for values in (mine, theirs)]
            assert inside[0] == pytest.approx(inside[1], abs=2e-5), (label, name)
    assert np.abs(again.of_rule("random")["W"] - again.of_rule("√")["W"]).max() > 0.01


def test_families_of_any_kind_save_what_was_asked_for(read, half_of_sqrt):
    listed = {
        "random": (lambda k: rules.Gated(k, gate="random"), [0.1, 0.9]),
        "optimum": (rules.EqualPrice, [1.02, 1.5, 20.0]),
        "ensemble": (rules.Ensemble, [0.001, 0.1, 0.5]),
        "falling": (rules.Power, [0.99, 0.2]),
        "too strict": (rules.Additive, [0.0, 1e-6]),
    }
    swept, matches = equal_savings.equal_savings(read, listed, half_of_sqrt, POLICY)
    assert list(swept.family) == [name for name, (_, knobs) in listed.items() for _ in knobs]
    assert not matches.pop("too strict").reached
    strict = ledger.counts(read({"s": rules.STRICT}), "s", POLICY).calls_per_token
    for family, match in matches.items():
        assert match.reached, family
        again = ledger.counts(read({"it": match.rule}), "it", POLICY)
        saved = strict - again.calls_per_token
        assert saved == pytest.approx(half_of_sqrt, rel=0.02, abs=1e-9), family
        assert again.per_token("kl") == pytest.approx(match.counts.per_token("kl"), rel=1e-5)
    cheapest = min(matches.values(), key=lambda match: match.counts.per_token("kl"))
    assert cheapest.family == "optimum"


def test_a_family_in_steps_comes_as_near_as_it_can(read):
    seen = []

    def steps(knob):
        seen.append(knob)
        return rules.Gated(knob, gate="max_prob")

    _, matches = equal_savings.equal_savings(
        read, {"gate": (steps, [1.1, 0.0])}, 1e-7, POLICY, rounds=3
    )
    assert len(set(seen)) == 2 + 1 + 1 + 4
    match = matches["gate"]
    assert not match.reached
    assert all(0 <= knob <= 1.1 for knob in seen)
    assert abs(match.saved - 1e-7) <= 1e-7
    assert match.around[0] <= 1e-7 < match.around[1]


def test_kl_is_compared_answer_by_answer(pocket):
    _, _, book = pocket
    counted = {beta: ledger.counts(book, rules.Power(beta), POLICY) for beta in (0.5, 0.9, 1.0)}
    same = equal_savings.log_kl_ratio(counted[0.5], counted[0.5])
    assert (same.low, same.estimate, same.high) == (0, 0, 0)
    found = equal_savings.log_kl_ratio(counted[0.5], counted[0.9])
    ratio = counted[0.5].per_token("kl") / counted[0.9].per_token("kl")
    assert np.exp(found.estimate) == pytest.approx(ratio)
    assert 0 < found.low < found.estimate < found.high
    assert equal_savings.log_kl_ratio(counted[0.5], counted[1.0]).missing == "no KL to compare"


def test_the_table_says_what_was_reached_and_why_not(read, half_of_sqrt):
    listed = {
        "power": (rules.Power, [0.99, 0.2]),
        "in steps": (lambda knob: rules.Gated(knob, gate="max_prob"), [1.1, 0.0]),
        "too little": (rules.Additive, [0.0, 1e-6]),
    }
    _, matches = equal_savings.equal_savings(read, listed, half_of_sqrt, POLICY)
    _, coarse = equal_savings.equal_savings(
        read, {"in steps": listed["in steps"]}, 1e-7, POLICY, rounds=2
    )
    matches["in steps"] = coarse["in steps"]
    strict = ledger.counts(read({"s": rules.STRICT}), "s", POLICY).calls_per_token
    nobody = stats.family({}, above=0)
    run = {"by a window": (0.3, stats.Interval(0.002, 0.001, 0.003, 9))}
    table = tables.at_equal_savings(matches, strict, nobody, nobody, run)
    power, steps, little, window = table["target calls saved"]
    assert power == f"{100 * matches['power'].saved / strict:.3f} %"
    assert "(in steps: 0.000 or " in steps
    assert little.endswith("(not matched: at most)")
    assert window == "0.20 % [0.10, 0.30] (a direct run)"
