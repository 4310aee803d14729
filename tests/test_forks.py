"""Forks against exact enumeration on a model of three words, and wrong ways to draw them."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import table, table_pair

from helpers import common, decoding, forks, models, rules, tables, tasks
from helpers.methods import Fixed, Sampling, Speculative
from helpers.tasks import sandbox

TARGET = table(120, sharp=2.0)
DRAFT = table(300, sharp=2.0)
PROMPT = (0, 1)
LENGTH = 4
N = 3000  # answers, and forks
GATE = 0.7  # nats; forks are drawn half below it
INNER = rules.SQRT
TEXTS = ["".join(letters) for letters in itertools.product("abc", repeat=LENGTH)]
# Tables and grades are such that each wrong way below gives a number of its own.
GRADES = dict(zip(TEXTS, np.random.default_rng(4).random(len(TEXTS)) < 0.5))
FOUR = 4  # standard errors: a right estimate fails once in 16,000


class TinyPair(models.Pair):
    """Two tables for which every chat is the same prompt."""

    def encode(self, messages):
        return list(PROMPT)


def tiny_pair(eos=(9,)):
    return TinyPair(**vars(table_pair(DRAFT, TARGET, eos)))


def score(text):
    """A made-up grade: 1 for half of all texts."""
    return float(GRADES[text])


def laws(tokens):
    """p, q and the draft's entropy after some tokens."""
    p = TARGET(PROMPT + tokens).double()
    q = DRAFT(PROMPT + tokens).double()
    return p, q, rules.entropy(q).item()


def value(tokens):
    """Expected score of an answer that goes on strictly from these tokens."""
    if len(tokens) == LENGTH:
        return score("".join("abc"[token] for token in tokens))
    p, _, _ = laws(tokens)
    return sum(p[x].item() * value((*tokens, x)) for x in range(3))


def terms(after_a_rescue=False):
    """(probability, H, TV, TV h) of every place where a rescue could stand, by enumeration.

    after_a_rescue: in texts of the relaxed rule that hold one already.
    """
    found = []

    def go_on(tokens, weight, is_rescued):
        if len(tokens) == LENGTH:
            return
        p, q, H = laws(tokens)
        rescues = q * (INNER.accept(p, q) - rules.STRICT.accept(p, q))
        replacement = rules.STRICT.residual(p, q)
        strict = sum(replacement[x].item() * value((*tokens, x)) for x in range(3))
        harm = sum(rescues[x].item() * (strict - value((*tokens, x))) for x in range(3))
        if is_rescued == after_a_rescue:
            found.append((weight, H, rescues.sum().item(), harm))
        rejected = 1 - (q * INNER.accept(p, q)).sum()
        for x in range(3):
            if after_a_rescue:  # the relaxed rule's text: agreed upon, replaced, or rescued
                kept = q[x] * rules.STRICT.accept(p, q)[x] + rejected * replacement[x]
                go_on((*tokens, x), weight * rescues[x].item(), True)
                go_on((*tokens, x), weight * kept.item(), is_rescued)
            else:
                go_on((*tokens, x), weight * p[x].item(), False)

    go_on((), 1.0, False)
    return found


def harm_per_rescue(terms, tau=np.inf):
    open_terms = [term for term in terms if term[1] <= tau]
    total = sum(weight * tv for weight, _, tv, _ in open_terms)
    return sum(weight * harm for weight, _, _, harm in open_terms) / total


@pytest.fixture(scope="module")
def tiny():
    return tiny_pair()


@pytest.fixture(scope="module")
def problems():
    return [tasks.Problem(f"tiny/{i}", "tiny", (), None, LENGTH) for i in range(N)]


@pytest.fixture(scope="module", autouse=True)
def graded(tmp_path_factory):
    """A task whose grade is made up, and no cache that outlives this file."""
    task = tasks.Task(
        file="none",
        fields=("text",),
        prompt=lambda row: [],
        reference=lambda row: None,
        grade=lambda reference, text: tasks.Grade(score(text), ""),
        max_new_tokens=LENGTH,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "tiny", task)
        patch.setattr(common, "CACHE", tmp_path_factory.mktemp("cache"))
        yield


def answers_of(pair, problems, rule=rules.STRICT):
    """Generations of a rule, as the experiment returns them, and their traces."""
    keys = [(11, i) for i in range(len(problems))]
    method = Speculative(rule, Fixed(2))
    prompts = [list(PROMPT)] * len(problems)
    answers = decoding.decode(pair, method, prompts, keys, max_new_tokens=LENGTH, trace=True)
    names = [problem.id for problem in problems]
    tokens = [answer.tokens for answer in answers]
    rows = pd.DataFrame({"problem_id": names, "seed": 0, "tokens": tokens})
    return rows, [answer.trace for answer in answers]


@pytest.fixture(scope="module")
def rows(tiny, problems):
    """Answers of the strict rule."""
    return answers_of(tiny, problems)[0]


@pytest.fixture(scope="module")
def places(tiny, problems, rows):
    return forks.points(tiny, problems, rows, inner=INNER)


@pytest.fixture(scope="module")
def forked(tiny, problems, rows, places):
    chosen = forks.draw(places, N, places.H_q <= GATE)
    return forks.follow(tiny, problems, rows, chosen)


def weighted_mean(values, weights):
    """Mean and standard error of values with weights."""
    share = weights / weights.sum()
    mean = (share * values).sum()
    return mean, np.sqrt((share**2 * (values - mean) ** 2).sum())


def is_near(values, weights, truth):
    mean, error = weighted_mean(values, weights)
    assert error < 0.05
    return abs(mean - truth) < FOUR * error


# ---- what is estimated -------------------------------------------------------------------------


def test_a_rule_relaxed_at_one_position_loses_what_is_summed_there():
    """Score(strict) - score(relaxed at n alone), over all n, is the sum of TV h. Enumerated."""

    def relaxed_at(n, tokens=()):
        if len(tokens) == LENGTH:
            return value(tokens)
        p, q, H = laws(tokens)
        law = p
        if len(tokens) == n:
            signals = rules.Signals(torch.tensor([H]))
            law = rules.output_distribution(INNER, p[None], q[None], signals)[0][0]
        return sum(law[x].item() * relaxed_at(n, (*tokens, x)) for x in range(3))

    lost = sum(value(()) - relaxed_at(n) for n in range(LENGTH))
    assert lost == pytest.approx(sum(weight * harm for weight, _, _, harm in terms()), abs=1e-6)


def test_the_law_of_rescues_is_what_the_rule_adds_to_strict():
    p = torch.rand(50, 7).softmax(-1).double()
    q = (4 * torch.rand(50, 7)).softmax(-1).double()
    rescues = forks.rescue_law(INNER, p, q)
    o, rejected = rules.output_distribution(INNER, p, q, rules.Signals(rules.entropy(q)))
    assert torch.allclose(rescues.sum(-1), rules.tv(p, q) - rejected)
    assert torch.allclose(rescues.sum(-1), rules.tv(o, p))
    assert torch.allclose((o - p).clamp(min=0), rescues)  # a rescue is where o exceeds p


# ---- the draw ----------------------------------------------------------------------------------


def test_every_point_stands_for_its_own_rescues(places):
    """Averaged over the draw's one uniform, weights are tv; in each draw they sum to all of it."""
    some = places.head(40).reset_index(drop=True)
    total = np.zeros(len(some))
    draws = 800
    for seed in range(draws):
        chosen = forks.draw(some, 10, some.H_q <= GATE, seed)
        assert chosen.weight.sum() == pytest.approx(some.tv.sum())
        total[chosen.index] += chosen.weight
    # a weight is 0 or one step (sometimes two): its spread is below step / 2
    steps = some.groupby(some.H_q <= GATE).tv.transform("sum") / 5
    assert (abs(total / draws - some.tv) < 5 * steps / 2 / draws**0.5).all()


def test_sides_get_equal_numbers_and_a_side_without_rescues_none(places):
    chosen = forks.draw(places, 200, places.H_q <= GATE)
    counts = (chosen.H_q <= GATE).value_counts()
    assert abs(counts[True] - counts[False]) <= 20  # points that came up twice
    still = places.assign(tv=places.tv.where(places.H_q > GATE, 0.0))
    assert (forks.draw(still, 50, still.H_q <= GATE).H_q > GATE).all()
    assert forks.draw(places.assign(tv=0.0), 50, places.H_q <= GATE).empty


# ---- the estimate ------------------------------------------------------------------------------


def test_the_weighted_mean_is_the_true_harm(forked):
    assert is_near(forked.harm, forked.weight, harm_per_rescue(terms()))


@pytest.mark.parametrize("tau", [0.45, 0.6, GATE, 0.9])
def test_one_set_answers_for_every_gate(forked, tau):
    part = forked[forked.H_q <= tau]
    assert len(part) > 300
    assert is_near(part.harm, part.weight, harm_per_rescue(terms(), tau))


def test_expected_rescues_are_counted(places, forked):
    """Weights and tv sum to what enumeration expects: 5 standard errors of N answers."""
    expected = N * sum(weight * tv for weight, _, tv, _ in terms())
    by_answer = places.groupby("problem_id").tv.sum()
    assert abs(by_answer.sum() - expected) < 5 * by_answer.std() * N**0.5
    assert forked.weight.sum() == pytest.approx(by_answer.sum())


def test_a_mean_without_weights_is_wrong(forked):
    assert not is_near(forked.harm, pd.Series(1.0, forked.index), harm_per_rescue(terms()))


def test_positions_chosen_without_tv_are_wrong(tiny, problems, rows, places):
    anywhere = places.sample(N, random_state=0).sort_index().assign(weight=1.0)
    found = forks.follow(tiny, problems, rows, anywhere)
    assert not is_near(found.harm, found.weight, harm_per_rescue(terms()))


def test_prefixes_after_an_earlier_rescue_are_wrong(tiny, problems):
    """They estimate another number, which enumeration gives too."""
    relaxed, traces = answers_of(tiny, problems, INNER)
    places = forks.points(tiny, problems, relaxed, inner=INNER)
    first = [trace.position[trace.rescued.eq(True)].min() for trace in traces]  # NaN: none
    later = places.position > places.problem_id.map(dict(zip(relaxed.problem_id, first)))
    places = places[later]
    found = forks.follow(tiny, problems, relaxed, forks.draw(places, N, places.H_q <= GATE))
    assert not is_near(found.harm, found.weight, harm_per_rescue(terms()))


def test_the_placebo_is_zero_on_average_and_not_always(forked):
    assert is_near(forked.placebo, forked.weight, 0.0)
    assert (forked.placebo != 0).sum() > 100
    same = forked[forked.strict == forked.again]
    assert len(same) > 100 and (same.placebo == 0).all()


# ---- how branches go on ------------------------------------------------------------------------


def test_branches_stop_at_ends_and_at_their_own_length(problems):
    pair = tiny_pair(eos=(2,))
    starts = [(2,), (0, 2), (0,), (0, 1, 0), (0, 1, 0, 1)]
    jobs = [(problem, 3, start) for problem, start in zip(problems, starts)]
    answers = forks._answers(pair, jobs, Sampling(), batch_size=8)
    assert answers[0] == [2] and answers[1] == [0, 2] and answers[4] == [0, 1, 0, 1]
    for start, answer in zip(starts, answers):
        assert tuple(answer[: len(start)]) == start and len(answer) <= LENGTH
        assert answer[-1] == 2 or len(answer) == LENGTH


def test_a_branch_goes_on_as_the_target(tiny, problems):
    """Chi-square of what follows one start, 0.1 %, fixed seed."""
    from scipy.stats import chisquare

    start = (0, 1)
    jobs = [(problem, 5, start) for problem in problems]
    answers = forks._answers(tiny, jobs, Sampling(), batch_size=500)
    rest = list(itertools.product(range(3), repeat=LENGTH - len(start)))
    counts = [sum(tuple(answer[2:]) == tokens for answer in answers) for tokens in rest]
    law = [
        laws(start)[0][first].item() * laws((*start, first))[0][second].item()
        for first, second in rest
    ]
    assert chisquare(counts, N * np.array(law) / sum(law)).pvalue > 1e-3


def test_interrupted_branches_go_on_where_they_were(tiny, problems, monkeypatch):
    jobs = [(problem, 9, (0, 1)) for problem in problems[:6]]
    whole = forks._answers(tiny, jobs, Sampling(), batch_size=6)
    calls = []

    def stops_at_the_third(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decoding.decode(*arguments, **options)

    monkeypatch.setattr(forks, "decode", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        forks._answers(tiny, jobs, Sampling(), batch_size=2)
    assert forks._answers(tiny, jobs, Sampling(), batch_size=2) == whole
    assert len(calls) == 4


def test_at_temperature_0_nothing_is_rescued(tiny, problems, rows):
    places = forks.points(tiny, problems[:50], rows.head(50), sampling=Sampling(0.0))
    assert (places.tv == 0).all()


def test_grades_are_of_what_could_grade(tiny, problems, monkeypatch):
    """Where no program could be run, or the grader was another, forks are graded anew."""
    jobs = [(problem, 7, (0, 1, 2)) for problem in problems[:3]]
    asked = []

    def grade_many(answers):
        asked.append(len(answers))
        return [tasks.Grade(float(len(asked)), "") for _ in answers]

    monkeypatch.setattr(tasks, "grade_many", grade_many)
    monkeypatch.setattr(sandbox, "possible", lambda: False)
    for _ in range(2):
        assert forks._scores(tiny, jobs, Sampling(), 8) == [1] * 3
    monkeypatch.setattr(sandbox, "possible", lambda: True)
    assert forks._scores(tiny, jobs, Sampling(), 8) == [2] * 3
    other = replace(tasks.TASKS["tiny"], grade=lambda reference, text: tasks.Grade(0.5, ""))
    monkeypatch.setitem(tasks.TASKS, "tiny", other)
    assert forks._scores(tiny, jobs, Sampling(), 8) == [3] * 3
    assert asked == [3, 3, 3]


# ---- what is said of them ----------------------------------------------------------------------


def test_intervals_are_of_weighted_means(forked):
    """The interval covers the truth, and has the width of the weighted mean's standard error."""
    for tau in (GATE, np.inf):
        part = forked[forked.H_q <= tau]
        mean, error = weighted_mean(part.harm, part.weight)
        found = tables.per_rescue(forked, "harm", tau)
        assert found.estimate == pytest.approx(mean)
        assert found.low < harm_per_rescue(terms(), tau) < found.high
        assert found.half_width == pytest.approx(1.96 * error, rel=0.25)


def test_harm_per_answer_is_rescues_times_harm(forked, places):
    """Its truth is what a rule loses that is relaxed at one position, summed over positions."""
    expected = places.groupby("problem_id").tv.sum()
    found = tables.per_answer(forked, "harm", expected)
    assert found.estimate == pytest.approx(
        expected.mean() * tables.per_rescue(forked, "harm").estimate
    )
    assert found.low < sum(weight * harm for weight, _, _, harm in terms()) < found.high


def test_the_two_sides_are_compared_above_minus_below(forked):
    above = [term for term in terms() if term[1] > GATE]
    truth = harm_per_rescue(above) - harm_per_rescue(terms(), GATE)
    found = tables.safer_below(forked, "harm", GATE)
    assert found.low < truth < found.high and abs(truth) > 0.1


def test_few_or_ungraded_forks_give_a_reason_and_no_number(forked):
    few = forked.head(3)
    ungraded = forked.assign(harm=np.nan)
    for part in (few, ungraded, forked.head(0)):
        assert tables.per_rescue(part, "harm").missing == "too few graded forks"
        assert tables.safer_below(part, "harm", GATE).missing
        expected = pd.Series(0.1, forked.problem_id.unique())
        assert tables.per_answer(part, "harm", expected).missing
