"""Whether a model is computed right here: what cannot be is refused, by name and number.

The cache of helpers/models/lm.py knows full attention and sliding windows. A model of another kind
would answer, and wrongly: a rope that changes with the length, scores that are scaled or capped
behind the head, layers that keep something else. So every model is compared with transformers' own
forward when it is loaded first, past every length at which its configuration says that something
changes. Where that would take minutes (a window of 32,768 tokens) the context ends at that length.
"""

import copy
import json
import re
from pathlib import Path

import torch
import transformers

from helpers import store
from helpers.models.linears import BF16, FP16, FP32, FP32_PACKED, INT8
from helpers.models.lm import LM, window_of
from helpers.models.revision import revision_of

STATIC = (None, "default", "linear", "yarn", "llama3", "proportional")  # ropes of any length
# Settings with which the computation changes at a length, and others with names like theirs.
TURNING = re.compile(r"window|attention_chunk|local_attention|original_max_position")
NO_LENGTH = re.compile(r"layers|pattern|use_")
READ = 12  # tokens of the check that are read first; then WIDTH that are taken back, and WIDTH more
WIDTH = 4
WORK = 1 << 39  # multiplications and additions of a check's forward, at most: seconds on a CPU
LONGEST = 4096  # tokens of a check
BLOCK = 256  # of them at once
COMPARED = 64  # positions whose scores are compared, at most
LAYERS = 2  # of a model whose compact forward is compared
READ_FROM_CONFIG = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_key_value_heads",
    "max_position_embeddings",
)
# How much scores may differ, of the largest one. That of int8 is only to find broken kernels; how
# faithful it is measures helpers/models/fidelity.py.
MOST = {FP32: 1e-3, FP32_PACKED: 1e-3, FP16: 0.05, BF16: 0.1, INT8: 0.5}


# ---- lengths -----------------------------------------------------------------------------------


def exact_context(config, parameters):
    """The longest sequence whose scores are transformers', tokens.

    A rope that changes with the length is right up to its original length, layers in chunks up to
    the chunk. A window is computed, but is the end where the check cannot afford to pass it.
    """
    lengths = [config.max_position_embeddings]
    window = window_of(config)
    if window and window + 2 * WIDTH > affordable(parameters):
        lengths.append(window)
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        lengths.append(config.attention_chunk_size)
    for rope in _ropes(config):
        if rope.get("rope_type", rope.get("type")) not in STATIC:
            original = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", None
            )
            lengths.append(original or config.max_position_embeddings)
    return min(lengths)


def _ropes(config):
    """The settings of every rope: families with two kinds of layers may have one for each."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return [rope, *(part for part in rope.values() if isinstance(part, dict))]


def affordable(parameters):
    """Tokens that a check may read through a model of so many parameters."""
    return min(LONGEST, WORK // parameters)


def length_of_check(config, parameters, context):
    """Tokens that are read: past every length at which something changes that can be passed."""
    most = min(affordable(parameters), context)
    turning = [n for n in _turning_points(config.to_dict()) if n + 2 * WIDTH <= most]
    return min(max([READ, *turning]) + 2 * WIDTH, context)


def _turning_points(settings):
    """Every length in a configuration at which the computation may change, by the names."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _turning_points(value)
        elif type(value) is int and TURNING.search(str(name)) and not NO_LENGTH.search(name):
            yield value


# ---- files -------------------------------------------------------------------------------------


def ends_are_readable(folder):
    """Refuse a generation_config.json that is there and does not say what ends an answer.

    transformers would go on as if there were none, and answers would run past their end. A folder
    without one is right, and a hub id is not asked.
    """
    file = Path(folder) / "generation_config.json"
    if not file.exists():
        return
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}), and it says which tokens end an answer; fetch the "
            "model again"
        ) from error
    ends = settings.get("eos_token_id") if isinstance(settings, dict) else "no settings"
    listed = ends if isinstance(ends, list) else [ends]
    if not all(end is None or type(end) is int for end in listed):
        raise ValueError(
            f"{file} has {ends!r} where the numbers of the tokens that end an answer should be; "
            "fetch the model again"
        )


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


# ---- scores ------------------------------------------------------------------------------------


def first_layers(config):
    """The configuration of the same model with its first LAYERS layers only."""
    config = copy.deepcopy(config)
    layers = config.num_hidden_layers
    config.num_hidden_layers = min(LAYERS, layers)
    for name, value in config.to_dict().items():  # what is stated layer by layer
        if isinstance(value, list) and len(value) == layers and name != "architectures":
            setattr(config, name, value[:LAYERS])
    return config


def note_of(folder, path, device):
    """The file that says that a model has been found right here: once for each revision and code.

    path: which of our forwards it is.
    """
    code = store.code_version(("models/*.py",))
    versions = torch.__version__, transformers.__version__
    revision = revision_of({"model": folder})
    return store.cached("checked", revision, path, str(device), code, versions)


@torch.no_grad()
def as_transformers(model, body_of, vocab_size, context, folder):
    """Refuse a model whose scores through our cache are not those of transformers' own forward.

    body_of: model -> our forward of it, which may take the model apart. Random tokens are read in
    blocks, some are drafted and taken back, the last one is read alone. Returns how many were read.
    """
    config = model.config
    family = getattr(config, "model_type", type(model).__name__)
    size = min(vocab_size or config.vocab_size, config.vocab_size)
    length = length_of_check(config, model.num_parameters(), context)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(size, (1, length), generator=draw).to(model.device)
    at = torch.linspace(0, length - 1, min(COMPARED, length)).long().unique().to(model.device)
    try:
        # Without a cache: what it makes of the sequence as a whole.
        expected = model(tokens, logits_to_keep=at, use_cache=False).logits[0, :, :size].float()
        model(tokens[:, :1], use_cache=False)  # a rope that changes with the length is short again
        body = body_of(model)
        lm = LM(body, size, tokens.device, getattr(body, "dtype", model.dtype), str(folder))
        found = lm.logits(_read(lm, tokens)[:, at])[0]
    except (AttributeError, TypeError, RuntimeError, IndexError, ValueError, KeyError) as error:
        raise unsupported(family, folder, f"{type(error).__name__}: {error}") from error
    most = (found - expected).abs().max().item()
    if not most <= MOST[body.precision] * max(1.0, expected.abs().max().item()):
        raise unsupported(
            family,
            folder,
            f"its scores differ from transformers' by {most:.2g} within {length} tokens",
        )
    return length


def _read(lm, tokens):
    """Hidden states (1, T, hidden size) of tokens (1, T), read as decoding reads them."""
    length = tokens.shape[1]
    lm.start(1, length + WIDTH)
    last = max(1, length - WIDTH)
    # The first block is short, so that a change of the rope with the length falls between two.
    begins = [0, *range(min(READ, last), last, BLOCK), last]
    hidden = [lm.forward(tokens[:, begin:end], [begin]) for begin, end in zip(begins, begins[1:])]
    lm.forward(tokens[:, :WIDTH], [last])  # a draft that is taken back
    if last < length - 1:
        hidden.append(lm.forward(tokens[:, last:-1], [last]))
    hidden.append(lm.forward(tokens[:, -1:], [length - 1]))
    return torch.cat(hidden, 1)


# ---- refusals ----------------------------------------------------------------------------------


def text_config(config, folder):
    """The configuration of a model that writes text, whose sizes the cache can read."""
    family = getattr(config, "model_type", "unknown")
    for name in READ_FROM_CONFIG:
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
