"""What did torch.profiler record? Reads its Chrome traces (.json, .json.gz) into columns.

From the capitalised categories of 2021 to today's, NVIDIA and AMD, with a GPU or without. The file
is read in pieces, so memory grows with the number of events and not with the size of the file.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UsageError
from common.traces.byte_source import ByteSource
from common.traces.json_events import PIECE_BYTES, EventStream, cautions
from common.traces.linking import latest_call, repeated
from common.traces.model import (
    GRAPH_LAUNCH,
    UNKNOWN,
    Allocations,
    Bool,
    Caution,
    Device,
    GpuWork,
    HostKind,
    HostSpans,
    Int64,
    Step,
    Trace,
    empty_allocations,
)
from common.traces.ordering import start_order, taken
from common.traces.torch_columns import Gathered, gpu_kind, host_kind, is_gpu

FORMAT = "torch.profiler"
STEP = "ProfilerStep#"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Hundreds of thousands of small objects, none of them cyclic: nothing for it to find."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_torch_trace(path: Path, frames: bool = False) -> Trace:
    """Read a torch.profiler trace; Python frames are counted and only kept with `frames`.

    Raises UsageError when the file is none. A damaged one gives every intact event, and warnings.
    """
    source = ByteSource(path)
    source.head(1)
    stream = EventStream(source.blocks(PIECE_BYTES), str(path))
    gathered = Gathered(frames)
    with no_garbage_collection():
        for events in stream:
            gathered.add(events)
            del events
        count = gathered.events
        if not gathered.has_phase and (count or stream.lost["unreadable"]):
            raise UsageError(f"{path} holds no trace event; give a trace of torch.profiler")
        damage = source.damage
        return _trace(gathered, stream.meta, count, cautions(stream, count, damage))


def _trace(gathered: Gathered, meta: dict[str, Any], count: int, found: list[Caution]) -> Trace:
    columns, on_gpu_columns = gathered.spans()
    threads, place = gathered.sorted_threads()
    names = tuple(gathered.names)
    on_gpu = is_gpu(columns["code"])
    steps_named = np.array([name.startswith(STEP) for name in names], dtype=np.bool_)
    host = _host(columns, np.flatnonzero(~on_gpu), place, steps_named)
    gpu = _gpu(columns, np.flatnonzero(on_gpu), on_gpu_columns, host, names)
    allocations = _allocations(gathered.memory(), place)
    twice = repeated(host.correlation[host.kind == HostKind.RUNTIME])
    if twice:
        found.append(
            Caution("repeated ids", twice, f"{twice} runtime calls repeat a correlation id")
        )
    return Trace(
        source="torch",
        format=FORMAT,
        names=names,
        threads=threads,
        gpu=gpu,
        host=host,
        allocations=allocations,
        devices=_devices(meta.get("deviceProperties")),
        steps=_steps(host, names, steps_named),
        events=count,
        counts={
            "gpu": len(gpu),
            "host": len(host),
            "allocator": len(allocations),
            "python_function": gathered.frames,
            "arrows": gathered.arrows,
        },
        warnings=tuple(found + gathered.cautions()),
    )


def _host(columns: dict[str, Any], rows: Int64, place: Int64, steps: Bool) -> HostSpans:
    kind = host_kind(columns["code"][rows])
    name = columns["name"][rows]
    if steps.any():  # an operator in 2021, an annotation since
        kind = np.where(steps[name], int(HostKind.ANNOTATION), kind)
    thread = place[columns["thread"][rows]] if len(place) else columns["thread"][rows]
    start, end = columns["start_ns"][rows], columns["end_ns"][rows]
    # Of spans of one microsecond the file's order says which is outside, if no tool has sorted it:
    # ids of operators are given out as they begin, and a call is inside the operator that made it.
    external = columns["external"][rows]
    is_call: Int64 = (kind == HostKind.RUNTIME).astype(np.int64)
    order = start_order(start, (start - end, external, is_call), thread)
    return HostSpans(
        kind=taken(kind, order),
        name=taken(name, order),
        thread=taken(thread, order),
        start_ns=taken(start, order),
        end_ns=taken(end, order),
        correlation=taken(columns["correlation"][rows], order),
        external=taken(external, order),
    )


def _gpu(
    columns: dict[str, Any], rows: Int64, more: dict[str, Int64], host: HostSpans,
    names: tuple[str, ...],
) -> GpuWork:  # fmt: skip
    picked = {name: column[rows] for name, column in columns.items() if name != "thread"} | more
    order = start_order(picked["start_ns"], (picked["device"], picked["stream"]))
    picked = {name: taken(column, order) for name, column in picked.items()}
    calls = np.flatnonzero(host.kind == HostKind.RUNTIME)
    starts = host.start_ns[calls]
    call = latest_call(picked["correlation"], picked["start_ns"], host.correlation[calls], starts)
    # Where no call has the correlation id, one of the same operator launched it. 0 names none.
    external = host.external[calls].copy()
    external[external == 0] = UNKNOWN
    alone = np.flatnonzero(call == UNKNOWN)
    call[alone] = latest_call(
        picked["external"][alone], picked["start_ns"][alone], external, starts
    )
    launch = np.where(call == UNKNOWN, UNKNOWN, calls[call] if len(calls) else UNKNOWN)
    is_graph = np.array([GRAPH_LAUNCH in name for name in names], dtype=np.bool_)
    by_graph: Bool = np.zeros(len(launch), dtype=np.bool_)
    linked = launch != UNKNOWN
    by_graph[linked] = is_graph[host.name[launch[linked]]]
    return GpuWork(
        kind=gpu_kind(picked["code"]),
        name=picked["name"],
        device=picked["device"],
        stream=picked["stream"],
        process=np.full(len(launch), UNKNOWN, dtype=np.int64),
        start_ns=picked["start_ns"],
        end_ns=picked["end_ns"],
        correlation=picked["correlation"],
        external=picked["external"],
        launch=launch,
        by_graph_launch=by_graph,
        graph_node=picked["graph_node"],
        size_bytes=picked["size_bytes"],
    )


def _allocations(columns: dict[str, Int64], place: Int64) -> Allocations:
    if not columns:
        return empty_allocations()
    columns["thread"] = place[columns["thread"]]
    order = np.argsort(columns["time_ns"], kind="stable")
    return Allocations(**{name: column[order] for name, column in columns.items()})


def _devices(listed: Any) -> tuple[Device, ...]:
    """The GPUs of `deviceProperties`; an empty name is an unknown one."""
    found = []
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            name, number = entry.get("name"), entry.get("id")
            found.append(
                Device(
                    number if isinstance(number, int) else None,
                    name if isinstance(name, str) and name else None,
                )
            )
    return tuple(found)


def _steps(host: HostSpans, names: tuple[str, ...], steps_named: Bool) -> tuple[Step, ...]:
    if not steps_named.any():
        return ()
    rows = np.flatnonzero(steps_named[host.name])
    first: dict[int, int] = {}
    for row in sorted(rows.tolist(), key=lambda r: (int(host.start_ns[r]), -int(host.end_ns[r]))):
        first.setdefault(int(host.name[row]), row)
    return tuple(
        Step(names[name], int(host.start_ns[row]), int(host.end_ns[row]))
        for name, row in first.items()
    )
