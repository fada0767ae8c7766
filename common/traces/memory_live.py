"""Which blocks were live at one moment, and whose were they? Rows for a diff, never by address.

The pool of a block is the one recorded with its alloc event; files before March 2026 have none
there, so it is that of the segment that holds the address at the dump, unless that segment was
created only later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.traces.memory_model import (
    Blocks,
    Events,
    Int64,
    LiveBlock,
    Pool,
    Segments,
    pool_kind,
)
from common.traces.memory_replay import FREE_ACTION, Quantity
from common.traces.memory_stacks import Stack, size_class


@dataclass(frozen=True)
class Group:
    """Live blocks with one key. Keys are equal in two runs of one program."""

    key: tuple[str, ...]
    bytes: int
    count: int


@dataclass(frozen=True)
class _Held:
    bytes: int
    stack: int = -1
    pool: Pool | None = None
    stream: int | None = None
    since: int = -1


def live_blocks(
    segments: Segments,
    blocks: Blocks,
    events: Events,
    stacks: Sequence[Stack],
    device: int,
    position: int,
    quantity: Quantity,
) -> tuple[LiveBlock, ...]:
    """The blocks of `device` that are live right after the event at `position`, largest first."""
    free_action = FREE_ACTION[quantity]
    live = _live_at_the_end(segments, blocks, device, quantity)
    addresses, sizes = events.address.tolist(), events.bytes.tolist()
    for i in reversed(range(len(events))):
        if events.action[i] == "alloc":
            live.pop(addresses[i], None)
        elif events.action[i] == free_action:
            live[addresses[i]] = _Held(sizes[i], pool=events.pool[i])
    upto = int(np.searchsorted(events.position, position, side="right"))
    for i in range(upto):
        if events.action[i] == "alloc":
            stream = int(events.stream[i])
            live[addresses[i]] = _Held(
                sizes[i],
                int(events.stack[i]),
                events.pool[i],
                stream if stream >= 0 else None,
                int(events.position[i]),
            )
        elif events.action[i] == free_action:
            live.pop(addresses[i], None)
    find = _segment_finder(segments, events, device, upto)
    out: list[LiveBlock] = []
    for address, held in live.items():
        segment = find(address)
        pool, stream_ = held.pool, held.stream
        if segment is not None:
            pool = segments.pool[segment] if pool is None else pool
            stream_ = int(segments.stream[segment]) if stream_ is None else stream_
        stack = stacks[held.stack] if held.stack >= 0 else None
        out.append(LiveBlock(held.bytes, device, address, pool, stream_, stack, held.since))
    return tuple(sorted(out, key=lambda block: (-block.bytes, block.address)))


def _live_at_the_end(
    segments: Segments, blocks: Blocks, device: int, quantity: Quantity
) -> dict[int, _Held]:
    mine = (segments.device[blocks.segment] == device).tolist() if len(blocks) else []
    rows = zip(
        *(blocks.state, mine, blocks.address.tolist(), blocks.requested_bytes.tolist()),
        blocks.stack.tolist(),
        strict=True,
    )
    return {
        address: _Held(size, stack)
        for state, is_mine, address, size, stack in rows
        if is_mine
        and (state == "active_allocated" if quantity == "allocated" else state != "inactive")
    }


def _segment_finder(
    segments: Segments, events: Events, device: int, upto: int
) -> Callable[[int], int | None]:
    """Maps an address to the segment of the dump that held it already at event `upto`."""
    mine = np.flatnonzero(segments.device == device)
    mine = mine[np.argsort(segments.address[mine], kind="stable")]
    starts = segments.address[mine].tolist()
    ends = (segments.address[mine] + segments.total_bytes[mine]).tolist()
    born_later = [
        i for i in range(upto, len(events)) if events.action[i] in ("segment_alloc", "segment_map")
    ]
    later_starts, later_ends = _union(events.address[born_later], events.bytes[born_later])

    def find(address: int) -> int | None:
        at = bisect_right(starts, address) - 1
        if at < 0 or address >= ends[at]:
            return None
        later = bisect_right(later_starts, address) - 1
        if later >= 0 and address < later_ends[later]:
            return None
        return int(mine[at])

    return find


def _union(starts: Int64, sizes: Int64) -> tuple[list[int], list[int]]:
    """The same stretches of addresses without overlap, in order: (starts, ends)."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate((starts + sizes)[order])
    first = np.ones(len(starts), dtype=np.bool_)
    first[1:] = starts[1:] > ends[:-1]
    last = np.append(first[1:], True)[: len(starts)]
    return starts[first].tolist(), ends[last].tolist()


KEYS: Mapping[str, Callable[[LiveBlock], str]] = {
    "pool": lambda block: pool_kind(block.pool),
    "stack": lambda block: (
        block.stack.label
        if block.stack is not None
        else "allocated before the history"
        if block.since < 0
        else "no frames recorded"
    ),
    "operator": lambda block: (block.stack and block.stack.operator) or "no operator recorded",
    "size_class": lambda block: size_class(block.bytes),
}


def group_live(
    blocks: Iterable[LiveBlock], by: Sequence[str] = ("pool", "stack", "size_class")
) -> tuple[Group, ...]:
    """Live blocks summed by `by` (names in `KEYS`), largest first. Bytes add up exactly."""
    sums: dict[tuple[str, ...], tuple[int, int]] = {}
    for block in blocks:
        key = tuple(KEYS[name](block) for name in by)
        total, count = sums.get(key, (0, 0))
        sums[key] = (total + block.bytes, count + 1)
    groups = (Group(key, total, count) for key, (total, count) in sums.items())
    return tuple(sorted(groups, key=lambda group: (-group.bytes, group.key)))
