"""What does each name amount to? Rows are small groups; here those of one name become one row.

sum(aggregate(rows).delta) == sum(rows.delta)        exactly, and so for a, b and the counts
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from common.diff.difference import Difference, Row, Tier

GROUPS_KEPT = 50  # as children of one row, for display: the sums are always of all of them
_BEST_FIRST = {tier: place for place, tier in enumerate(Tier)}


def aggregate(rows: Iterable[Row], groups_kept: int = GROUPS_KEPT) -> tuple[Row, ...]:
    """One row per (name in A, name in B), the largest |delta| first.

    `tier` is the best of its groups', `path` the one that all of them share. A name with a single
    group is that row itself; else `children` are its groups, the largest |delta| first.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.name, row.name_b or row.name), []).append(row)
    return tuple(sorted((_sum(found, groups_kept) for found in groups.values()), key=by_size))


def by_size(row: Row) -> tuple[int, str, str]:
    """Sorts rows by |delta|, the largest first, and by name where that is equal."""
    return -abs(row.delta), row.name, row.name_b or ""


def _sum(groups: Sequence[Row], kept: int) -> Row:
    first = groups[0]
    if len(groups) == 1:
        return first
    paths = {group.path for group in groups}
    return Row(
        name=first.name,
        name_b=None if first.name_b == first.name else first.name_b,
        tier=min((group.tier for group in groups), key=_BEST_FIRST.__getitem__),
        a=sum(group.a for group in groups),
        b=sum(group.b for group in groups),
        count_a=sum(group.count_a for group in groups),
        count_b=sum(group.count_b for group in groups),
        path=paths.pop() if len(paths) == 1 else None,
        children=tuple(sorted(groups, key=by_size)[:kept]) if kept else (),
    )


def document(difference: Difference) -> dict[str, Any]:
    """The JSON document: that of the difference, and its rows "by_name" without their groups."""
    names = [row.to_json() for row in aggregate(difference.rows, groups_kept=0)]
    for row in names:
        row.pop("children", None)
    return {**difference.to_json(), "by_name": names}
