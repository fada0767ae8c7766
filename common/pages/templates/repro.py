"""Reproduce the slowdown: the same product, row by row and at once.

    .venv/bin/python problems/@NAME@/repro.py --variant row-by-row --preset tiny

One variant, one process, top to bottom. This is the example that `worklog new` made: put your slow
thing and its fix in the place of `rows_one_by_one` and `all_rows_at_once`, and keep the methods.
The last line of the output is one JSON document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.recording.profilers import record_trace
from common.recording.ranges import named_range
from common.timing.clocks import CpuClock, CudaClock

SEED = 20251120
STEP = "step"  # the name of the phase: its range, in every profiler


def all_rows_at_once(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.T


def rows_one_by_one(x: Tensor, weight: Tensor) -> Tensor:
    """Slow: a launch per row, and the weight is read again for each."""
    return torch.stack([weight @ row for row in x])


def rows_shuffled(x: Tensor, weight: Tensor) -> Tensor:
    """Wrong on purpose: proves that the correctness check can say no."""
    return all_rows_at_once(x.roll(1, dims=0), weight)


WAYS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "at-once": all_rows_at_once,
    "row-by-row": rows_one_by_one,
    "shuffled": rows_shuffled,
}


class Session:
    """One variant in one process; what `common.timing.worker.Session` describes."""

    def __init__(self, way: str, rows: int, width: int, steps: int, device: str) -> None:
        self.way, self.rows, self.width, self.steps = WAYS[way], rows, width, steps
        self.device = torch.device(device)
        self.clock = CudaClock() if self.device.type == "cuda" else CpuClock()

    def needs_bytes(self) -> int:
        return 4 * (self.width * self.width + 4 * self.rows * self.width) + (1 << 28)

    def prepare(self) -> Mapping[str, Any]:
        """The same seeded numbers in every variant; warm. Returns facts for the manifest."""
        torch.set_num_threads(1)  # the example is about calls, not about threads
        generator = torch.Generator().manual_seed(SEED)
        self.x = torch.randn(self.rows, self.width, generator=generator).to(self.device)
        self.weight = torch.randn(self.width, self.width, generator=generator).to(self.device)
        self._steps()
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def _steps(self) -> Tensor:
        with named_range(STEP):
            for _ in range(self.steps):
                y = self.way(self.x, self.weight)
        return y

    def sample(self) -> Mapping[str, int]:
        """ns of one sample of each phase; problem.toml says how many units it holds."""
        return {STEP: self.clock.measure(self._steps)}

    def renew(self) -> None:
        """Fresh pages for what is read again and again."""
        if self.device.type == "cpu":
            self.x, self.weight = self.x.clone(), self.weight.clone()

    def outputs(self, path: Path) -> None:
        """What the correctness check compares with the baseline's."""
        np.savez(path, step=self._steps().float().cpu().numpy())

    def _profiled(self) -> None:
        self._steps()

    def profile(self, folder: Path) -> Mapping[str, Any]:
        self._steps()  # what is left to initialise must not be in the trace
        record_trace(folder / "trace.json.gz", self.device, self._profiled)
        return {}


def open_session(
    variant: Mapping[str, Any],
    preset: Mapping[str, Any],
    device: str,
    options: Mapping[str, Any],
) -> Session:
    return Session(**variant, **preset, device=device)


if __name__ == "__main__":
    from common.experiments.standalone import run_standalone

    run_standalone(Path(__file__), __doc__)
