"""What is being run? A small Llama that compiles as one graph, at true or at laptop-sized shapes.

Grouped-query attention, rotary positions, RMSNorm, SwiGLU and a static key/value cache, in the
parameter layout of Hugging Face checkpoints, so that `checkpoint.py` can fill it without permuting
anything. The cache has a fixed length, and a decode step always attends over all of it under a
mask: the shapes never change, which is what CUDA graphs and `torch.compile(fullgraph=True)` need.

Batch size is one throughout: the subject is latency-bound decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's frequency scaling; field names as in Hugging Face's `rope_scaling`."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True)
class LlamaConfig:
    """Shapes of one model. All counts are elements, `max_positions` is the length of the cache."""

    layers: int
    dim: int
    heads: int
    kv_heads: int
    mlp_dim: int
    vocab: int
    max_positions: int
    head_dim: int
    tied_embeddings: bool = False
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5

    def with_cache_length(self, max_positions: int) -> LlamaConfig:
        return replace(self, max_positions=max_positions)


# tiny: for tests; its lm_head has exactly 2^20 elements, so that MiB read as bytes per element.
# cpu: 130 M weights in linear layers on two layers = 260 MB in bf16, larger than the L3 of all but
# the largest server CPUs.
# cpu-layer: one layer of it and a small head, 52 M weights: for studies whose cells are near each
# other and which need many rounds; its largest matrix is 25 MB in bf16, 50 MB unpacked to float32.
# llama-*: the published shapes (config.json of the models of these names).
CONFIGS = {
    "tiny": LlamaConfig(2, 512, 8, 2, 1536, 2048, 64, 64),
    "cpu": LlamaConfig(2, 2048, 16, 4, 6144, 16384, 64, 128),
    "cpu-layer": LlamaConfig(1, 2048, 16, 4, 6144, 2048, 64, 128),
    "llama-3.2-3b": LlamaConfig(
        28, 3072, 24, 8, 8192, 128256, 512, 128, True, rope_scaling=RopeScaling(32.0)
    ),
    "llama-3.1-8b": LlamaConfig(
        32, 4096, 32, 8, 14336, 128256, 512, 128, rope_scaling=RopeScaling(8.0)
    ),
}


def rope_frequencies(config: LlamaConfig) -> Tensor:
    """Angular frequency of each rotated pair: float32, shape (head_dim / 2,), in radians per token.

    Source of the scaled form: "llama3" in Hugging Face transformers, `modeling_rope_utils`; long
    wavelengths are divided by `factor`, short ones kept, those between blended linearly.
    """
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
    frequency = 1.0 / config.rope_theta ** (half / config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return frequency
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    keep = ((turns - scaling.low_freq_factor) / span).clamp(0.0, 1.0)
    return frequency * keep + frequency / scaling.factor * (1.0 - keep)


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention over a static cache, with rotary positions (rotate-half layout)."""

    k_cache: Tensor
    v_cache: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.dim, query, bias=False)
        self.k_proj = nn.Linear(config.dim, key, bias=False)
        self.v_proj = nn.Linear(config.dim, key, bias=False)
        self.o_proj = nn.Linear(query, config.dim, bias=False)
        shape = (1, config.kv_heads, config.max_positions, config.head_dim)
        self.register_buffer("k_cache", torch.zeros(shape), persistent=False)
        self.register_buffer("v_cache", torch.zeros(shape), persistent=False)

    def forward(
        self, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, mask: Tensor
    ) -> Tensor:
        c, tokens = self.config, x.shape[0]
        q = self.q_proj(x).view(1, tokens, c.heads, c.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(1, tokens, c.kv_heads, c.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(1, tokens, c.kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        self.k_cache.index_copy_(2, positions, k)
        self.v_cache.index_copy_(2, positions, v)
        mixed = F.scaled_dot_product_attention(
            q, self.k_cache, self.v_cache, attn_mask=mask, enable_gqa=True
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(tokens, -1))
        return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + head_dim/2) of `x` (1, heads, tokens, head_dim) by its angle."""
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)


class MLP(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.mlp_dim, bias=False)
        self.up_proj = nn.Linear(config.dim, config.mlp_dim, bias=False)
        self.down_proj = nn.Linear(config.mlp_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, mask: Tensor
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions, cos, sin, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """Tokens (n,) at positions (n,) -> logits (vocab,) of the last token, in the weights' dtype.

    Both are int64; positions ascend and stay below `max_positions` (beyond it, the write into the
    cache fails). Choose the dtype in the builders: `.to(dtype)` would round the frequencies too.
    """

    rope: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.lm_head = nn.Linear(config.dim, config.vocab, bias=False)
        if config.tied_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.register_buffer("rope", rope_frequencies(config), persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        # Rounded to bf16, an angle at position 1000 can be a radian off, and nothing would fail.
        assert self.rope.dtype is torch.float32, "choose the dtype in build_random, not by .to()"
        angles = positions.float()[:, None] * self.rope[None, :]
        cos, sin = angles.cos(), angles.sin()
        slots = torch.arange(self.config.max_positions, device=tokens.device)
        mask = slots[None, :] <= positions[:, None]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, positions, cos, sin, mask)
        # Only the last token is sampled from: the head runs at M = 1 in prefill too.
        logits: Tensor = self.lm_head(self.norm(x[-1:]))[0]
        return logits
