"""Which rank holds which experts, which part of them, and which heads?

Rules of DeepSpeed-MoE: `ep_size` = min(ranks, experts) ranks share out the experts; where ranks
exceed experts, the ranks {i, i + ep, i + 2 ep, …} hold expert i together, each a slice of its width
(or, as PR-MoE's layers do, each a copy). Unlike there the experts need not divide evenly: the first
ranks then hold one more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import UsageError
from common.workloads.moe_config import MoeConfig

# What ranks do that exceed the experts: hold a slice of an expert's width, or a copy of it.
Beyond = Literal["slice", "replicate"]


@dataclass(frozen=True)
class LayerPlan:
    """One layer: `ep` ranks share out its experts, `slices` ranks hold each of them together."""

    experts: int
    ep: int
    slices: int
    replicas: int

    @property
    def ranks(self) -> int:
        return self.ep * self.slices * self.replicas

    def held(self) -> tuple[int, ...]:
        """Experts per expert-parallel index: contiguous, the first ones hold one more."""
        least, more = divmod(self.experts, self.ep)
        return tuple(least + (index < more) for index in range(self.ep))

    def ep_groups(self) -> list[list[int]]:
        """Ranks that exchange tokens: contiguous, each group holds all experts (or slices)."""
        return [list(range(start, start + self.ep)) for start in range(0, self.ranks, self.ep)]

    def slice_groups(self) -> list[list[int]]:
        """Ranks that hold slices of the same experts: {i, i + ep, i + 2 ep, …}."""
        if self.slices == 1:
            return [[rank] for rank in range(self.ranks)]
        return [list(range(index, self.ranks, self.ep)) for index in range(self.ep)]


def layer_plan(
    ranks: int, experts: int, width: int, ep_size: int | None = None, beyond: Beyond = "slice"
) -> LayerPlan:
    """The plan of a layer with `experts` experts of `width` on `ranks` ranks, or UsageError."""
    if ranks < 1:
        raise UsageError(f"{ranks} ranks; choose 1 or more")
    ep = min(ranks, experts) if ep_size is None else ep_size
    if not 1 <= ep <= min(ranks, experts):
        raise UsageError(
            f"ep_size is {ep} with {ranks} ranks and {experts} experts; "
            f"choose from 1 to {min(ranks, experts)}"
        )
    if ranks % ep:
        raise UsageError(
            f"{ranks} ranks cannot hold {experts} experts in groups of {ep}: choose a number of "
            f"ranks that is a multiple of {ep}, or another ep_size"
        )
    together = ranks // ep
    if beyond == "replicate":
        return LayerPlan(experts, ep, 1, together)
    if width % together:
        raise UsageError(
            f"experts of width {width} cannot be cut into {together} slices: choose a number of "
            "ranks whose slices divide the width"
        )
    return LayerPlan(experts, ep, together, 1)


@dataclass(frozen=True)
class ParallelPlan:
    """The whole model: a plan per layer (None: no experts), `mp` ranks per slice of attention."""

    ranks: int
    mp: int
    layers: tuple[LayerPlan | None, ...]
    per_node: int | None = None

    @property
    def dp(self) -> int:
        """Groups of ranks with different sequences; within one the heads are shared out."""
        return self.ranks // self.mp

    def mp_groups(self) -> list[list[int]]:
        return [list(range(start, start + self.mp)) for start in range(0, self.ranks, self.mp)]

    def rows(self, batch: int, rank: int) -> range:
        """The sequences of a batch that `rank` works on; the first groups hold one more."""
        if batch < self.dp:
            raise UsageError(
                f"a batch of {batch} cannot be shared out to {self.dp} groups of ranks; "
                f"choose a batch of at least {self.dp}, or a larger mp_size"
            )
        least, more = divmod(batch, self.dp)
        group = rank // self.mp
        start = group * least + min(group, more)
        return range(start, start + least + (group < more))


def parallel_plan(
    config: MoeConfig,
    ranks: int,
    *,
    ep_size: int | None = None,
    mp_size: int = 1,
    beyond: Beyond = "slice",
    per_node: int | None = None,
) -> ParallelPlan:
    """How `ranks` ranks run this model. `per_node` makes exchanges hierarchical: that many ranks
    exchange among themselves first. UsageError where something does not divide."""
    if mp_size < 1 or ranks % mp_size or config.heads % mp_size or config.kv_heads % mp_size:
        raise UsageError(
            f"mp_size {mp_size} must divide {ranks} ranks, {config.heads} heads and "
            f"{config.kv_heads} key/value heads; choose one that does"
        )
    if mp_size > 1 and config.qk_norm == "projection":
        raise UsageError(
            "this model normalises queries over all heads, so they cannot be cut; choose mp_size 1"
        )
    layers = tuple(
        layer_plan(ranks, count, config.expert_dim, ep_size, beyond) if count else None
        for count in config.experts
    )
    for layer in layers:
        if per_node is not None and layer is not None and (per_node < 1 or layer.ep % per_node):
            raise UsageError(
                f"{layer.ep} ranks that exchange tokens are no multiple of {per_node} per node; "
                "choose per_node to divide them"
            )
    return ParallelPlan(ranks, mp_size, layers, per_node)
