"""What does the allocator keep of its memory? Blocks, free lists, pools and counters.

Free blocks lie in one sorted list per (pool, small or large, stream), by size and then address:
the order of `CUDACachingAllocator.cpp: BlockComparatorSize`, whose first key, the stream, is the
list here. The search never leaves its stream, so the two are the same.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

PoolId = tuple[int, int]
DEFAULT_POOL: PoolId = (0, 0)
Frames = tuple[dict[str, object], ...]


class Counters:
    """Bytes of one device, or of one (pool, stream), now and at most.

    Models `DeviceStats`: `allocated` in blocks that the program holds, `active` those and the ones
    that wait for another stream, `requested` what was asked for the active ones, `reserved` what
    the driver gave.
    """

    __slots__ = (
        *("allocated", "active", "requested", "reserved"),
        *("peak_allocated", "peak_active", "peak_requested", "peak_reserved"),
    )

    def __init__(self) -> None:
        self.allocated = self.active = self.requested = self.reserved = 0
        self.reset_peaks()

    def reset_peaks(self) -> None:
        """Models `resetPeakStats`."""
        self.peak_allocated = self.allocated
        self.peak_active = self.active
        self.peak_requested = self.requested
        self.peak_reserved = self.reserved

    def reserve(self, size: int) -> None:
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def as_dict(self) -> dict[str, int]:
        return {f"{name}_bytes": getattr(self, name) for name in self.__slots__}


class Expandable:
    """A reserved address range that memory is mapped into, granule by granule.

    Models `CUDACachingAllocator.cpp: ExpandableSegment`.
    """

    __slots__ = ("address", "granule", "size")

    def __init__(self, address: int, size: int, granule: int) -> None:
        self.address, self.size, self.granule = address, size, granule


class Block:
    """A piece of a segment, in use or free. Models `CUDACachingAllocator.cpp: Block`."""

    __slots__ = (
        *("address", "size", "requested", "home", "allocated", "mapped", "previous", "next"),
        *("stream_uses", "events", "age_base", "expandable", "frames", "segment_frames"),
    )

    def __init__(self, address: int, size: int, home: FreeList) -> None:
        self.address = address
        self.size = size
        self.requested = 0
        self.home = home
        self.allocated = False
        self.mapped = True
        self.previous: Block | None = None
        self.next: Block | None = None
        self.stream_uses: set[int] | None = None
        self.events = 0
        self.age_base = 0
        self.expandable: Expandable | None = None
        self.frames: Frames | None = None
        self.segment_frames: Frames | None = None

    @property
    def split(self) -> bool:
        return self.previous is not None or self.next is not None

    @property
    def in_use(self) -> bool:
        return self.allocated or self.events > 0 or bool(self.stream_uses)


class FreeList:
    """The free blocks of one (pool, small or large, stream), and its unmapped address ranges.

    Models `CUDACachingAllocator.cpp: BlockPool`, of which one holds all streams.
    """

    __slots__ = ("counters", "entries", "pool", "small", "stream", "unmapped")

    def __init__(self, pool: Pool, small: bool, stream: int, counters: Counters) -> None:
        self.pool, self.small, self.stream, self.counters = pool, small, stream, counters
        self.entries: list[tuple[int, int, Block]] = []  # by size, then address
        self.unmapped: list[tuple[int, Block]] = []  # by address

    def insert(self, block: Block) -> None:
        block.age_base = self.pool.searches[self.small]
        insort(self.entries, (block.size, block.address, block))

    def remove(self, block: Block) -> None:
        del self.entries[bisect_left(self.entries, (block.size, block.address))]

    def insert_unmapped(self, block: Block) -> None:
        insort(self.unmapped, (block.address, block))

    def remove_unmapped(self, block: Block) -> None:
        del self.unmapped[bisect_left(self.unmapped, (block.address,))]


class Pool:
    """The default pool, or a private one. Models `CUDACachingAllocator.cpp: PrivatePool`.

    `use_count` counts graphs and other users; `segment_count` what was taken from the driver and
    not given back. `searches` counts the searches of its small and large lists while garbage
    collection is on (`get_free_blocks_call_count`).
    """

    def __init__(self, pool_id: PoolId, no_split: bool = False) -> None:
        self.id = pool_id
        self.no_split = no_split
        self.use_count = 1
        self.segment_count = 0
        self.searches = [0, 0]  # large, small
        self.counters: dict[int, Counters] = {}
        self.peak_reserved = 0
        self._lists: dict[tuple[bool, int], FreeList] = {}

    @property
    def private(self) -> bool:
        return self.id != DEFAULT_POOL

    @property
    def reserved(self) -> int:
        return sum(counters.reserved for counters in self.counters.values())

    def list_of(self, small: bool, stream: int) -> FreeList:
        found = self._lists.get((small, stream))
        if found is None:
            counters = self.counters.setdefault(stream, Counters())
            found = self._lists[small, stream] = FreeList(self, small, stream, counters)
        return found

    def lists(self, small: bool) -> list[FreeList]:
        """In the order of streams, as one list of the source is sorted."""
        return [self._lists[key] for key in sorted(self._lists) if key[0] == small]


@dataclass(frozen=True)
class PoolTotals:
    """What one (pool, stream) of a device held, in bytes: a row of a report."""

    device: int
    pool: PoolId
    stream: int
    now: dict[str, int]


def merge_neighbour(block: Block, neighbour: Block | None) -> None:
    """Join a free neighbour to a block that is in no list. The neighbour is gone afterwards.

    Models `CUDACachingAllocator.cpp: try_merge_blocks`: nothing happens with a neighbour that is in
    use, waits for a stream, or is mapped where the block is not.
    """
    if neighbour is None or neighbour.in_use or neighbour.mapped != block.mapped:
        return
    home = neighbour.home
    if neighbour.mapped:
        home.remove(neighbour)
    else:
        home.remove_unmapped(neighbour)
    if block.previous is neighbour:
        block.address = neighbour.address
        block.previous = neighbour.previous
        block.segment_frames = neighbour.segment_frames
        if block.previous is not None:
            block.previous.next = block
    else:
        block.next = neighbour.next
        if block.next is not None:
            block.next.previous = block
    block.size += neighbour.size


def splice(block: Block, before: Block | None, after: Block | None) -> None:
    """Put a new block between two of its segment. Models `CUDACachingAllocator.cpp: splice`."""
    block.previous, block.next = before, after
    if before is not None:
        before.next = block
    if after is not None:
        after.previous = block
