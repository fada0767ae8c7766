"""Which published figures follow from bytes and bandwidth? The model's scores as a table."""

from __future__ import annotations

from collections.abc import Mapping

from common.contract.problem import Problem
from common.floors.published import all_scores
from common.report.tables import Table, significant


def published_block(problem: Problem, options: Mapping[str, str]) -> str:
    """`model=8B` keeps the rows of one model. UsageError by `render_block` for a wrong option."""
    wanted = options.get("model")
    rows = tuple(
        (
            f"{score.model}, {score.card}",
            score.figure,
            significant(score.published, 4),
            significant(score.modelled, 4),
            "" if score.role == "calibrates" else f"{100 * score.error:+.1f} %",
            {"open": "**open**"}.get(score.role, score.role),
        )
        for score in all_scores()
        if wanted is None or score.model == wanted
    )
    if not rows:
        raise KeyError(f"no published row of a model {wanted!r}")
    columns = ("row", "figure", "published", "modelled", "error", "role")
    note = "_published (pytorch/ao issue 3288) and modelled (`common/floors/published.py`)._"
    return Table(columns, rows, ("published", "modelled", "error"), note).markdown()
