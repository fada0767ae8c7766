"""What does a CUDA memory snapshot hold? Columns of segments, blocks and events, in bytes.

Sizes of events and `requested_size` are what the program asked for; `size` of a block and all sizes
of segments are what the allocator rounded or split it to. The two are never added up together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.traces.memory_stacks import Stack

Int64 = NDArray[np.int64]
Pool = tuple[int, int]

NO_STACK = -1
NO_TIME = -1
DEFAULT_POOL: Pool = (0, 0)
Value = TypeVar("Value", bound=Hashable)


def coded(values: Sequence[Value]) -> tuple[Int64, list[Value]]:
    """(number of each value, the distinct values in the order of their first appearance)."""
    distinct = list(dict.fromkeys(values))
    number = {value: at for at, value in enumerate(distinct)}
    codes = np.fromiter(map(number.__getitem__, values), dtype=np.int64, count=len(values))
    return codes, distinct


def pool_kind(pool: Pool | None) -> str:
    """Whose pool it is. (0, 0) is the default pool; (0, n) was made by the user (graph_pool_handle,
    MemPool: Inductor's graph trees and serving engines do); (n, 0) belongs to one CUDAGraph that
    was captured without a pool. Numbers differ between runs, kinds do not.

    Source: MemPool::MemPool and CUDAGraph::capture_begin in PyTorch.
    """
    if pool is None:
        return "unknown pool"
    if pool == DEFAULT_POOL:
        return "default pool"
    return "private pool" if pool[0] == 0 else "graph pool"


@dataclass(frozen=True)
class Segments:
    """Memory taken from the driver and still held at the dump, in the order of the file."""

    device: Int64
    address: Int64
    total_bytes: Int64
    allocated_bytes: Int64
    active_bytes: Int64
    requested_bytes: Int64
    stream: Int64
    expandable: NDArray[np.bool_]
    kind: tuple[str, ...]  # "small", "large", or "unknown"
    pool: tuple[Pool | None, ...]  # None where the file is older than pools in snapshots

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Blocks:
    """The pieces of the segments at the dump. `stack` is an index into the snapshot's stacks."""

    segment: Int64
    address: Int64
    bytes: Int64
    requested_bytes: Int64
    stack: Int64
    state: tuple[str, ...]  # active_allocated, active_pending_free, inactive

    def __len__(self) -> int:
        return len(self.state)


@dataclass(frozen=True)
class Events:
    """The recorded history of one device, oldest first. -1 where a field is not there."""

    action: tuple[str, ...]
    position: Int64  # index in the file's list: unreadable events leave holes
    address: Int64
    bytes: Int64
    stream: Int64
    time_us: Int64
    stack: Int64
    pool: tuple[Pool | None, ...]  # recorded since March 2026, else None
    metadata: tuple[str, ...] = ()  # what the program said of its allocations; "" where nothing

    def __len__(self) -> int:
        return len(self.action)

    @cached_property
    def coded_actions(self) -> tuple[Int64, list[str]]:
        return coded(self.action)

    @cached_property
    def coded_pools(self) -> tuple[Int64, list[Pool | None]]:
        return coded(self.pool)

    def signs(self, sign: Mapping[str, int]) -> Int64:
        """What each event's action is worth; 0 where `sign` does not say."""
        codes, actions = self.coded_actions
        return np.array([sign.get(action, 0) for action in actions], dtype=np.int64)[codes]

    def count(self) -> dict[str, int]:
        """How many events of each action, in the order of their first appearance."""
        codes, actions = self.coded_actions
        counts = np.bincount(codes, minlength=len(actions)).tolist()
        return dict(zip(actions, counts, strict=True))


@dataclass(frozen=True)
class OutOfMemory:
    """One failed allocation. `free_bytes` is what the driver said was left on the device."""

    device: int
    position: int
    requested_bytes: int
    free_bytes: int | None
    time_us: int | None
    stack: Stack | None


@dataclass(frozen=True)
class Annotation:
    """The start or end of a named phase (record_function with global annotations, optimizers)."""

    device: int
    time_us: int
    name: str
    stage: str  # START or END


@dataclass(frozen=True)
class LiveBlock:
    """Memory that the program held at one moment. `pool` None: which pool is not recorded."""

    bytes: int
    device: int
    address: int
    pool: Pool | None
    stream: int | None
    stack: Stack | None  # None: allocated before the history began, or without frames
    since: int  # position of its alloc event; -1: before the history


@dataclass(frozen=True)
class Level:
    """One quantity over the recorded history of one device, in bytes.

    `peak_event` is the position of the event that reached the peak, -1 when that is the start.
    `contradictions` counts events that do not fit the blocks at the dump.
    """

    start: int
    peak: int
    peak_event: int
    lowest: int
    end: int
    start_blocks: int | None = None
    contradictions: int = 0


@dataclass(frozen=True)
class Replay:
    """The history of one device, in requested bytes (`reserved`: the driver's bytes)."""

    allocated: Level
    active: Level
    reserved: Level

    @property
    def begins_mid_run(self) -> bool:
        """Memory was held before the first recorded event."""
        return bool(self.allocated.start_blocks)


@dataclass(frozen=True)
class Holdings:
    """What the allocator held at the dump, for one device, pool, stream or kind of segment."""

    segments: int
    reserved_bytes: int
    allocated_bytes: int
    active_bytes: int
    requested_bytes: int
    largest_inactive_bytes: int

    @property
    def retained_bytes(self) -> int:
        """Held from the driver though nothing uses it: what a graph's pool pins."""
        return self.reserved_bytes - self.active_bytes

    @property
    def fragmentation_bytes(self) -> int:
        return self.reserved_bytes - self.allocated_bytes
