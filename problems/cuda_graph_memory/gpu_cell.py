"""What does one cell of the matrix really take? Run on the GPU that is here, in this process alone.

    echo '{"kind": "int8wo", "mode": "separate-pools", "sizes": [1, 2], …}' |
        python -m problems.cuda_graph_memory.gpu_cell SNAPSHOT.pickle

The allocator's history is recorded, bounded, with Python frames; every phase is set as metadata of
its allocations (which torch 2.11 writes too) and is a range for nsys. The snapshot goes to the
file, the rest as one line of JSON to stdout: per phase what torch and the driver say, and steps
per second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, nn

from common.recording.ranges import named_range
from common.workloads.weights import build_random
from problems.cuda_graph_memory.cells import CAPTURING
from problems.cuda_graph_memory.layers import quantise
from problems.cuda_graph_memory.programs import llama_config

MAX_ENTRIES = 200_000
REPLAYS = 50
Call = Callable[[], Tensor]


class Cell:
    """The model on the GPU, and the phases as they pass."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.mode, self.kind = str(given["mode"]), given["kind"]
        self.given = given
        self.rows: list[dict[str, Any]] = []
        self.graphs: list[Any] = []
        self.kept: list[Any] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase: metadata, a range, and afterwards the driver's and torch's figures."""
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.memory._set_memory_metadata(name)
        with named_range(name.split()[0]):
            yield
            torch.cuda.synchronize()
        torch.cuda.memory._set_memory_metadata("")
        free, total = torch.cuda.mem_get_info()
        self.rows.append(
            {
                "phase": name,
                "free_bytes": free,
                "total_bytes": total,
                "reserved_bytes": torch.cuda.memory_reserved(),
                "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
                "allocated_bytes": torch.cuda.memory_allocated(),
            }
        )

    @torch.no_grad()
    def run(self) -> dict[str, Any]:
        sizes = sorted(self.given["sizes"], reverse=self.mode == "shared-large-first")
        config = llama_config(str(self.given["model"]), int(self.given["layers"]))
        with self.phase("load"):
            model: nn.Module = build_random(
                config, torch.device("cuda"), 0, after_module=self._quantise_inside
            )
            model = quantise(model, self.kind)
        torch.cuda.empty_cache()
        self._prefill(model, "prefill")
        step = self._step(model)
        calls: dict[int, Call] = {}
        pool = torch.cuda.graph_pool_handle() if self.mode.startswith("shared") else None
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        for size in sizes:
            inputs = self._inputs(size, int(self.given["prompt_tokens"]))
            calls[size] = self._decoder(step, inputs, size, pool, stream)
        self._prefill(model, "serve")
        return {
            "phases": self.rows,
            "steps_per_s": {size: self._speed(call) for size, call in calls.items()},
            "torch": torch.__version__,
            "gpu": torch.cuda.get_device_name(),
        }

    def _quantise_inside(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Linear):
            quantise(module, self.kind)

    def _prefill(self, model: nn.Module, name: str) -> None:
        with self.phase(name):
            model(*self._inputs(int(self.given["prompt_tokens"]), 0))

    def _inputs(self, size: int, first: int) -> tuple[Tensor, Tensor]:
        tokens = torch.zeros(size, dtype=torch.int64, device="cuda")
        return tokens, torch.arange(first, first + size, device="cuda")

    def _step(self, model: nn.Module) -> Callable[..., Tensor]:
        if self.mode == "eager":
            return model
        torch._dynamo.config.cache_size_limit = 64
        for name, value in dict(self.given.get("inductor") or {}).items():
            setattr(torch._inductor.config, name, value)
        mode = "reduce-overhead" if self.mode == "reduce-overhead" else "default"
        compiled: Callable[..., Tensor] = torch.compile(
            model, fullgraph=True, dynamic=False, mode=mode
        )
        return compiled

    def _decoder(
        self,
        step: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        size: int,
        pool: Any,
        stream: Any,
    ) -> Call:
        if self.mode == "reduce-overhead":
            for name in ("warm-up", "capture"):
                with self.phase(f"{name} {size}"):
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                    step(*inputs)

            def replayed() -> Tensor:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                return step(*inputs)

            return replayed
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with self.phase(f"warm-up {size}"), torch.cuda.stream(side):
            step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        if self.mode not in CAPTURING:
            return lambda: step(*inputs)
        graph = torch.cuda.CUDAGraph()
        with self.phase(f"capture {size}"), torch.cuda.graph(graph, pool=pool, stream=stream):
            out = step(*inputs)
        self.graphs.append(graph)
        self.kept.append((inputs, out))

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    def _speed(self, call: Call) -> float:
        call()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(REPLAYS):
            call()
        torch.cuda.synchronize()
        return REPLAYS / (time.perf_counter() - started)


def main() -> None:
    given = json.load(sys.stdin)
    torch.cuda.init()  # type: ignore[no-untyped-call]
    torch.cuda.memory._record_memory_history("all", stacks="python", max_entries=MAX_ENTRIES)
    found = Cell(given).run()
    torch.cuda.memory._dump_snapshot(sys.argv[1])  # type: ignore[no-untyped-call]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
