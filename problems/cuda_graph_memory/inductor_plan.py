"""When does Inductor dequantise? Its own estimates of the peak under each schedule, and the truth.

L weight-only layers of 512 x 512 in float32 are really compiled and run on this CPU. Inductor's
estimate of each order that it considers is noted as it makes it; the peak of what the compiled
code then asked for is counted from the profiler's allocation events. Run once with the order that
it chooses and once with the breadth-first order forced, which dequantises every weight first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

WIDTH, ROWS = 512, 16
KIB = 1 << 10
BASELINE, DEQUANTISE_FIRST = "baseline", "topological_sort_bfs"


class Layer(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        values = torch.randint(
            -127, 128, (WIDTH, WIDTH), generator=torch.Generator().manual_seed(seed)
        )
        self.register_buffer("weight", values.to(torch.int8))
        self.register_buffer("scale", torch.full((WIDTH, 1), 1 / (127 * WIDTH**0.5)))

    def forward(self, x: Tensor) -> Tensor:
        whole = self.get_buffer("weight").to(torch.float32) * self.get_buffer("scale")
        return torch.nn.functional.linear(x, whole)


@dataclass(frozen=True)
class Plan:
    """Bytes. `estimates` by the name of the order; `measured` of the order that was run."""

    layers: int
    order: str  # "chosen", or the name of the order that was forced
    estimates: dict[str, int]
    measured_peak_bytes: int
    error: float  # largest difference to the eager output, relative


def chosen_bytes() -> int:
    """One dequantised weight, the output before and the output: what the chosen order holds."""
    return 4 * (WIDTH * WIDTH + 2 * ROWS * WIDTH)


def dequantise_first_bytes(layers: int) -> int:
    """All dequantised weights and one output."""
    return 4 * (layers * WIDTH * WIDTH + ROWS * WIDTH)


def plan(layers: int, forced: str | None = None) -> Plan:
    """Compile, run, measure. No cache of compiled code is used."""
    from torch._inductor import config, memory

    torch.compiler.reset()
    model = nn.Sequential(*(Layer(seed) for seed in range(layers))).eval()
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    estimates: dict[str, int] = {}
    result: Any = memory.PeakMemoryResult

    def noted(order: Any, peak_memory: int, method: str) -> Any:
        estimates[method] = int(peak_memory)
        # The least peak is taken: the forced order wins because the others are said to be worse.
        shown = peak_memory if forced in (None, method) else 1 << 60
        return result(order, shown, method)

    patched: Any = config
    settings = {"fx_graph_cache": False, "force_disable_caches": True}
    if forced is not None:
        # Fusing consumers into producers later would undo the order.
        settings["reorder_for_peak_memory"] = True
    with (
        mock.patch.object(memory, "PeakMemoryResult", noted),
        patched.patch(**settings),
        torch.no_grad(),
    ):
        compiled = torch.compile(model, fullgraph=True)
        out, expected = compiled(x), model(x)
        error = float((out - expected).abs().max() / expected.abs().max())
        del out, expected
        measured = measured_peak(lambda: compiled(x))
    return Plan(layers, forced or "chosen", estimates, measured, error)


def measured_peak(work: Callable[[], object]) -> int:
    """The highest sum of the bytes that one call allocates and has not freed, from the profiler."""
    from common.diff.attribution import memory_timeline
    from common.recording.profilers import record_trace
    from common.traces.torch_trace import read_torch_trace

    work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"

        def once() -> None:
            work()

        record_trace(path, torch.device("cpu"), once)
        timeline = memory_timeline(read_torch_trace(path).allocations, -1, 1 << 20)
    return max((live for _, live in timeline), default=0)
