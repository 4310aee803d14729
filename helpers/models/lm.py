"""One model and its key/value cache.

The cache is plain preallocated memory of shape (rows, heads, length, dim). `LM.forward` writes at
the positions it is given and attends to nothing after them, so rolling back costs nothing: the
caller passes a smaller integer next time.
"""

import os
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.cache_utils import Cache

GROUP = 16  # prompts of like length that are read together
KEPT_BYTES = 1 << 30  # of prompts, at most, that are kept for the next method
SCORES = 1 << 26  # attention scores of a layer that are held at once while prompts are read
# torch's attention on a GPU, but for cuDNN's: that one plans anew for every length it has not met,
# and here every step has another (45 ms of a step's 70 on an H100, torch 2.11).
GPU_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class RaggedCache(Cache):
    """A transformers cache of fixed memory in which every row writes at its own positions."""

    def __init__(self, body):
        super().__init__(layers=[])
        self.body = body

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        return self.body.write(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx=0):
        return 0


def head_size(config):
    """Numbers in one attention head; configurations of older families do not state it."""
    stated = getattr(config, "head_dim", None)
    return stated or config.hidden_size // config.num_attention_heads


def window_of(config):
    """How many tokens a sliding layer sees, its own among them; None where no layer slides."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    slides = "sliding_attention" in kinds and getattr(config, "use_sliding_window", True)
    return getattr(config, "sliding_window", None) if slides else None


def round_up(n, multiple):
    """The least multiple that is not below n."""
    return -(-n // multiple) * multiple


class Memory:
    """Keys and values of one model, (rows, kv heads, length, dim) per layer, allocated once."""

    def __init__(self, config, rows, length, dtype, device, cells=1):
        """`length` is a multiple of `cells`, and so is every length that is attended to."""
        shape = (rows, config.num_key_value_heads, length, head_size(config))
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.length = length
        self.dtype = dtype
        self.device = device
        self.cells = cells
        # How many tokens of each row are in the cache; the decoders keep it.
        self.cached = [0] * rows
        # The tokens with which every row begins, so that the next run finds them.
        self.prompt = []

    def aim(self, start, width, row=None):
        """Choose the cells of the next forward.

        They are start[b] … start[b] + width - 1 of the rows from `row` on (None: from the first).
        A single `start` without a row writes to every row: so is a shared prompt read once.
        """
        first_row = row or 0
        self.rows = slice(first_row, first_row + len(start))
        self.written = slice(None) if row is None and len(start) == 1 else self.rows
        self.first = start[0]
        self.width = width
        self.end = round_up(max(start) + width, self.cells)
        self.aligned = min(start) == max(start)
        begin = torch.tensor(start, device=self.device)[:, None]
        self.positions = begin + torch.arange(width, device=self.device)
        self.index = None
        if not self.aligned:
            rows = torch.arange(self.rows.start, self.rows.stop, device=self.device)
            self.index = rows[:, None]
        # A single token that every row puts in the same cell may see all there is: no mask.
        self.mask = None
        if not (self.aligned and width == 1):
            cells = torch.arange(self.end, device=self.device)
            self.mask = cells <= self.positions[:, None, :, None]

    def write(self, layer, k, v):
        """Store k, v, (rows, heads, width, dim). Returns all up to the last position in use."""
        keys = self.keys[layer]
        values = self.values[layer]
        if self.aligned:
            cells = slice(self.first, self.first + self.width)
            keys[self.written, :, cells] = k
            values[self.written, :, cells] = v
        else:
            keys[self.index, :, self.positions] = k.transpose(1, 2)
            values[self.index, :, self.positions] = v.transpose(1, 2)
        return keys[self.rows, :, : self.end], values[self.rows, :, : self.end]

    def caches(self):
        """Keys and values of every layer."""
        return [*self.keys, *self.values]

    def keep(self, rows):
        """Make these rows (a list of ints) the first ones, in this order; one may stand twice.

        Rows that stay in their places are not copied, so a caller fills gaps from the end.
        """
        self.cached = [self.cached[row] for row in rows]
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if not moved:
            return
        places, sources = map(list, zip(*moved))
        if len(rows) <= len(self.keys[0]) and set(places).isdisjoint(sources):
            to, of = (torch.tensor(part, device=self.device) for part in (places, sources))
            for cache in self.caches():
                cache[to] = cache[of]
            return
        # With room to grow: the next row that stands twice needs no new memory.
        spare = [rows[0]] * (len(rows) // 2)
        index = torch.tensor(rows + spare, device=self.device)
        for caches in (self.keys, self.values):
            for layer, cache in enumerate(caches):  # one after the other: never two whole caches
                caches[layer] = cache.index_select(0, index)


class KeptPrompts:
    """Keys and values of a batch's prompts, for the next method that reads the same prompts.

    A prompt is a list of token ids; the cells before its own part hold what all rows begin with.
    """

    def __init__(self):
        self.own_part = {}  # prompt -> (its first own cell, keys and values of every layer)
        self.bytes = 0

    def begin(self, prompts):
        """Forget everything where none of a new batch's prompts is kept."""
        if not any(tuple(prompt) in self.own_part for prompt in prompts):
            self.__init__()

    def has(self, prompt, shared):
        """Whether a prompt is kept from a cell on up to which, `shared`, the memory is right."""
        known = self.own_part.get(tuple(prompt))
        return known is not None and known[0] <= shared

    def keep(self, prompt, shared, memory, row):
        """Copy a prompt's cells from `shared` on out of a row of the memory, if there is room."""
        parts = [cache[row, :, shared : len(prompt)] for cache in memory.caches()]
        size = sum(part.numel() * part.element_size() for part in parts)
        if tuple(prompt) not in self.own_part and self.bytes + size <= KEPT_BYTES:
            self.own_part[tuple(prompt)] = shared, [part.clone() for part in parts]
            self.bytes += size

    def restore(self, prompt, memory, row):
        """Put a prompt that is kept into a row of the memory."""
        shared, parts = self.own_part[tuple(prompt)]
        for cache, part in zip(memory.caches(), parts):
            cache[row, :, shared : len(prompt)] = part


class PlainBody:
    """The readable reference: transformers' own modules over our cache memory."""

    cells = 1

    def __init__(self, model):
        self.model = model
        self.config = model.config
        self.generation_eos = model.generation_config.eos_token_id
        self.precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[model.dtype]
        self.window = window_of(model.config)
        # Layers of several kinds, each with a mask of its own; None where all see alike.
        self.kinds = getattr(model.config, "layer_types", None) if self.window else None
        # What families do to the scores behind the head: Cohere, Granite; Gemma 2.
        self.scale = getattr(model.config, "logit_scale", None) or 1.0
        self.scale /= getattr(model.config, "logits_scaling", None) or 1.0
        self.cap = getattr(model.config, "final_logit_softcapping", None)

    def __call__(self, tokens, memory):
        if self.kinds:
            masks = {
                kind: self._mask(memory, self.window if kind == "sliding_attention" else None)
                for kind in set(self.kinds)
            }
        else:
            masks = self._mask(memory, self.window)
        return self.model.model(
            tokens,
            attention_mask=masks,
            position_ids=memory.positions,
            use_cache=True,
            cache=RaggedCache(memory),
        ).last_hidden_state

    @staticmethod
    def _mask(memory, window):
        """What is added to the scores (rows, 1, width, end); None where all may be seen."""
        seen = memory.mask
        if window and memory.end > window:
            # A token at position t sees the cells t - window + 1 … t.
            cells = torch.arange(memory.end, device=memory.device)
            positions = memory.positions[:, None, :, None]
            seen = (cells <= positions) & (cells > positions - window)
        if seen is None:
            return None
        bias = torch.zeros(seen.shape, dtype=memory.dtype, device=memory.device)
        return bias.masked_fill_(~seen, torch.finfo(memory.dtype).min)

    def logits(self, hidden):
        scores = self.scale * self.model.lm_head(hidden)
        return self.cap * torch.tanh(scores / self.cap) if self.cap else scores


class LM:
    """One model and its cache.

    prefill caches prompts; forward(tokens, start) runs some tokens per row from position start[b]
    and returns hidden states; logits(hidden) turns the ones that are wanted into scores. All on
    `device`; logits are fp32. `precision` says how the linear layers are kept: "int8 rotated",
    "fp16", "fp32", "bf16", …
    """

    def __init__(self, body, vocab_size, device, dtype, name):
        self.body = body
        self.config = body.config
        self.precision = body.precision
        self.context = body.config.max_position_embeddings
        self.vocab_size = vocab_size
        self.device = device
        self.dtype = dtype
        self.name = name
        self.memory = None
        self.kept = KeptPrompts()

    def start(self, rows, length, prompt=()):
        """Allocate a cache for `rows` sequences of at most `length` tokens, unless one fits.

        Returns how many first tokens of `prompt`, which every row is to begin with, it holds.
        """
        length = round_up(length, self.body.cells)
        memory = self.memory
        # A lone row is timed, and has no rows beside it to write to.
        most = 3 * rows if rows > 1 else 1
        fits = memory is not None and rows <= len(memory.keys[0]) <= most
        if not (fits and length <= memory.length <= 2 * length):
            cells = self.body.cells
            self.memory = Memory(self.config, rows, length, self.dtype, self.device, cells)
        known = len(os.path.commonprefix([self.memory.prompt, list(prompt)]))
        self.memory.prompt = list(prompt)
        return known

    def prefill(self, tokens, lengths, room, rows=None):
        """Cache all but the last token of every prompt: row b is tokens[b, :lengths[b]].

        `room` cells are allocated, for `rows` rows where there will be more than prompts. What all
        prompts begin with (examples, say) is computed once, and prompts of the last batch not at
        all.
        """
        shared = _shared_tokens(tokens, min(lengths) - 1)
        known = self.start(rows or len(lengths), room, tokens[0, :shared].tolist())
        self.memory.cached = []
        if known < shared:
            self._read(tokens[:1, known:shared], known)
        if len(lengths) > 1:
            self.kept.begin(_all_but_last(tokens, lengths))
        self.add_rows(tokens, lengths)

    def add_rows(self, tokens, lengths):
        """`prefill` for more prompts, in the rows after those that are in use."""
        prompts = _all_but_last(tokens, lengths)
        row = len(self.memory.cached)
        self.memory.cached += [len(prompt) for prompt in prompts]
        # A lone row may be timed, so it is read whatever is kept.
        keeps = len(self.memory.cached) > 1
        # From here on rows begin alike up to `shared` only: other cells are written anew.
        self.memory.prompt = os.path.commonprefix([self.memory.prompt, *prompts])
        shared = len(self.memory.prompt)
        for first in range(0, len(prompts), GROUP):
            group = prompts[first : first + GROUP]
            rows = range(row + first, row + first + len(group))
            if keeps and all(self.kept.has(prompt, shared) for prompt in group):
                for place, prompt in zip(rows, group):
                    self.kept.restore(prompt, self.memory, place)
                continue
            longest = max(map(len, group))
            if longest > shared:
                self._read(tokens[first : first + GROUP, shared:longest], shared, rows.start)
            if keeps:
                for place, prompt in zip(rows, group):
                    self.kept.keep(prompt, shared, self.memory, place)

    def _read(self, tokens, start, row=None):
        """Cache tokens (rows, T) from position `start` on, in blocks that keep attention small."""
        rows, T = tokens.shape
        block = max(1, SCORES // (rows * self.config.num_attention_heads * (start + T)))
        for first in range(0, T, block):
            some = tokens[:, first : first + block]
            self.forward(some, [start + first] * rows, row)

    def forward(self, tokens, start, row=None):
        """Run tokens (rows, width), long, from positions `start` (ints, one per row) on.

        They belong to the rows from `row` on. Returns hidden states (rows, width, hidden size).
        """
        self.memory.aim(start, tokens.shape[1], row)
        on_gpu = self.device.type == "cuda"
        with sdpa_kernel(GPU_ATTENTION) if on_gpu else nullcontext():
            return self.body(tokens, self.memory)

    def logits(self, hidden):
        """hidden (..., hidden size) -> scores (..., V), fp32, of the pair's common vocabulary."""
        return self.body.logits(hidden)[..., : self.vocab_size].float()


def _shared_tokens(tokens, most):
    """How many first tokens, at most `most`, all rows have in common."""
    differs = (tokens[:, :most] != tokens[:1, :most]).any(0)
    return int(differs.int().argmax()) if differs.any() else most


def _all_but_last(tokens, lengths):
    """The prompts in the rows of a tensor without their last tokens, as lists."""
    return [row[: n - 1] for row, n in zip(tokens.tolist(), lengths)]
