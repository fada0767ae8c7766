"""How do the charts that a variant drew get into the page, and answer to the pointer there?

A chart is an SVG file of the run's folder, and a run's folder may come from anybody: it is read as
XML and written anew from a list of elements and attributes, so that nothing in it can act. Curves
are groups with `data-series`, legend entries with `data-legend`: the page's script makes each entry
a switch of its curve. Values stand in the points' titles; without a script all of it is visible.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from common.report.run_view import RunView
from common.report.tables import escape_html

MOST_BYTES, MOST_CHARTS = 400_000, 40
ELEMENTS = frozenset(
    ("svg", "g", "title", "desc", "rect", "line", "circle", "polyline", "path", "text")
)
ATTRIBUTES = frozenset(
    ("viewBox", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "points", "d",
     "fill", "stroke", "stroke-width", "stroke-dasharray", "text-anchor", "transform", "role",
     "font-size", "font-weight", "font-family", "data-series", "data-legend")
)  # fmt: skip
VALUE = re.compile(r"[\w#.,:+\- ()%]*", re.ASCII)  # no quotes, no url(…) with an address


def charts(view: RunView, where: Path) -> str:
    """Every chart of every variant, folded by variant; empty where none was drawn."""
    parts = []
    for variant in view.variants:
        folder = view.folder / "traces" / variant / "charts"
        found = sorted(folder.glob("*.svg"))[:MOST_CHARTS]
        drawn = [(path.stem, clean_svg(path)) for path in found]
        kept = [
            f"<figure>{text}<figcaption>{escape_html(name)}</figcaption></figure>\n"
            for name, text in drawn
            if text
        ]
        if kept:
            parts.append(
                f"<details open><summary>{escape_html(variant)} ({len(kept)} charts)</summary>"
                f'<div class="charts">{"".join(kept)}</div></details>\n'
            )
    return "".join(parts)


def clean_svg(path: Path) -> str:
    """The drawing with nothing in it but shapes and words; empty where it is no such drawing."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return ""
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            return ""
        root = ElementTree.fromstring(text)
    except (OSError, UnicodeDecodeError, ElementTree.ParseError):
        return ""
    return _clean(root) if _name(root) == "svg" else ""


def _clean(element: ElementTree.Element) -> str:
    name = _name(element)
    if name not in ELEMENTS:
        return ""
    kept = "".join(
        f' {key}="{escape_html(value)}"'
        for key, value in element.attrib.items()
        if key in ATTRIBUTES and VALUE.fullmatch(value)
    )
    inside = escape_html(element.text or "").strip() + "".join(map(_clean, element))
    return f"<{name}{kept}>{inside}</{name}>"


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
