"""How much slower or faster is each variant, and how steady was the measurement? As charts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from common.report import svg
from common.report.run_view import RunView
from common.report.tables import interval, milliseconds, significant

VERDICT_STYLES = {"SLOWER": "slower", "FASTER": "faster"}
QUIETEST_SPREAD = 1.1  # a chart never magnifies less than ±10 %: noise would look like a signal
STRIP_HEIGHT = 56
MOST_TOLD = 200  # samples of a row that say by themselves what they are


def ratio_chart(view: RunView, phase: str) -> str:
    """Dot and whisker of every variant's time over the baseline's, on a logarithmic axis."""
    ratios = {r["variant"]: r for r in view.summary["ratios"] if r["phase"] == phase}
    if not ratios:
        return ""
    ends = [1.0]
    for row in ratios.values():
        ends += [row["ratio"], *(row["interval"] or ())]
    scale = svg.Scale(min(ends) / 1.15, max(ends) * 1.15, logarithmic=True)
    ticks = scale.ticks()
    rows = [_ratio_row(view, name, ratios.get(name), phase, scale, ticks) for name in view.variants]
    baseline = view.summary["baseline"]
    return svg.figure(
        f"Time relative to {baseline}",
        "Dot: ratio of times, whisker: its interval. Right of the line at 1 is slower. "
        "Logarithmic axis.",
        rows,
        svg.axis(scale, ticks, "slower →", "×"),
    )


def _ratio_row(
    view: RunView,
    name: str,
    ratio: Mapping[str, Any] | None,
    phase: str,
    scale: svg.Scale,
    ticks: list[float],
) -> svg.Row:
    height = 28
    back = svg.grid(scale, height, ticks) + svg.line(scale(1), 0, height, "one")
    middle = height / 2
    if ratio is None:
        if name == view.summary["baseline"] and phase in view.variants[name]["phases"]:
            dot = f'<circle class="base" cx="{svg.percent(scale(1))}" cy="{middle:g}" r="4"/>'
            return svg.Row(name, "1× baseline", back + dot, height=height)
        return svg.Row(name, _why_not(view.variants[name]))
    style = VERDICT_STYLES.get(ratio["verdict"], "open")
    at = svg.percent(scale(ratio["ratio"]))
    dot = f'<circle class="{style}" cx="{at}" cy="{middle:g}" r="4.5"/>'
    whisker = ""
    value = f"{significant(ratio['ratio'])}×"
    told = f"{name}: {significant(ratio['ratio'], 5)}×"
    if ratio["interval"]:
        low, high = (scale(end) for end in ratio["interval"])
        whisker = (
            f'<line class="whisker {style}" x1="{svg.percent(low)}" x2="{svg.percent(high)}" '
            f'y1="{middle:g}" y2="{middle:g}"/>'
        )
        whisker += svg.line(low, middle - 5, middle + 5, f"whisker {style}")
        whisker += svg.line(high, middle - 5, middle + 5, f"whisker {style}")
        value += f" ({interval(*ratio['interval'])})"
        ends = (significant(end, 5) for end in ratio["interval"])
        told += f", 95 % interval {' … '.join(ends)}"
    measured = view.variants[name]["phases"].get(phase)
    told += f", {ratio['verdict']}"
    told += f"; {milliseconds(measured['median_ns'])} ms" if measured else ""
    return svg.Row(name, f"{value} {ratio['verdict']}", back + whisker + dot, told, height)


def _why_not(variant: Mapping[str, Any]) -> str:
    if variant.get("reason"):
        return f"{variant['state']}: {variant['reason']}"
    return "not timed" if variant["state"] == "measured" else str(variant["state"])


def samples_chart(view: RunView, phase: str) -> str:
    """Every repetition in measured order, each variant relative to its own median, one log scale.

    A level series is a steady measurement; a slope is drift (heat, clocks), a step is somebody
    else's work on the machine.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for sample in view.samples:
        if sample["phase"] == phase and sample["duration_ns"] > 0:
            series.setdefault(str(sample["variant"]), []).append(
                (int(sample["round"]), float(sample["duration_ns"]))
            )
    shown = {
        name: series[name]
        for name, variant in view.variants.items()
        if name in series and phase in variant["phases"]
    }
    if not shown:
        return ""
    relative: dict[str, list[tuple[int, float]]] = {}
    for name, points in shown.items():
        variant = view.variants[name]["phases"][phase]
        median = variant["median_ns"] * variant["units_per_sample"]
        relative[name] = [(number, value / median) for number, value in points]
    spread = max(max(v, 1 / v) for points in relative.values() for _, v in points)
    spread = max(spread, QUIETEST_SPREAD) ** 1.1  # dots stay off the edges
    last = max(number for points in relative.values() for number, _ in points)
    scale = svg.Scale(-0.5, last + 0.5)
    half = _round_factor(spread)
    rows = [
        _strip(name, points, scale, spread, half, view.variants[name]["phases"][phase])
        for name, points in relative.items()
    ]
    ticks = sorted({float(round(tick)) for tick in svg.Scale(0, last).ticks(6)})
    return svg.figure(
        f"Every sample of {phase} in measured order",
        f"Height: time relative to the variant's own median (solid line), logarithmic, the same "
        f"for all rows; dashed lines at {significant(half)}× and 1/{significant(half)}.",
        rows,
        svg.axis(scale, ticks, "round"),
    )


def _strip(
    name: str,
    points: list[tuple[int, float]],
    scale: svg.Scale,
    spread: float,
    half: float,
    measured: Mapping[str, Any],
) -> svg.Row:
    def height_of(value: float) -> float:
        return STRIP_HEIGHT * (0.5 - 0.5 * math.log(value) / math.log(spread))

    back = '<rect class="band" width="100%" y="1" height="' + f'{STRIP_HEIGHT - 2}"/>'
    for value, style in ((half, "guide"), (1.0, "one"), (1 / half, "guide")):
        y = height_of(value)
        back += f'<line class="{style}" x1="0%" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
    told = len(points) <= MOST_TOLD
    dots = "".join(
        f'<circle class="sample" cx="{svg.percent(scale(at))}" cy="{height_of(v):.1f}" r="2.5">'
        + (f"<title>round {at}: {significant(v)}× the median</title>" if told else "")
        + "</circle>"
        for at, v in points
    )
    extremes = f"{milliseconds(measured['minimum_ns'])} … {milliseconds(measured['maximum_ns'])} ms"
    return svg.Row(
        name,
        f"median {milliseconds(measured['median_ns'])} ms, {extremes}",
        back + dots,
        f"{name}: {len(points)} samples, {extremes}",
        STRIP_HEIGHT,
    )


def _round_factor(spread: float) -> float:
    """The largest of a few round factors that still lies well inside the chart."""
    factors = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
    inside = [factor for factor in factors if factor <= spread**0.8]
    return inside[-1] if inside else 1.02
