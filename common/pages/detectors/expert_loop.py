"""Does a mixture of experts visit its experts one by one? (moe_batch_scaling)

The mark is a rhythm: look for an expert's tokens (nonzero, whose result the host waits for), gather
them, one or more products, add the result back; again for every expert. Its launches grow with the
number of experts and its time hardly with the batch: what costs is the visit, not the work in it.
Recognised by operators where the file has them, else by kernels.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.pages.detectors.host_groups import outermost_operators
from common.pages.detectors.signature import Fact, Signature, share
from common.traces.intervals import union_ns
from common.traces.model import GpuKind, HostKind, Trace

PROBLEM = "moe_batch_scaling"
WORKLOG = "problems/moe_batch_scaling/WORKLOG.md"
LOOKS = ("aten::nonzero", "aten::nonzero_numpy")
PRODUCTS = ("aten::linear", "aten::mm", "aten::addmm", "aten::matmul", "aten::bmm")
ADDS = ("aten::index_put_", "aten::index_add_", "aten::index_add", "aten::scatter_add_")
# The same as kernels: CUB's select and reduce are nonzero's.
LOOK_KERNEL = re.compile(r"NonZeroOp|DeviceSelectSweepKernel|write_indices", re.IGNORECASE)
PRODUCT_KERNEL = re.compile(
    r"gemm|gemv|cutlass|nvjet|Cijk_|xmma|splitKreduce|dot_kernel", re.IGNORECASE
)
ADD_KERNEL = re.compile(r"index_put|indexAdd|indexFunc|index_add|scatter", re.IGNORECASE)
LOOK, PRODUCT, ADD, OTHER = "look", "product", "add", "other"
LONGEST_VISIT = 40  # steps from one look to the next: beyond it, something else happened between
FEWEST_VISITS = 8
FEWEST_IN_A_ROW = 4  # experts of one layer


@dataclass(frozen=True)
class Loop:
    """`rows` are the places of the looks; `with_product` those that found tokens."""

    looks: tuple[int, ...]
    with_product: int
    longest_row: int


def visits(tokens: Sequence[str]) -> Loop:
    """Looks that belong to a rhythm: with a product and an add, or directly before the next."""
    places = [place for place, token in enumerate(tokens) if token == LOOK]
    kept: list[int] = []
    full, row, longest = 0, 0, 0
    for number, place in enumerate(places):
        end = places[number + 1] if number + 1 < len(places) else len(tokens)
        between = tokens[place + 1 : min(end, place + LONGEST_VISIT)]
        worked = PRODUCT in between and ADD in between
        empty = PRODUCT not in between and end - place <= LONGEST_VISIT and end < len(tokens)
        row = row + 1 if worked or empty else 0
        longest = max(longest, row)
        full += worked
        if worked or empty:
            kept.append(place)
        if end - place > LONGEST_VISIT:
            row = 0  # the last expert of a layer, or no loop at all
    return Loop(tuple(kept), full, longest)


def find_expert_loop(trace: Trace) -> Signature | None:
    operators = outermost_operators(trace)
    loop = visits([_operator_token(name) for name in operators.names])
    by = "operators"
    if not _is_loop(loop):
        loop, by = visits(_kernel_tokens(trace)), "kernels"
        if not _is_loop(loop):
            return None
    facts = [
        Fact(f"visits of an expert (by {by})", f"{len(loop.looks):,}"),
        Fact("of them with tokens for it", f"{loop.with_product:,}"),
        Fact("visits in a row", f"{loop.longest_row:,}"),
    ]
    facts += _launch_facts(trace, len(loop.looks))
    return Signature(
        PROBLEM,
        "expert-by-expert",
        "the experts of a layer are visited one by one, each with launches and a wait of its own",
        tuple(facts),
        f"group the tokens and use one grouped product per projection (grouped_mm); {WORKLOG}",
    )


def _is_loop(loop: Loop) -> bool:
    return (
        len(loop.looks) >= FEWEST_VISITS
        and loop.longest_row >= FEWEST_IN_A_ROW
        and loop.with_product > 1
    )


def _operator_token(name: str) -> str:
    for token, names in ((LOOK, LOOKS), (PRODUCT, PRODUCTS), (ADD, ADDS)):
        if name in names:
            return token
    return OTHER


def _kernel_tokens(trace: Trace) -> list[str]:
    """GPU work in time order. One nonzero launches several kernels: they are one look."""
    kinds = {}
    for number, name in enumerate(trace.names):
        for token, pattern in (
            (LOOK, LOOK_KERNEL), (ADD, ADD_KERNEL), (PRODUCT, PRODUCT_KERNEL),
        ):  # fmt: skip
            if pattern.search(name):
                kinds[number] = token
                break
    gpu = trace.gpu
    tokens = [kinds.get(name, OTHER) for name in gpu.name[gpu.kind == GpuKind.KERNEL].tolist()]
    kept: list[str] = []
    for number, token in enumerate(tokens):
        if token == LOOK and LOOK in tokens[max(0, number - 3) : number]:
            token = OTHER
        kept.append(token)
    return kept


def _launch_facts(trace: Trace, count: int) -> list[Fact]:
    gpu, host = trace.gpu, trace.host
    if not len(gpu):
        own = np.flatnonzero(host.kind == HostKind.OPERATOR)
        return [Fact("operators per visit", f"{len(own) / count:,.0f}")]
    kernels = gpu.duration_ns[gpu.kind == GpuKind.KERNEL].tolist()
    span = int(gpu.end_ns.max() - gpu.start_ns.min())
    busy = union_ns(gpu.start_ns, gpu.end_ns)
    return [
        Fact("kernels per visit", f"{len(kernels) / count:,.1f}"),
        Fact("median kernel", f"{statistics.median(kernels) / 1e3:,.1f} µs"),
        Fact("idle GPU within its span", share(span - busy, span)),
        Fact("copies, each of which may be a wait", f"{int((gpu.kind == GpuKind.MEMCPY).sum()):,}"),
    ]
