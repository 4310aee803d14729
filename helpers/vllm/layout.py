"""A pair's folders as vLLM reads them: tokenizer inside, equal vocabulary sizes, its head sizes.

Every change keeps the function of the model. Padded vocabulary rows are the exception: they are
zero, so a padded id has score 0; the plugin takes them out of the draft's distribution
(helpers/vllm/plugin.py).
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import filelock
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from helpers import common, models
from helpers.models import pairs
from helpers.models.lm import head_size

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # vLLM 0.32's CPU attention
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
UNTOUCHED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
# Qwen2's settings that Llama's configuration does not know
QWEN2_ONLY = ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window")


def prepare(preset, cpu):
    """Folders (or hub ids) of a pair that vLLM can load; cpu: for its CPU build.

    Returns ({"draft": where, "target": where}, vocab) with `vocab` the draft's vocabulary size
    where its rows had to be padded to the target's, else None. Copies are kept under
    data/cache/vllm. Errors: tokenizers that differ, a draft with the larger vocabulary.
    """
    where = {
        "draft": models.locate(preset.draft, preset),
        "target": models.locate(preset.target, preset),
    }
    tokenizers = {role: pairs.load_tokenizer(folder) for role, folder in where.items()}
    models.check_tokenizers(
        tokenizers["draft"], tokenizers["target"], where["draft"], where["target"]
    )
    configs = {role: AutoConfig.from_pretrained(folder) for role, folder in where.items()}
    draft_size = configs["draft"].vocab_size
    target_size = configs["target"].vocab_size
    if draft_size > target_size:
        raise ValueError(
            f"the draft {where['draft']} has {draft_size} vocabulary rows and the target "
            f"{where['target']} {target_size}; vLLM needs equal sizes and only a draft can be "
            "padded: use engine 'local'"
        )
    padded = draft_size < target_size
    heads = CPU_HEADS if cpu else ()
    for role, config in configs.items():
        rows = target_size if padded and role == "draft" else None
        if rows or _is_foreign(where[role], head_size(config), heads):
            where[role] = _copied(where[role], rows, heads)
    folders = {role: str(folder) for role, folder in where.items()}
    return folders, draft_size if padded else None


def _is_foreign(where, head, heads):
    """Whether a local folder has a head size that vLLM lacks, or its tokenizer beside it."""
    folder = Path(where)
    if not folder.is_dir():
        return False
    if heads and head not in heads:
        return True
    return (folder.parent / "tokenizer").is_dir()


def _copied(source, vocab_size, heads):
    """A copy in vLLM's layout, made once for each state of its source."""
    if not Path(source).is_dir():
        from huggingface_hub import snapshot_download  # slow to import, and seldom needed

        source = snapshot_download(source, allow_patterns=["*.safetensors", *UNTOUCHED])
    state = (
        source,
        vocab_size,
        heads,
        Path(__file__).read_text(encoding="utf-8"),
        pairs.revision_of({"model": source}),
    )
    digest = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    copy = common.CACHE / "vllm" / f"{Path(source).name}-{digest}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(copy.with_name(f".{copy.name}.lock")):  # of two runs one makes it
        if not copy.exists():
            export(source, copy, vocab_size, heads)
    return copy


def export(folder, out, vocab_size=None, head_sizes=()):
    """Copy a local model to `out` in vLLM's layout. Returns `out`.

    vocab_size: pad the embedding and the output rows to it. head_sizes: pad heads to the least
    multiple among these when theirs is not one of them (Qwen2 only). Errors: fewer rows than there
    are, a head size without a multiple. What is written is moved to `out` when it is complete.
    """
    folder = Path(folder)
    out = Path(out)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    new = out.with_name(f".{out.name}")
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    new.mkdir(parents=True)
    for source in (folder.parent / "tokenizer", folder):
        for pattern in UNTOUCHED:
            for file in source.glob(pattern):
                if file.name != "config.json":
                    shutil.copy(file, new / file.name)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    wider = _wider_head(dim, head_sizes, folder) if head_sizes else dim
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        if vocab_size:
            for name in weights.keys() & set(VOCABULARY):
                weights[name] = pad_rows(weights[name], vocab_size)
        if wider != dim:
            weights = pad_heads(weights, dim, wider)
        save_file(weights, new / file.name, metadata={"format": "pt"})
    if wider != dim:
        config = _as_llama(config, wider)
    config["vocab_size"] = vocab_size or config["vocab_size"]
    (new / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(new, out)
    return out


def _as_llama(config, head_dim):
    """A Qwen2 configuration as Llama's, which has the same layers and names its head size."""
    kept = {key: value for key, value in config.items() if key not in QWEN2_ONLY}
    return kept | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "head_dim": head_dim,
        "mlp_bias": False,
    }


def _wider_head(dim, allowed, folder):
    """The least allowed head size that is a multiple of `dim`.

    A multiple, so that the rotary frequencies are among those of the wider head.
    """
    multiples = [size for size in sorted(allowed) if size % dim == 0]
    if not multiples:
        raise ValueError(
            f"the heads of {folder} have {dim} dimensions, and no head size that vLLM has here is "
            f"a multiple of it ({', '.join(map(str, allowed))}); use another model"
        )
    return multiples[0]


def pad_rows(weight, rows):
    """Add zero rows to (V, d) until it has `rows`; refuses to cut."""
    if rows < len(weight):
        raise ValueError(
            f"the draft has {len(weight)} vocabulary rows and {rows} were asked for; only a draft "
            "with the smaller vocabulary can be padded"
        )
    return torch.cat([weight, weight.new_zeros(rows - len(weight), weight.shape[1])])


def pad_heads(weights, dim, wider):
    """The same attention with heads of `wider` = n * dim dimensions.

    weights: a Qwen2 state dict; returned is Llama's. Rotary pair (i, i + dim/2) turns with
    base^(-2i/dim); in the wider head pair (n i, n i + wider/2) does, so that is where it goes, and
    zeros elsewhere. Scores are divided by sqrt(wider) instead of sqrt(dim): q takes up the factor.
    """
    n = wider // dim
    pair = n * torch.arange(dim // 2)
    place = torch.cat([pair, pair + wider // 2])

    def widen(weight):
        """Rows (heads * dim, ...) -> (heads * wider, ...)."""
        out = weight.new_zeros(weight.shape[0] // dim, wider, *weight.shape[1:])
        out[:, place] = weight.reshape(-1, dim, *weight.shape[1:])
        return out.reshape(-1, *weight.shape[1:])

    widened = {}
    for name, weight in weights.items():
        if ".q_proj." in name:
            weight = widen(weight) * n**0.5
        elif ".k_proj." in name or ".v_proj." in name:
            weight = widen(weight)
        elif name.endswith(".o_proj.weight"):
            # Llama with attention_bias expects one here too; Qwen2 has none
            bias = name.removesuffix("weight") + "bias"
            widened[bias] = weight.new_zeros(weight.shape[0])
            weight = widen(weight.T).T
        widened[name] = weight.contiguous()
    return widened
