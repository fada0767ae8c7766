"""What came out? summary.json: derived from the rest of the run folder, and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from common.contract.claims import judge, parse_claim
from common.diff.attribution import memory_timeline
from common.errors import UsageError
from common.recording.run_folder import Run
from common.report.evidence import Evidence
from common.report.run_tables import cpu_capability
from common.timing.statistics import Comparison, Summary

SCHEMA = "worklog.summary/1"
LARGEST_ROWS = 12


def rounded(value: float, digits: int = 6) -> float:
    return float(f"{value:.{digits}g}")


def build_summary(run: Run, evidence: Evidence | None = None) -> dict[str, Any]:
    """The summary of one run; the same folder gives the same document on any machine.

    Raises UsageError for a folder whose files were changed into something else.
    """
    try:
        return _build(run, evidence or Evidence(run))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{run.folder}: its files lack or misuse {error}; take the run again from where it "
            "was made"
        ) from error


def _build(run: Run, evidence: Evidence) -> dict[str, Any]:
    manifest = run.manifest
    names = [*manifest["variants"], *manifest.get("not_applicable", {})]
    baseline = manifest["baseline"]
    return {
        "schema": SCHEMA,
        "problem": manifest["problem"],
        "preset": manifest["preset"]["name"],
        "device": manifest["device"],
        "origin": manifest["origin"],
        "revision": manifest["revision"],
        "started": manifest["started"],
        "finished": run.finished,
        "baseline": baseline,
        "sampling": manifest.get("sampling"),
        "variants": {name: _variant(evidence, name) for name in names},
        "ratios": [
            _ratio(name, baseline, phase, found)
            for name in names
            if name != baseline
            for phase in manifest["phases"]
            if (found := evidence.comparison(name, baseline, phase)) is not None
        ],
        "claims": [{"says": row["says"], **_claim(row, evidence)} for row in manifest["claims"]],
    }


def _claim(row: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The record of one claim; not judged where an option of the run takes it away."""
    record = judge(parse_claim(row["claim"]), evidence.quantities())
    options = evidence.manifest.get("options", {})
    against = [name for name in row.get("not_with", ()) if options.get(name)]
    if against:
        flag = "--" + against[0].replace("_", "-")
        record = {**record, "reproduced": None, "reason": f"does not apply with {flag}"}
    about = row.get("presets")
    if about is not None and evidence.manifest["preset"]["name"] not in about:
        reason = f"is about preset {' or '.join(about)}"
        record = {**record, "reproduced": None, "reason": reason}
    found = cpu_capability(evidence.manifest)
    if row.get("cpu") and found is not None and found != row["cpu"]:
        reason = f"is about CPUs with {row['cpu']}, torch finds {found} on this one"
        record = {**record, "reproduced": None, "reason": reason}
    return record


def _variant(evidence: Evidence, name: str) -> dict[str, Any]:
    state, reason = evidence.state(name)
    record: dict[str, Any] = {"state": state}
    if reason is not None:
        record["reason"] = reason
    if name in evidence.manifest["variants"]:
        record["title"] = evidence.manifest["variants"][name]["title"]
    if name in evidence.checks:
        record["correctness"] = evidence.checks[name]
    phases = evidence.manifest["phases"]
    record["phases"] = {
        phase: _phase(found, evidence.units(phase))
        for phase in phases
        if (found := evidence.summary_ns(name, phase)) is not None
    }
    pages = evidence.fresh_pages(name)
    if pages is not None and state == "measured":
        record["fresh_pages_per_repetition"] = {
            "median": int(statistics.median(pages)),
            "minimum": min(pages),
            "maximum": max(pages),
        }
    floor = evidence.decode_floor(name)
    if floor is not None:
        record["floor"] = {
            key: rounded(value) if isinstance(value, float) else value
            for key, value in asdict(floor).items()
        }
    figures = evidence.figures(name)
    if figures:
        record["figures"] = figures
    failure = evidence.profile_failure(name)
    if failure is not None:
        record["profile_failure"] = failure
    if evidence.profiled(name) is not None:
        record["profile"] = {phase: _profile(evidence, name, phase) for phase in phases}
        record["memory_timeline"] = _timeline(evidence, name)
        record["memory_ranges"] = [
            [phase, start, end]
            for phase in phases
            for start, end in evidence.range_bounds_ns(name, phase)
        ]
    return record


def _phase(found: Summary, units: int) -> dict[str, Any]:
    """Times are those of one unit (a token, a prefill), in ns."""
    return {
        "samples": found.n,
        "units_per_sample": units,
        "median_ns": rounded(found.median),
        "interval_ns": [rounded(found.interval.low), rounded(found.interval.high)]
        if found.interval
        else None,
        "q1_ns": rounded(found.q1),
        "q3_ns": rounded(found.q3),
        "minimum_ns": rounded(found.minimum),
        "maximum_ns": rounded(found.maximum),
    }


def _ratio(name: str, baseline: str, phase: str, found: Comparison) -> dict[str, Any]:
    return {
        "variant": name,
        "baseline": baseline,
        "phase": phase,
        "rounds": found.n,
        "ratio": rounded(found.ratio),
        "interval": [rounded(found.interval.low), rounded(found.interval.high)]
        if found.interval
        else None,
        "confidence": found.interval.confidence if found.interval else None,
        "verdict": str(found.verdict),
        "reasons": list(found.reasons),
    }


def _profile(evidence: Evidence, name: str, phase: str) -> dict[str, Any]:
    record: dict[str, Any] = {}
    spent = evidence.range_time(name, phase)
    if spent is not None:
        shown, rest = spent.rows[:LARGEST_ROWS], spent.rows[LARGEST_ROWS:]
        record["time"] = {
            "quantity": spent.quantity,
            "occurrences": spent.occurrences,
            "units": evidence.profiled_units(name, phase),
            "total_ns": spent.total_ns,
            "rows": [
                {
                    "operator": row.name,
                    "count": row.count,
                    "time_ns": row.time_ns,
                    "calls": dict(sorted(row.children_ns.items(), key=lambda kv: -kv[1])[:6]),
                }
                for row in shown
            ],
            "other_operators": {"rows": len(rest), "time_ns": sum(row.time_ns for row in rest)},
            "outside_operators_ns": spent.outside_ns,
        }
    peak_bytes = evidence.temporary_peak_bytes(name, phase)
    if peak_bytes is not None:
        per_element = evidence.temporary_bytes_per_element(name, phase).value
        traced = evidence.range_peak(name, phase)
        record["memory"] = {
            "temporary_peak_bytes": peak_bytes,
            "bytes_per_element_of_largest_linear": rounded(per_element) if per_element else None,
            "left_allocated_bytes": traced.end_bytes if traced else None,
            "held_by": list(traced.holders) if traced else [],
        }
    return record


def _timeline(evidence: Evidence, name: str) -> list[list[int]]:
    """[ns since the first event, live bytes] steps of the profiled stretch."""
    trace = evidence.trace(name)
    if trace is None:
        return []
    device = 0 if evidence.manifest["device"]["kind"] == "cuda" else -1
    return [[time, live] for time, live in memory_timeline(trace.allocations, device, 150)]
