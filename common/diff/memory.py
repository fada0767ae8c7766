"""Which memory accounts for the difference of two peaks? An exact diff of two snapshots.

The quantity is the peak of requested bytes, replayed over the recorded history, summed over
devices (each device's peak is at a moment of its own). Its rows are who held these bytes:

    delta == sum(row.delta) + sum(remainder.delta)         exactly, in bytes
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from common.diff.difference import Confidence, Difference, Judgement, Remainder, Row, Tier
from common.diff.memory_findings import judge, notes
from common.diff.memory_holders import Holder, Pairing, match
from common.diff.memory_peaks import device_labels, peaks, remainders, without_unknown
from common.diff.memory_sections import sections
from common.errors import UsageError
from common.traces.memory_snapshot import MemorySnapshot

QUANTITY = "peak_allocated_bytes"
CHILDREN = 20

# Rows coarser than a stack: what they are named after, and what tells them apart.
COARSE: Mapping[str, Callable[[Holder], str]] = {
    "pool": lambda holder: holder.site.pool,
    "size": lambda holder: f"blocks {holder.size}",
    "operator": lambda holder: holder.site.operator or holder.site.label,
}


def diff_memory(
    a: MemorySnapshot,
    b: MemorySnapshot,
    summary_a: Mapping[str, Any],
    summary_b: Mapping[str, Any],
    by: str | None = None,
) -> Difference:
    """Compare two snapshots by "stack" (the default: pool, stack and size class), "pool", "size"
    or "operator". The summaries are those of `summarise_snapshot`.

    Raises UsageError for another `by`, and where a file is cut so that no peak is known.
    """
    by = by or "stack"
    if by != "stack" and by not in COARSE:
        known = ", ".join(("stack", *COARSE))
        raise UsageError(f"memory snapshots have no rows by {by!r}; give one of: {known}")
    labels_a, labels_b = device_labels(a, b)
    left, right = peaks(a, labels_a, "A"), peaks(b, labels_b, "B")
    left, lost_in_b = without_unknown(left, right)
    right, lost_in_a = without_unknown(right, left)
    rest = [
        *remainders(left, right),
        *lost_in_b,
        *(Remainder(r.name, r.b, r.a) for r in lost_in_a),
    ]
    several = max(len(a.devices), len(b.devices)) > 1
    pairings = match(left.holders, right.holders)
    fine = _sorted([_stack_row(pairing, several) for pairing in pairings])
    rows = fine
    if by != "stack":
        rows = _sorted(_coarse_rows(by, left.holders, right.holders, fine, several))
    difference = Difference(
        source="memory",
        quantity=QUANTITY,
        by=by,
        a=summary_a,
        b=summary_b,
        total_a=left.total,
        total_b=right.total,
        rows=tuple(rows),
        remainders=tuple(rest),
        gaps=None,
        judgement=Judgement("AMBIGUOUS", Confidence.SINGLE, ()),
        warnings=_warnings(a, b, left.total, right.total),
        extra=sections(a, b, fine),
    )
    judgement = judge(difference, fine, summary_a, summary_b)
    return replace(difference, judgement=judgement, notes=notes(difference, fine))


def _sorted(rows: list[Row]) -> list[Row]:
    """Largest change first; complete, so that no run of Python orders them differently."""
    return sorted(
        rows,
        key=lambda row: (
            *(-abs(row.delta), -max(row.a, row.b), row.name, row.name_b or "", row.path or ""),
            *(row.a, row.b, row.count_a, row.count_b, str(row.metrics)),
        ),
    )


def _path(holder: Holder, several: bool) -> str:
    site = holder.site
    return f"device {site.device} / {site.pool}" if several else site.pool


def _stack_row(pairing: Pairing, several: bool) -> Row:
    a, b = pairing.a, pairing.b
    either = a or b
    assert either is not None
    metrics: dict[str, Any] = {"pool": either.site.pool}
    if several:
        metrics["device"] = either.site.device
    for side, holder in (("a", a), ("b", b)):
        metrics |= {
            f"stack_{side}": holder and holder.site.label,
            f"frames_{side}": holder and list(holder.site.located),
            f"size_{side}": holder and holder.size,
            f"largest_{side}": holder and holder.largest,
        }
    return Row(
        name=either.name,
        name_b=b.name if a and b and a.name != b.name else None,
        tier=pairing.tier,
        a=a.bytes if a else 0,
        b=b.bytes if b else 0,
        count_a=a.count if a else 0,
        count_b=b.count if b else 0,
        path=_path(either, several),
        metrics=metrics,
    )


def _coarse_rows(
    by: str, a: Sequence[Holder], b: Sequence[Holder], fine: Sequence[Row], several: bool
) -> list[Row]:
    """One row per pool kind, size class or operator. A pool's children are its stacks."""
    key = COARSE[by]
    sums: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for side, holders in enumerate((a, b)):
        for holder in holders:
            name = _path(holder, several) if by == "pool" else key(holder)
            path = None if by == "pool" else _path(holder, several)
            own = sums[name, path]
            own[side] += holder.bytes
            own[side + 2] += holder.count
    rows = []
    for (name, path), (left, right, count_a, count_b) in sums.items():
        tier = Tier.EXACT if count_a and count_b else Tier.UNMATCHED
        inside = tuple(row for row in fine if row.path == name)[:CHILDREN] if by == "pool" else ()
        rows.append(Row(name, tier, left, right, count_a, count_b, path=path, children=inside))
    return rows


def _warnings(a: MemorySnapshot, b: MemorySnapshot, peak_a: int, peak_b: int) -> tuple[str, ...]:
    found = [f"{side}: {warning}" for side, own in (("A", a), ("B", b)) for warning in own.warnings]
    for side, own, peak in (("A", a, peak_a), ("B", b, peak_b)):
        if not own.devices:
            found.append(f"{side}: the snapshot is empty: no segment and no event")
        elif peak and not own.events_with_frames:
            found.append(
                f"{side}: no event has stack frames, so rows are by pool and size class only; "
                'record with torch.cuda.memory._record_memory_history(stacks="all")'
            )
    return tuple(found)
