"""How is a set of predictions shown? What was expected, what came out, hit or miss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.contract.predictions import PredictionSet
from common.pages.scoring import Scored, places, seals_note
from common.report.tables import Table, interval, significant

WORDS = {True: "hit", False: "**miss**"}


def prediction_table(
    sets: PredictionSet, found: Mapping[str, Scored], folder: Path | None = None
) -> Table:
    """`found` empty: nothing was measured, all are open. `folder`: also name the deciding runs."""
    note = f"_Set `{sets.name}`, sealed {sets.sealed}, SHA-256 `{sets.sha256[:12]}`: {sets.basis}_"
    if found:
        note += "\n\n" + seals_note(found)
    if folder is not None and (named := places(found, folder)):
        note += "\n\n_Decided by " + ", ".join(f"`{name}`" for name in named) + "._"
    rows = [
        (
            p.id,
            f"`{p.quantity}`",
            f"{significant(p.low)} … {significant(p.high)}",
            *_result(found.get(p.id)),
            p.because,
        )
        for p in sets.predictions
    ]
    columns = ("id", "quantity", "predicted", "measured", "result", "because")
    return Table(columns, tuple(rows), ("predicted", "measured"), note)


def _result(one: Scored | None) -> tuple[str, str]:
    if one is None:
        return "", "open"
    value = "" if one.score.value is None else significant(one.score.value)
    if one.score.interval is not None:
        value += f" ({interval(*one.score.interval)})"
    unknown = "undecided" if one.score.value is not None else "not measured"
    return value, unknown if one.score.hit is None else WORDS[one.score.hit]
