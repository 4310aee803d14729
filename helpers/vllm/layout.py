"""A pair's folders as vLLM reads them: tokenizer inside, equal vocabulary sizes, head sizes that its kernels have.

Every change keeps the function of the model. Padded vocabulary rows are the exception: they are zero, so a padded id
has score 0; the plugin takes them out of the draft's distribution (helpers/vllm/plugin.py).
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # vLLM 0.32's CPU attention
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
UNTOUCHED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")


def export(folder, out, vocab_size=None, head_sizes=()):
    """Copy a local model to `out` in vLLM's layout. Returns `out`.

    vocab_size: pad the embedding and the output rows to it. head_sizes: pad heads to the least multiple among these
    when theirs is not one of them (Qwen2 only). Errors: fewer rows than there are, a head size without a multiple.
    """
    folder, out = Path(folder), Path(out)
    config = json.loads((folder / "config.json").read_text())
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for source in (folder.parent / "tokenizer", folder):
        for pattern in UNTOUCHED:
            for file in source.glob(pattern):
                shutil.copy(file, out / file.name)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    wider = _head_size(dim, head_sizes, folder) if head_sizes else dim
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        if vocab_size:
            weights = {
                k: pad_rows(w, vocab_size) if k in VOCABULARY else w for k, w in weights.items()
            }
        if wider != dim:
            weights = pad_heads(weights, dim, wider)
        save_file(weights, out / file.name, metadata={"format": "pt"})
    if wider != dim:  # vLLM's Qwen2 has no head_dim of its own; its Llama has, and the same layers
        config |= {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": True,
            "head_dim": wider,
            "mlp_bias": False,
        }
        for key in ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window"):
            config.pop(key, None)
    config["vocab_size"] = vocab_size or config["vocab_size"]
    (out / "config.json").write_text(json.dumps(config, indent=2))
    return out


def _head_size(dim, allowed, folder):
    """The least allowed size that is a multiple of `dim`, so that the rotary frequencies are among the wider one's."""
    found = next((size for size in sorted(allowed) if size % dim == 0), None)
    if found is None:
        raise ValueError(
            f"the heads of {folder} have {dim} dimensions, and no head size that vLLM has here is a "
            f"multiple of it ({', '.join(map(str, allowed))}); use another model"
        )
    return found


def pad_rows(weight, rows):
    """Add zero rows to (V, d) until it has `rows`; refuses to cut."""
    if rows < len(weight):
        raise ValueError(
            f"the draft has {len(weight)} vocabulary rows and {rows} were asked for; only a draft with "
            "the smaller vocabulary can be padded"
        )
    return torch.cat([weight, weight.new_zeros(rows - len(weight), weight.shape[1])])


def pad_heads(weights, dim, wider):
    """The same attention with heads of `wider` = n * dim dimensions; a Qwen2 state dict, returned as Llama's.

    Rotary pair (i, i + dim/2) turns with base^(-2i/dim); in the wider head pair (n i, n i + wider/2) does, so that is
    where it goes, and zeros elsewhere. Scores are divided by sqrt(wider) instead of sqrt(dim): q takes up the factor.
    """
    n, half = wider // dim, torch.arange(dim // 2)
    place = torch.cat([n * half, n * half + wider // 2])

    def widen(w):  # rows (heads * dim, ...) -> (heads * wider, ...)
        out = w.new_zeros(w.shape[0] // dim, wider, *w.shape[1:])
        out[:, place] = w.reshape(-1, dim, *w.shape[1:])
        return out.reshape(-1, *w.shape[1:])

    out = {}
    for name, w in weights.items():
        if ".q_proj." in name:
            w = widen(w) * n**0.5
        elif ".k_proj." in name or ".v_proj." in name:
            w = widen(w)
        elif name.endswith(".o_proj.weight"):
            out[name.removesuffix("weight") + "bias"] = w.new_zeros(w.shape[0])
            w = widen(w.T).T
        out[name] = w.contiguous()
    return out
