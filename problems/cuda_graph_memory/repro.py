"""Where does the memory of CUDA graphs go when the model is quantised? Without a GPU: modelled.

    .venv/bin/python problems/cuda_graph_memory/repro.py --variant int8wo --preset tiny

One variant, one process. A kind of weights (bf16, int8wo, float8wo, int8wo-fused) is traced on a
pretended GPU, its decode steps are lowered by Inductor, and every way to run it (eager, compiled,
reduce-overhead, graphs by hand with a pool each or one pool) goes through a model of PyTorch's
allocator. `stack`, `plan`, `freezing` and `published` are the investigations of the worklog. On a
GPU the variant `gpu` runs every cell for real, each in a process of its own. Three memories are
apart everywhere: private pools, default pool, outside torch. The last line is one JSON document.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `problems`, when run as a script

from common.recording.environment import package_version
from common.recording.ranges import named_range
from common.report.results import Results
from problems.cuda_graph_memory import tasks


class Session:
    """One variant; what `common.timing.worker.Session` describes, without samples."""

    def __init__(self, variant: Mapping[str, Any], preset: Mapping[str, Any]) -> None:
        self.task, self.variant, self.preset = str(variant["task"]), variant, preset
        self.progress: Callable[[str], object] = lambda text: None

    def say(self, text: str, done: int) -> None:
        self.progress(f"{done} done, {text}")
        print(f"{done} {text}", file=sys.stderr, flush=True)

    def needs_bytes(self) -> int:
        return 3 << 30

    def prepare(self) -> Mapping[str, Any]:
        return {name: package_version(name) for name in ("torch", "triton", "numpy")}

    def results(self, folder: Path | None = None) -> Results:
        if self.task == "matrix":
            return tasks.matrix_task(self.variant["kind"], self.preset, folder, self.say)
        if self.task == "stack":
            return tasks.stack_task()
        if self.task == "plan":
            return tasks.plan_task(self.preset, self.say)
        if self.task == "freezing":
            return tasks.freezing_task(self.preset)
        if self.task == "gpu":
            from problems.cuda_graph_memory.gpu_route import gpu_task

            with named_range("capture"):  # around all cells: nsys follows their processes
                return gpu_task(self.preset, folder, self.say)
        assert self.task == "published"
        return tasks.published_task(self.preset, self.say)

    def profile(self, folder: Path) -> Mapping[str, Any]:
        """Work it out and write figures, tables and snapshots into `folder`."""
        started = time.perf_counter()
        self.results(folder).write(folder)
        return {"seconds": round(time.perf_counter() - started, 1)}


def open_session(
    variant: Mapping[str, Any], preset: Mapping[str, Any], device: str, options: Mapping[str, Any]
) -> Session:
    return Session(variant, preset)


if __name__ == "__main__":
    from common.experiments.standalone import run_worked_out

    run_worked_out(Path(__file__).resolve(), __doc__)
