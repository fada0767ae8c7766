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

import os
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


def main() -> None:
    import argparse
    import json

    from common.errors import WorklogError
    from common.experiments.request import package_folders, settle

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="stack", help="one of problem.toml's variants")
    parser.add_argument("--preset", default="tiny", help="one of problem.toml's presets")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--repetitions", type=int, default=1, help="ignored: nothing is timed")
    chosen = parser.parse_args()
    try:
        request = settle("cuda_graph_memory", chosen.preset, [chosen.variant], chosen.device)
        variant = next(v for v in request.variants if v.name == chosen.variant)
        sys.path[:0] = map(str, package_folders(variant))
        os.environ.update(variant.environment)
        session = open_session(variant.settings, request.preset.settings, request.device, {})
        facts = session.prepare()
        found = session.results()
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    for name, table in found.tables.items():
        print(f"{name}\n\n{table.text()}\n")
    print(json.dumps({"variant": variant.name, "facts": facts, "figures": found.figures}))


if __name__ == "__main__":
    main()
