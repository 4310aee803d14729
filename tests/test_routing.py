"""Who writes which token: the laws of routed and stepwise answers, against their own recursion."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import table, table_pair
from scipy.stats import chisquare

from helpers import decoding, rules, tables, tasks
from helpers.decoding import routed as routed_module
from helpers.decoding import stepwise as stepwise_module
from helpers.methods import Autoregressive, Glimpse, Routed, Sampling

TABLES = {"draft": table(2), "one": table(3), "two": table(4)}
TARGET = table(1)
START = (0, 1)
LENGTH = 3
N = 3000
TAU, BACK = 0.95, 0.9


@pytest.fixture(scope="module")
def team():
    """A draft, a target and two experts over three words."""
    pair = table_pair(TABLES["draft"], TARGET)
    experts = {name: table_pair(TABLES[name], TARGET).draft for name in ("one", "two")}
    return replace(pair, experts=experts)


@pytest.fixture(scope="module")
def pocket_team():
    from helpers.models import load_pair

    return load_pair("pocket", device="cpu", experts=True)


def counts_of(pair, method):
    """How often each answer was written, of N."""
    keys = [(8, i) for i in range(N)]
    answers = decoding.decode(pair, method, [list(START)] * N, keys, max_new_tokens=LENGTH)
    counts = dict.fromkeys(itertools.product(range(3), repeat=LENGTH), 0)
    for answer in answers:
        counts[tuple(answer.tokens)] += 1
    return counts


def p_value(counts, law):
    total = sum(law.values())  # 1, but for the rounding of single-precision tables
    expected = [N * law[tokens] / total for tokens in counts]
    return chisquare(list(counts.values()), expected).pvalue


def entropy(probabilities):
    return rules.entropy(probabilities.double()).item()


def routed_law(choice):
    """Law of routed answers. choice(models: name -> distribution) -> [(weight, speaker, law)].

    It is asked where the draft's entropy exceeds TAU; a speaker goes on while its own is at most
    BACK.
    """
    law = {}

    def go_on(tokens, speaker, weight):
        if len(tokens) == LENGTH:
            law[tokens] = law.get(tokens, 0) + weight
            return
        said = {name: model(START + tokens).double() for name, model in TABLES.items()}
        if speaker != "draft" and entropy(said[speaker]) > BACK:
            speaker = "draft"
        options = [(1.0, speaker, said[speaker])]
        if speaker == "draft" and entropy(said["draft"]) > TAU:
            options = choice(said)
        for share, name, drawn_from in options:
            for x in range(3):
                go_on((*tokens, x), name, weight * share * drawn_from[x].item())

    go_on((), "draft", 1.0)
    return law


def surest(said):
    name = min(said, key=lambda name: entropy(said[name]))
    return [(1.0, name, said[name])]


def at_random(keep):
    def choose(said):
        shares = {"draft": keep, "one": (1 - keep) / 2, "two": (1 - keep) / 2}
        return [(share, name, said[name]) for name, share in shares.items()]

    return choose


def average(*names):
    def choose(said):
        return [(1.0, "draft", sum(said[name] for name in names) / len(names))]

    return choose


LAWS = {
    "entropy": (Routed(TAU, BACK), surest, at_random(1 / 3)),
    "random": (Routed(TAU, BACK, "random", keep=0.6), at_random(0.6), at_random(0.0)),
    "random, all alike": (Routed(TAU, BACK, "random"), at_random(1 / 3), at_random(0.6)),
    "mean": (Routed(TAU, BACK, "mean"), average("draft", "one", "two"), average("one", "two")),
}


@pytest.mark.parametrize("name", LAWS)
def test_routed_answers_have_their_law(team, name):
    """Chi-square over whole answers, 0.1 %, fixed seed; a neighbouring law is told apart."""
    method, choice, other = LAWS[name]
    counts = counts_of(team, method)
    law = routed_law(choice)
    assert math.isclose(sum(law.values()), 1, abs_tol=1e-6)
    assert p_value(counts, law) > 1e-3
    assert p_value(counts, routed_law(other)) < 1e-6


def test_everywhere_the_mean_is_the_plain_average(team, monkeypatch):
    """With tau < 0 every token is drawn from (draft + one + two) / 3, exactly."""
    drawn_from = []

    def keeping(probs, u):
        drawn_from.append(probs)
        return sample(probs, u)

    sample = routed_module.sample
    monkeypatch.setattr(routed_module, "sample", keeping)
    method = Routed(-1.0, choose="mean")
    (answer,) = decoding.decode(team, method, [list(START)], [(1, 1)], max_new_tokens=5, trace=True)
    for position, probs in enumerate(drawn_from):
        prefix = (*START, *answer.tokens[:position])
        expected = sum(model(prefix) for model in TABLES.values()) / 3
        assert torch.allclose(probs[0], expected, atol=1e-6)
    assert set(answer.trace.source) == {"mean"}
    assert answer.switches == 0 and answer.draft_calls == 15


def test_the_mean_averages_what_is_sampled_from(team):
    """At temperature 0 it is a vote: half of the weight cannot go to a word nobody puts first."""
    greedy = Sampling(0.0)
    (answer,) = decoding.decode(
        team, Routed(-1.0, choose="mean"), [list(START)], [(1, 1)], sampling=greedy,
        max_new_tokens=6,
    )  # fmt: skip
    for position, token in enumerate(answer.tokens):
        prefix = (*START, *answer.tokens[:position])
        assert token in {model(prefix).argmax().item() for model in TABLES.values()}


def test_a_control_that_always_keeps_is_the_draft(pocket_team):
    prompts = [pocket_team.encode(p.messages) for p in tasks.load("pocket-law", 6)]
    keys = [(4, i) for i in range(6)]
    kept, alone = (
        decoding.decode(pocket_team, method, prompts, keys, max_new_tokens=30)
        for method in (Routed(0.3, 0.5, "random", keep=1.0), Autoregressive("draft"))
    )
    assert [a.tokens for a in kept] == [a.tokens for a in alone]
    assert all(a.switches == 0 for a in kept) and sum(a.caught_up for a in kept) > 0


# ---- GlimpRouter -------------------------------------------------------------------------------

STEP_END = "b"  # of the three words a, b, c


def stepwise_law(tau, steps=True):
    """Law of stepwise answers; without `steps` every token is a step of its own."""
    law = {}

    def go_on(tokens, by_target, weight):
        if len(tokens) == LENGTH:
            law[tokens] = law.get(tokens, 0) + weight
            return
        q = TABLES["draft"](START + tokens).double()
        if not steps or not tokens or "abc"[tokens[-1]] == STEP_END:
            by_target = entropy(q) >= tau
        drawn_from = TARGET(START + tokens).double() if by_target else q
        for x in range(3):
            go_on((*tokens, x), by_target, weight * drawn_from[x].item())

    go_on((), False, 1.0)
    return law


def test_stepwise_answers_have_their_law(team):
    """A whole step is one model's, its first token too; token by token would be another law."""
    counts = counts_of(team, Glimpse(TAU, ends=(STEP_END,)))
    assert p_value(counts, stepwise_law(TAU)) > 1e-3
    assert p_value(counts, stepwise_law(TAU, steps=False)) < 1e-6


@pytest.mark.parametrize("tau, alone", [(math.inf, "draft"), (-1.0, "target")])
def test_stepwise_limits(team, tau, alone):
    """No step or every step to the target; then the draft looks at steps' first tokens alone."""
    law = {}
    model = TARGET if alone == "target" else TABLES["draft"]
    for tokens in itertools.product(range(3), repeat=LENGTH):
        law[tokens] = math.prod(model(START + tokens[:i])[x].item() for i, x in enumerate(tokens))
    assert p_value(counts_of(team, Glimpse(tau, ends=(STEP_END,))), law) > 1e-3


def test_steps_end_at_sentences_and_lines(pocket_team):
    """The draft is asked at the first token of a step and wherever it writes, nowhere else."""
    prompts = [pocket_team.encode(p.messages) for p in tasks.load("pocket-arithmetic", 12)]
    keys = [(4, i) for i in range(12)]
    method = Glimpse(0.3)
    answers = decoding.decode(pocket_team, method, prompts, keys, max_new_tokens=40, trace=True)
    both = set()
    for answer in answers:
        written = answer.trace
        words = [pocket_team.decode([token]) for token in written.token]
        begins = [i == 0 or words[i - 1].endswith(method.ends) for i in range(len(words))]
        by_target = None
        for begin, speaker, H in zip(begins, written.source, written.H_q):
            if begin:
                by_target = H >= method.tau
            assert speaker == ("target" if by_target else "draft")
            assert math.isnan(H) == (by_target and not begin)
        both |= set(written.source)
        assert answer.target_calls == (written.source == "target").sum()
        assert answer.draft_calls == written.H_q.notna().sum()
    assert both == {"draft", "target"}


def test_a_row_does_not_depend_on_its_neighbours(pocket_team):
    prompts = [pocket_team.encode(p.messages) for p in tasks.load("pocket-arithmetic", 5)]
    keys = [(1, i) for i in range(5)]
    for method in (Glimpse(0.3), Routed(0.2, 0.5, "mean"), Routed(0.2, 0.5, "random", keep=0.4)):
        together = decoding.decode(pocket_team, method, prompts, keys, max_new_tokens=30)
        alone = [
            decoding.decode(pocket_team, method, [prompt], [key], max_new_tokens=30)[0]
            for prompt, key in zip(prompts, keys)
        ]
        assert [a.tokens for a in together] == [a.tokens for a in alone]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Routed(choose="best"), "entropy, random or mean"),
        (lambda: Routed(keep=1.5), "keep was 1.5"),
        (lambda: Glimpse(math.nan), "tau was NaN"),
        (lambda: Glimpse(ends="."), "must be texts at which a step ends"),
    ],
)
def test_bad_input_is_one_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_window_holds_every_end():
    assert all(len(end) < stepwise_module.WINDOW for end in Glimpse().ends)


# ---- the best single expert --------------------------------------------------------------------


def test_the_best_single_expert_is_chosen_elsewhere():
    """Each half's answers are those of the expert that is best in the other half, tasks alike."""
    answers = [
        ("one", "a/0", 0.5),
        ("one", "b/0", 1.0),
        ("two", "b/0", 0.5),
        *[("two", "a/0", 0.8)] * 50,  # many problems of a task must not outvote another task
        ("one", "a/1", 0.2),
        ("two", "a/1", 0.6),
    ]
    rows = pd.DataFrame(answers, columns=["method", "problem_id", "score"])
    rows = rows.assign(task=rows.problem_id.str[0])
    half = rows.problem_id.str[-1].astype(int)
    chosen = tables.best_elsewhere(rows, half, "best")
    assert set(chosen.method) == {"best"}
    by_half = dict(list(chosen.groupby(chosen.problem_id.str[-1].astype(int))))
    assert by_half[1].score.tolist() == [0.2]  # "one" is best in half 0
    assert len(by_half[0]) == 51  # and "two" in half 1
