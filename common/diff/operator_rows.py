"""Rows by operator: time charged to the outermost operator that is no wrapper; its inside unfolds.

GPU time where the trace has any, else CPU time. Work that no operator launched speaks for itself:
its row has the kernel's own name. Rows are disjoint and sum to the total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from common.diff.alignment import align
from common.diff.difference import Remainder, Row, Tier
from common.diff.kernel_rows import Matched
from common.diff.nesting import HostTree, host_tree, name_tokens
from common.diff.renaming import NamePair, pair_names
from common.diff.sequence import Launched
from common.traces.model import UNKNOWN, HostKind, Int64, Trace
from common.traces.ordering import occurring
from common.traces.summary import cpu_time_ns

MOST_CHILDREN = 40


@dataclass
class _Charge:
    """What one name is charged with; `inside` by the name of what it called or launched."""

    time_ns: int = 0
    count: int = 0
    inside: dict[str, list[int]] = field(default_factory=dict)  # name: [time_ns, count]


def gpu_operator_rows(matched: Matched) -> tuple[Row, ...]:
    """GPU time by outermost operator; `count` is how many of its instances launched work."""
    a, b = matched.a, matched.b
    owner_a, owner_b = _owners(a), _owners(b)
    charged_a, charged_b = _gpu_charges(a, owner_a), _gpu_charges(b, owner_b)
    labels_a, labels_b = _labels(a, owner_a), _labels(b, owner_b)
    kernels = _together(matched, a.trace.gpu.name[a.event], b.trace.gpu.name[b.event])
    weights_a = {name: charge.time_ns for name, charge in charged_a.items()}
    weights_b = {name: charge.time_ns for name, charge in charged_b.items()}
    pairs = pair_names(weights_a, weights_b, _together(matched, labels_a, labels_b))
    return _rows(charged_a, charged_b, pairs, kernels)


def _together(matched: Matched, labels_a: Int64, labels_b: Int64) -> Counter[tuple[str, str]]:
    """GPU time of both sides that was matched, by the names of its rows."""
    a, b = matched.a, matched.b
    paired = np.flatnonzero(matched.partner != UNKNOWN)
    partner = matched.partner[paired]
    weight = a.trace.gpu.duration_ns[a.event[paired]] + b.trace.gpu.duration_ns[b.event[partner]]
    pairs, inverse = np.unique(
        np.stack((labels_a[paired], labels_b[partner])), axis=1, return_inverse=True
    )
    sums = np.zeros(pairs.shape[1], dtype=np.int64)
    np.add.at(sums, inverse.reshape(-1), weight)
    together: Counter[tuple[str, str]] = Counter()
    for (left, right), total in zip(pairs.T.tolist(), sums.tolist(), strict=True):
        together[a.trace.names[left], b.trace.names[right]] += total
    return together


def cpu_operator_rows(a: Trace, b: Trace) -> tuple[tuple[Row, ...], tuple[Remainder, ...]]:
    """CPU time by outermost operator, and what overlaps between operators of one thread."""
    tree_a, tree_b = host_tree(a), host_tree(b)
    tops_a, tops_b = _tops(a, tree_a), _tops(b, tree_b)
    charged_a, charged_b = _cpu_charges(a, tree_a, tops_a), _cpu_charges(b, tree_b, tops_b)
    weights_a = {name: charge.count for name, charge in charged_a.items()}
    weights_b = {name: charge.count for name, charge in charged_b.items()}
    pairs = pair_names(weights_a, weights_b, _neighbours(a, b, tops_a, tops_b))
    rows = _rows(charged_a, charged_b, pairs, {})
    over = [
        (cpu_time_ns(trace) or 0) - sum(charge.time_ns for charge in charged.values())
        for trace, charged in ((a, charged_a), (b, charged_b))
    ]
    if not any(over):
        return rows, ()
    return rows, (Remainder("operators of one thread that overlap, counted once", *over),)


def _owners(side: Launched) -> Int64:
    """Row of Trace.host of the operator that is charged; UNKNOWN where there is none."""
    launch = side.trace.gpu.launch[side.event]
    if not len(side.trace.host):
        return launch
    owner: Int64 = np.where(launch != UNKNOWN, side.tree.operator[np.maximum(launch, 0)], UNKNOWN)
    return owner


def _labels(side: Launched, owner: Int64) -> Int64:
    """Number of the name of each piece's row: its operator's, or its own."""
    own = side.trace.gpu.name[side.event]
    if not len(side.trace.host):
        return own
    label: Int64 = np.where(owner != UNKNOWN, side.trace.host.name[np.maximum(owner, 0)], own)
    return label


def _gpu_charges(side: Launched, owner: Int64) -> dict[str, _Charge]:
    trace = side.trace
    label = _labels(side, owner)
    inside = np.where(owner != UNKNOWN, trace.gpu.name[side.event], UNKNOWN)
    duration = trace.gpu.duration_ns[side.event]
    charges: dict[str, _Charge] = {}
    keys, inverse, counts = np.unique(
        np.stack((label, inside)), axis=1, return_inverse=True, return_counts=True
    )
    times = np.zeros(keys.shape[1], dtype=np.int64)
    np.add.at(times, inverse.reshape(-1), duration)
    for (row, child), time, count in zip(
        keys.T.tolist(), times.tolist(), counts.tolist(), strict=True
    ):
        charge = charges.setdefault(trace.names[row], _Charge())
        charge.time_ns += time
        if child == UNKNOWN:
            charge.count += count
        else:
            _add(charge.inside, trace.names[child], time, count)
    operators = occurring(owner[owner != UNKNOWN])
    for name, count in zip(
        *(part.tolist() for part in np.unique(trace.host.name[operators], return_counts=True)),
        strict=True,
    ):
        charges[trace.names[name]].count += count
    return charges


def _tops(trace: Trace, tree: HostTree) -> Int64:
    """The outermost operators, by thread and start."""
    rows = np.arange(len(trace.host), dtype=np.int64)
    tops: Int64 = rows[(tree.operator == rows) & (trace.host.kind == HostKind.OPERATOR)]
    return tops


def _cpu_charges(trace: Trace, tree: HostTree, tops: Int64) -> dict[str, _Charge]:
    host, names = trace.host, trace.names
    duration = host.duration_ns
    charges: dict[str, _Charge] = {}
    for name, time in zip(host.name[tops].tolist(), duration[tops].tolist(), strict=True):
        charge = charges.setdefault(names[name], _Charge())
        charge.time_ns += time
        charge.count += 1
    operators = np.flatnonzero(host.kind == HostKind.OPERATOR)
    above = tree.parent[operators]
    children = operators[(above >= 0) & (tree.operator[operators] == above)]
    owner = host.name[tree.parent[children]]
    keys, inverse, counts = np.unique(
        np.stack((owner, host.name[children])), axis=1, return_inverse=True, return_counts=True
    )
    times = np.zeros(keys.shape[1], dtype=np.int64)
    np.add.at(times, inverse.reshape(-1), duration[children])
    for (row, child), time, count in zip(
        keys.T.tolist(), times.tolist(), counts.tolist(), strict=True
    ):
        _add(charges[names[row]].inside, names[child], time, count)
    return charges


def _add(inside: dict[str, list[int]], name: str, time: int, count: int) -> None:
    known = inside.setdefault(name, [0, 0])
    known[0] += time
    known[1] += count


def _neighbours(a: Trace, b: Trace, tops_a: Int64, tops_b: Int64) -> Counter[tuple[str, str]]:
    """Operators of two names that stand alone between the same two matched operators."""
    tokens_a, tokens_b = name_tokens(a), name_tokens(b)
    left, right = align(
        tokens_a[a.host.name[tops_a]].view(np.int64), tokens_b[b.host.name[tops_b]].view(np.int64)
    )
    edges_a = np.concatenate(([-1], left, [len(tops_a)]))
    edges_b = np.concatenate(([-1], right, [len(tops_b)]))
    room_a, room_b = np.diff(edges_a) - 1, np.diff(edges_b) - 1
    together: Counter[tuple[str, str]] = Counter()
    for gap in np.flatnonzero((room_a > 0) & (room_a == room_b)).tolist():
        for step in range(1, int(room_a[gap]) + 1):
            top_a, top_b = tops_a[edges_a[gap] + step], tops_b[edges_b[gap] + step]
            together[a.names[a.host.name[top_a]], b.names[b.host.name[top_b]]] += 2
    return together


def _rows(
    charged_a: dict[str, _Charge],
    charged_b: dict[str, _Charge],
    pairs: list[NamePair],
    kernels: Mapping[tuple[str, str], int],
) -> tuple[Row, ...]:
    rows = []
    for pair in pairs:
        of_a = charged_a[pair.a] if pair.a is not None else _Charge()
        of_b = charged_b[pair.b] if pair.b is not None else _Charge()
        name = pair.a if pair.a is not None else pair.b
        rows.append(
            Row(
                name=name or "",
                name_b=pair.b if pair.a is not None and pair.b not in (None, pair.a) else None,
                tier=pair.tier,
                a=of_a.time_ns,
                b=of_b.time_ns,
                count_a=of_a.count,
                count_b=of_b.count,
                children=_children(of_a.inside, of_b.inside, kernels),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-abs(row.delta), -(row.a + row.b), row.name)))


def _children(
    inside_a: dict[str, list[int]],
    inside_b: dict[str, list[int]],
    together: Mapping[tuple[str, str], int],
) -> tuple[Row, ...]:
    found = []
    # Kernels are matched all over the trace, here is one operator: at least half is all of it.
    weights_a, weights_b = ({name: 0 for name in inside} for inside in (inside_a, inside_b))
    for pair in pair_names(weights_a, weights_b, together):
        time_a, count_a = inside_a.get(pair.a or "", (0, 0)) if pair.a is not None else (0, 0)
        time_b, count_b = inside_b.get(pair.b or "", (0, 0)) if pair.b is not None else (0, 0)
        renamed = pair.b if pair.a is not None and pair.b != pair.a else None
        tier = pair.tier if count_a and count_b else Tier.UNMATCHED
        name = pair.a if pair.a is not None else pair.b or ""
        found.append(Row(name, tier, time_a, time_b, count_a, count_b, name_b=renamed))
    found.sort(key=lambda row: (-abs(row.delta), -(row.a + row.b), row.name))
    return tuple(found[:MOST_CHILDREN])
