"""How does one get a large trace? Writes one as Kineto prints it, with as many events as asked for.

    python tests/benchmarks/generate_trace.py 1000000 out.json [--side b] [--seed 1] [--cpu-only]

The mix is that of real training traces: profiler steps, Python frames, operators within operators
with shapes, runtime calls, kernels, graph launches, flow arrows; absolute times with three
decimals. Side b is the same program with some kernels renamed, slower, added or gone. The totals
are printed, so that a reader can be checked against them.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import IO

OPERATORS = (
    ("aten::linear", "aten::addmm"),
    ("aten::mul", ""),
    ("aten::layer_norm", "aten::native_layer_norm"),
    ("aten::matmul", "aten::bmm"),
    ("aten::to", "aten::copy_"),
)
NAMES = 120
START_NS = 1_719_000_000_123_456_789
BLOCKS_PER_STEP = 2_000
FRAMES_EVERY, GRAPHS_EVERY, NODES = 2, 250, 12
RENAMED_EVERY, SLOWER_EVERY, GONE_EVERY, ADDED_EVERY = 6, 10, 997, 1009
PROCESS, STREAM = 1234, 7


@dataclass
class Totals:
    """What the written trace holds."""

    events: int = 0
    kernels: int = 0
    gpu_ns: int = 0


def microseconds(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def kernel_name(number: int, side: str) -> str:
    kind = "c10::BFloat16" if side == "b" and number % RENAMED_EVERY == 1 else "float"
    return (
        f"void at::native::vectorized_elementwise_kernel<4, at::native::Functor{number}<{kind}>, "
        f"std::array<char*, {number % 3 + 1}ul> >(int, at::native::Functor{number}<{kind}>)"
    )


class _Writer:
    def __init__(self, stream: IO[str], events: int, seed: int, side: str) -> None:
        self.stream, self.limit, self.side = stream, events, side
        self.random = random.Random(seed)
        self.totals = Totals()
        self.host, self.device = START_NS, START_NS + 40_000
        self.correlation = 0
        self.names = [kernel_name(number, side) for number in range(NAMES)]

    @property
    def full(self) -> bool:
        return self.totals.events >= self.limit

    def emit(self, text: str) -> None:
        if not self.full:
            self.stream.write(",\n  " if self.totals.events else "\n  ")
            self.stream.write(text)
            self.totals.events += 1

    def span(
        self, category: str, name: str, start_ns: int, length_ns: int, arguments: str = ""
    ) -> None:
        self.emit(_event(category, name, start_ns, length_ns, arguments))

    def kernel(self, earliest: int, ids: str, more: str = "") -> None:
        """One kernel behind the others; both sides draw the same numbers."""
        number, gap = self.random.randrange(NAMES), self.random.randrange(900)
        length = self.random.randrange(900, 40_000)
        if self.side == "b" and number % SLOWER_EVERY == 3:
            length += length // 4
        if self.full:
            return
        self.device = max(self.device + gap, earliest)
        place = f'"device": 0, "context": 1, "stream": {STREAM}, {ids}, "grid": [128, 1, 1]{more}'
        text = _event("kernel", self.names[number], self.device, length, place, 0, STREAM)
        self.emit(text)
        self.totals.kernels += 1
        self.totals.gpu_ns += length
        self.device += length

    def block(self, number: int) -> None:
        """One operator, what it calls and what that launches."""
        length = self.random.randrange(9_000, 60_000)
        outer, inner = self.random.choice(OPERATORS)
        begin, end = self.host, self.host + length
        self.host = end + self.random.randrange(100, 4_000)
        if number % FRAMES_EVERY == 0:
            frame = f"torch/nn/modules/module.py({number % 400}): _call_impl"
            self.span("python_function", frame, begin, length)
        rows = self.random.randrange(4096)
        shapes = f'"Input Dims": [[{rows}, 4096], [4096]], "External id": {number}'
        self.span("cpu_op", outer, begin, length, shapes)
        if inner:
            self.span("cpu_op", inner, begin + 500, length - 1_000, shapes)
        graph = number % GRAPHS_EVERY == 0
        kernels = 1
        if self.side == "a" and number % GONE_EVERY == 0:
            kernels = 2
        if self.side == "b" and number % ADDED_EVERY == 0:
            kernels = 2
        for at in range(kernels):
            self.launch(number, begin + 1_000 + at * 3_000, graph)

    def launch(self, number: int, call: int, graph: bool) -> None:
        self.correlation += 1
        ids = f'"External id": {number}, "correlation": {self.correlation}'
        name = "cudaGraphLaunch" if graph else "cudaLaunchKernel"
        self.span("cuda_runtime", name, call, 2_500, f'"cbid": 211, {ids}')
        if graph:
            for node in range(NODES):
                self.kernel(call + 4_000, ids, f', "graph node id": {node + 1}')
            return
        arrow = f'"id": {self.correlation}, "cat": "ac2g", "name": "ac2g"'
        place = f'"pid": {PROCESS}, "tid": {PROCESS}'
        self.emit(f'{{"ph": "s", {arrow}, {place}, "ts": {microseconds(call)}}}')
        self.kernel(call + 3_000, ids)
        place = f'"pid": 0, "tid": {STREAM}'
        self.emit(f'{{"ph": "f", {arrow}, {place}, "ts": {microseconds(self.device)}}}')

    def host_block(self, number: int) -> None:
        """As `block` for a trace without a GPU; the inner operator is slower on side b."""
        length = self.random.randrange(9_000, 60_000)
        outer, inner = self.random.choice(OPERATORS)
        if self.side == "b" and inner == "aten::addmm":
            length += length // 4
        begin, self.host = self.host, self.host + length + 400
        self.span("cpu_op", outer, begin, length, f'"External id": {number}')
        self.span("cpu_op", inner or "aten::empty", begin + 500, length - 1_000)


def write_trace(
    stream: IO[str], events: int, seed: int = 1, cpu_only: bool = False, side: str = "a"
) -> Totals:
    """Write a trace of exactly `events` events; returns what it holds."""
    writer = _Writer(stream, events, seed, side)
    stream.write('{\n  "schemaVersion": 1,\n  "deviceProperties": [')
    if not cpu_only:
        stream.write('\n    {"id": 0, "name": "NVIDIA H100 80GB HBM3", "numSms": 132}\n  ')
    stream.write('],\n  "traceEvents": [')
    number = 0
    block = writer.host_block if cpu_only else writer.block
    while not writer.full:
        began, step = writer.host, number // BLOCKS_PER_STEP
        for _ in range(BLOCKS_PER_STEP):
            number += 1
            block(number)
        writer.span("user_annotation", f"ProfilerStep#{step}", began, writer.host - began)
    stream.write('\n  ],\n  "traceName": "generated.json"\n}\n')
    return writer.totals


def _event(
    category: str, name: str, start_ns: int, length_ns: int, arguments: str = "",
    process: int = PROCESS, thread: int = PROCESS,
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
    parser.add_argument("--side", choices=("a", "b"), default="a")
    parser.add_argument("--cpu-only", action="store_true")
    given = parser.parse_args()
    with given.out.open("w", encoding="utf-8") as stream:
        print(write_trace(stream, given.events, given.seed, given.cpu_only, given.side))


if __name__ == "__main__":
    main()
