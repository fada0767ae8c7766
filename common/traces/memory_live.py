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
from common.traces.memory_replay import FREE_ACTION, Quantity, by_address
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
    end = _live_at_the_end(segments, blocks, device, quantity)
    upto = int(np.searchsorted(events.position, position, side="right"))
    live = _live_after(events, end, FREE_ACTION[quantity], upto)
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


def _live_after(
    events: Events, end: dict[int, _Held], free_action: str, upto: int
) -> dict[int, _Held]:
    """What is live after the first `upto` events: at each address its last event among these says
    it, without one its first later event, without any the dump.
    """
    live = dict(end)
    order, begins = by_address(events, free_action)
    if not len(order):
        return live
    number = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    for address in events.address[order[starts]].tolist():
        live.pop(address, None)
    past = np.bincount(number[order < upto], minlength=len(starts))
    tells = order[starts + np.maximum(past - 1, 0)]
    allocs = events.signs({"alloc": 1})[tells] == 1
    chosen = tells[np.where(past > 0, allocs, ~allocs)].tolist()
    for i in chosen:
        address, size, pool = int(events.address[i]), int(events.bytes[i]), events.pool[i]
        if i >= upto:  # freed later, and live since before the history
            live[address] = _Held(size, pool=pool)
            continue
        stream = int(events.stream[i])
        live[address] = _Held(
            size,
            int(events.stack[i]),
            pool,
            stream if stream >= 0 else None,
            int(events.position[i]),
        )
    return live


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
    born = np.flatnonzero(events.signs({"segment_alloc": 1, "segment_map": 1}))
    born_later = born[born >= upto]
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
