"""When was how much temporary memory alive? A step line per variant over its profiled stretch."""

from __future__ import annotations

from collections.abc import Sequence

from common.report import svg
from common.report.run_view import RunView
from common.report.tables import escape_html, mebibytes, milliseconds

HEIGHT = 96
TOP = 28  # room above the line for the names of the phases and, below them, the peak's label
FLOOR = 2


def memory_chart(view: RunView) -> str:
    """Small multiples with one height scale; each row has its own time axis, named beside it.

    Variants differ in length by more than an order of magnitude: on one time axis the short ones
    would be a dot. What is compared is the height.
    """
    lines = {
        name: variant["memory_timeline"]
        for name, variant in view.variants.items()
        if variant.get("memory_timeline")
    }
    highest = max((live for steps in lines.values() for _, live in steps), default=0)
    if highest <= 0:
        return ""
    lowest = min(0, *(live for steps in lines.values() for _, live in steps))
    scale = svg.Scale(lowest, highest)
    ticks = [tick * (1 << 20) for tick in svg.Scale(0, highest / (1 << 20)).ticks(3)]
    rows = [_row(view, name, steps, scale, ticks) for name, steps in lines.items()]
    return svg.figure(
        "Live temporary bytes over the profiled stretch",
        "Same height scale in all rows, MiB above what was live at the start; each row runs over "
        "its own profiled time, whose length stands beside it. Dot: the peak.",
        rows,
    )


def _row(
    view: RunView,
    name: str,
    steps: Sequence[Sequence[int]],
    scale: svg.Scale,
    ticks: Sequence[float],
) -> svg.Row:
    room = HEIGHT - TOP - FLOOR

    def y(live: float) -> float:
        return TOP + room * (1 - scale(live) / 100)

    first, last = steps[0][0], steps[-1][0]
    time = svg.Scale(first, max(last, first + 1))
    parts = []
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="0%" x2="100%" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
    path = f"M0 {y(0):.1f}"
    for when, live in steps:
        path += f"H{10 * time(when):.1f}V{y(live):.1f}"
    parts.append(
        f'<svg viewBox="0 0 1000 {HEIGHT}" width="100%" height="{HEIGHT}" '
        f'preserveAspectRatio="none"><path class="area" d="{path}H1000V{y(0):.1f}Z"/>'
        f'<path class="step" d="{path}H1000"/></svg>'
    )
    for phase, start, _ in view.variants[name].get("memory_ranges", []):
        x = svg.percent(min(max(time(start), 0.0), 100.0))
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="2" y2="{HEIGHT - FLOOR}"/>')
        parts.append(f'<text class="scale" x="{x}" dx="4" y="10">{escape_html(phase)}</text>')
    for tick in ticks[1:] or ticks:
        label = f"{tick / (1 << 20):g}"
        parts.append(f'<text class="scale" x="0" y="{y(tick) - 3:.1f}">{label} MiB</text>')
    when, live = max(steps, key=lambda step: step[1])
    at = time(when)
    anchor, shift = ("end", -6) if at > 60 else ("start", 6)
    parts.append(f'<circle class="peak" cx="{svg.percent(at)}" cy="{y(live):.1f}" r="3.5"/>')
    parts.append(
        f'<text class="peak" x="{svg.percent(at)}" dx="{shift}" y="{y(live) - 4:.1f}" '
        f'text-anchor="{anchor}">{mebibytes(live)} MiB</text>'
    )
    return svg.Row(
        name,
        f"{milliseconds(last - first)} ms. {_peaks(view, name)}",
        "".join(parts),
        f"{name}: peak {mebibytes(live)} MiB live. {_peaks(view, name)}",
        HEIGHT,
    )


def _peaks(view: RunView, name: str) -> str:
    """The highest peak within a phase, in words: MiB, bytes per element, and who holds it."""
    found = [(p, m) for p in view.phases if (m := view.profile(name, p, "memory")) is not None]
    if not found:
        return "no phase recorded"
    phase, peak = max(found, key=lambda pair: pair[1]["temporary_peak_bytes"])
    text = f"{phase} adds at most {mebibytes(peak['temporary_peak_bytes'])} MiB"
    per_element = peak["bytes_per_element_of_largest_linear"]
    if per_element is not None:
        text += f", {per_element:.2f} bytes per element of the largest linear"
    if peak["held_by"]:
        text += f", held by {peak['held_by'][0]}"
    return text
