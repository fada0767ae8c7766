"""Who is charged for the time? The outermost operator that is no wrapper, within a named range.

A compiled region, a call into a compiled graph, an annotation, a profiler step or a Python frame
does no work of its own: it only encloses the operators that do. Charging the outermost real
operator keeps the rows disjoint, so that they add up; what it calls is drill-down, not a row.

    sum(rows) + outside_ns == total_ns        exactly, in integer ns
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from common.traces.model import Allocations, HostKind, Trace
from common.traces.ordering import occurring
from common.traces.wrappers import WRAPPER_PREFIXES, is_wrapper

__all__ = [
    "WRAPPER_PREFIXES",
    "OperatorTime",
    "RangePeak",
    "RangeTime",
    "is_wrapper",
    "memory_timeline",
    "peak_in_range",
    "range_bounds",
    "time_in_range",
]


@dataclass
class OperatorTime:
    """One row: `time_ns` includes everything the operator calls; `children_ns` says what."""

    name: str
    count: int = 0
    time_ns: int = 0
    children_ns: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RangeTime:
    """The time of every occurrence of one range, split among operators without overlap."""

    name: str
    quantity: str  # cpu_time_ns, or gpu_time_ns where the trace has GPU events
    occurrences: int
    total_ns: int
    outside_ns: int
    rows: tuple[OperatorTime, ...]

    def share(self, operator: str) -> float | None:
        """Part of the range's time charged to rows of this name; None for an empty range.

        A name that ends in `*` means all that begin so.
        """
        if self.total_ns <= 0:
            return None
        prefix = operator.removesuffix("*")
        picked = (
            row.time_ns
            for row in self.rows
            if (row.name.startswith(prefix) if operator.endswith("*") else row.name == operator)
        )
        return sum(picked) / self.total_ns


@dataclass(frozen=True)
class _Owners:
    """For every span: its range occurrence, its outermost operator, and the child below that."""

    occurrence: list[int]
    operator: list[int]
    child: list[int]
    occurrences: list[int]


def _owners(trace: Trace, range_name: str) -> _Owners:
    host = trace.host
    size = len(host)
    occurrence, operator, child = [-1] * size, [-1] * size, [-1] * size
    found: list[int] = []
    stack: list[int] = []
    on_thread = None
    starts, ends = host.start_ns.tolist(), host.end_ns.tolist()
    kinds, threads, names = host.kind.tolist(), host.thread.tolist(), host.name.tolist()
    wrapper = [is_wrapper(name) for name in trace.names]
    wanted = {number for number, name in enumerate(trace.names) if name == range_name}
    for index in range(size):
        if kinds[index] in (HostKind.FRAME, HostKind.MODULE, HostKind.RANGE):
            continue  # frames and modules do no work; a start/end range nests in nothing
        if threads[index] != on_thread:
            on_thread, stack = threads[index], []
        while stack and ends[stack[-1]] <= starts[index] and ends[stack[-1]] < ends[index]:
            stack.pop()
        if stack:
            above = stack[-1]
            occurrence[index] = occurrence[above]
            operator[index] = operator[above]
            child[index] = child[above]
            if operator[above] >= 0 and child[above] < 0:
                child[index] = index
        if kinds[index] == HostKind.ANNOTATION:
            # A range inside its own name is the same stretch of work, not a second one.
            if names[index] in wanted and occurrence[index] < 0:
                occurrence[index] = index
                # Within the range: an operator that encloses it is outside and charged nothing.
                operator[index] = child[index] = -1
                found.append(index)
        elif (
            operator[index] < 0 and kinds[index] == HostKind.OPERATOR and not wrapper[names[index]]
        ):
            operator[index] = index
        stack.append(index)
    return _Owners(occurrence, operator, child, found)


def time_in_range(trace: Trace, range_name: str) -> RangeTime | None:
    """Time by operator within all occurrences of `range_name`; None if the trace has none.

    With GPU events the quantity is the duration of the GPU work launched inside the range, else
    the CPU time spent in it.
    """
    owners = _owners(trace, range_name)
    if not owners.occurrences:
        return None
    return (_gpu_time if trace.has_gpu_events else _cpu_time)(trace, owners, range_name)


def range_bounds(trace: Trace, range_name: str) -> list[tuple[int, int]]:
    """(start, end) in ns of every occurrence of a range, nested repetitions of it left out."""
    host = trace.host
    return [
        (int(host.start_ns[index]), int(host.end_ns[index]))
        for index in _owners(trace, range_name).occurrences
    ]


def _cpu_time(trace: Trace, owners: _Owners, range_name: str) -> RangeTime:
    starts, ends = trace.host.start_ns.tolist(), trace.host.end_ns.tolist()
    names = trace.host.name.tolist()

    def inside(index: int, outer: int) -> int:
        # Rounded or malformed times may reach beyond what encloses them: that part is outside.
        return max(0, int(min(ends[index], ends[outer]) - starts[index]))

    rows: dict[str, OperatorTime] = {}
    for index in range(len(trace.host)):
        if owners.occurrence[index] < 0 or owners.operator[index] < 0:
            continue
        row_name = trace.names[names[owners.operator[index]]]
        row = rows.setdefault(row_name, OperatorTime(row_name))
        if owners.operator[index] == index:
            row.count += 1
            row.time_ns += inside(index, owners.occurrence[index])
        elif owners.child[index] == index:
            name, spent = trace.names[names[index]], inside(index, owners.operator[index])
            row.children_ns[name] = row.children_ns.get(name, 0) + spent
    total = sum(ends[index] - starts[index] for index in owners.occurrences)
    return _closed("cpu_time_ns", range_name, len(owners.occurrences), total, rows)


def _gpu_time(trace: Trace, owners: _Owners, range_name: str) -> RangeTime:
    gpu = trace.gpu
    rows: dict[str, OperatorTime] = {}
    total = 0
    for source, own_name, duration in zip(
        gpu.launch.tolist(), gpu.name.tolist(), gpu.duration_ns.tolist(), strict=True
    ):
        if source < 0 or owners.occurrence[source] < 0:
            continue
        total += duration
        owner = owners.operator[source]
        # Without an operator (a graph replay, a bare launch) the kernel speaks for itself.
        row_name = trace.names[int(trace.host.name[owner]) if owner >= 0 else own_name]
        row = rows.setdefault(row_name, OperatorTime(row_name))
        row.count += 1
        row.time_ns += duration
        if owner >= 0:
            name = trace.names[own_name]
            row.children_ns[name] = row.children_ns.get(name, 0) + duration
    return _closed("gpu_time_ns", range_name, len(owners.occurrences), total, rows)


def _closed(
    quantity: str, name: str, occurrences: int, total: int, rows: dict[str, OperatorTime]
) -> RangeTime:
    ordered = tuple(sorted(rows.values(), key=lambda row: (-row.time_ns, row.name)))
    outside = total - sum(row.time_ns for row in ordered)
    return RangeTime(name, quantity, occurrences, total, outside, ordered)


@dataclass(frozen=True)
class RangePeak:
    """Peak of temporary memory in one range: above what was live when the range began."""

    name: str
    device: int  # -1: the CPU's allocator
    peak_bytes: int
    end_bytes: int  # what the occurrence with the peak left allocated, above its start
    peak_at_ns: int | None
    holders: tuple[str, ...]  # operators open at the peak, outermost first


def peak_in_range(trace: Trace, range_name: str, device: int = -1) -> RangePeak | None:
    """The highest peak over all occurrences of a range; None without the range or its events."""
    host, allocations = trace.host, trace.allocations
    picked = allocations.device == device
    if not picked.any():
        return None
    times = allocations.time_ns[picked]
    live = np.cumsum(allocations.delta_bytes[picked])
    best: RangePeak | None = None
    for index in _owners(trace, range_name).occurrences:
        start, end = int(host.start_ns[index]), int(host.end_ns[index])
        first, last = np.searchsorted(times, [start, end], side="left")
        before = int(live[first - 1]) if first > 0 else 0
        inside = live[first:last]
        if inside.size == 0:
            candidate = RangePeak(range_name, device, 0, 0, None, ())
        else:
            at = int(inside.argmax())
            when = int(times[first + at])
            peak, left = int(inside[at]) - before, int(inside[-1]) - before
            if peak > 0:
                holders = _open_operators(trace, int(host.thread[index]), when)
                candidate = RangePeak(range_name, device, peak, left, when, holders)
            else:  # nothing but releases: nobody holds anything
                candidate = RangePeak(range_name, device, 0, left, None, ())
        if best is None or candidate.peak_bytes > best.peak_bytes:
            best = candidate
    return best


def _open_operators(trace: Trace, thread: int, when_ns: int) -> tuple[str, ...]:
    host = trace.host
    open_now = np.flatnonzero(
        (host.start_ns <= when_ns)
        & (when_ns <= host.end_ns)
        & (host.thread == thread)
        & (host.kind == HostKind.OPERATOR)
    )
    names = (trace.names[number] for number in host.name[open_now].tolist())
    return tuple(name for name in names if not is_wrapper(name))


def memory_timeline(
    allocations: Allocations, device: int = -1, points: int = 600
) -> list[tuple[int, int]]:
    """(ns since the first event, live bytes) steps, thinned to `points` without losing a peak."""
    picked = allocations.device == device
    times, live = allocations.time_ns[picked], np.cumsum(allocations.delta_bytes[picked])
    if times.size == 0:
        return []
    edges = occurring(np.linspace(0, times.size, min(points, times.size) + 1).astype(np.int64))
    steps: list[tuple[int, int]] = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        top = low + int(live[low:high].argmax())
        for at in sorted({top, high - 1}):
            steps.append((int(times[at] - times[0]), int(live[at])))
    return steps
