"""Whether a model is computed right here: what cannot be is refused, by name and number.

The cache of helpers/models/lm.py gives every layer full attention to all that was read, and the
scores are the head's alone. A model of another kind would answer, and wrongly: a sliding window, a
rope that changes with the length, scores that are scaled or capped behind the head.
"""

import torch

from helpers.models.lm import LM

LENGTH_DEPENDENT = ("longrope", "dynamic", "su")  # kinds of rope
READ = 12  # tokens of the check that are read at once; then WIDTH more, and those again
WIDTH = 4
MOST = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}  # of the largest score


def exact_context(config):
    """The longest sequence whose scores do not depend on what the cache leaves out, tokens.

    Up to its window a sliding layer sees everything, and up to its original length a rope is the
    one that was trained.
    """
    lengths = [config.max_position_embeddings]
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    slides = any(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    window = getattr(config, "sliding_window", None)
    if window and slides and getattr(config, "use_sliding_window", True):
        lengths.append(window)
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and slides:
        lengths.append(chunk)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in LENGTH_DEPENDENT:
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        lengths.append(original or config.max_position_embeddings)
    return min(lengths)


def has_all(loading, folder):
    """Refuse a model some of whose weights its files lack: they would be filled at random."""
    lacking = sorted(loading.get("missing_keys", ())) + sorted(
        str(key) for key in loading.get("mismatched_keys", ())
    )
    if lacking:
        raise RuntimeError(
            f"the weights in {folder} lack {len(lacking)} tensors of the model ({lacking[0]} "
            "…), which would be filled at random; fetch the model again"
        )


def tokens_fit(tokenizer, vocab_size, folder):
    """Refuse a tokenizer that writes nothing, or tokens that the models do not have."""
    if not tokenizer("Hello, 1 + 1?", add_special_tokens=False).input_ids:
        raise ValueError(
            f"the tokenizer of {folder} turns a text into no tokens; its files are missing or "
            "damaged: put tokenizer.json into the folder"
        )
    # A special token that the models lack does no harm until a prompt holds it (Pair.encode).
    special = {n for n, token in tokenizer.added_tokens_decoder.items() if token.special}
    largest = max(n for n in tokenizer.get_vocab().values() if n not in special)
    if largest >= vocab_size:
        raise ValueError(
            f"the tokenizer of {folder} has tokens up to number {largest} and the models "
            f"{vocab_size} of them; it belongs to another model"
        )


@torch.inference_mode()
def as_transformers(model, body, vocab_size, device, folder):
    """Refuse a model whose scores through our cache are not those of transformers' own forward.

    A few random tokens are read, some more are, and these once more after a rollback.
    """
    family = getattr(model.config, "model_type", type(model).__name__)
    size = min(vocab_size or model.config.vocab_size, model.config.vocab_size)
    draw = torch.Generator().manual_seed(0)
    read = min(READ, exact_context(model.config) - WIDTH)
    tokens = torch.randint(size, (1, read + WIDTH), generator=draw).to(device)
    try:
        lm = LM(body, size, device, model.dtype, str(folder))
        expected = model(tokens).logits[0, :, :size].float()
        lm.start(1, read + WIDTH)
        first = lm.logits(lm.forward(tokens[:, :read], [0]))
        lm.forward(tokens[:, :WIDTH], [read])  # a draft that is taken back
        last = lm.logits(lm.forward(tokens[:, read:], [read]))
    except (AttributeError, TypeError, RuntimeError, IndexError, ValueError, KeyError) as error:
        raise unsupported(family, folder, f"{type(error).__name__}: {error}") from error
    found = torch.cat([first, last], 1)[0]
    most = (found - expected).abs().max().item()
    if not most <= MOST[model.dtype] * max(1.0, expected.abs().max().item()):
        raise unsupported(family, folder, f"its scores differ from transformers' by {most:.2g}")


def text_config(config, folder):
    """The configuration of a model that writes text, whose sizes the cache can read."""
    family = getattr(config, "model_type", "unknown")
    for name in ("num_hidden_layers", "num_key_value_heads", "max_position_embeddings"):
        if getattr(config, name, None) is None:
            raise unsupported(family, folder, f"its configuration has no {name}")
    return config


def unsupported(family, folder, why):
    """The refusal of a model, in one sentence."""
    why = str(why).splitlines()[0]
    return RuntimeError(
        f"{folder} cannot be computed right here: models of the family {family} do not fit the "
        f"key/value cache of this project ({why}); choose a pair of another family, such as Qwen2, "
        "Llama or Qwen3"
    )
