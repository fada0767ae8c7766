"""What does one trace amount to? The "a" side of a diff, as a dictionary that is ready for JSON.

Sums over what was recorded: a trace without GPU work has 0 ns of it, and a warning that says so.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from common.traces.intervals import total_ns, union_ns
from common.traces.model import UNKNOWN, Caution, GpuKind, GpuWork, HostKind, Trace
from common.traces.ordering import distinct, grouped, occurring
from common.traces.wrappers import is_wrapper

TOP = 10


def summarise_trace(trace: Trace, path: Path) -> dict[str, Any]:
    """Totals of a trace in integer ns; `path` gives its name only. None is unknown.

    `gpu_time_ns` sums durations of kernels, copies, sets and whole graphs; `busy_ns` the devices'
    unions; `span_ns` is first GPU start to last GPU end; `unlinked` has no launching call;
    `graph_launched` are kernels and whole graphs launched by a graph launch; `launches` counts the
    calls that launched any work. `cpu_time_ns` is that of the outermost operators, summed over
    threads, and only given for a trace without GPU work.
    """
    gpu = trace.gpu
    duration = gpu.duration_ns
    unlinked = gpu.launch == UNKNOWN
    computing = (gpu.kind == GpuKind.KERNEL) | (gpu.kind == GpuKind.GRAPH)
    graphed = gpu.by_graph_launch & computing
    numbers, place = distinct(gpu.device)
    devices = [_device(trace, device) for device in numbers.tolist()]
    streams, stream = distinct(gpu.stream)
    pairs = distinct(place * len(streams) + stream)[0]
    return {
        "path": path.name,
        "source": trace.source,
        "format": trace.format,
        "devices": devices,
        "gpus_listed": dict(Counter(device.name or "" for device in trace.devices)),
        "gpu_time_ns": total_ns(duration),
        "cpu_time_ns": None if len(gpu) else cpu_time_ns(trace),
        "busy_ns": sum(device["busy_ns"] for device in devices),
        "span_ns": _span(gpu),
        "unlinked_ns": total_ns(duration[unlinked]),
        "unlinked": int(unlinked.sum()),
        "graph_launched_ns": total_ns(duration[graphed]),
        "graph_launched": int(graphed.sum()),
        "events": trace.events,
        "gpu_events": len(gpu),
        "kernels": int((gpu.kind == GpuKind.KERNEL).sum()),
        "launches": len(distinct(gpu.launch[~unlinked])[0]),
        "streams": len(pairs),
        "by_kind": {
            kind.name.lower(): {
                "count": int((gpu.kind == kind).sum()),
                "time_ns": total_ns(duration[gpu.kind == kind]),
            }
            for kind in GpuKind
        },
        "top_kernels": _top(trace, computing),
        "steps": _steps(trace),
        "counts": trace.counts,
        "warnings": [
            {"kind": caution.kind, "count": caution.count, "says": caution.says}
            for caution in (*trace.warnings, *_empty(trace))
        ],
    }


def _span(gpu: GpuWork) -> int:
    return int(gpu.end_ns.max()) - int(gpu.start_ns.min()) if len(gpu) else 0


def _device(trace: Trace, device: int) -> dict[str, Any]:
    rows = trace.gpu.device == device
    starts, ends = trace.gpu.start_ns[rows], trace.gpu.end_ns[rows]
    span, busy = int(ends.max()) - int(starts.min()), union_ns(starts, ends)
    return {
        "id": device if device != UNKNOWN else None,
        "name": trace.device_name(device),
        "span_ns": span,
        "busy_ns": busy,
        "idle_ns": span - busy,
    }


def cpu_time_ns(trace: Trace) -> int | None:
    """Time within at least one operator that is no wrapper, summed over threads.

    None for a trace that recorded no operators (Nsight Systems does not).
    """
    host = trace.host
    wrapper = np.array([is_wrapper(name) for name in trace.names], dtype=np.bool_)
    rows = np.flatnonzero(host.kind == HostKind.OPERATOR)
    if not len(rows):
        return None
    rows = rows[~wrapper[host.name[rows]]]
    total = 0
    for thread in occurring(host.thread[rows]).tolist():
        own = rows[host.thread[rows] == thread]
        total += union_ns(host.start_ns[own], host.end_ns[own])
    return total


def _top(trace: Trace, rows: Any) -> list[dict[str, Any]]:
    names, inverse = distinct(trace.gpu.name[rows])
    order = grouped(inverse, len(names))
    counts = np.bincount(inverse, minlength=len(names))
    parts = np.split(trace.gpu.duration_ns[rows][order], np.cumsum(counts)[:-1])
    found = [
        {"name": trace.names[name], "count": count, "time_ns": total_ns(part)}
        for name, count, part in zip(names.tolist(), counts.tolist(), parts, strict=False)
    ]
    return sorted(found, key=lambda row: (-row["time_ns"], row["name"]))[:TOP]


def _steps(trace: Trace) -> dict[str, Any] | None:
    lengths = [step.end_ns - step.start_ns for step in trace.steps]
    if not lengths:
        return None
    return {
        "count": len(lengths),
        "median_ns": sorted(lengths)[(len(lengths) - 1) // 2],
        "minimum_ns": min(lengths),
        "maximum_ns": max(lengths),
    }


def _empty(trace: Trace) -> list[Caution]:
    if trace.has_gpu_events:
        return []
    calls = int((trace.host.kind == HostKind.RUNTIME).sum())
    if calls or trace.devices:
        says = f"no GPU work was recorded, though {calls} runtime calls and "
        return [Caution("no GPU work", 1, f"{says}{len(trace.devices)} GPUs are listed")]
    return [Caution("no GPU work", 1, "no GPU work was recorded")]
