"""How do segments grow? One address range per pool, size class and stream, mapped in granules."""

from __future__ import annotations

from common.allocator.blocks import (
    Block,
    Expandable,
    Frames,
    FreeList,
    merge_neighbour,
    splice,
)
from common.allocator.segments import SEGMENT_MAP, SEGMENT_UNMAP, SegmentStore
from common.allocator.settings import SMALL_SEGMENT_BYTES


class ExpandableStore(SegmentStore):
    """`SegmentStore` that can also let segments grow (expandable_segments:True)."""

    def granule_of(self, home: FreeList) -> int:
        return SMALL_SEGMENT_BYTES if home.small else self.settings.large_segment_bytes

    def _grow(self, home: FreeList, rounded: int, frames: Frames | None) -> Block | None:
        """A block of at least `rounded` bytes from a segment that grows; it is in no list.

        Models the branch of `CUDACachingAllocator.cpp: alloc_block` for expandable segments (the
        limit of the memory fraction counts the size that a plain segment would have) and
        `try_allocate_expandable_block`. What was mapped before memory ran out stays, as free.
        """
        plain = self.settings.segment_size(rounded)
        if self.allowed is not None and self.counters.reserved + plain > self.allowed:
            return None
        block = self._find_room(home, rounded)
        if not block.mapped and not self._map_block(block, min(block.size, rounded), frames):
            return None
        while block.size < rounded:
            following = block.next
            assert following is not None  # _find_room counted it
            if not self._map_block(following, min(rounded - block.size, following.size), frames):
                return None
            block = following  # it has swallowed the one before
        home.remove(block)
        home.pool.segment_count += 1
        return block

    def _find_room(self, home: FreeList, rounded: int) -> Block:
        """The lowest address with room for `rounded` bytes, free or not yet mapped.

        Models `CUDACachingAllocator.cpp: find_expandable_block`. A new segment reserves addresses
        for 1 1/8 of the device's memory.
        """
        for _, unmapped in home.unmapped:
            first = unmapped
            if unmapped.previous is not None and not unmapped.previous.in_use:
                first = unmapped.previous
            room, at = 0, first
            while room < rounded:
                room += at.size
                if at.next is None or at.next.in_use:
                    break
                at = at.next
            if room >= rounded:
                return first
        granule = self.granule_of(home)
        total = self.driver.total_bytes
        size = -(-(total + total // 8) // granule) * granule
        segment = Expandable(self.driver.reserve(size), size, granule)
        block = Block(segment.address, size, home)
        block.mapped = False
        block.expandable = segment
        home.insert_unmapped(block)
        return block

    def _map_block(self, block: Block, size: int, frames: Frames | None) -> bool:
        """Map the beginning of an unmapped block, in whole granules, and list it as free.

        Models `CUDACachingAllocator.cpp: map_block` and `ExpandableSegment::map`: all granules or,
        when memory runs out on the way, none.
        """
        segment, home = block.expandable, block.home
        assert segment is not None
        granules = -(-size // segment.granule)
        for done in range(granules):
            if not self.driver.map(segment.granule):
                for _ in range(done):
                    self.driver.unmap(segment.granule)
                return False
        mapped = granules * segment.granule
        start = block.address
        home.remove_unmapped(block)
        block.mapped = True
        if mapped < block.size:
            rest = Block(start + mapped, block.size - mapped, home)
            rest.mapped = False
            rest.expandable = segment
            splice(rest, block, block.next)
            home.insert_unmapped(rest)
            block.size = mapped
        merge_neighbour(block, block.previous)
        merge_neighbour(block, block.next)
        home.insert(block)
        self.count_reserved(home, mapped)
        self.driver_allocations += 1
        self.record(SEGMENT_MAP, start, mapped, home.stream, home.pool.id, frames)
        if block.previous is None and block.segment_frames is None:
            block.segment_frames = frames
        return True

    def unmap_block(self, block: Block) -> None:
        """Give back the granules that lie wholly in a free block; the range once it is empty.

        Models `CUDACachingAllocator.cpp: unmap_block`, `ExpandableSegment::unmap` and
        `release_expandable_segment`. A private pool counts one segment less per range, as the
        source does, which may be more or less often than it counted one more.
        """
        segment, home = block.expandable, block.home
        assert segment is not None
        begin = -(-(block.address - segment.address) // segment.granule) * segment.granule
        end = (block.address + block.size - segment.address) // segment.granule * segment.granule
        if begin >= end:
            return
        start, size = segment.address + begin, end - begin
        home.remove(block)
        before = start - block.address
        after = block.size - before - size
        if before:
            front = Block(block.address, before, home)
            front.expandable = segment
            front.segment_frames = block.segment_frames
            splice(front, block.previous, block)
            home.insert(front)
        if after:
            back = Block(start + size, after, home)
            back.expandable = segment
            splice(back, block, block.next)
            home.insert(back)
        block.address, block.size, block.mapped = start, size, False
        frames = block.segment_frames
        merge_neighbour(block, block.previous)
        merge_neighbour(block, block.next)
        home.insert_unmapped(block)
        for _ in range(size // segment.granule):
            self.driver.unmap(segment.granule)
        self.count_reserved(home, -size)
        home.pool.segment_count = max(0, home.pool.segment_count - 1)
        self.driver_frees += 1
        self.record(SEGMENT_UNMAP, start, size, home.stream, home.pool.id, frames)
        if not block.split:
            home.remove_unmapped(block)

    def _widest_choice(self, home: FreeList, at: int) -> int:
        """Which of the free blocks from position `at` on is the best fit when segments can grow.

        Models `CUDACachingAllocator.cpp: get_free_block`: a block before unmapped addresses counts
        with all that it can grow to, so a larger block that cannot grow is taken first.
        """
        entries = home.entries
        while (
            entries[at][2].expandable is not None
            and at + 1 < len(entries)
            and _can_grow_to(entries[at + 1][2]) < _can_grow_to(entries[at][2])
        ):
            at += 1
        return at

    def _first_fixed(self, home: FreeList, at: int) -> int:
        """The first block from position `at` on whose segment does not grow.

        Models the other branch of `get_free_block`: with the option switched off, blocks of
        segments that grow are passed over.
        """
        entries = home.entries
        while at < len(entries) and entries[at][2].expandable is not None:
            at += 1
        return at


def _can_grow_to(block: Block) -> int:
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)
