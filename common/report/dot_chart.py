"""How is a chart drawn as a file by itself? Horizontal dots and bars with intervals, as SVG.

The charts of the HTML report stretch with their page; a file has a size, draws its text itself and
brings its colours for light and dark. Positions come from the same scales (`common.report.svg`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.report.svg import Scale
from common.report.tables import escape_html, significant

WIDTH, LABEL, VALUE, ROW, TOP, BOTTOM = 960, 270, 230, 30, 64, 56
STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1b1f24; }
.title { font-size: 15px; font-weight: 600; } .soft { fill: #59636e; font-size: 12px; }
.grid { stroke: #d8dee4; } .one { stroke: #59636e; stroke-dasharray: 4 3; } .page { fill: #ffffff; }
.s0 { fill: #2f6fab; stroke: #2f6fab; } .s1 { fill: #b85a1e; stroke: #b85a1e; }
.s2 { fill: #6a747e; stroke: #6a747e; } .s3 { fill: #257a6c; stroke: #257a6c; }
.s4 { fill: #9b4f96; stroke: #9b4f96; } .s5 { fill: #c9a227; stroke: #c9a227; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ec; } .soft { fill: #9aa5b1; } .page { fill: #12161b; }
  .grid { stroke: #313942; } .one { stroke: #9aa5b1; }
}
"""


@dataclass(frozen=True)
class Mark:
    """One row: a dot at `value` with a whisker, or, with `parts`, a bar of stacked lengths."""

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None
    style: int = 0
    parts: tuple[tuple[float, int], ...] = ()  # (length, style)


@dataclass(frozen=True)
class Chart:
    """`one` draws a dashed line there; `legend` names the styles of a stacked bar."""

    title: str
    how: str  # how to read it, in one line
    unit: str
    marks: Sequence[Mark]
    scale: Scale
    origin: str  # measured-cpu, …, and on what
    one: float | None = None
    legend: tuple[tuple[str, int], ...] = ()


def _at(chart: Chart, value: float) -> float:
    inside = WIDTH - LABEL - VALUE
    return LABEL + inside * min(100.0, max(0.0, chart.scale(value))) / 100


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">'
        f"{escape_html(words)}</text>"
    )


def _row(chart: Chart, mark: Mark, middle: float) -> list[str]:
    lines = [_text(LABEL - 10, middle + 4, mark.label, anchor="end")]
    lines.append(_text(WIDTH - VALUE + 10, middle + 4, mark.text, "soft"))
    start = 0.0
    for length, style in mark.parts:
        if length <= 0:
            continue
        left, right = _at(chart, start), _at(chart, start + length)
        lines.append(
            f'<rect class="s{style}" x="{left:.1f}" y="{middle - 8:.1f}" '
            f'width="{max(0.5, right - left):.1f}" height="16"/>'
        )
        start += length
    if mark.interval:
        low, high = (_at(chart, end) for end in mark.interval)
        lines.append(
            f'<path class="s{mark.style}" stroke-width="2" d="M{low:.1f} {middle:.1f}H{high:.1f}'
            f'M{low:.1f} {middle - 5:.1f}v10M{high:.1f} {middle - 5:.1f}v10"/>'
        )
    if not mark.parts:
        place = f'cx="{_at(chart, mark.value):.1f}" cy="{middle:.1f}"'
        lines.append(f'<circle class="s{mark.style}" {place} r="5"/>')
    return lines


def dot_chart(chart: Chart) -> str:
    """The whole file. Rows from top to bottom in the order given."""
    bottom = TOP + ROW * len(chart.marks)
    height = bottom + BOTTOM + (18 if chart.legend else 0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'width="{WIDTH}" height="{height}">',
        f"<title>{escape_html(chart.title)}</title><desc>{escape_html(chart.how)}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        _text(12, 24, chart.title, "title"),
        _text(12, 44, chart.how, "soft"),
    ]
    for tick in chart.scale.ticks():
        x = _at(chart, tick)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        lines.append(_text(x, bottom + 16, significant(tick), "soft", "middle"))
    if chart.one is not None:
        lines.append(f'<path class="one" d="M{_at(chart, chart.one):.1f} {TOP}V{bottom}"/>')
    for number, mark in enumerate(chart.marks):
        lines += _row(chart, mark, TOP + ROW * (number + 0.5))
    lines.append(_text(WIDTH - VALUE + 10, bottom + 16, chart.unit, "soft"))
    x = 12.0
    for name, style in chart.legend:
        lines.append(f'<rect class="s{style}" x="{x}" y="{bottom + 26}" width="11" height="11"/>')
        lines.append(_text(x + 16, bottom + 36, name, "soft"))
        x += 30 + 6.6 * len(name)
    lines.append(_text(12, height - 12, chart.origin, "soft"))
    return "\n".join(lines) + "\n</svg>\n"
