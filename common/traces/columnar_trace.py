"""Which tables does a trace become? GPU work, spans on the host, allocator events, and lists."""

from __future__ import annotations

from enum import IntEnum

import pyarrow as pa

from common.traces.columnar import (
    Tables,
    flags,
    integers,
    looked_up,
    repeated,
    table,
    texts,
)
from common.traces.model import (
    UNKNOWN,
    Allocations,
    GpuKind,
    GpuWork,
    HostKind,
    HostSpans,
    Int64,
    Trace,
)


def trace_tables(trace: Trace) -> tuple[Tables, dict[str, object]]:
    """(tables, facts about the file). `gpu.launch` is a `row` of the table `host`."""
    tables = {
        "gpu": _gpu(trace.gpu, trace.names),
        "host": _host(trace.host, trace.names, trace.threads),
        "allocations": _allocations(trace.allocations, trace.threads),
        "steps": pa.table(
            {
                "name": texts([step.name for step in trace.steps]),
                "start_ns": pa.array([step.start_ns for step in trace.steps], pa.int64()),
                "end_ns": pa.array([step.end_ns for step in trace.steps], pa.int64()),
            }
        ),
        "devices": pa.table(
            {
                "id": pa.array([device.id for device in trace.devices], pa.int64()),
                "name": texts([device.name for device in trace.devices]),
            }
        ),
        "warnings": pa.table(
            {
                "kind": texts([caution.kind for caution in trace.warnings]),
                "count": pa.array([caution.count for caution in trace.warnings], pa.int64()),
                "says": texts([caution.says for caution in trace.warnings]),
            }
        ),
    }
    counts = {f"count of {kind}": count for kind, count in trace.counts.items()}
    return tables, {"format": trace.format, "events": trace.events, **counts}


def _gpu(gpu: GpuWork, names: tuple[str, ...]) -> pa.Table:
    return table(
        {
            "kind": _kinds(gpu.kind, GpuKind),
            "name": looked_up(gpu.name, names),
            "device": integers(gpu.device, UNKNOWN),
            "stream": integers(gpu.stream, UNKNOWN),
            "process": integers(gpu.process, UNKNOWN),
            "start_ns": integers(gpu.start_ns),
            "end_ns": integers(gpu.end_ns),
            "duration_ns": integers(gpu.duration_ns),
            "correlation": integers(gpu.correlation, UNKNOWN),
            "external": integers(gpu.external, UNKNOWN),
            "launch": integers(gpu.launch, UNKNOWN),
            "by_graph_launch": flags(gpu.by_graph_launch),
            "graph_node": integers(gpu.graph_node, UNKNOWN),
            "size_bytes": integers(gpu.size_bytes, UNKNOWN),
        }
    )


def _host(host: HostSpans, names: tuple[str, ...], threads: tuple[str, ...]) -> pa.Table:
    return table(
        {
            "row": pa.array(range(len(host)), pa.int64()),
            "kind": _kinds(host.kind, HostKind),
            "name": looked_up(host.name, names),
            "thread": looked_up(host.thread, threads),
            "start_ns": integers(host.start_ns),
            "end_ns": integers(host.end_ns),
            "duration_ns": integers(host.duration_ns),
            "correlation": integers(host.correlation, UNKNOWN),
            "external": integers(host.external, UNKNOWN),
        }
    )


def _allocations(events: Allocations, threads: tuple[str, ...]) -> pa.Table:
    """`device` is null for events of the CPU's allocator, which `allocator` tells."""
    on_cpu = events.device == UNKNOWN
    return table(
        {
            "time_ns": integers(events.time_ns),
            "delta_bytes": integers(events.delta_bytes),
            "allocator": repeated(["cpu" if cpu else "gpu" for cpu in on_cpu.tolist()]),
            "device": integers(events.device, UNKNOWN),
            "thread": looked_up(events.thread, threads),
            "allocated_bytes": integers(events.allocated_bytes, UNKNOWN),
            "reserved_bytes": integers(events.reserved_bytes, UNKNOWN),
        }
    )


def _kinds(column: Int64, kinds: type[IntEnum]) -> pa.Array:
    return looked_up(column, [kind.name.lower() for kind in kinds])
