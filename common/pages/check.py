"""Do the pages still say what was recorded? Regenerates, recomputes and compares.

Every rule of the contract (DESIGN: a problem's folder) is a function that returns findings, each
with file, line and what to do. Nothing is written here but by `render`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.contract.problem import Problem, load_problem, problem_names, root
from common.errors import UsageError, WorklogError
from common.pages.answers import EvidenceFunctions
from common.pages.blocks import Rendered, blocks_of, options_of, render_whole_page
from common.pages.evidence_rules import Checked, check_claims, check_seals, open_evidence
from common.pages.exercises import check_answers, check_exercises
from common.pages.figure_blocks import figure_names
from common.pages.finding import STALE, Finding, finding_of, line_at, read_utf8
from common.pages.problem_figures import check_own_figures, write_own_figures
from common.pages.text_rules import (
    SECTIONS,
    check_captions,
    check_fences,
    check_links,
    check_prompts,
    check_sections,
    check_typed_numbers,
)
from common.recording.run_folder import open_run, read_json, write_json, write_text
from common.report.summary import build_summary

__all__ = ["SECTIONS", "check", "problem_pages", "rebuild_summary", "render", "shared_pages"]

SHARED_PAGES = ("README.md", "problems/README.md")  # with generated blocks
LINKED_PAGES = ("*.md", "problems/*.md", "notebooks/*.md", "common/**/*.md", "tests/**/*.md")


def problem_pages(problem: Problem) -> list[Path]:
    return [path for path in [problem.folder / "WORKLOG.md"] if path.exists()]


def shared_pages() -> list[Path]:
    return [path for name in SHARED_PAGES if (path := root() / name).exists()]


@dataclass
class _Loaded:
    """The problems that can be read, and what is wrong with the files of the others."""

    problems: list[Problem] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def _load(names: list[str]) -> _Loaded:
    known, loaded = problem_names(), _Loaded()
    for name in names or known:
        if name not in known:
            load_problem(name)  # raises, naming those that exist
        try:
            loaded.problems.append(load_problem(name))
        except UsageError as error:
            loaded.broken.append(name)
            loaded.findings.append(finding_of(error, root() / "problems" / name / "problem.toml"))
    return loaded


def _pages(loaded: _Loaded) -> Iterator[tuple[Problem | None, Path]]:
    for problem in loaded.problems:
        yield from ((problem, path) for path in problem_pages(problem))
    yield from ((None, path) for path in shared_pages())


def render(names: list[str]) -> tuple[list[Path], list[Finding]]:
    """Write every block and figure anew; returns what changed and what could not be made."""
    loaded = _load(names)
    changed, findings = [], list(loaded.findings)
    for problem, path in _pages(loaded):
        rendered = render_whole_page(path, problem)
        findings += [f for f in rendered.findings if STALE not in f.message]
        for figure in rendered.figures:
            if not figure.path.exists() or figure.path.read_bytes() != figure.content.encode():
                figure.path.parent.mkdir(exist_ok=True)
                write_text(figure.path, figure.content)
                changed.append(figure.path)
        # Compared as bytes: reading as text would turn other line ends into these in silence.
        if rendered.text and rendered.text.encode() != path.read_bytes():
            path.write_bytes(rendered.text.encode())
            changed.append(path)
    for problem in loaded.problems:
        drawn, failed = write_own_figures(problem)
        changed, findings = changed + drawn, findings + failed
    return changed, findings


def check(names: list[str]) -> list[Finding]:
    """Everything that is wrong, problem by problem and page by page."""
    loaded = _load(names)
    findings = list(loaded.findings)
    anchors: dict[Path, set[str]] = {}
    for problem in loaded.problems:
        findings += _check_problem(problem, anchors)
    for name in loaded.broken:  # what can be said of a page whose problem cannot be read
        page = root() / "problems" / name / "WORKLOG.md"
        findings += _check_text(page, anchors) if page.exists() else []
    for path in shared_pages():
        findings += render_whole_page(path, None).findings
    for path in sorted({p for pattern in LINKED_PAGES for p in root().glob(pattern)}):
        if not any(part.startswith(".") for part in path.relative_to(root()).parts):
            text, unreadable = read_utf8(path)
            # Pages with blocks have said so already.
            findings += unreadable if path not in shared_pages() else []
            findings += check_links(path, text, root(), anchors) + check_fences(path, text)
    return sorted(set(findings), key=lambda f: (str(f.path), f.line, f.message))


def _check_problem(problem: Problem, anchors: dict[Path, set[str]]) -> list[Finding]:
    runs, findings = open_evidence(problem)
    findings += check_seals(problem, runs) + check_claims(problem, runs)
    path = problem.folder / "WORKLOG.md"
    if not path.exists():
        message = "is missing; write it after the other problems' worklogs"
        return [*findings, Finding(path, 1, message)]
    rendered = render_whole_page(path, problem)
    findings += rendered.findings
    text, unreadable = read_utf8(path)
    if unreadable:
        return findings
    findings += _check_text(path, anchors)
    findings += check_typed_numbers(path, text)
    findings += check_prompts(path, text, problem.status)
    findings += check_answers(path, text, problem, asked(problem, runs))
    return findings + _check_figures(problem, path, text, rendered)


def _check_text(path: Path, anchors: dict[Path, set[str]]) -> list[Finding]:
    text, unreadable = read_utf8(path)
    if unreadable:
        return unreadable
    return [
        *check_sections(path, text),
        *check_exercises(path, text),
        *check_fences(path, text),
        *check_links(path, text, root(), anchors),
    ]


class asked:
    """The evidence that an answer names, or why there is none."""

    def __init__(self, problem: Problem, runs: dict[str, Checked]) -> None:
        self.problem, self.runs = problem, runs

    def __call__(self, key: str) -> EvidenceFunctions:
        if key not in self.runs:
            known = ", ".join(self.problem.evidence) or "it is empty"
            raise UsageError(f"no usable evidence {key!r}; name one of [evidence]: {known}")
        return self.runs[key].functions()


def _check_figures(problem: Problem, path: Path, text: str, rendered: Rendered) -> list[Finding]:
    """Captions below figures, no name twice, no file in `figures/` that nothing draws."""
    blocks = [match for match in blocks_of(text) if match["name"] == "figure"]
    findings = check_captions(path, text, [match.end() for match in blocks])
    for name in figure_names([options_of(match) for match in blocks]):
        again = [match for match in blocks if options_of(match).get("name") == name][1]
        line = line_at(text, again.start())
        findings.append(Finding(path, line, f"a second figure is called {name}; rename it"))
    drawn = {figure.path for figure in rendered.figures}
    return findings + check_own_figures(problem, path, text, drawn)


def rebuild_summary(folder: Path) -> bool:
    """Write summary.json of a recorded run anew; True if it changed."""
    run = open_run(folder)
    fresh = build_summary(run)
    path = folder / "summary.json"
    try:
        if path.exists() and read_json(path) == fresh:
            return False
    except WorklogError:
        pass  # unreadable: it is about to be replaced
    write_json(path, fresh)
    return True
