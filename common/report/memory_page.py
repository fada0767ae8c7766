"""How is one CUDA memory snapshot shown on a terminal? Totals, peaks and pools in bytes."""

from __future__ import annotations

from typing import Any

from common.report.tables import Table

TOTALS = (
    ("peak of requested bytes", "peak_allocated_bytes"),
    ("peak until reusable", "peak_active_bytes"),
    ("peak reserved", "peak_reserved_bytes"),
    ("reserved at the end", "reserved_bytes"),
    ("  allocated", "allocated_bytes"),
    ("  requested", "requested_bytes"),
    ("  reserved, not allocated", "fragmentation_bytes"),
    ("reserved in private pools", "private_pool_reserved_bytes"),
)


def memory_text(summary: dict[str, Any]) -> str:
    """The text of `worklog show` for a snapshot; `summary` as for --json."""
    head = f"{summary['path']} ({summary['format']})"
    rows = tuple((says, _bytes(summary[key])) for says, key in TOTALS)
    note = (
        f"{summary['events']:,} events, {summary['events_with_frames']:,} with frames, "
        f"{summary['out_of_memory']:,} out of memory, {len(summary['devices']):,} devices"
    )
    totals = Table((head, "bytes"), rows, ("bytes",), note)
    pools = Table(
        ("pool", "kind", "reserved", "allocated", "requested"),
        tuple(
            (
                ", ".join(str(part) for part in pool["pool"]),
                str(pool["kind"]),
                _bytes(pool["reserved_bytes"]),
                _bytes(pool["allocated_bytes"]),
                _bytes(pool["requested_bytes"]),
            )
            for pool in summary["pools"]
        ),
        ("reserved", "allocated", "requested"),
    )
    return totals.text() + ("\n\n" + pools.text() if pools.rows else "")


def _bytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
