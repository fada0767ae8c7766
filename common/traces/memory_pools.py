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

from common.traces.memory_model import NO_TIME, Events, Int64, Pool, pool_kind
from common.traces.memory_replay import FREE_ACTION, RESERVED_SIGN
from common.traces.memory_snapshot import MemorySnapshot

NO_PHASE = "outside any phase"
UNKNOWN: Pool = (-1, -1)
Key = tuple[int, Pool, int]  # device, pool, stream


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
    pools, inferred = _pools_of(snapshot, device)
    streams = np.where(events.stream < 0, 0, events.stream)
    known: dict[tuple[Pool, int], int] = {}
    codes = np.array(
        [known.setdefault(key, len(known)) for key in zip(pools, streams.tolist(), strict=True)],
        dtype=np.int64,
    )
    ends = _ends(snapshot, device)
    for pool, stream in ends:
        known.setdefault((pool, stream), len(known))
    steps = {name: _steps(events, name) for name in ("reserved", "allocated", "active")}
    out: list[PoolLine] = []
    for (pool, stream), code in sorted(known.items()):
        mine = codes == code
        own = ends.get((pool, stream), {})
        lines = tuple(
            _line(steps[name], mine, own.get(name, 0))
            for name in ("reserved", "allocated", "active")
        )
        if not any(len(line.at) or line.start for line in lines):
            continue  # only an event without bytes: a failure, a snapshot
        named = None if pool == UNKNOWN else pool
        count = int((mine & inferred).sum())
        reserved, allocated, active = lines
        out.append(
            PoolLine(
                device=device,
                pool=named,
                stream=stream,
                reserved=reserved,
                allocated=allocated,
                active=active,
                inferred=count,
                events=int(mine.sum()),
            )
        )
    return out


def _line(steps: Int64, mine: np.typing.NDArray[np.bool_], end: int) -> Line:
    at = np.flatnonzero(mine & (steps != 0))
    after = np.cumsum(steps[at])
    start = end - (int(after[-1]) if len(after) else 0)
    return Line(start, at, after + start)


def _steps(events: Events, quantity: str) -> Int64:
    blocks = {"alloc": 1, FREE_ACTION.get(quantity, ""): -1}  # type: ignore[call-overload]
    sign = RESERVED_SIGN if quantity == "reserved" else blocks
    signs = np.array([sign.get(action, 0) for action in events.action], dtype=np.int64)
    found: Int64 = signs * events.bytes
    return found


def _pools_of(
    snapshot: MemorySnapshot, device: int
) -> tuple[list[Pool], np.typing.NDArray[np.bool_]]:
    """The pool of every event, and which were settled by their address."""
    events = snapshot.events[device]
    missing = np.array([pool is None for pool in events.pool], dtype=np.bool_)
    if not missing.any():
        return [pool or UNKNOWN for pool in events.pool], missing
    own = np.flatnonzero(snapshot.segments.device == device)
    own = own[np.argsort(snapshot.segments.address[own], kind="stable")]
    starts = snapshot.segments.address[own]
    ends = starts + snapshot.segments.total_bytes[own]
    at = np.searchsorted(starts, events.address, side="right") - 1
    inside = (at >= 0) & (events.address < ends[np.maximum(at, 0)]) if len(own) else at > 0
    numbers = own[np.maximum(at, 0)].tolist() if len(own) else [0] * len(at)
    found: list[Pool] = []
    for pool, is_in, number in zip(events.pool, inside.tolist(), numbers, strict=True):
        if pool is None and is_in:
            pool = snapshot.segments.pool[number]
        found.append(pool or UNKNOWN)
    settled = np.array([pool != UNKNOWN for pool in found], dtype=np.bool_)
    return found, missing & settled


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
        pools, _ = _pools_of(snapshot, device)
        taken = _steps(events, "reserved").tolist()
        sums: dict[str, list[int]] = {}
        for name, pool, size, action in zip(names, pools, taken, events.action, strict=True):
            row = sums.setdefault(name or NO_PHASE, [0, 0, 0, 0])
            if size:
                kind = pool_kind(None if pool == UNKNOWN else pool)
                row[{"default pool": 1, "unknown pool": 2}.get(kind, 0)] += size
            row[3] += action == "alloc"
        out += [Growth(device, name, *row) for name, row in sums.items()]
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
    names: list[str] = []
    at = 0
    for time in np.maximum.accumulate(events.time_us).tolist():
        while at < len(marks) and marks[at][0] <= time:
            _, starts, name = marks[at]
            if starts:
                open_.append(name)
            elif name in open_:
                open_.reverse()
                open_.remove(name)
                open_.reverse()
            at += 1
        names.append(open_[-1] if open_ else "")
    return tuple(names)
