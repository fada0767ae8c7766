"""What was recorded on GPUs? The block `recorded`: every session, step by step, good or bad.

    <!-- worklog:recorded -->

Made from `recorded/*/record-*.json` and the runs beside it. Without any it says so, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.contract.predictions import PredictionSet
from common.contract.problem import Problem
from common.contract.recorded import Recording, recordings
from common.errors import WorklogError
from common.floors.measured import from_json
from common.pages.prediction_table import prediction_table
from common.pages.scoring import runs_about, score_over
from common.recording.run_folder import Run, open_run, read_json
from common.report import run_tables
from common.report.summary import build_summary
from common.report.tables import Table, significant

NOTHING = (
    "_Nothing was recorded on a GPU yet: every statement about one is a prediction. "
    "`worklog record {name} --pack` on a machine with one records it within a time budget, "
    "`worklog import` brings the archive here, `worklog render` shows it._"
)


def recorded_block(problem: Problem) -> str:
    found = recordings(problem.folder)
    if not found:
        return NOTHING.format(name=problem.name)
    parts = []
    for recording in found:
        parts += [_head(recording), _steps(recording).markdown()]
        for folder in recording.runs():
            parts += _run(problem, open_run(folder))
    parts += _predictions(problem)
    return "\n\n".join(parts)


def _head(recording: Recording) -> str:
    facts = recording.facts
    gpus = facts["machine"]["gpus"]
    if facts["device"]["kind"] == "cuda" and gpus:
        name, driver = gpus[0]["name"], f", driver {gpus[0]['driver_version']}"
    else:
        name, driver = facts["machine"]["cpu"] or "CPU", ""
    versions = ", ".join(
        f"{package} {version}" for package, version in recording.versions.items()
        if package in ("torch", "triton") and version
    )  # fmt: skip
    kind = "**Rehearsal, no evidence**" if facts["rehearsal"] else "**Recorded**"
    says = (
        f"{kind} on {name}{driver}; {versions}; {facts['started'][:10]}, "
        f"revision {facts['revision'][:7]}, budget {facts['budget_s']:.0f} s."
    )
    return says + _rates(facts.get("floors")) + _lost(facts)


def _rates(floors: Mapping[str, Any] | None) -> str:
    if floors is None:
        return " Its own rates were not measured."
    import json

    measured = from_json(json.dumps(floors))
    return (
        f" It copies {significant(measured.copy.best)} GB/s and multiplies bfloat16 matrices at "
        f"{significant(measured.matmul_bf16.best)} TFLOP/s ({measured.origin}, the best of "
        f"{measured.copy.n})."
    )


def _lost(facts: Mapping[str, Any]) -> str:
    lost = facts.get("lost", [])
    return f" {len(lost)} files of its archive were lost." if lost else ""


def _steps(recording: Recording) -> Table:
    rows = []
    for step in recording.steps:
        clocks = step.get("clocks") or {}
        sm, throttled = clocks.get("sm_clock_mhz"), clocks.get("throttled_samples")
        said = [step.get("reason"), *step.get("notices", [])]
        rows.append(
            (
                step["step"],
                step.get("proves") or "",
                step.get("preset") or "",
                step["state"],
                "" if step.get("seconds") is None else f"{step['seconds']:.0f}",
                "" if sm is None else f"{sm[0]:.0f} … {sm[2]:.0f}",
                "" if throttled is None else f"{throttled} of {clocks['samples']}",
                "; ".join(text for text in said if text),
            )
        )
    columns = ("step", "what for", "preset", "state", "s", "SM MHz", "throttled", "says")
    return Table(columns, tuple(rows), ("s",))


def _run(problem: Problem, run: Run) -> list[str]:
    """The tables of one run; of one that measured nothing yet, a line."""
    path = run.folder / "summary.json"
    summary = read_json(path) if path.exists() else build_summary(run)
    where = f"`{run.folder.relative_to(problem.folder).as_posix()}`"
    measured = [v for v in summary["variants"].values() if v["phases"] or v.get("figures")]
    unfinished = "" if run.finished else " (**unfinished**: what was measured until it ended)"
    profiled = any("profile" in variant for variant in summary["variants"].values())
    if not measured and not profiled:
        return [f"{where}: a {run.manifest['kind']} run{unfinished}, no times in it."]
    tables = [f"{where}{unfinished}:"]
    try:
        if not problem.phases:  # worked out, not timed side by side
            tables.append(run_tables.figures(summary).markdown())
        elif not measured:
            tables.append(run_tables.memory(summary).markdown())
        else:
            tables += [run_tables.verdicts(summary, phase).markdown() for phase in problem.phases]
        return [*tables, run_tables.footer(summary, run.manifest)]
    except (WorklogError, KeyError, TypeError) as error:
        return [f"{where}{unfinished}: cannot be shown ({error})."]


def _predictions(problem: Problem) -> list[str]:
    """Every set that is about one of these runs, scored."""
    parts = []
    for sets in problem.predictions:
        runs = runs_about(sets, problem)
        if runs:
            parts.append(_one_set(problem, sets, runs))
    if not parts:
        parts.append("_No sealed set of predictions is about these devices, presets and versions._")
    return parts


def _one_set(problem: Problem, sets: PredictionSet, runs: list[Run]) -> str:
    return prediction_table(sets, score_over(sets, runs), problem.folder).markdown()
