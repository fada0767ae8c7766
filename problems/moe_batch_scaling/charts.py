"""How is a curve drawn so that it can be read on paper? One self-contained SVG, values as titles.

Plain elements with presentation attributes, no script and no style sheet: it shows in a page, in a
worklog on the web and in a notebook alike. Hovering over a point names its value; in a report each
legend entry switches its curve (`common/report/html_charts.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common.report.svg import Scale
from common.report.tables import escape_html, significant

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 34, 46
LEGEND_STEP = 14
# Distinguishable in grey and for the colour-blind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#000000")


@dataclass(frozen=True)
class Series:
    """One curve. `low` and `high` are the ends of the points' intervals, if there are any."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False
    markers: bool = True
    line: bool = True


@dataclass(frozen=True)
class Mark:
    """A vertical line with words: a knee, a turning point, a ridge."""

    x: float
    words: str


@dataclass(frozen=True)
class Chart:
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    log_x: bool = True
    log_y: bool = True
    foot: str = ""
    x_ticks: tuple[float, ...] = field(default=())

    def svg(self) -> str:
        """The drawing. Points that are not finite (on a log axis: not above zero) are left out."""
        series = [_clean(each, self.log_x, self.log_y) for each in self.series]
        xs = [x for each in series for x in each.x] + [mark.x for mark in self.marks]
        ys = [y for each in series for y in (*each.y, *each.low, *each.high)]
        if not xs or not ys:
            return _frame(
                self.title, _text(WIDTH / 2, HEIGHT / 2, "nothing was measured", "middle")
            )
        across = _padded(xs, self.log_x)
        up = _padded(ys, self.log_y)

        def at(x: float, y: float) -> tuple[float, float]:
            return (
                LEFT + across(x) / 100 * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - up(y) / 100 * (HEIGHT - TOP - BOTTOM),
            )

        parts = [_axes(self, across, up)]
        for mark in self.marks:
            x, _ = at(mark.x, up.low)
            parts.append(_line(x, TOP, x, HEIGHT - BOTTOM, "#888888", "4 3"))
            foot, turn = HEIGHT - BOTTOM - 6, x - 3
            parts.append(
                f'<text x="{turn:.1f}" y="{foot}" font-size="10" fill="#555555" '
                f'transform="rotate(-90 {turn:.1f} {foot})">{escape_html(mark.words)}</text>'
            )
        for number, each in enumerate(series):
            curve = _curve(each, COLOURS[number % len(COLOURS)], at)
            parts.append(f'<g data-series="{number}">{curve}</g>')
        parts.append(_legend(series, at))
        return _frame(self.title, "".join(parts), self.foot)


def _clean(series: Series, log_x: bool, log_y: bool) -> Series:
    def usable(x: float, y: float) -> bool:
        finite = math.isfinite(x) and math.isfinite(y)
        return finite and not (log_x and x <= 0) and not (log_y and y <= 0)

    kept = [i for i, (x, y) in enumerate(zip(series.x, series.y, strict=True)) if usable(x, y)]

    def ends(values: tuple[float, ...]) -> tuple[float, ...]:
        # A point without an interval has the point itself.
        if not values:
            return ()
        return tuple(values[i] if math.isfinite(values[i]) else series.y[i] for i in kept)

    return Series(
        series.name, tuple(series.x[i] for i in kept), tuple(series.y[i] for i in kept),
        ends(series.low), ends(series.high), series.dashed, series.markers, series.line,
    )  # fmt: skip


def _padded(values: Sequence[float], logarithmic: bool) -> Scale:
    low, high = min(values), max(values)
    if logarithmic:
        spread = max(high / low, 1.5) ** 0.06
        return Scale(low / spread, high * spread, True)
    room = 0.06 * (high - min(0.0, low) or 1.0)
    return Scale(min(0.0, low), high + room)


def _axes(chart: Chart, across: Scale, up: Scale) -> str:
    parts = []
    for tick in chart.x_ticks or across.ticks(8):
        x = LEFT + across(tick) / 100 * (WIDTH - LEFT - RIGHT)
        parts.append(_line(x, TOP, x, HEIGHT - BOTTOM, "#e2e2e2"))
        parts.append(_text(x, HEIGHT - BOTTOM + 15, significant(tick), "middle"))
    for tick in up.ticks(7):
        y = HEIGHT - BOTTOM - up(tick) / 100 * (HEIGHT - TOP - BOTTOM)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "#e2e2e2"))
        parts.append(_text(LEFT - 5, y + 4, significant(tick), "end"))
    parts.append(_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "#333333"))
    parts.append(_line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "#333333"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 32, chart.x_label, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{middle:.1f}" font-size="11" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.1f})">{escape_html(chart.y_label)}</text>'
    )
    return "".join(parts)


def _curve(series: Series, colour: str, at: Callable[[float, float], tuple[float, float]]) -> str:
    places = [at(x, y) for x, y in zip(series.x, series.y, strict=True)]
    parts = []
    if series.line and len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>'
        )
    for index, (x, y) in enumerate(places):
        words = f"{series.name}: {significant(series.y[index])} at {significant(series.x[index])}"
        if series.low and series.high:
            words += f" ({significant(series.low[index])} … {significant(series.high[index])})"
            top, bottom = (
                at(series.x[index], series.high[index]),
                at(series.x[index], series.low[index]),
            )
            parts.append(_line(top[0], top[1], bottom[0], bottom[1], colour))
        if series.markers:
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}">'
                f"<title>{escape_html(words)}</title></circle>"
            )
    return "".join(parts)


def _legend(series: Sequence[Series], at: Callable[[float, float], tuple[float, float]]) -> str:
    """The names of the curves that have points, in the corner where they hide least."""
    drawn = [(number, each) for number, each in enumerate(series) if each.x]
    wide = 30 + 6.2 * max(len(each.name) for _, each in drawn)
    high = LEGEND_STEP * len(drawn)
    points = [place for _, each in drawn for place in _along(each, at)]
    lefts, tops = (LEFT + 8, WIDTH - RIGHT - wide), (TOP + 2, HEIGHT - BOTTOM - high - 6)
    corners = [(float(x), float(y)) for y in tops for x in lefts]

    def hidden(corner: tuple[float, float]) -> int:
        x, y = corner
        return sum(x - 4 <= a <= x + wide + 4 and y - 4 <= b <= y + high + 4 for a, b in points)

    x, y = min(corners, key=hidden)  # of equals the first: top left
    parts = []
    for number, each in drawn:
        colour = COLOURS[number % len(COLOURS)]
        dash = "5 4" if each.dashed else ""
        y += LEGEND_STEP
        if each.line:
            sample = _line(x, y - 8, x + 18, y - 8, colour, dash, 2)
        else:
            sample = f'<circle cx="{x + 9:.1f}" cy="{y - 8:.1f}" r="3.4" fill="{colour}"/>'
        words = _text(x + 23, y - 4, each.name, "start")
        parts.append(f'<g data-legend="{number}">{sample}{words}</g>')
    return "".join(parts)


def _along(
    series: Series, at: Callable[[float, float], tuple[float, float]]
) -> list[tuple[float, float]]:
    """Places on the curve: its points, and some between where a line joins them."""
    places = [at(x, y) for x, y in zip(series.x, series.y, strict=True)]
    found = list(places)
    if series.line:
        for (ax, ay), (bx, by) in itertools.pairwise(places):
            found += [(ax + (bx - ax) * n / 8, ay + (by - ay) * n / 8) for n in range(1, 8)]
    return found


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "", width: float = 1
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}">'
        f"{escape_html(words)}</text>"
    )


def _frame(title: str, body: str, foot: str = "") -> str:
    height = HEIGHT + (16 if foot else 0)
    place = f'x="{LEFT}" y="{HEIGHT + 8}" font-size="10" fill="#555555"'
    under = f"<text {place}>{escape_html(foot)}</text>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" role="img">'
        f"<title>{escape_html(title)}</title>"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="bold">{escape_html(title)}</text>'
        f"{body}{under if foot else ''}</svg>\n"
    )
