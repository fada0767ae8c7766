"""What is in this repository, at a glance? One row per problem: symptom to distance from the floor.

Every figure of it is taken from the problem's first recorded run; what is not timed says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.contract.claims import parse_claim
from common.contract.problem import Problem, load_problem, problem_names
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
    view = RunView(run.folder, run.finished, run.manifest, summary, (), Evidence(run))
    found = headline(view) if view.phases else None
    origin = summary["origin"]
    if found is None:
        return _first_claim(summary), "not timed"
    return f"{found[0]} {found[1]}; {origin}", _floors(view)


def _first_claim(summary: Mapping[str, Any]) -> str:
    """Of a problem that is not timed: the first claim that its run decided."""
    for row in summary["claims"]:
        if row["value"] is not None and row["reproduced"] is not None:
            # What is claimed to be exactly so is in the words already.
            claim = parse_claim(row["claim"])
            value = "" if claim.low == claim.high else f": {significant(row['value'], 4)}"
            return f"{row['says']}{value}; {summary['origin']}"
    return "no claim decided"


def _floors(view: RunView) -> str:
    """The share of the floor that each variant of the story reaches."""
    names = claimed_variants(view)
    shares = [
        f"{name} {percent(view.variants[name]['floor']['share_of_floor'])}"
        for name in names
        if view.variants[name].get("floor")
    ]
    return ", ".join(shares) or "no floor counted"
