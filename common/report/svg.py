"""How is a chart drawn so that it reads on a phone and on paper? Rows of small inline SVGs.

Every row has its label and its value as real text beside (or, on a narrow page, above) a plot
whose horizontal positions are percentages: the plot stretches, the text never shrinks. No style
attributes and no scripts, so that the page's content policy can forbid both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.report.tables import escape_html, significant


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to 0..100 (percent of the plot's width), linear or logarithmic."""

    low: float
    high: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        if self.high <= self.low:
            return 0.0
        if self.logarithmic:
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the scale, at most about `most` of them."""
        if self.high <= self.low:
            return [self.low]
        return _log_ticks(self.low, self.high, most) if self.logarithmic else self._even(most)

    def _even(self, most: int) -> list[float]:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
        if len(found) <= most:
            break
    if len(found) < 2:  # less than a factor of two: even steps say more
        return Scale(low, high).ticks(4)
    return found[:: max(1, math.ceil(len(found) / most))]


@dataclass(frozen=True)
class Row:
    """One line of a chart. `plot` is the SVG's body; without one `value` takes its place."""

    label: str
    value: str
    plot: str = ""
    title: str = ""
    height: int = 26


def percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def short(name: str, most: int = 36) -> str:
    """The name with its middle left out where it is longer than `most` characters."""
    tail = most // 3
    return name if len(name) <= most else f"{name[: most - tail - 1]}…{name[-tail:]}"


def line(x: float, top: float, bottom: float, style: str) -> str:
    return (
        f'<line class="{style}" x1="{percent(x)}" x2="{percent(x)}" y1="{top:g}" y2="{bottom:g}"/>'
    )


def grid(scale: Scale, height: int, ticks: Iterable[float]) -> str:
    return "".join(line(scale(tick), 0, height, "grid") for tick in ticks)


def svg(body: str, height: int, title: str) -> str:
    return f'<svg role="img" height="{height}"><title>{escape_html(title)}</title>{body}</svg>'


def axis(scale: Scale, ticks: Sequence[float], unit: str, suffix: str = "") -> str:
    """The row under a chart that names the positions; its data let a script name any other."""
    parts = []
    for tick in ticks:
        at = scale(tick)
        anchor = "start" if at < 4 else "end" if at > 96 else "middle"
        text = significant(tick) + suffix
        parts.append(line(at, 0, 4, "tick"))
        parts.append(f'<text x="{percent(at)}" y="16" text-anchor="{anchor}">{text}</text>')
    told = f'data-low="{scale.low:.6g}" data-high="{scale.high:.6g}"'
    told += ' data-log="1"' if scale.logarithmic else ""
    told += f' data-suffix="{escape_html(suffix)}"' if suffix else ""
    return (
        f'<div class="row axis" aria-hidden="true" {told} data-unit="{escape_html(unit)}">'
        '<div class="label"></div><div class="plot">'
        f'<svg height="20">{"".join(parts)}</svg></div>'
        f'<div class="value">{escape_html(unit)}</div></div>\n'
    )


def figure(
    caption: str, description: str, rows: Sequence[Row], foot: str = "", legend: str = ""
) -> str:
    """A captioned chart; `description` says how to read a row, for those who cannot see it."""
    lines = []
    for row in rows:
        label = f'<div class="label">{escape_html(row.label)}</div>'
        value = f'<div class="value">{escape_html(row.value)}</div>'
        if row.plot:
            plot = svg(row.plot, row.height, row.title or f"{row.label}: {row.value}")
            lines.append(f'<div class="row">{label}<div class="plot">{plot}</div>{value}</div>')
        else:
            style = "blank" if row.value else "heading"
            lines.append(f'<div class="row {style}">{label}{value}</div>')
    return (
        f'<figure class="chart"><figcaption>{escape_html(caption)} '
        f'<span class="how">{escape_html(description)}</span></figcaption>{legend}\n'
        + "\n".join(lines)
        + f"\n{foot}</figure>\n"
    )


def legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """(style, full name, shown name) of each colour, in the order in which they are drawn."""
    items = "".join(
        f'<li title="{escape_html(name)}"><svg class="swatch" width="12" height="12" '
        f'aria-hidden="true"><rect class="{style}" width="12" height="12"/></svg>'
        f"{escape_html(shown)}</li>"
        for style, name, shown in entries
    )
    return f'<ul class="legend">{items}</ul>'
