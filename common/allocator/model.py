"""Which address does an allocation get, and what does that do to memory? The allocator itself.

Models `CUDACachingAllocator.cpp: DeviceCachingAllocator`, one device. Sizes are bytes; addresses
are those of the driver that it is given. A stream is its number, 0 the default stream.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from common.allocator.blocks import (
    DEFAULT_POOL,
    Block,
    Frames,
    FreeList,
    Pool,
    PoolId,
    PoolTotals,
    merge_neighbour,
)
from common.allocator.driver import Driver
from common.allocator.segments import ALLOC, FREE_COMPLETED, FREE_REQUESTED
from common.allocator.settings import (
    MAX_REQUEST_BYTES,
    MIN_BLOCK_BYTES,
    SMALL_LIMIT_BYTES,
    UNLIMITED_BYTES,
    Settings,
)
from common.allocator.streams import StreamStore
from common.errors import UsageError, WorklogError


class OutOfMemory(WorklogError):
    """The modelled device has no memory for an allocation, not even after giving back the cache."""

    exit_code = 1

    def __init__(self, requested: int, free: int, reserved: int, allocated: int) -> None:
        super().__init__(
            f"the modelled device is out of memory: {requested} bytes were asked for, {free} are "
            f"free, {reserved} reserved and {allocated} of them allocated; give it more capacity "
            "or free something first"
        )
        self.requested_bytes, self.free_bytes = requested, free


class CachingAllocator(StreamStore):
    """`malloc` and `free` as the program calls them, and what controls pools and captures."""

    def __init__(
        self,
        driver: Driver,
        settings: Settings | None = None,
        device: int = 0,
        max_entries: int | None = None,
    ) -> None:
        super().__init__(driver, settings, device, max_entries)
        self.use_on_oom: set[PoolId] = set()
        self._plain_rounding = self.settings.plain_rounding
        self._limited = self.settings.max_split_bytes != UNLIMITED_BYTES
        self._default_lists: dict[tuple[bool, int], FreeList] = {}

    def malloc(self, size: int, stream: int = 0, frames: Frames | None = None) -> int:
        """The address of `size` bytes for use on `stream`; 0 for no bytes. Raises OutOfMemory.

        Models `CUDACachingAllocator.cpp: malloc`.
        """
        if size <= 0 or size >= MAX_REQUEST_BYTES:
            if size == 0:
                return 0
            raise UsageError(f"{size} bytes cannot be allocated; ask for 0 to 1 EiB")
        if self.captures:
            if self.settings.graph_capture_record_stream_reuse and self._deferred:
                self._free_safe_blocks(stream)
        elif self._queues or self._deferred:
            self._process_events()
        rounded = self._rounded(size)
        home = self._home(rounded, stream)
        block = self._free_fit(home, rounded) or self._new_fit(home, rounded, frames)
        if block is None:
            for pool_id in sorted(self.use_on_oom if home.pool is self.default else ()):
                other = self._pool_of(pool_id).list_of(home.small, stream)
                block = self._free_fit(other, rounded)
                if block is not None:
                    home = other
                    break
            else:
                self._fail(size, rounded, home, frames)
        assert block is not None
        return self.hand_out(block, home, rounded, size, frames)

    def _rounded(self, size: int) -> int:
        """`Settings.round_size`, without its branches where every size is rounded alike."""
        if self._plain_rounding:
            return (size + MIN_BLOCK_BYTES - 1) // MIN_BLOCK_BYTES * MIN_BLOCK_BYTES
        return self.settings.round_size(size)

    def _home(self, rounded: int, stream: int) -> FreeList:
        """Which list serves the request: that of the innermost capture of the stream, else the
        default pool's. Models `CUDACachingAllocator.cpp: get_pool`.
        """
        small = rounded <= SMALL_LIMIT_BYTES
        for pool_id, streams in reversed(self.captures):
            if streams is None or stream in streams:
                return self.private[pool_id].list_of(small, stream)
        found = self._default_lists.get((small, stream))
        if found is None:
            found = self._default_lists[small, stream] = self.default.list_of(small, stream)
        return found

    def _free_fit(self, home: FreeList, rounded: int) -> Block | None:
        """The smallest free block that is large enough, the lowest address among equals.

        Models `CUDACachingAllocator.cpp: get_free_block`. The one block that fits best is refused
        when it is oversize; no further one is tried.
        """
        if self.collecting:
            home.pool.searches[home.small] += 1
        entries = home.entries
        at = bisect_left(entries, (rounded,))
        if at == len(entries):
            return None
        block = entries[at][2]
        if block.expandable is not None:
            find = self._widest_choice if self.settings.expandable_segments else self._first_fixed
            at = find(home, at)
            if at == len(entries):
                return None
            block = entries[at][2]
        if self._limited and self.settings.oversize_refused(block.size, rounded):
            return None
        del entries[at]
        return block

    def _new_fit(self, home: FreeList, rounded: int, frames: Frames | None) -> Block | None:
        """Memory from the driver, giving cached memory back when it has none.

        Models the middle of `CUDACachingAllocator.cpp: malloc`: collect garbage, try; give back
        oversize blocks, try; unless a capture is underway give back all that is cached, try.
        """
        if self.collecting:
            self._collect_garbage()
        take = self._grow if self.settings.expandable_segments else self._take_segment
        block = take(home, rounded, frames)
        if block is None and self._release_oversize(home, rounded):
            block = take(home, rounded, frames)
        if block is None and not self.captures:
            self._release_cached(DEFAULT_POOL)
            self.retries += 1
            block = take(home, rounded, frames)
        return block

    def _fail(self, size: int, rounded: int, home: FreeList, frames: Frames | None) -> None:
        """Models the end of `CUDACachingAllocator.cpp: malloc`: an "oom" entry, and the error."""
        free = self.driver.free_bytes
        self.record("oom", free, rounded, home.stream, home.pool.id, frames)
        self.out_of_memory += 1
        raise OutOfMemory(size, free, self.counters.reserved, self.counters.allocated)

    def hand_out(
        self, block: Block, home: FreeList, rounded: int, size: int, frames: Frames | None
    ) -> int:
        """Split the block when its rest is worth it and give its beginning to the program.

        Models `CUDACachingAllocator.cpp: alloc_found_block`.
        """
        settings = self.settings
        if block.size != rounded and (
            settings.should_split(block.size, rounded, home.small, settings.expandable_segments)
            and not home.pool.no_split
        ):
            block = self.split_front(block, rounded)
        block.allocated = True
        block.requested = size
        block.frames = frames
        address, taken = block.address, block.size
        self.live[address] = block
        if self.recording:
            self.clock_us = now = self.clock_us + 1
            self.history.append(
                (ALLOC, address, size, home.stream, home.pool.id, now, frames, self.metadata)
            )
        for counters in (self.counters, home.counters):
            counters.allocated = held = counters.allocated + taken
            if held > counters.peak_allocated:
                counters.peak_allocated = held
            counters.active = held = counters.active + taken
            if held > counters.peak_active:
                counters.peak_active = held
            counters.requested = held = counters.requested + size
            if held > counters.peak_requested:
                counters.peak_requested = held
        return address

    def split_front(self, rest: Block, size: int) -> Block:
        """The first `size` bytes of a block that is in no list; what is left of it becomes free.

        Models the splitting in `CUDACachingAllocator.cpp: alloc_found_block`: the front is the new
        object, so what the old one last held stays on record with the rest.
        """
        home = rest.home
        block = Block(rest.address, size, home)
        block.expandable = rest.expandable
        block.segment_frames = rest.segment_frames
        block.previous = rest.previous
        if block.previous is not None:
            block.previous.next = block
        block.next = rest
        rest.previous = block
        rest.address += size
        rest.size -= size
        rest.age_base = home.pool.searches[home.small]
        insort(home.entries, (rest.size, rest.address, rest))
        return block

    def free(self, address: int) -> None:
        """The program gives a block up. Models `CUDACachingAllocator.cpp: free`."""
        block = self.live.pop(address, None)
        if block is None:
            if address == 0:
                return
            raise UsageError(f"no block at {address:#x} is in use; pass what malloc returned")
        block.allocated = False
        home, size = block.home, block.size
        self.counters.allocated -= size
        home.counters.allocated -= size
        if self.recording:
            self.clock_us = now = self.clock_us + 1
            frames = block.frames
            self.history.append(
                (
                    *(FREE_REQUESTED, address, block.requested, home.stream),
                    *(home.pool.id, now, frames, self.metadata),
                )
            )
        if block.stream_uses:
            self._wait_for_streams(block)
        else:
            self._free_block(block)

    def _free_block(self, block: Block) -> None:
        """Put a block back, joined with its free neighbours. Models `free_block`."""
        home, size, requested = block.home, block.size, block.requested
        if self.recording:
            self.clock_us = now = self.clock_us + 1
            self.history.append(
                (
                    *(FREE_COMPLETED, block.address, requested, home.stream),
                    *(home.pool.id, now, block.frames, self.metadata),
                )
            )
        block.frames = None
        if self.waiting:
            self.waiting.pop(id(block), None)
        previous, following = block.previous, block.next
        if previous is not None and not previous.allocated:
            merge_neighbour(block, previous)
        if following is not None and not following.allocated:
            merge_neighbour(block, following)
        block.age_base = home.pool.searches[home.small]
        insort(home.entries, (block.size, block.address, block))
        for counters in (self.counters, home.counters):
            counters.active -= size
            counters.requested -= requested

    def empty_cache(self, pool_id: PoolId = DEFAULT_POOL) -> None:
        """Give cached memory back to the driver. Models `emptyCache`."""
        self._release_cached(pool_id)

    def _release_cached(self, pool_id: PoolId) -> None:
        """Outside captures: all wholly free segments of the default pool and of the private pools
        that nobody uses any more. With a pool: only that one, when nobody uses it.

        Models `CUDACachingAllocator.cpp: release_cached_blocks`.
        """
        if pool_id == DEFAULT_POOL and not self.captures:
            self._synchronise()
            self._release_free_segments(self.default, small=False)
            self._release_free_segments(self.default, small=True)
        for freeable_id, pool in list(self.freeable.items()):
            if pool_id != DEFAULT_POOL:
                if freeable_id != pool_id:
                    continue
                self._synchronise(pool)
            self._release_free_segments(pool, small=True)
            self._release_free_segments(pool, small=False)
            if pool.segment_count == 0:
                del self.private[freeable_id], self.freeable[freeable_id]

    # Pools and captures

    def use_pool(self, pool_id: PoolId, use_on_oom: bool = False, no_split: bool = False) -> None:
        """One more user of a private pool, which is made when it is new.

        Models `CUDACachingAllocator.cpp: createOrIncrefPool`, `setUseOnOOM`, `setNoSplit`.
        """
        if pool_id == DEFAULT_POOL:
            raise UsageError("pool (0, 0) is the default pool; take an id of PoolIds")
        pool = self.private.get(pool_id)
        if pool is None:
            self.private[pool_id] = Pool(pool_id, no_split)
        elif pool.use_count == 0:
            raise UsageError(f"pool {pool_id} has no users left; make a new one")
        else:
            pool.use_count += 1
            pool.no_split |= no_split
        if use_on_oom:
            self.use_on_oom.add(pool_id)

    def begin_allocate_to_pool(self, pool_id: PoolId, streams: Iterable[int] | None) -> None:
        """From now on allocations on these streams (None: on all) come from the pool.

        Models `CUDACachingAllocator.cpp: beginAllocateToPool`.
        """
        if any(pool_id == other for other, _ in self.captures):
            raise UsageError(f"a capture to pool {pool_id} is underway; end it first")
        self.use_pool(pool_id)
        self.captures.append((pool_id, None if streams is None else set(streams)))

    def end_allocate_to_pool(self, pool_id: PoolId) -> None:
        """Models `CUDACachingAllocator.cpp: endAllocateToPool`."""
        for i, (other, _) in enumerate(self.captures):
            if other == pool_id:
                del self.captures[i]
                return
        raise UsageError(f"no capture to pool {pool_id} is underway; begin one first")

    def release_pool(self, pool_id: PoolId) -> None:
        """One user less. Without users, `empty_cache` may give the pool's free segments back.

        Models `CUDACachingAllocator.cpp: releasePool`.
        """
        pool = self._pool_of(pool_id)
        if pool.use_count == 0:
            raise UsageError(f"pool {pool_id} has no users left; it was released too often")
        pool.use_count -= 1
        if pool.use_count == 0:
            self.freeable[pool_id] = pool

    def _pool_of(self, pool_id: PoolId) -> Pool:
        pool = self.private.get(pool_id)
        if pool is None:
            raise UsageError(f"there is no pool {pool_id}; make it with use_pool")
        return pool

    # What is there

    def totals(self) -> list[PoolTotals]:
        """Counters and peaks of each (pool, stream) that ever held memory."""
        return [
            PoolTotals(self.device, pool.id, stream, counters.as_dict())
            for pool in self.pools
            for stream, counters in sorted(pool.counters.items())
        ]

    def first_blocks(self) -> list[Block]:
        """The first block of each stretch of mapped memory, by address."""
        known = [*self.live.values(), *self.waiting.values()]
        for pool in self.pools:
            for small in (True, False):
                known += [entry[2] for home in pool.lists(small) for entry in home.entries]
        heads = [block for block in known if block.previous is None or not block.previous.mapped]
        return sorted(heads, key=lambda block: block.address)
