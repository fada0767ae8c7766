"""What is in this repository, at a glance? One row per problem: symptom to distance from the floor.

Every figure of it is taken from the problem's first recorded run; what is not timed says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.contract.headline import Headline
from common.contract.problem import Problem, load_problem, problem_names
from common.errors import UsageError
from common.pages.answers import EvidenceFunctions, compute
from common.recording.run_folder import open_run, read_json
from common.report.evidence import Evidence
from common.report.run_view import RunView, claimed_variants, headline
from common.report.tables import Table, percent, significant

ORIGINS = ("measured-gpu", "measured-cpu", "compiled", "modelled", "published")


def problem_index() -> Table:
    """The README's table of problems: what was measured first, then by name."""
    problems = sorted(map(load_problem, problem_names()), key=_rank)
    rows = tuple((p.name, p.symptom, p.cause, *_effect_and_floor(p), p.status) for p in problems)
    links = {p.name: f"problems/{p.name}/WORKLOG.md" for p in problems}
    columns = ("problem", "symptom", "cause", "effect", "% of floor", "status")
    return Table(columns, rows, links=links)


def _rank(problem: Problem) -> tuple[bool, int, str]:
    """Timed variants first, then what was measured in another way, compiled, and modelled."""
    if not problem.evidence:
        return True, len(ORIGINS), problem.name
    manifest = open_run(problem.folder / next(iter(problem.evidence.values()))).manifest
    origin = str(manifest["origin"])
    place = ORIGINS.index(origin) if origin in ORIGINS else len(ORIGINS)
    return problem.kind != "timed", place, problem.name


def _effect_and_floor(problem: Problem) -> tuple[str, str]:
    if not problem.evidence:
        return "not recorded yet", ""
    run = open_run(problem.folder / next(iter(problem.evidence.values())))
    summary: Mapping[str, Any] = read_json(run.folder / "summary.json")
    evidence = Evidence(run)
    if problem.headline is not None:
        functions = EvidenceFunctions(evidence.quantities(), summary, evidence.tables)
        return _in_words(problem.headline, functions, summary["origin"])
    view = RunView(run.folder, run.finished, run.manifest, summary, (), evidence)
    found = headline(view) if view.phases else None
    if found is None:
        raise UsageError(
            f"{problem.folder / 'problem.toml'}: its effect is no ratio; add [headline]"
        )
    return f"{found[0]} {found[1]}; {summary['origin']}", _floors(view)


def _in_words(said: Headline, functions: EvidenceFunctions, origin: str) -> tuple[str, str]:
    figures = {name: compute(text, functions) for name, text in said.figures.items()}
    shown = {
        name: significant(value) if value % 1 else f"{value:,.0f}"
        for name, value in figures.items()
    }
    return f"{said.effect.format(**shown)}; {origin}", said.floor.format(**shown)


def _floors(view: RunView) -> str:
    """The share of the floor that each variant of the story reaches."""
    names = claimed_variants(view)
    shares = [
        f"{name} {percent(view.variants[name]['floor']['share_of_floor'])}"
        for name in names
        if view.variants[name].get("floor")
    ]
    return ", ".join(shares) or "no floor counted"
