"""How is a known state put into the model? Segments with their blocks, as a recording has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.allocator.blocks import DEFAULT_POOL, Block, Expandable, FreeList, PoolId, splice
from common.allocator.driver import RecordedDriver
from common.allocator.growth import RANGE_BYTES, Key
from common.allocator.model import CachingAllocator


@dataclass(frozen=True)
class Segment:
    """A stretch of memory at the start of the history."""

    address: int
    size: int
    small: bool
    stream: int
    pool: PoolId
    expandable: bool


@dataclass(frozen=True)
class Used:
    """A block in use at the start. `guessed`: its size is the least that it can have."""

    address: int
    size: int
    requested: int
    guessed: bool


def place(
    allocator: CachingAllocator, driver: RecordedDriver, segment: Segment, used: Iterable[Used]
) -> None:
    """Put a segment into the model; `used` may hold blocks of others too."""
    home = _home(allocator, segment.pool, segment.small, segment.stream)
    driver.adopt(segment.address, segment.size)
    allocator.count_reserved(home, segment.size)
    home.pool.segment_count += 1
    _Chain(allocator, home, None).mapped(segment.address, segment.address + segment.size, used)
    home.counters.reset_peaks()


def place_growing(
    allocator: CachingAllocator,
    driver: RecordedDriver,
    key: Key,
    base: int,
    stretches: list[tuple[int, int]],
    used: Iterable[Used],
) -> None:
    """Put a growing segment into the model: its mapped stretches, and addresses between them."""
    pool, stream, small = key
    home = _home(allocator, pool, small, stream)
    segment = Expandable(base, 2 * RANGE_BYTES, allocator.granule_of(home))
    chain = _Chain(allocator, home, segment)
    at, blocks = base, list(used)
    for low, high in stretches:
        chain.unmapped(at, low)
        chain.mapped(low, high, blocks)
        driver.adopt_mapped(high - low)
        allocator.count_reserved(home, high - low)
        home.pool.segment_count += 1
        at = high
    chain.unmapped(at, base + segment.size)
    home.counters.reset_peaks()


def _home(allocator: CachingAllocator, pool_id: PoolId, small: bool, stream: int) -> FreeList:
    if pool_id != DEFAULT_POOL and pool_id not in allocator.private:
        allocator.use_pool(pool_id)
    return allocator.private.get(pool_id, allocator.default).list_of(small, stream)


class _Chain:
    """The blocks of one segment, from the lowest address on."""

    def __init__(
        self, allocator: CachingAllocator, home: FreeList, growing: Expandable | None
    ) -> None:
        self._allocator, self._home, self._growing = allocator, home, growing
        self._last: Block | None = None

    def mapped(self, begin: int, end: int, used: Iterable[Used]) -> None:
        at = begin
        for taken in used:
            if not begin <= taken.address < end:
                continue
            if taken.address > at:
                self._home.insert(self._block(at, taken.address - at))
            self._take(self._block(taken.address, taken.size), taken.requested)
            at = taken.address + taken.size
        if at < end:
            self._home.insert(self._block(at, end - at))

    def unmapped(self, begin: int, end: int) -> None:
        if begin < end:
            block = self._block(begin, end - begin)
            block.mapped = False
            self._home.insert_unmapped(block)

    def _block(self, address: int, size: int) -> Block:
        block = Block(address, size, self._home)
        block.expandable = self._growing
        splice(block, self._last, None)
        self._last = block
        return block

    def _take(self, block: Block, requested: int) -> None:
        block.allocated, block.requested = True, requested
        self._allocator.live[block.address] = block
        for counters in (self._allocator.counters, self._home.counters):
            counters.allocated += block.size
            counters.active += block.size
            counters.requested += requested
