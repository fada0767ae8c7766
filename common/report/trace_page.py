"""How is one trace shown on a terminal? A few lines of totals, devices and the largest kernels."""

from __future__ import annotations

from typing import Any

from common.report.tables import Table, percent

NAME_WIDTH = 72


def trace_text(summary: dict[str, Any]) -> str:
    """The text of `worklog show` for a torch or nsys trace; `summary` as for --json."""
    parts = [_totals(summary).text()]
    if summary["devices"]:
        parts.append(_devices(summary).text())
    if summary["top_kernels"]:
        parts.append(_kernels(summary).text())
    return "\n\n".join(parts)


def exact_ms(value_ns: int | None) -> str:
    """Milliseconds to the nanosecond, so that what adds up can be seen to."""
    if value_ns is None:
        return "unknown"
    return f"{'-' if value_ns < 0 else ''}{abs(value_ns) // 10**6:,}.{abs(value_ns) % 10**6:06d}"


def _totals(summary: dict[str, Any]) -> Table:
    kinds = [
        (f"  {name}", exact_ms(row["time_ns"]), f"{row['count']:,}")
        for name, row in summary["by_kind"].items()
        if row["count"]
    ]
    rows = [
        ("GPU time", exact_ms(summary["gpu_time_ns"]), f"{summary['gpu_events']:,}"),
        *kinds,
        ("busy (union per device)", exact_ms(summary["busy_ns"]), ""),
        ("span", exact_ms(summary["span_ns"]), ""),
        ("without a launching call", exact_ms(summary["unlinked_ns"]), f"{summary['unlinked']:,}"),
        (
            "from graph launches",
            exact_ms(summary["graph_launched_ns"]),
            f"{summary['graph_launched']:,}",
        ),
    ]
    if summary["cpu_time_ns"] is not None:
        rows.append(("CPU time in operators", exact_ms(summary["cpu_time_ns"]), ""))
    if summary["steps"] is not None:
        steps = summary["steps"]
        rows.append(("profiler step (median)", exact_ms(steps["median_ns"]), f"{steps['count']:,}"))
    note = (
        f"{summary['events']:,} events, {summary['kernels']:,} kernels, "
        f"{summary['launches']:,} launching calls, {summary['streams']:,} streams"
    )
    head = f"{summary['path']} ({summary['format']})"
    return Table((head, "ms", "count"), tuple(rows), right=("ms", "count"), note=note)


def _devices(summary: dict[str, Any]) -> Table:
    rows = tuple(
        (
            "?" if row["id"] is None else str(row["id"]),
            row["name"] or "unknown",
            exact_ms(row["span_ns"]),
            exact_ms(row["busy_ns"]),
            exact_ms(row["idle_ns"]),
        )
        for row in summary["devices"]
    )
    columns = ("device", "name", "span ms", "busy ms", "idle ms")
    return Table(columns, rows, right=("span ms", "busy ms", "idle ms"))


def _kernels(summary: dict[str, Any]) -> Table:
    total = summary["gpu_time_ns"]
    rows = tuple(
        (
            shortened(row["name"]),
            f"{row['count']:,}",
            exact_ms(row["time_ns"]),
            percent(row["time_ns"] / total) if total else "",
        )
        for row in summary["top_kernels"]
    )
    return Table(("largest kernels", "count", "ms", "share"), rows, right=("count", "ms", "share"))


def shortened(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"
