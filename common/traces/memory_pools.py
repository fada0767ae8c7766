"""How did memory move in each pool and stream, and which phase made a pool grow?

    for line in pool_lines(snapshot):           # one per (device, pool, stream)
        line.reserved.peak, line.allocated.peak
    growth_by_phase(snapshot)                   # per phase of the program: what was taken

Every event is of the pool that it names. Events before March 2026 name none: then it is the pool of
the segment that holds the address at the dump, and `inferred` says how many were settled so; the
rest are of an unknown pool. Bytes of blocks are the requested ones, of segments the driver's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.traces.memory_model import NO_TIME, Events, Int64, Pool, coded, pool_kind
from common.traces.memory_replay import FREE_ACTION, RESERVED_SIGN, steps_of
from common.traces.memory_snapshot import MemorySnapshot

NO_PHASE = "outside any phase"
UNKNOWN: Pool = (-1, -1)
QUANTITIES = ("reserved", "allocated", "active")
MAX_TIME = (1 << 63) - 1
# Where a kind of pool stands in `Growth`; all others are private.
_COLUMN = {"default pool": 1, "unknown pool": 2}
_NONE: Int64 = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Line:
    """One quantity over the history: `after[i]` is the level right after event `at[i]`."""

    start: int
    at: Int64
    after: Int64

    @property
    def peak(self) -> int:
        return max(self.start, int(self.after.max()) if len(self.after) else self.start)

    @property
    def peak_event(self) -> int:
        """Index of the event that reached it; -1: the start was the highest."""
        if not len(self.after) or int(self.after.max()) <= self.start:
            return -1
        return int(self.at[int(self.after.argmax())])

    @property
    def end(self) -> int:
        return int(self.after[-1]) if len(self.after) else self.start


@dataclass(frozen=True)
class PoolLine:
    device: int
    pool: Pool | None
    stream: int
    reserved: Line
    allocated: Line
    active: Line
    inferred: int  # events whose pool was settled by their address
    events: int

    @property
    def kind(self) -> str:
        return pool_kind(self.pool)


@dataclass(frozen=True)
class Growth:
    """What one phase took from the driver in one kind of pool; below zero: gave back."""

    device: int
    phase: str
    private_bytes: int
    default_bytes: int
    unknown_bytes: int
    allocations: int


def pool_lines(snapshot: MemorySnapshot, device: int | None = None) -> list[PoolLine]:
    """All lines, by device, pool and stream. Devices whose history is cut are left out."""
    found: list[PoolLine] = []
    for own in sorted(snapshot.replays):
        if device is None or own == device:
            found += _device_lines(snapshot, own)
    return found


def _device_lines(snapshot: MemorySnapshot, device: int) -> list[PoolLine]:
    events = snapshot.events[device]
    pools, names, inferred = _pools_of(snapshot, device)
    streams, stream_of = np.unique(np.maximum(events.stream, 0), return_inverse=True)
    pairs, codes = np.unique(pools * len(streams) + stream_of, return_inverse=True)
    known: dict[tuple[Pool, int], int] = {
        (names[pair // len(streams)], int(streams[pair % len(streams)])): code
        for code, pair in enumerate(pairs.tolist())
    }
    ends = _ends(snapshot, device)
    for key in ends:
        known.setdefault(key, len(known))
    steps = {name: _steps(events, name) for name in QUANTITIES}
    # What moves a level, in the order of time and then apart by pool and stream.
    moves = {name: _by_code(codes, np.flatnonzero(steps[name])) for name in QUANTITIES}
    total = np.bincount(codes, minlength=len(known))
    settled = np.bincount(codes[inferred], minlength=len(known))
    out: list[PoolLine] = []
    for (pool, stream), code in sorted(known.items()):
        own = ends.get((pool, stream), {})
        lines = tuple(
            _line(steps[name], moves[name].get(code, _NONE), own.get(name, 0))
            for name in QUANTITIES
        )
        if not any(len(line.at) or line.start for line in lines):
            continue  # only an event without bytes: a failure, a snapshot
        reserved, allocated, active = lines
        out.append(
            PoolLine(
                device=device,
                pool=None if pool == UNKNOWN else pool,
                stream=stream,
                reserved=reserved,
                allocated=allocated,
                active=active,
                inferred=int(settled[code]),
                events=int(total[code]),
            )
        )
    return out


def _by_code(codes: Int64, at: Int64) -> dict[int, Int64]:
    """The events `at` by their code, each in the order of time."""
    order = at[np.argsort(codes[at], kind="stable")]
    found, first = np.unique(codes[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, first[1:]), strict=True)) if len(at) else {}


def _line(steps: Int64, at: Int64, end: int) -> Line:
    after = np.cumsum(steps[at])
    start = end - (int(after[-1]) if len(after) else 0)
    return Line(start, at, after + start)


def _steps(events: Events, quantity: str) -> Int64:
    blocks = {"alloc": 1, FREE_ACTION.get(quantity, ""): -1}  # type: ignore[call-overload]
    sign = RESERVED_SIGN if quantity == "reserved" else blocks
    return steps_of(events, sign)


def _pools_of(snapshot: MemorySnapshot, device: int) -> tuple[Int64, list[Pool], NDArray[np.bool_]]:
    """(number of each event's pool, the pools, which were settled by their address)."""
    events = snapshot.events[device]
    codes, recorded = events.coded_pools
    number: dict[Pool, int] = {}
    as_numbers = [number.setdefault(pool or UNKNOWN, len(number)) for pool in recorded]
    found = np.array(as_numbers, dtype=np.int64)[codes]
    missing = np.array([pool is None for pool in recorded], dtype=np.bool_)[codes]
    own = np.flatnonzero(snapshot.segments.device == device)
    if len(own) and missing.any():
        own = own[np.argsort(snapshot.segments.address[own], kind="stable")]
        starts = snapshot.segments.address[own]
        ends = starts + snapshot.segments.total_bytes[own]
        at = np.searchsorted(starts, events.address, side="right") - 1
        inside = missing & (at >= 0) & (events.address < ends[np.maximum(at, 0)])
        of_segment = np.array(
            [
                number.setdefault(snapshot.segments.pool[i] or UNKNOWN, len(number))
                for i in own.tolist()
            ],
            dtype=np.int64,
        )
        found[inside] = of_segment[at[inside]]
    settled = missing & (found != number.get(UNKNOWN, -1))
    return found, list(number), settled


def _ends(snapshot: MemorySnapshot, device: int) -> dict[tuple[Pool, int], dict[str, int]]:
    """Bytes at the dump by pool and stream."""
    segments, blocks = snapshot.segments, snapshot.blocks
    found: dict[tuple[Pool, int], dict[str, int]] = {}
    keys: dict[int, tuple[Pool, int]] = {}
    streams, totals = segments.stream.tolist(), segments.total_bytes.tolist()
    for i in np.flatnonzero(segments.device == device).tolist():
        key = keys[i] = (segments.pool[i] or UNKNOWN, streams[i])
        own = found.setdefault(key, {"reserved": 0, "allocated": 0, "active": 0})
        own["reserved"] += totals[i]
    rows = zip(blocks.segment.tolist(), blocks.requested_bytes.tolist(), blocks.state, strict=True)
    for segment, size, state in rows:
        if segment in keys and state != "inactive":
            own = found[keys[segment]]
            own["active"] += size
            own["allocated"] += size if state == "active_allocated" else 0
    return found


def growth_by_phase(snapshot: MemorySnapshot) -> list[Growth]:
    """What each phase took from the driver, in the order of the phases.

    Phases are those that the program set as metadata of its allocations; where there is none, the
    annotated ranges. Empty where the file has neither. Of a pool that several graphs share only
    this marginal growth can be said: which graph "owns" it cannot.
    """
    out: list[Growth] = []
    for device in sorted(snapshot.replays):
        events = snapshot.events[device]
        names = _phase_names(snapshot, device)
        if not any(names):
            continue
        codes, phases = coded(names)
        pools, known, _ = _pools_of(snapshot, device)
        columns = [_COLUMN.get(pool_kind(None if p == UNKNOWN else p), 0) for p in known]
        taken = _steps(events, "reserved")
        allocations = events.signs({"alloc": 1})
        counts = np.bincount(codes[allocations == 1], minlength=len(phases)).tolist()
        sums = [[0, 0, 0, count] for count in counts]
        for i in np.flatnonzero(taken).tolist():
            sums[codes[i]][columns[pools[i]]] += int(taken[i])
        out += [
            Growth(device, name or NO_PHASE, *row) for name, row in zip(phases, sums, strict=True)
        ]
    return out


def _phase_names(snapshot: MemorySnapshot, device: int) -> tuple[str, ...]:
    events = snapshot.events[device]
    if any(events.metadata):
        return events.metadata
    marks = [mark for mark in snapshot.annotations if mark.device == device]
    if not marks or bool((events.time_us == NO_TIME).any()):
        return ("",) * len(events)
    return _annotated(events, [(m.time_us, m.stage == "START", m.name) for m in marks])


def _annotated(events: Events, marks: list[tuple[int, bool, str]]) -> tuple[str, ...]:
    """The innermost annotated range that is open at each event."""
    marks.sort(key=lambda mark: mark[0])
    open_: list[str] = []
    innermost = [""]  # after so many marks
    for _, starts, name in marks:
        if starts:
            open_.append(name)
        elif name in open_:
            open_.reverse()
            open_.remove(name)
            open_.reverse()
        innermost.append(open_[-1] if open_ else "")
    times = [max(-MAX_TIME, min(time, MAX_TIME)) for time, _, _ in marks]
    clock = np.maximum.accumulate(events.time_us)
    passed = np.searchsorted(np.array(times, dtype=np.int64), clock, side="right")
    return tuple(map(innermost.__getitem__, passed.tolist()))
