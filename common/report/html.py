"""What does a reader get of one or several runs? One page that needs nothing beside itself.

No network, no external file; the one script sorts tables and may be missing. Everything that
comes from a run is escaped, and the page's own content policy allows no script or style but the
two that stand in it, by their hashes. The same folders give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from common.errors import UsageError
from common.report import html_environment, html_sections
from common.report.run_view import RunView, headline, problem_words, read_view
from common.report.tables import Table, escape_html

SECTIONS = (
    ("claims", "Claims", html_sections.claims),
    ("times", "Times and verdicts", html_sections.times),
    ("floors", "Distance to the floor", html_sections.floors),
    ("operators", "Time by operator", html_sections.operators),
    ("memory", "Memory", html_sections.memory),
    ("correctness", "Correctness", html_sections.correctness),
    ("samples", "Raw samples", html_sections.samples),
    ("environment", "Environment and files", html_environment.environment),
)


def write_report(folders: Sequence[Path], path: Path) -> Path:
    """Write the report of the runs in `folders` to `path` and return it.

    Raises UsageError for a folder that is no run, and where none is given.
    """
    if not folders:
        raise UsageError("a report needs a run; give the folder of one")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the file that the report goes to")
    try:
        page = render([read_view(folder) for folder in folders], path.absolute().parent)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"the files of {', '.join(str(folder) for folder in folders)} do not fit together "
            f"({type(error).__name__}: {error}); take the run again from where it was made"
        ) from error
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def render(views: Sequence[RunView], place: Path) -> str:
    """The page's text; links to the runs' files are relative to the folder `place`."""
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title, question = _title(views)
    body = "".join(_run(view, number, place) for number, view in enumerate(views, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape_html(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the report</a>\n'
        f"<header>\n<h1>{escape_html(title)}</h1>\n"
        + (f'<p class="question">{escape_html(question)}</p>\n' if question else "")
        + _navigation(views)
        + '</header>\n<main id="main">\n'
        + (_comparison(views) if len(views) > 1 else "")
        + body
        + f"</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _part(name: str) -> str:
    return files("common.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def _title(views: Sequence[RunView]) -> tuple[str, str]:
    words = {problem_words(view.manifest) for view in views}
    if len(words) == 1:
        return words.pop()
    return f"{len(views)} runs of {len(words)} problems", ""


def _navigation(views: Sequence[RunView]) -> str:
    if len(views) == 1:
        links = [(f"run1-{key}", name) for key, name, _ in SECTIONS]
    else:
        links = [("comparison", "Comparison")]
        links += [(f"run{n}", _name(view)) for n, view in enumerate(views, 1)]
    items = "".join(f'<li><a href="#{key}">{escape_html(name)}</a></li>' for key, name in links)
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>\n'


def _name(view: RunView) -> str:
    return view.folder.absolute().name


def _comparison(views: Sequence[RunView]) -> str:
    rows = []
    for view in views:
        found = headline(view)
        rows.append(
            (
                _name(view),
                f"{view.manifest['problem']}, {view.summary['preset']}",
                f"{view.device} ({view.summary['origin']})",
                str(view.summary["started"])[:10],
                found[0] if found else "",
                found[1] if found else "not timed",
                html_sections.tally(view) if view.finished else "unfinished",
            )
        )
    columns = ("run", "problem, preset", "device", "date", "ratio", "of", "claims")
    table = Table(columns, tuple(rows), ("ratio",))
    return (
        '<section aria-labelledby="comparison"><h2 id="comparison">Comparison</h2>\n'
        + table.html("One line per run", style="sortable")
        + "</section>\n"
    )


def _run(view: RunView, number: int, place: Path) -> str:
    key = f"run{number}"
    where = Path(os.path.relpath(view.folder.absolute(), place))
    parts = []
    for name, heading, build in SECTIONS:
        content = build(view, where)
        if content:
            parts.append(
                f'<section aria-labelledby="{key}-{name}">'
                f'<h3 id="{key}-{name}">{heading}</h3>\n{content}</section>\n'
            )
    return (
        f'<article aria-labelledby="{key}">\n<h2 id="{key}">Run {escape_html(_name(view))}</h2>\n'
        + html_sections.header(view)
        + "".join(parts)
        + "</article>\n"
    )
