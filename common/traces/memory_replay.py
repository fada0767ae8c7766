"""How much memory was in use at each recorded moment? Replays the allocator's history.

A snapshot gives the state at the dump and the events before it, perhaps not from the beginning of
the run. So the end is taken as known: walking back, an alloc removes its block and a free puts it
back; what remains was live before the first event. Walking forward from there gives every level.

`allocated` counts a block until the program gave it up (`free_requested`), `active` until the
allocator may use it again (`free_completed`: later when another stream still reads it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Literal

from common.traces.memory_model import Events, Level, Replay

Quantity = Literal["allocated", "active"]
FREE_ACTION: Mapping[Quantity, str] = {"allocated": "free_requested", "active": "free_completed"}
RESERVED_SIGN: Mapping[str, int] = {
    "segment_alloc": 1,
    "segment_map": 1,
    "segment_free": -1,
    "segment_unmap": -1,
}


def replay(
    events: Events, allocated_end: dict[int, int], active_end: dict[int, int], reserved_end: int
) -> Replay:
    """All levels of one device. `*_end` map the address of a live block to its requested bytes."""
    sizes = events.bytes.tolist()
    segment_steps = [
        RESERVED_SIGN.get(action, 0) * size
        for action, size in zip(events.action, sizes, strict=True)
    ]
    return Replay(
        _blocks_level(events, allocated_end, FREE_ACTION["allocated"]),
        _blocks_level(events, active_end, FREE_ACTION["active"]),
        _level(events, reserved_end - sum(segment_steps), segment_steps),
    )


def start_state(
    events: Events, end: Mapping[int, int], free_action: str
) -> tuple[dict[int, int], int]:
    """What was live before the first event, as {address: bytes}, and how many events contradict."""
    live, contradictions = dict(end), 0
    walk = zip(events.action, events.address.tolist(), events.bytes.tolist(), strict=True)
    for action, address, size in reversed(list(walk)):
        if action == "alloc":
            contradictions += live.pop(address, None) != size
        elif action == free_action:
            contradictions += address in live
            live[address] = size
    return live, contradictions


def _blocks_level(events: Events, end: Mapping[int, int], free_action: str) -> Level:
    live, contradictions = start_state(events, end, free_action)
    sign = {"alloc": 1, free_action: -1}
    steps = (
        sign.get(action, 0) * size
        for action, size in zip(events.action, events.bytes.tolist(), strict=True)
    )
    return _level(events, sum(live.values()), steps, len(live), contradictions)


def _level(
    events: Events,
    start: int,
    steps: Iterable[int],
    start_blocks: int | None = None,
    contradictions: int = 0,
) -> Level:
    levels = list(accumulate(steps, initial=start))
    peak = max(levels)
    first = levels.index(peak)
    return Level(
        start=start,
        peak=peak,
        peak_event=int(events.position[first - 1]) if first else -1,
        lowest=min(levels),
        end=levels[-1],
        start_blocks=start_blocks,
        contradictions=contradictions,
    )
