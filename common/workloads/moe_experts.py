"""How are a batch's tokens brought through their experts? Five ways, the same result.

Weights are stacked in the Hugging Face layout: `gate_up` (E, 2 f, h) and `down` (E, h, f). No way
drops a token, and all but `loop` add a token's k results in the order of its picks, so the result
does not depend on how tokens are grouped. The ways:

- `loop`: expert after expert over the tokens that picked it; the reference.
- `sorted`: tokens sorted by expert once, then one product per touched expert and projection,
  turned or not as its number of rows asks for (`few_rows`), through buffers that stay in a cache.
- `grouped_mm`: the same, with one `torch.nn.functional.grouped_mm` per projection.
- `batched_mm`: every token gets copies of its experts' weights; reads k · 3 h f per token.
- `dense`: every expert over every token, and the sum over the picked ones.
- `auto`: one of these by `choose_backend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError
from common.workloads.few_rows import expert_turned_rows, product, product_into
from common.workloads.moe_routing import Picks

Backend = Literal["auto", "loop", "sorted", "grouped_mm", "batched_mm", "dense"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Weights = Sequence[Tensor]
GROUPED_ALIGNMENT_BYTES = 16
# Intermediate results (gate and up) of one block of experts: half of what a core's share of a
# last-level cache holds, so that the activation finds them there.
CACHED_BYTES = 1 << 21
# The rule for other types than float32 on a CPU, whose few rows have no product of their own:
FEW_PICKS = 8
# `grouped_mm` writes the intermediate results of all experts to memory before it reads them (1.1 to
# 1.3 times as long from 32 rows per expert on; measured-cpu, one thread, width 1024).
MANY_ROWS = 24


class Stage(Protocol):
    """Marks what follows as one stage of a layer in a profile; does nothing when timing."""

    def __call__(self, name: str) -> AbstractContextManager[object]: ...


def no_stage(name: str) -> AbstractContextManager[object]:
    return nullcontext()


class Experts(nn.Module):
    """The experts of one layer. `dtype` of the result is that of the tokens."""

    def __init__(self, count: int, dim: int, width: int) -> None:
        super().__init__()
        self.count, self.dim, self.width = count, dim, width
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, dim))
        self.down_proj = nn.Parameter(torch.empty(count, dim, width))

    def expert(self, index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(gate and up (2 f, h), down (h, f)) of one expert, ready to multiply."""
        return self.gate_up_proj[index], self.down_proj[index]

    def between(self, first: int, end: int, dtype: torch.dtype) -> tuple[Weights, Weights]:
        """(gates and ups, downs) of experts `first` … `end` - 1, ready to multiply."""
        return self.gate_up_proj[first:end].unbind(), self.down_proj[first:end].unbind()

    def rows_together(self, row_bytes: int) -> int:
        """How many rows, of so many bytes each, may go through experts in one block."""
        return max(1, CACHED_BYTES // row_bytes)

    def turned_rows(self, rows: int) -> int:
        """Rows that an expert's are padded to for products that stay turned; 0: not turned."""
        return expert_turned_rows(rows, self.gate_up_proj)

    def several(self, indices: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Copies of these experts' weights, (n, 2 f, h) and (n, h, f)."""
        return self.gate_up_proj[indices], self.down_proj[indices]

    def stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """All weights as they are stored; UsageError where they are stored otherwise."""
        return self.gate_up_proj, self.down_proj

    def can_group(self) -> bool:
        """Whether `grouped_mm` takes these weights: rows must start at multiples of 16 bytes."""
        size = self.gate_up_proj.element_size()
        widths = (self.dim * size, self.width * size)
        return hasattr(F, "grouped_mm") and all(w % GROUPED_ALIGNMENT_BYTES == 0 for w in widths)

    def forward(
        self, x: Tensor, picks: Picks, backend: Backend = "auto", stage: Stage = no_stage
    ) -> Tensor:
        """`x` (tokens, h) through its picked experts, weighted and summed: (tokens, h)."""
        if x.shape[0] == 0:
            return torch.zeros_like(x)
        if backend == "auto":
            backend = choose_backend(self, x.shape[0], picks.top_k, x.dtype, x.device.type)
        if backend == "loop":
            return _loop(self, x, picks, stage)
        if backend == "sorted" and x.shape[0] == 1:
            return _one_token(self, x, picks, stage)
        if backend == "sorted" or backend == "grouped_mm":
            return _by_expert(self, x, picks, stage, grouped=backend == "grouped_mm")
        if backend == "batched_mm":
            return _batched(self, x, picks, stage)
        if backend == "dense":
            return _dense(self, x, picks, stage)
        raise UsageError(f"no backend is called {backend!r}; choose from {', '.join(BACKENDS)}")


def choose_backend(
    experts: Experts, tokens: int, top_k: int, dtype: torch.dtype, device: str
) -> Backend:
    """The rule of `auto`.

    One grouped product where it can be had. On a GPU copies of weights win while hardly an expert
    is shared (tokens · k <= experts / 2), and nothing waits for the host. On a CPU a launch costs
    little. In float32 `sorted` wins at every size: with few rows per expert by products that read
    each weight once, with more by products that threads share, with many by results that stay in a
    cache; it does not sort a single token. In other types the first two of these are missing, so
    one grouped product is taken between `FEW_PICKS` picks and `MANY_ROWS` rows per expert.
    Quantised weights are unpacked expert by expert, so they are `sorted` at any size.
    """
    if type(experts) is not Experts or not experts.can_group():
        return "sorted"
    picks = tokens * top_k
    if device == "cpu":
        if dtype is torch.float32:
            return "sorted"
        few_or_many = picks <= FEW_PICKS or picks >= MANY_ROWS * experts.count
        return "sorted" if few_or_many else "grouped_mm"
    return "batched_mm" if picks * 2 <= experts.count else "grouped_mm"


def activate(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


@dataclass(frozen=True)
class _Block:
    """Experts `first` … `end` - 1 that go through the buffers together, with their `rows`.

    The first and the last of them have rows; those in between may have none. `turned`: the rows
    that those of a single expert are padded to for products that stay turned; 0 where none is.
    """

    first: int
    end: int
    rows: int
    turned: int = 0


def _blocks(loads: Sequence[int], turned: Sequence[int], most_rows: int) -> list[_Block]:
    """Neighbouring experts, of not more than `most_rows` rows together unless one has more.

    An expert whose products are turned is a block of its own.
    """
    made = []
    first = end = rows = 0
    for index, (load, alone) in enumerate(zip(loads, turned, strict=True)):
        if not load:
            continue
        if rows and (alone or rows + load > most_rows):
            made.append(_Block(first, end, rows))
            rows = 0
        if alone:
            made.append(_Block(index, index + 1, load, alone))
            continue
        first = first if rows else index
        rows, end = rows + load, index + 1
    if rows:
        made.append(_Block(first, end, rows))
    return made


def through_sorted(
    experts: Experts, x: Tensor, loads: list[int], at: Tensor | None = None
) -> Tensor:
    """Rows sorted by expert, `loads[e]` of them for expert e, each through its own expert.

    The rows are those of `x` in its order, or `x[at]` in the order of `at`. Experts go through in
    blocks whose intermediate results stay in a cache, through one set of buffers: fresh memory for
    each would be paged in each time. Within a block there is one gather and one activation.
    """
    out = x.new_empty(sum(loads), x.shape[1])
    row_bytes = 2 * experts.width * x.element_size()
    turned = [experts.turned_rows(load) for load in loads]
    blocks = _blocks(loads, turned, experts.rows_together(row_bytes))
    most = max((max(block.rows, block.turned) for block in blocks), default=0)
    # Zeros: what pads an expert's rows must be finite, as are the results before it.
    gathered = x.new_zeros(most if at is not None or any(turned) else 0, x.shape[1])
    wide, narrow = x.new_empty(most, 2 * experts.width), x.new_empty(most, experts.width)
    start = 0
    for block in blocks:
        rows, end = block.rows, start + block.rows
        if at is not None:
            part = torch.index_select(x, 0, at[start:end], out=gathered[:rows])
        elif block.turned:
            part = gathered[:rows].copy_(x[start:end])
        else:
            part = x[start:end]
        weights = experts.between(block.first, block.end, x.dtype)
        if block.turned:
            _turned_expert(gathered[: block.turned], weights, wide, out[start:end])
        else:
            counts = loads[block.first : block.end]
            _products(part, weights[0], counts, wide[:rows])
            gate, up = wide[:rows].chunk(2, dim=-1)
            hidden = torch.mul(F.silu(gate, inplace=True), up, out=narrow[:rows])
            _products(hidden, weights[1], counts, out[start:end])
        start = end
    return out


def _turned_expert(
    rows: Tensor, weights: tuple[Weights, Weights], wide: Tensor, out: Tensor
) -> None:
    """One expert on `rows` (padded, h), in columns throughout; turned back into `out` (own, h).

    `wide` is memory for (2 f, padded); the second product overwrites `rows`.
    """
    count, (gate_up,), (down,) = rows.shape[0], *weights
    columns = wide.view(-1)[: gate_up.shape[0] * count].view(gate_up.shape[0], count)
    gate, up = torch.mm(gate_up, rows.t(), out=columns).chunk(2)
    hidden = F.silu(gate, inplace=True).mul_(up)
    result = torch.mm(down, hidden, out=rows.view(down.shape[0], count))
    out.copy_(result[:, : out.shape[0]].t())


def _products(rows: Tensor, weights: Sequence[Tensor], counts: Sequence[int], out: Tensor) -> None:
    """The next counts[i] rows times weights[i], for all i. Views are made by three calls in all."""
    parts, places = rows.split(counts), out.split(counts)  # type: ignore[no-untyped-call]
    for part, weight, place, count in zip(parts, weights, places, counts, strict=True):
        if count:
            product_into(place, part, weight)


def weighted_sum(y: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    """Rows `y` in sorted order back to their tokens: sum over k of `weights` (tokens, k) · y.

    The terms are added in the order of the picks, however the rows were sorted.
    """
    tokens, k = weights.shape
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    if y.device.type == "cpu" and y.dtype is torch.float32:
        slots = place.view(tokens, k)  # one pass per pick over one result, not three over k
        out = y.index_select(0, slots[:, 0]).mul_(weights[:, :1])
        for slot in range(1, k):
            out.addcmul_(y.index_select(0, slots[:, slot]), weights[:, slot : slot + 1])
        return out
    summed: Tensor = (y[place].view(tokens, k, -1) * weights[..., None]).sum(1)
    return summed


def _loop(experts: Experts, x: Tensor, picks: Picks, stage: Stage) -> Tensor:
    out = torch.zeros_like(x)
    with stage("experts"):
        for index in range(experts.count):
            tokens, slots = (picks.experts == index).nonzero(as_tuple=True)
            if len(tokens):
                gate_up, down = experts.expert(index, x.dtype)
                y = F.linear(activate(F.linear(x[tokens], gate_up)), down)
                # A token picks an expert once, so no two rows add to the same place.
                out[tokens] += y * picks.weights[tokens, slots, None].to(x.dtype)
    return out


def _one_token(experts: Experts, x: Tensor, picks: Picks, stage: Stage) -> Tensor:
    """Nothing to sort: the k products, weighted, in the order of the picks."""
    out = torch.zeros_like(x)
    with stage("dispatch"):
        chosen, weights = picks.experts[0].tolist(), picks.weights[0].tolist()
    with stage("experts"):
        for index, weight in zip(chosen, weights, strict=True):
            gate_up, down = experts.expert(index, x.dtype)
            out.add_(product(activate(product(x, gate_up)), down), alpha=weight)
    return out


def _by_expert(experts: Experts, x: Tensor, picks: Picks, stage: Stage, grouped: bool) -> Tensor:
    with stage("dispatch"):
        chosen = picks.experts.reshape(-1)
        order = chosen.argsort(stable=True)
        sources = order // picks.top_k
        loads = chosen.bincount(minlength=experts.count)
        rows = x.index_select(0, sources) if grouped else x
    with stage("experts"):
        if grouped:
            y = _grouped(experts, rows, loads)
        else:
            y = through_sorted(experts, x, loads.tolist(), sources)
    with stage("combine"):
        return weighted_sum(y, order, picks.weights.to(x.dtype))


def _grouped(experts: Experts, rows: Tensor, loads: Tensor) -> Tensor:
    if not experts.can_group():
        raise UsageError(
            f"grouped_mm needs torch 2.10 or newer and rows of a multiple of "
            f"{GROUPED_ALIGNMENT_BYTES} bytes, not {experts.dim} and {experts.width} elements; "
            "choose backend sorted"
        )
    gate_up, down = experts.stacked(rows.dtype)
    ends = loads.cumsum(0).to(torch.int32)
    hidden = activate(F.grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
    out: Tensor = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
    return out


def _batched(experts: Experts, x: Tensor, picks: Picks, stage: Stage) -> Tensor:
    tokens, k = picks.experts.shape
    with stage("dispatch"):
        gate_up, down = experts.several(picks.experts.reshape(-1), x.dtype)
        rows = x.repeat_interleave(k, dim=0)[..., None]
    with stage("experts"):
        hidden = activate(torch.bmm(gate_up, rows)[..., 0])
        y = torch.bmm(down, hidden[..., None])
    with stage("combine"):
        out: Tensor = (y.view(tokens, k, -1) * picks.weights.to(x.dtype)[..., None]).sum(1)
    return out


def _dense(experts: Experts, x: Tensor, picks: Picks, stage: Stage) -> Tensor:
    with stage("experts"):
        slots = []
        for index in range(experts.count):
            gate_up, down = experts.expert(index, x.dtype)
            slots.append(F.linear(activate(F.linear(x, gate_up)), down))
        every = torch.stack(slots, 1)  # (tokens, E, h)
    with stage("combine"):
        at = picks.experts[..., None].expand(-1, -1, x.shape[1])
        out: Tensor = (every.gather(1, at) * picks.weights.to(x.dtype)[..., None]).sum(1)
    return out
