"""Rows by range: what each NVTX range or annotation launched (GPU) or spent (CPU) itself.

By module the same for calls of torch.nn.Module, where the trace was recorded with them. One row per
path of ranges; its a and b are exclusive (what ranges inside it did is in their rows), so that rows
are disjoint and sum to the total. Inclusive times stand in the row's metrics. GPU time is
projected: a kernel belongs to the range in which it was launched.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from common.diff.difference import Remainder, Row, Tier
from common.diff.nesting import SEPARATOR, HostTree, host_tree
from common.diff.renaming import pair_names
from common.traces.model import UNKNOWN, HostKind, Int64, Trace
from common.traces.summary import cpu_time_ns

OUTSIDE = "(outside every range)"
OUTSIDE_MODULES = "(outside every module)"
UNLINKED = "(no launch recorded)"


@dataclass
class _Range:
    count: int = 0
    gpu_exclusive: int = 0
    gpu_inclusive: int = 0
    cpu_exclusive: int = 0
    cpu_inclusive: int = 0
    kernels: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RangeRows:
    rows: tuple[Row, ...]
    remainders: tuple[Remainder, ...]
    overlapping: int  # start/end ranges: they nest in nothing and are not in rows


@dataclass(frozen=True)
class _Nest:
    """The ranges of one trace, of one kind. `inner` per row of Trace.host: the range around it."""

    trace: Trace
    tree: HostTree
    kind: HostKind
    inner: Int64
    above: Int64  # for a range the one around it
    names: dict[int, str]  # the path of each range
    outside: str


def range_rows(a: Trace, b: Trace, kind: HostKind = HostKind.ANNOTATION) -> RangeRows:
    """Rows by path of ranges; GPU time where either trace has GPU work, else CPU time.

    CPU time is that of the operators in a range; in traces without operators (Nsight Systems on a
    CPU) it is the range's own. `kind` is ANNOTATION, or MODULE for calls of torch.nn.Module.
    """
    on_gpu = a.has_gpu_events or b.has_gpu_events
    itself = on_gpu or not (_has_operators(a) or _has_operators(b))
    sides = [_ranges(_nest(trace, kind), on_gpu, itself) for trace in (a, b)]
    chosen = "gpu_exclusive" if on_gpu else "cpu_exclusive"
    weights = [
        {path: int(getattr(found, chosen)) for path, found in side.items()} for side in sides
    ]
    rows = []
    for pair in pair_names(weights[0], weights[1], {}):
        of_a = sides[0].get(pair.a, _Range()) if pair.a is not None else _Range()
        of_b = sides[1].get(pair.b, _Range()) if pair.b is not None else _Range()
        path = pair.a if pair.a is not None else pair.b or ""
        rows.append(
            Row(
                name=path.rsplit(SEPARATOR, 1)[-1],
                name_b=(
                    pair.b.rsplit(SEPARATOR, 1)[-1]
                    if pair.a is not None and pair.b not in (None, pair.a) and pair.b
                    else None
                ),
                tier=pair.tier,
                a=int(getattr(of_a, chosen)),
                b=int(getattr(of_b, chosen)),
                count_a=of_a.count,
                count_b=of_b.count,
                path=path,
                metrics=_metrics(of_a, of_b, on_gpu),
                children=_kernels(of_a, of_b),
            )
        )
    rows.sort(key=lambda row: (-abs(row.delta), -(row.a + row.b), row.path or ""))
    remainders: tuple[Remainder, ...] = ()
    if not itself:
        over = [
            (cpu_time_ns(trace) or 0) - sum(own.values())
            for trace, own in zip((a, b), weights, strict=True)
        ]
        if any(over):
            remainders = (Remainder("operators of one thread that overlap, counted once", *over),)
    overlapping = sum(int((trace.host.kind == HostKind.RANGE).sum()) for trace in (a, b))
    return RangeRows(tuple(rows), remainders, overlapping)


def _has_operators(trace: Trace) -> bool:
    return bool((trace.host.kind == HostKind.OPERATOR).any())


def _ranges(nest: _Nest, on_gpu: bool, itself: bool) -> dict[str, _Range]:
    found: dict[str, _Range] = defaultdict(_Range)
    host, names = nest.trace.host, nest.names
    for row in names:
        own = found[names[row]]
        own.count += 1
        spent = int(host.end_ns[row] - host.start_ns[row])
        own.cpu_inclusive += spent
        if itself:
            own.cpu_exclusive += spent
            if nest.above[row] != UNKNOWN:
                found[names[int(nest.above[row])]].cpu_exclusive -= spent
    if on_gpu:
        _charge_gpu(nest, found)
    elif not itself:
        _charge_operators(nest, found)
    return dict(found)


def _nest(trace: Trace, kind: HostKind) -> _Nest:
    tree = host_tree(trace)
    by_module = kind is HostKind.MODULE
    inner = tree.module if by_module else tree.range
    tokens = tree.module_path if by_module else tree.range_path
    above = np.full(len(inner), UNKNOWN, dtype=np.int64)
    inside = tree.parent >= 0
    above[inside] = inner[tree.parent[inside]]
    rows = np.flatnonzero((inner == np.arange(len(inner))) & (trace.host.kind == kind))
    _, first, inverse = np.unique(tokens[rows], return_index=True, return_inverse=True)
    spelt = [tree.path_of(trace, int(rows[place]), (kind,)) for place in first.tolist()]
    names = {
        row: spelt[number]
        for row, number in zip(rows.tolist(), inverse.reshape(-1).tolist(), strict=True)
    }
    outside = OUTSIDE_MODULES if by_module else OUTSIDE
    return _Nest(trace, tree, kind, inner, above, names, outside)


def _charge_gpu(nest: _Nest, found: dict[str, _Range]) -> None:
    trace, names = nest.trace, nest.names
    gpu = trace.gpu
    key = np.full(len(gpu), -2, dtype=np.int64)
    linked = gpu.launch != UNKNOWN
    key[linked] = nest.inner[gpu.launch[linked]]
    pairs, inverse, counts = np.unique(
        np.stack((key, gpu.name)), axis=1, return_inverse=True, return_counts=True
    )
    times = np.zeros(pairs.shape[1], dtype=np.int64)
    np.add.at(times, inverse.reshape(-1), gpu.duration_ns)
    for (row, name), time, count in zip(
        pairs.T.tolist(), times.tolist(), counts.tolist(), strict=True
    ):
        label = names[row] if row >= 0 else UNLINKED if row == -2 else nest.outside
        own = found[label]
        own.gpu_exclusive += time
        kernel = own.kernels.setdefault(trace.names[name], [0, 0])
        kernel[0] += time
        kernel[1] += count
        if row < 0:
            own.count += count
            own.gpu_inclusive += time
            continue
        # A path that repeats itself has one inclusive time, not two.
        seen: set[str] = set()
        while row != UNKNOWN:
            if names[row] not in seen:
                found[names[row]].gpu_inclusive += time
                seen.add(names[row])
            row = int(nest.above[row])


def _charge_operators(nest: _Nest, found: dict[str, _Range]) -> None:
    """CPU time of outermost operators, by the innermost range around them."""
    trace, tree, names = nest.trace, nest.tree, nest.names
    host = trace.host
    tops = np.flatnonzero(
        (tree.operator == np.arange(len(host))) & (host.kind == HostKind.OPERATOR)
    )
    for top, row in zip(tops.tolist(), nest.inner[tops].tolist(), strict=True):
        label = names[row] if row != UNKNOWN else nest.outside
        own = found[label]
        spent = int(host.end_ns[top] - host.start_ns[top])
        own.cpu_exclusive += spent
        if row == UNKNOWN:
            own.count += 1
            own.cpu_inclusive += spent
        kernel = own.kernels.setdefault(trace.names[int(host.name[top])], [0, 0])
        kernel[0] += spent
        kernel[1] += 1


def _metrics(of_a: _Range, of_b: _Range, on_gpu: bool) -> dict[str, dict[str, int]]:
    chosen = ("cpu_inclusive", "cpu_exclusive") if on_gpu else ("cpu_inclusive",)
    chosen = ("gpu_inclusive", *chosen) if on_gpu else chosen
    return {f"{key}_ns": {"a": getattr(of_a, key), "b": getattr(of_b, key)} for key in chosen}


def _kernels(of_a: _Range, of_b: _Range) -> tuple[Row, ...]:
    rows = []
    inside_a = {name: 0 for name in of_a.kernels}
    for pair in pair_names(inside_a, {name: 0 for name in of_b.kernels}, {}):
        time_a, count_a = of_a.kernels[pair.a] if pair.a is not None else (0, 0)
        time_b, count_b = of_b.kernels[pair.b] if pair.b is not None else (0, 0)
        renamed = pair.b if pair.a is not None and pair.b != pair.a else None
        name = pair.a if pair.a is not None else pair.b or ""
        tier = pair.tier if pair.a and pair.b else Tier.UNMATCHED
        rows.append(Row(name, tier, time_a, time_b, count_a, count_b, name_b=renamed))
    rows.sort(key=lambda row: (-abs(row.delta), -(row.a + row.b), row.name))
    return tuple(rows[:40])
