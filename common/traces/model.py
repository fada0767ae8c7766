"""What does a profiler's file hold, whatever wrote it? Columns of events in integer nanoseconds.

Times are exact: a timestamp printed in decimal microseconds becomes an integer number of
nanoseconds without passing through a float. What could not be read is counted in `warnings`,
never dropped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Events with a duration, ordered by (thread, start, longest first). One entry per column."""

    name: tuple[str, ...]
    category: tuple[str, ...]
    thread: tuple[str, ...]
    start_ns: Int64
    end_ns: Int64
    correlation: Int64  # id that ties a launch to its kernel; -1 where there is none
    device: Int64  # -1 for the CPU

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True)
class Allocations:
    """Allocator events in time order: `delta_bytes` is positive for an allocation."""

    time_ns: Int64
    delta_bytes: Int64
    device: Int64  # -1 for the CPU's allocator, else the index of the GPU
    thread: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.time_ns)


@dataclass(frozen=True)
class Trace:
    spans: Spans
    allocations: Allocations
    gpu_names: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def has_gpu_events(self) -> bool:
        return bool((self.spans.device >= 0).any())
