"""How is one Nsight Compute file shown on a terminal? Totals, and readings of long launches."""

from __future__ import annotations

from typing import Any

from common.report.tables import Table
from common.report.trace_page import exact_ms, shortened


def ncu_text(summary: dict[str, Any]) -> str:
    """The text of `worklog show` for an ncu report or CSV; `summary` as for --json."""
    devices = ", ".join(str(d["name"] or "unknown device") for d in summary["devices"])
    head = f"{summary['path']} ({summary['format']})"
    untimed = summary["launches"] - summary["launches_with_time"]
    totals = Table(
        (head, "value"),
        (
            ("GPU time of all launches, ms", exact_ms(summary["gpu_time_ns"])),
            ("launches", f"{summary['launches']:,}"),
            ("  without a time", f"{untimed:,}"),
            ("kernels", f"{summary['kernels']:,}"),
            ("metrics collected, at most", f"{summary['metrics']:,}"),
        ),
        ("value",),
        devices,
    )
    launches = Table(
        ("launch", "ms", "kernel", "reading"),
        tuple(
            (str(row["launch"]), exact_ms(row["time_ns"]), shortened(row["name"]), row["reading"])
            for row in summary["longest_launches"]
        ),
        ("launch", "ms"),
    )
    return totals.text() + ("\n\n" + launches.text() if launches.rows else "")
