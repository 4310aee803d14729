"""What a forward costs: linear layers by kind, contexts by length, the memory's bandwidth.

These are the tables that justify the packed and joined layers of helpers/models/compact.py, and the
limits that a measured speed is compared with.
"""

import random
import statistics
import time

import torch

from helpers import experiments, stats
from helpers.decoding.batch import synchronise
from helpers.decoding.sampling import sample
from helpers.models import linears
from helpers.models.lm import head_size

CONTEXTS = (128, 256, 512, 1024, 2048, 4096)
WIDTHS = (1, 2, 3, 5, 9)  # tokens that go through at once
ANSWERS = 32  # of a batch that is decoded for accuracy
CONTEXT = 500  # tokens behind each of them
LARGE = 2**28  # numbers of 4 bytes: more than a cache holds
KINDS = (linears.FP32, linears.BF16, linears.FP32_PACKED, linears.FP16, linears.INT8)


# ---- limits ------------------------------------------------------------------------------------


def bandwidth(device, size=LARGE):
    """Bytes per second when a large array is read, the best of five.

    The limit of a decoder that reads all its weights for every token. size: numbers of 4 bytes.
    """
    array = torch.ones(size, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        array.sum()
        synchronise(device)
        best = min(best, time.perf_counter() - begin)
    return array.nbytes / best


def weight_bytes(lm):
    """Bytes that one forward of a model reads, at the size that they are stored in.

    Every linear layer and the output head.
    """
    config = lm.config
    numbers = config.vocab_size * config.hidden_size
    for outputs, inputs in _layer_shapes(config):
        numbers += config.num_hidden_layers * sum(outputs) * inputs
    return numbers * linears.BYTES[lm.precision]


def achieved(pair, rows, gammas, array=LARGE):
    """Measured speed ÷ its limit: {label: value}.

    The limit of a speculative method (gammas: label -> γ) is the cost model's, that of AS_large the
    memory's bandwidth. rows: the runs of race.race that count. array: numbers that bandwidth reads.
    """
    context = int(rows.prompt_tokens.mean() + rows.n_tokens.mean() / 2)
    widths = range(1, max(gammas.values()) + 2)
    forward = experiments.forward_times(pair, context, widths)
    sums = rows.groupby("method")[["n_tokens", "decode_s"]].sum()
    speed = sums.n_tokens / sums.decode_s
    shares = {}
    for label in gammas:
        shares[label] = speed[label] / stats.cost_limit(rows[rows.method == label], forward)
    limit = bandwidth(pair.device, array) / weight_bytes(pair.target)
    shares["AS_large, of the bandwidth"] = speed["AS_large"] / limit
    return shares


# ---- linear layers -----------------------------------------------------------------------------


def by_kind(pair):
    """Milliseconds of all linear layers: model -> {kind of layer: {tokens: ms}}; {} on a GPU."""
    if pair.device.type != "cpu":
        return {}
    lms = {"target": pair.target, "draft": pair.draft}
    return {name: linear_times(lm.config, lm.precision) for name, lm in lms.items()}


def linear_times(config, used, widths=WIDTHS, repeats=15):
    """Milliseconds that all linear layers of a model of this shape take: {kind: {tokens: ms}}.

    Random weights of one layer and of the output head are timed, and the layer counts as often as
    the model has it. Projections that share an input (q, k, v; gate, up) are one matrix, as in
    helpers/models/compact.py, but in the row "…, apart" of the kind `used`.
    """
    rows = {kind: (kind, True) for kind in KINDS if linears.works(kind)}
    rows[f"{used}, apart"] = (used, False)
    total = {name: dict.fromkeys(widths, 0.0) for name in rows}
    groups = [(shape, config.num_hidden_layers) for shape in _layer_shapes(config)]
    groups.append((([config.vocab_size], config.hidden_size), 1))
    order = random.Random(0)
    for (outputs, inputs), times in groups:
        layers = {name: _layers(outputs, inputs, *row) for name, row in rows.items()}
        dtypes = {name: linears.input_dtype(kind) for name, (kind, _) in rows.items()}
        for width in widths:
            medians = _medians(layers, dtypes, width, inputs, repeats, order)
            for name, seconds in medians.items():
                total[name][width] += 1000 * times * seconds
    return total


def _layer_shapes(config):
    """Linear layers of one decoder layer as (outputs of the joined projections, inputs)."""
    head = head_size(config)
    queries = config.num_attention_heads * head
    keys = config.num_key_value_heads * head
    return [
        ([queries, keys, keys], config.hidden_size),
        ([config.intermediate_size, config.intermediate_size], config.hidden_size),
        ([config.hidden_size], queries),
        ([config.hidden_size], config.intermediate_size),
    ]


def _layers(outputs, inputs, kind, joined):
    """Linear layers with random weights: one for all outputs, or one for each."""
    sizes = [sum(outputs)] if joined else outputs
    weights = [torch.randn(size, inputs) / 32 for size in sizes]
    return [linears.pack(weight, None, kind) for weight in weights]


def _medians(layers, dtypes, width, inputs, repeats, order):
    """Median seconds of each kind's layers on `width` tokens: {kind: seconds}.

    Kinds take turns in random order, so that nobody always follows the same one.
    """
    tries = {name: [] for name in layers}
    for _ in range(repeats):
        for name in order.sample(list(layers), len(layers)):
            x = torch.randn(1, width, inputs, dtype=dtypes[name])
            begin = time.perf_counter()
            for layer in layers[name]:
                layer(x)
            tries[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds) for name, seconds in tries.items()}


# ---- contexts ----------------------------------------------------------------------------------


def growth(pair):
    """Milliseconds of a forward of one token by context: model -> [(context, ms)].

    Up to what both models can hold. Contexts take turns, because a machine's speed drifts.
    """
    contexts = [context for context in CONTEXTS if context < pair.context]
    tries = {(model, context): [] for model in ("draft", "target") for context in contexts}
    for _ in range(5):
        for context in contexts:
            times = experiments.forward_times(pair, context, (1,), at_most_s=1.0)
            for model, seconds in zip(times.model, times.seconds):
                tries[model, context].append(1000 * seconds)
    return {
        model: [(context, statistics.median(tries[model, context])) for context in contexts]
        for model in ("draft", "target")
    }


# ---- batches -----------------------------------------------------------------------------------


def in_words():
    """What batch_speed measures, in words."""
    return f"{ANSWERS} answers at once behind {CONTEXT} tokens each"


def batch_speed(lm, repeats=7):
    """Tokens per second of a model that goes on with ANSWERS answers of CONTEXT tokens at once.

    A step is a forward of one token a row, its scores and one draw from each row's distribution at
    temperature 1; the median of `repeats` steps counts, after one that warms up.
    """
    lm.start(ANSWERS, CONTEXT + 1)
    tokens = torch.full((ANSWERS, 1), 5, device=lm.device)
    uniforms = torch.linspace(0.01, 0.99, ANSWERS, device=lm.device)
    seconds = []
    for _ in range(repeats + 1):
        synchronise(lm.device)
        begin = time.perf_counter()
        scores = lm.logits(lm.forward(tokens, [CONTEXT] * ANSWERS))[:, -1]
        sample(scores.softmax(-1), uniforms)
        synchronise(lm.device)
        seconds.append(time.perf_counter() - begin)
    lm.memory = None  # half a gigabyte on a real model
    return ANSWERS / statistics.median(seconds[1:])
