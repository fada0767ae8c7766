"""What did Nsight Compute say about each kernel? Reads its reports and what it prints as CSV.

report = read_ncu(path)               # .ncu-rep, `ncu --csv` raw or details page, gzipped or not
report.total_ns                       # sum of gpu__time_duration, as expected of a diff
reading(report.launches[0])           # one sentence on what limits the kernel
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.traces.ncu_csv import looks_like_csv, read_csv
from common.traces.ncu_model import DURATION, KernelLaunch, Metric, NcuReport, Number, base_name
from common.traces.ncu_reading import MetricsOfInterest, bound, metrics_of_interest, reading
from common.traces.ncu_rep import looks_like_report, read_report
from common.traces.raw_file import read_raw

__all__ = [
    "DURATION",
    "FORMATS",
    "KernelLaunch",
    "Metric",
    "MetricsOfInterest",
    "NcuReport",
    "base_name",
    "bound",
    "metrics_of_interest",
    "read_ncu",
    "reading",
    "summarise_ncu",
    "summary",
]

FORMATS = {"report": "ncu_report", "raw": "ncu_csv_raw", "details": "ncu_csv_details"}
_EXPECTED = "an Nsight Compute report (.ncu-rep) or what `ncu --csv` printed"


def read_ncu(path: Path) -> NcuReport:
    """Read an .ncu-rep or a CSV of ncu, told apart by content; either may be gzipped.

    Raises UsageError, one line, for anything else, and PreconditionError for an .ncu-rep where
    NVIDIA's ncu-report is not installed.
    """
    raw = read_raw(path, _EXPECTED)
    try:
        report = read_report(path, raw) if looks_like_report(raw.data) else _read_text(raw.data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    if not raw.warnings:
        return report
    return NcuReport(
        report.kind,
        report.launches,
        (*raw.warnings, *report.warnings),
        report.rows,
        report.columns,
    )


def _read_text(data: bytes) -> NcuReport:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # what PowerShell's `>` writes
    encoding = "utf-16" if wide else "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    if not looks_like_csv(text):
        raise UsageError(f"it is neither a report nor its CSV; give {_EXPECTED}")
    report = read_csv(text)
    lost = text.count("\ufffd")
    if not lost:
        return report
    note = f"characters that are not {'UTF-16' if wide else 'UTF-8'}, shown as \ufffd: {lost}"
    return NcuReport(
        report.kind, report.launches, (*report.warnings, note), report.rows, report.columns
    )


def summary(report: NcuReport) -> dict[str, Any]:
    """Plain numbers and texts for JSON: the keys of one side of a diff. None: unknown.

    `gpu_time_ns` is rounded to whole nanoseconds (only a CSV's can have parts of one).
    """
    names: dict[int | None, str | None] = {}
    for launch in report.launches:
        # A launch that could not be measured has lost its device's number, not its name.
        if launch.device_id is not None or launch.device_name not in names.values():
            names[launch.device_id] = launch.device_name
    return {
        "format": FORMATS[report.kind],
        "devices": [
            {"id": device, "name": name, "compute_capability": _capability(report, device)}
            for device, name in sorted(
                names.items(), key=lambda item: -1 if item[0] is None else item[0]
            )
        ],
        "gpu_time_ns": _whole_ns(report.total_ns),
        "launches": len(report.launches),
        "launches_with_time": sum(launch.time_ns is not None for launch in report.launches),
        "kernels": len({launch.name for launch in report.launches}),
        "metrics": max(len(launch.metrics) for launch in report.launches),
        "warnings": list(report.warnings),
    }


LONGEST_LAUNCHES = 10


def summarise_ncu(report: NcuReport, path: Path) -> dict[str, Any]:
    """`summary` with the file's name and the longest launches, each with its reading."""
    timed = [launch for launch in report.launches if launch.time_ns is not None]
    longest = sorted(timed, key=lambda launch: Decimal(launch.time_ns or 0), reverse=True)
    return {
        "path": path.name,
        **summary(report),
        "longest_launches": [
            {
                "launch": launch.launch_id,
                "name": launch.name,
                "time_ns": _whole_ns(launch.time_ns),
                "bound": bound(metrics_of_interest(launch)),
                "reading": reading(launch),
            }
            for launch in longest[:LONGEST_LAUNCHES]
        ],
    }


def _capability(report: NcuReport, device: int | None) -> str | None:
    own = (l_.compute_capability for l_ in report.launches if l_.device_id == device)
    return next(own, None)


def _whole_ns(total: Number | None) -> int | None:
    return None if total is None else int(Decimal(total).to_integral_value())
