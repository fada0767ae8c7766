"""What does a product with a few rows cost, as it is written and turned, weights from memory?

The reason behind the default's rule and behind a kink in the decode curve: `x @ weight.T` with two
or three rows reads the matrix once per row, and with more it is shared badly among threads
(`common/workloads/few_rows.py`; turned, x is padded to the rows that are best there). The model's
own matrices, each pass another one of its kind, so that none is found in a cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from common.report.results import Results
from common.report.tables import Table, significant
from common.timing.clocks import CpuClock
from common.timing.sampling import StopRule, comparisons, interleave
from common.timing.statistics import summarise
from common.workloads.few_rows import (
    FEW_OF_TALL,
    expert_turned_rows,
    padded_rows,
    times_turned,
    turned_rows,
)
from common.workloads.moe import MoeBlock, SimpleMoETransformer
from common.workloads.moe_weights import moe_blocks

ROWS = (1, 2, 3, 4, 5, 6, 8, 16, 32, 64)
RULE = StopRule(20, 20, 10.0)
COPIED_BYTES = 128 << 20  # several times a last-level cache
HEAD = "output head"
PLAIN, TURNED = "x @ weight.T", "weight @ x.T"


def matrices(model: SimpleMoETransformer) -> dict[str, Sequence[Tensor]]:
    """Name -> matrices of one kind: the output head (copies of it) and the experts' two."""
    head = model.lm_head.weight
    copies = max(2, min(16, COPIED_BYTES // head.nbytes))
    found: dict[str, Sequence[Tensor]] = {HEAD: [head.clone() for _ in range(copies)]}
    block = next((b.mlp for b in moe_blocks(model) if isinstance(b.mlp, MoeBlock)), None)
    if block is not None:
        found["gate and up"] = block.experts.gate_up_proj.unbind()
        found["down"] = block.experts.down_proj.unbind()
    return found


def rows_results(model: SimpleMoETransformer, results: Results, origin: str) -> None:
    """The table, and how much longer three rows take than four as the product is written."""
    rows: list[tuple[str, ...]] = []
    plain_ms: dict[tuple[str, int], float] = {}
    for name, kind in matrices(model).items():
        shape = kind[0].shape
        for count in ROWS:
            x = torch.randn(count, shape[1], generator=torch.Generator().manual_seed(count))
            taken = interleave(_sides(x.to(kind[0].dtype), kind), PLAIN, RULE)
            found = comparisons(taken)[TURNED, "product"]
            medians = [
                summarise([s.duration_ns for s in taken.samples if s.variant == side]).median / 1e6
                for side in (PLAIN, TURNED)
            ]
            plain_ms[name, count] = medians[0]
            ends = found.interval
            within = "n/a" if ends is None else f" ({ends.low:.2f} … {ends.high:.2f})"
            rows.append(
                (
                    f"{name}, {shape[0]:,} × {shape[1]:,}", str(count),
                    *(significant(ms) for ms in medians), f"{found.ratio:.2f}{within}",
                    way_of(count, kind[0], name != HEAD),
                )
            )  # fmt: skip
        ratio = plain_ms[name, 3] / plain_ms[name, 4]
        results.figure(f"three_rows_over_four_{name.replace(' ', '_')}", ratio, "", origin)
    columns = ("matrix", "rows", f"{PLAIN} ms", f"{TURNED} ms", "turned ÷ as written", "we take")
    results.tables["few-rows"] = Table(columns, tuple(rows), columns[1:5])


def _sides(x: Tensor, kind: Sequence[Tensor]) -> Mapping[str, Callable[[], Mapping[str, int]]]:
    clock, order = CpuClock(), itertools.cycle(kind)

    def timed(compute: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Mapping[str, int]]:
        return lambda: _once(clock, order, x, compute)

    padded = padded_rows(x.shape[0]) if x.shape[0] > FEW_OF_TALL else 0
    return {
        PLAIN: timed(lambda x, w: torch.mm(x, w.t())),
        TURNED: timed(lambda x, w: times_turned(x, w, padded)),
    }


def way_of(rows: int, weight: Tensor, of_expert: bool) -> str:
    """What our model does with such a product."""
    turned = turned_rows(rows, weight) or (of_expert and expert_turned_rows(rows, weight))
    return "turned" if turned else "as written"


def _once(
    clock: CpuClock, order: Iterator[Tensor], x: Tensor, compute: Callable[[Tensor, Tensor], Tensor]
) -> Mapping[str, int]:
    weight = next(order)
    return {"product": clock.measure(lambda: compute(x, weight))}
