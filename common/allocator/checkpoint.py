"""How does a graph tree go back to an earlier node? A pool put back into the state it had there.

Replaying graphs does not tell the allocator of the tensors that they make. Before the trees of
Inductor record a child of a replayed node, they put the pool into its state after that node.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.allocator.blocks import Block, Pool, PoolId
from common.allocator.model import CachingAllocator
from common.errors import UsageError


@dataclass(frozen=True)
class BlockState:
    """Models `CUDACachingAllocator.cpp: BlockState`."""

    address: int
    size: int
    allocated: bool
    mapped: bool


@dataclass(frozen=True)
class PoolState:
    """The segments of a pool, each as its blocks. Models `PrivatePoolState`."""

    pool: PoolId
    segments: tuple[tuple[BlockState, ...], ...]


@dataclass(frozen=True)
class Restored:
    """Models `RestoreResult`: what tensors lose and what they get, as addresses."""

    freed: tuple[int, ...]
    created: tuple[int, ...]


def checkpoint(allocator: CachingAllocator, pool_id: PoolId) -> PoolState:
    """Note the blocks of a private pool. Models `CUDACachingAllocator.cpp: getCheckpointState`."""
    pool = _living(allocator, pool_id)
    allocator.insert_deferred_events()
    segments: list[tuple[BlockState, ...]] = []
    for head in _heads(allocator, pool):
        blocks = _chain(head)
        if any(block.events for block in blocks):
            raise UsageError("a block waits for a stream; finish that stream before a checkpoint")
        segments.append(tuple(BlockState(b.address, b.size, b.allocated, b.mapped) for b in blocks))
    return PoolState(pool_id, tuple(segments))


def restore(allocator: CachingAllocator, state: PoolState) -> Restored:
    """Put a pool back: free all its blocks, take every block of the state again, free those that
    were free. Segments that are newer stay, as free memory.

    Models `CUDACachingAllocator.cpp: setCheckpointPoolState`, `freeBlocksAllocatedToPool` and
    `setSegmentStateToCheckpoint`. UsageError when a segment of the state is gone. An expandable
    segment that has grown since keeps its new memory, free; the source's checks of the number of
    its blocks are not modelled.
    """
    pool = _living(allocator, state.pool)
    freed: list[int] = []
    for head in _heads(allocator, pool):
        at: Block | None = head
        while at is not None:  # a freed block swallows its neighbours and stays itself
            if at.allocated:
                freed.append(at.address)
                allocator.free(at.address)
                if at.in_use:
                    raise UsageError(
                        "a block is used on another stream; finish it before going back"
                    )
            at = at.next
    free = {
        entry[1]: entry[2]
        for small in (True, False)
        for home in pool.lists(small)
        for entry in home.entries
    }
    created: list[int] = []
    for segment in state.segments:
        created += _rebuild(allocator, segment, free)
    return Restored(tuple(freed), tuple(created))


def _rebuild(
    allocator: CachingAllocator, segment: tuple[BlockState, ...], free: dict[int, Block]
) -> list[int]:
    block: Block | None = free.get(segment[0].address)
    for state in segment:
        if not state.mapped:
            break  # the rest of a growing segment: addresses without memory
        if block is None or block.address != state.address or block.size < state.size:
            raise UsageError("memory of the checkpoint is gone; take a checkpoint that is younger")
        home = block.home
        home.remove(block)
        if block.size > state.size:
            block = allocator.split_front(block, state.size)
        allocator.hand_out(block, home, state.size, state.size, None)
        block = block.next
    for state in segment:
        if state.mapped and not state.allocated:
            allocator.free(state.address)
    return [state.address for state in segment if state.allocated]


def _living(allocator: CachingAllocator, pool_id: PoolId) -> Pool:
    pool = allocator.private.get(pool_id)
    if pool is None or pool_id in allocator.freeable:
        raise UsageError(f"pool {pool_id} has no users; only the pool of a living graph goes back")
    return pool


def _heads(allocator: CachingAllocator, pool: Pool) -> list[Block]:
    """The first block of each segment of the pool. Models `get_private_pool_head_blocks`."""
    return [
        block
        for block in allocator.first_blocks()
        if block.home.pool is pool and block.previous is None
    ]


def _chain(head: Block) -> list[Block]:
    out: list[Block] = []
    at: Block | None = head
    while at is not None:
        out.append(at)
        at = at.next
    return out
