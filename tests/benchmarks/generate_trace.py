"""How does one get a large trace? Writes one as Kineto prints it, with as many events as asked for.

    python tests/benchmarks/generate_trace.py 1000000 out.json [--seed 1] [--cpu-only]

The mix is that of real training traces: nested operators with shapes, runtime calls, kernels,
flow arrows and Python frames, absolute times with three decimals. The totals are printed, so that
a reader can be checked against them.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import IO

OPERATORS = ("aten::linear", "aten::addmm", "aten::mul", "aten::layer_norm", "aten::copy_")
KERNELS = tuple(
    f"void at::native::vectorized_elementwise_kernel<4, at::native::Functor{n}<float>, "
    f"std::array<char*, {n % 3 + 1}ul> >(int, at::native::Functor{n}<float>)"
    for n in range(120)
)
START_NS = 1_719_000_000_123_456_789
STEP_EVENTS = 20_000


@dataclass
class Totals:
    """What the written trace holds."""

    events: int = 0
    kernels: int = 0
    gpu_ns: int = 0


def microseconds(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def write_trace(stream: IO[str], events: int, seed: int = 1, cpu_only: bool = False) -> Totals:
    """Write a trace of exactly `events` events; returns what it holds."""
    random_ = random.Random(seed)
    totals = Totals()
    stream.write('{\n  "schemaVersion": 1,\n  "deviceProperties": [')
    if not cpu_only:
        stream.write('\n    {"id": 0, "name": "NVIDIA H100 80GB HBM3", "numSms": 132}\n  ')
    stream.write('],\n  "traceEvents": [')
    first = True

    def emit(text: str) -> None:
        nonlocal first
        stream.write("\n  " if first else ",\n  ")
        stream.write(text)
        first = False
        totals.events += 1

    host, device, number = START_NS, START_NS + 40_000, 0
    while totals.events < events:
        left = events - totals.events
        number += 1
        if number % STEP_EVENTS == 1:
            emit(_event("user_annotation", f"ProfilerStep#{number // STEP_EVENTS}", host, 10**9))
            continue
        if number % 3 == 0:
            frame = f"torch/nn/modules/module.py({number % 400}): _call_impl"
            emit(_event("python_function", frame, host, random_.randrange(20_000, 90_000)))
            continue
        length = random_.randrange(6_000, 60_000)
        shapes = (
            f'"Input Dims": [[{random_.randrange(4096)}, 4096], [4096]], "External id": {number}'
        )
        emit(_event("cpu_op", random_.choice(OPERATORS), host, length, shapes))
        if not cpu_only and left > 4:
            ids = f'"External id": {number}, "correlation": {number}'
            call = host + length // 3
            emit(
                _event("cuda_runtime", "cudaLaunchKernel", call, length // 4, f'"cbid": 211, {ids}')
            )
            device = max(device + random_.randrange(0, 900), call + 3_000)
            duration = random_.randrange(900, 40_000)
            place = f'"device": 0, "context": 1, "stream": 7, {ids}, "grid": [128, 1, 1]'
            emit(_event("kernel", random_.choice(KERNELS), device, duration, place, 0, 7))
            arrow = f'"id": {number}, "cat": "ac2g", "name": "ac2g"'
            emit(f'{{"ph": "s", {arrow}, "pid": 1234, "tid": 1234, "ts": {microseconds(call)}}}')
            emit(f'{{"ph": "f", {arrow}, "pid": 0, "tid": 7, "ts": {microseconds(device)}}}')
            totals.kernels += 1
            totals.gpu_ns += duration
            device += duration
        host += length + random_.randrange(100, 4_000)
    stream.write('\n  ],\n  "traceName": "generated.json"\n}\n')
    return totals


def _event(
    category: str, name: str, start_ns: int, length_ns: int, arguments: str = "",
    process: int = 1234, thread: int = 1234,
) -> str:  # fmt: skip
    return (
        f'{{\n    "ph": "X", "cat": "{category}", "name": {json.dumps(name)}, "pid": {process}, '
        f'"tid": {thread},\n    "ts": {microseconds(start_ns)}, "dur": {microseconds(length_ns)},\n'
        f'    "args": {{\n      {arguments}\n    }}\n  }}'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu-only", action="store_true")
    given = parser.parse_args()
    with given.out.open("w", encoding="utf-8") as stream:
        print(write_trace(stream, given.events, given.seed, given.cpu_only))


if __name__ == "__main__":
    main()
