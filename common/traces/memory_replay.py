"""How much memory was in use at each recorded moment? Replays the allocator's history.

A snapshot gives the state at the dump and the events before it, perhaps not from the beginning of
the run. So the end is taken as known: walking back, an alloc removes its block and a free puts it
back; what remains was live before the first event. Walking forward from there gives every level.

Only events at one address have to do with each other. Sorted by address, the state behind each
event is what the next one at its address says, or the dump: no walk is needed.

`allocated` counts a block until the program gave it up (`free_requested`), `active` until the
allocator may use it again (`free_completed`: later when another stream still reads it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.traces.memory_model import Events, Int64, Level, Replay

Quantity = Literal["allocated", "active"]
FREE_ACTION: Mapping[Quantity, str] = {"allocated": "free_requested", "active": "free_completed"}
RESERVED_SIGN: Mapping[str, int] = {
    "segment_alloc": 1,
    "segment_map": 1,
    "segment_free": -1,
    "segment_unmap": -1,
}
# Sums beyond this are made with Python's numbers, which have no end: hostile files reach it.
_MAX_EXACT = 1 << 62


def replay(
    events: Events, allocated_end: dict[int, int], active_end: dict[int, int], reserved_end: int
) -> Replay:
    """All levels of one device. `*_end` map the address of a live block to its requested bytes."""
    segment_steps = steps_of(events, RESERVED_SIGN)
    return Replay(
        _blocks_level(events, allocated_end, FREE_ACTION["allocated"]),
        _blocks_level(events, active_end, FREE_ACTION["active"]),
        _level(events, reserved_end - exact_sum(segment_steps), segment_steps),
    )


def steps_of(events: Events, sign: Mapping[str, int]) -> Int64:
    """What each event adds to a level."""
    return events.signs(sign) * events.bytes


def block_steps(events: Events, free_action: str) -> Int64:
    return steps_of(events, {"alloc": 1, free_action: -1})


def exact_sum(values: Int64) -> int:
    """The sum, where that of the column could overflow too."""
    if not len(values) or int(np.abs(values).max()) * len(values) < _MAX_EXACT:
        return int(values.sum())
    return sum(values.tolist())


def levels_after(start: int, steps: Int64) -> NDArray[np.int64] | NDArray[np.object_]:
    """The level before the first step and after each one, exact."""
    high = int(np.abs(steps).max()) * len(steps) if len(steps) else 0
    fits = high + abs(start) < _MAX_EXACT
    whole = steps if fits else steps.astype(object)
    return np.concatenate(([start], start + np.cumsum(whole)))


def by_address(events: Events, free_action: str) -> tuple[Int64, NDArray[np.bool_]]:
    """(the events of blocks sorted by address and then by time, where an address begins)."""
    own = np.flatnonzero(events.signs({"alloc": 1, free_action: 1}))
    order = own[np.argsort(events.address[own], kind="stable")]
    begins = np.ones(len(order), dtype=np.bool_)
    addresses = events.address[order]
    begins[1:] = addresses[1:] != addresses[:-1]
    return order, begins


def start_state(
    events: Events, end: Mapping[int, int], free_action: str
) -> tuple[dict[int, int], int]:
    """What was live before the first event, as {address: bytes}, and how many events contradict."""
    order, begins = by_address(events, free_action)
    if not len(order):
        return dict(end), 0
    allocs = events.signs({"alloc": 1})[order] == 1
    sizes, addresses = events.bytes[order], events.address[order]
    ends = np.append(begins[1:], True)
    # The state right behind each event: -1 where nothing is live.
    behind = np.empty(len(order), dtype=np.int64)
    behind[:-1] = np.where(allocs[1:], -1, sizes[1:])
    last = np.flatnonzero(ends)
    behind[last] = [end.get(address, -1) for address in addresses[last].tolist()]
    contradictions = int(np.where(allocs, behind != sizes, behind >= 0).sum())
    seen = addresses[last].tolist()
    live = dict(end)
    for address in seen:
        live.pop(address, None)
    first = np.flatnonzero(begins & ~allocs)
    live.update(zip(addresses[first].tolist(), sizes[first].tolist(), strict=True))
    return live, contradictions


def _blocks_level(events: Events, end: Mapping[int, int], free_action: str) -> Level:
    live, contradictions = start_state(events, end, free_action)
    steps = block_steps(events, free_action)
    return _level(events, sum(live.values()), steps, len(live), contradictions)


def _level(
    events: Events,
    start: int,
    steps: Int64,
    start_blocks: int | None = None,
    contradictions: int = 0,
) -> Level:
    levels = levels_after(start, steps)
    first = int(levels.argmax())
    return Level(
        start=start,
        peak=int(levels[first]),
        peak_event=int(events.position[first - 1]) if first else -1,
        lowest=int(levels.min()),
        end=int(levels[-1]),
        start_blocks=start_blocks,
        contradictions=contradictions,
    )
