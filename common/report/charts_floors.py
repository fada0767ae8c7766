"""How near does each variant come to the least time that the machine allows? One bar each."""

from __future__ import annotations

from common.report import svg
from common.report.run_view import RunView
from common.report.tables import milliseconds, percent

HEIGHT = 26


def floor_chart(view: RunView) -> str:
    """Bars of floor over measured time, full width 100 %; a tick where counted traffic puts it."""
    found = {
        name: variant["floor"] for name, variant in view.variants.items() if variant.get("floor")
    }
    if not found:
        return ""
    most = max(floor["share_of_floor"] for floor in found.values())
    scale = svg.Scale(0, 100 * max(1.0, most))
    ticks = [tick for tick in scale.ticks(5) if tick <= scale.high]
    rows = []
    for name, floor in found.items():
        share = 100 * floor["share_of_floor"]
        body = (
            svg.grid(scale, HEIGHT, ticks)
            + f'<rect class="room" width="{svg.percent(scale(100))}" y="5" height="16"/>'
            + f'<rect class="reached" width="{svg.percent(max(scale(share), 0.3))}" y="5" '
            'height="16"/>'
        )
        told = ""
        if floor.get("modelled_ns"):
            modelled = 100 * floor["floor_ns"] / floor["modelled_ns"]
            body += svg.line(scale(min(modelled, scale.high)), 2, HEIGHT - 2, "modelled")
            told = f"; counted traffic allows {modelled:.1f} %"
        text = (
            f"{percent(floor['share_of_floor'])}: {milliseconds(floor['floor_ns'])} of "
            f"{milliseconds(floor['measured_ns'])} ms"
        )
        rows.append(svg.Row(name, text, body, f"{name}: {text}{told}", HEIGHT))
    return svg.figure(
        "Share of the floor that each variant reaches",
        "Bar: floor over measured time; the full width is the machine's own limit. Line: where the "
        "bytes that the implementation moves would put it at the copy bandwidth (modelled). More "
        "than 100 % means that a floor is wrong.",
        rows,
        svg.axis(scale, ticks, "% of the floor", " %"),
    )
