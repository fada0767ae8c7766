"""How does A's total become B's? A chart in which every name moves the total, adding up to B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from common.diff.difference import Difference, Row
from common.report import diff_view as view
from common.report.diff_lines import names_in
from common.report.svg import Row as ChartRow
from common.report.svg import Scale, axis, figure, line, percent

STEPS = 12
HEIGHT = 24
LABEL = 66  # characters
WHOLE = 0.3  # the axis begins at 0 unless what moves is less than this share of the total


@dataclass(frozen=True)
class Step:
    """One movement of the total, from `start` to `start + delta`."""

    label: str
    start: int
    delta: int


def steps(difference: Difference, rows: Sequence[Row], most: int = STEPS) -> tuple[Step, ...]:
    """The largest names, the sum of the others and the remainders; they lead from A to B."""
    moving = [row for row in rows if row.delta]
    parts = [(names_in(row, LABEL, " → "), row.delta) for row in moving[:most]]
    rest = moving[most:]
    up, down = (
        [row.delta for row in rest if (row.delta > 0) == rising] for rising in (True, False)
    )
    parts += [
        (f"({len(deltas):,} more {word})", sum(deltas))
        for deltas, word in ((up, "that grew"), (down, "that shrank"))
        if deltas
    ]
    left = sum(remainder.delta for remainder in difference.remainders)
    if left:
        parts.append(("(remainders)", left))
    if difference.residual:
        parts.append(("(RESIDUAL: wrong, please report this)", difference.residual))
    starts = accumulate((delta for _, delta in parts), initial=difference.total_a)
    return tuple(Step(name, at, delta) for (name, delta), at in zip(parts, starts, strict=False))


def waterfall(
    difference: Difference,
    rows: Sequence[Row],
    names: tuple[str, str] = ("A", "B"),
    most: int = STEPS,
) -> str:
    """The chart; empty where nothing moved. `names` are those of the two totals."""
    found = steps(difference, rows, most)
    if not found:
        return ""
    unit = view.unit_of(difference.quantity)
    scale, cut = _scale(difference, found)
    ends = difference.total_a, difference.total_b
    guides = "".join(line(scale(total), 0, HEIGHT, "guide") for total in ends)
    lines = [_end(names[0], ends[0], scale, unit, guides)]
    for step in found:
        after = step.start + step.delta
        lines.append(
            ChartRow(
                label=step.label,
                value=f"{view.signed(step.delta, unit)} → {view.amount(after, unit)}",
                plot=guides + _bar(scale, step.start, after),
                title=_told(step, difference, unit),
                height=HEIGHT,
            )
        )
    lines.append(_end(names[1], ends[1], scale, unit, guides))
    told = "the axis does not begin at 0; " if cut else ""
    how = f"{told}each bar begins where the one above ends; delta {unit} → total so far"
    divisor = 1e6 if unit == "ms" else float(1 << 20) if unit == "bytes" else 1.0
    shown = Scale(scale.low / divisor, scale.high / divisor)
    foot = axis(shown, shown.ticks(5), "MiB" if unit == "bytes" else unit)
    words = view.words_of(difference.quantity)
    title = f"{words}, from {names[0]} to {names[1]}"
    return f'<div class="waterfall">{figure(title, how, lines, foot)}</div>'


def _told(step: Step, difference: Difference, unit: str) -> str:
    """The step in full: what moved, how much of the whole that is, and where it leads."""
    share = f" ({100 * step.delta / difference.delta:.1f} % of it)" if difference.delta else ""
    after = view.amount(step.start + step.delta, unit)
    moved = f"{view.signed(step.delta, unit)} {unit}"
    whole = f"of the difference, {view.signed(difference.delta, unit)}{share}"
    return f"{step.label}: {moved} {whole}; from {view.amount(step.start, unit)} to {after}"


def _scale(difference: Difference, found: Sequence[Step]) -> tuple[Scale, bool]:
    places = [difference.total_a, difference.total_b]
    places += [step.start + step.delta for step in found]
    low, high = min(places), max(places)
    if high - low >= WHOLE * high:
        return Scale(min(0, low), high), False
    margin = 0.15 * (high - low)
    return Scale(low - margin, high + 0.3 * margin), True


def _end(side: str, total: int, scale: Scale, unit: str, guides: str) -> ChartRow:
    bar = _rect("total", 0.0, scale(total))
    return ChartRow(side, f"{view.amount(total, unit)} {unit}", guides + bar, height=HEIGHT)


def _bar(scale: Scale, start: int, end: int) -> str:
    low, high = sorted((scale(start), scale(end)))
    return _rect("up" if end > start else "down", low, high - low)


def _rect(style: str, at: float, width: float) -> str:
    shown = percent(max(width, 0.2))  # what moved a little is still to be seen
    return f'<rect class="{style}" x="{percent(at)}" y="4" width="{shown}" height="16"/>'
