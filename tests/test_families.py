"""Families of models: computed as transformers computes them, or refused in a sentence."""

import json
import shutil

import pytest
import torch
from conftest import ROOT
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from helpers import models
from helpers.models import pairs

POCKET = ROOT / "data" / "pocket"
CPU = torch.device("cpu")
SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
)
# Family -> what its configuration has beside SMALL.
COMPUTED = {
    "qwen2": {},
    "qwen3": dict(head_dim=8),
    "llama": {},
    "llama with biases": dict(model_type="llama", mlp_bias=True, attention_bias=True),
    "mistral": dict(sliding_window=16),
    "phi3": dict(sliding_window=None),
    "olmo2": {},
    "starcoder2": dict(sliding_window=None),
    "smollm3": {},
    "stablelm": {},
    "gemma": dict(head_dim=8),
    "exaone4": dict(sliding_window=16, sliding_window_pattern=2),
    "helium": dict(head_dim=8),
}
REFUSED = {
    "granite": dict(logits_scaling=4.0),
    "cohere": dict(logit_scale=0.25),
    "gemma2": dict(head_dim=8, final_logit_softcapping=2.0, query_pre_attn_scalar=8),
    "gpt2": dict(n_positions=128, n_embd=32, n_layer=2, n_head=4),
    "gpt_neox": {},
    "opt": dict(ffn_dim=48, word_embed_proj_dim=32),
    "bloom": {},
    "mamba": {},
}


def saved(folder, name, **changes):
    """A tiny random model of a family, fp32, in a folder with pocket's tokenizer beside nothing."""
    changes = SMALL | changes
    family = changes.pop("model_type", name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **changes))
    for parameter in model.parameters():  # what begins at zero or one would hide its absence
        torch.nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.2)
    model.eval().save_pretrained(folder)
    return model


def loaded(folder, speed="fast"):
    return models.pairs.load_lm(str(folder), SMALL["vocab_size"], CPU, speed, "target")


@torch.inference_mode()
@pytest.mark.parametrize("name", COMPUTED)
def test_a_family_is_computed_as_by_transformers(name, tmp_path):
    """One row, ragged rows, and after a rollback."""
    model = saved(tmp_path, name, **COMPUTED[name])
    lm = loaded(tmp_path)
    tokens = torch.randint(SMALL["vocab_size"], (2, 16), generator=torch.Generator().manual_seed(1))
    expected = model(tokens).logits

    lm.start(2, 16)
    lm.forward(tokens[:, :9], [0, 0])
    lm.forward(tokens[:, :3], [9, 9])
    rest = lm.logits(lm.forward(tokens[:, 9:], [9, 9]))
    torch.testing.assert_close(rest, expected[:, 9:], atol=2e-4, rtol=1e-3)

    ragged = torch.stack([tokens[0, 12:15], tokens[1, 10:13]])
    found = lm.logits(lm.forward(ragged, [12, 10]))
    torch.testing.assert_close(found[0], expected[0, 12:15], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(found[1], expected[1, 10:13], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_cannot_be_is_refused(name, tmp_path):
    saved(tmp_path, name, **REFUSED[name])
    with pytest.raises(RuntimeError, match=f"family {name} do not fit") as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)


def test_a_window_ends_the_context(tmp_path):
    """Up to the window the scores are transformers'; what is longer is refused unread."""
    model = saved(tmp_path, "mistral", sliding_window=16)
    lm = loaded(tmp_path)
    assert lm.context == 16
    tokens = torch.randint(SMALL["vocab_size"], (1, 40), generator=torch.Generator().manual_seed(1))
    lm.start(1, 40)
    with torch.inference_mode():
        ours = lm.logits(lm.forward(tokens, [0]))
        theirs = model(tokens).logits
    assert torch.allclose(ours[:, :16], theirs[:, :16], atol=1e-3)
    assert not torch.allclose(ours[:, 20:], theirs[:, 20:], atol=1e-2)
    assert loaded_context(tmp_path, "qwen2", use_sliding_window=False, sliding_window=16) == 128
    assert (
        loaded_context(
            tmp_path, "qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=0
        )
        == 16
    )


def loaded_context(folder, name, **changes):
    saved(folder / "other", name, **changes)
    context = loaded(folder / "other").context
    shutil.rmtree(folder / "other")
    return context


def test_a_rope_that_changes_with_the_length_ends_it_too(tmp_path):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "long_factor": [2.0] * 4,
        "short_factor": [1.0] * 4,
        "original_max_position_embeddings": 32,
    }
    changes = dict(rope_parameters=rope, original_max_position_embeddings=32, sliding_window=None)
    assert loaded_context(tmp_path, "phi3", **changes) == 32


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    saved(tmp_path, "qwen2")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"lack 1 tensors .*layers.1.mlp.up_proj.weight"):
        loaded(tmp_path)


# ---- tokenizers and templates ------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Copies of pocket's draft and target, each with the tokenizer inside."""
    for name in ("draft", "target"):
        shutil.copytree(POCKET / name, tmp_path / name)
        shutil.copytree(POCKET / "tokenizer", tmp_path / name, dirs_exist_ok=True)
    return tmp_path


def opened(folders, **arguments):
    return models.load_pair(
        "own",
        draft=str(folders / "draft"),
        target=str(folders / "target"),
        device="cpu",
        **arguments,
    )


def test_a_folder_without_a_tokenizer_is_refused(folders):
    for name in ("draft", "target"):
        for file in (folders / name).glob("*token*"):
            file.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="no tokens|no tokenizer"):
        opened(folders)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders / "draft")
    size = AutoConfig.from_pretrained(folders / "target").vocab_size
    tokenizer.add_tokens([f"<more {n}>" for n in range(size)])
    for name in ("draft", "target"):
        tokenizer.save_pretrained(folders / name)
    with pytest.raises(ValueError, match=rf"has tokens up to number \d+ and the models {size} of"):
        opened(folders)


def template(folders, text):
    for name in ("draft", "target"):
        (folders / name / "chat_template.jinja").write_text(text)


def test_templates_are_told_not_to_think_and_one_day(folders):
    template(
        folders,
        "{{ 'a' if enable_thinking else 'b' }} {{ date_string }} {{ strftime_now('%Y-%m-%d') }}",
    )
    pair = opened(folders)
    message = [{"role": "user", "content": "x"}]
    assert pair.decode(pair.encode(message)) == "b 26 Jul 2024 2024-07-26"
    thinking = opened(folders, thinking=True)
    assert thinking.decode(thinking.encode(message)).startswith("a")
    assert thinking.revision != pair.revision


def test_a_token_that_the_models_lack_is_refused_where_it_is_used(folders):
    for name in ("draft", "target"):
        tokenizer = AutoTokenizer.from_pretrained(folders / name)
        tokenizer.add_special_tokens({"extra_special_tokens": ["<far>", "<farther>"]})
        tokenizer.save_pretrained(folders / name)
    pair = opened(folders)
    assert pair.encode([{"role": "user", "content": "near"}])
    with pytest.raises(ValueError, match="a prompt holds '<farther>', token 102"):
        pair.encode([{"role": "user", "content": "<farther>"}])


def test_the_first_token_is_there_where_no_template_writes_it(folders):
    """As the model's own tokenizer would begin any text."""
    spec = json.loads((folders / "draft" / "tokenizer.json").read_text())
    token = spec["added_tokens"][0]
    begin = {"SpecialToken": {"id": token["content"], "type_id": 0}}
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            begin,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            token["content"]: {
                "id": token["content"],
                "ids": [token["id"]],
                "tokens": [token["content"]],
            }
        },
    }
    for name in ("draft", "target"):
        (folders / name / "tokenizer.json").write_text(json.dumps(spec))
        (folders / name / "chat_template.jinja").unlink()
        config = folders / name / "tokenizer_config.json"
        known = json.loads(config.read_text()) | {"bos_token": token["content"]}
        config.write_text(json.dumps(known))
    tokens = opened(folders).encode([{"role": "user", "content": "x"}])
    assert tokens[0] == token["id"] and token["id"] not in tokens[1:]


def test_prompts_of_the_shipped_pair_are_what_they_were(pocket):
    message = [{"role": "user", "content": "Ada has 5 apples."}]
    text = pocket.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert pocket.encode(message) == pocket.tokenizer(text, add_special_tokens=False).input_ids


def test_a_container_may_have_less_memory_than_its_machine(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 33554432 kB\n")
    monkeypatch.setattr(pairs, "MEMORY_INFO", tmp_path / "meminfo")
    files = tmp_path / "memory.max", tmp_path / "memory.stat"
    monkeypatch.setattr(pairs, "CONTAINER_MEMORY", ((*files, "anon"),))
    assert pairs._free_memory() == 32
    files[1].write_text(f"anon {1 << 30}\nfile {2 << 30}\n")
    files[0].write_text("max\n")
    assert pairs._free_memory() == 32
    files[0].write_text(f"{3 << 30}\n")
    assert pairs._free_memory() == 2
