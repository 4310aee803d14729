"""The plugin against vLLM's own rejection sampler and its CPU kernels, one draft per request."""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from helpers import rules
from helpers.methods import Speculative
from helpers.vllm import plugin
from helpers.vllm.plugin import Settings

N = 40000  # requests
V = 6  # vocabulary
LEVEL = 1e-4  # false-alarm rate of each chi-squared test
P = torch.tensor([0.40, 0.25, 0.15, 0.10, 0.10, 0.0])
Q = torch.tensor([0.10, 0.45, 0.05, 0.20, 0.10, 0.10])  # H = 1.54 nats
RULES = {
    "strict": rules.STRICT,
    "sqrt": rules.SQRT,
    "power": rules.Power(0.2),
    "lenience": rules.Lenience(0.4),
    "all": rules.ACCEPT_ALL,
}


def one_step(sampler, p=P, q=Q, temperature=1.0, seed=0):
    """First tokens (N,) of N requests that each drafted a token from q, and the drafted tokens."""
    torch.manual_seed(seed)
    drafts = torch.multinomial(q, N, replacement=True)
    greedy = temperature == 0
    metadata = SimpleNamespace(
        all_greedy=greedy,
        all_random=not greedy,
        generators={},
        temperature=None if greedy else torch.full((N,), temperature),
    )
    out = sampler.rejection_sample(
        drafts.int(),
        [1] * N,
        1,
        torch.arange(1, N + 1, dtype=torch.int32),
        None if greedy else q.expand(N, V).contiguous(),
        p.log().expand(N, V).contiguous(),
        torch.zeros(N, 1, dtype=torch.int32),
        metadata,
    )
    return out[:, 0].long(), drafts


def output_of(rule):
    """The in-process rule's output distribution o(x) = q a + R r on P and Q."""
    signals = rules.Signals(rules.entropy(Q))
    return rules.output_distribution(rule, P.double(), Q.double(), signals)[0]


def fits(tokens, expected):
    """p-value of the counts of tokens against a distribution; impossible ones must not occur."""
    counts = torch.bincount(tokens, minlength=V)
    assert (counts[expected == 0] == 0).all()
    possible = expected[expected > 0]
    return stats.chisquare(counts[expected > 0], N * possible / possible.sum()).pvalue


# ---- the rules ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [2.0, 1.0], ids=["open", "closed"])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_its_closed_form(sampler, activate, name, tau):
    """One step of vLLM gives o(x) = q a + R r, with the gate open (H <= tau) and closed."""
    rule = rules.Gated(tau, RULES[name])
    activate(plugin.settings_of(Speculative(rule)))
    tokens, _ = one_step(sampler)
    assert fits(tokens, output_of(rule)) > LEVEL


def test_a_bug_would_be_seen(sampler, activate):
    """The chi-squared test has the power to tell beta 0.5 from 0.4."""
    activate(Settings(2.0, beta=0.4))
    assert fits(one_step(sampler)[0], output_of(rules.SQRT)) < LEVEL


def test_the_gate_is_open_at_the_unwarped_entropy(sampler, activate):
    """At temperature 0.5 vLLM hands over q^2; the gate still looks at H of q."""
    warped = Q**2 / (Q**2).sum()
    H = float(rules.entropy(Q))
    H_warped = float(rules.entropy(warped))
    activate(Settings((H + H_warped) / 2, beta=0.0))
    tokens, drafts = one_step(sampler, q=warped, temperature=0.5)
    assert H_warped < H
    assert (tokens != drafts).any()
    assert fits(tokens, P) > LEVEL


def test_accept_all_accepts_every_gated_token(sampler, activate):
    """Token 5, which the target excludes, too."""
    activate(Settings(math.inf, beta=0.0))
    tokens, drafts = one_step(sampler)
    assert torch.equal(tokens, drafts)
    assert (drafts == 5).any()


@pytest.mark.parametrize("name", [name for name in RULES if name != "strict"])
def test_rescues_are_what_strict_rejects_with_the_same_uniforms(sampler, activate, name):
    """Token for token against a strict run with the same seed, and as many as TV(o, p) says."""
    stock, drafts = one_step(sampler)
    rule = RULES[name]
    activate(plugin.settings_of(Speculative(rule)))
    plugin.loaded.requests = [str(n) for n in range(N)]
    tokens, _ = one_step(sampler)
    counted = torch.tensor([plugin.loaded.rescues[str(n)] == [[0]] for n in range(N)])
    # A token that strict rejects is never its own replacement: (p - q)+ is 0 there.
    assert torch.equal(counted, (tokens == drafts) & (stock != drafts))
    tv = float((output_of(rule) - P).abs().sum() / 2)
    assert stats.binomtest(int(counted.sum()), N, tv).pvalue > LEVEL


def test_a_closed_gate_rescues_nothing(sampler, activate):
    activate(Settings(1.0, beta=0.5))  # H = 1.54
    plugin.loaded.requests = [str(n) for n in range(N)]
    one_step(sampler)
    assert set(map(str, plugin.loaded.rescues.values())) == {"[[]]"}


def test_tau_below_zero_is_stock_bit_for_bit(sampler, activate):
    stock, _ = one_step(sampler)
    activate(Settings(-1.0, beta=0.5))
    assert sampler.rejection_sample.__wrapped__  # the patch is in place
    assert torch.equal(one_step(sampler)[0], stock)


def test_greedy_is_unchanged(sampler, activate):
    stock, _ = one_step(sampler, temperature=0)
    activate(Settings(math.inf, beta=0.0))
    assert torch.equal(one_step(sampler, temperature=0)[0], stock)


def test_padded_rows_are_never_drafted(sampler, activate):
    from vllm.v1.spec_decode import llm_base_proposer as proposer

    activate(Settings(vocab=4))
    metadata = SimpleNamespace(all_greedy=False, all_random=True, temperature=torch.ones(N))
    scores = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 0.0])
    tokens, q = proposer.compute_probs_and_sample_next_token(scores.repeat(N, 1), metadata)
    assert (q[:, 4:] == 0).all()
    assert tokens.max() < 4
    assert torch.allclose(q[0, :4], scores[:4].softmax(0))


# ---- what is patched, and what is not ----------------------------------------------------------


def test_strict_settings_patch_nothing_but_the_cpu_defect(sampler, activate):
    def patched():
        return (
            sampler.rejection_sample,
            sampler.generate_uniform_probs,
            sampler.RejectionSampler.__init__,
        )

    before = patched()
    activate(Settings())
    assert patched() == before


def test_no_settings_patch_nothing(sampler):
    before = dict(vars(sampler))
    plugin.register()
    assert before == dict(vars(sampler))


def test_the_work_around_stays_exactly_as_long_as_it_is_needed(sampler, activate):
    """The installed build decides: replaced where its own function fails, vLLM's where it works."""
    arguments = (torch.tensor([0.5, 0.0, 2.0]), torch.tensor([1, 1, 3]), 3, 0, 1)
    stock = sampler.expand_batch_to_tokens
    needed = not plugin.expands(stock)
    activate(Settings())
    assert sampler.expand_batch_to_tokens(*arguments).tolist() == [0.5, 2.0, 2.0]
    assert plugin.loaded.work_around == needed
    assert sampler.expand_batch_to_tokens is (plugin.expand_batch_to_tokens if needed else stock)
    assert plugin.expand_batch_to_tokens(*arguments).tolist() == [0.5, 2.0, 2.0]


def test_the_work_around_goes_when_vllm_works(sampler, activate, monkeypatch):
    def repaired(x, ends, n, replace_from=0, replace_to=0):
        return plugin.expand_batch_to_tokens(x, ends, n, replace_from, replace_to)

    monkeypatch.setattr(sampler, "expand_batch_to_tokens", repaired)
    activate(Settings())
    expanded = sampler.expand_batch_to_tokens(torch.tensor([2.0]), torch.tensor([2]), 2)
    assert expanded.tolist() == [2.0, 2.0]
    assert sampler.expand_batch_to_tokens is repaired
    assert plugin.loaded.work_around is False


# ---- what is refused ---------------------------------------------------------------------------


def test_another_version_is_refused(sampler, activate, monkeypatch):
    monkeypatch.setattr("vllm.__version__", "0.19.1")
    sentence = "vLLM 0.19.1 is installed and the entropy gate knows 0.32.0 and 0.33.0"
    with pytest.raises(RuntimeError, match=sentence):
        activate(Settings(1.0, 0.5))


def test_the_v2_runner_is_refused(sampler, activate, monkeypatch):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(RuntimeError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        activate(Settings(1.0, 0.5))


def test_a_second_rule_in_one_process_is_refused(sampler, activate):
    activate(Settings(1.0, 0.5))
    activate(Settings(1.0, 0.5))
    with pytest.raises(RuntimeError, match="start a new process"):
        activate(Settings(1.0, 0.25))


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"draft_sample_method": "greedy"}, "draft_sample_method 'probabilistic'"),
        ({"method": "ngram"}, "method 'ngram'"),
        ({"rejection_sample_method": "fly"}, "set that"),
    ],
)
def test_configurations_without_a_q_are_refused(sampler, activate, change, sentence):
    activate(Settings(1.0, 0.5))
    accepted = {
        "method": "draft_model",
        "draft_sample_method": "probabilistic",
        "rejection_sample_method": "standard",
    }
    with pytest.raises(ValueError, match=sentence):
        sampler.RejectionSampler(SimpleNamespace(), SimpleNamespace(**accepted | change))
