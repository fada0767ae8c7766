"""Which free lists did a recorded run begin with? The end of a snapshot, walked back to the start.

A snapshot shows the blocks at the dump and the events before it. Walking back gives what was in use
at the start, in requested bytes. The size of such a block is known when it is still there at the
end. Else it is what the request is rounded to, or more where the rest was too small to split: then
there is no room for a free block before the next block in use, or an allocation during the block's
life shows where the free block behind it begins. What remains open is counted (`guessed`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from common.allocator.blocks import DEFAULT_POOL, PoolId
from common.allocator.driver import RecordedDriver
from common.allocator.growth import Change, Growth, Key, Stretches, rewind_growth
from common.allocator.layout import Segment, Used, place, place_growing
from common.allocator.model import CachingAllocator
from common.allocator.settings import MIN_BLOCK_BYTES, SMALL_LIMIT_BYTES, Settings
from common.errors import UsageError
from common.traces.memory_model import Events
from common.traces.memory_replay import start_state
from common.traces.memory_snapshot import MemorySnapshot

Row = tuple[str, int, int]  # action, address, bytes


@dataclass(frozen=True)
class Start:
    """The model at the start of a recorded history, and how sure that is."""

    allocator: CachingAllocator
    used: tuple[Used, ...]
    contradictions: int

    @property
    def guessed(self) -> int:
        return sum(block.guessed for block in self.used)


def rewind(snapshot: MemorySnapshot, device: int = 0) -> Start:
    """The model in the state that the device's allocator had before the first recorded event.

    Raises UsageError when the history is not whole.
    """
    if device not in snapshot.replays:
        raise UsageError(
            f"the history of device {device} is not in the snapshot or is cut; "
            f"devices with a history: {sorted(snapshot.replays) or 'none'}"
        )
    events = snapshot.events[device]
    text = snapshot.allocator_settings.get("PYTORCH_CUDA_ALLOC_CONF", "")
    if "cudaMallocAsync" in text:
        raise UsageError(
            "this snapshot is of another allocator (cudaMallocAsync); record with backend:native "
            "to check the model against it"
        )
    settings = Settings.from_text(text)
    rows = list(zip(events.action, events.address.tolist(), events.bytes.tolist(), strict=True))
    growth = _growth(snapshot, device, rows)
    growing = [
        Segment(low, high - low, small, stream, pool, True)
        for (pool, stream, small), stretches in growth.at_start.items()
        for low, high in stretches.rows
    ]
    plain = _segments_at_start(snapshot, device, rows)
    end, exact = _blocks_at_the_end(snapshot, device)
    requested, contradictions = start_state(events, end, "free_completed")
    segments = sorted([*plain, *growing], key=lambda segment: segment.address)
    used = _sizes_at_start(settings, segments, requested, exact, rows)
    taken = [(address, size) for action, address, size in rows if action == "segment_alloc"]
    driver = RecordedDriver(taken, growth.reserved)
    allocator = CachingAllocator(driver, settings, device)
    for segment in plain:
        place(allocator, driver, segment, used)
    for key, stretches in growth.at_start.items():
        place_growing(allocator, driver, key, growth.bases[key], stretches.rows, used)
    allocator.counters.reset_peaks()
    allocator.history.clear()
    return Start(allocator, tuple(used), contradictions)


def _growth(snapshot: MemorySnapshot, device: int, rows: list[Row]) -> Growth:
    held, settings = snapshot.segments, Settings()
    at_end: dict[Key, Stretches] = {}
    for i in np.flatnonzero((held.device == device) & held.expandable).tolist():
        key = (held.pool[i] or DEFAULT_POOL, int(held.stream[i]), held.kind[i] == "small")
        low = int(held.address[i])
        at_end.setdefault(key, Stretches()).add(low, low + int(held.total_bytes[i]))
    pools = pool_of_events(snapshot, device)
    streams = snapshot.events[device].stream.tolist()
    changes: list[Change] = []
    next_size: dict[int, int] = {}  # by stream: of the allocation that follows
    for i in reversed(range(len(rows))):
        action, address, size = rows[i]
        stream = max(streams[i], 0)
        if action == "alloc":
            next_size[stream] = size
        elif action in ("segment_map", "segment_unmap"):
            small: bool | None = None
            if action == "segment_map" and stream in next_size:
                small = settings.round_size(next_size[stream]) <= SMALL_LIMIT_BYTES
            changes.append(Change(address, size, action == "segment_map", stream, pools[i], small))
    return rewind_growth(at_end, changes[::-1])


def _segments_at_start(snapshot: MemorySnapshot, device: int, rows: list[Row]) -> list[Segment]:
    """Those of the end, without the ones that the history takes, with the ones it gives back."""
    held = snapshot.segments
    found = {
        int(held.address[i]): Segment(
            int(held.address[i]),
            int(held.total_bytes[i]),
            held.kind[i] == "small",
            int(held.stream[i]),
            held.pool[i] or DEFAULT_POOL,
            False,
        )
        for i in np.flatnonzero((held.device == device) & ~held.expandable).tolist()
    }
    streams, pools = snapshot.events[device].stream.tolist(), snapshot.events[device].pool
    for i in reversed(range(len(rows))):
        action, address, size = rows[i]
        if action == "segment_alloc":
            found.pop(address, None)
        elif action == "segment_free":
            # Segments of 2 MiB are those of small blocks: no large one is under 10 MiB.
            small = size == 2 << 20
            pool = pools[i] or DEFAULT_POOL
            found[address] = Segment(address, size, small, max(streams[i], 0), pool, False)
    return [found[address] for address in sorted(found)]


def _blocks_at_the_end(
    snapshot: MemorySnapshot, device: int
) -> tuple[dict[int, int], dict[int, int]]:
    """Requested bytes and true sizes of the blocks in use at the dump, by address."""
    blocks = snapshot.blocks
    requested: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for i, state in enumerate(blocks.state):
        if state != "inactive" and snapshot.segments.device[blocks.segment[i]] == device:
            address = int(blocks.address[i])
            requested[address] = int(blocks.requested_bytes[i])
            sizes[address] = int(blocks.bytes[i])
    return requested, sizes


def _sizes_at_start(
    settings: Settings,
    segments: list[Segment],
    requested: dict[int, int],
    exact: dict[int, int],
    rows: list[Row],
) -> list[Used]:
    first_free: dict[int, int] = {}
    allocated: list[tuple[int, int]] = []
    for i, (action, address, _) in enumerate(rows):
        if action == "free_completed":
            first_free.setdefault(address, i)
        elif action == "alloc":
            allocated.append((address, i))
    allocated.sort()
    starts = [segment.address for segment in segments]
    addresses = sorted(requested)
    out: list[Used] = []
    for i, address in enumerate(addresses):
        at = bisect_right(starts, address) - 1
        if at < 0 or address >= segments[at].address + segments[at].size:
            continue  # in no segment: a contradiction of the file, which start_state counts
        segment = segments[at]
        least = settings.round_size(requested[address])
        limit = segment.address + segment.size
        if i + 1 < len(addresses):
            limit = min(limit, addresses[i + 1])
        fine = segment.small or segment.expandable
        unsplit = MIN_BLOCK_BYTES - 1 if fine else SMALL_LIMIT_BYTES
        size, guessed = least, False
        if address not in first_free:
            size = exact.get(address, least)
        elif limit - address - least <= unsplit or (not fine and least >= settings.max_split_bytes):
            size = limit - address  # from max_split_size on, blocks are never split
        elif not fine:
            life = first_free[address]
            low = bisect_right(allocated, (address + least, len(rows)))
            high = bisect_right(allocated, (address + least + unsplit, len(rows)))
            later = [place for place, when in allocated[low:high] if when < life]
            begins_at_once = bisect_left(allocated, (address + least, -1))
            shown = any(
                place == address + least and when < life
                for place, when in allocated[begins_at_once:low]
            )
            if not shown:
                size = later[0] - address if later else least
                guessed = not later
        out.append(Used(address, size, requested[address], guessed))
    return out


def pool_of_events(snapshot: MemorySnapshot, device: int = 0) -> list[PoolId]:
    """The pool of each event: as recorded, else that of the segment at the dump, else the default
    one.
    """
    events: Events = snapshot.events[device]
    held = snapshot.segments
    mine = np.flatnonzero(held.device == device)
    mine = mine[np.argsort(held.address[mine], kind="stable")]
    starts = held.address[mine].tolist()
    ends = (held.address[mine] + held.total_bytes[mine]).tolist()
    out: list[PoolId] = []
    for address, pool in zip(events.address.tolist(), events.pool, strict=True):
        if pool is None:
            at = bisect_right(starts, address) - 1
            pool = held.pool[mine[at]] if at >= 0 and address < ends[at] else None
        out.append(pool or DEFAULT_POOL)
    return out
