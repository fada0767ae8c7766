"""In which order was the work of a trace launched, and which pieces of it belong together?

A unit is what one instance of one operator (or range, or graph launch) put on a GPU in one go; work
without any of these is a unit of its own. Units are what a comparison aligns first.
"""

from __future__ import annotations

from itertools import zip_longest

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.diff.names import family, normalised
from common.diff.nesting import HostTree, UInt64, host_tree, mixed, text_tokens
from common.traces.model import UNKNOWN, Bool, GpuKind, Int64, Trace
from common.traces.ordering import occurring

LEAST_ALIKE = 0.8  # of what two threads launched, for one to be taken for the other


class Launched(msgspec.Struct, frozen=True):
    """The GPU work of one trace in launch order. Columns of length n, and of length u for units."""

    trace: Trace
    tree: HostTree
    event: Int64  # row of Trace.gpu
    lane: Int64  # by device, and by in or before steps: what has another lane is never a partner
    leaf: Int64  # row of Trace.host that owns it; UNKNOWN
    by_graph: Bool
    in_operator: Bool
    step: Int64  # number of the profiler step it was launched in; UNKNOWN
    name: UInt64  # tokens: equal numbers mean equal names
    normalised: UInt64
    family: UInt64
    path: UInt64  # of the operators and ranges around it; 0 without any
    outer_path: UInt64
    unit: Int64  # number of its unit
    unit_first: Int64  # n-index where each unit begins
    unit_size: Int64
    unit_path: UInt64  # token of what the unit is; of what it does, where nothing owns it
    unit_outer: UInt64
    unit_content: UInt64  # token of the sequence of names in it

    def __len__(self) -> int:
        return len(self.event)


def launched(
    trace: Trace,
    lanes: dict[int, int],
    by_step: bool = False,
    threads: dict[int, int] | None = None,
    tree: HostTree | None = None,
) -> Launched:
    """All GPU work of `trace` in launch order; `lanes` gives each device id its rank.

    With `by_step` what one step launched is only like what the other side's same step did. With
    `threads` (their ranks) what one thread launched stands before what the next one did.
    """
    gpu, tree = trace.gpu, tree or host_tree(trace)
    rank = np.array([lanes[device] for device in gpu.device.tolist()], dtype=np.int64)
    source = _launch_sources(trace)
    began = _launch_times(trace, source)
    order: tuple[Int64, ...] = (np.arange(len(gpu)), began)
    if threads:
        table = np.zeros(len(trace.threads), dtype=np.int64)
        table[list(threads)] = list(threads.values())
        known = source != UNKNOWN
        thread = trace.host.thread[gpu.launch[source[known]]]
        of_thread = np.zeros(len(gpu), dtype=np.int64)
        of_thread[known] = table[thread]
        order = (*order, of_thread)
    event = np.lexsort((*order, rank))
    launch = gpu.launch[event]
    linked = launch != UNKNOWN
    safe = np.where(linked, launch, 0)

    def of_launch(column: NDArray[np.generic], missing: int) -> NDArray[np.generic]:
        if not len(column):
            return np.full(len(event), missing, dtype=column.dtype)
        return np.where(linked, column[safe], np.array(missing, dtype=column.dtype))

    leaf = of_launch(tree.leaf, UNKNOWN).astype(np.int64)
    operator = of_launch(tree.operator, UNKNOWN).astype(np.int64)
    path = of_launch(tree.path, 0).astype(np.uint64)
    outer = of_launch(tree.outer_path, 0).astype(np.uint64)
    by_graph = gpu.by_graph_launch[event] & linked & (gpu.kind[event] != GpuKind.GRAPH)
    tokens = text_tokens(trace.names)[gpu.name[event]] if len(event) else path
    kinds = {number: trace.names[number] for number in occurring(gpu.name).tolist()}
    normal = _mapped(kinds, normalised, gpu.name[event])
    families = _mapped(kinds, family, gpu.name[event])

    # One unit: neighbours with one owner; a graph launch owns its nodes; the rest stands alone.
    graph_key = np.where(by_graph, launch + len(trace.host), UNKNOWN)
    owner = np.where(by_graph, graph_key, leaf)
    alone = owner == UNKNOWN
    step = _steps(trace, began[event])
    lane = rank[event] * 2
    if by_step:  # what came before the first step is no part of one
        lane += step == UNKNOWN
    change = np.ones(len(event), dtype=np.bool_)
    change[1:] = (owner[1:] != owner[:-1]) | alone[1:] | (lane[1:] != lane[:-1])
    unit = np.cumsum(change) - 1
    first = np.flatnonzero(change)
    size = np.diff(np.append(first, len(event)))
    lane_token = lane[first].astype(np.uint64)
    if by_step:
        lane_token = mixed(lane_token, step[first].view(np.uint64))
    what = np.where(alone[first], families[first], mixed(path[first], by_graph[first].astype("u8")))
    return Launched(
        trace=trace,
        tree=tree,
        event=event,
        lane=lane,
        leaf=leaf,
        by_graph=by_graph,
        in_operator=operator != UNKNOWN,
        step=step,
        name=tokens,
        normalised=normal,
        family=families,
        path=path,
        outer_path=outer,
        unit=unit,
        unit_first=first,
        unit_size=size,
        unit_path=mixed(what, lane_token),
        unit_outer=mixed(np.where(outer[first] == 0, what, outer[first]), lane_token),
        unit_content=_content(tokens, first, size),
    )


def device_pairs(a: Int64, b: Int64) -> list[tuple[int | None, int | None]]:
    """(device of A, device of B), of the columns of both; None for a side without a partner.

    Equal ids meet where one side's devices are among the other's; else all of them in order of
    their ids, since a job that moved from GPUs 0 and 1 to 1 and 2 did not swap its work.
    """
    of_a, of_b = occurring(a).tolist(), occurring(b).tolist()
    both = [device for device in of_a if device in of_b]
    if len(both) < min(len(of_a), len(of_b)):
        both = []
    rest_a = [device for device in of_a if device not in both]
    rest_b = [device for device in of_b if device not in both]
    return [*((device, device) for device in both), *zip_longest(rest_a, rest_b)]


def _launch_sources(trace: Trace) -> Int64:
    """Row of Trace.gpu whose launch says when each piece of work was launched: itself, or what came
    before it in its stream; UNKNOWN without any."""
    gpu = trace.gpu
    linked = gpu.launch != UNKNOWN
    if linked.all():
        return np.arange(len(gpu))
    order = np.lexsort((np.arange(len(gpu)), gpu.stream, gpu.device))
    device, stream = gpu.device[order], gpu.stream[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (device[1:] != device[:-1]) | (stream[1:] != stream[:-1])
    last = order[np.maximum.accumulate(np.where(linked[order] | new, np.arange(len(order)), 0))]
    source = np.empty(len(gpu), dtype=np.int64)
    source[order] = np.where(linked[last], last, UNKNOWN)
    return source


def _launch_times(trace: Trace, source: Int64) -> Int64:
    """When each piece of work was launched; what has no launch follows its predecessor's."""
    began = np.full(len(source), np.iinfo(np.int64).min, dtype=np.int64)
    known = source != UNKNOWN
    began[known] = trace.host.start_ns[trace.gpu.launch[source[known]]]
    return began


def alike_threads(a: Launched, b: Launched) -> tuple[dict[int, int], dict[int, int]] | None:
    """{thread: rank} of both sides where several threads launch, and each does on both sides for
    the most part the same; None where order in time is all there is.

    Threads that launch at once are interleaved by chance: no order in time is theirs.
    """
    of_a, of_b = _threads(a), _threads(b)
    used = [_by_first_use(threads) for threads in (of_a, of_b)]
    if len(used[0]) != len(used[1]) or len(used[0]) < 2:
        return None
    what_a, what_b = mixed(a.path, a.name), mixed(b.path, b.name)
    for one, other in zip(*used, strict=True):
        work, others = what_a[of_a == one], what_b[of_b == other]
        if 2 * _in_common(work, others) < LEAST_ALIKE * (len(work) + len(others)):
            return None
    return _ranked(used[0]), _ranked(used[1])


def _ranked(threads: list[int]) -> dict[int, int]:
    return {thread: rank for rank, thread in enumerate(threads)}


def _threads(side: Launched) -> Int64:
    """The thread that launched each piece of work, UNKNOWN where that was not recorded."""
    launch = side.trace.gpu.launch[side.event]
    threads: Int64 = launch.copy()
    linked = launch != UNKNOWN
    threads[linked] = side.trace.host.thread[launch[linked]]
    return threads


def _by_first_use(threads: Int64) -> list[int]:
    used, first = np.unique(threads, return_index=True)
    return [thread for thread in used[np.argsort(first)].tolist() if thread != UNKNOWN]


def _in_common(one: UInt64, other: UInt64) -> int:
    """How many elements of two lists are equal, each counted as often as both have it."""
    kinds, counts = np.unique(one, return_counts=True)
    others, more = np.unique(other, return_counts=True)
    _, left, right = np.intersect1d(kinds, others, assume_unique=True, return_indices=True)
    return int(np.minimum(counts[left], more[right]).sum())


def _steps(trace: Trace, began: Int64) -> Int64:
    """Index of the profiler step that a launch fell into."""
    if len(trace.steps) < 2:
        return np.full(len(began), UNKNOWN, dtype=np.int64)
    starts = np.array([step.start_ns for step in trace.steps], dtype=np.int64)
    order = np.argsort(starts, kind="stable")
    at = np.searchsorted(starts[order], began, side="right") - 1
    return np.where(at >= 0, at, UNKNOWN).astype(np.int64)


def _mapped(names: dict[int, str], rule: object, numbers: Int64) -> UInt64:
    table = np.zeros(max(names, default=0) + 1, dtype=np.uint64)
    for number, text in names.items():
        table[number] = text_tokens((rule(text),))[0]  # type: ignore[operator]
    return table[numbers]


def _content(tokens: UInt64, first: Int64, size: Int64) -> UInt64:
    """One number for the names in each unit, in order."""
    if not len(first):
        return np.zeros(0, dtype=np.uint64)
    place = np.arange(len(tokens)) - np.repeat(first, size)
    sums = np.add.reduceat(mixed(tokens, place.astype(np.uint64)), first)
    return mixed(sums, size.astype(np.uint64))
