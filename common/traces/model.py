"""What does a profiler's file hold, whatever wrote it? One columnar model, in integer nanoseconds.

Three tables of int64 columns (work on GPUs, spans on the host, allocator events) and the lists
that their small numbers point into: `names` and `threads`. Times are exact: a timestamp printed in
decimal microseconds becomes an integer number of nanoseconds without passing through a float.
What could not be read is counted in `warnings`, never dropped in silence. Unknown integers are
UNKNOWN (-1), unknown names None; neither is ever 0.

Structs rather than dataclasses here and in `common.diff.difference`: making thirteen dataclasses
takes longer than reading a trace of 2 MB, at every start.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

UNKNOWN = -1
MODULE_PREFIX = "nn.Module: "  # of the frames that are calls of a torch.nn.Module
GRAPH_LAUNCH = "GraphLaunch"  # part of cudaGraphLaunch, cuGraphLaunch, hipGraphLaunch, …


class GpuKind(IntEnum):
    KERNEL = 0
    MEMCPY = 1
    MEMSET = 2
    GRAPH = 3  # a whole CUDA graph as one activity: its kernels were not recorded one by one


class HostKind(IntEnum):
    OPERATOR = 0
    RUNTIME = 1  # a call of the CUDA or HIP runtime or driver
    ANNOTATION = 2  # record_function, NVTX push/pop: nests within its thread
    RANGE = 3  # NVTX start/end: may overlap anything
    FRAME = 4  # a Python frame: counted, and only kept when asked for
    MODULE = 5  # the call of a torch.nn.Module, recorded among the Python frames and always kept


class GpuWork(msgspec.Struct, frozen=True):
    """Every activity of a device once, ordered by (start, device, stream). Columns of length n."""

    kind: Int64  # GpuKind
    name: Int64  # index into Trace.names
    device: Int64
    stream: Int64
    process: Int64  # process that launched it; UNKNOWN where the format does not say
    start_ns: Int64
    end_ns: Int64
    correlation: Int64
    external: Int64  # torch's id of the operator
    launch: Int64  # row of Trace.host: the runtime call that launched it; UNKNOWN when unlinked
    by_graph_launch: Bool
    graph_node: Int64
    size_bytes: Int64  # of copies and sets

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def duration_ns(self) -> Int64:
        return self.end_ns - self.start_ns


class HostSpans(msgspec.Struct, frozen=True):
    """What the host did, ordered by (thread, start, longest first). Columns of length n."""

    kind: Int64  # HostKind
    name: Int64  # index into Trace.names
    thread: Int64  # index into Trace.threads, which is sorted
    start_ns: Int64
    end_ns: Int64
    correlation: Int64
    external: Int64

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def duration_ns(self) -> Int64:
        return self.end_ns - self.start_ns


class Allocations(msgspec.Struct, frozen=True):
    """Allocator events in time order: `delta_bytes` is positive for an allocation."""

    time_ns: Int64
    delta_bytes: Int64
    device: Int64  # UNKNOWN (-1) for the CPU's allocator, else the index of the GPU
    thread: Int64  # index into Trace.threads
    allocated_bytes: Int64  # as the allocator counted it after the event; UNKNOWN where not said
    reserved_bytes: Int64

    def __len__(self) -> int:
        return len(self.time_ns)


class Device(msgspec.Struct, frozen=True):
    """A GPU as the file lists it; `id` is None for one that cannot run CUDA."""

    id: int | None
    name: str | None


class Step(msgspec.Struct, frozen=True):
    """One profiler step (`ProfilerStep#N`)."""

    name: str
    start_ns: int
    end_ns: int


class Caution(msgspec.Struct, frozen=True):
    """Something that was lost, mended or ambiguous, and how often."""

    kind: str  # a stable word for programs
    count: int
    says: str

    def __str__(self) -> str:
        return self.says


class Trace(msgspec.Struct, frozen=True):
    """`events` counts every readable event of the file, also those of no column."""

    source: str  # "torch" or "nsys"
    format: str
    names: tuple[str, ...]
    threads: tuple[str, ...]  # "process/thread", sorted
    gpu: GpuWork
    host: HostSpans
    allocations: Allocations
    devices: tuple[Device, ...] = ()
    steps: tuple[Step, ...] = ()
    events: int = 0
    counts: dict[str, int] = {}  # per kind of event, as the format has it
    warnings: tuple[Caution, ...] = ()

    @property
    def has_gpu_events(self) -> bool:
        return len(self.gpu) > 0

    def device_name(self, device: int) -> str | None:
        """Name of a device by its id; for an id that is not listed, the one name all share."""
        for listed in self.devices:
            if listed.id == device:
                return listed.name
        # ROCm numbers agents, not GPUs: device 2 may be the only GPU, listed as 0.
        names = {listed.name for listed in self.devices}
        return names.pop() if len(names) == 1 else None


def empty_gpu() -> GpuWork:
    return gpu_from({}, 0)


def gpu_from(columns: dict[str, Int64], size: int) -> GpuWork:
    """Columns by name; those that a format does not know are filled with UNKNOWN."""
    filled: dict[str, Int64] = {
        name: columns.get(name, np.full(size, UNKNOWN, dtype=np.int64))
        for name in GpuWork.__struct_fields__
    }
    by_graph: Bool = filled.pop("by_graph_launch") > 0
    return GpuWork(**filled, by_graph_launch=by_graph)


def empty_host() -> HostSpans:
    return HostSpans(*(np.empty(0, dtype=np.int64) for _ in HostSpans.__struct_fields__))


def empty_allocations() -> Allocations:
    return Allocations(*(np.empty(0, dtype=np.int64) for _ in Allocations.__struct_fields__))
