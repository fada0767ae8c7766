"""This problem's figures, and its tables worked out again, from recorded points alone.

    .venv/bin/worklog render moe_batch_scaling

Nothing is measured. `read_run` is what a notebook calls: the recorded run as a `Reading`, whose
frames, tables and charts are those of the worklog.
"""

from __future__ import annotations

from pathlib import Path

from common.contract.problem import Problem
from common.errors import UsageError
from common.floors.measured import from_json
from common.recording.run_folder import open_run
from common.workloads.moe_config import CONFIGS
from problems.moe_batch_scaling.plan import read_plan
from problems.moe_batch_scaling.points import read_points, read_profiles
from problems.moe_batch_scaling.reading import Reading, sides_results, sweep_results

WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}


def read_run(folder: Path, variant: str = "sweep") -> Reading:
    """One variant of a recorded run. UsageError for a folder that holds no points of it."""
    manifest = open_run(folder).manifest
    place = folder / "traces" / variant
    points = read_points(place)
    if not points:
        raise UsageError(f"{folder.name} has no points of {variant}; name a variant that swept")
    plan = read_plan(manifest["preset"]["settings"])
    facts = manifest["profile_facts"][variant]
    config = CONFIGS[facts["model"]]
    config = type(config)(**{**vars(config), "experts": tuple(facts["experts"])})
    floors = folder / "floors.json"
    measured = from_json(floors.read_text(encoding="utf-8")) if floors.exists() else None
    cache = None if measured is None else measured.last_cache_bytes
    return Reading(
        plan, config, tuple(points), read_profiles(place), measured, manifest["origin"],
        WEIGHT_BYTES[plan.dtype], cache,
    )  # fmt: skip


def figures(problem: Problem) -> dict[str, str]:
    """Name of the file -> SVG, of every chart of the evidence that the worklog takes from it."""
    found: dict[str, str] = {}
    for key, variant, results in (
        ("cpu", "sweep", sweep_results),
        ("precise", "backends", sides_results),
        ("exercise", "sweep", sweep_results),
    ):
        if key in problem.evidence:
            charts = results(read_run(problem.folder / problem.evidence[key], variant)).charts
            found |= {f"{key}-{name}.svg": text for name, text in charts.items()}
    return found
