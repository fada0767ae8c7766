"""From one variant to the other: which operators make the difference? A chart and a table that sum.

The pairs are those that the problem's claims compare; every phase that was profiled has its own.
"""

from __future__ import annotations

from pathlib import Path

from common.diff.difference import Difference
from common.report.diff_view import signed
from common.report.diff_waterfall import STEPS, waterfall
from common.report.phase_difference import Callee, phase_callees, phase_difference, story_pairs
from common.report.run_view import RunView
from common.report.tables import Table, escape_html
from common.report.trace_page import exact_ms

MOST_CALLEES = 200
NOTICEABLE = 0.002  # of the larger total


def attribution(view: RunView, _: Path) -> str:
    """Every pair of every phase; empty where nothing was profiled."""
    parts: list[str] = []
    for phase in view.phases:
        for before, after in story_pairs(view, phase):
            found = phase_difference(view, before, after, phase)
            if found is not None:
                heading = escape_html(f"{phase}: {before} → {after}")
                parts.append(f"<h4>{heading}</h4>\n" + _pair(view, found, phase, not parts))
    note = (
        '<p class="note">From the profiled pass, per unit of the phase, to the nanosecond: the '
        "profiler's own cost is in it. How large the difference is without a profiler stands under "
        "Times and verdicts.</p>"
    )
    return "".join(parts) + note if parts else ""


def _pair(view: RunView, found: Difference, phase: str, unfolded: bool) -> str:
    before, after = str(found.a["path"]), str(found.b["path"])
    chart = waterfall(found, found.rows, (before, after), _noticeable(found))
    caption = f"Operators of {phase}, {before} and {after}"
    table = operators_table(found).html(caption, style="sortable")
    if not unfolded:
        summary = f"Operators before and after ({len(found.rows):,} rows)"
        table = f"<details><summary>{summary}</summary>{table}</details>\n"
    calls = phase_callees(view, before, after, phase)
    inside = callees_table(calls).html(f"What they call: {caption}", style="sortable")
    folded = (
        f"<details><summary>What these operators call ({len(calls):,} rows; on a GPU: their "
        f"kernels)</summary>{inside}</details>\n"
        if calls
        else ""
    )
    return chart + table + folded


def _noticeable(found: Difference) -> int:
    """How many of the rows move the total by something that can be seen in a chart."""
    least = NOTICEABLE * max(found.total_a, found.total_b)
    return min(STEPS, max(3, sum(abs(row.delta) >= least for row in found.rows)))


def operators_table(found: Difference) -> Table:
    """Before and after, the largest change first; the last line is the sum of those above it."""
    size = sum(abs(row.delta) for row in found.rows)
    rows = tuple(
        (
            row.name if row.name.startswith("outside any") else f"`{row.name}`",
            exact_ms(row.a),
            exact_ms(row.b),
            signed(row.delta, "ms"),
            f"{100 * abs(row.delta) / size:.1f} %" if size else "",
            f"{row.count_a:,}",
            f"{row.count_b:,}",
        )
        for row in found.rows
    )
    columns = ("operator", "before ms", "after ms", "delta ms", "of |delta|", "calls before",
               "calls after")  # fmt: skip
    foot = (
        "**sum**", exact_ms(found.total_a), exact_ms(found.total_b), signed(found.delta, "ms"),
        "", "", "",
    )  # fmt: skip
    return Table(columns, rows, columns[1:], foot=foot)


def callees_table(calls: list[Callee]) -> Table:
    rows = tuple(
        (
            f"`{call.name}`",
            f"`{call.operator}`",
            exact_ms(call.before_ns),
            exact_ms(call.after_ns),
            signed(call.after_ns - call.before_ns, "ms"),
        )
        for call in calls[:MOST_CALLEES]
    )
    columns = ("called", "by operator", "before ms", "after ms", "delta ms")
    left = len(calls) - MOST_CALLEES
    note = f"_{left:,} smaller ones are left out; the traces have them._" if left > 0 else ""
    return Table(columns, rows, columns[2:], note)
