"""How did equal variants come out in several runs? Dots with intervals, over time and machines.

Only what has the same name, problem and preset is set side by side. Times are compared within one
machine; the ratio to the baseline of the same run also between machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.report import svg
from common.report.charts_timing import VERDICT_STYLES
from common.report.run_view import RunView
from common.report.tables import interval, milliseconds, significant
from common.timing.statistics import Comparison, compare_unpaired

HEIGHT = 24


@dataclass(frozen=True)
class Point:
    """One variant's phase in one run. Times in ns of one unit; `change` against the first run of
    the same machine, None for that one itself."""

    variant: str
    run: str
    started: str  # "2026-11-20 22:24"
    machine: str  # device, and the instruction set where it is known
    median_ns: float
    interval_ns: tuple[float, float] | None
    ratio: Mapping[str, Any] | None
    change: Comparison | None


def points(views: Sequence[RunView], names: Sequence[str], phase: str) -> list[Point]:
    """By variant, then in the order of the runs; variants of one run alone are left out."""
    found: list[Point] = []
    variants = dict.fromkeys(name for view in views for name in view.variants)
    for variant in variants:
        first: dict[str, list[float]] = {}
        own: list[Point] = []
        for view, run in zip(views, names, strict=True):
            record = view.variants.get(variant, {})
            measured = record.get("phases", {}).get(phase)
            samples = _samples(view, variant, phase)
            if measured is None or not samples:
                continue
            before = first.setdefault(view.machine, samples)
            change = None
            if before is not samples:
                change = compare_unpaired(before, samples, reason="two runs")
            ends = measured["interval_ns"]
            own.append(
                Point(
                    variant,
                    run,
                    str(view.summary["started"])[:16].replace("T", " "),
                    view.machine,
                    measured["median_ns"],
                    (ends[0], ends[1]) if ends else None,
                    _ratio(view, variant, phase),
                    change,
                )
            )
        found += own if len(own) > 1 else []
    return found


def _samples(view: RunView, variant: str, phase: str) -> list[float]:
    rounds = view.evidence.usable(variant, phase) or {}
    units = view.evidence.units(phase)
    return [duration / units for duration in rounds.values()]


def _ratio(view: RunView, variant: str, phase: str) -> Mapping[str, Any] | None:
    for row in view.summary["ratios"]:
        if row["variant"] == variant and row["phase"] == phase:
            found: Mapping[str, Any] = row
            return found
    return None


def trend_charts(found: Sequence[Point], phase: str) -> str:
    """Times, and ratios to the baseline; empty where no variant was measured twice."""
    charts = _times(found, phase) + _ratios(found, phase)
    return f'<div class="trend">{charts}</div>\n' if charts else ""


def _times(found: Sequence[Point], phase: str) -> str:
    if not found:
        return ""
    ends = [end for point in found for end in (point.interval_ns or (point.median_ns,) * 2)]
    scale = svg.Scale(min(ends) / 1.15e6, max(ends) * 1.15 / 1e6, logarithmic=True)
    ticks = scale.ticks()
    rows = []
    for point in found:
        style = VERDICT_STYLES.get(str(point.change.verdict), "open") if point.change else "base"
        times = point.interval_ns
        low, high = (times[0] / 1e6, times[1] / 1e6) if times else (None, None)
        body = _whisker(scale, ticks, point.median_ns / 1e6, low, high, style)
        label = _label(point, found)
        told = f"{label}: {time_words(point)} ms, on {point.machine}; {change_words(point)}"
        text = f"{time_words(point)} ms, {_verdict(point)}"
        rows.append(svg.Row(label, text, body, told, HEIGHT))
    return svg.figure(
        f"Time of {phase}, run by run",
        "Dot: median, whisker: its 95 % interval, logarithmic axis. Full dot: the first run on a "
        "machine; red and green: slower and faster than it beyond what two runs differ by; empty: "
        "not decided, or the same.",
        rows,
        svg.axis(scale, ticks, "ms"),
    )


def time_words(point: Point) -> str:
    """Milliseconds and their interval: "9.68 (9.39 … 11.3)"."""
    ends = point.interval_ns
    spread = f" ({milliseconds(ends[0])} … {milliseconds(ends[1])})" if ends else ""
    return milliseconds(point.median_ns) + spread


def _label(point: Point, among: Sequence[Point]) -> str:
    """Variant and date; where two runs began in one minute, the run's own name."""
    same = [other.run for other in among if other.started == point.started]
    return f"{point.variant}, {point.started if len(set(same)) == 1 else point.run}"


def _verdict(point: Point) -> str:
    """What fits beside a dot; the ratio and its interval stand in the table below it."""
    return str(point.change.verdict) if point.change else "first"


def change_words(point: Point) -> str:
    """Against the first run of the machine: "1.02× (0.98 … 1.06) SAME"."""
    if point.change is None:
        return "first on this machine"
    ends = point.change.interval
    spread = f" ({interval(ends.low, ends.high)})" if ends else ""
    return f"{significant(point.change.ratio)}×{spread} {point.change.verdict}"


def _ratios(found: Sequence[Point], phase: str) -> str:
    rated = [point for point in found if point.ratio is not None]
    if not rated:
        return ""
    ends = [1.0]
    for point in rated:
        assert point.ratio is not None
        ends += [point.ratio["ratio"], *(point.ratio["interval"] or ())]
    scale = svg.Scale(min(ends) / 1.15, max(ends) * 1.15, logarithmic=True)
    ticks = scale.ticks()
    rows = []
    for point in rated:
        row = point.ratio
        assert row is not None
        low, high = row["interval"] or (None, None)
        style = VERDICT_STYLES.get(row["verdict"], "open")
        body = _whisker(scale, ticks, row["ratio"], low, high, style)
        body += svg.line(scale(1), 0, HEIGHT, "one")
        spread = f" ({interval(*row['interval'])})" if row["interval"] else ""
        text = f"{significant(row['ratio'])}×{spread} {row['verdict']}"
        rows.append(svg.Row(_label(point, rated), text, body, height=HEIGHT))
    return svg.figure(
        f"Time of {phase} over the baseline of the same run",
        "What can be compared between machines. Right of the line at 1 is slower than the "
        "baseline.",
        rows,
        svg.axis(scale, ticks, "slower →", "×"),
    )


def _whisker(
    scale: svg.Scale,
    ticks: Sequence[float],
    value: float,
    low: float | None,
    high: float | None,
    style: str,
) -> str:
    middle = HEIGHT / 2
    body = svg.grid(scale, HEIGHT, ticks)
    line = style if style != "base" else "open"
    if low is not None and high is not None:
        body += (
            f'<line class="whisker {line}" x1="{svg.percent(scale(low))}" '
            f'x2="{svg.percent(scale(high))}" y1="{middle:g}" y2="{middle:g}"/>'
        )
        for end in (low, high):
            body += svg.line(scale(end), middle - 5, middle + 5, f"whisker {line}")
    at = svg.percent(scale(value))
    return body + f'<circle class="{style}" cx="{at}" cy="{middle:g}" r="4.5"/>'
