"""Which operators lie inside which? Outermost operators in order, and what they enclose.

A detector asks few questions of a trace and asks them often: names as strings, times in ns, one
thread after the other. Wrappers (compiled regions, steps, annotations) are looked through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.traces.model import UNKNOWN, HostKind, Int64, Trace
from common.traces.wrappers import is_wrapper


@dataclass(frozen=True)
class Spans:
    """Rows of Trace.host, ordered by thread and start."""

    rows: Int64
    names: tuple[str, ...]


def outermost_operators(trace: Trace) -> Spans:
    """Operators that no other operator encloses; wrappers do not count."""
    host = trace.host
    wrapper = np.array([is_wrapper(name) for name in trace.names], dtype=np.bool_)
    rows = np.flatnonzero(host.kind == HostKind.OPERATOR)
    rows = rows[~wrapper[host.name[rows]]] if len(rows) else rows
    if not len(rows):
        return Spans(rows, ())
    kept = []
    thread, reached = UNKNOWN, 0
    # Ordered by (thread, start, longest first): what starts before the last end lies inside.
    for row, own, start, end in zip(
        rows.tolist(), host.thread[rows].tolist(), host.start_ns[rows].tolist(),
        host.end_ns[rows].tolist(), strict=True,
    ):  # fmt: skip
        if own != thread:
            thread, reached = own, -(1 << 62)
        if start >= reached:
            kept.append(row)
            reached = end
    chosen = np.array(kept, dtype=np.int64)
    return Spans(chosen, tuple(trace.names[n] for n in host.name[chosen].tolist()))


def inside(trace: Trace, row: int, kind: HostKind = HostKind.OPERATOR) -> Int64:
    """Rows of a kind that lie within a span, on its thread."""
    host = trace.host
    within = (
        (host.thread == host.thread[row])
        & (host.start_ns >= host.start_ns[row])
        & (host.end_ns <= host.end_ns[row])
        & (host.kind == kind)
    )
    within[row] = False
    found: Int64 = np.flatnonzero(within)
    return found


def launched_within(trace: Trace, rows: Int64) -> Int64:
    """GPU activities whose launching call lies within one of the spans (of operators)."""
    gpu, host = trace.gpu, trace.host
    linked = np.flatnonzero(gpu.launch != UNKNOWN)
    launch = gpu.launch[linked]
    found = np.zeros(len(linked), dtype=np.bool_)
    for thread in np.unique(host.thread[rows]).tolist():
        own = rows[host.thread[rows] == thread]
        starts = host.start_ns[own]
        ends = np.maximum.accumulate(host.end_ns[own])
        at = np.searchsorted(starts, host.start_ns[launch], side="right") - 1
        within = (at >= 0) & (host.start_ns[launch] < ends[np.maximum(at, 0)])
        found |= within & (host.thread[launch] == thread)
    rows_found: Int64 = linked[found]
    return rows_found
