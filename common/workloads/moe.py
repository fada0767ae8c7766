"""What is being run? SimpleMoETransformer: attention and experts, batched, with a cache.

Grouped-query attention with rotary positions as in the Llama here, and in place of its MLP a router
with stacked experts (`moe_experts`), optionally with a shared or a residual expert beside them.
Unlike the Llama it takes batches: batch is the subject. The cache grows with the position, so a
decode step reads what has been written and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError
from common.workloads.few_rows import FewRowsLinear
from common.workloads.llama import RMSNorm, rope_frequencies, rotate
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_experts import Backend, Experts, Stage, no_stage
from common.workloads.moe_routing import Picks, Router, RoutingOverride

# (layer, picks): called after each router, for statistics and recording.
PicksObserver = Callable[[int, Picks], None]


class GatedMlp(nn.Module):
    """A plain MLP of `width`: of a layer without experts, or beside them."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate_proj = FewRowsLinear(dim, width, bias=False)
        self.up_proj = FewRowsLinear(dim, width, bias=False)
        self.down_proj = FewRowsLinear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class BatchedAttention(nn.Module):
    """Causal grouped-query attention over a cache of (batch, kv_heads, positions, head_dim)."""

    def __init__(self, config: MoeConfig) -> None:
        super().__init__()
        self.config = c = config
        self.heads, self.kv_heads = c.heads, c.kv_heads
        query, key = c.heads * c.head_dim, c.kv_heads * c.head_dim
        self.q_proj = FewRowsLinear(c.dim, query, bias=False)
        self.k_proj = FewRowsLinear(c.dim, key, bias=False)
        self.v_proj = FewRowsLinear(c.dim, key, bias=False)
        self.o_proj = FewRowsLinear(query, c.dim, bias=False)
        if c.qk_norm != "none":
            of_head = c.qk_norm == "head"
            self.q_norm = RMSNorm(c.head_dim if of_head else query, c.norm_eps)
            self.k_norm = RMSNorm(c.head_dim if of_head else key, c.norm_eps)
        self.cache: tuple[Tensor, Tensor] | None = None

    def allocate(self, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        c = self.config
        shape = (batch, self.kv_heads, c.max_positions, c.head_dim)
        self.cache = (
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, start: int, cos: Tensor, sin: Tensor) -> Tensor:
        """`x` (batch, n, dim) at positions start … start + n - 1."""
        batch, n, _ = x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.config.qk_norm == "projection":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.view(batch, n, -1, self.config.head_dim) for t in (q, k, v))
        if self.config.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        assert self.cache is not None  # the model allocates it
        keys, values = self.cache
        end = start + n
        keys[:, :, start:end], values[:, :, start:end] = k, v
        mask = None
        if start and n > 1:  # a causal square covers n == end, one row sees everything
            columns = torch.arange(end, device=x.device)
            mask = columns[None, :] <= columns[start:, None]
        mixed = F.scaled_dot_product_attention(
            q,
            keys[:, :, :end],
            values[:, :, :end],
            attn_mask=mask,
            is_causal=start == 0 and n > 1,
            enable_gqa=True,
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, n, -1))
        return out


class MoeBlock(nn.Module):
    """Router, experts and what stands beside them, over (tokens, dim)."""

    def __init__(self, config: MoeConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.gate = Router(config, layer)
        self.experts = Experts(config.experts[layer], config.dim, config.expert_dim)
        if config.beside != "none":
            self.beside = GatedMlp(config.dim, config.beside_dim)
        if config.beside == "residual":
            self.coefficient = nn.Linear(config.dim, 2)

    def forward(
        self,
        x: Tensor,
        backend: Backend,
        stage: Stage,
        override: RoutingOverride | None,
        observe: PicksObserver | None,
    ) -> Tensor:
        with stage("router"):
            picks = self.gate(x, override)
        if observe is not None:
            observe(self.layer, picks)
        routed: Tensor = self.run_experts(x, picks, backend, stage)
        return self.add_beside(x, routed, stage)

    def run_experts(self, x: Tensor, picks: Picks, backend: Backend, stage: Stage) -> Tensor:
        out: Tensor = self.experts(x, picks, backend, stage)
        return out

    def add_beside(self, x: Tensor, routed: Tensor, stage: Stage) -> Tensor:
        if self.config.beside == "none":
            return routed
        with stage("beside"):
            fixed: Tensor = self.beside(x)
            if self.config.beside == "shared":
                return routed + fixed
            weights: Tensor = self.coefficient(x).float().softmax(-1).to(x.dtype)
            return routed * weights[:, :1] + fixed * weights[:, 1:]


class MoeLayer(nn.Module):
    def __init__(self, config: MoeConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = BatchedAttention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp: MoeBlock | GatedMlp = (
            MoeBlock(config, layer)
            if config.experts[layer]
            else GatedMlp(config.dim, config.dense_dim)
        )


class SimpleMoETransformer(nn.Module):
    """Tokens (batch, n) int64 -> logits (batch, n, vocab), or (batch, 1, vocab) with `last_only`.

    `start` is the position of the first token: 0 begins a new sequence (and a new cache, if the
    batch changed), anything else goes on with the one before. Set `backend`, `override`, `stage`
    and `observe` between calls. Build with `moe_weights`: `.to(dtype)` would round the positions'
    frequencies and the router.
    """

    rope: Tensor

    def __init__(self, config: MoeConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(MoeLayer(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.lm_head = FewRowsLinear(config.dim, config.vocab, bias=False)
        if config.tied_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        frequencies = rope_frequencies(config.attention_shape())
        self.register_buffer("rope", frequencies, persistent=False)
        self.backend: Backend = "auto"
        self.override: RoutingOverride | None = None
        self.observe: PicksObserver | None = None
        self.stage: Stage = no_stage

    def forward(self, tokens: Tensor, start: int = 0, last_only: bool = False) -> Tensor:
        self._check(tokens, start)
        batch, n = tokens.shape
        positions = torch.arange(start, start + n, device=tokens.device, dtype=torch.float32)
        angles = positions[:, None] * self.rope[None, :]
        cos, sin = angles.cos(), angles.sin()
        x: Tensor = self.embed_tokens(tokens)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, MoeLayer)
            if start == 0 and (layer.self_attn.cache is None or self._cached(layer) != batch):
                layer.self_attn.allocate(batch, x.device, x.dtype)
            x = self._layer(index, layer, x, start, cos, sin)
        if last_only:
            x = x[:, -1:]
        logits: Tensor = self.lm_head(self.norm(x))
        return logits

    def _layer(
        self, index: int, layer: MoeLayer, x: Tensor, start: int, cos: Tensor, sin: Tensor
    ) -> Tensor:
        def stage(name: str) -> AbstractContextManager[object]:
            return self.stage(f"layer{index}/{name}")

        with self.stage(f"layer{index}/norm"):
            normed = layer.input_layernorm(x)
        with self.stage(f"layer{index}/attention"):
            x = x + layer.self_attn(normed, start, cos, sin)
        with self.stage(f"layer{index}/norm"):
            normed = layer.post_attention_layernorm(x).flatten(0, 1)
        if isinstance(layer.mlp, MoeBlock):
            y = layer.mlp(normed, self.backend, stage, self.override, self.observe)
        else:
            with self.stage(f"layer{index}/mlp"):
                y = layer.mlp(normed)
        out: Tensor = x + y.view_as(x)
        return out

    @staticmethod
    def _cached(layer: MoeLayer) -> int:
        return layer.self_attn.cache[0].shape[0] if layer.self_attn.cache else 0

    def _check(self, tokens: Tensor, start: int) -> None:
        if self.rope.dtype is not torch.float32:
            raise UsageError(
                "the model was cast after it was built; choose the dtype in moe_weights"
            )
        if tokens.dim() != 2 or 0 in tokens.shape:
            raise UsageError(
                f"tokens have shape {tuple(tokens.shape)}; give 1 or more sequences "
                "of 1 or more tokens each"
            )
        batch, n = tokens.shape
        if start < 0 or start + n > self.config.max_positions:
            raise UsageError(
                f"positions {start} to {start + n - 1} do not fit a cache of "
                f"{self.config.max_positions}; build the model with a longer one"
            )
        layer = self.layers[0]
        assert isinstance(layer, MoeLayer)
        if start and self._cached(layer) != batch:
            raise UsageError(
                f"a batch of {batch} cannot go on at position {start}: the cache is of another "
                "batch; begin at 0"
            )
