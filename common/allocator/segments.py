"""How does the allocator take memory from the driver, and when does it give it back?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque

from common.allocator.blocks import (
    DEFAULT_POOL,
    Block,
    Counters,
    Frames,
    FreeList,
    Pool,
    PoolId,
)
from common.allocator.driver import Driver
from common.allocator.settings import UNLIMITED_BYTES, Settings

ALLOC, FREE_REQUESTED, FREE_COMPLETED = "alloc", "free_requested", "free_completed"
SEGMENT_ALLOC, SEGMENT_FREE = "segment_alloc", "segment_free"
SEGMENT_MAP, SEGMENT_UNMAP = "segment_map", "segment_unmap"


# action, address ("oom": the device's free bytes), size, stream, pool, time_us, frames, metadata.
# A plain tuple, because making one is most of what recording costs.
TraceEntry = tuple[str, int, int, int, PoolId, int, Frames | None, str]


class SegmentStore(ABC):
    """One device's pools and the memory that they hold. The allocator builds on it.

    Settings and driver are given; `history` keeps the last `max_entries` events (None: all, 0:
    none). Times are those of a clock of the model's own that advances 1 us per event.
    """

    def __init__(
        self,
        driver: Driver,
        settings: Settings | None = None,
        device: int = 0,
        max_entries: int | None = None,
    ) -> None:
        self.driver = driver
        self.settings = settings or Settings()
        self.device = device
        self.counters = Counters()
        self.recording = max_entries != 0
        self.history: deque[TraceEntry] = deque(maxlen=max_entries)
        self.clock_us = 0
        self.metadata = ""
        self.default = Pool(DEFAULT_POOL)
        self.private: dict[PoolId, Pool] = {}
        self.freeable: dict[PoolId, Pool] = {}  # graph_pools_freeable
        self.live: dict[int, Block] = {}  # by address: what the program may free
        self.waiting: dict[int, Block] = {}  # by id: freed, but another stream may still use them
        self.allowed: int | None = None
        if self.settings.memory_fraction is not None:
            self.allowed = int(self.settings.memory_fraction * driver.total_bytes)
        # Garbage collection needs both its threshold and a memory fraction (`malloc`).
        threshold = self.settings.garbage_collection_threshold
        self.collecting = self.allowed is not None and threshold > 0.0
        self.retries = self.out_of_memory = self.synchronised = 0
        self.driver_allocations = self.driver_frees = 0

    @property
    def pools(self) -> list[Pool]:
        """All of them, the default one first."""
        return [self.default, *self.private.values()]

    def record(
        self,
        action: str,
        address: int,
        size: int,
        stream: int,
        pool: PoolId,
        frames: Frames | None = None,
    ) -> None:
        """Models `CUDACachingAllocator.cpp: record_trace`."""
        if self.recording:
            self.clock_us = now = self.clock_us + 1
            self.history.append((action, address, size, stream, pool, now, frames, self.metadata))

    def _take_segment(self, home: FreeList, rounded: int, frames: Frames | None) -> Block | None:
        """A new segment as one block that is in no list, None when there is no memory.

        Models `CUDACachingAllocator.cpp: alloc_block`, without expandable segments.
        """
        size = self.settings.segment_size(rounded)
        if self.allowed is not None and self.counters.reserved + size > self.allowed:
            return None
        address = self.driver.malloc(size)
        if address is None:
            return None
        block = Block(address, size, home)
        block.segment_frames = frames
        home.pool.segment_count += 1
        self.count_reserved(home, size)
        self.driver_allocations += 1
        self.record(SEGMENT_ALLOC, address, size, home.stream, home.pool.id, frames)
        return block

    def count_reserved(self, home: FreeList, size: int) -> None:
        self.counters.reserve(size)
        home.counters.reserve(size)
        home.pool.peak_reserved = max(home.pool.peak_reserved, home.pool.reserved)

    def release_segment(self, block: Block) -> None:
        """Give a whole free segment back. Models `CUDACachingAllocator.cpp: release_block`."""
        home = block.home
        self.driver_frees += 1
        frames = block.segment_frames
        self.record(SEGMENT_FREE, block.address, block.size, home.stream, home.pool.id, frames)
        self.driver.free(block.address)
        home.pool.segment_count -= 1
        self.count_reserved(home, -block.size)
        home.remove(block)

    def _release_free_segments(self, pool: Pool, small: bool) -> None:
        """Give back what is wholly free: segments in one block, and granules of expandable ones.

        Models `CUDACachingAllocator.cpp: release_blocks`.
        """
        growing: list[Block] = []
        for home in pool.lists(small):
            for _, _, block in list(home.entries):
                if block.expandable is not None:
                    growing.append(block)
                elif not block.split:
                    self.release_segment(block)
        for block in growing:
            self.unmap_block(block)

    @abstractmethod
    def unmap_block(self, block: Block) -> None:
        """Give the memory of a free block of a growing segment back (expandable.py)."""

    def _release_oversize(self, home: FreeList, rounded: int) -> bool:
        """With max_split_size: free one block that is large enough, else the largest ones together.

        Models `CUDACachingAllocator.cpp: release_available_cached_blocks`.
        """
        limit = self.settings.max_split_bytes
        if limit == UNLIMITED_BYTES:
            return False
        wanted = max(rounded, limit)
        entries = home.entries
        at = bisect_left(entries, (wanted,))
        if at < len(entries) and entries[at][2].expandable is None:
            self.release_segment(entries[at][2])
            return True
        released = 0
        for size, _, block in reversed(entries[:at]):
            if released >= wanted or size < limit:
                break
            if block.expandable is None:
                released += size
                self.release_segment(block)
        return released >= wanted and released > 0

    def _collect_garbage(self) -> None:
        """Above the threshold, give back large segments that were not used for long.

        Models `CUDACachingAllocator.cpp: garbage_collect_cached_blocks`: the default pool's large
        blocks only, those of at least the mean age, until enough is free or nothing more can be.
        """
        if self.allowed is None:
            return
        threshold = int(self.settings.garbage_collection_threshold * self.allowed)
        wanted = self.counters.reserved - threshold
        if wanted <= 0:
            return
        searches = self.default.searches
        free = [
            block
            for home in self.default.lists(small=False)
            for _, _, block in home.entries
            if not block.split
        ]
        ages = {id(block): searches[0] - block.age_base for block in free}
        reclaimed, freed = 0, True
        while reclaimed < wanted and freed and ages:
            mean, freed = sum(ages.values()) / len(ages), False
            for block in list(free):
                if block.expandable is None and ages.get(id(block), -1) >= mean:
                    freed = True
                    reclaimed += block.size
                    del ages[id(block)]
                    free.remove(block)
                    self.release_segment(block)
