"""When was each GPU idle, and why? The gaps between its work, each with a cause.

Per device, gaps are the holes in the union of its work, so that in integer ns

    span == busy + sum of the gaps' lengths        exactly.

A gap is explained by the work that ended it (the one that begins after it) and by the runtime call
that launched that work:

host late         the call began, or returned, only after the GPU had run dry: the GPU waited for
                  the CPU. (A copy whose call lasts until the copy is done may begin at any time
                  within the call: for it only the begin of the call counts.)
synchronise       the host thread that launched the next work was inside a call that waits for the
                  GPU when the GPU ran dry, so nothing could be queued behind the work it waited
                  for. Such calls are those named *Synchronize, the freeing of device memory, and
                  copies to or from the host that return only when they are done. The clocks of
                  host and GPU differ (by 8.5 µs in real ROCm traces, where calls return before what
                  they waited for ends), so a call that began after the launch of the last work may
                  have returned up to CLOCKS_APART_NS before that work ended.
queue/dependency  the call had returned before the GPU ran dry: the work waited for other work, an
                  event, the order of its stream, or for the launch to reach the GPU. So do the
                  nodes of one graph launch among themselves.
none known        no launching call was recorded and nothing else tells when it was.

A launch that had returned LATENCY_NS or more before its work began was late only up to then;
the rest of that gap is queue/dependency. (Less is what any launch onto an idle GPU takes.)

A gap after a synchronising call is split. The time that the thread still stood in such calls is
synchronise. What follows counts so as well, up to the time that the call took (a copy right before
it included): that far ahead the host could have been had the call returned at once. The rest is
host late; and so is all that follows the call where the thread spent at least half of it in one
other recorded activity (loading data, an allocation): then that is what the GPU waited for.

Work without a launching call: correlation ids rise with the time of the calls of a process, so the
recorded calls with the next lower and the next higher id bound the time of the missing one, and in
a stream work runs in the order of its launches, so that the launch of the next linked work bounds
it too. If that puts the launch before the gap it is queue/dependency, if after the gap's start it
is host late, else none known. Where the ids do not rise with time the bounds become too wide to
say anything.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import chain

import msgspec
import numpy as np

from common.diff.host_lookup import levels, outermost, wrappers
from common.diff.launch_bounds import launch_bounds
from common.diff.waiting import inside, standing, synchronising
from common.traces.model import UNKNOWN, Bool, GpuKind, GpuWork, HostKind, Int64, Trace
from common.traces.ordering import occurring

LATENCY_NS = 20_000


class Cause(IntEnum):
    HOST_LATE = 0
    SYNCHRONISE = 1
    QUEUE = 2
    NONE_KNOWN = 3

    @property
    def text(self) -> str:
        return ("host late", "synchronise", "queue/dependency", "none known")[self]


class IdleGaps(msgspec.Struct, frozen=True):
    """Idle time by (device, start). Columns of length n; a gap with two causes has two rows.

    Their order within the gap is synchronise, host late, queue/dependency.
    """

    device: Int64
    start_ns: Int64
    end_ns: Int64
    cause: Int64  # Cause
    before: Int64  # row of Trace.gpu that ended last before the gap
    after: Int64  # row of Trace.gpu that begins after it
    waited_in: Int64  # row of Trace.host: the synchronising call; UNKNOWN for other causes
    busy_with: Int64  # row of Trace.host: what the launching thread did instead; UNKNOWN: nothing

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def length_ns(self) -> Int64:
        return self.end_ns - self.start_ns


def idle_gaps(trace: Trace) -> IdleGaps:
    """The idle gaps of every device of a trace with their causes; none without GPU work."""
    gpu, host = trace.gpu, trace.host
    before, after = _borders(gpu)
    start, end = gpu.end_ns[before], gpu.start_ns[after]
    late = _launched_late(trace, before, after, start)
    length = end - start
    # Every gap has up to three parts: waiting for the GPU, being late, and what follows.
    waited, tail = np.zeros((2, len(start)), dtype=np.int64)
    waited_in = np.full(len(start), UNKNOWN, dtype=np.int64)
    busy_with = np.full(len(start), UNKNOWN, dtype=np.int64)
    asked = np.flatnonzero((late == 1) & (gpu.launch[after] != UNKNOWN))
    if len(asked):
        launch = gpu.launch[after[asked]]
        thread, due = host.thread[launch], np.minimum(host.start_ns[launch], end[asked])
        unstarted = end[asked] - np.maximum(host.end_ns[launch], start[asked])
        tail[asked] = np.where(unstarted >= LATENCY_NS, unstarted, 0)
        syncs = synchronising(trace)
        began = syncs.begun(thread, start[asked])
        at, out, took = standing(trace, syncs, thread, began, before[asked])
        busy = _other_activity(trace, syncs.rows, thread, out, due)
        busy_with[asked] = busy
        within, first = inside(trace, syncs, thread, began, due)
        # The call counts whole unless something else explains what follows it.
        part = np.where(busy == UNKNOWN, took, out - start[asked]) + within
        waited[asked] = np.minimum(part, (length - tail)[asked])
        row = np.where(at != UNKNOWN, at, first)
        known = row != UNKNOWN
        waited_in[asked[known]] = syncs.rows[row[known]]
    lengths = {cause: np.zeros(len(start), dtype=np.int64) for cause in Cause}
    lengths[Cause.SYNCHRONISE] = waited
    lengths[Cause.HOST_LATE] = np.where(late == 1, length - tail - waited, 0)
    lengths[Cause.QUEUE] = np.where(late == 0, length, tail)
    lengths[Cause.NONE_KNOWN] = np.where(late == UNKNOWN, length, 0)
    return _rows(gpu, before, after, lengths, waited_in, busy_with)


def _borders(gpu: GpuWork) -> tuple[Int64, Int64]:
    """(work that ended last, work that begins next) around every gap, by (device, start)."""
    found: list[tuple[Int64, Int64]] = []
    one = len(gpu) > 0 and bool((gpu.device == gpu.device[0]).all())
    for device in gpu.device[:1] if one else occurring(gpu.device):
        rows = np.arange(len(gpu)) if one else np.flatnonzero(gpu.device == device)
        ends = gpu.end_ns[rows]
        reached = np.maximum.accumulate(ends)
        last = np.maximum.accumulate(np.where(ends == reached, np.arange(len(rows)), 0))
        next_ = np.flatnonzero(gpu.start_ns[rows[1:]] > reached[:-1]) + 1
        found.append((rows[last[next_ - 1]], rows[next_]))
    empty = np.empty(0, dtype=np.int64)
    return (
        np.concatenate([empty, *(pair[0] for pair in found)]),
        np.concatenate([empty, *(pair[1] for pair in found)]),
    )


def _launched_late(trace: Trace, before: Int64, after: Int64, start: Int64) -> Int64:
    """Whether the next work was launched after the GPU ran dry: 1, 0, or UNKNOWN."""
    gpu, host = trace.gpu, trace.host
    launch = gpu.launch[after]
    late = np.full(len(after), UNKNOWN, dtype=np.int64)
    linked = np.flatnonzero(launch != UNKNOWN)
    if len(linked):
        call, work = launch[linked], after[linked]
        began, returned = host.start_ns[call] >= start[linked], host.end_ns[call] > start[linked]
        lasting = (gpu.kind[work] == GpuKind.MEMCPY) & (host.end_ns[call] >= gpu.end_ns[work])
        same_graph = gpu.by_graph_launch[work] & (gpu.launch[before[linked]] == call)
        late[linked] = (began | (returned & ~lasting)) & ~same_graph
    alone = np.flatnonzero(launch == UNKNOWN)
    if len(alone):
        earliest, latest = launch_bounds(trace, after[alone])
        late[alone[latest <= start[alone]]] = 0
        late[alone[earliest >= start[alone]]] = 1
    return late


def _other_activity(trace: Trace, syncs: Int64, thread: Int64, frm: Int64, until: Int64) -> Int64:
    """Span in which the thread was for at least half of [frm, until) and that is over by `until`.

    Half of a window includes its middle, so only what is open there can be it. Operators and
    runtime calls first, then ranges from the outermost inwards.
    """
    host = trace.host
    found = np.full(len(thread), UNKNOWN, dtype=np.int64)
    middle = frm + (until - frm) // 2
    wrapper = wrappers(trace, host.name)[host.name]
    calls: Bool = host.kind == HostKind.RUNTIME
    calls[syncs] = False
    operators = (host.kind == HostKind.OPERATOR) & ~wrapper
    ranges = np.flatnonzero((host.kind == HostKind.ANNOTATION) & ~wrapper)
    left = np.flatnonzero(until > frm)
    first = outermost(host, np.flatnonzero(calls | operators))
    for depth, level in enumerate(chain([first], levels(host, ranges))):
        at = level.open_at(thread[left], middle[left])
        open_ = at != UNKNOWN
        where, at = left[open_], at[open_]
        begin, end = level.start_ns[at], level.end_ns[at]
        spent = end - np.maximum(begin, frm[where])
        fits = (end <= until[where]) & (2 * spent >= until[where] - frm[where])
        found[where[fits]] = level.rows[at[fits]]
        # Where no range is open there is none further in.
        left = left[found[left] == UNKNOWN] if depth == 0 else where[~fits]
        if not len(left):
            break
    return found


def _rows(
    gpu: GpuWork, before: Int64, after: Int64, lengths: dict[Cause, Int64], waited_in: Int64,
    busy_with: Int64,
) -> IdleGaps:  # fmt: skip
    """One row per gap and cause, in the order synchronise, host late, others."""
    order = (Cause.SYNCHRONISE, Cause.HOST_LATE, Cause.QUEUE, Cause.NONE_KNOWN)
    parts = np.stack([lengths[cause] for cause in order], axis=1)
    ends = np.cumsum(parts, axis=1) + gpu.end_ns[before][:, np.newaxis]
    gap, place = np.nonzero(parts)
    cause = np.array(order, dtype=np.int64)[place]
    return IdleGaps(
        device=gpu.device[after[gap]],
        start_ns=(ends - parts)[gap, place],
        end_ns=ends[gap, place],
        cause=cause,
        before=before[gap],
        after=after[gap],
        waited_in=np.where(cause == Cause.SYNCHRONISE, waited_in[gap], UNKNOWN),
        busy_with=np.where(cause == Cause.HOST_LATE, busy_with[gap], UNKNOWN),
    )
