"""What stands in the table of rows, and in those beside it? Lines that add up, no markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from common.diff.difference import Difference, Gaps, Remainder, Row, Status, Tier
from common.report.diff_view import amount, clipped, residual_words, sentence, signed
from common.report.svg import short

NAME_LENGTH = 200
_COMMON = re.compile(r"^void |\bat::native::|\(anonymous namespace\)::")
TIER_WORDS = {
    Tier.EXACT: "exact",
    Tier.NORMALISED: "normalised",
    Tier.POSITION: "position",
    Tier.GRAPH_NODE: "graph node",
    Tier.UNMATCHED: "unmatched",
}


@dataclass(frozen=True)
class Line:
    """One line of the table of rows: a name, or a sum (`row` is None) whose words are our own."""

    delta: int
    size: int  # sum of |delta|
    a: int
    b: int
    name: str
    row: Row | None = None
    remainder: bool = False

    def cells(self, unit: str, size: int) -> tuple[str, ...]:
        """delta, share of the `size` of all, A, B, count, count and duration effect, match."""
        share = f"{100 * self.size / size:.1f} %" if size and self.size >= 0 else ""
        figures = (signed(self.delta, unit), share, amount(self.a, unit), amount(self.b, unit))
        row = self.row
        if row is None:
            return (*figures, "", "", "", "")
        if row.status is not Status.BOTH:
            return (*figures, counts(row), "", "", matched_how(row))
        effects = (signed(row.count_effect, unit), signed(row.duration_effect, unit))
        return (*figures, counts(row), *effects, matched_how(row))


@dataclass(frozen=True)
class Matched:
    """How much time one tier matched."""

    tier: Tier
    groups: int
    one_to_one: int
    a: int
    b: int


def row_lines(
    difference: Difference, rows: Sequence[Row], top: int, remainders: int = 5
) -> tuple[list[Line], int]:
    """(the lines of the table of rows, the sum of |delta| that shares are of).

    First the first `top` of `rows` (aggregated, the largest first), one for those below, the
    remainders, and the sum of all these, whose delta is the total's unless there is a residual.
    """
    rest = rows[top:]
    found = [Line(r.delta, abs(r.delta), r.a, r.b, r.name, r) for r in rows[:top]]
    if rest:
        found.append(_sum_line(rest, f"({len(rest):,} more {'row' if len(rest) == 1 else 'rows'})"))
    every = difference.remainders
    found += [
        Line(r.delta, abs(r.delta), r.a, r.b, r.name, remainder=True) for r in every[:remainders]
    ]
    left = every[remainders:]
    if left:
        found.append(_sum_line(left, f"({len(left):,} more remainders)"))
    size = sum(line.size for line in found)
    a, b = sum(line.a for line in found), sum(line.b for line in found)
    says = f"sum of rows + remainders = delta, residual {residual_words(difference)}"
    return [*found, Line(b - a, -1, a, b, says)], size


def _sum_line(parts: Sequence[Row] | Sequence[Remainder], says: str) -> Line:
    size = sum(abs(part.delta) for part in parts)
    a, b = sum(part.a for part in parts), sum(part.b for part in parts)
    return Line(b - a, size, a, b, says, remainder=isinstance(parts[0], Remainder))


def causes(gaps: Gaps, most: int) -> list[tuple[int, int, int, str, str]]:
    """(delta, a, b, counts, cause), the largest |delta| first, the rest as one, and their sum."""
    there = [cause for cause in gaps.causes if cause.a_ns or cause.b_ns]
    every = sorted(there, key=lambda cause: -abs(cause.delta_ns))
    found = [
        (c.delta_ns, c.a_ns, c.b_ns, f"{c.count_a:,} -> {c.count_b:,}", c.cause)
        for c in every[:most]
    ]
    rest = every[most:]
    if rest:
        a, b = sum(c.a_ns for c in rest), sum(c.b_ns for c in rest)
        counted = f"{sum(c.count_a for c in rest):,} -> {sum(c.count_b for c in rest):,}"
        found.append((b - a, a, b, counted, f"({len(rest):,} more)"))
    return [*found, (gaps.delta_ns, gaps.a_ns, gaps.b_ns, "", "idle in all")]


def matched(difference: Difference) -> tuple[Matched, ...]:
    """Per tier, best first: groups, how many are one event to one, and the amount of each side."""
    found = []
    for tier in Tier:
        rows = [row for row in difference.rows if row.tier is tier]
        if rows:
            pairs = sum(row.count_a == 1 and row.count_b == 1 for row in rows)
            found.append(
                Matched(tier, len(rows), pairs, sum(r.a for r in rows), sum(r.b for r in rows))
            )
    return tuple(found)


def matched_how(row: Row) -> str:
    return TIER_WORDS[row.tier] if row.status is Status.BOTH else str(row.status)


def reading(row: Row) -> str:
    """What changed in one sentence, where metrics say it: the row's own or its largest group's."""
    for of in (row, *row.children[:1]):
        found = of.metrics.get("reading") if of.metrics else None
        if isinstance(found, str) and found:
            return sentence(found)
    return ""


def counts(row: Row) -> str:
    if row.count_a == row.count_b:
        return f"{row.count_a:,}"
    return f"{row.count_a:,} -> {row.count_b:,}"


def names_in(row: Row, most: int, arrow: str = " -> ") -> str:
    """The row's name, or both of a renamed one, in at most `most` characters: some of each."""
    one = clipped(row.name, 2 * NAME_LENGTH)
    if row.name_b is None:
        return _fitted(one, most)
    two = clipped(row.name_b, 2 * NAME_LENGTH)
    room = most - len(arrow)
    if len(one) + len(two) > room:
        two_needs = min(len(two), len(_COMMON.sub("", two)))
        one = _fitted(one, max(room // 2, room - two_needs))
        two = _fitted(two, max(room - len(one), 8))
    return f"{one}{arrow}{two}"


def _fitted(name: str, most: int) -> str:
    """A name in `most` characters; what nearly all kernels' names share is left out first."""
    return name if len(name) <= most else short(_COMMON.sub("", name), most)
