"""What does a point's pass run over? Seeded tokens, and the experts that a skew forces on them.

Each repetition takes the next of a few inputs: the same tokens again would pick the same experts
again, and find them in a cache that a real decode step does not find them in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UsageError
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_routing import RoutingOverride, SkewedRouting
from problems.moe_batch_scaling.plan import skew_of
from problems.moe_batch_scaling.points import Point

SEED = 20251121
MANY_TOKENS = 512  # from here on nearly every expert is picked whatever the tokens are


@dataclass(frozen=True)
class Inputs:
    """`prompt` (batch, sequence) fills the cache before a decode step; `passes` are timed."""

    prompt: Tensor | None
    passes: tuple[Tensor, ...]
    start: int
    routing: tuple[RoutingOverride | None, ...]

    def __len__(self) -> int:
        return len(self.passes)


@dataclass(frozen=True)
class FixedRouting:
    """Experts that were drawn before the clock ran; they lie on the device already."""

    layers: tuple[Tensor | None, ...]

    def picks(self, layer: int, tokens: int, experts: int, top_k: int) -> Tensor:
        found = self.layers[layer]
        if found is None or found.shape != (tokens, top_k):
            shape = None if found is None else tuple(found.shape)
            raise UsageError(
                f"layer {layer} was drawn for {shape}, not {(tokens, top_k)}; draw it anew"
            )
        return found


def make_inputs(point: Point, config: MoeConfig, device: torch.device) -> Inputs:
    """The same for every side: tokens depend on the phase, the batch and the sequence alone."""
    generator = torch.Generator().manual_seed(SEED + 1000 * point.batch + point.sequence)

    def draw(length: int) -> Tensor:
        shape = (point.batch, length)
        return torch.randint(config.vocab, shape, generator=generator).to(device)

    count = 8 if point.phase == "decode" else 4 if point.tokens <= MANY_TOKENS else 2
    decoding = point.phase == "decode"
    prompt = draw(point.sequence) if decoding else None
    passes = tuple(draw(1 if decoding else point.sequence) for _ in range(count))
    start = point.sequence if decoding else 0
    return Inputs(
        prompt, passes, start, tuple(forced(point, config, device, n) for n in range(count))
    )


def forced(
    point: Point, config: MoeConfig, device: torch.device, seed: int
) -> RoutingOverride | None:
    skew = skew_of(point.routing)
    if skew is None:
        return None
    drawn = SkewedRouting(skew, seed)
    return FixedRouting(
        tuple(
            drawn.picks(layer, point.tokens, count, point.top_k).to(device) if count else None
            for layer, count in enumerate(config.experts)
        )
    )
