"""How many bytes and operations does one layer of a mixture of experts need?

Two counts stand side by side, because a published model can only be reproduced with its own:

- `"counted"` is ours: both attention products, and only the experts that tokens touch.
- `"moe-lightning"` is that of the MoE-Lightning paper's code: the product with V is left out, every
  expert is charged at any number of tokens, and the output is taken to be as wide as an expert.

A multiply-add counts two operations. Weights and activations have `weight_bytes` each (2: float16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from common.errors import UsageError
from common.floors.active_experts import expected_active

Count = Literal["counted", "moe-lightning"]


@dataclass(frozen=True)
class MoeShape:
    """One model whose every layer is attention and a gated mixture of experts (three matrices)."""

    id: str
    layers: int
    hidden: int
    expert_width: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    top_k: int
    source: str

    def __post_init__(self) -> None:
        sizes = (self.layers, self.hidden, self.expert_width, self.head_dim, self.kv_heads)
        if min(sizes) < 1 or self.heads % self.kv_heads:
            raise UsageError(
                f"{self.id}: sizes must be 1 or more and heads a multiple of kv_heads; mend it"
            )
        if not 1 <= self.top_k <= self.experts:
            raise UsageError(
                f"{self.id}: top_k {self.top_k} of {self.experts} experts; choose 1..experts"
            )

    @property
    def group(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads

    def expert_bytes(self, weight_bytes: float = 2) -> float:
        """One expert of one layer: gate, up and down projection."""
        return 3 * self.hidden * self.expert_width * weight_bytes

    def layer_expert_bytes(self, weight_bytes: float = 2) -> float:
        """All experts of one layer."""
        return self.experts * self.expert_bytes(weight_bytes)

    def other_bytes(self, weight_bytes: float = 2) -> float:
        """The four attention projections of all layers (no embedding, no norms)."""
        width = (self.heads + self.kv_heads) * self.head_dim
        return 2 * self.hidden * width * weight_bytes * self.layers


@dataclass(frozen=True)
class Work:
    """Operations, and the bytes that one level of memory must deliver for them."""

    flops: float
    bytes_moved: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes_moved


def ffn_work(
    shape: MoeShape, tokens: float, count: Count = "counted", weight_bytes: float = 2
) -> Work:
    """The experts of one layer over `tokens` tokens, weights read once."""
    _positive("tokens", tokens)
    h1, h2 = shape.hidden, shape.expert_width
    flops = 2 * tokens * h1 * h2 * 3 * shape.top_k
    width = h1 + h2 if count == "moe-lightning" else 2 * h1  # read in and written out
    moved = weight_bytes * tokens * width + touched_bytes(shape, tokens, count, weight_bytes)
    return Work(flops, moved)


def touched_bytes(
    shape: MoeShape, tokens: float, count: Count = "counted", weight_bytes: float = 2
) -> float:
    """Weights of one layer's experts that `tokens` tokens read."""
    if count == "moe-lightning":
        return shape.layer_expert_bytes(weight_bytes)
    active = expected_active(shape.experts, shape.top_k, tokens)
    return active * shape.expert_bytes(weight_bytes)


def ffn_weight_intensity(shape: MoeShape, tokens: float, weight_bytes: float = 2) -> float:
    """(2 / bytes) × N k / E[active]: the experts' weights alone, in operations per byte."""
    active = expected_active(shape.experts, shape.top_k, tokens)
    return 2 / weight_bytes * tokens * shape.top_k / active


def attention_work(
    shape: MoeShape,
    sequences: float,
    context: float,
    kv_bytes: float = 2,
    count: Count = "counted",
) -> Work:
    """One decode step of one layer's attention over `context` cached positions per sequence.

    Each sequence reads its own cache, so both sides of the intensity grow with `sequences`.
    `kv_bytes` is 2 for float16 and 0.5 for int4; the projections are not part of it.
    """
    _positive("sequences", sequences)
    _positive("context", context)
    query, cached = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    products = 1 if count == "moe-lightning" else 2  # theirs: Q·Kᵀ only; ours: and P·V
    softmax = 2 * sequences * context * shape.heads
    flops = 2 * sequences * context * query * products
    moved = kv_bytes * (2 * sequences * query + 2 * sequences * context * cached)
    return Work(flops + softmax, moved)


def attention_intensity_limit(shape: MoeShape, kv_bytes: float = 2) -> float:
    """2 (heads / kv_heads) / bytes: what the intensity tends to; neither N nor context is in it."""
    return 2 * shape.group / kv_bytes


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UsageError(f"{name} is {value!r}; pass a finite number above zero")


_ALL = (
    MoeShape(
        "mixtral-8x7b", 32, 4096, 14336, 32, 8, 128, 8, 2, "config.json, Mixtral-8x7B-Instruct-v0.1"
    ),
    MoeShape("mixtral-8x22b", 56, 6144, 16384, 48, 8, 128, 8, 2, "config.json, Mixtral-8x22B-v0.1"),
    MoeShape("dbrx", 40, 6144, 10752, 48, 8, 128, 16, 4, "config.json, databricks/dbrx-instruct"),
)
SHAPES: Mapping[str, MoeShape] = MappingProxyType({shape.id: shape for shape in _ALL})


def moe_shape(name: str) -> MoeShape:
    """The shape with this id. Raises UsageError, listing the ids, if there is none."""
    if name not in SHAPES:
        raise UsageError(f"no shape is called {name!r}; choose from {', '.join(SHAPES)}")
    return SHAPES[name]
