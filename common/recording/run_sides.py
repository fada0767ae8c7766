"""What did a run record of one of its variants? Its state, its samples and its trace.

The reading of a run folder that the report and the diff share; figures are made by the readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.recording.run_folder import Run, read_json

MEASURED = "measured"


def correctness(run: Run) -> dict[str, Any]:
    """checks.json: variant -> the record of its correctness check; empty where there is none."""
    path = run.folder / "checks.json"
    return dict(read_json(path)) if path.exists() else {}


def durations_ns(run: Run) -> dict[tuple[str, str], dict[int, int]]:
    """(variant, phase) -> {round: duration} in measured order."""
    table: dict[tuple[str, str], dict[int, int]] = {}
    try:
        for sample in run.samples():
            key = (str(sample["variant"]), str(sample["phase"]))
            table.setdefault(key, {})[int(sample["round"])] = int(sample["duration_ns"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{run.folder}/samples.jsonl: a sample lacks or misuses {error}; "
            "take the run again from where it was made"
        ) from error
    return table


def state_of(
    manifest: Mapping[str, Any], checks: Mapping[str, Any], variant: str
) -> tuple[str, str | None]:
    """(measured | rejected | failed | not applicable | not run, why)."""
    not_applicable = manifest.get("not_applicable", {})
    if variant in not_applicable:
        return "not applicable", str(not_applicable[variant])
    failures = manifest.get("failures", {})
    if variant in failures:
        return "failed", str(failures[variant])
    check = checks.get(variant)
    if check is not None and not check["passed"]:
        return "rejected", str(check["reason"])
    if variant in manifest.get("variants", {}):
        return MEASURED, None
    return "not run", "this run did not include it"


def interleaved(manifest: Mapping[str, Any]) -> bool:
    """Whether round i of every variant was measured in one go; true of a run that was killed."""
    return bool(manifest.get("sampling", {}).get("interleaved", True))


def units_of(manifest: Mapping[str, Any], phase: str) -> int:
    """How many units (tokens) one sample of the phase holds."""
    key = manifest["phases"].get(phase) or ""
    return int(manifest["preset"]["settings"][key]) if key else 1


def trace_file(run: Run, variant: str) -> Path:
    """Where the variant's trace lies, if it was profiled."""
    return run.folder / "traces" / variant / "trace.json.gz"


def profile_failure(manifest: Mapping[str, Any], variant: str) -> str | None:
    reason = manifest.get("profile_failures", {}).get(variant)
    return None if reason is None else str(reason)
