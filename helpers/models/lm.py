"""One model and its key/value cache.

The cache is plain preallocated memory of shape (rows, heads, length, dim). `LM.forward` writes at
the positions it is given and attends to nothing after them, so rolling back costs nothing: the
caller passes a smaller integer next time.
"""

import os

import torch
from transformers.cache_utils import Cache

GROUP = 16  # prompts of like length that are read together

KEPT_BYTES = 1 << 30  # of a batch's prompts, at most, that are kept for the next method
SCORES = 1 << 26  # attention scores of a layer that are held at once while prompts are read


class RaggedCache(Cache):
    """A transformers cache of fixed memory in which every row writes at its own positions."""

    def __init__(self, body):
        super().__init__(layers=[])
        self.body = body

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        return self.body.write(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx=0):
        return 0


class Memory:
    """Keys and values of a model, (rows, kv heads, length, dim) per layer, allocated once."""

    def __init__(self, config, rows, length, dtype, device, cells=1):
        """`length` is a multiple of `cells`, and so is every length that is attended to."""
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (rows, config.num_key_value_heads, length, dim)
        self.keys = [
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)
        ]
        self.values = [
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)
        ]
        self.length, self.dtype, self.device, self.cells = length, dtype, device, cells
        self.cached = [
            0
        ] * rows  # how many tokens of each row are in the cache; the decoders keep it
        # the tokens with which every row begins, to be found again by the next run
        self.prompt = []

    def at(self, start, T, row=None):
        """Choose the cells of the next forward: start[b] … start[b]+T-1 of row `row` (or 0) + b.

        `start` is a list of ints.
        """
        self.first, self.T = start[0], T
        self.end = -(-(max(start) + T) // self.cells) * self.cells
        self.rows = slice(row or 0, (row or 0) + len(start))
        self.written = slice(None) if row is None and len(start) == 1 else self.rows
        self.uniform = min(start) == max(start)
        self.positions = torch.tensor(start, device=self.device)[:, None] + torch.arange(
            T, device=self.device
        )
        self.index = (
            None
            if self.uniform
            else torch.arange(self.rows.start, self.rows.stop, device=self.device)[:, None]
        )
        self.mask = None
        if not (self.uniform and T == 1):
            self.mask = (
                torch.arange(self.end, device=self.device) <= self.positions[:, None, :, None]
            )

    def write(self, layer, k, v):
        """Store k, v of shape (rows, heads, T, dim); return everything up to the last cell in use.

        A forward of one row without a number fills every row: so a prompt that many rows share is
        read once.
        """
        keys, values = self.keys[layer], self.values[layer]
        if self.uniform:
            keys[self.written, :, self.first : self.first + self.T] = k
            values[self.written, :, self.first : self.first + self.T] = v
        else:
            keys[self.index, :, self.positions] = k.transpose(1, 2)
            values[self.index, :, self.positions] = v.transpose(1, 2)
        return keys[self.rows, :, : self.end], values[self.rows, :, : self.end]

    def keep(self, rows):
        """Keep only these rows (a list of ints), in this order."""
        self.prompt = []
        index = torch.tensor(rows, device=self.device)
        self.keys = [k.index_select(0, index) for k in self.keys]
        self.values = [v.index_select(0, index) for v in self.values]
        self.cached = [self.cached[i] for i in rows]


class PlainBody:
    """The readable reference: transformers' own modules over our cache memory."""

    cells = 1

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[model.dtype]

    def __call__(self, tokens, memory):
        bias = None
        if memory.mask is not None:
            bias = torch.zeros(memory.mask.shape, dtype=memory.dtype, device=memory.device)
            bias.masked_fill_(~memory.mask, torch.finfo(memory.dtype).min)
        return self.model.model(
            tokens,
            attention_mask=bias,
            position_ids=memory.positions,
            use_cache=True,
            cache=RaggedCache(memory),
        ).last_hidden_state

    def logits(self, hidden):
        return self.model.lm_head(hidden)


class LM:
    """One model and its cache.

    prefill caches prompts; forward(tokens, start) runs T tokens per row from position start[b] and
    returns hidden states; logits(hidden) turns the ones that are wanted into scores. All on
    `device`; logits are fp32.
    `precision` says how the linear layers are kept: "int8 rotated", "fp16", "fp32", "bf16", …
    """

    def __init__(self, body, vocab_size, device, dtype, name):
        self.body, self.config, self.name = body, body.config, name
        self.vocab_size, self.device, self.dtype = vocab_size, device, dtype
        self.context = body.config.max_position_embeddings
        self.precision = body.precision
        self.memory = self.kept = None

    def start(self, rows, length, prompt=()):
        """Allocate a cache for `rows` sequences of at most `length` tokens (kept if it fits).

        Returns how many first tokens of `prompt`, which every row is to begin with, it has already.
        """
        have, cells = self.memory, self.body.cells
        length = -(-length // cells) * cells
        if have is None or have.keys[0].shape[0] != rows or not length <= have.length <= 2 * length:
            self.memory = Memory(self.config, rows, length, self.dtype, self.device, cells)
        known = len(os.path.commonprefix([self.memory.prompt, list(prompt)]))
        self.memory.prompt = list(prompt)
        return known

    def prefill(self, tokens, lengths, room):
        """Cache all but the last token of every prompt: row b is tokens[b, :lengths[b]].

        `room` cells are allocated. What all prompts begin with (examples, say) is computed once,
        and a batch that was the last one too not at all.
        """
        width, shortest = max(lengths) - 1, min(lengths) - 1
        differs = (tokens[:, :shortest] != tokens[:1, :shortest]).any(0)
        shared = int(differs.int().argmax()) if differs.any() else shortest
        have = self.start(len(lengths), room, tokens[0, :shared].tolist())
        cells = [
            part
            for x in (*self.memory.keys, *self.memory.values)
            for part in (x[:, :, :shared], x[:, :, shared:width])
        ]
        self.memory.cached = [n - 1 for n in lengths]
        if self.kept and torch.equal(self.kept[0], tokens[:, :width]):
            for cell, kept in zip(cells, self.kept[1]):
                cell.copy_(kept)
            return
        if have < shared:
            self._read(tokens[:1, have:shared], have)
        for row in range(0, len(lengths), GROUP):
            some = lengths[row : row + GROUP]
            if max(some) - 1 > shared:
                self._read(tokens[row : row + GROUP, shared : max(some) - 1], shared, row)
        if (
            len(lengths) > 1
            and sum(c.numel() for c in cells[1::2]) * self.dtype.itemsize <= KEPT_BYTES
        ):
            common_once = [c if i % 2 else c[:1] for i, c in enumerate(cells)]
            self.kept = tokens[:, :width].clone(), [c.clone() for c in common_once]

    def _read(self, tokens, start, row=None):
        """Cache tokens (rows, T) from position `start` on, in blocks that keep attention small."""
        rows, T = tokens.shape
        block = max(1, SCORES // (rows * self.config.num_attention_heads * (start + T)))
        for first in range(0, T, block):
            some = tokens[:, first : first + block]
            self.forward(some, [start + first] * rows, row)

    def forward(self, tokens, start, row=None):
        """tokens (rows, T) long; start: a list of rows ints, for rows `row` and on.

        Returns hidden states (rows, T, hidden size).
        """
        self.memory.at(start, tokens.shape[1], row)
        return self.body(tokens, self.memory)

    def logits(self, hidden):
        """hidden (…, hidden size) -> scores (…, V), fp32, cut to the pair's common vocabulary."""
        return self.body.logits(hidden)[..., : self.vocab_size].float()
