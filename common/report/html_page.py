"""What is around every page? A document that needs nothing beside itself and can do nothing.

The content policy allows no network, and no style or script but those that stand in the page,
named by their hashes. The same content gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from common.report.tables import escape_html


def page_text(
    title: str,
    question: str,
    links: Sequence[tuple[str, str]],
    body: str,
    styles: Sequence[str] = ("page.css",),
    scripts: Sequence[str] = ("page.js", "charts.js"),
) -> str:
    """`links` are (id, heading) of the sections in `body`; `styles` and `scripts` name files of
    this folder."""
    style, script = ("".join(map(_part, names)) for names in (styles, scripts))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    items = "".join(f'<li><a href="#{key}">{escape_html(name)}</a></li>' for key, name in links)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape_html(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the report</a>\n'
        f"<header>\n<h1>{escape_html(title)}</h1>\n"
        + (f'<p class="question">{escape_html(question)}</p>\n' if question else "")
        + f'<nav aria-label="Sections"><ul>{items}</ul></nav>\n</header>\n<main id="main">\n'
        + body
        + f"</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all, and make the folders above it."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _part(name: str) -> str:
    return files("common.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()
