"""How do the ranks of a job compare? One line per rank, beside the page about their sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.diff.difference import Difference
from common.report import diff_view as view
from common.report.tables import Table

SHOWN = 16  # on a terminal: those that changed most; --json and --markdown have all


def rank_table(difference: Difference, most: int | None = None) -> Table | None:
    """None for a difference that is not one of ranks. `most` keeps those that changed most."""
    ranks = difference.extra.get("ranks")
    if not ranks:
        return None
    unit = view.unit_of(difference.quantity)
    kept = list(ranks)
    if most is not None and len(ranks) > most:
        largest = sorted(ranks, key=lambda rank: -abs(rank["delta"]))[:most]
        kept = [rank for rank in ranks if rank in largest]
    left = [rank for rank in ranks if rank not in kept]
    rows = [_row(rank, unit) for rank in kept]
    if left:
        sums = {key: sum(rank[key] for rank in left) for key in ("total_a", "total_b", "delta")}
        rows.append(_row({"rank": f"{len(left)} more", **sums}, unit))
    sums = {"total_a": difference.total_a, "total_b": difference.total_b}
    foot = _row({"rank": "sum", **sums, "delta": difference.delta}, unit)
    heads = ("rank", "A", "B", f"delta {unit}".strip(), "B/A", "span A ms", "span B ms", "verdict")
    return Table(heads, tuple(rows), heads[1:7], foot=foot)


def _row(rank: Mapping[str, Any], unit: str) -> tuple[str, ...]:
    a, b = rank["total_a"], rank["total_b"]
    spans = ["" if rank.get(key) is None else view.amount(rank[key], "ms")
             for key in ("span_a_ns", "span_b_ns")]  # fmt: skip
    return (
        view.clipped(str(rank["rank"]), 40), view.amount(a, unit), view.amount(b, unit),
        view.signed(rank["delta"], unit), f"{b / a:.4f}" if a else "", *spans,
        str(rank.get("verdict", "")),
    )  # fmt: skip
