"""What does GemLite's autotuner choose from, and why: compiled here, without a GPU.

    .venv/bin/python problems/gemlite_autotune/repro.py --variant rtx-4090 --preset tiny

One variant, one process. `shipped` reads GemLite's tables and maps the routes; a GPU's name
compiles every configuration that the autotuner would time there; `families` compiles one of every
family and format; `numerics` runs the kernels in Triton's interpreter. Nothing of that is timed.
On a GPU `gpu` tunes and compares, and `gpu-default`, `gpu-shipped` and `gpu-tuned` launch one
configuration in the range "launch", for a profiler. The last line printed is one JSON document.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `problems`, when run as a script

from common.recording.environment import package_version
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.results import Results
from problems.gemlite_autotune.shipped_tables import check_versions, installed_version
from problems.gemlite_autotune.tasks import (
    explore_task,
    families_task,
    layer_from,
    numerics_task,
    tables_task,
)

GPU_TASKS = ("tune", "launch")


class Session:
    """One variant; what `common.timing.worker.Session` describes, without samples."""

    def __init__(self, variant: Mapping[str, Any], preset: Mapping[str, Any]) -> None:
        self.task, self.gpu, self.preset = str(variant["task"]), variant.get("gpu"), preset
        self.variant = variant
        self.progress: Callable[[str], object] = lambda text: None

    def say(self, text: str, done: int) -> None:
        """To whoever waits, and into the variant's log."""
        self.progress(f"{done} done, {text}")
        print(f"{done} {text}", file=sys.stderr, flush=True)

    def needs_bytes(self) -> int:
        return 1 << 30

    def prepare(self) -> Mapping[str, Any]:
        # On a GPU another Triton may be what is studied; its version stands in the facts.
        check_versions(("gemlite",) if self.task == "tune" else ("gemlite", "triton"))
        self.layer: Layer = layer_from(self.preset)
        names = ("gemlite", "triton")
        versions = {name: installed_version(name) for name in names}
        return {"torch": package_version("torch"), **versions, "layer": str(self.layer)}

    def results(self, folder: Path | None = None) -> Results:
        if self.task in GPU_TASKS:
            from problems.gemlite_autotune.gpu_task import launch_task, tune_task

            if self.task == "tune":
                compare = bool(self.variant.get("compare", True))
                return tune_task(self.layer, self.preset, folder, compare)
            batch = int(self.preset["captured_batch"])
            return launch_task(self.layer, batch, str(self.variant["choice"]))
        if self.task == "tables":
            return tables_task(self.layer)
        if self.task == "families":
            return families_task(self.layer.n, self.layer.k, self.say)
        if self.task == "numerics":
            return numerics_task()
        assert self.task == "explore" and self.gpu is not None
        batches = [int(m) for m in self.preset["batches"]]
        return explore_task(self.gpu, self.layer, batches, str(self.preset["mode"]), self.say)

    def profile(self, folder: Path) -> Mapping[str, Any]:
        """Work it out and write figures, tables and kernels into `folder`."""
        started = time.perf_counter()
        found = self.results(folder)
        found.write(folder)
        return {"seconds": round(time.perf_counter() - started, 1), "kernels": len(found.kernels)}


def open_session(
    variant: Mapping[str, Any], preset: Mapping[str, Any], device: str, options: Mapping[str, Any]
) -> Session:
    return Session(variant, preset)


if __name__ == "__main__":
    from common.experiments.standalone import run_worked_out

    run_worked_out(Path(__file__).resolve(), __doc__)
