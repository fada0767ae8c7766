"""Which runtime calls make the host wait for the GPU, and was a thread in one at a given moment?"""

from __future__ import annotations

import numpy as np

from common.diff.host_lookup import Level, named, outermost
from common.diff.launch_bounds import launch_bounds
from common.traces.model import UNKNOWN, Bool, GpuKind, HostKind, Int64, Trace

# Host and GPU clocks differ by 8.5 µs in real ROCm traces: calls return before what they waited
# for ends.
CLOCKS_APART_NS = 20_000
_FREES = ("cudaFree", "cuMemFree", "hipFree")
_WAIT = "Synchronize"


def synchronising(trace: Trace) -> Level:
    """Calls that wait for the GPU; a driver call inside a runtime call is part of that."""
    host, gpu = trace.host, trace.gpu
    calls = np.flatnonzero(host.kind == HostKind.RUNTIME)
    names = host.name[calls]
    asynchronous, copying = named(trace, names, "Async"), named(trace, names, "emcpy")
    waits = named(trace, names, _WAIT) | (named(trace, names, *_FREES) & ~asynchronous)
    chosen: Bool = np.zeros(len(host), dtype=np.bool_)
    chosen[calls] = waits[names]
    copies = np.flatnonzero((gpu.kind == GpuKind.MEMCPY) & (gpu.launch != UNKNOWN))
    copies = copies[copying[host.name[gpu.launch[copies]]]]  # not those of a graph launch
    call, names = gpu.launch[copies], gpu.name[copies]
    within = named(trace, names, "DtoD", "PtoP", "Device-to-Device", "Peer")[names]
    # An asynchronous call does not block on pinned memory; on other memory it can.
    lasting = (host.end_ns[call] >= gpu.end_ns[copies]) & ~named(trace, names, "Pinned")[names]
    chosen[call[~within & (lasting | ~asynchronous[host.name[call]])]] = True
    return outermost(host, np.flatnonzero(chosen))


def standing(
    trace: Trace, syncs: Level, thread: Int64, begun: Int64, before: Int64
) -> tuple[Int64, Int64, Int64]:
    """(call in which the thread stood when the GPU ran dry, when it was out of it, time it took).

    `before` is the work that ended last, at the moment when the GPU ran dry; `begun` calls had
    begun by then (Level.begun). A copy and the
    synchronising call right behind it, as of aten::item, are one wait.
    """
    start, launch = trace.gpu.end_ns[before], trace.gpu.launch[before]
    at = syncs.own(thread, begun - 1)
    out, took = start.copy(), np.zeros(len(start), dtype=np.int64)
    has = np.flatnonzero(at != UNKNOWN)
    begin, end = syncs.start_ns[at[has]], syncs.end_ns[at[has]]
    stood = end >= start[has]
    near = np.flatnonzero(~stood & (end >= start[has] - CLOCKS_APART_NS))
    if len(near):
        launched = trace.host.start_ns[launch[has[near]]]
        alone = launch[has[near]] == UNKNOWN
        launched[alone] = launch_bounds(trace, before[has[near][alone]])[1]
        stood[near] = launched <= begin[near]
    at[has[~stood]] = UNKNOWN
    has, begin, end = has[stood], begin[stood], end[stood]
    out[has] = np.maximum(end, start[has])
    took[has] = end - begin
    previous = at[has] - 1
    chained = (previous >= 0) & (syncs.thread[previous] == thread[has])
    chained &= begin - syncs.end_ns[previous] <= CLOCKS_APART_NS
    took[has[chained]] += (syncs.end_ns - syncs.start_ns)[previous[chained]]
    return at, out, took


def inside(
    trace: Trace, syncs: Level, thread: Int64, begun: Int64, until: Int64
) -> tuple[Int64, Int64]:
    """(time in *Synchronize calls that began within the gap, the first of them or UNKNOWN).

    `begun` calls had begun before the gap did. Only those with that name: freeing or copying while
    the GPU is idle waits for no work of it.
    """
    time = np.zeros(len(thread), dtype=np.int64)
    first = np.full(len(thread), UNKNOWN, dtype=np.int64)
    more = np.flatnonzero(begun < len(syncs.rows))
    next_ = begun[more]
    more = more[(syncs.thread[next_] == thread[more]) & (syncs.start_ns[next_] < until[more])]
    names = trace.host.name[syncs.rows]
    is_named = named(trace, names, _WAIT)[names]
    took = np.where(is_named, syncs.end_ns - syncs.start_ns, 0)
    total = np.concatenate(([0], np.cumsum(took)))
    low, high = begun[more], syncs.begun(thread[more], until[more], before=True)
    time[more] = total[high] - total[low]
    place = np.flatnonzero(is_named)
    has = time[more] > 0
    first[more[has]] = place[np.searchsorted(place, low[has])]
    return time, first
