"""A compact forward for the Qwen2 / Llama family, with packed linear layers on a CPU.

Checked against transformers' logits by tests/test_models.py, and against fp32 of the same weights
by helpers/models/fidelity.py. `speed="plain"` is the same engine over transformers' own modules.
"""

import torch
import torch.nn.functional as F

from helpers.models import attention, linears
from helpers.models.linears import rotate, rotation_block
from helpers.models.lm import head_size, round_up

SMALL_EMBEDDING = 1 << 24  # numbers in the embedding of a small model, at most


def fits(config):
    """Whether CompactBody computes this architecture: Qwen2 or Llama without sliding windows.

    And without biases in the products of the feed-forward block.
    """
    windows = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    return (
        config.model_type in ("qwen2", "llama", "mistral")
        and config.hidden_act == "silu"
        and not windows
        and not getattr(config, "mlp_bias", False)
    )


def is_small(config):
    """Whether a model fits the processor's cache: packing or a second thread gains nothing."""
    return config.vocab_size * config.hidden_size < SMALL_EMBEDDING


def precision_of(config, role, speed, device):
    """How the linear layers of a model are kept: one of linears.PACKERS.

    A large model on a CPU is packed: the draft in int8, the target in fp16 (or in int8 at speed
    "int8"). Where that cannot be had the next best is taken; LM.precision says which.
    """
    if device.type != "cpu":
        return linears.BF16
    if is_small(config):
        return linears.FP32
    return linears.best(linears.INT8 if role == "draft" or speed == "int8" else linears.FP16)


class CompactBody:
    """Decoder-only transformer of the Qwen2/Llama family: RMSNorm, rotary attention, SwiGLU.

    In int8 the residual stream is kept rotated: x H with a block-Hadamard H, which is orthogonal
    and leaves norms as they are. An embedding is turned when it is looked up; what reads the stream
    has W H, what writes it has H W. A norm's weight would stand between x H and W H, so it is
    multiplied into W. Values are rotated within a head, and back by the output projection. Only the
    input of the down projection, a product of two, is rotated on its way (QuaRot, arXiv
    2404.00456). No autograd.
    """

    def __init__(self, model, precision, dtype):
        self.config = config = model.config
        self.generation_eos = model.generation_config.eos_token_id
        base = model.model
        device = model.device
        self.precision = precision
        self.dtype = dtype
        self.rotated = precision == linears.INT8
        self.dim = head_size(config)
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.group = self.heads // self.kv_heads
        self.width = (config.hidden_size,)
        self.eps = config.rms_norm_eps
        self.steady = device.type == "cpu" and not is_small(config)
        self.cells = attention.CELLS if self.steady else 1
        self.stream_block = rotation_block(config.hidden_size)
        self.head_block = rotation_block(self.dim, fewest=1)
        self.inner_block = rotation_block(config.intermediate_size)
        self.embedding = base.embed_tokens.weight.detach()  # as stored: a row is turned when used
        if precision in linears.PACKED:
            # Nothing else is left of the weights' files: a copy lets the system close them.
            self.embedding = self.embedding.clone()
            base.embed_tokens = None
        # The head first: it is by far the largest matrix, and packing one needs a copy in fp32.
        self.norm, self.head = self._reader(base.norm, model.lm_head.weight.detach())
        model.lm_head = None
        self.layers = [self._packed(layer) for layer in base.layers]
        angle = torch.outer(
            torch.arange(config.max_position_embeddings, device=device).float(),
            base.rotary_emb.inv_freq.to(device).float(),
        )
        scaling = base.rotary_emb.attention_scaling
        self.cos = (torch.cat([angle, angle], 1).cos() * scaling).to(dtype)
        # first half negative: the rotation's sign
        self.sin = (torch.cat([-angle, angle], 1).sin() * scaling).to(dtype)

    def _packed(self, layer):
        """One layer: norm, qkv, out, norm, gate and up, down. What shares an input is joined."""
        own = layer.self_attn
        v = own.v_proj.weight.detach()
        v_bias = own.v_proj.bias
        out = own.o_proj.weight.detach()
        out_bias = own.o_proj.bias
        down = layer.mlp.down_proj.weight.detach()
        if self.rotated:
            v = rotate(v.float().T, self.head_block).T
            v_bias = None if v_bias is None else rotate(v_bias.float(), self.head_block)
            out = rotate(rotate(out.float(), self.head_block).T, self.stream_block).T
            out_bias = None if out_bias is None else rotate(out_bias.float(), self.stream_block)
            down = rotate(rotate(down.float(), self.inner_block).T, self.stream_block).T
        qkv = torch.cat([own.q_proj.weight.detach(), own.k_proj.weight.detach(), v])
        qkv_bias = None
        if v_bias is not None:
            biases = (own.q_proj.bias, own.k_proj.bias, v_bias)
            qkv_bias = torch.cat([bias.detach() for bias in biases])
        gate_up = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]).detach()
        packed = (
            *self._reader(layer.input_layernorm, qkv, qkv_bias),
            linears.pack(out, out_bias, self.precision),
            *self._reader(layer.post_attention_layernorm, gate_up),
            linears.pack(down, None, self.precision),
        )
        # The packed copy is the only one in memory.
        for part in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
            setattr(layer, part, None)
        return packed

    def _reader(self, norm, weight, bias=None):
        """A norm's weight (None: it is in the matrix) and the layer that reads the stream there."""
        if not self.rotated:
            return norm.weight.detach().to(self.dtype), linears.pack(weight, bias, self.precision)
        weight = rotate(weight.float() * norm.weight.detach().float(), self.stream_block)
        return None, linears.pack(weight, bias, self.precision)

    def __call__(self, tokens, memory):
        """tokens (rows, T) -> hidden states (rows, T, hidden size) before the last norm.

        Keys and values go to `memory`.
        """
        B, T = tokens.shape
        cos = self.cos[memory.positions][:, :, None]
        sin = self.sin[memory.positions][:, :, None]
        x = F.embedding(tokens, self.embedding).to(self.dtype)
        if self.rotated:
            x = rotate(x, self.stream_block)
        turned = self.heads + self.kv_heads  # queries and keys are turned by their position
        attend = self._attention(memory)
        for i, (norm1, qkv, out, norm2, gate_up, down) in enumerate(self.layers):
            h = self._read(x, norm1, qkv).view(B, T, -1, self.dim)
            qk = h[:, :, :turned]
            qk = torch.addcmul(qk * cos, torch.roll(qk, self.dim // 2, -1), sin)
            new_keys = qk[:, :, self.heads :].transpose(1, 2)
            new_values = h[:, :, turned:].transpose(1, 2)
            k, v = memory.write(i, new_keys, new_values)
            x = x + out(attend(qk[:, :, : self.heads], k, v))
            gate, up = self._read(x, norm2, gate_up).chunk(2, -1)
            h = F.silu(gate) * up
            x = x + down(rotate(h, self.inner_block) if self.rotated else h)
        return x

    def _read(self, x, norm, layer):
        """A layer's output for the normed stream: layer(x / rms(x) · norm's weight)."""
        if not self.rotated:
            return layer(F.rms_norm(x, self.width, norm, self.eps))
        # 1 / rms(x) = (|x|² / n + eps)^-1/2; the norm's weight is in the layer.
        length = torch.linalg.vector_norm(x, 2, -1, keepdim=True)
        return layer(x, times=(length * length / x.shape[-1] + self.eps).rsqrt_())

    def _attention(self, memory):
        """A function (q (rows, T, heads, dim), keys, values) -> (rows, T, heads · dim)."""
        if memory.device.type == "cuda":
            return self._grouped(memory)
        if not self.steady:

            def fused(q, k, v):
                q = q.transpose(1, 2)
                shared = self.group > 1
                h = F.scaled_dot_product_attention(q, k, v, memory.mask, enable_gqa=shared)
                return h.transpose(1, 2).flatten(2)

            return fused
        mask = attention.visibility(memory.positions, memory.end, self.kv_heads, self.group)

        def in_one_order(q, k, v):
            return attention.attend(q.unflatten(2, (self.kv_heads, self.group)), k, v, mask)

        return in_one_order

    def _grouped(self, memory):
        """Attention for a GPU: query heads that share a key head are rows of one product.

        torch's own way with a mask and shared keys would copy the keys for every query head.
        """
        bias = None
        if memory.mask is not None:
            unseen = ~memory.mask.repeat(1, 1, self.group, 1)
            # The kernel wants rows of a whole number of 16 bytes.
            room = round_up(memory.end, 8)
            bias = torch.zeros(*unseen.shape[:-1], room, dtype=self.dtype, device=memory.device)
            bias = bias[..., : memory.end].masked_fill_(unseen, -torch.inf)

        def grouped(q, k, v):
            B, T, _, dim = q.shape
            q = q.unflatten(2, (self.kv_heads, self.group)).permute(0, 2, 3, 1, 4)
            q = q.reshape(B, self.kv_heads, self.group * T, dim)
            h = F.scaled_dot_product_attention(q, k, v, bias)
            h = h.view(B, self.kv_heads, self.group, T, dim).permute(0, 3, 1, 2, 4)
            return h.reshape(B, T, -1)

        return grouped

    def logits(self, hidden):
        """hidden (..., hidden size) -> scores (..., V)."""
        return self._read(hidden, self.norm, self.head)
