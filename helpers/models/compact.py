"""A compact forward for the Qwen2 / Llama family, with packed linear layers on a CPU.

Checked against transformers' logits by tests/test_models.py. What each trick is worth stands in the
README's table; `speed="plain"` is the same engine over transformers' own modules.
"""

import warnings

import torch
import torch.nn.functional as F

SMALL_EMBEDDING = 1 << 24  # numbers in the embedding of a small model, at most


def fits(config):
    """Whether CompactBody computes this architecture: the Qwen2/Llama family without sliding windows."""
    windows = getattr(config, "sliding_window", None) and getattr(
        config, "use_sliding_window", True
    )
    return (
        config.model_type in ("qwen2", "llama", "mistral")
        and config.hidden_act == "silu"
        and not windows
    )


def is_small(config):
    """Whether a model's layers fit the processor's cache: packing them, or a second thread, gains nothing."""
    return config.vocab_size * config.hidden_size < SMALL_EMBEDDING


def linear(weight, bias, kind, dtype=torch.float32):
    """A function x -> x W^T + b. kind: 'plain' (in `dtype`), 'fp16' (weights rounded to it) or 'int8'."""
    if kind == "plain":
        weight, bias = weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
        return lambda x: F.linear(x, weight, bias)
    if kind == "fp16":
        packed = torch.ops.quantized.linear_prepack_fp16(
            weight.float(), None if bias is None else bias.float()
        )
        return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)
    ends = torch.tensor(
        [1.0, -1.0] + [0.0] * 6
    )  # in columns without weight: they fix the range of every row
    weight = F.pad(weight.float(), (0, len(ends)))
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # deprecated from some later torch on; the pinned one has no other int8
        rounded = torch.quantize_per_channel(
            weight, scale.double(), torch.zeros(len(scale), dtype=torch.int64), 0, torch.qint8
        )
    packed = torch.ops.quantized.linear_prepack(rounded, None)

    def int8(x):
        if len(x) == 1:
            y = torch.ops.quantized.linear_dynamic(F.pad(x, (0, len(ends))), packed, True)
        else:  # the operator has one activation scale for all rows: with rows of one range none depends on another
            size = x.abs().amax(-1, keepdim=True).clamp(min=1e-12)
            x = torch.cat([x / size, ends.expand(*x.shape[:-1], -1)], -1)
            y = torch.ops.quantized.linear_dynamic(x, packed, True) * size
        return y if bias is None else y + bias

    return int8


class CompactBody:
    """Decoder-only transformer of the Qwen2/Llama family: RMSNorm, rotary attention, SwiGLU. No autograd."""

    def __init__(self, model, role, dtype):
        self.config = config = model.config
        self.generation_eos = model.generation_config.eos_token_id
        base, device = model.model, model.device
        large = device.type == "cpu" and not is_small(config)
        kind = {"target": "fp16", "draft": "int8"}[role] if large else "plain"
        self.bytes_per_weight = {"fp16": 2, "int8": 1}.get(kind, dtype.itemsize)
        self.dim = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self.eps, self.dtype = (config.hidden_size,), config.rms_norm_eps, dtype
        self.embedding = (
            base.embed_tokens.weight.detach()
        )  # as it is stored: a row is turned when it is looked up
        self.layers = [self._pack(layer, kind) for layer in base.layers]
        self.norm = base.norm.weight.detach().to(dtype)
        self.head = linear(model.lm_head.weight, None, kind, dtype)
        angle = torch.outer(
            torch.arange(config.max_position_embeddings, device=device).float(),
            base.rotary_emb.inv_freq.to(device).float(),
        )
        scaling = base.rotary_emb.attention_scaling
        self.cos = (torch.cat([angle, angle], 1).cos() * scaling).to(dtype)
        self.sin = (torch.cat([-angle, angle], 1).sin() * scaling).to(
            dtype
        )  # first half negative: the rotation's sign

    def _pack(self, layer, kind):
        """One layer as (norm, qkv, out, norm, gate and up, down), the projections that share an input joined."""
        a, m, dtype = layer.self_attn, layer.mlp, self.dtype
        qkv = [a.q_proj, a.k_proj, a.v_proj]
        bias = None if a.q_proj.bias is None else torch.cat([p.bias for p in qkv])
        packed = (
            layer.input_layernorm.weight.detach().to(dtype),
            linear(torch.cat([p.weight for p in qkv]), bias, kind, dtype),
            linear(a.o_proj.weight, a.o_proj.bias, kind, dtype),
            layer.post_attention_layernorm.weight.detach().to(dtype),
            linear(torch.cat([m.gate_proj.weight, m.up_proj.weight]), None, kind, dtype),
            linear(m.down_proj.weight, None, kind, dtype),
        )
        layer.self_attn = layer.mlp = (
            None  # the packed copy replaces the original: one copy in memory
        )
        return packed

    def __call__(self, tokens, memory):
        """tokens (rows, T) -> hidden states (rows, T, hidden size), writing keys and values into `memory`."""
        B, T = tokens.shape
        cos, sin = self.cos[memory.positions][:, :, None], self.sin[memory.positions][:, :, None]
        x, width = F.embedding(tokens, self.embedding).to(self.dtype), self.width
        turned = self.heads + self.kv_heads
        for i, (norm1, qkv, out, norm2, gate_up, down) in enumerate(self.layers):
            h = qkv(F.rms_norm(x, width, norm1, self.eps)).view(B, T, -1, self.dim)
            qk = h[:, :, :turned]
            qk = qk * cos + torch.roll(qk, self.dim // 2, -1) * sin
            k, v = memory.write(
                i, qk[:, :, self.heads :].transpose(1, 2), h[:, :, turned:].transpose(1, 2)
            )
            h = F.scaled_dot_product_attention(
                qk[:, :, : self.heads].transpose(1, 2),
                k,
                v,
                memory.mask,
                enable_gqa=self.heads != self.kv_heads,
            )
            x = x + out(h.transpose(1, 2).reshape(B, T, -1))
            gate, up = gate_up(F.rms_norm(x, width, norm2, self.eps)).chunk(2, -1)
            x = x + down(F.silu(gate) * up)
        return F.rms_norm(x, width, self.norm, self.eps)

    def logits(self, hidden):
        return self.head(hidden)
