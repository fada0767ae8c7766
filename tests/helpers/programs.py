"""Programs written down in a few lines, and the traces that torch.profiler would make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Work = Sequence[tuple[str, int]]  # (kernel, µs)


class Program:
    """Operators one after the other in each thread, their kernels one after the other in a stream.

    Names with a leading @ are annotations, others operators; the first encloses the next.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._now: dict[int, float] = {}  # by thread
        self._free: dict[tuple[int, int], float] = {}  # by device and stream
        self._launches = 0

    def operator(
        self, names: str | Sequence[str], work: Work, thread: int = 1, stream: int = 7,
        device: int = 0,
    ) -> None:  # fmt: skip
        names = [names] if isinstance(names, str) else names
        start = self._now.get(thread, 1000.0) + 1
        at = start + len(names)
        for kernel, us in work:
            self._launch("cudaLaunchKernel", at, [(kernel, us)], thread, stream, device)
            at += 4
        for depth, name in enumerate(names):
            category = "user_annotation" if name.startswith("@") else "cpu_op"
            end = at + len(names) - depth
            self._span(category, name.removeprefix("@"), start + depth, end, thread)
        self._now[thread] = at + len(names) + 1

    def graph(self, work: Work, first_node: int | None = None) -> None:
        start = self._now.get(1, 1000.0) + 1
        self._launch("cudaGraphLaunch", start, work, 1, 7, 0, first_node)
        self._now[1] = start + 6

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        start = self._now.get(1, 1000.0) + 0.25
        yield
        self._span("user_annotation", f"ProfilerStep#{number}", start, self._now[1] + 0.125, 1)

    def delay(self, thread: int, us: int) -> None:
        """All that this thread did, and the GPU work of its launches, was later."""
        own = {
            event["args"]["correlation"]
            for event in self.events
            if event["tid"] == thread and event["cat"] == "cuda_runtime"
        }
        for event in self.events:
            launched = event["cat"] == "kernel" and event["args"]["correlation"] in own
            if launched or (event["cat"] != "kernel" and event["tid"] == thread):
                event["ts"] += us

    def write(self, path: Path) -> Path:
        head = {"schemaVersion": 1, "deviceProperties": [{"id": n, "name": "X"} for n in range(4)]}
        path.write_text(json.dumps({**head, "traceEvents": self.events}))
        return path

    def _launch(
        self, call: str, at: float, work: Work, thread: int, stream: int, device: int,
        first_node: int | None = None,
    ) -> None:  # fmt: skip
        self._launches += 1
        ids = {"correlation": self._launches}
        self._span("cuda_runtime", call, at, at + 3, thread, **ids)
        begin = max(self._free.get((device, stream), 0.0), at + 5)
        for place, (kernel, us) in enumerate(work):
            node = {} if first_node is None else {"graph node id": first_node + place}
            place_ids = {**ids, **node, "device": device, "stream": stream}
            self._span("kernel", kernel, begin, begin + us, stream, **place_ids)
            begin += us + 0.5
        self._free[device, stream] = begin

    def _span(
        self, category: str, name: str, start: float, end: float, thread: int, **args: int
    ) -> None:
        self.events.append({
            "ph": "X", "cat": category, "name": name, "pid": 1, "tid": thread,
            "ts": start, "dur": end - start, "args": args,
        })  # fmt: skip
