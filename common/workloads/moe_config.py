"""Which mixture of experts is run? Its shapes, and what its router and its attention compute.

One description covers the families of the issue: Mixtral, Qwen3-MoE, OLMoE and DeepSeek shapes,
PR-MoE's residual expert and its pyramid (an expert count per layer, 0 for a layer with a plain
MLP). What makes no sense is refused when the description is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from common.errors import UsageError
from common.workloads.llama import LlamaConfig, RopeScaling

# none: experts only. shared: an MLP beside them that every token uses (Qwen2-MoE, DeepSeek).
# residual: PR-MoE, y = c0 · experts(x) + c1 · mlp(x) with (c0, c1) = softmax(W x).
BesideExperts = Literal["none", "shared", "residual"]
# head: over each head's elements (Qwen3); projection: over all heads at once (OLMoE).
QueryKeyNorm = Literal["none", "head", "projection"]
Scoring = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class MoeConfig:
    """Shapes of one model. `experts` has one count per layer; 0 is a plain MLP of `dense_dim`."""

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    expert_dim: int
    experts: tuple[int, ...]
    top_k: int
    vocab: int
    max_positions: int
    normalise_top_k: bool = True
    scoring: Scoring = "softmax"
    routed_scale: float = 1.0
    beside: BesideExperts = "none"
    beside_dim: int = 0
    dense_dim: int = 0
    qk_norm: QueryKeyNorm = "none"
    tied_embeddings: bool = False
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    # What the described model has and this one leaves out; shown with every result.
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {
            "dim": self.dim,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "expert_dim": self.expert_dim,
            "vocab": self.vocab,
            "max_positions": self.max_positions,
            "number of layers": len(self.experts),
        }
        for name, value in sizes.items():
            if value < 1:
                raise UsageError(f"{name} is {value}; choose 1 or more")
        if self.heads % self.kv_heads:
            raise UsageError(
                f"{self.heads} heads cannot share {self.kv_heads} key/value heads; choose a divisor"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise UsageError(f"head_dim is {self.head_dim}; choose an even number from 2")
        for layer, count in enumerate(self.experts):
            if count < 0 or (count and not 1 <= self.top_k <= count):
                raise UsageError(
                    f"top_k is {self.top_k}, but layer {layer} has {count} experts; "
                    "choose top_k from 1 to the smallest expert count"
                )
        if 0 in self.experts and self.dense_dim < 1:
            raise UsageError("a layer without experts needs dense_dim; give its width")
        if self.beside != "none" and self.beside_dim < 1:
            raise UsageError(f"a {self.beside} expert needs beside_dim; give its width")

    @property
    def layers(self) -> int:
        return len(self.experts)

    def with_cache_length(self, max_positions: int) -> MoeConfig:
        return replace(self, max_positions=max_positions)

    def with_top_k(self, top_k: int) -> MoeConfig:
        return replace(self, top_k=top_k)

    def attention_shape(self) -> LlamaConfig:
        """The parts that attention and rotary positions need, as the Llama's description."""
        return LlamaConfig(
            self.layers,
            self.dim,
            self.heads,
            self.kv_heads,
            self.expert_dim,
            self.vocab,
            self.max_positions,
            self.head_dim,
            rope_theta=self.rope_theta,
            rope_scaling=self.rope_scaling,
            norm_eps=self.norm_eps,
        )

    def expert_weights(self) -> int:
        """Weights of one expert of one layer: gate, up and down projection."""
        return 3 * self.dim * self.expert_dim


def _small(experts: tuple[int, ...], top_k: int = 2, **more: object) -> MoeConfig:
    return MoeConfig(64, 4, 2, 16, 96, experts, top_k, 256, 64, **more)  # type: ignore[arg-type]


# tiny*: for tests. exercise: two layers at the sizes of a laptop, for the profiling exercise's own
# setting (sequence 128, vocabulary 10 000). cpu: 64 experts of 6.3 MB in float32 per layer, 403 MB:
# larger than any L3. qwen3-small: many small experts, of which a token picks eight. mixtral-8x7b,
# qwen3-30b-a3b, olmoe-1b-7b: published shapes (config.json of the models of these names), with as
# many layers as asked for.
CONFIGS = {
    "tiny": _small((8, 8)),
    "tiny-pyramid": _small((4, 8), beside="residual", beside_dim=96),
    "tiny-shared": _small((0, 8), beside="shared", beside_dim=48, dense_dim=128),
    "exercise": MoeConfig(512, 8, 4, 64, 1024, (8, 8), 2, 10_000, 256),
    "cpu": MoeConfig(512, 8, 4, 64, 1024, (64, 64), 2, 10_000, 256),
    "qwen3-small": MoeConfig(
        512, 8, 4, 64, 384, (64, 64), 8, 10_000, 256, qk_norm="head", norm_eps=1e-6
    ),
    "mixtral-8x7b": MoeConfig(4096, 32, 8, 128, 14336, (8,) * 32, 2, 32000, 4096),
    "qwen3-30b-a3b": MoeConfig(
        2048, 32, 4, 128, 768, (128,) * 48, 8, 151936, 4096, qk_norm="head", norm_eps=1e-6
    ),
    "olmoe-1b-7b": MoeConfig(
        2048, 16, 16, 128, 1024, (64,) * 16, 8, 50304, 4096,
        normalise_top_k=False, qk_norm="projection", rope_theta=10_000.0,
    ),
}  # fmt: skip
