"""What the vLLM engine rests on and can be tested without vLLM; with vLLM: tests/vllm, `make test-vllm`."""

import json
import math
import sys
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers import common, models, rules, tasks
from helpers.methods import (
    Autoregressive,
    Confidence,
    EntropyStop,
    Fixed,
    Sampling,
    Selective,
    Speculative,
)
from helpers.models import pairs
from helpers.vllm import engine, layout, plugin
from helpers.vllm.plugin import Settings

RULES = [rules.Power(b) for b in (0.0, 0.05, 0.25, 0.5, 1.0)] + [
    rules.Lenience(x) for x in (0.1, 0.5, 1.0)
]


@pytest.mark.parametrize("inner", RULES, ids=repr)
@pytest.mark.parametrize("tau", [-1.0, 0.7, math.inf])
def test_changed_uniforms_are_the_rule(inner, tau):
    """p/q >= relaxed(u) exactly where u <= a(x), away from ties of rounding, for every rule and gate."""
    g = torch.Generator().manual_seed(1)
    p, q, u = (torch.rand(20000, generator=g, dtype=torch.float64) for _ in range(3))
    H = 1.4 * torch.rand(20000, generator=g, dtype=torch.float64)
    p[:50] = 0
    rule = rules.Gated(tau, inner)
    kept = p / q >= plugin.relaxed(u, H, plugin.settings_of(Speculative(rule)))
    a = rules.accept_prob(rule, p, q, rules.Signals(H))
    clear = (u - a).abs() > 1e-9
    assert clear.float().mean() > 0.99
    assert torch.equal(kept[clear], (u <= a)[clear])


def test_what_happens_to_a_token_that_the_target_excludes():
    u, H = torch.rand(1000, dtype=torch.float64).clamp(min=1e-12), torch.zeros(1000)
    ratio = torch.zeros(1000)
    assert (
        ratio >= plugin.relaxed(u, H, Settings(1.0, beta=0.0)).float()
    ).all()  # accept-all means all
    for beta in (
        1e-3,
        0.05,
        0.5,
        1.0,
    ):  # u^1000 underflows: clamped, in the kernel's single precision too
        assert not (ratio >= plugin.relaxed(u, H, Settings(1.0, beta=beta)).float()).any()


def test_a_closed_gate_returns_the_uniforms_bit_for_bit():
    u = torch.rand(1000, dtype=torch.float64)
    assert torch.equal(plugin.relaxed(u, torch.zeros(1000), Settings(-1.0, 0.5)), u)


@pytest.mark.parametrize("temperature", [engine.COLDEST, 0.7, 1.0, 2.0])
def test_entropy_is_that_of_the_unwarped_softmax(temperature):
    scores = 6 * torch.randn(50, 1000, generator=torch.Generator().manual_seed(2))
    warped = (scores / temperature).softmax(-1)
    found = plugin.entropy(warped, torch.full((50,), temperature))
    assert (found - rules.entropy(scores.softmax(-1))).abs().max() < 1e-4
    assert plugin.entropy(warped, torch.zeros(50)).isfinite().all()


def test_settings_reach_a_worker_as_they_are():
    method = Speculative(rules.Gated(math.inf, rules.Lenience(0.5)), EntropyStop(6, stop=0.4))
    settings = plugin.settings_of(method, vocab=1000)
    assert (
        Settings(**json.loads(settings.text)) == settings == Settings(math.inf, 1.0, 0.5, 0.4, 1000)
    )


def test_without_settings_the_plugin_does_nothing(monkeypatch):
    monkeypatch.delenv(plugin.SETTINGS, raising=False)
    before = set(sys.modules)
    plugin.register()
    assert set(sys.modules) == before and plugin.register.done is None


@pytest.mark.parametrize(
    "method, temperature, said",
    [
        (Speculative(rules.Gated(1.0, rules.SQRT, "max_prob")), 1.0, "only low_entropy"),
        (Speculative(rules.Clip(0.5)), 1.0, "Power or a Lenience"),
        (Speculative(policy=Confidence(4)), 1.0, "Fixed or EntropyStop"),
        (Selective(), 1.0, "no counterpart"),
        (Autoregressive("math"), 1.0, "math has no counterpart"),
        (Speculative(rules.SP_entropy(1.0)), 0.1, "0.25 or more"),
        (Speculative(rules.Gated(1.0, rules.ACCEPT_ALL)), 0.0, "no q to stop"),
        (Speculative(policy=EntropyStop(4)), 0.0, "no q to stop"),
        (engine.Fly(), 1.0, "CUDA GPU"),
    ],
)
def test_what_would_not_be_exact_is_refused(method, temperature, said):
    with pytest.raises(ValueError, match=said) as refused:
        engine.VLLMEngine("pocket", method, Sampling(temperature))
    assert str(refused.value).count("\n") == 0


def test_greedy_power_rules_are_allowed_because_they_are_strict_there():
    engine.check(Speculative(rules.SP_entropy(1.0)), Sampling(0.0), cpu=True)


def test_a_missing_vllm_is_one_sentence():
    if getattr(
        find_spec("vllm"), "origin", None
    ):  # without an origin it is only the folder tests/vllm
        pytest.skip("vLLM is installed here")
    with pytest.raises(RuntimeError, match=r"vLLM is not installed in .*\[vllm\]"):
        engine.VLLMEngine("pocket", Autoregressive()).run([(0, tasks.load("pocket-facts", 1)[0])])


def test_counts_of_an_answer():
    assert engine.counts(1, [], []) == (1, 0, 0, 1)
    assert engine.counts(9, [4, 2], [4, 4]) == (9, 6, 8, 3)  # 1 + 5 + 3
    assert engine.counts(8, [4, 2], [4, 4]) == (
        8,
        6,
        6,
        3,
    )  # the last accepted draft ended it: no bonus
    assert engine.counts(7, [4, 2], [4, 4]) == (7, 5, 5, 3)  # and here the draft before
    assert engine.counts(11, [4, 2], [4, 4]) == (11, 6, 8, 5)  # two forwards had no draft
    assert engine.counts(5, [], []) == (5, 0, 0, 5)  # no speculation


def test_engine_arguments(monkeypatch):
    served = engine.VLLMEngine(
        "pocket",
        Speculative(rules.SP_entropy(1.0), EntropyStop(6)),
        tensor_parallel_size=4,
        dtype="bfloat16",
        memory_share=0.5,
        options={"block_size": 32},
    )
    made = served.llm(100)
    assert (made["tensor_parallel_size"], made["dtype"], made["gpu_memory_utilization"]) == (
        4,
        "bfloat16",
        0.5,
    )
    assert made["block_size"] == 32 and made["async_scheduling"] is False
    speculation = made["speculative_config"]
    assert (
        speculation["num_speculative_tokens"] == 6
        and speculation["draft_sample_method"] == "probabilistic"
    )
    assert speculation["draft_tensor_parallel_size"] == 4
    assert "speculative_config" not in engine.VLLMEngine("pocket", Autoregressive("draft")).llm(100)
    alone, large = (engine.VLLMEngine("pocket", Autoregressive(m)) for m in ("draft", "target"))
    assert (
        large.settings() is None
        and large.llm(100)["model"] != alone.llm(100)["model"] == alone.folders["draft"]
    )


def test_wider_heads_are_the_same_function(tmp_path):
    """12 dimensions in 96: rotary frequencies, scale and scores kept; read back as vLLM will read it."""
    source = common.ROOT / "data/pocket/draft"
    out = layout.export(source, tmp_path / "wide", head_sizes=layout.CPU_HEADS)
    wide, plain = (AutoModelForCausalLM.from_pretrained(f) for f in (out, source))
    assert wide.config.head_dim == 96 and wide.config.model_type == "llama"
    tokens = torch.randint(1024, (4, 200), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert (wide(tokens).logits - plain(tokens).logits).abs().max() < 1e-4
    assert (out / "tokenizer.json").exists() and pairs.load_tokenizer(out).chat_template


def test_a_padded_draft_is_the_same_function_on_its_own_tokens(tmp_path):
    source = common.ROOT / "data/pocket/draft"
    out = layout.export(source, tmp_path / "padded", vocab_size=1088)
    padded, plain = (AutoModelForCausalLM.from_pretrained(f) for f in (out, source))
    tokens = torch.randint(1024, (2, 50), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        scores = padded(tokens).logits
        assert (
            torch.equal(scores[..., :1024], plain(tokens).logits)
            and (scores[..., 1024:] == 0).all()
        )
    with pytest.raises(ValueError, match="smaller vocabulary"):
        layout.export(source, tmp_path / "cut", vocab_size=1000)


def test_pairs_are_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path)
    pocket = models.PAIRS["pocket"]
    bigger = layout.export(
        models.locate(pocket.target, pocket), tmp_path / "bigger", vocab_size=1088
    )
    small = layout.export(models.locate(pocket.draft, pocket), tmp_path / "small")
    folders, vocab = engine.prepare(models.Preset(str(small), str(bigger)), cpu=False)
    assert vocab == 1024 and folders["target"] == str(bigger)
    assert (
        json.loads((tmp_path / folders["draft"] / "config.json").read_text())["vocab_size"] == 1088
    )
    alike = {"draft": str(small), "target": str(small)}
    assert engine.prepare(models.Preset(**alike), cpu=False) == (alike, None)
    with pytest.raises(ValueError, match="1088 vocabulary rows and the target .* 1024"):
        engine.prepare(models.Preset(str(bigger), str(small)), cpu=False)


def test_prompts_and_ends_are_the_pair_s(pocket):
    found = engine.words("pocket", models.PAIRS["pocket"])
    problem = tasks.load("pocket-arithmetic", 1)[0]
    assert found.eos == pocket.eos and found.encode(problem.messages) == pocket.encode(
        problem.messages
    )


def test_open_engine(monkeypatch):
    with pytest.raises(ValueError, match="'local' .* or 'vllm'"):
        engine.open_engine("sglang", "pocket")
    problems, method = tasks.load("pocket-facts", 2), Speculative(policy=Fixed(2))
    assert engine.open_engine("local", "pocket").run([method], problems).n_tokens.gt(0).all()

    answer = {
        "tokens": [5, 6, 1],
        "finish": "stop",
        "stopped_by": None,
        "accepted": [1],
        "drafted": [2],
        "prefill_s": 0.1,
    }
    said = {"wall": 3.0, "mended": None, "facts": {"torch": "0"}}
    monkeypatch.setattr(
        engine.VLLMEngine,
        "_ask",
        lambda self, job: (
            said | {"answers": [answer | {"rest_s": 9.0 - i} for i in range(len(job["requests"]))]}
        ),
    )
    served = engine.open_engine("vllm", "pocket")
    rows, trace = served.run([method], problems, (0, 1), trace=True)
    local = engine.open_engine("local", "pocket").run([method], problems)
    assert trace is None and set(rows) == set(local) and len(rows) == 4
    assert rows.seconds.sum() == pytest.approx(3.0) and rows.rescued.isna().all()
    timed = served.timed([method], problems, repeats=3)
    assert list(timed.problem_id) == [p.id for p in problems] and timed.seconds.tolist() == [
        7 * 1.5,
        6 * 1.5,
    ]
    assert served.forward_times(widths=(1, 5)).seconds.isna().all()
