"""Loading, and the fast path against transformers' own logits."""

import json
import shutil

import pytest
import torch
from conftest import ROOT
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers import common, decoding, models
from helpers.methods import Fixed, Speculative
from helpers.models import pairs

POCKET = ROOT / "data" / "pocket"


def one(folder, speed="fast", role="target", vocab=10**6):
    return pairs.load_lm(str(folder), vocab, torch.device("cpu"), speed, role)


@torch.inference_mode()
def scores(lm, tokens):
    """All scores of (rows, T) tokens, in two forwards so that the cache is used."""
    lm.start(*tokens.shape)
    first = lm.forward(tokens[:, :5], [0] * len(tokens))
    return lm.logits(torch.cat([first, lm.forward(tokens[:, 5:], [5] * len(tokens))], 1))


SIZES = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=101,
    max_position_embeddings=256,
)
FAMILIES = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama, untied, scaled rope": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SIZES,
            tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
    ),
    "qwen3 (plain body)": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("speed", ["fast", "plain"])
def test_scores_equal_transformers(family, speed, tmp_path):
    torch.manual_seed(1)
    model = FAMILIES[family]().eval()
    model.save_pretrained(tmp_path)
    tokens = torch.randint(0, 101, (3, 12))
    with torch.inference_mode():
        want = model(tokens).logits
    assert torch.allclose(scores(one(tmp_path, speed), tokens), want, atol=2e-5)


@pytest.mark.parametrize("name", ["draft", "target", "expert-math"])
def test_the_shipped_models_equal_transformers(name):
    tokens = torch.randint(0, 1000, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = AutoModelForCausalLM.from_pretrained(POCKET / name)(tokens).logits
    assert torch.allclose(scores(one(POCKET / name), tokens), want, atol=1e-4)


def test_a_shared_prompt_is_read_once(pocket):
    """Rows that begin alike are read once, as if one by one; a second run finds its prompt."""
    begin = list(range(20, 60))
    prompts = [begin + [100 + i] for i in range(4)]
    together = decoding.decode(
        pocket, Speculative(), prompts, [(0, i) for i in range(4)], max_new_tokens=20
    )
    alone = [
        decoding.decode(pocket, Speculative(), [p], [(0, i)], max_new_tokens=20)[0]
        for i, p in enumerate(prompts)
    ]
    assert [a.tokens for a in together] == [a.tokens for a in alone]
    assert pocket.target.start(1, pocket.target.memory.length, begin + [5, 5]) == len(begin)


def test_a_batch_that_was_the_last_one_too_is_not_read_again(pocket, monkeypatch):
    """40 prompts of many lengths: a second method copies what the first one read."""
    prompts = [[5, 6, 7, *range(20, 25 + i % 17)] for i in range(40)]
    keys, calls = [(0, i) for i in range(40)], []
    own = pocket.copy()
    first = decoding.decode(own, Speculative(), prompts, keys, max_new_tokens=12)
    forward = models.LM.forward
    monkeypatch.setattr(
        models.LM,
        "forward",
        lambda lm, tokens, start, row=None: (
            calls.append(tokens.shape) or forward(lm, tokens, start, row)
        ),
    )
    second = decoding.decode(own, Speculative(), prompts, keys, max_new_tokens=12)
    assert all(width <= 5 for _, width in calls)
    other = decoding.decode(own, Speculative(), [p[::-1] for p in prompts], keys, max_new_tokens=12)
    alone = [
        decoding.decode(pocket, Speculative(), [p], [k], max_new_tokens=12)[0].tokens
        for p, k in zip(prompts, keys)
    ]
    assert (
        [a.tokens for a in first]
        == [a.tokens for a in second]
        == alone
        != [a.tokens for a in other]
    )


@torch.inference_mode()
def test_the_same_tokens_cut_elsewhere_are_read_again():
    """Two batches may hold equal tokens and share more or fewer of them: padding looks alike."""
    lm = one(POCKET / "draft")
    tokens = torch.tensor([[7, 8, 9, 4, 5], [7, 8, 9, 4, 6]])
    lm.prefill(tokens, [5, 5], 8)
    lm.prefill(tokens, [5, 3], 8)
    again = lm.logits(lm.forward(tokens[:, 2:3], [2, 2]))
    fresh = one(POCKET / "draft")
    fresh.prefill(tokens, [5, 3], 8)
    expected = fresh.logits(fresh.forward(tokens[:, 2:3], [2, 2]))
    assert torch.allclose(again, expected, atol=1e-4)


def test_plain_and_fast_write_the_same(pocket):
    plain = models.load_pair("pocket", device="cpu", speed="plain")
    prompt = plain.encode(
        [
            {
                "role": "user",
                "content": "Ada has 5 apples. 3 more are bought. How many has Ada now?",
            }
        ]
    )
    a, b = (
        decoding.decode(p, Speculative(policy=Fixed(3)), [prompt], [(1, 1)], max_new_tokens=40)[
            0
        ].tokens
        for p in (pocket, plain)
    )
    assert a == b


def test_truncated_weights_are_reported(tmp_path):
    shutil.copytree(POCKET / "draft", tmp_path / "draft")
    shutil.copytree(POCKET / "tokenizer", tmp_path / "tokenizer")
    file = tmp_path / "draft" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(RuntimeError, match="may be truncated"):
        models.load_pair(
            "broken", draft=str(tmp_path / "draft"), target=str(POCKET / "target"), device="cpu"
        )


def test_tokenizer_mismatch_names_both(tmp_path):
    for name in ("draft", "tokenizer"):
        shutil.copytree(POCKET / name, tmp_path / name)
    file = tmp_path / "tokenizer" / "tokenizer.json"
    spec = json.loads(file.read_text())
    vocab = spec["model"]["vocab"]
    a, b = sorted(vocab, key=vocab.get)[300:302]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    file.write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="draft .*target differ .2 tokens"):
        models.load_pair(
            "other", draft=str(tmp_path / "draft"), target=str(POCKET / "target"), device="cpu"
        )


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (
            {"name": "pockets"},
            ValueError,
            "there is no pair 'pockets'; choose one of pocket, qwen2.5-coder",
        ),
        ({"draft": "x"}, ValueError, "give both draft= and target="),
        ({"speed": "warp"}, ValueError, "'fast', 'int8'"),
        ({"device": "tpu"}, ValueError, "use auto, cpu or cuda"),
    ],
)
def test_bad_input(arguments, error, words):
    with pytest.raises(error, match=words):
        models.load_pair(**{"device": "cpu", **arguments})


def test_missing_gpu_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="sees no CUDA GPU"):
        models.load_pair("pocket", device="cuda")


def test_missing_weights_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "MODELS", tmp_path)
    with pytest.raises(FileNotFoundError, match="make models"):
        models.load_pair("qwen2.5-coder", device="cpu")


def test_too_little_memory_is_a_sentence(monkeypatch, tmp_path):
    shutil.copytree(POCKET / "draft", tmp_path / "draft")
    with (tmp_path / "draft" / "model.safetensors").open("r+b") as f:
        f.truncate(2**42)  # sparse: 4 TiB that do not exist
    with pytest.raises(MemoryError, match="needs about .* GiB"):
        one(tmp_path / "draft")
