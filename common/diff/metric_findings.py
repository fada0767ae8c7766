"""What should a reader of an Nsight Compute diff be told first? Findings in one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from common.diff.difference import Difference, Row
from common.traces.ncu import base_name

# A stated guess: a launch with less of the change than this does not explain it.
MAIN_SHARE = 0.5
MOST_KERNELS = 3


def notes(difference: Difference, precision_ns: Decimal) -> tuple[str, ...]:
    """The most important first. `precision_ns`: what CSVs rounded away, both sides together."""
    return tuple(_notes(difference, precision_ns))


def _notes(difference: Difference, precision_ns: Decimal) -> Iterator[str]:
    delta = difference.delta
    if not delta and not any(row.delta for row in difference.rows):
        yield f"GPU time is the same on both sides, {_ms(difference.total_a)}."
    else:
        ends = f"{_ms(difference.total_a)} to {_ms(difference.total_b)}"
        yield f"GPU time {_signed(delta)} ({ends}){_main(difference)}."
    if precision_ns and abs(delta) <= precision_ns:
        yield (
            f"The delta of {delta:,} ns is within what the CSV's rounded durations can say "
            f"(±{precision_ns.normalize():,f} ns): it may be nothing but rounding."
        )
    for row in _telling(difference):
        if row.metrics:
            yield f"{base_name(row.name)}: {row.metrics['reading']}"
    added = sum(row.count_a == 0 for row in difference.rows)
    removed = sum(row.count_b == 0 for row in difference.rows)
    if added or removed:
        yield f"Launches only in A: {removed}; only in B: {added}."
    found = difference.extra["metrics"]
    if found["only_a"]["count"] or found["only_b"]["count"]:
        yield (
            f"A collected {found['names_a']:,} metrics, B {found['names_b']:,}: "
            f"{found['only_a']['count']:,} are only in A, {found['only_b']['count']:,} only in B."
        )


def _main(difference: Difference) -> str:
    if not difference.rows or not difference.delta:
        return ""
    row = difference.rows[0]
    share = row.delta / difference.delta
    if share < MAIN_SHARE:
        return ""
    part = f"{100 * share:.1f} % of it" if share <= 1 else _signed(row.delta)
    place = f" ({row.path})" if row.path else ""
    return f": {part} in {base_name(row.name)}{place}"


def _telling(difference: Difference) -> list[Row]:
    """Rows that make up a good part of all that moved."""
    moved = sum(abs(row.delta) for row in difference.rows)
    return [row for row in difference.rows[:MOST_KERNELS] if moved and abs(row.delta) > moved / 10]


def _ms(time_ns: int) -> str:
    return f"{time_ns / 1e6:,.3f} ms"


def _signed(time_ns: int) -> str:
    sign = "+" if time_ns > 0 else "−" if time_ns < 0 else "±"
    return f"{sign}{_ms(abs(time_ns))}"
