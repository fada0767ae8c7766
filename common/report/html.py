"""What does a reader get of one or several runs? One page that needs nothing beside itself.

No network, no external file; the one script sorts tables and may be missing. Everything that
comes from a run is escaped, and the page's own content policy allows no script or style but the
two that stand in it, by their hashes. The same folders give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import UsageError
from common.report import (
    html_attribution,
    html_charts,
    html_compiled,
    html_differences,
    html_environment,
    html_sections,
)
from common.report.charts_timeline import timelines
from common.report.html_comparison import comparison
from common.report.html_page import page_text, write_text
from common.report.memory_pools import memory_pools
from common.report.run_view import RunView, problem_words, read_view
from common.report.tables import escape_html

PAGE_BYTES = 1_950_000  # a page of several runs is to stay below 2 MB
SECTIONS = (
    ("differences", "What differs", html_differences.variants_differ),
    ("claims", "Claims", html_sections.claims),
    ("times", "Times and verdicts", html_sections.times),
    ("floors", "Distance to the floor", html_sections.floors),
    ("attribution", "From one variant to the other", html_attribution.attribution),
    ("operators", "Time by operator", html_sections.operators),
    ("timeline", "Timeline by range", timelines),
    ("memory", "Memory", html_sections.memory),
    ("correctness", "Correctness", html_sections.correctness),
    ("samples", "Raw samples", html_sections.samples),
    ("environment", "Environment and files", html_environment.environment),
)
# Of a problem that is compiled and counted: it has no phases, and so nothing that was timed.
UNTIMED_SECTIONS = (
    ("differences", "What differs", html_differences.variants_differ),
    ("claims", "Claims", html_sections.claims),
    ("charts", "Charts", html_charts.charts),
    ("figures", "Figures and tables", html_compiled.figures),
    ("kernels", "Compiled kernels", html_compiled.kernels),
    ("memory", "Memory", lambda view, _: memory_pools(view)),
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
    runs = [_run(view, number, place) for number, view in enumerate(views, 1)]
    above = comparison(views) if len(views) > 1 else ""
    if len(runs) > 1:
        bare = "".join(replace(run, sections=()).html for run in runs)
        runs = _fitting(
            runs, PAGE_BYTES - len(page_text(title, question, [], above + bare).encode())
        )
    if len(runs) == 1:
        links = runs[0].links
    else:
        links = [("comparison", "Comparison"), *((run.key, f"Run {run.name}") for run in runs)]
    return page_text(title, question, links, above + "".join(run.html for run in runs))


def _title(views: Sequence[RunView]) -> tuple[str, str]:
    words = {problem_words(view.manifest) for view in views}
    if len(words) == 1:
        return words.pop()
    return f"{len(views)} runs of {len(words)} problems", ""


def sections_of(view: RunView) -> tuple[tuple[str, str, Callable[[RunView, Path], str]], ...]:
    return SECTIONS if view.phases else UNTIMED_SECTIONS


@dataclass(frozen=True)
class _Part:
    """One run on the page: what stands above its sections, and (id, heading, content) of those
    that have something."""

    key: str
    name: str
    head: str
    sections: tuple[tuple[str, str, str], ...]

    @property
    def links(self) -> list[tuple[str, str]]:
        return [(key, heading) for key, heading, _ in self.sections]

    @property
    def html(self) -> str:
        parts = (
            f'<section aria-labelledby="{key}"><h3 id="{key}">{heading}</h3>\n{content}</section>\n'
            for key, heading, content in self.sections
        )
        title = f'<h2 id="{self.key}">Run {escape_html(self.name)}</h2>\n'
        body = "".join(parts)
        return f'<article aria-labelledby="{self.key}">\n{title}{self.head}{body}</article>\n'


def _fitting(runs: Sequence[_Part], room_bytes: int) -> list[_Part]:
    """The runs with the longest of their sections left out, and said to be, until a page of many
    of them stays one that a browser opens at once: `room_bytes` for all sections."""
    found = list(runs)
    sizes = [
        (len(content.encode()), number, place)
        for number, run in enumerate(found)
        for place, (_, _, content) in enumerate(run.sections)
    ]
    excess = sum(size for size, _, _ in sizes) - room_bytes
    for size, number, place in sorted(sizes, reverse=True):
        if excess <= 0:
            break
        run = found[number]
        key, heading, _ = run.sections[place]
        left_out = (
            f'<p class="note">{size / 1e3:,.0f} kB are left out of this page of {len(runs)} runs; '
            f"<code>worklog report …/{escape_html(run.name)}</code> shows them.</p>\n"
        )
        changed = (*run.sections[:place], (key, heading, left_out), *run.sections[place + 1 :])
        found[number] = replace(run, sections=changed)
        excess -= size - len(left_out.encode())
    return found


def _run(view: RunView, number: int, place: Path) -> _Part:
    key, name = f"run{number}", view.folder.absolute().name
    where = Path(os.path.relpath(view.folder.absolute(), place))
    found = []
    for section, heading, build in sections_of(view):
        content = build(view, where)
        if content:
            content += html_environment.raw_data(view, section, where)
            found.append((f"{key}-{section}", heading, content))
    return _Part(key, name, html_sections.header(view), tuple(found))
