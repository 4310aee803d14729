"""Families of models: computed as transformers computes them, or refused in a sentence."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from helpers import common, models
from helpers.models import checks, compact, linears, lm, pairs
from helpers.vllm import engine

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
WINDOW = 16
LENGTH = 40  # tokens that are read: past the window
# Family -> what its configuration has beside SMALL.
COMPUTED = {
    "qwen2": {},
    "qwen2, a layer slides": dict(
        model_type="qwen2", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": dict(head_dim=8),
    "qwen3, a layer slides": dict(
        model_type="qwen3",
        head_dim=8,
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=1,
    ),
    "llama": {},
    "llama with biases": dict(model_type="llama", mlp_bias=True, attention_bias=True),
    "mistral": dict(sliding_window=WINDOW),
    "phi3": dict(sliding_window=WINDOW),
    "olmo2": {},
    "olmo3": dict(sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]),
    "starcoder2": dict(sliding_window=WINDOW),
    "smollm3": {},
    "stablelm": {},
    "gemma": dict(head_dim=8),
    "gemma2": dict(
        head_dim=8,
        final_logit_softcapping=2.0,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
    ),
    "gemma3_text": dict(
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "exaone4": dict(sliding_window=WINDOW, sliding_window_pattern=2),
    "helium": dict(head_dim=8),
    "granite": dict(logits_scaling=4.0),
    "cohere": dict(logit_scale=0.25),
    "cohere2": dict(
        logit_scale=0.25,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
}
REFUSED = {
    "gpt2": dict(n_positions=128, n_embd=32, n_layer=2, n_head=4),
    "gpt_neox": {},
    "opt": dict(ffn_dim=48, word_embed_proj_dim=32),
    "bloom": {},
    "falcon": dict(multi_query=True),
    "mamba": {},
    "lfm2": dict(block_dim=32, block_ff_dim=48, layer_types=["conv", "full_attention"]),
    "qwen3_next": dict(
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        num_experts=4,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "deepseek_v3": dict(
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What was found right in another test, or another run, is not known here."""
    monkeypatch.setattr(common, "CACHE", tmp_path / "cache")


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
    """One row, ragged rows, and after a rollback, past its window."""
    model = saved(tmp_path, name, **COMPUTED[name])
    own = loaded(tmp_path)
    assert own.context == SMALL["max_position_embeddings"]
    tokens = random_tokens(2, LENGTH)
    expected = model(tokens).logits
    tolerance = dict(atol=2e-4, rtol=1e-3)

    own.start(2, LENGTH)
    own.forward(tokens[:, :33], [0, 0])
    own.forward(tokens[:, :3], [33, 33])
    rest = own.logits(own.forward(tokens[:, 33:39], [33, 33]))
    torch.testing.assert_close(rest, expected[:, 33:39], **tolerance)
    last = own.logits(own.forward(tokens[:, 39:], [39, 39]))
    torch.testing.assert_close(last, expected[:, 39:], **tolerance)

    ragged = torch.stack([tokens[0, 36:39], tokens[1, 10:13]])
    found = own.logits(own.forward(ragged, [36, 10]))
    torch.testing.assert_close(found[0], expected[0, 36:39], **tolerance)
    torch.testing.assert_close(found[1], expected[1, 10:13], **tolerance)


def random_tokens(*shape):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(SMALL["vocab_size"], shape, generator=draw)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_cannot_be_is_refused(name, tmp_path):
    saved(tmp_path, name, **REFUSED[name])
    with pytest.raises(RuntimeError, match=f"family {name} do not fit") as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)


# ---- past every length at which something changes ----------------------------------------------

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "long_factor": [2.0] * 4,
    "short_factor": [1.0] * 4,
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    "name", [name for name, changes in COMPUTED.items() if "sliding_window" in changes]
)
@pytest.mark.parametrize("taken", [None, WINDOW - 1, WINDOW + 1])
def test_a_wrong_window_is_refused(name, taken, tmp_path, monkeypatch):
    """Mutants: none, and one that is a token too short or too long."""
    saved(tmp_path, name, **COMPUTED[name])
    monkeypatch.setattr(lm, "window_of", lambda config: taken)
    with pytest.raises(RuntimeError, match=r"scores differ from transformers' by .* within 24 tok"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["qwen2", "llama", "phi3"])
def test_a_rope_that_changes_with_the_length_ends_the_context(name, tmp_path, monkeypatch):
    """For the mutant that takes it for a rope of any length it is refused."""
    original = {"original_max_position_embeddings": 16} if name == "phi3" else {}
    saved(tmp_path, name, rope_parameters=LONGROPE, sliding_window=None, **original)
    assert loaded(tmp_path).context == 16
    monkeypatch.setattr(common, "CACHE", tmp_path / "none")
    monkeypatch.setattr(checks, "STATIC", (*checks.STATIC, "longrope"))
    with pytest.raises(RuntimeError, match=r"scores differ from transformers' by .* within 24 tok"):
        loaded(tmp_path)


def test_a_rope_of_one_kind_of_layers_counts_too(tmp_path):
    """Families with two kinds of layers state a rope for each."""
    ropes = {
        "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "sliding_attention": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    }
    config = AutoConfig.for_model("olmo3", **SMALL | dict(rope_parameters=ropes))
    config.rope_parameters["sliding_attention"]["original_max_position_embeddings"] = 32
    assert checks.exact_context(config, 10**6) == 32


def test_a_window_that_a_check_cannot_pass_ends_the_context(tmp_path, monkeypatch):
    """Nothing is claimed for sequences that nothing was compared for."""
    model = saved(tmp_path, "mistral", sliding_window=20)
    monkeypatch.setattr(checks, "WORK", 27 * model.num_parameters())
    assert loaded(tmp_path).context == 20
    monkeypatch.setattr(common, "CACHE", tmp_path / "none")
    monkeypatch.setattr(checks, "WORK", 28 * model.num_parameters())
    assert loaded(tmp_path).context == SMALL["max_position_embeddings"]


def test_a_window_that_is_switched_off_is_none(tmp_path):
    changes = dict(use_sliding_window=False, sliding_window=WINDOW)
    assert loaded_context(tmp_path, "qwen2", **changes) == SMALL["max_position_embeddings"]


# ---- the compact forward -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2, a layer slides", "mistral", "llama with biases"])
def test_what_the_compact_forward_leaves_out_is_refused(name, tmp_path, monkeypatch):
    """The mutant says that it computes everything."""
    saved(tmp_path, name, **COMPUTED[name])
    monkeypatch.setattr(compact, "fits", lambda config: True)
    family = COMPUTED[name].get("model_type", name)
    with pytest.raises(RuntimeError, match=f"family {family} do not fit .*differ from .* by "):
        loaded(tmp_path)


@pytest.mark.parametrize("speed", ["fast", "int8"])
def test_a_kernel_that_computes_something_else_is_refused(speed, tmp_path, monkeypatch):
    """The mutant's outputs are right, in another order."""
    saved(tmp_path, "qwen2")
    monkeypatch.setattr(compact, "is_small", lambda config: False)
    path = linears.best(linears.INT8 if speed == "int8" else linears.FP16)
    packer = linears.PACKERS[path]

    def shuffled(weight, bias=None):
        layer = packer(weight, bias)
        return lambda x, **times: layer(x, **times).roll(1, -1)

    assert loaded(tmp_path, speed).precision == path
    monkeypatch.setattr(common, "CACHE", tmp_path / "none")
    monkeypatch.setitem(linears.PACKERS, path, shuffled)
    with pytest.raises(RuntimeError, match="scores differ from transformers' by"):
        loaded(tmp_path, speed)


def test_a_model_is_compared_once_for_each_revision(tmp_path, monkeypatch):
    compared = []
    as_transformers = checks.as_transformers

    def counting(*arguments):
        compared.append(as_transformers(*arguments))
        return compared[-1]

    monkeypatch.setattr(checks, "as_transformers", counting)
    saved(tmp_path, "qwen3", head_dim=8)
    for _ in range(3):
        loaded(tmp_path)
    assert len(compared) == 1
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    loaded(tmp_path)
    assert len(compared) == 2


def loaded_context(folder, name, **changes):
    saved(folder / "other", name, **changes)
    context = loaded(folder / "other").context
    shutil.rmtree(folder / "other")
    return context


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    saved(tmp_path, "qwen2")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"lack 1 tensors .*layers.1.mlp.up_proj.weight"):
        loaded(tmp_path)


@pytest.mark.parametrize("speed", ["fast", "plain"])
@pytest.mark.parametrize("ends, expected", [([1, 5], (1, 3, 5)), (5, (3, 5)), (None, (3,))])
def test_every_end_token_ends_an_answer(tmp_path, speed, ends, expected):
    model = saved(tmp_path, "qwen2")
    model.generation_config.eos_token_id = ends
    model.save_pretrained(tmp_path)
    tokenizer = SimpleNamespace(eos_token_id=3)
    assert pairs.end_tokens(loaded(tmp_path, speed), tokenizer) == expected


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
    several = {"tool_use": "?", "default": "{{ strftime_now('%d %b %Y') }}"}
    pair.tokenizer.chat_template = several
    assert pair.decode(pair.encode(message)) == "26 Jul 2024"


@pytest.mark.parametrize(
    "family", ["gemma3", "qwen2_vl", "mllama", "llama4", "t5", "whisper", "gpt2", "rwkv"]
)
def test_a_pair_of_another_kind_is_refused_before_its_weights_are_read(folders, family):
    """Some configurations lack what is asked for first: the size of the vocabulary."""
    for name in ("draft", "target"):
        AutoConfig.for_model(family).save_pretrained(folders / name)
    with pytest.raises(RuntimeError, match=f"family {family} do not fit .* has no \\w+") as error:
        opened(folders)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [{"model_type": "of next year"}, {"num_hidden_layers": 9}, {"model_type": None}]
)
@pytest.mark.parametrize("threads", [None, "1"])
def test_a_configuration_that_cannot_be_read_is_a_sentence(folders, change, threads, monkeypatch):
    """Also where nothing but the pair reads it: a GPU, or threads that are chosen already."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    config = folders / "target" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(
        FileNotFoundError, match=r"the configuration of .*target' cannot be"
    ) as error:
        opened(folders)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, why",
    [
        ('{"eos_token_id": [1, 5', r"cannot be read \(Expecting"),
        ("", r"cannot be read \(Expecting value"),
        ("[]", "has 'no settings' where the numbers"),
        ('{"eos_token_id": "</s>"}', "has '</s>' where the numbers"),
    ],
)
@pytest.mark.parametrize("name", ["draft", "target"])
def test_end_tokens_that_cannot_be_read_are_refused(folders, name, text, why):
    """transformers goes on without them, and answers do not end."""
    file = folders / name / "generation_config.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"{file} {why}.*; fetch the model again") as error:
        opened(folders)
    assert "\n" not in str(error.value)


def test_a_missing_generation_config_leaves_the_ends_that_config_json_states(folders):
    for name in ("draft", "target"):
        (folders / name / "generation_config.json").unlink(missing_ok=True)
    file = folders / "target" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [1, 5]}))
    pair = opened(folders)
    assert set(pair.eos) == {1, 5, pair.tokenizer.eos_token_id}
    preset = models.Preset(str(folders / "draft"), str(folders / "target"))
    assert engine.unloaded_pair("own", preset).eos == pair.eos


@pytest.mark.parametrize(
    "text, why",
    [("{{ raise_exception('no system role') }}", "no system role"), ("{% if", "end of")],
)
def test_a_template_that_refuses_a_chat_is_a_sentence(folders, text, why):
    template(folders, text)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    with pytest.raises(
        ValueError, match=rf"template of own does not take .* system, user \(.*{why}"
    ):
        opened(folders).encode(chat)


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
