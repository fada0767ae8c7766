"""When was work launched whose launching call was not recorded? Bounds from what was recorded.

Correlation ids are handed out one after the other as the calls of a process begin, and a stream
runs its work in the order of its launches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.traces.model import UNKNOWN, HostKind, Int64, Trace
from common.traces.ordering import occurring

EARLIEST, LATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_NUMBER_DIGITS = 18  # more may not fit a column: damaged files have such ids
_PROCESS_BITS = 0xFFFFFF  # of a global process id of Nsight Systems, above its low 24 bits


def launch_bounds(trace: Trace, rows: Int64) -> tuple[Int64, Int64]:
    """(earliest, latest) start of the calls that launched rows of Trace.gpu, in ns.

    EARLIEST and LATEST where nothing is known.
    """
    low = np.full(len(rows), EARLIEST, dtype=np.int64)
    high = _next_in_stream(trace, rows)
    host, gpu = trace.host, trace.gpu
    calls = np.flatnonzero((host.kind == HostKind.RUNTIME) & (host.correlation > 0))
    process_of = _processes(trace.threads)
    threads = np.flatnonzero(np.bincount(host.thread[calls], minlength=len(process_of)))
    known_processes = occurring(process_of[threads]).tolist()
    several = len(known_processes) > 1
    by = np.where(gpu.process[rows] == UNKNOWN, UNKNOWN, (gpu.process[rows] >> 24) & _PROCESS_BITS)
    ids = gpu.correlation[rows]
    for process in known_processes:
        # Work that does not say whose it is belongs to the only process there is, or to none.
        own = (ids > 0) & ((by == process) | ((by == UNKNOWN) & (not several)))
        if not own.any():
            continue
        its = calls[process_of[host.thread[calls]] == process] if several else calls
        ordered = host.correlation[its]
        if bool(np.any(ordered[1:] < ordered[:-1])):  # one thread's calls are in order
            its = its[np.argsort(host.correlation[its], kind="stable")]
        known, starts = host.correlation[its], host.start_ns[its]
        # Calls that began out of order widen the bounds.
        floor = np.minimum.accumulate(starts[::-1])[::-1]
        ceiling = np.maximum.accumulate(starts)
        place = np.searchsorted(known, ids[own])
        low[own] = np.where(place > 0, floor[np.maximum(place - 1, 0)], EARLIEST)
        inside = place < len(its)
        latest = np.where(inside, ceiling[np.minimum(place, len(its) - 1)], LATEST)
        high[own] = np.minimum(high[own], latest)
    return low, high


def _next_in_stream(trace: Trace, rows: Int64) -> Int64:
    """Start of the call that launched the next linked work of the same stream."""
    gpu, host = trace.gpu, trace.host
    found = np.full(len(rows), LATEST, dtype=np.int64)
    streams = np.stack((gpu.process[rows], gpu.device[rows], gpu.stream[rows]))
    # With a count it does not load numpy.ma (see `ordering.occurring`).
    distinct, _ = np.unique(streams, axis=1, return_counts=True)
    for process, device, stream in distinct.T.tolist():
        own = np.flatnonzero(
            (streams[0] == process) & (streams[1] == device) & (streams[2] == stream)
        )
        same = (gpu.launch != UNKNOWN) & (gpu.stream == stream)
        same &= (gpu.device == device) & (gpu.process == process)
        linked = np.flatnonzero(same)
        at = np.searchsorted(linked, rows[own])
        has = at < len(linked)
        found[own[has]] = host.start_ns[gpu.launch[linked[at[has]]]]
    return found


def _processes(threads: Sequence[str]) -> Int64:
    """The process of each "process/thread": its number, or one below UNKNOWN for another text."""
    others: dict[str, int] = {}
    found = []
    for thread in threads:
        text = thread.partition("/")[0]
        is_number = text.isdecimal() and len(text) <= _NUMBER_DIGITS
        found.append(int(text) if is_number else others.setdefault(text, UNKNOWN - 1 - len(others)))
    return np.array(found, dtype=np.int64)
