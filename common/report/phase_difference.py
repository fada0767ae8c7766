"""What makes one variant's phase longer than another's? Both profiled, operator by operator.

    sum(row.delta) == delta        exactly, in integer ns

Times are those of one unit (a token, a prefill): the sums of all recorded occurrences, divided and
rounded to whole nanoseconds so that the rows still add up to the rounded total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.contract.claims import parse_claim
from common.diff.attribution import OperatorTime, RangeTime
from common.diff.difference import Confidence, Difference, Judgement, Row, Tier
from common.errors import UsageError
from common.report.run_view import RunView

OUTSIDE = "outside any operator (Python, dispatch)"
MOST_PAIRS = 4


@dataclass(frozen=True)
class Callee:
    """What an operator calls (on a GPU: its kernels), per unit; rows of one operator add up to
    less than the operator where it works itself."""

    operator: str
    name: str
    before_ns: int
    after_ns: int


@dataclass(frozen=True)
class _Side:
    found: RangeTime
    units: int
    times_ns: dict[str, int]  # row name -> ns per unit

    @property
    def operators(self) -> dict[str, OperatorTime]:
        return {row.name: row for row in self.found.rows}

    def count(self, name: str) -> int:
        """Calls per unit, one at least where there is one at all."""
        if name == OUTSIDE:
            return int(name in self.times_ns)
        row = self.operators.get(name)
        return max(1, round(row.count / self.units)) if row else 0

    def callees(self, operator: str) -> dict[str, int]:
        row = self.operators.get(operator)
        return {k: round(ns / self.units) for k, ns in row.children_ns.items()} if row else {}


def story_pairs(view: RunView, phase: str) -> list[tuple[str, str]]:
    """(before, after) of each pair that the claims compare, those of this phase if there are any.

    A variant over the baseline reads as what went wrong: from the baseline to it. Any other ratio
    reads as the repair: from the larger side to the smaller. Without claims: the baseline and each
    profiled variant.
    """
    baseline = view.summary["baseline"]
    found: dict[tuple[str, str], bool] = {}
    for row in view.summary["claims"]:
        try:
            quantity = parse_claim(row["claim"]).quantity
        except UsageError:
            continue
        if quantity.name == "ratio":
            over, under, of_phase = quantity.arguments
            pair = (under, over) if under == baseline else (over, under)
            found[pair] = found.get(pair, False) or of_phase == phase
    profiled = [name for name in view.variants if view.profile(name, phase, "time")]
    named = [pair for pair in found if found[pair]] or list(found)
    pairs = [pair for pair in named if set(pair) <= set(profiled)]
    if not pairs and baseline in profiled:
        pairs = [(baseline, name) for name in profiled if name != baseline]
    return pairs[:MOST_PAIRS]


def phase_difference(view: RunView, before: str, after: str, phase: str) -> Difference | None:
    """The difference of two variants in one phase; None where one of them was not profiled."""
    a, b = (_side(view, name, phase) for name in (before, after))
    if a is None or b is None or a.found.quantity != b.found.quantity:
        return None
    rows = [_row(name, a, b) for name in dict.fromkeys((*a.times_ns, *b.times_ns))]
    rows.sort(key=lambda row: (-abs(row.delta), row.name))
    return Difference(
        source="run",
        quantity=a.found.quantity,
        by="operator",
        a={"path": before},
        b={"path": after},
        total_a=sum(a.times_ns.values()),
        total_b=sum(b.times_ns.values()),
        rows=tuple(rows),
        remainders=(),
        gaps=None,
        judgement=Judgement(
            "AMBIGUOUS", Confidence.SINGLE, ("one profiled pass a side; the timed rounds decide",)
        ),
    )


def phase_callees(view: RunView, before: str, after: str, phase: str) -> list[Callee]:
    """What the operators of both sides call, the largest change first."""
    sides = [_side(view, name, phase) for name in (before, after)]
    found = []
    for operator in dict.fromkeys(name for side in sides if side for name in side.times_ns):
        a, b = (side.callees(operator) if side else {} for side in sides)
        found += [
            Callee(operator, name, a.get(name, 0), b.get(name, 0))
            for name in dict.fromkeys((*a, *b))
        ]
    return sorted(found, key=lambda c: (-abs(c.after_ns - c.before_ns), c.operator, c.name))


def _side(view: RunView, variant: str, phase: str) -> _Side | None:
    found = view.evidence.range_time(variant, phase)
    if found is None or found.total_ns <= 0:
        return None
    units = found.occurrences * view.evidence.profiled_units(variant, phase)
    names = [*(row.name for row in found.rows), OUTSIDE]
    times = per_unit([*(row.time_ns for row in found.rows), found.outside_ns], units)
    rows = dict(zip(names, times, strict=True))
    if not found.outside_ns:
        del rows[OUTSIDE]
    return _Side(found, units, rows)


def per_unit(totals_ns: Sequence[int], units: int) -> list[int]:
    """Each total over `units` in whole ns, adding up to the rounded sum: what rounding down loses
    is given back to the rows that lost most."""
    whole = [total // units for total in totals_ns]
    missing = round(sum(totals_ns) / units) - sum(whole)
    lost = sorted(range(len(whole)), key=lambda i: (-(totals_ns[i] % units), i))
    for index in lost[: max(0, missing)]:
        whole[index] += 1
    return whole


def _row(name: str, a: _Side, b: _Side) -> Row:
    in_both = name in a.times_ns and name in b.times_ns
    return Row(
        name=name,
        tier=Tier.EXACT if in_both else Tier.UNMATCHED,
        a=a.times_ns.get(name, 0),
        b=b.times_ns.get(name, 0),
        count_a=a.count(name),
        count_b=b.count(name),
    )
