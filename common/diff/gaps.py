"""Where did the wall clock go that no GPU worked? Idle gaps of two traces, by cause and place.

    delta of a device's span == delta of its busy time + delta of its gaps       exactly, in ns

What the causes mean, and on what evidence, says `common.diff.idle`. Within a cause the places are
the outermost operator (or the innermost range) of the thread that launched the next work.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.diff.difference import GapCause, Gaps
from common.diff.host_lookup import levels, named, outermost, wrappers
from common.diff.idle import Cause, IdleGaps, idle_gaps
from common.diff.sequence import device_pairs
from common.traces.intervals import total_ns, union_ns
from common.traces.model import GRAPH_LAUNCH, UNKNOWN, Bool, HostKind, Int64, Trace
from common.traces.ordering import occurring

__all__ = ["Cause", "IdleGaps", "compare_gaps", "idle_gaps", "wall_clock"]

PLACES = 20  # of one cause that are listed, the rest are added up
SLOW_CALL_NS = 100_000  # a launch takes some µs; one that takes so long loads code or waits
_NOTHING = -1
Sums = dict[str, tuple[int, int]]  # place -> (ns, gaps)


def compare_gaps(a: Trace, b: Trace) -> Gaps:
    """Idle time of all devices of both traces; every cause is there, also with 0 ns."""
    found_a, found_b = idle_gaps(a), idle_gaps(b)
    places_a, places_b = places(a, found_a), places(b, found_b)
    causes = tuple(_cause(cause, places_a[cause], places_b[cause]) for cause in Cause)
    return Gaps(total_ns(found_a.length_ns), total_ns(found_b.length_ns), causes)


def _cause(cause: Cause, a: Sums, b: Sums) -> GapCause:
    children = [
        GapCause(place, *_pair(a.get(place), b.get(place))) for place in sorted(a.keys() | b.keys())
    ]
    children.sort(key=lambda c: (-abs(c.delta_ns), -max(c.a_ns, c.b_ns), c.cause))
    whole = _sum(cause.text, children)
    rest = children[PLACES:]
    if len(rest) > 1:
        children = [*children[:PLACES], _sum(f"other ({len(rest)} places)", rest)]
    return GapCause(
        whole.cause, whole.a_ns, whole.b_ns, whole.count_a, whole.count_b, tuple(children)
    )


def _pair(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int, int, int]:
    (a_ns, count_a), (b_ns, count_b) = a or (0, 0), b or (0, 0)
    return a_ns, b_ns, count_a, count_b


def _sum(name: str, parts: list[GapCause]) -> GapCause:
    return GapCause(
        name,
        sum(part.a_ns for part in parts),
        sum(part.b_ns for part in parts),
        sum(part.count_a for part in parts),
        sum(part.count_b for part in parts),
    )


# Places


def places(trace: Trace, gaps: IdleGaps) -> dict[Cause, Sums]:
    """Idle ns and number of gaps by place, for every cause.

    host late            "in X": the launching thread was in X for at least half of the time;
                         "in cudaLaunchKernel of X": the launch itself took that long; else
                         "before X"
    synchronise          "cudaStreamSynchronize in X"
    queue/dependency     "before X", or "within cudaGraphLaunch"
    none known           "before KERNEL"
    """
    gpu, host = trace.gpu, trace.host
    launch = gpu.launch[gaps.after]
    linked = launch != UNKNOWN
    asked: Bool = np.zeros(len(host), dtype=np.bool_)
    asked[launch[linked]] = asked[_waited(gaps)] = True
    where = _place_of(trace, np.flatnonzero(asked))

    # Every place is a form of words with up to two names.
    form = np.full(len(gaps), 0)
    first = gpu.name[gaps.after].copy()
    second = np.full(len(gaps), _NOTHING, dtype=np.int64)
    rows = np.flatnonzero(linked)
    found, call = where[launch[rows]], host.name[launch[rows]]
    graph = named(trace, call, GRAPH_LAUNCH)
    first[rows] = np.where(found != _NOTHING, found, np.where(graph[call], call, first[rows]))

    same = rows[gpu.by_graph_launch[gaps.after[rows]]]
    same = same[gpu.launch[gaps.before[same]] == launch[same]]
    form[same], first[same] = 1, host.name[launch[same]]

    late = np.flatnonzero(linked & (gaps.cause == Cause.HOST_LATE))
    call_end = np.minimum(host.end_ns[launch[late]], gaps.end_ns[late])
    spent = call_end - np.maximum(host.start_ns[launch[late]], gaps.start_ns[late])
    slow = (spent >= SLOW_CALL_NS) & (2 * spent >= gaps.length_ns[late])
    slow_rows = late[slow]
    form[slow_rows], second[slow_rows] = 2, first[slow_rows]
    first[slow_rows] = host.name[launch[slow_rows]]
    busy = late[~slow & (gaps.busy_with[late] != UNKNOWN)]
    form[busy], first[busy] = 3, host.name[gaps.busy_with[busy]]

    waited = np.flatnonzero(gaps.waited_in != UNKNOWN)
    form[waited], first[waited] = 4, host.name[gaps.waited_in[waited]]
    second[waited] = where[gaps.waited_in[waited]]
    return _summed(trace, gaps, form, first, second)


def _waited(gaps: IdleGaps) -> Int64:
    known: Bool = gaps.waited_in != UNKNOWN
    return gaps.waited_in[known]


def _summed(
    trace: Trace, gaps: IdleGaps, form: Int64, first: Int64, second: Int64
) -> dict[Cause, Sums]:
    found: dict[Cause, Sums] = {cause: {} for cause in Cause}
    if not len(gaps):
        return found
    size = len(trace.names) + 1
    key = ((gaps.cause * 8 + form) * size + first) * size + second + 1
    keys, inverse = np.unique(key, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    counts = np.bincount(inverse.reshape(-1))
    edges = np.concatenate(([0], np.cumsum(counts)[:-1]))
    sums = np.add.reduceat(gaps.length_ns[order], edges)
    for key_, ns, count in zip(keys.tolist(), sums.tolist(), counts.tolist(), strict=True):
        rest, two = divmod(key_, size)
        rest, one = divmod(rest, size)
        cause, how = divmod(rest, 8)
        text = _text(how, trace.names[one], trace.names[two - 1] if two else None)
        old_ns, old_count = found[Cause(cause)].get(text, (0, 0))
        found[Cause(cause)][text] = (old_ns + ns, old_count + count)
    return found


def _text(form: int, first: str, second: str | None) -> str:
    match form:
        case 0:
            return f"before {first}"
        case 1:
            return f"within {first}"
        case 2:
            return f"in {first}" if first == second else f"in {first} of {second}"
        case 3:
            return f"in {first}"
        case _:
            return first if second is None else f"{first} in {second}"


def _place_of(trace: Trace, rows: Int64) -> Int64:
    """Name of what encloses each of these host rows, by row: the outermost operator that is no
    wrapper or else the innermost range; _NOTHING where there is neither (and for other rows)."""
    host = trace.host
    found = np.full(len(host), _NOTHING, dtype=np.int64)
    if not len(rows):
        return found
    wrapper = wrappers(trace, host.name)[host.name]
    operators = np.flatnonzero((host.kind == HostKind.OPERATOR) & ~wrapper)
    threads, times = host.thread[rows], host.start_ns[rows]
    level = outermost(host, operators)
    at = level.open_at(threads, times)
    found[rows[at != UNKNOWN]] = host.name[level.rows[at[at != UNKNOWN]]]
    left = at == UNKNOWN
    rows, threads, times = rows[left], threads[left], times[left]
    ranges = np.flatnonzero((host.kind == HostKind.ANNOTATION) & ~wrapper)
    for level in levels(host, ranges):
        at = level.open_at(threads, times)
        inside = at != UNKNOWN
        found[rows[inside]] = host.name[level.rows[at[inside]]]
        # Where no range is open there is none further in.
        rows, threads, times = rows[inside], threads[inside], times[inside]
        if not len(rows):
            break
    return found


# Wall clock


def wall_clock(a: Trace, b: Trace) -> list[dict[str, Any]]:
    """Span, busy and idle ns per pair of devices; delta_span == delta_busy + delta_idle.

    Devices are paired as kernels are matched. One without a partner stands alone: its partner is
    None and did nothing, 0 ns.
    """
    times_a, times_b = _device_times(a), _device_times(b)
    pairs = device_pairs(a.gpu.device, b.gpu.device)
    return [_clock(one, two, times_a, times_b) for one, two in pairs]


def _clock(
    one: int | None, two: int | None, a: dict[int, tuple[int, int]], b: dict[int, tuple[int, int]]
) -> dict[str, Any]:
    span_a, busy_a = a[one] if one is not None else (0, 0)
    span_b, busy_b = b[two] if two is not None else (0, 0)
    return {
        "device_a": None if one == UNKNOWN else one,
        "device_b": None if two == UNKNOWN else two,
        "span_a_ns": span_a,
        "span_b_ns": span_b,
        "delta_span_ns": span_b - span_a,
        "busy_a_ns": busy_a,
        "busy_b_ns": busy_b,
        "delta_busy_ns": busy_b - busy_a,
        "idle_a_ns": span_a - busy_a,
        "idle_b_ns": span_b - busy_b,
        "delta_idle_ns": (span_b - busy_b) - (span_a - busy_a),
    }


def _device_times(trace: Trace) -> dict[int, tuple[int, int]]:
    """{device: (span, busy)} in ns."""
    gpu = trace.gpu
    found = {}
    for device in occurring(gpu.device).tolist():
        rows = gpu.device == device
        starts, ends = gpu.start_ns[rows], gpu.end_ns[rows]
        found[device] = (int(ends.max()) - int(starts.min()), union_ns(starts, ends))
    return found
