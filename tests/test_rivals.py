"""Rivals and adaptive gates: their output laws by enumeration, from the rule to the engine."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from conftest import table, table_pair
from test_decoding import Choices, assert_same, fresh

from helpers import decoding, rules, tasks
from helpers.decoding.batch import Batch
from helpers.methods import Fixed, Sampling, Speculative
from helpers.rules import Laws, Power, Signals

N, V = 300, 5
G = torch.Generator().manual_seed(3)
P, Q = (torch.randn(N, V, dtype=torch.float64, generator=G).mul(2).softmax(-1) for _ in range(2))
SCORES = P.log() + 9  # scores before the softmax are known up to a constant; these are positive
TOKEN = torch.randint(V, (N,), generator=G)
SIGNALS = Signals(
    rules.entropy(Q),
    rules.entropy(P),
    Q.amax(-1),
    torch.rand(N, dtype=torch.float64, generator=G),
    position=torch.arange(N) % 20,
    previous=torch.randint(-1, V, (N,), generator=G),
    H_recent=torch.rand(N, rules.RECENT, dtype=torch.float64, generator=G),
    laws=Laws(P, Q, P, Q, TOKEN, SCORES.topk(2, -1).values),
)
CLASSES = bytes([0, 1, 2, 2, 1])
STANDARD = [  # accept at least what strict does, and replace from norm((p - q)+)
    rules.Additive(0.5),
    rules.Ensemble(0.3),
    rules.chow(0.4),
    rules.Cascade(0.5),
    rules.FLy(0.8),
    rules.MARS(0.9),
    rules.Gated(1.0, gate="high_target_entropy"),
    rules.Spike(0.5),
    rules.EntropyAndMargin(1.2, 0.3),
    rules.Growing(0.5, 0.05),
    rules.ByClass((0.5, 1.0, 1.5), CLASSES),
    rules.ByClass((0.5, 1.0, 1.5), CLASSES, "drafted"),
    rules.WarpedEntropy(1.0),
    rules.Oracle(0.4),
    rules.Learned(0.4, (-2.0, 1.0, 0.5, -0.5, 0.1)),
]
OWN = [  # with a residual of their own, or stricter than strict somewhere
    rules.EqualPrice(2.0),
    rules.Cactus(0.1),
    rules.TokenCascade(0.5),
    rules.Fuzzy(0.1),
    rules.Tightened(0.8, 0.8, 0.5, 3),
]
ALL = [*STANDARD, *OWN]


def short(rule):
    return type(rule).__name__


def assert_close(a, b, tolerance=1e-12):
    assert (a - b).abs().max() < tolerance


@pytest.mark.parametrize("rule", ALL, ids=short)
def test_the_law_is_what_the_parts_give(rule):
    """One token at a time, as the engine asks, gives the law that is computed for all at once."""
    o, R = rules.output_distribution(rule, P, Q, SIGNALS)
    kept = torch.empty_like(Q)
    for x in range(V):
        token = torch.full((N,), x)
        signals = replace(SIGNALS, laws=replace(SIGNALS.laws, token=token))
        kept[:, x] = Q[:, x] * rules.accept_prob(rule, P[:, x], Q[:, x], signals)
    r = rules.residual(rule, P, Q, SIGNALS)
    assert_close(R, 1 - kept.sum(-1))
    assert_close(o, kept + (1 - kept.sum(-1, keepdim=True)) * r)
    assert_close(o.sum(-1), torch.ones_like(R), 1e-9)
    assert o.min() >= 0 and r.min() >= 0
    assert_close(r.sum(-1), torch.ones_like(R), 1e-9)


@pytest.mark.parametrize("rule", STANDARD, ids=short)
def test_standard_rules_lie_on_the_line(rule):
    """TV(o, p) = TV(p, q) - R, and the rule departs from strict somewhere and not everywhere."""
    o, R = rules.output_distribution(rule, P, Q, SIGNALS)
    assert_close(rules.tv(o, P), rules.tv(P, Q) - R)
    relaxed = rules.tv(o, P) > 1e-6
    assert relaxed.any()
    if rules.is_gated(rule):
        assert not relaxed.all()


def test_the_ensemble_emits_its_mixture():
    o, _ = rules.output_distribution(rules.Ensemble(0.3), P, Q, SIGNALS)
    assert_close(o, 0.7 * P + 0.3 * Q)


def test_cascades_emit_the_model_that_they_choose():
    delta = (Q - P).clamp(min=0).sum(-1)
    defers = Q.amax(-1) < P.amax(-1) - 0.5 * delta
    unsure = Q.amax(-1) < 1 - 0.4
    for rule, to_target in ((rules.Cascade(0.5), defers), (rules.chow(0.4), unsure)):
        o, R = rules.output_distribution(rule, P, Q, SIGNALS)
        assert to_target.any() and (~to_target).any()
        assert_close(o, torch.where(to_target[:, None], P, Q))
        assert_close(R, torch.where(to_target, delta, 0.0))


def test_the_token_cascade_emits_its_target():
    near = P >= 0.5 * P.amax(-1, keepdim=True)
    pi = torch.where(near, Q, 0.0) + torch.where(near, 0.0, Q).sum(-1, keepdim=True) * P
    o, R = rules.output_distribution(rules.TokenCascade(0.5), P, Q, SIGNALS)
    assert_close(o, pi)
    assert_close(R, rules.tv(pi, Q))


def test_fuzzy_emits_the_draft_or_the_target_and_rejects_all_or_nothing():
    middle = (P + Q) / 2
    divergence = ((P * (P / middle).log()).sum(-1) + (Q * (Q / middle).log()).sum(-1)) / 2
    near = divergence <= 0.1
    o, R = rules.output_distribution(rules.Fuzzy(0.1), P, Q, SIGNALS)
    assert near.any() and (~near).any()
    assert_close(o, torch.where(near[:, None], Q, P))
    assert_close(R, (~near).double())


def test_tightening_costs_calls_and_changes_no_law():
    rule = rules.Tightened(0.8, 0.8, 0.5, 3)
    o, R = rules.output_distribution(rule, P, Q, SIGNALS)
    closed = rule.open(SIGNALS)
    assert closed.any() and (~closed).any()
    assert_close(o, P)
    assert_close(R, torch.where(closed, 1.0, rules.tv(P, Q)))
    # The standard residual would emit norm((p - q)+) in place of p.
    wrong = rules.STRICT.residual(P, Q)[closed]
    assert rules.tv(wrong, P[closed]).mean() > 0.2


def cactus_by_hand(p, q, delta):
    """The law of the published algorithm, token by rejected token."""
    o = np.zeros(len(p))
    for n in range(len(p)):
        h = p * 1.0
        h[n] = min(1.0, p[n] + math.sqrt(2 * delta * p[n] * (1 - p[n])))
        others = np.arange(len(p)) != n
        h[others] = p[others] * (1 - h[n]) / (1 - p[n])
        a = min(1.0, h[n] / q[n])
        o[n] += q[n] * a
        if a < 1:
            excess = np.clip(h - q, 0, None)
            o += q[n] * (1 - a) * excess / excess.sum()
    return o


@pytest.mark.parametrize("delta", [0.0, 0.01, 0.1, 1.0])
def test_cactus_emits_what_its_authors_algorithm_does(delta):
    o, _ = rules.output_distribution(rules.Cactus(delta), P, Q, SIGNALS)
    for i in range(60):
        by_hand = cactus_by_hand(P[i].numpy(), Q[i].numpy(), delta)
        assert np.abs(o[i].numpy() - by_hand).max() < 1e-9
    if delta == 0:
        assert_close(o, P, 1e-9)
    else:
        # and the standard residual gives another law
        simple = replace_residual(rules.Cactus(delta))
        other, _ = rules.output_distribution(simple, P, Q, SIGNALS)
        assert (other - o).abs().max() > 1e-3


def replace_residual(rule):
    """A mutant: the rule's acceptance with the standard residual."""

    class Mutant:
        accept = rule.accept
        residual = Power(1.0).residual

    return Mutant()


def test_cactus_on_a_large_vocabulary_in_half_the_digits():
    g = torch.Generator().manual_seed(5)
    p, q = (torch.randn(4, 3000, generator=g).mul(3).softmax(-1) for _ in range(2))
    o, _ = rules.output_distribution(rules.Cactus(0.1), p, q, Signals(rules.entropy(q)))
    by_hand = cactus_by_hand(p[0].double().numpy(), q[0].double().numpy(), 0.1)
    assert np.abs(o[0].double().numpy() - by_hand).sum() < 1e-4


# ---- the optimum at a given mean acceptance ----------------------------------------------------


def least_kl(p, q, R):
    """The least mean KL(k + s || p) for mean rejection R, by scipy, over all positions at once."""
    n, v = p.shape
    size = n * v

    def parts(x):
        kept, added = x[:size].reshape(n, v), x[size:].reshape(n, v)
        return kept, added, np.clip(kept + added, 1e-12, None)

    def mean_kl(x):
        _, _, o = parts(x)
        return (o * np.log(o / p)).sum() / n

    def slope(x):
        _, _, o = parts(x)
        g = ((np.log(o / p) + 1) / n).ravel()
        return np.concatenate([g, g])

    best = scipy.optimize.minimize(
        mean_kl,
        np.concatenate([(q * (1 - R)).ravel(), (p * R).ravel()]),
        jac=slope,
        method="SLSQP",
        bounds=[*((0, x) for x in q.ravel()), *((0, 1) for _ in range(size))],
        constraints=[
            {"type": "eq", "fun": lambda x: parts(x)[2].sum(1) - 1},
            {"type": "eq", "fun": lambda x: parts(x)[1].sum() / n - R},
        ],
        options={"maxiter": 1000, "ftol": 1e-13},
    )
    assert best.success
    return best.fun


@pytest.mark.parametrize("ratio", [1.3, 2.0, 5.0])
def test_one_price_is_the_least_mean_kl_that_an_optimiser_finds(ratio):
    """Four positions share one budget of rejections; the fixed level spends it worse."""
    p, q = P[:4], Q[:4]
    signals = Signals(rules.entropy(q))
    o, R = rules.output_distribution(rules.EqualPrice(ratio), p, q, signals)
    ours = rules.kl(o, p).mean().item()
    assert ours == pytest.approx(least_kl(p.numpy(), q.numpy(), R.mean().item()), abs=2e-5)
    # A clip at a fixed level that rejects as much on average has more.
    low, high = 1e-3, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        _, rejected = rules.output_distribution(rules.Clip(middle), p, q, signals)
        low, high = (middle, high) if rejected.mean() < R.mean() else (low, middle)
    clipped, rejected = rules.output_distribution(rules.Clip(low), p, q, signals)
    assert rejected.mean().item() == pytest.approx(R.mean().item(), abs=1e-6)
    assert rules.kl(clipped, p).mean().item() > ours + 1e-5


def test_one_price_pays_the_same_everywhere():
    """dKL/dR = -log(t1/t2) at every position, by finite differences of one position's best KL."""
    rule = rules.EqualPrice(2.0)
    o, R = rules.output_distribution(rule, P, Q, SIGNALS)
    t1 = rule.upper_level(P, Q)
    assert_close(o, torch.minimum(torch.maximum(Q, t1 / 2 * P), t1 * P), 1e-9)
    more, further = rules.output_distribution(rules.EqualPrice(2.001), P, Q, SIGNALS)
    moved = (R - further) > 1e-7
    slope = (rules.kl(more, P) - rules.kl(o, P))[moved] / (further - R)[moved]
    assert moved.sum() > 100
    assert_close(slope, torch.full_like(slope, -math.log(2)), 1e-3)


def test_one_price_limits():
    o, R = rules.output_distribution(rules.EqualPrice(1.0), P, Q, SIGNALS)
    assert_close(o, P, 1e-9)
    assert_close(R, rules.tv(P, Q), 1e-9)
    o, R = rules.output_distribution(rules.EqualPrice(1e6), P, Q, SIGNALS)
    assert_close(o, Q, 1e-4)
    # A token that the target cannot produce is rejected at any price, and KL stays finite.
    p, q = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.5, 0.5]]).double()
    o, R = rules.output_distribution(rules.EqualPrice(1e6), p, q, Signals(rules.entropy(q)))
    assert R.item() == pytest.approx(0.5) and rules.kl(o, p).item() == pytest.approx(0, abs=1e-9)


# ---- the random gate ---------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [Power(0.5), Power(0.0), rules.Clip(0.5)], ids=str)
def test_a_random_gate_emits_the_mixture_with_its_coin_summed_out(inner):
    rate = 0.3
    gate = rules.Gated(rate, inner, "random")
    o, R = rules.output_distribution(gate, P, Q, SIGNALS)
    by_coin = []
    for u in (0.0, 0.999):  # open, closed
        coin = Signals(SIGNALS.H_q, u_gate=torch.full_like(SIGNALS.H_q, u))
        kept = Q * rules.accept_prob(gate, P, Q, coin.beside(P, Q))
        r = rules.residual(gate, P, Q, coin)
        by_coin.append((kept + (1 - kept.sum(-1, keepdim=True)) * r, 1 - kept.sum(-1)))
    (opened, R_open), (closed, R_closed) = by_coin
    assert_close(o, rate * opened + (1 - rate) * closed)
    assert_close(R, rate * R_open + (1 - rate) * R_closed)
    assert (rules.kl(o, P) < rate * rules.kl(opened, P)).all()
    wide = SIGNALS.beside(P, Q)
    assert_close(R, 1 - (Q * rules.mean_accept_prob(gate, P, Q, wide)).sum(-1))


def test_limits_of_a_random_gate():
    for rate, rule in (
        (0.0, rules.STRICT),
        (-1.0, rules.STRICT),
        (1.0, rules.SQRT),
        (7, rules.SQRT),
    ):
        o, R = rules.output_distribution(rules.Gated(rate, gate="random"), P, Q, SIGNALS)
        alone, rejected = rules.output_distribution(rule, P, Q, SIGNALS)
        assert_close(o, alone)
        assert_close(R, rejected)


# ---- gates -------------------------------------------------------------------------------------


def test_a_spike_is_seen_against_the_known_entropies_alone():
    nan = math.nan
    recent = torch.tensor([[nan, nan, 1.0, 1.0, 1.0], [nan] * 4 + [1.0], [0.0, 2.0, 0.0, 2.0, nan]])
    H = torch.tensor([1.1, 9.0, 2.5])
    gate = rules.Spike(2.0)
    # sd 0, so 1.1 is a spike; one entropy is too few to tell; mean 1 and sd 1 make 3 the bar
    assert gate.open(Signals(H, H_recent=recent)).tolist() == [False, True, True]
    assert rules.Spike(1.0).open(Signals(H, H_recent=recent)).tolist() == [False, True, False]


def test_classes_of_tokens():
    texts = ["12", " 7", ".", " ,", "the", "a1", "", "\n"]
    assert list(rules.token_classes(texts)) == [0, 0, 1, 1, 2, 2, 2, 2]
    gate = rules.ByClass((0.0, 1.0, 2.0), rules.token_classes(texts))
    H = torch.full((4,), 1.5)
    before = torch.tensor([0, 2, 4, rules.NO_TOKEN])
    assert gate.open(Signals(H, previous=before)).tolist() == [False, False, True, True]


def test_per_temperature_is_the_gate_at_tau_times_the_temperature():
    assert rules.per_temperature(0.8, 0.5) == rules.SP_entropy(0.4)


def test_the_oracle_gate_has_the_least_tv_for_what_it_opens():
    """Among gates of accept-all that open as many positions, none strays less from the target."""
    o, _ = rules.output_distribution(rules.Oracle(0.4, rules.ACCEPT_ALL), P, Q, SIGNALS)
    is_open = rules.Oracle(0.4).open(SIGNALS)
    count = int(is_open.sum())
    assert 0 < count < N
    other = torch.randperm(N, generator=G)[:count]
    assert rules.tv(o, P).sum() < rules.tv(P, Q)[other].sum()


def test_mars_is_the_one_that_works_at_temperature_0():
    """One-hot p and q that differ: rules of the ratio p/q reject, MARS takes a near tie."""
    scores = torch.tensor([[10.0, 9.5, 1.0], [10.0, 5.0, 1.0]])
    raw_p = scores.softmax(-1)
    p = torch.nn.functional.one_hot(torch.tensor([0, 0]), 3).float()
    q = torch.nn.functional.one_hot(torch.tensor([1, 1]), 3).float()
    token = torch.tensor([1, 1])
    laws = Laws(p, q, raw_p, q, token, scores.topk(2, -1).values)
    signals = Signals(rules.entropy(q), laws=laws)
    o, R = rules.output_distribution(rules.MARS(0.9), p, q, signals)
    assert o.tolist() == [[0, 1, 0], [1, 0, 0]] and R.tolist() == [0, 1]
    for rule in (rules.SQRT, rules.Lenience(0.1)):
        o, _ = rules.output_distribution(rule, p, q, signals)
        assert torch.equal(o, p)


@pytest.mark.parametrize(
    "rule, words",
    [
        (rules.Oracle(0.4), "whole distributions"),
        (rules.Spike(1.0), "entropies before"),
        (rules.Growing(1.0), "position"),
        (rules.ByClass((1, 1, 1), CLASSES), "token before"),
        (rules.MARS(), "whole distributions"),
    ],
    ids=short,
)
def test_what_is_not_known_is_named(rule, words):
    with pytest.raises(ValueError, match=words):
        rules.accept_prob(rule, P[:, 0], Q[:, 0], Signals(SIGNALS.H_q))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: rules.Additive(2.0), "b was 2.0"),
        (lambda: rules.Ensemble(-0.1), "w was -0.1"),
        (lambda: rules.Cactus(-1.0), "delta was -1.0"),
        (lambda: rules.EqualPrice(0.5), "ratio was 0.5"),
        (lambda: rules.TokenCascade(1.5), "alpha was 1.5"),
        (lambda: rules.Fuzzy(math.nan), "NaN"),
        (lambda: rules.FLy(0.3, -1), "window was -1"),
        (lambda: rules.ByClass((1.0,), CLASSES), "give three"),
        (lambda: rules.ByClass((1, 1, 1), CLASSES, "next"), "previous or drafted"),
        (lambda: rules.ByClass((1, 1, 1), CLASSES, "drafted", rules.Clip(0.5)), "residual"),
        (lambda: rules.Learned(0.1, (1.0,)), "4 features"),
    ],
)
def test_bad_rivals_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---- through the engine ------------------------------------------------------------------------

TARGET, DRAFT = table(1), table(2)
PROMPT = (0, 1)
LENGTH = 3


def expected(rule, gamma, length=LENGTH):
    """The law over outputs, by recursion over rounds: o at tested slots, p at a bonus.

    Written without the engine: entropies before a slot are those of tested positions of the text,
    and unknown where a bonus token stands.
    """
    out = {}

    def new_round(done, H_known, weight):
        if len(done) == length:
            out[done] = out.get(done, 0) + weight
            return
        slot(done, H_known, weight, 0)

    def slot(done, H_known, weight, j):
        p, q = TARGET((*PROMPT, *done)), DRAFT((*PROMPT, *done))
        room = length - len(done) - 1 + j  # drafts that the block may have had
        if j == min(gamma, room):
            for x in range(3):
                new_round((*done, x), (*H_known, math.nan), weight * p[x].item())
            return
        H = rules.entropy(q)
        before = ([math.nan] * rules.RECENT + list(H_known))[-rules.RECENT :]
        previous = done[-1] if done else rules.NO_TOKEN
        best = p.log().topk(2).values
        for x in range(3):
            signals = Signals(
                H,
                rules.entropy(p),
                q.max(),
                torch.tensor(0.5),
                torch.tensor(len(done)),
                torch.tensor(previous),
                torch.tensor(before),
                Laws(p, q, p, q, torch.tensor(x), best),
            )
            a = rules.accept_prob(rule, p[x], q[x], signals).item()
            known = (*H_known, H.item())
            slot((*done, x), known, weight * q[x].item() * a, j + 1)
            lost = weight * q[x].item() * (1 - a)
            if lost:
                r = rules.residual(rule, p[None], q[None], Signals.at(stacked(signals), 0, 0))[0]
                for y in range(3):
                    new_round((*done, y), known, lost * r[y].item())

    new_round((), (), 1.0)
    return out


def stacked(signals):
    """Signals of one position as (1 row, 1 slot), so that `at` gives (1,) ... of them."""
    laws = signals.laws
    parts = (laws.p, laws.q, laws.raw_p, laws.raw_q, laws.token, laws.best_scores)
    laws = Laws(*(part[None, None, None] for part in parts))
    return replace(signals.each(lambda v: v[None, None, None]), laws=laws)


def enumerated(rule, gamma, length=LENGTH, choices=None):
    """The law over outputs, by every path of the decoder."""
    module = fresh()
    choices = choices or Choices()
    module.sample, module.accepts = choices.sample, choices.accepts
    out = {}
    method = Speculative(rule, Fixed(gamma))
    while True:
        (answer,) = module.decode(
            table_pair(DRAFT, TARGET), method, [list(PROMPT)], [(0, 0)], max_new_tokens=length
        )
        out[tuple(answer.tokens)] = out.get(tuple(answer.tokens), 0) + choices.weight
        if not choices.advance():
            return out


# These need three words' classes, positive scores, smaller sets, or two tests by one uniform.
APART = (rules.ByClass, rules.MARS, rules.Tightened, rules.FLy)
SMALL = [
    *(rule for rule in ALL if not isinstance(rule, APART)),
    rules.ByClass((0.5, 0.9, 1.1), bytes([0, 1, 2])),
    rules.ByClass((0.5, 0.9, 1.1), bytes([0, 1, 2]), "drafted"),
    rules.Tightened(0.8, 0.8, 0.5, 2),
    rules.EqualPrice(1.3),
    rules.Gated(0.9, rules.EqualPrice(1.5)),
    rules.Gated(0.9, rules.Cactus(0.05)),
]


@pytest.mark.parametrize("rule", SMALL, ids=short)
def test_the_engine_emits_the_rules_law(rule):
    found = enumerated(rule, 2)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert_same(found, expected(rule, 2), 3e-6)


def test_the_engine_emits_the_law_of_mars(monkeypatch):
    """First tokens of 6,000 answers against the rule's law and the target's: chi-square, 0.1 %.

    A table's scores are log p, all negative; they are lifted by a constant for this rule.
    """
    rule = rules.MARS(0.5)
    laws = {}
    for prompt in itertools.product(range(3), repeat=2):
        p, q = TARGET(prompt).double(), DRAFT(prompt).double()
        best = (p.log() + 4).topk(2).values
        signals = Signals(
            rules.entropy(q)[None], laws=Laws(p[None], q[None], p[None], q[None], None, best[None])
        )
        o, _ = rules.output_distribution(rule, p[None], q[None], signals)
        laws[prompt] = (o[0], p)
    prompt = max(laws, key=lambda prompt: rules.tv(*laws[prompt]))
    pair = table_pair(DRAFT, TARGET)
    monkeypatch.setattr(type(pair.target), "logits", lambda self, hidden: hidden.log() + 4)
    n = 6000
    answers = decoding.decode(
        pair,
        Speculative(rule, Fixed(1)),
        [list(prompt)] * n,
        [(9, i) for i in range(n)],
        max_new_tokens=2,
    )
    counts = np.bincount([answer.tokens[0] for answer in answers], minlength=3)
    chances = [
        scipy.stats.chisquare(counts, n * (law / law.sum()).numpy()).pvalue for law in laws[prompt]
    ]
    assert chances[0] > 1e-3 > chances[1]


@dataclass(frozen=True)
class Watcher:
    """A gate that is never open and writes down what the engine shows it."""

    seen: list
    inner = rules.SQRT
    looks_at = ("history",)

    def open(self, signals):
        self.seen.append((signals.position, signals.H_recent, signals.previous))
        return signals.H_q < 0


def test_histories_of_the_engine_are_those_of_the_text():
    """Windows of tested slots against the trace: an entropy per position, none at a bonus."""
    shown = []
    unknown = 0
    for seed in range(12):
        seen = []
        method = Speculative(Watcher(seen), Fixed(2))
        (answer,) = decoding.decode(
            table_pair(DRAFT, TARGET), method, [[0, 1]], [(seed, 0)], max_new_tokens=14, trace=True
        )
        rows = answer.trace[answer.trace.source == "draft"]
        H_of = dict(zip(rows.position, rows.H_q))
        # a traced round asks the gate several times, always about the same signals
        looks = len(seen) // rows["round"].nunique()
        for turn, tested in rows.groupby("round"):
            position, H_recent, previous = seen[turn * looks]
            for row in tested.itertuples():
                window = H_recent[0, row.slot].tolist()
                past = range(row.position - rules.RECENT, row.position)
                right = [H_of.get(place, math.nan) for place in past]
                assert np.allclose(window, right, atol=1e-6, equal_nan=True)
                before = answer.tokens[row.position - 1] if row.position else rules.NO_TOKEN
                assert previous[0, row.slot] == before and position[0, row.slot] == row.position
                unknown += sum(math.isnan(x) for x in right[-row.position :]) if row.position else 0
                shown.append(row.position)
    assert len(shown) > 100 and unknown > 30


def test_a_traced_random_gate_has_the_damage_of_its_mixture():
    """Rescues per tested position equal the mean TV of the trace, within 4 standard errors."""
    n = 800
    answers = decoding.decode(
        table_pair(DRAFT, TARGET),
        Speculative(rules.Gated(0.4, Power(0.0), "random"), Fixed(3)),
        [list(PROMPT)] * n,
        [(7, i) for i in range(n)],
        max_new_tokens=8,
        trace=True,
    )
    tested = [
        row for a in answers for row in a.trace.to_dict("records") if row["source"] == "draft"
    ]
    rescued = sum(row["rescued"] for row in tested)
    assert rescued > 100 and abs(rescued - sum(row["tv"] for row in tested)) < 4 * rescued**0.5


# ---- FLy's window ------------------------------------------------------------------------------


class SharedCoins(Choices):
    """Every outcome of a round's native tests; the gated test is by the same uniforms."""

    def accepts(self, a, u):
        if self.native is None:
            self.native = torch.tensor([[self.choose([1 - x, x]) == 1 for x in a[0].tolist()]])
            return self.native
        native, self.native = self.native, None
        return native | (a >= 1)

    native = None


def law_of_fly(rule, gamma, length):
    """The law over outputs by recursion over rounds, all drafts and native coins of a block."""
    out = {}

    def new_round(done, weight):
        if len(done) == length:
            out[done] = out.get(done, 0) + weight
            return
        block(done, (), (), (), weight)

    def block(done, drafts, natives, opens, weight):
        text = (*done, *drafts)
        p, q = TARGET((*PROMPT, *text)), DRAFT((*PROMPT, *text))
        if len(drafts) == min(gamma, length - len(done) - 1):
            finish(done, drafts, natives, opens, weight)
            return
        is_open = rules.entropy(p.topk(3).values) >= rule.threshold
        for x in range(3):
            a = min(1.0, (p[x] / q[x]).item())
            for native, chance in ((True, a), (False, 1 - a)):
                if chance > 0:
                    some = weight * q[x].item() * chance
                    after = (*natives, native), (*opens, bool(is_open))
                    block(done, (*drafts, x), *after, some)

    def finish(done, drafts, natives, opens, weight):
        n = 0
        for i in range(len(drafts)):
            window = natives[i + 1 : i + 1 + rule.window]
            overruled = opens[i] and len(window) == rule.window and all(window)
            if not (natives[i] or overruled):
                break
            n += 1
        text = (*done, *drafts[:n])
        p, q = TARGET((*PROMPT, *text)), DRAFT((*PROMPT, *text))
        law = p if n == len(drafts) else rules.STRICT.residual(p, q)
        for y in range(3):
            new_round((*text, y), weight * law[y].item())

    new_round((), 1.0)
    return out


@pytest.mark.parametrize("window", [0, 1])
def test_the_engine_emits_the_law_of_fly(window):
    rule = rules.FLy(0.8, window)
    found = enumerated(rule, 2, choices=SharedCoins())
    assert_same(found, law_of_fly(rule, 2, LENGTH), 3e-6)
    # the window matters, and so does the rule
    for other in (rules.FLy(0.8, 1 - window), rules.FLy(9.0, window)):
        with pytest.raises(AssertionError):
            assert_same(found, law_of_fly(other, 2, LENGTH), 1e-3)
    if not window:  # then the law is that of the gate, position by position
        assert_same(found, expected(rule, 2), 3e-6)


def test_flys_window_is_the_published_rule():
    """Every pattern of four slots against the rule in words, and window 0 is the gate."""
    for window in (0, 1, 2):
        rule = rules.FLy(0.3, window)
        for bits in range(2**12):
            pattern = torch.tensor([bits >> k & 1 for k in range(12)]).bool().reshape(3, 1, 4)
            native, is_open, inside = pattern[0], pattern[1], pattern[2]
            inside = inside.long().cumprod(1).bool()
            kept = rule.look_ahead(native | is_open, native, inside) & inside
            for i in range(4):
                follow = range(i + 1, i + 1 + window)
                agreed = all(j < 4 and inside[0, j] and native[0, j] for j in follow)
                stays = native[0, i] or (is_open[0, i] and agreed)
                assert kept[0, i] == (inside[0, i] and stays)


def test_flys_window_relaxes_less_than_its_gate():
    def of(rule):
        answers = decoding.decode(
            table_pair(DRAFT, TARGET),
            Speculative(rule, Fixed(3)),
            [list(PROMPT)] * 400,
            [(4, i) for i in range(400)],
            max_new_tokens=8,
            trace=True,
        )
        return sum(answer.accepted for answer in answers)

    strict, window, gate = (of(r) for r in (rules.STRICT, rules.FLy(0.8, 1), rules.FLy(0.8)))
    assert strict < window < gate


# ---- what is kept, and for whom ----------------------------------------------------------------


@dataclass(frozen=True)
class Nosy:
    """A gate of one's own that says nothing about what it looks at."""

    inner = rules.SQRT

    def open(self, signals):
        spread = signals.H_recent.isnan().sum(-1)
        return (signals.laws.tv < 0.5) & (signals.H_p > 0) & (spread < 9)


def test_plain_rules_keep_nothing_and_others_what_they_look_at():
    seen = {rule: [rules.looks_at(rule, w) for w in ("target", "laws", "history")] for rule in ALL}
    assert seen[rules.Spike(0.5)] == [False, False, True]
    assert seen[rules.Oracle(0.4)] == [False, True, False]
    for rule in (rules.STRICT, rules.SP_entropy(1.0), rules.Additive(0.5), rules.Cactus(0.1)):
        assert not any(rules.looks_at(rule, w) for w in ("target", "laws", "history"))
    assert all(rules.looks_at(Nosy(), w) for w in ("target", "laws", "history"))
    assert rules.looks_at(rules.Gated(1.0, rules.EqualPrice(2.0)), "laws")
    decoding.decode(
        table_pair(DRAFT, TARGET), Speculative(Nosy()), [[0, 1]] * 3, [(0, i) for i in range(3)]
    )


def test_strict_computes_no_distribution_of_the_target_but_the_one_it_samples(monkeypatch):
    """The wider view costs the plain path nothing: no laws, no history, no unwarped target."""
    made = []
    monkeypatch.setattr(rules, "Laws", lambda *parts: made.append(parts))
    kept = []
    drop = Batch.drop_finished

    def watched(self):
        kept.append(dict(self.kept))
        return drop(self)

    monkeypatch.setattr(Batch, "drop_finished", watched)
    decoding.decode(
        table_pair(DRAFT, TARGET), Speculative(), [[0, 1]] * 3, [(0, i) for i in range(3)]
    )
    assert kept and not made and not any(kept)


@pytest.mark.parametrize(
    "rule",
    [rules.Spike(0.5), rules.EqualPrice(2.0), rules.Fuzzy(0.01), rules.FLy(0.3, 2)],
    ids=short,
)
def test_a_row_does_not_depend_on_its_neighbours(pocket, rule):
    problems = [p for d in ("arithmetic", "law", "facts") for p in tasks.load(f"pocket-{d}", 4)]
    prompts = [pocket.encode(problem.messages) for problem in problems]
    keys = [(1, i) for i in range(len(prompts))]
    options = dict(max_new_tokens=30, sampling=Sampling(1.3))
    method = Speculative(rule, Fixed(4))
    together = decoding.decode(pocket, method, prompts, keys, **options)
    for prompt, key, answer in zip(prompts, keys, together):
        (alone,) = decoding.decode(pocket, method, [prompt], [key], **options)
        assert alone.tokens == answer.tokens and alone.target_calls == answer.target_calls
