"""In which order was the work of a trace launched, and which pieces of it belong together?

A unit is what one instance of one operator (or range, or graph launch) put on a GPU in one go; work
without any of these is a unit of its own. Units are what a comparison aligns first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.diff.names import family, normalised
from common.diff.nesting import HostTree, UInt64, host_tree, mixed, text_tokens
from common.traces.model import UNKNOWN, Bool, GpuKind, Int64, Trace


@dataclass(frozen=True)
class Launched:
    """The GPU work of one trace in launch order. Columns of length n, and of length u for units."""

    trace: Trace
    tree: HostTree
    event: Int64  # row of Trace.gpu
    lane: Int64  # rank of the device: each device is a sequence of its own
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


def launched(trace: Trace, lanes: dict[int, int]) -> Launched:
    """All GPU work of `trace` in launch order; `lanes` gives each device id its rank."""
    gpu, tree = trace.gpu, host_tree(trace)
    rank = np.array([lanes[device] for device in gpu.device.tolist()], dtype=np.int64)
    began = _launch_times(trace)
    event = np.lexsort((np.arange(len(gpu)), began, rank))
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
    kinds = {number: trace.names[number] for number in np.unique(gpu.name).tolist()}
    normal = _mapped(kinds, normalised, gpu.name[event])
    families = _mapped(kinds, family, gpu.name[event])

    # One unit: neighbours with one owner; a graph launch owns its nodes; the rest stands alone.
    graph_key = np.where(by_graph, launch + len(trace.host), UNKNOWN)
    owner = np.where(by_graph, graph_key, leaf)
    alone = owner == UNKNOWN
    lane = rank[event]
    change = np.ones(len(event), dtype=np.bool_)
    change[1:] = (owner[1:] != owner[:-1]) | alone[1:] | (lane[1:] != lane[:-1])
    unit = np.cumsum(change) - 1
    first = np.flatnonzero(change)
    size = np.diff(np.append(first, len(event)))
    lane_token = lane[first].astype(np.uint64)
    what = np.where(alone[first], families[first], mixed(path[first], by_graph[first].astype("u8")))
    return Launched(
        trace=trace,
        tree=tree,
        event=event,
        lane=lane,
        leaf=leaf,
        by_graph=by_graph,
        in_operator=operator != UNKNOWN,
        step=_steps(trace, began[event]),
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


def _launch_times(trace: Trace) -> Int64:
    """When each piece of work was launched; what has no launch follows its predecessor's."""
    gpu = trace.gpu
    began = np.where(
        gpu.launch != UNKNOWN,
        trace.host.start_ns[np.maximum(gpu.launch, 0)] if len(trace.host) else 0,
        np.iinfo(np.int64).min,
    )
    if not (gpu.launch == UNKNOWN).any():
        return began
    order = np.lexsort((np.arange(len(gpu)), gpu.stream, gpu.device))
    device, stream = gpu.device[order], gpu.stream[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (device[1:] != device[:-1]) | (stream[1:] != stream[:-1])
    known = gpu.launch[order] != UNKNOWN
    last = np.maximum.accumulate(np.where(known | new, np.arange(len(order)), 0))
    filled = began.copy()
    filled[order] = began[order[last]]
    return filled


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
