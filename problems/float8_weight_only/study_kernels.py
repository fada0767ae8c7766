"""How near is the fused CPU kernel to the memory bandwidth, and how far ahead of the best bf16?

    .venv/bin/worklog bench float8_weight_only --study kernels

One linear layer, one row of activations, weights far larger than the caches (256 MiB in float8).
A pure read of the same bytes, the fused kernel and every bf16 candidate take turns, round by round,
so that whatever else the machine does meets all of them; the lower quartile of each is compared.
On a busy machine the shares are still meaningful, the GB/s are not: the share of the CPU that
others took is printed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from fused_float8 import operators, packing  # beside this file

from common.floors.machine import cpu_seconds

FLOAT8_BYTES = 256 << 20
SHAPES = ((16384, 16384), (4096, 4096), (6144, 2048), (2048, 6144))
SECONDS_PER_SHAPE = 12.0
LEAST_ROUNDS = 6
COLUMNS = ("N × K", "what", "bytes per weight", "GB/s", "of the read", "time ÷ fused")
FUSED, READ8, READ16, OWN = "fused float8", "read float8", "read bf16", "own bf16 GEMV"


def kernels(rows: int, columns: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """name -> (bytes per weight, one pass over weights of `FLOAT8_BYTES` elements)."""
    count = max(1, FLOAT8_BYTES // (rows * columns))
    x = torch.randn(1, columns).bfloat16()
    plain = [torch.empty(rows, columns).normal_().bfloat16() for _ in range(count)]
    packed = [packing.pack(each) for each in plain]

    def summed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x.float() * w.float()).sum(1).bfloat16()

    one_kernel: Any = torch.compile(summed, dynamic=False)

    def each(function: Callable[[Any], object], weights: list[Any]) -> Callable[[], object]:
        return lambda: [function(weight) for weight in weights]

    def fused(weight: packing.PackedWeight) -> object:
        return operators.linear(x, weight.values, weight.scale, weight.nan_rows)

    return {
        READ8: (1, each(lambda w: operators.read_only(w.values), packed)),
        FUSED: (1, each(fused, packed)),
        READ16: (2, each(operators.read_only, plain)),
        OWN: (2, each(lambda w: operators.bf16_gemv(x, w), plain)),
        "bf16 F.linear": (2, each(lambda w: torch.nn.functional.linear(x, w), plain)),
        "bf16 decomposed, compiled": (2, each(lambda w: one_kernel(x, w), plain)),
    }


def quartiles_ns(runs: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    """Lower quartile of each, sampled in turn."""
    samples: dict[str, list[int]] = {name: [] for name in runs}
    for _, run in runs.values():
        run()
    end = time.perf_counter() + SECONDS_PER_SHAPE
    while len(samples[FUSED]) < LEAST_ROUNDS or time.perf_counter() < end:
        for name, (_, run) in runs.items():
            started = time.perf_counter_ns()
            run()
            samples[name].append(time.perf_counter_ns() - started)
    return {name: sorted(taken)[len(taken) // 4] for name, taken in samples.items()}


def main() -> None:
    if operators.UNAVAILABLE is not None:
        print(f"error: {operators.UNAVAILABLE}", file=sys.stderr)
        sys.exit(3)
    rows, shares, ahead, own = [], [], [], []
    before, own_before = cpu_seconds(), time.process_time()
    for shape in SHAPES:
        print(f"timing {shape[0]} × {shape[1]}", file=sys.stderr, flush=True)
        with torch.no_grad():
            runs = kernels(*shape)
            taken = quartiles_ns(runs)
        elements = max(1, FLOAT8_BYTES // (shape[0] * shape[1])) * shape[0] * shape[1]
        for name, (width, _) in runs.items():
            share = taken[READ8 if width == 1 else READ16] / taken[name]
            cells = (f"{width * elements / taken[name]:.1f}", f"{100 * share:.0f} %")
            ratio = f"{taken[name] / taken[FUSED]:.2f}"
            rows.append([f"{shape[0]} × {shape[1]}", name, width, *cells, ratio])
        shares.append(taken[READ8] / taken[FUSED])
        own.append(taken[READ16] / taken[OWN])
        candidates = [n for n, (width, _) in runs.items() if width == 2 and n != READ16]
        ahead.append(min(taken[name] for name in candidates) / taken[FUSED])
    after, own_s = cpu_seconds(), time.process_time() - own_before
    others = "unknown"
    if before is not None and after is not None and after[1] > before[1]:
        busy = after[0] - before[0] - own_s
        others = f"{100 * max(0.0, busy) / (after[1] - before[1]):.0f} %"
    limits = ((ahead[0], 1.5), (shares[0], 0.75), (own[0], 0.9))
    says = (
        "the layer of 16384 × 16384: {:.2f} times as fast as the best bf16, wanted {}",
        "it takes {:.2f} of the read bandwidth, wanted {}",
        "our own bf16 GEMV, as a baseline, takes {:.2f} of it, wanted {}",
    )
    document = {
        "schema": "worklog.study/1",
        "title": f"One linear layer, one row, {operators.instruction_set('')}, "
        f"{torch.get_num_threads()} threads; other programs took {others} of the CPU",
        "columns": COLUMNS,
        "rows": rows,
        "checks": [
            {"says": text.format(value, least), "holds": value >= least}
            for text, (value, least) in zip(says, limits, strict=True)
        ],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
