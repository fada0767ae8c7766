"""What do all problems say together? Blocks of pages that are about no single problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from common.contract.problem import load_problem, problem_names
from common.errors import UsageError
from common.pages.calibration import by_kind_table, by_set_table, scored_sets
from common.pages.index import problem_index
from common.report.tables import Table


def _problems(options: Mapping[str, str]) -> str:
    """The index of all problems, for the README."""
    return problem_index().markdown()


def _symptoms(options: Mapping[str, str]) -> str:
    """What one sees, and where it is explained: for `problems/README.md`."""
    problems = [load_problem(name) for name in problem_names()]
    rows = tuple((p.symptom, p.name, p.cause, f"`worklog replay {p.name}`") for p in problems)
    links = {p.name: f"{p.name}/WORKLOG.md" for p in problems}
    columns = ("you see", "worklog", "because", "the analysis again, without a GPU")
    return Table(columns, rows, links=links).markdown()


def _calibration(options: Mapping[str, str]) -> str:
    """How good were our predictions, over all problems?"""
    sets = scored_sets()
    return by_set_table(sets).markdown() + "\n\n" + by_kind_table(sets).markdown()


def _without_options(name: str, make: Callable[[Mapping[str, str]], str]) -> Callable[..., str]:
    def made(options: Mapping[str, str]) -> str:
        if options:
            raise UsageError(f"block {name} takes no options; remove {', '.join(sorted(options))}")
        return make(options)

    return made


SHARED: dict[str, Callable[..., str]] = {
    name: _without_options(name, make)
    for name, make in (
        ("problems", _problems),
        ("symptoms", _symptoms),
        ("calibration", _calibration),
    )
}
