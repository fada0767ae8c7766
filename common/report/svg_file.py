"""How is a figure drawn that stands in a file of its own? Fixed coordinates, readable anywhere.

For figures in worklogs, which pages show as images: no scripts, no fonts of their own, light and
dark by the reader's setting. Colours are those of Okabe and Ito, told apart also by the colour
blind. Coordinates are pixels; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.report.tables import escape_html

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1b1f24; }
.small { font-size: 10.5px; } .head { font-size: 13px; font-weight: 600; }
.muted { fill: #59636e; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.page { fill: #ffffff; } .panel { fill: none; stroke: #d1d9e0; } .grid { stroke: #e4e9ee; }
.hole { fill: none; stroke: #59636e; stroke-dasharray: 3 2; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f3f6; } .muted { fill: #a7b1bb; } .page { fill: #14181d; }
.panel { stroke: #3d444d; } .grid { stroke: #2a3138; } .hole { stroke: #a7b1bb; } }
"""


def text(x: float, y: float, words: str, style: str = "", title: str = "") -> str:
    hint = f"<title>{escape_html(title)}</title>" if title else ""
    name = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{name}>{hint}{escape_html(words)}</text>'


def box(
    x: float, y: float, width: float, height: float, fill: str = "", style: str = "",
    title: str = "", opacity: float = 1.0,
) -> str:  # fmt: skip
    """`fill` is a colour; `style` a class of the sheet, where the page's scheme must count."""
    attributes = f' class="{style}"' if style else f' fill="{fill}"'
    if opacity < 1:
        attributes += f' fill-opacity="{opacity:.3g}"'
    hint = f"<title>{escape_html(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{attributes}>'
        f"{hint}</rect>"
    )


def rule(x1: float, y1: float, x2: float, y2: float, style: str = "grid", stroke: str = "") -> str:
    look = f' stroke="{stroke}" stroke-width="1.6"' if stroke else f' class="{style}"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{look}/>'


def dot(x: float, y: float, radius: float, fill: str, title: str = "") -> str:
    hint = f"<title>{escape_html(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}">{hint}</circle>'


def path(points: Sequence[tuple[float, float]], stroke: str) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{stroke}" stroke-width="1.6"/>'


def legend(x: float, y: float, entries: Iterable[tuple[str, str]], step: float = 130) -> str:
    """(colour, words) in a row; an empty colour is drawn as a hole."""
    parts = []
    for number, (colour, words) in enumerate(entries):
        left = x + number * step
        mark = box(left, y - 10, 12, 12, colour, "" if colour else "hole")
        parts += [mark, text(left + 17, y, words)]
    return "".join(parts)


def document(
    width: float, height: float, title: str, description: str, body: Iterable[str], note: str
) -> str:
    """The file. `note` stands below the figure: what it is made of, and the command."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">',
        f"<title>{escape_html(title)}</title><desc>{escape_html(description)}</desc>",
        f"<style>{STYLE}</style>",
        box(0, 0, width, height, style="page"),
        text(16, 24, title, "head"),
        *body,
        text(16, height - 10, note, "small muted"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
