"""Private pools, captures, streams, and the frees that wait."""

from __future__ import annotations

import pytest
from helpers.allocator_checks import check

from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator, OutOfMemory
from common.allocator.settings import MIB, Settings
from common.errors import UsageError

GIB = 1 << 30


def made(text: str = "", capacity: int = 64 * GIB) -> CachingAllocator:
    return CachingAllocator(SimulatedDriver(capacity), Settings.from_text(text))


def reserved(allocator: CachingAllocator) -> dict[tuple[int, int], int]:
    return {pool.id: pool.reserved // MIB for pool in allocator.pools if pool.reserved}


# Pools


def test_pool_ids_tell_who_made_the_pool() -> None:
    """MemPool::graph_pool_handle: (0, n) made by the program, (n, 0) of one graph."""
    ids = PoolIds()
    assert [ids.handle(), ids.handle()] == [(0, 1), (0, 2)]
    assert [ids.of_graph(), ids.of_graph()] == [(1, 0), (2, 0)]


def test_allocations_of_a_capture_come_from_its_pool() -> None:
    """get_pool: by stream; what is free in the default pool is not touched."""
    allocator = made()
    free = allocator.malloc(30 * MIB, stream=1)
    kept = allocator.malloc(30 * MIB, stream=1)
    allocator.free(free)
    allocator.begin_allocate_to_pool((0, 1), {1})
    inside = allocator.malloc(30 * MIB, stream=1)
    assert allocator.malloc(30 * MIB, stream=0) not in (free, inside)
    allocator.end_allocate_to_pool((0, 1))
    assert inside != free and allocator.live[inside].home.pool.id == (0, 1)
    assert allocator.malloc(30 * MIB, stream=1) == free
    assert reserved(allocator) == {(0, 0): 90, (0, 1): 30}
    allocator.free(kept)
    check(allocator)


def test_freed_memory_of_a_pool_stays_in_the_pool() -> None:
    allocator = made()
    allocator.begin_allocate_to_pool((0, 1), {1})
    inside = allocator.malloc(30 * MIB, stream=1)
    allocator.end_allocate_to_pool((0, 1))
    allocator.free(inside)  # after the capture: the graph may still write to it
    allocator.empty_cache()
    assert reserved(allocator) == {(0, 1): 30}
    assert allocator.malloc(30 * MIB, stream=1) != inside
    check(allocator)


def test_a_later_capture_uses_the_free_blocks_of_a_shared_pool() -> None:
    allocator, ids = made(), PoolIds()
    pool = ids.handle()
    addresses = []
    for _ in range(3):
        with Graph(allocator, ids).capture(1, pool):
            address = allocator.malloc(30 * MIB, stream=1)
            allocator.free(address)
        addresses.append(address)
    assert len(set(addresses)) == 1 and reserved(allocator) == {pool: 30}
    assert allocator.private[pool].use_count == 3


def test_graphs_without_a_pool_have_one_each() -> None:
    allocator, ids = made(), PoolIds()
    for _ in range(3):
        with Graph(allocator, ids).capture(1):
            allocator.free(allocator.malloc(30 * MIB, stream=1))
    assert reserved(allocator) == {(1, 0): 30, (2, 0): 30, (3, 0): 30}


def test_a_shared_pool_on_another_stream_saves_nothing() -> None:
    """A segment belongs to its stream: the same-stream rule holds within pools too."""
    allocator, ids = made(), PoolIds()
    pool = ids.handle()
    for stream in (1, 2, 3):
        with Graph(allocator, ids).capture(stream, pool):
            allocator.free(allocator.malloc(30 * MIB, stream=stream))
    assert reserved(allocator) == {pool: 90}


def test_a_pool_is_given_back_after_its_last_graph_and_only_by_empty_cache() -> None:
    """releasePool makes it freeable; release_cached_blocks frees it and forgets the pool."""
    allocator, ids = made(), PoolIds()
    pool = ids.handle()
    graphs = [Graph(allocator, ids) for _ in range(2)]
    for graph in graphs:
        with graph.capture(1, pool):
            allocator.free(allocator.malloc(30 * MIB, stream=1))
    graphs[0].reset()
    allocator.empty_cache()
    assert reserved(allocator) == {pool: 30}
    graphs[1].reset()
    assert reserved(allocator) == {pool: 30}
    allocator.empty_cache()
    assert reserved(allocator) == {} and pool not in allocator.private
    check(allocator)


def test_an_output_that_is_still_held_keeps_its_segment_of_a_dead_pool() -> None:
    """releasePool: the user might still hold references to output tensors."""
    allocator, ids = made(), PoolIds()
    graph = Graph(allocator, ids)
    with graph.capture(1) as pool:
        output, scratch = allocator.malloc(30 * MIB, stream=1), allocator.malloc(50 * MIB, stream=1)
        allocator.free(scratch)
    graph.reset()
    allocator.empty_cache()
    assert reserved(allocator) == {pool: 30}
    allocator.free(output)
    allocator.empty_cache()
    assert reserved(allocator) == {} and not allocator.private and not allocator.freeable
    check(allocator)


def test_out_of_memory_cannot_take_a_living_pools_cache() -> None:
    allocator, ids = made(capacity=100 * MIB), PoolIds()
    graph = Graph(allocator, ids)
    with graph.capture(1):
        allocator.free(allocator.malloc(60 * MIB, stream=1))
    with pytest.raises(OutOfMemory):
        allocator.malloc(60 * MIB)
    graph.reset()
    assert allocator.malloc(60 * MIB)
    check(allocator)


def test_during_a_capture_nothing_is_given_back() -> None:
    """malloc: release_cached_blocks only without a capture; empty_cache skips the default pool."""
    allocator, ids = made(capacity=100 * MIB), PoolIds()
    with Graph(allocator, ids).capture(1):
        allocator.free(allocator.malloc(60 * MIB))  # another stream: default pool
        allocator.empty_cache()
        assert reserved(allocator) == {(0, 0): 60}
        with pytest.raises(OutOfMemory):
            allocator.malloc(60 * MIB, stream=1)
    assert allocator.retries == 0 and allocator.out_of_memory == 1


def test_a_capture_begins_with_an_empty_cache() -> None:
    """torch.cuda.graph.__enter__ calls empty_cache: spikes of before do not stay reserved."""
    allocator, ids = made(), PoolIds()
    allocator.free(allocator.malloc(60 * MIB))
    with Graph(allocator, ids).capture(1):
        assert reserved(allocator) == {}
    assert allocator.default.peak_reserved == 60 * MIB


def test_of_nested_captures_the_innermost_gets_the_allocation() -> None:
    """get_pool searches captures_underway from the last one on (since 2026)."""
    allocator = made()
    allocator.begin_allocate_to_pool((0, 1), None)
    allocator.begin_allocate_to_pool((0, 2), None)
    inner = allocator.malloc(512, stream=5)
    allocator.end_allocate_to_pool((0, 2))
    outer = allocator.malloc(512, stream=5)
    allocator.end_allocate_to_pool((0, 1))
    assert [allocator.live[a].home.pool.id for a in (inner, outer)] == [(0, 2), (0, 1)]


def test_a_pool_for_emergencies_serves_when_all_else_fails() -> None:
    """malloc: use_on_oom_pools, existing free blocks only."""
    allocator = made(capacity=100 * MIB)
    allocator.use_pool((0, 1), use_on_oom=True)
    allocator.begin_allocate_to_pool((0, 1), None)
    inside = allocator.malloc(60 * MIB)
    allocator.end_allocate_to_pool((0, 1))
    allocator.free(inside)
    assert allocator.malloc(50 * MIB) == inside
    with pytest.raises(OutOfMemory):
        allocator.malloc(50 * MIB)


def test_a_pool_that_does_not_split_gives_whole_segments() -> None:
    """should_split: no_split_pools."""
    allocator = made()
    allocator.use_pool((0, 1), no_split=True)
    allocator.begin_allocate_to_pool((0, 1), None)
    for _ in range(2):
        allocator.malloc(3 * MIB)
    assert reserved(allocator) == {(0, 1): 40}
    assert allocator.counters.allocated == 40 * MIB


def test_pool_mistakes_are_named() -> None:
    allocator, ids = made(), PoolIds()
    with pytest.raises(UsageError, match="default pool"):
        allocator.use_pool((0, 0))
    with pytest.raises(UsageError, match="no pool"):
        allocator.release_pool((0, 7))
    with pytest.raises(UsageError, match="begin one first"):
        allocator.end_allocate_to_pool((0, 7))
    allocator.begin_allocate_to_pool((0, 1), {1})
    with pytest.raises(UsageError, match="end it first"):
        allocator.begin_allocate_to_pool((0, 1), {2})
    allocator.end_allocate_to_pool((0, 1))
    allocator.release_pool((0, 1))
    with pytest.raises(UsageError, match="too often"):
        allocator.release_pool((0, 1))
    with pytest.raises(UsageError, match="no users left"):
        allocator.use_pool((0, 1))
    graph = Graph(allocator, ids)
    with graph.capture(1):
        pass
    with pytest.raises(UsageError, match="captured already"), graph.capture(1):
        pass


# Streams


def test_memory_of_one_stream_is_not_used_on_another() -> None:
    allocator = made()
    block = allocator.malloc(30 * MIB, stream=1)
    allocator.free(block)
    assert allocator.malloc(30 * MIB, stream=2) != block
    assert allocator.malloc(30 * MIB, stream=1) == block


def test_a_block_that_another_stream_uses_is_free_when_that_stream_is_done() -> None:
    """free + insert_events + process_events: requested now, completed at a later malloc."""
    allocator = made()
    block = allocator.malloc(30 * MIB)
    allocator.record_stream(block, 7)
    allocator.free(block)
    assert (allocator.counters.allocated, allocator.counters.active) == (0, 30 * MIB)
    assert allocator.malloc(30 * MIB) != block
    allocator.finish_stream(7)
    assert allocator.malloc(30 * MIB) == block
    actions = [entry[0] for entry in allocator.history if entry[1] == block]
    assert actions == ["segment_alloc", "alloc", "free_requested", "free_completed", "alloc"]
    check(allocator)


def test_its_own_stream_does_not_count() -> None:
    allocator = made()
    block = allocator.malloc(30 * MIB, stream=3)
    allocator.record_stream(block, 3)
    allocator.free(block)
    assert allocator.counters.active == 0
    with pytest.raises(UsageError, match="in use"):
        allocator.record_stream(block, 4)


def test_a_block_waits_for_all_its_streams_in_their_order() -> None:
    """One queue per stream: a block behind an unfinished one waits with it."""
    allocator = made()
    first, second = allocator.malloc(30 * MIB), allocator.malloc(30 * MIB)
    for stream in (1, 2):
        allocator.record_stream(first, stream)
    allocator.record_stream(second, 2)
    allocator.free(first)
    allocator.finish_stream(2)
    allocator.free(second)
    allocator.malloc(512)
    assert allocator.counters.active == 60 * MIB + 512
    allocator.finish_stream(1)
    allocator.malloc(512)
    assert allocator.counters.active == 30 * MIB + 1024
    allocator.finish_stream(2)
    allocator.malloc(512)
    assert allocator.counters.active == 1536


def test_a_waiting_block_is_not_joined_and_empty_cache_waits_for_it() -> None:
    """try_merge_blocks skips it; synchronize_and_free_events waits."""
    allocator = made()
    left, right = allocator.malloc(5 * MIB), allocator.malloc(5 * MIB)
    allocator.record_stream(left, 1)
    allocator.free(left)
    allocator.free(right)
    check(allocator)
    assert allocator.malloc(12 * MIB) == right
    allocator.empty_cache()
    assert allocator.counters.active == 12 * MIB and allocator.synchronised == 1
    check(allocator)


def test_a_free_within_a_capture_waits_for_its_end() -> None:
    """needs_events_deferred_until_no_capture: events are forbidden while a capture is underway."""
    allocator, ids = made(), PoolIds()
    with Graph(allocator, ids).capture(1) as pool:
        for _ in range(3):
            block = allocator.malloc(30 * MIB, stream=1)
            allocator.record_stream(block, 2)
            allocator.finish_stream(2)
            allocator.free(block)
    assert reserved(allocator) == {pool: 90}
    assert allocator.counters.active == 90 * MIB
    allocator.malloc(512)  # uses within the capture need no event
    assert allocator.counters.active == 512
    check(allocator)


def test_a_use_before_the_capture_still_needs_its_event_afterwards() -> None:
    """remove_cudagraph_stream_uses keeps what was recorded outside the capture."""
    allocator, ids = made(), PoolIds()
    block = allocator.malloc(30 * MIB)
    allocator.record_stream(block, 5)
    with Graph(allocator, ids).capture(1):
        allocator.record_stream(block, 2)
        allocator.free(block)
    allocator.malloc(512)
    assert allocator.counters.active == 30 * MIB + 512
    allocator.finish_stream(5)
    allocator.malloc(512)
    assert allocator.counters.active == 1024


def _side_stream_work(allocator: CachingAllocator, join: bool) -> None:
    """Blocks of stream 1 that stream 2 reads; with `join`, stream 1 waits for it each time."""
    for _ in range(3):
        block = allocator.malloc(30 * MIB, stream=1)
        allocator.launch(1)
        allocator.wait(2, on=1)
        allocator.record_stream(block, 2)
        allocator.launch(2)
        allocator.free(block)
        if join:
            allocator.wait(1, on=2)
            allocator.launch(1)


@pytest.mark.parametrize(
    ("option", "join", "blocks"), [(False, True, 3), (True, True, 1), (True, False, 3)]
)
def test_record_stream_reuse_follows_the_order_of_the_graph(
    option: bool, join: bool, blocks: int
) -> None:
    """graph_capture_record_stream_reuse: again free where all that comes next comes after it."""
    allocator, ids = made(f"graph_capture_record_stream_reuse:{option}"), PoolIds()
    with Graph(allocator, ids).capture(1) as pool:
        _side_stream_work(allocator, join)
    assert reserved(allocator) == {pool: 30 * blocks}
    allocator.malloc(512)
    assert allocator.counters.active == 512
    check(allocator)


def test_an_end_that_did_not_see_the_free_forbids_reuse() -> None:
    """A free marker must come before every end of the stream, not before one of them."""
    allocator, ids = made("graph_capture_record_stream_reuse:True"), PoolIds()
    with Graph(allocator, ids).capture(1):
        allocator.launch(1)
        allocator.wait(3, on=1)
        allocator.launch(3)
        block = allocator.malloc(30 * MIB, stream=1)
        allocator.wait(2, on=1)
        allocator.record_stream(block, 2)
        allocator.free(block)
        allocator.wait(1, on=2)
        allocator.launch(1)  # after both markers
        allocator.wait(1, on=3)  # an older branch: no marker before it
        assert allocator.malloc(30 * MIB, stream=1) != block
        allocator.launch(1)  # joins the branches
        assert allocator.malloc(30 * MIB, stream=1) == block


def test_a_stream_that_waits_for_a_capture_allocates_from_its_pool() -> None:
    allocator, ids = made(), PoolIds()
    with Graph(allocator, ids).capture(1) as pool:
        allocator.wait(2, on=1)
        forked = allocator.malloc(512, stream=2)
        alone = allocator.malloc(512, stream=3)
    assert allocator.live[forked].home.pool.id == pool
    assert allocator.live[alone].home.pool.id == (0, 0)


def test_totals_are_kept_per_pool_and_stream() -> None:
    allocator, ids = made(), PoolIds()
    allocator.malloc(512, stream=0)
    allocator.free(allocator.malloc(3 * MIB, stream=4))
    with Graph(allocator, ids).capture(1) as pool:
        allocator.malloc(12 * MIB, stream=1)
    rows = {(row.pool, row.stream): row.now for row in allocator.totals()}
    assert set(rows) == {((0, 0), 0), ((0, 0), 4), (pool, 1)}
    assert rows[(0, 0), 4]["peak_allocated_bytes"] == 3 * MIB
    assert rows[(0, 0), 4]["reserved_bytes"] == 0  # given back as the capture began
    assert rows[pool, 1]["requested_bytes"] == 12 * MIB
