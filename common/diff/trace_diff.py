"""What changed between two traces? Rows by kernel, operator, range or gap that close exactly.

Only what makes the asked rows is imported: a small trace is read in less time than all of it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from common.diff.difference import Difference, GapCause, Gaps, Judgement, Remainder, Row, Tier
from common.diff.gaps import compare_gaps, wall_clock
from common.diff.kernel_rows import Ready, kernel_rows, match, matching_quality
from common.errors import UsageError
from common.traces.intervals import total_ns
from common.traces.model import HostKind, Trace
from common.traces.side_by_side import begun

if TYPE_CHECKING:
    from common.diff.range_rows import RangeRows

CHOICES = ("kernel", "operator", "module", "range", "gap")
WORTH_A_PROCESS = 10_000  # pieces of GPU work: a hundredth of a second of looking for gaps


def diff_traces(
    a: Trace,
    b: Trace,
    summaries: tuple[Mapping[str, Any], Mapping[str, Any]],
    judgement: Judgement,
    by: str | None = None,
    ready: Ready = (None, None),
) -> Difference:
    """The difference of two traces; `by` is one of CHOICES, kernel (or operator on CPUs) if None.

    `ready` is what `kernel_rows.prepare` made of each side, if anything. Raises UsageError for an
    unknown `by`, and for kernels or gaps of traces without GPU work.
    """
    on_gpu = a.has_gpu_events or b.has_gpu_events
    operators = any(summary["cpu_time_ns"] is not None for summary in summaries)
    chosen = by or ("kernel" if on_gpu else "operator" if operators else "range")
    if chosen not in CHOICES:
        raise UsageError(f"traces have no {chosen!r}; choose --by {', '.join(CHOICES)}")
    if not on_gpu and chosen in ("kernel", "gap"):
        raise UsageError(f"neither trace has GPU work to list by {chosen}; use --by operator")
    if not on_gpu and not operators and chosen == "operator":
        raise UsageError("neither trace has GPU work or operators to list; use --by range")
    worthwhile = chosen != "gap" and len(a.gpu) + len(b.gpu) > WORTH_A_PROCESS
    with begun(partial(_idle, a, b), worthwhile) as idle:
        found = _listed(a, b, chosen, on_gpu, ready)
        gaps, clock = idle() if on_gpu else (None, [])
    rows = found.rows if gaps is None or chosen != "gap" else _gap_rows(gaps)
    if chosen == "gap" and gaps is not None:
        quantity, totals = "idle_ns", (gaps.a_ns, gaps.b_ns)
    elif on_gpu:
        quantity = "gpu_time_ns"
        totals = (total_ns(a.gpu.duration_ns), total_ns(b.gpu.duration_ns))
    elif not operators and chosen in ("range", "module"):
        quantity = "cpu_time_ns"  # of the ranges themselves: nothing else was recorded
        totals = (sum(row.a for row in rows), sum(row.b for row in rows))
    else:
        quantity = "cpu_time_ns"
        totals = (summaries[0]["cpu_time_ns"] or 0, summaries[1]["cpu_time_ns"] or 0)
    return Difference(
        source=a.source,
        quantity=quantity,
        by=chosen,
        a=summaries[0],
        b=summaries[1],
        total_a=totals[0],
        total_b=totals[1],
        rows=rows,
        remainders=found.remainders,
        gaps=gaps,
        judgement=judgement,
        warnings=found.warnings,
        extra={"wall_clock": clock, **found.extra},
    )


class _Listed(msgspec.Struct, frozen=True):
    """What was asked for, row by row."""

    rows: tuple[Row, ...] = ()
    remainders: tuple[Remainder, ...] = ()
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)


def _listed(a: Trace, b: Trace, chosen: str, on_gpu: bool, ready: Ready) -> _Listed:
    """The rows of one of CHOICES; none for gaps, which are counted beside."""
    if chosen == "gap":
        return _Listed()
    if chosen in ("range", "module"):
        from common.diff.range_rows import range_rows

        found = range_rows(a, b, HostKind.MODULE if chosen == "module" else HostKind.ANNOTATION)
        return _Listed(found.rows, found.remainders, tuple(_about_ranges(chosen, found)))
    if not on_gpu:
        from common.diff.operator_rows import cpu_operator_rows

        return _Listed(*cpu_operator_rows(a, b))
    matched = match(a, b, ready)
    rows = by_kernel = kernel_rows(matched)
    if chosen != "kernel":
        from common.diff.operator_rows import gpu_operator_rows

        rows = gpu_operator_rows(matched)
    return _Listed(rows, extra={"matching": matching_quality(matched, by_kernel)})


def _idle(a: Trace, b: Trace) -> tuple[Gaps, list[dict[str, Any]]]:
    return compare_gaps(a, b), wall_clock(a, b)


def _about_ranges(chosen: str, found: RangeRows) -> list[str]:
    none = all(row.name.startswith("(") for row in found.rows)
    if chosen == "module":
        how = "record with_stack=True or with_modules=True"
        return [f"neither trace has calls of modules; {how} for them"] if none else []
    says = []
    if none:
        says.append("neither trace has ranges; add NVTX ranges or record_function for them")
    if found.overlapping:
        says.append(f"{found.overlapping} start/end ranges nest in nothing and are in no row")
    return says


def _gap_rows(gaps: Gaps) -> tuple[Row, ...]:
    rows = [_gap_row(cause) for cause in gaps.causes if cause.count_a or cause.count_b]
    return tuple(sorted(rows, key=lambda row: -abs(row.delta)))


def _gap_row(cause: GapCause) -> Row:
    both = cause.count_a and cause.count_b
    return Row(
        name=cause.cause,
        tier=Tier.EXACT if both else Tier.UNMATCHED,
        a=cause.a_ns,
        b=cause.b_ns,
        count_a=cause.count_a,
        count_b=cause.count_b,
        children=tuple(_gap_row(child) for child in cause.children),
    )
