"""What the vLLM engine rests on and can be tested without vLLM; with vLLM: tests/vllm."""

import json
import math
import sys
from importlib.util import find_spec
from types import SimpleNamespace

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

POWERS = [rules.Power(beta) for beta in (0.0, 0.05, 0.25, 0.5, 1.0)]
LENIENT = [rules.Lenience(x) for x in (0.1, 0.5, 1.0)]
DRAFT = common.ROOT / "data/pocket/draft"


# ---- the plugin's mathematics ------------------------------------------------------------------


@pytest.mark.parametrize("inner", POWERS + LENIENT, ids=repr)
@pytest.mark.parametrize("tau", [-1.0, 0.7, math.inf])
def test_changed_uniforms_are_the_rule(inner, tau):
    """p/q >= relaxed(u) exactly where u <= a(x), away from ties of rounding, for every rule."""
    g = torch.Generator().manual_seed(1)
    p, q, u = torch.rand(3, 20000, generator=g, dtype=torch.float64)
    H = 1.4 * torch.rand(20000, generator=g, dtype=torch.float64)
    p[:50] = 0
    rule = rules.Gated(tau, inner)
    kept = p / q >= plugin.relaxed(u, H, plugin.settings_of(Speculative(rule)))
    a = rules.accept_prob(rule, p, q, rules.Signals(H))
    clear = (u - a).abs() > 1e-9
    assert clear.float().mean() > 0.99
    assert torch.equal(kept[clear], (u <= a)[clear])


def test_what_happens_to_a_token_that_the_target_excludes():
    """Accept-all keeps it; u^1000 underflows, but is clamped above 0, in single precision too."""
    u = torch.rand(1000, dtype=torch.float64).clamp(min=1e-12)
    H = torch.zeros(1000)
    ratio = torch.zeros(1000)
    assert (ratio >= plugin.relaxed(u, H, Settings(1.0, beta=0.0)).float()).all()
    for beta in (1e-3, 0.05, 0.5, 1.0):
        assert not (ratio >= plugin.relaxed(u, H, Settings(1.0, beta=beta)).float()).any()


def test_a_closed_gate_returns_the_uniforms_bit_for_bit():
    u = torch.rand(1000, dtype=torch.float64)
    assert torch.equal(plugin.relaxed(u, torch.zeros(1000), Settings(-1.0, 0.5)), u)


@pytest.mark.parametrize("temperature", [engine.COLDEST, 0.7, 1.0, 2.0])
def test_entropy_is_that_of_the_unwarped_softmax(temperature):
    scores = 6 * torch.randn(50, 1000, generator=torch.Generator().manual_seed(2))
    warped = (scores / temperature).softmax(-1)
    entropy = plugin.entropy(warped, torch.full((50,), temperature))
    assert (entropy - rules.entropy(scores.softmax(-1))).abs().max() < 1e-4
    assert plugin.entropy(warped, torch.zeros(50)).isfinite().all()


def test_settings_reach_a_worker_as_they_are():
    method = Speculative(rules.Gated(math.inf, rules.Lenience(0.5)), EntropyStop(6, stop=0.4))
    settings = plugin.settings_of(method, vocab=1000)
    assert settings == Settings(tau=math.inf, beta=1.0, lenience=0.5, stop=0.4, vocab=1000)
    assert Settings(**json.loads(settings.text)) == settings


def test_without_settings_the_plugin_does_nothing(monkeypatch):
    monkeypatch.delenv(plugin.SETTINGS, raising=False)
    before = set(sys.modules)
    plugin.register()
    assert set(sys.modules) == before
    assert plugin.loaded.settings is None


def test_rescued_slots_of_blocks_of_all_lengths():
    """By hand: only accepted slots count, and of these the ones that strict would have rejected."""
    u = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    p = torch.tensor([0.8, 0.8, 0.4, 0.6, 0.4, 0.4])
    accepted = torch.tensor([1, 0, 2, 1])
    found = plugin.rescued(u, p, torch.ones(6), accepted, [2, 0, 3, 1])
    assert found == [[0], [], [0], [0]]
    assert plugin.rescued(u[:0], p[:0], p[:0], torch.tensor([0, 0]), [0, 0]) == [[], []]


def count_rescued(raw, accepted, method=None):
    made = SimpleNamespace(method=method or Speculative(rules.SQRT))
    return engine.VLLMEngine._rescued(made, raw, accepted)


def test_rescues_behind_an_answer_s_end_do_not_count():
    raw = {"accepted": [2, 3], "rescued": [[0, 1], [1, 2]]}
    assert count_rescued(raw, 5) == 4
    assert count_rescued(raw, 4) == 3
    assert count_rescued(raw, 3) == 2
    assert count_rescued({"accepted": [], "rescued": []}, 0) == 0
    assert count_rescued({"accepted": [2], "rescued": None}, 2) == 0
    assert math.isnan(count_rescued({"accepted": [2], "rescued": None}, 2, engine.Fly()))
    with pytest.raises(RuntimeError, match="reports 2 verifications .* the plugin saw 1"):
        count_rescued({"accepted": [2, 3], "rescued": [[0]]}, 5)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, temperature, sentence",
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
def test_what_would_not_be_exact_is_refused(method, temperature, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        engine.VLLMEngine("pocket", method, Sampling(temperature))
    assert "\n" not in str(refused.value)


def test_greedy_power_rules_are_allowed_because_they_are_strict_there():
    engine.check(Speculative(rules.SP_entropy(1.0)), Sampling(0.0), cpu=True)


def test_a_missing_vllm_is_one_sentence():
    # without an origin it is only the folder tests/vllm
    if getattr(find_spec("vllm"), "origin", None):
        pytest.skip("vLLM is installed here")
    with pytest.raises(RuntimeError, match=r"vLLM is not installed in .*\[vllm\]"):
        engine.VLLMEngine("pocket", Autoregressive()).run([(0, tasks.load("pocket-facts", 1)[0])])


# ---- what goes to vLLM and what comes back -----------------------------------------------------


@pytest.mark.parametrize(
    "n_tokens, accepted, drafted, expected",
    [
        (1, [], [], (0, 0, 1)),
        (9, [4, 2], [4, 4], (6, 8, 3)),  # 1 + 5 + 3
        (8, [4, 2], [4, 4], (6, 6, 3)),  # the last accepted draft ended it: no bonus
        (7, [4, 2], [4, 4], (5, 5, 3)),  # and here the draft before
        (11, [4, 2], [4, 4], (6, 8, 5)),  # two forwards had no draft
        (5, [], [], (0, 0, 5)),  # no speculation
    ],
)
def test_counts_of_an_answer(n_tokens, accepted, drafted, expected):
    assert engine.counts(n_tokens, accepted, drafted) == expected


def test_engine_arguments():
    served = engine.VLLMEngine(
        "pocket",
        Speculative(rules.SP_entropy(1.0), EntropyStop(6)),
        tensor_parallel_size=4,
        dtype="bfloat16",
        memory_share=0.5,
        options={"block_size": 32},
    )
    arguments = served.llm_arguments(100)
    assert arguments["tensor_parallel_size"] == 4
    assert arguments["dtype"] == "bfloat16"
    assert arguments["gpu_memory_utilization"] == 0.5
    assert arguments["block_size"] == 32
    assert arguments["async_scheduling"] is False
    speculation = arguments["speculative_config"]
    assert speculation["num_speculative_tokens"] == 6
    assert speculation["draft_sample_method"] == "probabilistic"
    assert speculation["draft_tensor_parallel_size"] == 4


def test_one_model_alone_is_loaded_without_a_draft_and_without_the_plugin():
    small = engine.VLLMEngine("pocket", Autoregressive("draft"))
    large = engine.VLLMEngine("pocket", Autoregressive("target"))
    assert "speculative_config" not in small.llm_arguments(100)
    assert large.plugin_settings() is None
    assert small.llm_arguments(100)["model"] == small.folders["draft"]
    assert large.llm_arguments(100)["model"] != small.folders["draft"]


def test_prompts_and_ends_are_the_pair_s(pocket):
    unloaded = engine.unloaded_pair("pocket", models.PAIRS["pocket"])
    problem = tasks.load("pocket-arithmetic", 1)[0]
    assert unloaded.eos == pocket.eos
    assert unloaded.encode(problem.messages) == pocket.encode(problem.messages)


# ---- folders -----------------------------------------------------------------------------------


def test_wider_heads_are_the_same_function(tmp_path):
    """12 dimensions in 96: rotary frequencies, scale and scores kept; read back as vLLM will."""
    out = layout.export(DRAFT, tmp_path / "wide", head_sizes=layout.CPU_HEADS)
    wide = AutoModelForCausalLM.from_pretrained(out)
    plain = AutoModelForCausalLM.from_pretrained(DRAFT)
    assert wide.config.head_dim == 96
    assert wide.config.model_type == "llama"
    tokens = torch.randint(1024, (4, 200), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert (wide(tokens).logits - plain(tokens).logits).abs().max() < 1e-4
    assert (out / "tokenizer.json").exists()
    assert pairs.load_tokenizer(out).chat_template


def test_a_padded_draft_is_the_same_function_on_its_own_tokens(tmp_path):
    out = layout.export(DRAFT, tmp_path / "padded", vocab_size=1088)
    padded = AutoModelForCausalLM.from_pretrained(out)
    plain = AutoModelForCausalLM.from_pretrained(DRAFT)
    tokens = torch.randint(1024, (2, 50), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        scores = padded(tokens).logits
        assert torch.equal(scores[..., :1024], plain(tokens).logits)
    assert (scores[..., 1024:] == 0).all()
    with pytest.raises(ValueError, match="smaller vocabulary"):
        layout.export(DRAFT, tmp_path / "cut", vocab_size=1000)


def test_pairs_are_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "CACHE", tmp_path)
    pocket = models.PAIRS["pocket"]
    target = models.locate(pocket.target, pocket)
    bigger = layout.export(target, tmp_path / "bigger", vocab_size=1088)
    small = layout.export(models.locate(pocket.draft, pocket), tmp_path / "small")
    folders, vocab = layout.prepare(models.Preset(str(small), str(bigger)), cpu=False)
    assert vocab == 1024
    assert folders["target"] == str(bigger)
    config = json.loads((tmp_path / folders["draft"] / "config.json").read_text())
    assert config["vocab_size"] == 1088
    alike = {"draft": str(small), "target": str(small)}
    assert layout.prepare(models.Preset(**alike), cpu=False) == (alike, None)
    with pytest.raises(ValueError, match="1088 vocabulary rows and the target .* 1024"):
        layout.prepare(models.Preset(str(bigger), str(small)), cpu=False)


def test_a_copy_that_was_cut_off_is_made_again(tmp_path, monkeypatch):
    """It is moved to its place when it is complete; what a kill has left is written anew."""
    copy = tmp_path / "copy"
    with monkeypatch.context() as cut:
        cut.setattr(layout, "save_file", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            layout.export(DRAFT, copy, vocab_size=1088)
    (left,) = tmp_path.iterdir()
    assert left.name == ".copy" and (left / "tokenizer.json").exists()
    (left / "of_the_killed_run.json").write_text("")
    layout.export(DRAFT, copy, vocab_size=1088)
    assert list(tmp_path.iterdir()) == [copy]
    assert (copy / "config.json").exists() and not (copy / "of_the_killed_run.json").exists()


# ---- what a notebook calls ---------------------------------------------------------------------


def test_open_engine_refuses_another_name():
    with pytest.raises(ValueError, match="'local' .* or 'vllm'"):
        engine.open_engine("sglang", "pocket")


def test_layers_of_the_local_engine_are_chosen_by_name():
    # Not "plain", which needs the workbook's own transformers: this runs beside vLLM's too.
    assert engine.open_engine("local", "pocket", "int8").pair.speed == "int8"
    with pytest.raises(ValueError, match="leave it .fast.: vLLM has its own layers"):
        engine.open_engine("vllm", "pocket", "int8")


@pytest.fixture
def fake_worker(monkeypatch):
    """A worker that answers every request with three tokens; the first of n takes longest."""

    def reply_to(self, job):
        answers = []
        for i in range(len(job["requests"])):
            answers.append(
                {
                    "tokens": [5, 6, 1],
                    "finish": "stop",
                    "stopped_by": None,
                    "accepted": [1],
                    "drafted": [2],
                    "rescued": None,
                    "prefill_s": 0.1,
                    "rest_s": 9.0 - i,
                }
            )
        return {"wall": 3.0, "work_around": None, "facts": {"torch": "0"}, "answers": answers}

    monkeypatch.setattr(engine.VLLMEngine, "_reply_to", reply_to)


def test_both_engines_give_the_same_columns(fake_worker):
    problems = tasks.load("pocket-facts", 2)
    method = Speculative(policy=Fixed(2))
    local = engine.open_engine("local", "pocket").run([method], problems)
    rows, trace = engine.open_engine("vllm", "pocket").run([method], problems, (0, 1), trace=True)
    assert local.n_tokens.gt(0).all()
    assert set(rows) == set(local)
    assert len(rows) == 4
    assert trace is None
    assert (rows.rescued == 0).all()


def test_answers_at_once_share_the_clock(fake_worker):
    method = Speculative(policy=Fixed(2))
    rows = engine.open_engine("vllm", "pocket").run([method], tasks.load("pocket-facts", 2))
    assert rows.seconds.sum() == pytest.approx(3.0)


@pytest.mark.parametrize("repeats, rest_s", [(3, [7, 6]), (2, [8, 7]), (4, [6, 5])])
def test_timed_keeps_the_median_repeat(fake_worker, repeats, rest_s):
    """Two problems: rest_s of 9, 7, 5, 3 and of 8, 6, 4, 2, for two tokens of three.

    Of an even number neither of the two in the middle is the median, but their mean.
    """
    problems = tasks.load("pocket-facts", 2)
    served = engine.open_engine("vllm", "pocket")
    timed = served.timed([Speculative(policy=Fixed(2))], problems, repeats=repeats)
    assert list(timed.problem_id) == [p.id for p in problems]
    assert timed.seconds.tolist() == pytest.approx([seconds * 1.5 for seconds in rest_s])
    assert timed.tokens_per_s.tolist() == pytest.approx([2 / seconds for seconds in rest_s])
    assert served.forward_times(widths=(1, 5)).seconds.isna().all()


def test_repeats_of_different_lengths_are_compared_by_their_pace():
    """The longest answer took the longest, and was the quickest."""
    lengths = {"long": (30, 3.0), "short": (10, 2.0), "middle": (20, 2.8), "slow": (20, 6.0)}
    rows = [
        {"name": name, "n_tokens": tokens, "seconds": seconds, "prefill_s": 0.1 * tokens}
        for name, (tokens, seconds) in lengths.items()
    ]
    odd = engine.median_repeat(rows[:3])
    assert odd == rows[2]
    even = engine.median_repeat(rows)
    assert even["name"] == "middle" and even["n_tokens"] == 20
    assert even["seconds"] / even["n_tokens"] == pytest.approx((0.14 + 0.2) / 2)
    assert even["prefill_s"] == pytest.approx((2.0 + 1.0) / 2)


def test_what_a_worker_says_is_kept_whatever_its_bytes(tmp_path, monkeypatch):
    """In a locale of ASCII too: what is no UTF-8 is shown as that."""
    monkeypatch.setattr(common, "CACHE", tmp_path)
    worker = tmp_path / "python"
    worker.write_text(
        "#!/bin/sh\nprintf 'caf\\303\\251 \\377 %s' \"$PYTHONUTF8$SP_VLLM\"\nexit 3\n"
    )
    worker.chmod(0o755)
    monkeypatch.setenv("SP_VLLM_PYTHON", str(worker))
    monkeypatch.setenv("SP_VLLM", "another method's")
    method = Autoregressive()
    with pytest.raises(RuntimeError, match="ended with code 3; its log is .*vllm.log"):
        engine.VLLMEngine("pocket", method).run([(0, tasks.load("pocket-facts", 1)[0])])
    assert (tmp_path / "vllm.log").read_text(encoding="utf-8") == "café � 1"
