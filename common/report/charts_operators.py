"""Where did the time go, operator by operator, in each variant? Stacked bars that add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.report import svg
from common.report.run_view import RunView
from common.report.tables import escape_html, milliseconds, percent

COLOURS = 8
SMALLEST_SHARE = 0.01  # of a variant's phase; what is smaller everywhere needs no colour
OTHER = "all other operators"
OUTSIDE = "outside any operator"
ROOM_FOR_TEXT = 9.0  # percent of the plot's width: "78 %" fits at a phone's width


@dataclass(frozen=True)
class Segment:
    name: str
    style: str  # c1 … c8, other, outside
    time_ns: float


@dataclass(frozen=True)
class Bar:
    """One variant's phase, per recorded occurrence; sum(segments) is `total_ns`."""

    variant: str
    total_ns: float
    segments: tuple[Segment, ...]


def colours(view: RunView, phases: Sequence[str]) -> dict[str, dict[str, str]]:
    """phase -> {operator: style}. An operator keeps its colour over variants and phases."""
    fixed: dict[str, str] = {}
    chosen: dict[str, dict[str, str]] = {}
    for phase in phases:
        top = _largest(view, phase)
        taken = {fixed[name] for name in top if name in fixed}
        free = [f"c{n}" for n in range(1, COLOURS + 1) if f"c{n}" not in taken]
        for name in top:
            if name not in fixed:
                fixed[name] = free.pop(0)
        chosen[phase] = {name: fixed[name] for name in top}
    return chosen


def _largest(view: RunView, phase: str) -> list[str]:
    """The operators with the largest share of any variant's phase, largest first."""
    shares: dict[str, float] = {}
    for name in view.variants:
        time = view.profile(name, phase, "time")
        if time is None:
            continue
        for row in time["rows"]:
            share = row["time_ns"] / time["total_ns"]
            shares[row["operator"]] = max(share, shares.get(row["operator"], 0.0))
    ordered = sorted(shares, key=lambda operator: (-shares[operator], operator))
    return [operator for operator in ordered if shares[operator] >= SMALLEST_SHARE][:COLOURS]


def bars(view: RunView, phase: str, styles: dict[str, str]) -> list[Bar]:
    """One bar per profiled variant; segments in the order of `styles`, then the two remainders."""
    found = []
    for name in view.variants:
        time = view.profile(name, phase, "time")
        if time is None:
            continue
        runs = time["occurrences"]
        named = dict.fromkeys(styles, 0)
        other = time["other_operators"]["time_ns"]
        for row in time["rows"]:
            if row["operator"] in named:
                named[row["operator"]] += row["time_ns"]
            else:
                other += row["time_ns"]
        parts = [Segment(operator, styles[operator], ns / runs) for operator, ns in named.items()]
        parts.append(Segment(OTHER, "other", other / runs))
        parts.append(Segment(OUTSIDE, "outside", time["outside_operators_ns"] / runs))
        found.append(Bar(name, time["total_ns"] / runs, tuple(parts)))
    return found


def operator_charts(view: RunView, phase: str, styles: dict[str, str]) -> str:
    """The same bars twice: in milliseconds on one scale, and each as its own 100 %."""
    drawn = bars(view, phase, styles)
    if not drawn:
        return ""
    entries = [(style, name, svg.short(name)) for name, style in styles.items()]
    entries += [("other", OTHER, OTHER), ("outside", OUTSIDE, OUTSIDE)]
    key = svg.legend(entries)
    longest = max(bar.total_ns for bar in drawn)
    common = svg.Scale(0, longest / 1e6)
    ticks = common.ticks()
    unit = f"ms per {phase}" + _units_in_words(view, phase)
    absolute = svg.figure(
        "Milliseconds, one scale for all variants",
        "Each bar is the profiled time of the phase; its parts, in the legend's order, add up.",
        [_row(bar, longest, f"{milliseconds(bar.total_ns)} ms", ticks, common) for bar in drawn],
        svg.axis(common, ticks, unit),
        key,
    )
    share = svg.Scale(0, 100)
    quarters = [0.0, 25.0, 50.0, 75.0, 100.0]
    relative = svg.figure(
        "The same time as shares",
        "Each bar is 100 % of its own variant; same colours.",
        [_row(bar, bar.total_ns, _largest_part(bar), quarters, share) for bar in drawn],
        svg.axis(share, quarters, "% of the variant's time"),
    )
    return absolute + relative


def _units_in_words(view: RunView, phase: str) -> str:
    """How many steps one recorded occurrence holds, where the profiled pass wrote it down."""
    key = view.manifest["phases"].get(phase) or ""
    found = {f.get(f"profiled_{key}") for f in view.manifest.get("profile_facts", {}).values()}
    found.discard(None)
    return f" of {found.pop()} {key.split('_')[-1]}" if len(found) == 1 else ""


def _row(bar: Bar, full_ns: float, value: str, ticks: Sequence[float], scale: svg.Scale) -> svg.Row:
    height, top, thick = 26, 4, 18
    parts = [svg.grid(scale, height, ticks)]
    at = 0.0
    for segment in bar.segments:
        width = 100 * segment.time_ns / full_ns
        if width <= 0:
            continue
        share = percent(segment.time_ns / bar.total_ns)
        parts.append(
            f'<rect class="seg {segment.style}" x="{svg.percent(at)}" y="{top}" '
            f'width="{svg.percent(width)}" height="{thick}">'
            f"<title>{escape_html(segment.name)}: {milliseconds(segment.time_ns)} ms, {share}"
            "</title></rect>"
        )
        if width >= ROOM_FOR_TEXT:
            parts.append(
                f'<text class="in {segment.style}" x="{svg.percent(at + width / 2)}" '
                f'y="{top + 13}" text-anchor="middle">'
                f"{100 * segment.time_ns / bar.total_ns:.0f}%</text>"
            )
        at += width
    said = ", ".join(
        f"{s.name} {percent(s.time_ns / bar.total_ns)}"
        for s in sorted(bar.segments, key=lambda s: -s.time_ns)[:3]
    )
    title = f"{bar.variant}: {milliseconds(bar.total_ns)} ms; {said}"
    return svg.Row(bar.variant, value, "".join(parts), title, height)


def _largest_part(bar: Bar) -> str:
    largest = max(bar.segments, key=lambda s: s.time_ns)
    return f"{svg.short(largest.name, 30)} {percent(largest.time_ns / bar.total_ns)}"
