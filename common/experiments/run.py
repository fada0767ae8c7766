"""One command, one run folder: bench, profile, judge the claims, write the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.experiments.bench import run_bench
from common.experiments.floors_pass import run_floors
from common.experiments.manifest import first_manifest
from common.experiments.profiling import run_profile, run_study
from common.experiments.request import Request
from common.recording.environment import gpu_facts
from common.recording.run_folder import RunWriter, open_run, write_json
from common.report.summary import build_summary

Passes = tuple[Callable[[Request, RunWriter], None], ...]
PASSES: dict[str, dict[str, Passes]] = {  # by the kind of the problem and the command
    "timed": {
        "bench": (run_floors, run_bench),
        "profile": (run_profile,),
        "run": (run_floors, run_bench, run_profile),
        "study": (run_floors, run_study),
    },
    # What is compiled or counted is worked out by the same pass that records traces elsewhere:
    # for these problems the three commands differ in the report alone.
    "compiled": {"bench": (run_profile,), "profile": (run_profile,), "run": (run_profile,)},
    # Timing and profiling are passes of each variant's own process, so all verbs are one.
    "sweep": {
        "bench": (run_floors, run_profile),
        "profile": (run_floors, run_profile),
        "run": (run_floors, run_profile),
    },
}


def execute(request: Request, kind: str, arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Carry out one experiment; returns its folder and its summary.

    Whatever goes wrong on the way leaves the folder as it is, marked unfinished.
    """
    passes = PASSES[request.problem.kind][kind]
    manifest = first_manifest(request, kind, arguments)
    writer = RunWriter.create(
        request.run_parent, manifest["revision"], request.preset.name, manifest
    )
    try:
        for measure in passes:
            measure(request, writer)
    except BaseException as error:
        writer.close()
        writer.update(ended_by=type(error).__name__)
        raise
    if request.device == "cuda":
        writer.update(gpus_at_the_end=list(gpu_facts()))
    folder = writer.finish()
    run = open_run(folder)
    summary = build_summary(run)
    write_json(folder / "summary.json", summary)
    return folder, summary
