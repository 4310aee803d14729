"""The ledger against exact enumeration of the engine, its limits, direct runs, and mutants."""

import dataclasses
import types
from functools import cache

import numpy as np
import pytest
from conftest import ROOT, TableLM, table
from test_decoding import Choices, fresh

from helpers import common, ledger, models, rules, tasks
from helpers.ledger import programme
from helpers.methods import (
    Confidence,
    EntropyStop,
    Fixed,
    Speculative,
    SqrtEntropyStop,
)

TARGET, DRAFT = table(1), table(2)
PROMPT = [0, 1]
LENGTH = 4  # the longest answer
END = 2  # the end token, one of the three words
COPIES = 2000  # answers that stand for the law of the texts: each as often as it is likely
POLICIES = [
    Fixed(1),
    Fixed(2),
    Fixed(3),
    Fixed(4),
    EntropyStop(3, 0.9),
    Confidence(4, 0.4),
    SqrtEntropyStop(3, 0.2, 0.55),
]


class Words:
    """A tokenizer for three words whose every prompt is the same."""

    chat_template = "none"

    def decode(self, tokens, skip_special_tokens=True):
        return "".join("abc"[t] for t in tokens)

    def apply_chat_template(self, messages, **options):
        return "ab"

    def __call__(self, text, **options):
        return types.SimpleNamespace(input_ids=list(PROMPT))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Pairs of tables all have one revision: nothing of them may be kept."""
    monkeypatch.setattr(common, "CACHE", tmp_path_factory.mktemp("cache"))


def words(draft=DRAFT, target=TARGET):
    return models.Pair("words", TableLM(draft), TableLM(target), Words(), (END,), {}, "0", "plain")


def texts(target=TARGET):
    """Every text of the target with its probability: {tokens: P}."""
    whole = {}
    growing = {(): 1.0}
    while growing:
        longer = {}
        for text, chance in growing.items():
            if len(text) == LENGTH or END in text:
                whole[text] = chance
                continue
            p = target((*PROMPT, *text)).double()
            for x in range(3):
                longer[*text, x] = chance * (p[x] / p.sum()).item()
        growing = longer
    return whole


def problem(number=0):
    return tasks.Problem(f"words/{number}", "words", ({"content": str(number)},), None, LENGTH)


def ledger_of(draft=DRAFT, target=TARGET, named=None, continuations=4000):
    """A ledger of COPIES answers, every text in proportion to its probability."""
    law = texts(target)
    times = np.diff(np.round(COPIES * np.cumsum([0.0, *law.values()]))).astype(int)
    answers = [text for text, n in zip(law, times) for _ in range(n)]
    return ledger.read(
        words(draft, target),
        [problem(number) for number in range(len(answers))],
        answers,
        rules=named,
        continuations=continuations,
    )


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "CACHE", ROOT / "tests" / "no-such-cache")
        patch.setattr("helpers.store.keep", lambda file, value: None)
        return ledger_of(named={"odd": rules.Lenience(0.42)})


@cache
def by_hand(rule, policy):
    """Every draft and every acceptance: {text: (P, E[rounds], E[drafted], E[accepted] given it)}.

    What begins a round is its prefix alone, so rounds are enumerated prefix by prefix: `begun`
    holds the probability that a round begins there, and the expected counts so far, times it.
    """
    begun = {(): np.array([1.0, 0.0, 0.0, 0.0])}
    ended = {}
    while begun:
        prefix = min(begun, key=len)
        so_far = begun.pop(prefix)
        for chance, drafts, n, after in one_round(rule, policy, prefix):
            text = (*prefix, *drafts[:n], *after)
            sums = chance * (so_far + so_far[0] * np.array([0, 1, len(drafts), n]))
            book = ended if END in text or len(text) == LENGTH else begun
            book[text] = book.get(text, 0) + sums
    return {text: (s[0], *(s[1:] / s[0])) for text, s in ended.items() if s[0] > 0}


def laws(prefix):
    """p, q and the signals after a prefix."""
    p = TARGET((*PROMPT, *prefix))
    q = DRAFT((*PROMPT, *prefix))
    return p, q, rules.Signals(rules.entropy(q), rules.entropy(p), q.amax())


def one_round(rule, policy, prefix):
    """(chance, drafts, how many are accepted, the token after them) of every way a round can go."""
    for drafts, chance in blocks(policy, prefix, (), 1.0):
        for n in range(len(drafts) + 1):
            before = (*prefix, *drafts[:n])
            p, q, signals = laws(before)
            if n == len(drafts):
                if n and drafts[-1] == END:
                    yield chance, drafts, n, ()
                    continue
                law = p
                here = chance
            else:
                x = drafts[n]
                wide = signals.each(lambda value: value.expand(3))
                a = rules.accept_prob(rule, p, q, wide)[x].item()
                law = rules.residual(rule, p[None], q[None], signals.each(lambda v: v[None]))[0]
                here = chance * (1 - a)
                chance *= a
            for token in range(3):
                weight = here * law[token].item()
                if weight > 0:
                    yield weight, drafts, n, (token,)


def blocks(policy, prefix, drafts, chance):
    """(drafts, probability) of every block that the policy may draft after a prefix."""
    room = LENGTH - len(prefix) - 1
    stops = len(drafts) == min(policy.gamma, room)
    if drafts and not stops:
        _, q, signals = laws((*prefix, *drafts[:-1]))
        on = policy.go_on(signals.H_q, q[drafts[-1]], len(drafts) - 1)
        stops = drafts[-1] == END or (policy.adaptive and not on)
    if stops:
        yield drafts, chance
        return
    _, q, _ = laws((*prefix, *drafts))
    for x in range(3):
        yield from blocks(policy, prefix, (*drafts, x), chance * q[x].item())


def by_engine(rule, policy):
    """The same by running every path of the decoder."""
    module, choices, sums = fresh(), Choices(), {}
    module.sample, module.accepts = choices.sample, choices.accepts
    method = Speculative(rule, policy)
    while True:
        (answer,) = module.decode(words(), method, [PROMPT], [(0, 0)], max_new_tokens=LENGTH)
        counted = np.array([1.0, answer.target_calls, answer.drafted, answer.accepted])
        text = tuple(answer.tokens)
        sums[text] = sums.get(text, 0) + choices.weight * counted
        if not choices.advance():
            return {text: (s[0], *(s[1:] / s[0])) for text, s in sums.items() if s[0] > 0}


@pytest.mark.parametrize("rule", [rules.STRICT, rules.SP_entropy(0.9)], ids=str)
def test_the_enumeration_is_that_of_the_engine(rule):
    policy = EntropyStop(2, 0.9)
    ours, engine = by_hand(rule, policy), by_engine(rule, policy)
    assert ours.keys() == engine.keys()
    for text, counted in engine.items():
        assert ours[text] == pytest.approx(counted, rel=1e-4)


def expected(paths):
    """Tokens per round, accept ratio and drafts per round over all texts."""
    chance, rounds, drafted, accepted = np.array(list(paths.values())).T
    tokens = np.array([len(text) for text in paths])
    calls = chance @ rounds
    return chance @ tokens / calls, chance @ accepted / (chance @ drafted), chance @ drafted / calls


def predicted(counted):
    return (
        counted.tokens_per_round,
        counted.accept_ratio,
        counted.total("drafted") / counted.total("rounds"),
    )


def given_the_text(counted, book, paths):
    """The largest error of rounds and acceptances, answer by answer."""
    answers = np.split(book.positions.token.to_numpy(), np.cumsum(book.lengths)[:-1])
    truth = np.array([paths[tuple(answer.tolist())] for answer in answers])
    frame = counted.frame
    return max(
        abs(frame.rounds - truth[:, 1]).max(),
        abs(frame.accepted - truth[:, 3]).max(),
    )


# ---- strict: exact -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_strict_is_exact_given_the_text(tiny, policy):
    paths = by_hand(rules.STRICT, policy)
    counted = ledger.counts(tiny, rules.STRICT, policy)
    assert given_the_text(counted, tiny, paths) < 1e-5
    # What all texts together give is off by the rounding of their number to whole copies, and
    # drafts after a rejection by the noise of 4000 continuations.
    np.testing.assert_allclose(predicted(counted), expected(paths), rtol=4e-3)
    frame = counted.frame
    np.testing.assert_allclose(frame.emitted, tiny.lengths, rtol=1e-12)
    np.testing.assert_allclose(counted.widths.sum(1), frame.rounds, rtol=1e-9)
    np.testing.assert_allclose(counted.acceptances.sum(1), frame.rounds, rtol=1e-9)


MUTANTS = {
    "no bonus": ("ends = alive.copy()", "ends = alive.copy()\n    ends[1:] *= drafts[1:]"),
    "eos ignored": ("(n < ledger.room) & ledger.inside[:, n : n + width]", "(n < ledger.room)"),
    "no room kept for the bonus": ("(n < ledger.room)", "(n < ledger.room + 1)"),
    "a stop drops its token": (
        "drafts[n] = going\n",
        "drafts[n] = going & np.asarray(policy.go_on(H, q_y, n))[:, n : n + width]\n",
    ),
    "the draft stops when it is wrong": ("further[n] += still", "further[n] += still & False"),
    "the draft never stops by itself": (
        "going = [np.asarray(policy.go_on(H, q_x, j)) & ~table.is_end for j in range(gamma)]",
        "pass",
    ),
}


def mutant(old, new):
    """The programme's `counts` with a piece of its source replaced."""
    source = (ROOT / "helpers" / "ledger" / "programme.py").read_text(encoding="utf-8")
    assert source.count(old) == 1, f"the mutant's place occurs {source.count(old)} times"
    module = types.ModuleType("programme_copy")
    module.__dict__["__name__"] = programme.__name__
    exec(compile(source.replace(old, new), "programme_copy", "exec"), module.__dict__)
    return module.counts


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found_out(tiny, name):
    count = mutant(*MUTANTS[name])
    worst = 0.0
    for policy in (Fixed(3), EntropyStop(3, 0.9)):
        paths = by_hand(rules.STRICT, policy)
        counted = count(tiny, rules.STRICT, policy)
        off = np.array(predicted(counted)) / expected(paths) - 1
        worst = max(worst, abs(off).max())
    assert worst > 0.015, f"{name}: off by {worst:.4f} only"


def test_p_and_q_swapped_is_found_out(tiny):
    swapped = tiny.positions.rename(columns={"p_y": "q_y", "q_y": "p_y"})
    wrong = dataclasses.replace(tiny, positions=swapped)
    paths = by_hand(rules.STRICT, Fixed(3))
    counted = ledger.counts(wrong, rules.STRICT, Fixed(3))
    assert given_the_text(counted, wrong, paths) > 0.1
