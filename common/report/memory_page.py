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
    parts = [totals, pools, streams_table(summary), growth_table(summary)]
    return "\n\n".join(part.text() for part in parts if part.rows)


def streams_table(summary: dict[str, Any]) -> Table:
    """Peaks, what is left and fragmentation of each (device, pool, stream)."""
    rows = tuple(
        (
            str(line["device"]),
            "unknown" if line["pool"] is None else ", ".join(map(str, line["pool"])),
            str(line["stream"]),
            _bytes(line["peak_reserved_bytes"]),
            _bytes(line["peak_allocated_bytes"]),
            _bytes(line["reserved_bytes"]),
            _bytes(line["retained_bytes"]),
            _bytes(line["largest_inactive_bytes"]),
            "" if line["fragmentation"] is None else f"{100 * line['fragmentation']:.1f} %",
        )
        for line in summary["pool_streams"]
    )
    columns = ("device", "pool", "stream", "peak reserved", "peak requested", "reserved",
               "retained", "largest free", "fragmented")  # fmt: skip
    inferred = sum(line["events_with_inferred_pool"] for line in summary["pool_streams"])
    unknown = sum(line["events"] for line in summary["pool_streams"] if line["pool"] is None)
    note = "retained: reserved and used by nothing; fragmented: 1 - largest free / all free"
    if inferred or unknown:
        note += f"; the pool of {inferred:,} events was settled by their address, {unknown:,} open"
    return Table(columns, rows, (columns[0], *columns[2:]), note)


def growth_table(summary: dict[str, Any]) -> Table:
    """What each phase of the program took from the driver."""
    rows = tuple(
        (
            str(row["phase"]),
            *(f"{row[key]:+,}" for key in ("private_bytes", "default_bytes", "unknown_bytes")),
            f"{row['allocations']:,}",
        )
        for row in summary["growth"]
    )
    columns = ("phase", "private pools", "default pool", "unknown pool", "allocations")
    return Table(columns, rows, columns[1:], "taken from the driver in each phase, bytes")


def _bytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
