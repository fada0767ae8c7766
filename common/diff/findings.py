"""What would a reader want to be told first? A difference of traces in a few sentences."""

from __future__ import annotations

from common.diff.by_name import aggregate
from common.diff.difference import Difference, Gaps, Row, Status

NOTICEABLE = 0.05  # a part of a total that is worth a sentence
LONGEST_NAME = 70


def findings(difference: Difference) -> tuple[str, ...]:
    """At most five sentences, the most important first; none where nothing differs."""
    found = [_largest(difference), _gap(difference.gaps)]
    found += [rule(difference, side) for rule in (_whole_graphs, _unlinked) for side in ("a", "b")]
    return tuple(sentence for sentence in found if sentence)[:5]


def _largest(difference: Difference) -> str | None:
    if difference.by in ("gap", "module", "range"):
        rows = tuple(sorted(difference.rows, key=lambda row: -abs(row.delta)))
    else:
        rows = aggregate(difference.rows, groups_kept=0)
    if not rows or not rows[0].delta:
        return None
    first = rows[0]
    says = f"largest: {_names(first)}, {_ms(first.delta)} (all rows {_ms(difference.delta)})"
    if first.status is not Status.BOTH:
        return f"{says}; only in {'A' if first.count_a else 'B'} ({_count(first):,} times)"
    if first.count_a == first.count_b:
        return f"{says}; as often on both sides ({first.count_a:,}), so longer or shorter each time"
    return (
        f"{says}; {first.count_a:,} -> {first.count_b:,} times makes {_ms(first.count_effect)}, "
        f"their length {_ms(first.duration_effect)}"
    )


def _count(row: Row) -> int:
    return row.count_a or row.count_b


def _names(row: Row) -> str:
    name = _short(row.name)
    return f"{name} -> {_short(row.name_b)}" if row.name_b else name


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _gap(gaps: Gaps | None) -> str | None:
    if gaps is None or not gaps.delta_ns:
        return None
    cause = max(gaps.causes, key=lambda cause: abs(cause.delta_ns))
    says = f"idle time {_ms(gaps.delta_ns)}, of which {cause.cause} {_ms(cause.delta_ns)}"
    if cause.children and abs(2 * cause.children[0].delta_ns) >= abs(cause.delta_ns):
        child = cause.children[0]
        says += f" (most of it {_short(child.cause)}: {_ms(child.delta_ns)})"
    return says


def _whole_graphs(difference: Difference, side: str) -> str | None:
    """Nsight Systems can record a CUDA graph as one activity: its kernels are not in the file."""
    summary = difference.a if side == "a" else difference.b
    graphs = (summary.get("by_kind") or {}).get("graph") or {"time_ns": 0, "count": 0}
    total = summary.get("gpu_time_ns")
    if difference.by == "gap" or not total or graphs["time_ns"] < NOTICEABLE * total:
        return None
    return (
        f"{graphs['time_ns'] / total:.0%} of {side.upper()}'s GPU time is {graphs['count']} CUDA "
        "graphs recorded as a whole: for the kernels inside, record with --cuda-graph-trace=node"
    )


def _unlinked(difference: Difference, side: str) -> str | None:
    summary = difference.a if side == "a" else difference.b
    total, unlinked = summary.get("gpu_time_ns"), summary.get("unlinked_ns")
    if difference.by == "gap" or not total or not unlinked or unlinked < NOTICEABLE * total:
        return None
    return (
        f"{unlinked / total:.0%} of {side.upper()}'s GPU time has no recorded launch; it is in the "
        "rows, matched by name and order"
    )


def _ms(value_ns: int) -> str:
    return f"{value_ns / 1e6:+,.3f} ms"
