"""The decoders against exact enumeration, each other, and mutants that must fail."""

import itertools
import shutil
import sys
import types
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import ROOT, table, table_pair
from transformers import TopKLogitsWarper, TopPLogitsWarper

from helpers import decoding, rules, tasks
from helpers.decoding import dispatch, speculative
from helpers.decoding.one_by_one import is_cheaper
from helpers.methods import (
    Autoregressive,
    Confidence,
    EntropyStop,
    Fixed,
    Routed,
    Sampling,
    Selective,
    Speculative,
    SqrtEntropyStop,
)
from helpers.models import compact, load_pair
from helpers.models.lm import Memory

TARGET, DRAFT = table(1), table(2)
POLICIES = [
    Fixed(1),
    Fixed(2),
    Fixed(3),
    EntropyStop(3, 0.9),
    Confidence(3, 0.4),
    SqrtEntropyStop(3, 0.2, 0.55),
]


class Choices:
    """Stands in for randomness: walks through every outcome of a run, with its probability."""

    def __init__(self):
        self.script, self.at, self.weight = [], 0, 1.0

    def choose(self, probabilities):
        options = [i for i, p in enumerate(probabilities) if p > 0]
        if self.at == len(self.script):
            self.script.append([0, len(options)])
        pick = options[self.script[self.at][0]]
        self.at += 1
        self.weight *= float(probabilities[pick])
        return pick

    def sample(self, probs, u):
        return torch.tensor([self.choose(probs[0].double().tolist())])

    def accepts(self, a, u):
        a = a[0].double().tolist()
        ends, before = [], 1.0
        for x in a:
            ends.append(before * (1 - x))
            before *= x
        n = self.choose([*ends, before])
        return torch.tensor([[j < n for j in range(len(a))]])

    def advance(self):
        """Go to the next outcome; False when all have been seen."""
        while self.script and self.script[-1][0] + 1 == self.script[-1][1]:
            self.script.pop()
        if not self.script:
            return False
        self.script[-1][0] += 1
        self.at, self.weight = 0, 1.0
        return True


def enumerate_runs(module, method, length, eos=(9,), draft=DRAFT):
    """Exact distribution over outputs of `method`, by running every path of `module`'s decoder."""
    choices, out = Choices(), {}
    module.sample, module.accepts = choices.sample, choices.accepts
    while True:
        (answer,) = module.decode(
            table_pair(draft, TARGET, eos), method, [[0, 1]], [(0, 0)], max_new_tokens=length
        )
        out[tuple(answer.tokens)] = out.get(tuple(answer.tokens), 0) + choices.weight
        if not choices.advance():
            return out


def fresh(old=None, new=None):
    """A private copy of the speculative decoder, `old` replaced by `new` in its source (a mutant).

    The module has a `decode` that runs it.
    """
    source = (ROOT / "helpers" / "decoding" / "speculative.py").read_text()
    if old:
        assert source.count(old) == 1, f"the mutant's place occurs {source.count(old)} times"
        source = source.replace(old, new)
    module = types.ModuleType("decoding_copy")
    sys.modules["decoding_copy"] = module
    exec(compile(source, "decoding_copy", "exec"), module.__dict__)

    def decode(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(decoding.DECODERS, Speculative, module.speculative)
            return decoding.decode(*arguments, **options)

    module.decode = decode
    return module


def expected(rule, policy, length, eos=9):
    """The output distribution by recursion over rounds: o = q a + R r at a slot, p at the bonus."""
    out = {}

    def new_round(done, weight):
        if len(done) == length or (done and done[-1] == eos):
            out[done] = out.get(done, 0) + weight
            return
        slot(done, done, weight, 0)

    def slot(done, drafted, weight, j):
        p, q = TARGET((0, 1, *drafted)).double(), DRAFT((0, 1, *drafted)).double()
        H = rules.entropy(q)
        signals = rules.Signals(H[None], rules.entropy(p)[None], q.max()[None], None)
        if j == min(policy.gamma, length - len(done) - 1):
            return [new_round((*drafted, x), weight * p[x].item()) for x in range(3)]
        a = rules.accept_prob(rule, p, q, rules.Signals(H.expand(3)))
        r = rules.residual(rule, p[None], q[None], signals)[0]
        rejected = (1 - (q * a).sum()).clamp(min=0)
        for x in range(3):
            new_round((*drafted, x), weight * (rejected * r[x]).item())
            kept, w = (*drafted, x), weight * (q[x] * a[x]).item()
            if x == eos:
                new_round(kept, w)
            elif policy.adaptive and not policy.go_on(H, q[x], j):
                bonus(done, kept, w)
            else:
                slot(done, kept, w, j + 1)

    def bonus(done, drafted, weight):
        p = TARGET((0, 1, *drafted)).double()
        if len(drafted) < length:
            for x in range(3):
                new_round((*drafted, x), weight * p[x].item())
        else:
            new_round(drafted, weight)

    new_round((), 1.0)
    return out


def joint(length, eos=9):
    """The target's own distribution over outputs."""
    out = {}
    for x in itertools.product(range(3), repeat=length):
        done, weight = (), 1.0
        for token in x:
            weight *= TARGET((0, 1, *done))[token].double().item()
            done += (token,)
            if token == eos:
                break
        if not (len(done) < length and any(t != 0 for t in x[len(done) :])):
            out[done] = weight
    return out


def assert_same(a, b, tolerance=1e-6):
    assert a.keys() >= {k for k, v in b.items() if v > 0}
    assert max(abs(a.get(k, 0) - b.get(k, 0)) for k in a.keys() | b.keys()) < tolerance


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_strict_is_the_target_exactly(policy):
    found = enumerate_runs(fresh(), Speculative(rules.STRICT, policy), 4)
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    assert_same(found, joint(4))


@pytest.mark.parametrize("policy", POLICIES[1:5], ids=str)
@pytest.mark.parametrize(
    "rule",
    [rules.SP_entropy(0.9), rules.Power(0.5), rules.ACCEPT_ALL, rules.Lenience(0.5)],
    ids=str,
)
def test_relaxed_rules_equal_their_closed_form(rule, policy):
    assert_same(enumerate_runs(fresh(), Speculative(rule, policy), 3), expected(rule, policy, 3))


@pytest.mark.parametrize("policy", [Fixed(2), Confidence(3, 0.4)], ids=str)
def test_eos_inside_a_block(policy):
    found = enumerate_runs(fresh(), Speculative(rules.STRICT, policy), 4, eos=(0,))
    assert all(0 not in tokens[:-1] for tokens in found)
    assert_same(found, joint(4, eos=0))


MUTANTS = {
    "swapped p and q": (
        "rules.accept_prob(rule, p_x, q_x, signals)",
        "rules.accept_prob(rule, q_x, p_x, signals)",
        Fixed(2),
    ),
    "residual is p": (
        "replaced = rules.residual(rule, p_next, block.q[row, slot], signals.at(row, slot))",
        "replaced = p_next",
        Fixed(2),
    ),
    "bonus from the draft": (
        "torch.where(whole, p_next, replaced)",
        "torch.where(whole, block.q[row, slot], replaced)",
        Fixed(2),
    ),
    "stop token dropped": (
        "        drafted += going\n",
        "        drafted += going & policy.go_on(H, q.gather(-1, x[:, None])[:, 0], j)\n",
        Confidence(3, 0.4),
    ),
    "rollback forgotten": (
        "scores = pair.target.logits(pair.target.forward(fed, start))",
        "at = pair.target.memory.cached; "
        "pair.target.memory.cached = [c + fed.shape[1] for c in at]; "
        "scores = pair.target.logits(pair.target.forward(fed, at))",
        Fixed(1),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_fail(name):
    old, new, policy = MUTANTS[name]
    with pytest.raises(AssertionError):
        assert_same(
            enumerate_runs(fresh(old, new), Speculative(rules.STRICT, policy), 3), joint(3), 1e-4
        )


def test_full_acceptance_earns_a_bonus_token():
    """With draft = target every round emits gamma + 1 tokens; without a bonus it would be gamma."""
    (answer,) = decoding.decode(
        table_pair(TARGET, TARGET),
        Speculative(rules.STRICT, Fixed(3)),
        [[0]],
        [(0, 0)],
        max_new_tokens=16,
        trace=True,
    )
    assert (answer.target_calls, answer.drafted, answer.accepted) == (4, 12, 12)
    assert (answer.trace.source == "bonus").sum() == 4


def test_joint_chi_square_with_real_uniforms():
    """Uniforms keyed by position give the target's joint: chi-square, 0.1 %, fixed seed."""
    from scipy.stats import chisquare

    n, method = 6000, Speculative(rules.STRICT, Fixed(2))
    answers = decoding.decode(
        table_pair(DRAFT, TARGET),
        method,
        [[0, 1]] * n,
        [(5, i) for i in range(n)],
        max_new_tokens=3,
    )
    want = joint(3)
    counts = dict.fromkeys(want, 0)
    for a in answers:
        counts[tuple(a.tokens)] += 1
    assert chisquare(list(counts.values()), [n * w for w in want.values()]).pvalue > 1e-3
    assert (
        chisquare(
            list(counts.values()), [n * w for w in expected(rules.ACCEPT_ALL, Fixed(2), 3).values()]
        ).pvalue
        < 1e-6
    )


def test_rescue_identity_on_a_trace():
    """Rescues per tested position equal the mean TV of the trace, within 4 standard errors."""
    n, method = 800, Speculative(rules.SP_entropy(10.0), Fixed(3))
    answers = decoding.decode(
        table_pair(DRAFT, TARGET),
        method,
        [[0, 1]] * n,
        [(7, i) for i in range(n)],
        max_new_tokens=8,
        trace=True,
    )
    tested = [
        row for a in answers for row in a.trace.to_dict("records") if row["source"] == "draft"
    ]
    rescued, tv = sum(r["rescued"] for r in tested), sum(r["tv"] for r in tested)
    assert rescued > 100 and abs(rescued - tv) < 4 * rescued**0.5


def test_coupled_runs_agree_until_the_first_rescue():
    strict, relaxed = (
        decoding.decode(
            table_pair(DRAFT, TARGET),
            Speculative(rule, Fixed(g)),
            [[0, 1]] * 300,
            [(3, i) for i in range(300)],
            max_new_tokens=6,
            trace=True,
        )
        for rule, g in ((rules.STRICT, 2), (rules.SP_entropy(0.9), 2))
    )
    differ = 0
    for a, b in zip(strict, relaxed):
        rescues = b.trace.position[b.trace.rescued.eq(True)]
        first = int(min(rescues)) if len(rescues) else 6
        assert a.tokens[:first] == b.tokens[:first]
        differ += a.tokens != b.tokens
    assert 0 < differ < 300


@pytest.fixture(scope="module")
def prompts(pocket):
    problems = [p for d in ("arithmetic", "law", "facts") for p in tasks.load(f"pocket-{d}", 8)]
    return [pocket.encode(p.messages) for p in problems]


METHODS = [
    Autoregressive("target"),
    Selective(0.3),
    Speculative(),
    Speculative(rules.SP_entropy(1.0), EntropyStop(6, 0.5), "SP_entropy"),
]


@pytest.fixture(scope="module")
def packed():
    """The shipped pair with the packed layers of a large one: an fp16 target and an int8 draft."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "SMALL_EMBEDDING", 0)
        pair = load_pair("pocket", device="cpu")
    assert (pair.target.precision, pair.draft.precision) == ("fp16", "int8 rotated")
    return pair


@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: m.label)
def test_packed_greedy_equals_the_packed_target(packed, prompts, method):
    test_greedy_equals_the_target(packed, prompts, method)


def test_packed_strict_is_lossless(packed, prompts):
    """Two hot tokens follow the packed target's joint: chi-square, 0.1 %, fixed seed.

    Cells are the first token and a class of the second.
    """
    from scipy.stats import chisquare

    n, target, start, hot, classes = 1500, packed.target, prompts[0], Sampling(2.5), 12
    answers = decoding.decode(
        packed,
        Speculative(policy=Fixed(2)),
        [start] * n,
        [(6, i) for i in range(n)],
        max_new_tokens=2,
        sampling=hot,
    )
    with torch.inference_mode():
        target.start(1, len(start) + 1)
        first = hot.warp(target.logits(target.forward(torch.tensor([start]), [0]))[0, -1])
        likely = first.topk(8).indices.tolist()
        target.start(8, len(start) + 1)
        second = hot.warp(
            target.logits(target.forward(torch.tensor([[*start, x] for x in likely]), [0] * 8))[
                :, -1
            ]
        )
    want = {
        (x, c): n * (first[x] * second[i, c::classes].sum()).item()
        for i, x in enumerate(likely)
        for c in range(classes)
    }
    want = {k: w for k, w in want.items() if w >= 8}
    counts = {k: sum((a.tokens[0], a.tokens[-1] % classes) == k for a in answers) for k in want}
    rest = n - sum(counts.values()), n - sum(want.values())
    assert len(want) > 10
    assert chisquare([*counts.values(), rest[0]], [*want.values(), rest[1]]).pvalue > 1e-3


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.label)
def test_a_packed_row_does_not_depend_on_its_neighbours(packed, prompts, method):
    """Integers add exactly and attention sums in one order: a row alone and among 24."""
    test_a_row_does_not_depend_on_its_neighbours(packed, prompts, method)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.label)
def test_a_row_does_not_depend_on_its_neighbours(pocket, prompts, method):
    """Every third row, which are of all three tasks, long and short."""
    keys = [(1, i) for i in range(len(prompts))]
    together = decoding.decode(pocket, method, prompts, keys, max_new_tokens=24)
    for place in range(0, len(prompts), 3):
        (alone,) = decoding.decode(
            pocket, method, [prompts[place]], [keys[place]], max_new_tokens=24
        )
        assert alone.tokens == together[place].tokens
        assert alone.target_calls == together[place].target_calls


@pytest.mark.parametrize("method", METHODS[2:], ids=lambda m: m.label)
def test_greedy_equals_the_target(pocket, prompts, method):
    run = [
        decoding.decode(
            pocket,
            m,
            prompts,
            [(0, i) for i in range(len(prompts))],
            sampling=Sampling(0.0),
            max_new_tokens=40,
        )
        for m in (method, METHODS[0])
    ]
    assert [a.tokens for a in run[0]] == [a.tokens for a in run[1]]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "endless"])
@pytest.mark.parametrize("gamma", [1, 8])
@pytest.mark.parametrize(
    "rule",
    [rules.STRICT, rules.SP_entropy(1.5), rules.Gated(1.0, rules.ACCEPT_ALL), rules.Spike(2.0)],
    ids=["strict", "sqrt", "accept all", "history"],
)
def test_one_by_one_is_the_decoder_of_blocks(packed, prompts, rule, gamma, ends, monkeypatch):
    """Same tokens, calls and traces; drafts differ by blocks that an end token would have ended."""
    pair = packed if ends else replace(packed, eos=())
    prompts = prompts[::2]
    method = Speculative(rule, Fixed(gamma), "SP")
    keys = [(4, i) for i in range(len(prompts))]
    hot = Sampling(2.2, top_k=50)
    runs = []
    for cheaper in (False, True):
        monkeypatch.setattr(dispatch, "is_cheaper", lambda *facts, cheaper=cheaper: cheaper)
        runs.append(
            decoding.decode(
                pair, method, prompts, keys, sampling=hot, max_new_tokens=40, trace=True
            )
        )
    for block, single in zip(*runs):
        assert single.tokens == block.tokens
        for count in ("target_calls", "accepted", "rescued", "finish"):
            assert getattr(single, count) == getattr(block, count)
        assert single.drafted == block.drafted or ends and single.drafted > block.drafted
        # Sums over the vocabulary are rounded differently in a block.
        pd.testing.assert_frame_equal(single.trace, block.trace, rtol=1e-4, atol=1e-6)
    finishes = {answer.finish for answer in runs[0]}
    assert ("eos" in finishes) == ends
    assert gamma == 1 or any(answer.accepted < answer.drafted for answer in runs[0])
    if rule is not rules.STRICT:
        assert sum(answer.rescued for answer in runs[0]) > 0


@pytest.mark.parametrize(
    "rule",
    [rules.SP_entropy(1.5), rules.Clip(0.5), rules.Spike(2.0), rules.Cascade(-0.3)],
    ids=["sqrt", "clip", "history", "laws"],
)
@pytest.mark.parametrize("sampling", [Sampling(1.5), Sampling(1.5, top_k=20, top_p=0.9)])
def test_blocks_in_parts_are_blocks_as_a_whole(pocket, prompts, rule, sampling, monkeypatch):
    """Computed slot by slot, as large vocabularies are: the same tokens, counts and traces."""
    method = Speculative(rule, EntropyStop(6, 0.5), "SP")
    keys = [(6, i) for i in range(len(prompts))]
    runs = []
    for at_once in (speculative.AT_ONCE, 1):
        monkeypatch.setattr(speculative, "AT_ONCE", at_once)
        runs.append(
            decoding.decode(
                pocket, method, prompts, keys, sampling=sampling, max_new_tokens=40, trace=True
            )
        )
    for whole, parts in zip(*runs):
        assert parts.tokens == whole.tokens
        assert (parts.target_calls, parts.drafted) == (whole.target_calls, whole.drafted)
        pd.testing.assert_frame_equal(parts.trace, whole.trace, rtol=1e-4, atol=1e-6)
    assert any(answer.accepted < answer.drafted for answer in runs[0])


SHARING = {
    "SP": rules.STRICT,
    "SP_entropy": rules.SP_entropy(1.5),
    "SP_aggressive": rules.Gated(1.0, rules.ACCEPT_ALL),
    "random": rules.Gated(0.5, gate="random"),
    "clip": rules.Clip(0.5),  # not the standard residual
    "history": rules.Spike(2.0),
    "laws": rules.Cascade(-0.3),
}


def test_methods_that_share_rows_answer_as_they_do_alone(packed, prompts, monkeypatch):
    """Tokens, counts and traces of each; rows part where methods do, and not before."""
    monkeypatch.setattr(dispatch, "is_cheaper", lambda *facts: True)
    prompts = prompts[::2]
    methods = [Speculative(rule, Fixed(3), label) for label, rule in SHARING.items()]
    keys = [(4, i) for i in range(len(prompts))]
    options = {"sampling": Sampling(2.2, top_k=50), "max_new_tokens": 24, "trace": True}
    read = []
    forward = packed.target.forward
    monkeypatch.setattr(
        packed.target, "forward", lambda t, *a: read.append(t.numel()) or forward(t, *a)
    )
    alone = [decoding.decode(packed, method, prompts, keys, **options) for method in methods]
    read_alone = sum(read)
    read.clear()
    together = decoding.decode_together(packed, methods, prompts, keys, **options)
    assert sum(read) < 0.8 * read_alone
    for ours, theirs in zip(together, alone, strict=True):
        assert len(ours) == len(theirs) == len(prompts)
        for own, other in zip(ours, theirs):
            assert replace(own, trace=None, seconds=0.0) == replace(other, trace=None, seconds=0.0)
            # Sums over the tokens that some row can produce are rounded differently.
            pd.testing.assert_frame_equal(own.trace, other.trace, rtol=1e-4, atol=1e-6)
    texts = [tuple(tuple(answer.tokens) for answer in answers) for answers in together]
    assert len(set(texts)) > len(methods) // 2


def test_methods_share_rows_where_they_draft_alike(packed, pocket, monkeypatch):
    strict, relaxed = (Speculative(rule, Fixed(4)) for rule in (rules.STRICT, rules.SQRT))
    assert not decoding.share(pocket, strict, relaxed, 64)  # its decoder works block by block
    monkeypatch.setattr(packed.__class__, "small", False)
    assert decoding.share(packed, strict, relaxed, 64)
    assert not decoding.share(packed, strict, relaxed, 4)
    assert not decoding.share(packed, strict, replace(relaxed, policy=Fixed(3)), 64)
    assert not decoding.share(packed, strict, Autoregressive("target"), 64)


def test_rows_of_the_cache_move_double_and_grow():
    config = types.SimpleNamespace(
        num_key_value_heads=1, head_dim=1, num_hidden_layers=2, hidden_size=1, num_attention_heads=1
    )
    memory = Memory(config, 4, 2, torch.float32, torch.device("cpu"))
    for cache in (*memory.keys, *memory.values):
        cache[:, 0, :, 0] = torch.arange(4.0)[:, None]
    memory.cached = [0, 1, 2, 3]

    def rows():
        held = {tuple(cache[: len(memory.cached), 0, 0, 0].tolist()) for cache in memory.keys}
        assert held == {tuple(map(float, memory.cached))}
        return memory.cached

    before = memory.keys[0].data_ptr()
    memory.keep([0, 3, 2])
    assert rows() == [0, 3, 2]
    memory.keep([0, 1, 2, 1])
    assert rows() == [0, 3, 2, 3]
    assert memory.keys[0].data_ptr() == before  # in place
    memory.keep([1, 0, 2, 3, 2])
    assert rows() == [3, 0, 2, 3, 2]


def test_one_by_one_is_for_many_rows_of_a_large_pair_on_a_cpu(packed, pocket, monkeypatch):
    assert not is_cheaper(pocket, Speculative(), 64)
    fixed = Speculative(policy=Fixed(4))
    monkeypatch.setattr(packed.__class__, "small", False)
    assert is_cheaper(packed, fixed, 8)
    assert not is_cheaper(packed, fixed, 7)
    assert not is_cheaper(packed, METHODS[3], 64)  # an adaptive block looks at its own draft
    assert not is_cheaper(packed, Speculative(rules.FLy(0.5), Fixed(4)), 64)


def test_rollback_equals_recomputation(pocket, prompts):
    """p and q recorded in a run with many rejections equal those of one forward without a cache."""
    (answer,) = decoding.decode(
        pocket, Speculative(policy=Fixed(6)), prompts[:1], [(2, 0)], max_new_tokens=60, trace=True
    )
    kept = answer.trace[answer.trace.accepted == True]  # noqa: E712
    tokens = torch.tensor([prompts[0] + answer.tokens])
    with torch.inference_mode():
        for name, column in (("target", "p_x"), ("draft", "q_x")):
            lm = getattr(pocket, name)
            lm.start(1, tokens.shape[1])
            probs = lm.logits(lm.forward(tokens, [0]))[0].softmax(-1)
            for row in kept.to_dict("records"):
                assert probs[
                    len(prompts[0]) + row["position"] - 1, row["token"]
                ].item() == pytest.approx(row[column], abs=2e-4)


def test_tau_limits(pocket, prompts):
    keys = [(4, i) for i in range(len(prompts))]
    runs = {
        rule: [
            a.tokens
            for a in decoding.decode(pocket, Speculative(rule), prompts, keys, max_new_tokens=40)
        ]
        for rule in (
            rules.STRICT,
            rules.SP_entropy(-1.0),
            rules.SP_entropy(float("inf")),
            rules.Power(0.5),
        )
    }
    assert runs[rules.STRICT] == runs[rules.SP_entropy(-1.0)]
    assert runs[rules.SP_entropy(float("inf"))] == runs[rules.Power(0.5)] != runs[rules.STRICT]


def test_padded_vocabularies_are_cut(pocket, prompts, tmp_path):
    """A draft whose embedding is padded to another size gives the same tokens."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ROOT / "data/pocket/draft")
    model.resize_token_embeddings(model.config.vocab_size + 64)
    model.save_pretrained(tmp_path / "draft")
    shutil.copytree(ROOT / "data/pocket/tokenizer", tmp_path / "tokenizer")
    padded = load_pair(
        "padded",
        draft=str(tmp_path / "draft"),
        target=str(ROOT / "data/pocket/target"),
        device="cpu",
    )
    keys = [(0, i) for i in range(len(prompts))]
    a, b = (
        decoding.decode(pair, Speculative(), prompts, keys, max_new_tokens=30)
        for pair in (pocket, padded)
    )
    assert [x.tokens for x in a] == [x.tokens for x in b]


@pytest.fixture(scope="module")
def experts():
    return load_pair("pocket", device="cpu", experts=True)


def test_routing_limits(experts, prompts):
    """tau = inf never asks (AS_small's tokens); tau < 0 asks everybody at every token."""
    keys = [(4, i) for i in range(len(prompts))]
    never, alone = (
        decoding.decode(experts, m, prompts, keys, max_new_tokens=30)
        for m in (Routed(float("inf")), Autoregressive("draft"))
    )
    assert [a.tokens for a in never] == [a.tokens for a in alone] and all(
        a.switches == 0 for a in never
    )
    always = decoding.decode(
        experts, Routed(-1.0, -1.0), prompts, keys, max_new_tokens=30, trace=True
    )
    for answer in always:
        heard = answer.trace[["H_draft", "H_math", "H_code", "H_law"]]
        assert (heard.min(axis=1) - answer.trace.H_q).abs().max() == 0
        assert answer.draft_calls == 4 * len(answer.tokens) and answer.caught_up == 0


def test_routing_counts_what_a_switch_must_read(experts, prompts):
    """A model that was silent for k tokens reads k more: counts equal the trace's silences."""
    answers = decoding.decode(
        experts,
        Routed(0.3, 0.6),
        prompts,
        [(5, i) for i in range(len(prompts))],
        max_new_tokens=30,
        trace=True,
    )
    for answer in answers:
        silent = 0
        for name in ("draft", "math", "code", "law"):
            column = f"H_{name}"
            at = (
                answer.trace.position[answer.trace[column].notna()].tolist()
                if column in answer.trace
                else []
            )
            silent += sum(b - a - 1 for a, b in zip([-1, *at], at))
        assert answer.caught_up == silent
    assert sum(a.switches for a in answers) > 0


@pytest.mark.parametrize("top_k, top_p", [(20, 1.0), (0, 0.9), (20, 0.9), (5, 0.3), (500, 0.5)])
def test_the_warp_is_transformers_own(top_k, top_p):
    logits = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)) * 3
    theirs = logits / 0.7
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    theirs = TopPLogitsWarper(top_p)(None, theirs)
    ours = Sampling(0.7, top_k, top_p).warp(logits)
    assert torch.allclose(ours, theirs.softmax(-1), atol=1e-6)
    assert ((ours > 0) == (theirs > -torch.inf)).all()


def test_top_k_and_top_p():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    assert (Sampling(1.0, top_k=2).warp(logits) > 0).sum() == 2
    kept = Sampling(1.0, top_p=0.6).warp(logits)
    assert (kept > 0).sum() == 1 and kept.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda pair: Fixed(0), "gamma was 0"),
        (lambda pair: Sampling(-1), "temperature was -1"),
        (
            lambda pair: decoding.decode(pair, Speculative(), [[5] * 1100], [(0, 0)]),
            "exceed the context",
        ),
        (lambda pair: Selective(float("nan")), "NaN"),
        (lambda pair: Selective(gate="moon"), "entropy, random or periodic"),
        (
            lambda pair: decoding.decode(pair, Autoregressive("expert"), [[5]], [(0, 0)]),
            "this pair has draft, target",
        ),
    ],
)
def test_bad_input_is_one_sentence(pocket, act, words):
    with pytest.raises(ValueError, match=words):
        act(pocket)


class SureTarget:
    """A gate of one's own, which reads the target's entropy."""

    inner = rules.ACCEPT_ALL

    def open(self, signals):
        return signals.H_p <= 0.9


def test_a_gate_of_ones_own_sees_the_targets_entropy():
    """Untraced too: the same answers as with the project's own gate of that kind."""
    own, ours = (
        decoding.decode(
            table_pair(DRAFT, TARGET),
            Speculative(rule, Fixed(2)),
            [[0, 1]] * 50,
            [(3, i) for i in range(50)],
            max_new_tokens=6,
        )
        for rule in (SureTarget(), rules.Gated(0.9, rules.ACCEPT_ALL, "target_entropy"))
    )
    assert [a.tokens for a in own] == [a.tokens for a in ours]
