"""Do the pages still say what was recorded? Regenerates, recomputes and compares."""

from __future__ import annotations

from pathlib import Path

from common.contract.problem import Problem, load_problem, problem_names, root
from common.errors import UsageError, WorklogError
from common.pages.blocks import Finding, render_page
from common.recording.run_folder import open_run, read_json, write_json
from common.report.summary import build_summary

SECTIONS = (
    "Card",
    "Question",
    "Setup",
    "Floors",
    "Predictions",
    "First look",
    "Investigation",
    "Ruled out",
    "Root cause",
    "Fix",
    "Verification",
    "Threats to validity",
    "Reproduce each number",
    "Exercises",
    "Is this your problem?",
    "Journal and sources",
)


def problem_pages(problem: Problem) -> list[Path]:
    return [path for path in [problem.folder / "WORKLOG.md"] if path.exists()]


def shared_pages() -> list[Path]:
    return [path for path in [root() / "README.md"] if path.exists()]


def render(names: list[str]) -> tuple[list[Path], list[Finding]]:
    """Write every block anew; returns the pages that changed and what could not be made."""
    changed, findings = [], []
    for problem, path in _pages(names):
        try:
            text, found = render_page(path, problem)
        except UnicodeDecodeError as error:
            findings.append(_not_utf8(path, error))
            continue
        findings += [f for f in found if "run worklog render" not in f.message]
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed, findings


def check(names: list[str]) -> list[Finding]:
    """Everything that is wrong, page by page and problem by problem."""
    findings: list[Finding] = []
    for problem, path in _pages(names):
        try:
            findings += render_page(path, problem)[1]
        except UnicodeDecodeError as error:
            findings.append(_not_utf8(path, error))
    for name in names or problem_names():
        problem = load_problem(name)
        findings += _check_sections(problem)
        findings += _check_evidence(problem)
    return findings


def _not_utf8(path: Path, error: UnicodeDecodeError) -> Finding:
    return Finding(path, 1, f"is not UTF-8 ({error.reason}); save it as UTF-8")


def _pages(names: list[str]) -> list[tuple[Problem | None, Path]]:
    pages: list[tuple[Problem | None, Path]] = []
    for name in names or problem_names():
        problem = load_problem(name)
        pages += [(problem, path) for path in problem_pages(problem)]
    return pages + [(None, path) for path in shared_pages()]


def _check_sections(problem: Problem) -> list[Finding]:
    path = problem.folder / "WORKLOG.md"
    if not path.exists():
        return [Finding(path, 1, "is missing; write it after the other problems' worklogs")]
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [(line[3:].strip(), n) for n, line in enumerate(lines, 1) if line.startswith("## ")]
    titles = [title for title, _ in found]
    findings = [
        Finding(path, 1, f"section {title!r} is missing; add it (or say there why it is empty)")
        for title in SECTIONS
        if title not in titles
    ]
    known = [title for title in titles if title in SECTIONS]
    if not findings and known != list(SECTIONS):
        findings.append(Finding(path, 1, f"sections stand out of order; use {', '.join(SECTIONS)}"))
    return findings


def _check_evidence(problem: Problem) -> list[Finding]:
    """Recorded runs are finished, their summaries are what their data give, their seals hold."""
    findings = []
    toml = problem.folder / "problem.toml"
    for key, place in problem.evidence.items():
        folder = problem.folder / place
        try:
            run = open_run(folder)
            rebuilt = build_summary(run)
            stored = read_json(folder / "summary.json")
            seals = dict(run.manifest["predictions"])
        except (KeyError, TypeError, ValueError):
            findings.append(Finding(toml, 1, f"evidence {key} has no predictions; record it anew"))
            continue
        except WorklogError as error:
            findings.append(Finding(toml, 1, f"evidence {key}: {error}"))
            continue
        if not run.finished:
            findings.append(Finding(toml, 1, f"evidence {key} is an unfinished run; record anew"))
        if stored != rebuilt:
            message = f"evidence {key}: summary.json is not what its data give; run worklog render"
            findings.append(Finding(folder / "summary.json", 1, message))
        now = {sets.name: sets.sha256 for sets in problem.predictions}
        for name, sealed in seals.items():
            if now.get(name) != sealed:
                done = "changed" if name in now else "removed or renamed"
                message = (
                    f"set {name} was {done} after the run of evidence {key}; "
                    "restore it and write new predictions into a new set"
                )
                findings.append(Finding(problem.folder / "predictions.toml", 1, message))
    return findings


def rebuild_summary(folder: Path) -> bool:
    """Write summary.json of a recorded run anew; True if it changed."""
    run = open_run(folder)
    fresh = build_summary(run)
    path = folder / "summary.json"
    try:
        if path.exists() and read_json(path) == fresh:
            return False
    except UsageError:
        pass  # unreadable: it is about to be replaced
    write_json(path, fresh)
    return True
