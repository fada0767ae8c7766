"""What does a reader get of one or several runs? One page that needs nothing beside itself.

No network, no external file; the one script sorts tables and may be missing. Everything that
comes from a run is escaped, and the page's own content policy allows no script or style but the
two that stand in it, by their hashes. The same folders give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import UsageError
from common.report import html_environment, html_sections
from common.report.html_page import page_text, write_text
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
# Of a problem that is compiled and counted: it has no phases, and so nothing that was timed.
UNTIMED_SECTIONS = (
    ("claims", "Claims", html_sections.claims),
    ("figures", "Figures and tables", html_sections.figures),
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
    return write_text(path, page)


def render(views: Sequence[RunView], place: Path) -> str:
    """The page's text; links to the runs' files are relative to the folder `place`."""
    title, question = _title(views)
    body = "".join(_run(view, number, place) for number, view in enumerate(views, 1))
    return page_text(
        title, question, _links(views), (_comparison(views) if len(views) > 1 else "") + body
    )


def _title(views: Sequence[RunView]) -> tuple[str, str]:
    words = {problem_words(view.manifest) for view in views}
    if len(words) == 1:
        return words.pop()
    return f"{len(views)} runs of {len(words)} problems", ""


def _links(views: Sequence[RunView]) -> list[tuple[str, str]]:
    if len(views) == 1:
        return [(f"run1-{key}", name) for key, name, _ in sections_of(views[0])]
    runs = [(f"run{n}", _name(view)) for n, view in enumerate(views, 1)]
    return [("comparison", "Comparison"), *runs]


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


def sections_of(view: RunView) -> tuple[tuple[str, str, Callable[[RunView, Path], str]], ...]:
    return SECTIONS if view.phases else UNTIMED_SECTIONS


def _run(view: RunView, number: int, place: Path) -> str:
    key = f"run{number}"
    where = Path(os.path.relpath(view.folder.absolute(), place))
    parts = []
    for name, heading, build in sections_of(view):
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
