"""What was a variant doing when? Its profiled stretch, slice by slice, by operator and by range.

A slice shows the operator that held most of it, so that a trace of any length becomes a strip of
at most `slices` rectangles. On a GPU the strip is of device time, charged to the operators that
launched it; on a CPU it is of the operators themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.diff.attribution import range_bounds
from common.diff.nesting import host_tree
from common.traces.model import HostKind, Int64, Trace

Floats = NDArray[np.float64]
SLICES = 240


@dataclass(frozen=True)
class Piece:
    """`name` held most of the time from `start_ns` to `end_ns` (since the strip's beginning)."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Timeline:
    """`ranges` are (name, start, end); `pieces` do not overlap, between them nothing ran."""

    length_ns: int
    ranges: tuple[Piece, ...]
    pieces: tuple[Piece, ...]


def timeline(trace: Trace, phases: Sequence[str], slices: int = SLICES) -> Timeline | None:
    """The stretch from the first of the phases to the last; None where none was recorded."""
    bounds = [(name, *pair) for name in phases for pair in range_bounds(trace, name)]
    names, starts, ends = _work(trace)
    if not bounds or not len(names):
        return None
    first, last = min(b[1] for b in bounds), max(b[2] for b in bounds)
    if trace.has_gpu_events:  # work may still run when the range on the host is over
        last = max(last, int(ends.max()))
    edges = np.linspace(first, last, slices + 1)
    ranges = tuple(Piece(name, low - first, high - first) for name, low, high in sorted(
        bounds, key=lambda bound: bound[1]))  # fmt: skip
    return Timeline(last - first, ranges, _pieces(trace, names, starts, ends, edges))


def _work(trace: Trace) -> tuple[Int64, Int64, Int64]:
    """(name, start, end) of what is drawn: device work by operator, else outermost operators."""
    host = trace.host
    tree = host_tree(trace)
    if trace.has_gpu_events:
        gpu = trace.gpu
        linked = gpu.launch >= 0
        owner = np.where(linked, tree.operator[gpu.launch], -1) if len(host) else gpu.launch
        named = owner >= 0
        names = np.where(named, host.name[np.maximum(owner, 0)] if len(host) else -1, gpu.name)
        return names.astype(np.int64), gpu.start_ns, gpu.end_ns
    rows = np.flatnonzero(
        (host.kind == HostKind.OPERATOR) & (tree.operator == np.arange(len(host)))
    )
    return host.name[rows], host.start_ns[rows], host.end_ns[rows]


def _pieces(
    trace: Trace, names: Int64, starts: Int64, ends: Int64, edges: Floats
) -> tuple[Piece, ...]:
    kinds = np.unique(names)
    inside = np.stack(
        [_covered(starts[names == kind], ends[names == kind], edges) for kind in kinds]
    )
    best = inside.argmax(axis=0)
    held = inside.max(axis=0)
    idle = np.diff(edges) - inside.sum(axis=0)
    origin = float(edges[0])
    pieces: list[Piece] = []
    for at, (which, time, rest) in enumerate(
        zip(best.tolist(), held.tolist(), idle.tolist(), strict=True)
    ):
        if time <= 0 or time < rest:
            continue
        name = trace.names[int(kinds[which])]
        low, high = round(edges[at] - origin), round(edges[at + 1] - origin)
        if pieces and pieces[-1].name == name and pieces[-1].end_ns == low:
            pieces[-1] = Piece(name, pieces[-1].start_ns, high)
        else:
            pieces.append(Piece(name, low, high))
    return tuple(pieces)


def _covered(starts: Int64, ends: Int64, edges: Floats) -> Floats:
    """Time of each slice that at least one of the intervals covers."""
    order = np.argsort(starts, kind="stable")
    begin = starts[order]
    reached = np.maximum.accumulate(ends[order])
    begin[1:] = np.maximum(begin[1:], reached[:-1])  # disjoint: what is new of each interval
    lengths = np.maximum(reached - begin, 0)
    points = np.column_stack((begin, reached)).ravel().astype(np.float64)
    points = np.maximum.accumulate(points)
    upto = np.concatenate(([0.0], np.cumsum(lengths, dtype=np.float64)))
    levels = np.column_stack((upto[:-1], upto[1:])).ravel()
    found: Floats = np.diff(np.interp(edges, points, levels, left=0.0, right=float(upto[-1])))
    return found
