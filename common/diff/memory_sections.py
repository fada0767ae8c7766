"""What else differs between two memory snapshots? Pools, reserved bytes, phases, failures.

Plain lists and dictionaries that are ready for JSON. None: the file does not say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from common.diff.difference import Row
from common.diff.memory_phases import phases, timeline
from common.traces.memory_model import Holdings, pool_kind
from common.traces.memory_pools import growth_by_phase
from common.traces.memory_snapshot import MemorySnapshot
from common.traces.memory_stacks import Stack

TOP = 20
FIELDS = (
    *("segments", "reserved_bytes", "allocated_bytes", "active_bytes", "requested_bytes"),
    *("retained_bytes", "fragmentation_bytes", "largest_inactive_bytes"),
)


def sections(a: MemorySnapshot, b: MemorySnapshot, rows: Sequence[Row]) -> dict[str, Any]:
    """All sections by their names in the JSON document."""
    return {
        "peak_by_stack": by_stack(rows),
        "peak_by_size": by_size(rows),
        "pools": pools(a, b),
        "reserved": reserved(a, b),
        "private_pools_retained": retained(a, b),
        "phases": phases(a, b),
        "growth": growth(a, b),
        "out_of_memory": {"a": failures(a), "b": failures(b)},
        "levels": {"a": levels(a), "b": levels(b)},
        "timeline": {"a": timeline(a), "b": timeline(b)},
    }


def by_stack(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The holders at the peak by pool and stack, size classes together; adds up to the rows."""
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        held = row.metrics or {}
        for side, size, count in (("a", row.a, row.count_a), ("b", row.b, row.count_b)):
            if count:
                key = (str(row.path), str(held[f"stack_{side}"]))
                found[key].update({side: size, f"count_{side}": count})
    listed = [_sums({"pool": pool, "stack": stack}, own) for (pool, stack), own in found.items()]
    listed.sort(key=lambda r: (-abs(r["delta"]), -max(r["a"], r["b"]), r["pool"], r["stack"]))
    rest: Counter[str] = Counter()
    for row_ in listed[TOP:]:
        rest.update({key: row_[key] for key in ("a", "b", "count_a", "count_b")})
    others = len(listed) - TOP
    if others <= 0:
        return listed
    return [*listed[:TOP], _sums({"pool": None, "stack": f"{others} other stacks"}, rest)]


def by_size(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same by size class of the blocks, largest first."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        held = row.metrics or {}
        for side, size, count in (("a", row.a, row.count_a), ("b", row.b, row.count_b)):
            if count:
                own = found[held[f"size_{side}"]]
                own.update({side: size, f"count_{side}": count})
                own["rank"] = max(own["rank"], held[f"largest_{side}"])
    order = sorted(found, key=lambda size: -found[size]["rank"])
    return [_sums({"size": size}, found[size]) for size in order]


def _sums(named: dict[str, Any], own: Counter[str]) -> dict[str, Any]:
    return {
        **named,
        "a": own["a"],
        "b": own["b"],
        "delta": own["b"] - own["a"],
        "count_a": own["count_a"],
        "count_b": own["count_b"],
    }


def pools(a: MemorySnapshot, b: MemorySnapshot) -> list[dict[str, Any]] | None:
    """What each kind of pool held at the dump; None where a file is cut within its segments.

    Pools of one kind are numbered by size: their own numbers differ between runs.
    """
    if not (a.segments_are_whole and b.segments_are_whole):
        return None
    left, right = a.holdings_by_kind(), b.holdings_by_kind()
    of_a, of_b = _by_rank(a), _by_rank(b)
    return [
        {
            "kind": kind,
            **_compared(left.get(kind), right.get(kind)),
            "pools": [
                {"rank": rank, **_compared(of_a.get((kind, rank)), of_b.get((kind, rank)))}
                for rank in sorted({r for k, r in of_a.keys() | of_b.keys() if k == kind})
            ],
        }
        for kind in sorted(left.keys() | right.keys())
    ]


def _by_rank(snapshot: MemorySnapshot) -> dict[tuple[str, int], Holdings]:
    ranks: Counter[str] = Counter()
    found: dict[tuple[str, int], Holdings] = {}
    own = sorted(snapshot.pools().items(), key=lambda item: (-item[1].reserved_bytes, item[0]))
    for pool, held in own:
        kind = pool_kind(pool)
        ranks[kind] += 1
        found[kind, ranks[kind]] = held
    return found


NOTHING = Holdings(0, 0, 0, 0, 0, 0)


def _compared(a: Holdings | None, b: Holdings | None) -> dict[str, Any]:
    """Both sides and their difference; a pool that a side lacks held nothing there."""
    left = {name: getattr(a or NOTHING, name) for name in FIELDS}
    right = {name: getattr(b or NOTHING, name) for name in FIELDS}
    return {"a": left, "b": right, "delta": {name: right[name] - left[name] for name in FIELDS}}


def retained(a: MemorySnapshot, b: MemorySnapshot) -> dict[str, int] | None:
    """Bytes that graphs' and user-made pools hold from the driver though nothing uses them."""
    if not (a.segments_are_whole and b.segments_are_whole):
        return None
    left, right = a.private_holdings().retained_bytes, b.private_holdings().retained_bytes
    return {"a": left, "b": right, "delta": right - left}


def growth(a: MemorySnapshot, b: MemorySnapshot) -> list[dict[str, Any]] | None:
    """What each phase took from the driver in private pools and in the default pool, both sides.

    Phases are matched by name, in the order of A; a side that lacks one has None. None where
    neither file names phases.
    """
    left, right = _growth(a), _growth(b)
    if not (left or right):
        return None
    return [
        {
            "name": name,
            **{
                kind: {
                    "a": own and own[kind],
                    "b": other and other[kind],
                    "delta": (other or {kind: 0})[kind] - (own or {kind: 0})[kind],
                }
                for kind in ("private", "default", "unknown")
            },
        }
        for name in dict.fromkeys([*left, *right])
        for own, other in [(left.get(name), right.get(name))]
    ]


def _growth(snapshot: MemorySnapshot) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in growth_by_phase(snapshot):
        own = found.setdefault(row.phase, {"private": 0, "default": 0, "unknown": 0})
        own["private"] += row.private_bytes
        own["default"] += row.default_bytes
        own["unknown"] += row.unknown_bytes
    return found


def reserved(a: MemorySnapshot, b: MemorySnapshot) -> dict[str, Any] | None:
    """Memory taken from the driver and held at the dump; delta == sum of the rows' deltas."""
    if not (a.segments_are_whole and b.segments_are_whole):
        return None
    left, right = _segments(a), _segments(b)
    rows: list[dict[str, Any]] = []
    for key in left.keys() | right.keys():
        own, other = left.get(key, (0, 0)), right.get(key, (0, 0))
        rows.append(
            {
                "name": " / ".join(key),
                "a": own[0],
                "b": other[0],
                "delta": other[0] - own[0],
                "count_a": own[1],
                "count_b": other[1],
            }
        )
    rows.sort(key=lambda row: (-abs(row["delta"]), row["name"]))
    totals = [sum(size for size, _ in side.values()) for side in (left, right)]
    return {"a": totals[0], "b": totals[1], "delta": totals[1] - totals[0], "rows": rows}


def _segments(snapshot: MemorySnapshot) -> dict[tuple[str, ...], tuple[int, int]]:
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    own = snapshot.segments
    several = len(snapshot.devices) > 1
    for i, size in enumerate(own.total_bytes.tolist()):
        kind = f"{own.kind[i]} segments" + (", expandable" if own.expandable[i] else "")
        key: tuple[str, ...] = (pool_kind(own.pool[i]), kind)
        key = (f"device {own.device[i]}", *key) if several else key
        total, count = found.get(key, (0, 0))
        found[key] = (total + size, count + 1)
    return found


def failures(snapshot: MemorySnapshot) -> dict[str, Any]:
    """Allocations that failed, the largest requests first."""
    own = sorted(snapshot.out_of_memory, key=lambda failure: -failure.requested_bytes)
    return {
        "count": len(own),
        "largest": [
            {
                "device": failure.device,
                "position": failure.position,
                "requested_bytes": failure.requested_bytes,
                "free_bytes": failure.free_bytes,
                "stack": _label(failure.stack),
            }
            for failure in own[:TOP]
        ],
    }


def _label(stack: Stack | None) -> str | None:
    return None if stack is None else stack.label


def levels(snapshot: MemorySnapshot) -> list[dict[str, Any]]:
    """Start, peak and end of each replayed quantity, by device."""
    return [
        {
            "device": device,
            "events": len(snapshot.events[device]),
            **{name: asdict(getattr(own, name)) for name in ("allocated", "active", "reserved")},
        }
        for device, own in sorted(snapshot.replays.items())
    ]
