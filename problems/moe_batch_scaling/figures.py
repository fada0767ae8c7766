"""Draw this problem's figures and work out its tables again, from recorded points alone.

    .venv/bin/python problems/moe_batch_scaling/figures.py          figures/*.svg, written
    .venv/bin/python problems/moe_batch_scaling/figures.py --check  are they what was recorded?

Nothing is measured. `read_run` is what a notebook calls: the recorded run as a `Reading`, whose
frames, tables and charts are those of the worklog.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `problems`, when run as a script

from common.contract.problem import Problem, load_problem
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


def charts(problem: Problem, key: str) -> dict[str, str]:
    """Name of the file -> SVG, of every chart of one piece of evidence."""
    folder = problem.folder / problem.evidence[key]
    found = sweep_results(read_run(folder)).charts
    if (folder / "traces" / "backends" / "points.jsonl").exists():
        found |= sides_results(read_run(folder, "backends")).charts
    return {f"{key}-{name}.svg": text for name, text in found.items()}


def stale(problem: Problem, write: bool) -> list[str]:
    """Figures that are not what the evidence gives; written anew if `write`."""
    folder = problem.folder / "figures"
    wanted: dict[str, str] = {}
    for key in ("cpu", "exercise"):
        if key in problem.evidence:
            wanted |= charts(problem, key)
    there = {path.name: path for path in folder.glob("*.svg")} if folder.exists() else {}
    found = [
        name
        for name, text in wanted.items()
        if name not in there or there[name].read_text(encoding="utf-8") != text
    ]
    found += [name for name in there if name not in wanted]
    if write:
        folder.mkdir(exist_ok=True)
        for name in found:
            if name in wanted:
                (folder / name).write_text(wanted[name], encoding="utf-8")
            else:
                there[name].unlink()
    return sorted(found)


def main() -> None:
    checking = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not checking:
        print("error: figures.py takes --check or nothing; leave the rest out", file=sys.stderr)
        sys.exit(2)
    found = stale(load_problem("moe_batch_scaling"), write=not checking)
    for name in found:
        print(f"{name} {'is not what was recorded; run figures.py' if checking else 'written'}")
    sys.exit(1 if checking and found else 0)


if __name__ == "__main__":
    main()
