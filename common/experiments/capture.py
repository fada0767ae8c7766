"""How are Nsight traces of a problem made? One process per variant and mode, never a timed one.

Each capture is recorded in the manifest as it ends: its command with every option, what was left
out and why, the tool's version, how it ended. One that fails or is interrupted keeps what it wrote
and is marked; the others are taken all the same.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.contract.problem import Variant
from common.errors import PreconditionError
from common.experiments.capture_plan import Planned, aim, environment_of, plans
from common.experiments.manifest import first_manifest
from common.experiments.progress import Reporter
from common.experiments.request import Request, package_folders
from common.recording.environment import without_places
from common.recording.ncu_command import NcuPlan, ncu_csv_command
from common.recording.nsys_command import NsysPlan, nsys_export_command
from common.recording.run_folder import RunWriter
from common.recording.tools import Tool, last_line, run_tool
from common.timing.worker_client import child_environment

NOT_PERMITTED = "ERR_NVGPUCTRPERM"
PERMISSION = (
    "the driver lets only administrators read the GPU's counters (ERR_NVGPUCTRPERM); run it in the "
    "container (./run.sh ncu), as root, or set NVreg_RestrictProfilingToAdminUsers=0 on the host"
)


def environment(variant: Variant) -> dict[str, str]:
    return {**child_environment(), **environment_of(variant)}


def execute_captures(
    request: Request,
    tool: Tool,
    arguments: Sequence[str],
    modes: Sequence[str] = (),
    clock_control: str = "none",
) -> tuple[Path, list[dict[str, Any]]]:
    """Make them all in one run folder; returns it and the record of each capture.

    The folder stays `.unfinished` only when the work was broken off.
    """
    if tool.name == "ncu" and request.device != "cuda":
        raise PreconditionError(
            "ncu measures kernels on an NVIDIA GPU and there is none here; run it on a GPU machine "
            "(worklog ncu --dry-run shows the commands)"
        )
    list(plans(request, tool.name, Path(), tool, modes, clock_control))  # before any folder is made
    manifest = first_manifest(request, tool.name, arguments)
    manifest["capture"] = {"tool": tool.name, "version": tool.version, **asdict(aim(request))}
    writer = RunWriter.create(
        request.run_parent, manifest["revision"], request.preset.name, manifest
    )
    records: list[dict[str, Any]] = []
    current: dict[str, Any] | None = None
    planned = list(plans(request, tool.name, writer.folder, tool, modes, clock_control))
    try:
        with Reporter(request.problem.name, len(planned)) as report:
            for one in planned:
                report.step(f"{tool.name} {one.mode}: {one.variant.name}")
                current = first_record(one, writer.folder)
                writer.update(captures=[*records, current])
                current = {**current, **_capture(one, tool, writer.folder)}
                records.append(current)
                writer.update(captures=records)
                if current["state"] != "complete":
                    report.step(f"{one.variant.name}, {one.mode}: {current['reason']}")
                current = None
    except BaseException as error:
        if current is not None:
            interrupted = {**current, "state": "interrupted", "reason": "it was stopped"}
            records.append({**interrupted, **_files(writer.folder, planned[len(records)])})
        writer.close()
        writer.update(captures=records, ended_by=type(error).__name__)
        raise
    return writer.finish(), records


def first_record(one: Planned, folder: Path) -> dict[str, Any]:
    """What is known before the capture. Places are left out: a manifest names none."""
    program_length = len(one.plan.program)
    options = [
        word.replace(str(folder) + os.sep, "") for word in one.command.argv[1:-program_length]
    ]
    return {
        "variant": one.variant.name,
        "mode": one.mode,
        "state": "running",
        "options": options,
        "program": ["repro.py", *one.plan.program[2:]]
        if "--checkpoint" not in one.plan.program
        else ["repro.py", *one.plan.program[2:-1], "…"],
        "left_out": list(one.command.left_out),
    }


def _files(folder: Path, one: Planned) -> dict[str, Any]:
    """What it left behind, also when it did not come to its end."""
    place = one.plan.output.parent
    found = sorted(place.glob(one.plan.output.name + ".*")) if place.is_dir() else []
    return {"files": {str(path.relative_to(folder)): path.stat().st_size for path in found}}


def _capture(one: Planned, tool: Tool, folder: Path) -> dict[str, Any]:
    one.plan.output.parent.mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    log = logs / f"{one.variant.name}.{tool.name}-{one.mode}.log"
    package_folders(one.variant)
    code = run_tool(one.command.argv, environment(one.variant), log)
    reason = _what_failed(one, tool, code, log)
    record = {"exit_code": code, **_files(folder, one)}
    if reason is None:
        return {"state": "complete", **record}
    return {"state": "failed", "reason": without_places(reason), **record}


def _what_failed(one: Planned, tool: Tool, code: int, log: Path) -> str | None:
    """None where the capture holds what was asked for, else why it does not."""
    said = log.read_text(encoding="utf-8", errors="replace")
    if NOT_PERMITTED in said:
        return PERMISSION
    words = f"; its last words: {last_line(log)}" if last_line(log) else ""
    where = f"see {log.name}{words}"
    if not one.plan.report.exists():
        stray = sorted(one.plan.output.parent.glob(one.plan.output.name + "*.qdstrm"))
        if stray or "Importer" in said:
            return f"{tool.name} could not turn its .qdstrm into a report; {where}"
        how = f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{tool.name} {how} and left no report; {where}"
    if isinstance(one.plan, NcuPlan):
        exported = run_tool(
            ncu_csv_command(one.plan, tool.path).argv, os.environ, log, one.plan.csv
        )
        if exported != 0:
            return f"ncu cannot read its own report; {where}"
    else:
        if not one.plan.sqlite.exists():
            run_tool(nsys_export_command(one.plan, tool.path).argv, os.environ, log)
        held = _ranges_named(one.plan)
        if held is None:
            return f"nsys left no SQLite that can be read; {where}"
        if held == 0:
            return (
                f"the report holds no range named {one.plan.nvtx_range!r}: NVTX was not recorded; "
                f"{where}"
            )
    if code != 0:
        return f"the program ended with exit code {code} under {tool.name}; {where}"
    return None


def _ranges_named(plan: NsysPlan) -> int | None:
    """How many ranges of interest the export holds; None where it cannot be read."""
    query = (
        "SELECT count(*) FROM NVTX_EVENTS e LEFT JOIN StringIds s ON s.id = e.textId "
        "WHERE COALESCE(e.text, s.value) = ?"
    )
    try:
        connection = sqlite3.connect(f"file:{plan.sqlite}?mode=ro", uri=True)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if "NVTX_EVENTS" not in tables:
                return 0 if "StringIds" in tables else None
            return int(connection.execute(query, (plan.nvtx_range,)).fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error:
        return None


def document(folder: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """What `worklog nsys --json` prints."""
    return json.dumps(
        {"schema": "worklog.captures/1", "run": str(folder), "captures": list(records)}, indent=1
    )
