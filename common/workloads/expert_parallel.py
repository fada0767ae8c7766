"""How does a mixture of experts run on several ranks? Experts, their slices, and heads shared out.

A model is built layer by layer as in one process, and each finished layer is cut down to this
rank's part before the next is made, so no rank ever holds all experts. In a layer:

- attention: whole on each rank over its own sequences (data parallel), or with a share of the heads
  over the sequences of its group, summed up over the group (tensor slicing, `mp`);
- tokens of a tensor-sliced group, which all its ranks hold, are shared out before routing;
- tokens go to the ranks of their experts, through them, and back (two all-to-all);
- sliced experts: the group of slices gathers its tokens, each computes its share of the width, the
  sum goes back to the rank that the tokens came to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.workloads.expert_exchange import (
    Exchange,
    Group,
    gather_rows,
    make_exchange,
    make_group,
)
from common.workloads.expert_groups import LayerPlan, ParallelPlan
from common.workloads.moe import (
    BatchedAttention,
    MoeBlock,
    MoeLayer,
    PicksObserver,
    SimpleMoETransformer,
)
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_experts import Backend, Experts, Stage, through_sorted
from common.workloads.moe_routing import Picks, RoutingOverride
from common.workloads.moe_weights import build_random_moe


@dataclass
class Breakdown:
    """Nanoseconds of this rank, by what it did; names that end in `_comm` were communication.

    A rank that waits for a slower one counts the wait as communication.
    """

    spent_ns: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            spent = time.perf_counter_ns() - started
            self.spent_ns[name] = self.spent_ns.get(name, 0) + spent


class SlicedAttention(BatchedAttention):
    """This rank's share of the heads; the sum over the group is the whole attention."""

    def __init__(self, whole: BatchedAttention, group: Group, breakdown: Breakdown) -> None:
        nn.Module.__init__(self)
        self.config, self.group, self.breakdown = whole.config, group, breakdown
        self.heads, self.kv_heads = whole.heads // group.size, whole.kv_heads // group.size
        self.cache = None
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            linear: nn.Linear = getattr(whole, name)
            share = linear.weight.data.chunk(group.size, 1 if name == "o_proj" else 0)
            # Only the shape of the weight counts in a product; the module's sizes are for display.
            linear.weight = nn.Parameter(share[group.place].clone(), requires_grad=False)
            setattr(self, name, linear)
        if whole.config.qk_norm == "head":
            self.q_norm, self.k_norm = whole.q_norm, whole.k_norm

    def forward(self, x: Tensor, start: int, cos: Tensor, sin: Tensor) -> Tensor:
        with self.breakdown.part("attention"):
            out = super().forward(x, start, cos, sin).contiguous()
        with self.breakdown.part("attention_comm"):
            dist.all_reduce(out, group=self.group.handle)
        return out


class ParallelMoeBlock(MoeBlock):
    """A layer's mixture of which this rank holds some experts, or slices of some."""

    def __init__(
        self,
        whole: MoeBlock,
        plan: LayerPlan,
        exchange: Exchange,
        slices: Group,
        tokens: Group,
        breakdown: Breakdown,
    ) -> None:
        nn.Module.__init__(self)
        self.config, self.layer, self.gate = whole.config, whole.layer, whole.gate
        if whole.config.beside != "none":
            self.beside = whole.beside
        if whole.config.beside == "residual":
            self.coefficient = whole.coefficient
        self.plan, self.exchange, self.slices = plan, exchange, slices
        self.tokens, self.breakdown = tokens, breakdown
        self.held = plan.held()
        self.experts = _share(whole.experts, self.held, exchange.whole.place, slices)

    def forward(
        self,
        x: Tensor,
        backend: Backend,
        stage: Stage,
        override: RoutingOverride | None,
        observe: PicksObserver | None,
    ) -> Tensor:
        if self.tokens.size == 1:
            return super().forward(x, backend, stage, override, observe)
        # All ranks of the group hold these tokens: each takes a part, then all gather all parts.
        mine = x.tensor_split(self.tokens.size)[self.tokens.place]
        part = super().forward(mine, backend, stage, override, observe)
        with self.breakdown.part("gather_comm"):
            return gather_rows(part, self.tokens)[0]

    def run_experts(self, x: Tensor, picks: Picks, backend: Backend, stage: Stage) -> Tensor:
        tokens, k = picks.experts.shape
        with self.breakdown.part("dispatch"):
            chosen = picks.experts.reshape(-1)
            order = chosen.argsort(stable=True)
            rows = x[order // k]
            loads = chosen.bincount(minlength=self.plan.experts)
            per_rank = [int(part.sum()) for part in torch.split(loads, list(self.held))]
        with self.breakdown.part("dispatch_comm"), stage("dispatch"):
            # From each rank of the group, how many rows for each expert here; then the rows.
            arriving, _ = self.exchange(loads, list(self.held))
            here, received = self.exchange(rows, per_rank)
        with stage("experts"):
            done = self._through(here, arriving.view(self.exchange.whole.size, self.experts.count))
        with self.breakdown.part("combine_comm"), stage("combine"):
            back, _ = self.exchange(done, received)
        with self.breakdown.part("combine"):
            y = torch.empty_like(back)
            y[order] = back
            weights = picks.weights.to(x.dtype)[..., None]
            out: Tensor = (y.view(tokens, k, x.shape[1]) * weights).sum(1)
        return out

    def _through(self, here: Tensor, arriving: Tensor) -> Tensor:
        """Rows sorted by (sender, expert) through the experts here, back in the same order."""
        if self.slices.size == 1:
            with self.breakdown.part("experts"):
                return self._local(here, arriving)
        with self.breakdown.part("slices_comm"):
            every, counts = gather_rows(here, self.slices)
            tables, _ = gather_rows(arriving, self.slices)
        with self.breakdown.part("experts"):
            partial = self._local(every, tables)
        with self.breakdown.part("slices_comm"):
            dist.all_reduce(partial, group=self.slices.handle)
        return torch.split(partial, counts)[self.slices.place]

    def _local(self, rows: Tensor, arriving: Tensor) -> Tensor:
        senders, held = arriving.shape
        expert = torch.arange(held).repeat(senders).repeat_interleave(arriving.reshape(-1))
        order = expert.argsort(stable=True)
        out = torch.empty_like(rows)
        out[order] = through_sorted(self.experts, rows[order], arriving.sum(0).tolist())
        return out


def _share(whole: Experts, held: tuple[int, ...], place: int, slices: Group) -> Experts:
    """The experts of this place, and of each the slice of its width that this rank holds."""
    start, count = sum(held[:place]), held[place]
    width = whole.width // slices.size
    columns = slice(slices.place * width, (slices.place + 1) * width)
    with torch.device("meta"):
        mine = Experts(count, whole.dim, width)
    gate, up = whole.gate_up_proj[start : start + count].chunk(2, 1)
    gate_up = torch.cat((gate[:, columns], up[:, columns]), 1)
    # A view would keep the whole stack in memory.
    down = whole.down_proj[start : start + count, :, columns].clone()
    mine.gate_up_proj = nn.Parameter(gate_up, requires_grad=False)
    mine.down_proj = nn.Parameter(down, requires_grad=False)
    return mine


def build_parallel(
    config: MoeConfig,
    plan: ParallelPlan,
    rank: int,
    breakdown: Breakdown,
    patience: timedelta,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> SimpleMoETransformer:
    """This rank's part of the model that `build_random_moe` makes with the same seed.

    `patience` is how long this rank waits in an exchange before it takes the others for lost.
    """
    tensor = make_group(plan.mp_groups(), rank, patience)
    made: dict[LayerPlan, tuple[Exchange, Group]] = {}
    for layer in dict.fromkeys(plan.layers):  # groups once per distinct plan, in one order
        if layer is not None:
            exchange = make_exchange(layer.ep_groups(), rank, plan.per_node, patience)
            made[layer] = (exchange, make_group(layer.slice_groups(), rank, patience))

    def cut(module: nn.Module) -> None:
        if not isinstance(module, MoeLayer):
            return
        if tensor.size > 1:
            module.self_attn = SlicedAttention(module.self_attn, tensor, breakdown)
        if isinstance(module.mlp, MoeBlock):
            layer = plan.layers[module.mlp.layer]
            assert layer is not None
            module.mlp = ParallelMoeBlock(module.mlp, layer, *made[layer], tensor, breakdown)

    return build_random_moe(config, torch.device("cpu"), seed, dtype, after_module=cut)
