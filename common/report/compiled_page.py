"""One compiled kernel on a terminal: what it needs of an SM and what it is made of."""

from __future__ import annotations

from typing import Any

from common.diff.difference import Difference
from common.report.tables import Table


def compiled_text(summary: dict[str, Any]) -> str:
    """The page of `worklog show` for a file of a compiled kernel."""
    resources = {**summary["resources"], "loop_instructions": summary["loop_instructions"]}
    metrics = {k: v for k, v in summary["metrics"].items() if not isinstance(v, dict)}
    figures = Table(
        ("figure", "value"),
        tuple((name, _words(value)) for name, value in {**resources, **metrics}.items()),
        ("value",),
    )
    total = summary["instructions"] or 1
    mix = Table(
        ("class", "instructions", "share"),
        tuple(
            (name, f"{count:,}", f"{100 * count / total:.1f} %")
            for name, count in summary["classes"].items()
        ),
        ("instructions", "share"),
        "_Static counts: an instruction of a loop counts once. Nothing was run._",
    )
    head = f"{summary['title']}: {summary['kernel']}, {summary['architecture']}"
    return "\n\n".join((head, figures.text(), mix.text()))


SHOWN = ("registers", "stack_bytes", "shared_bytes", "loop_instructions", "blocks_per_sm",
         "occupancy", "grid_blocks", "waves", "in_flight_bytes_per_sm", "split_bytes")  # fmt: skip


def compiled_difference(found: Difference) -> Table:
    """Resources that differ, then instructions by class; the classes add up to the last row."""
    changed = [r for r in found.extra["resources"] if r["name"] in SHOWN and r["a"] != r["b"]]
    rows = [
        (row["name"].replace("_", " "), _words(row["a"]), _words(row["b"]), _signed(row["delta"]))
        for row in changed
    ]
    rows += [
        (f"instructions: {row.name}", f"{row.a:,}", f"{row.b:,}", _signed(row.delta))
        for row in found.rows
        if row.delta
    ]
    rows.append(
        ("**instructions**", f"{found.total_a:,}", f"{found.total_b:,}", _signed(found.delta))
    )
    names = " ".join(f"{side}: {summary['title']}." for side, summary in
                     (("A", found.a), ("B", found.b)))  # fmt: skip
    note = "_" + " ".join((names, *found.notes, *found.warnings)) + "_"
    return Table(("figure", "A", "B", "B - A"), tuple(rows), ("A", "B", "B - A"), note)


def _signed(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:+,}" if isinstance(value, int) else f"{value:+.4g}"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
