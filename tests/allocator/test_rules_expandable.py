"""Segments that grow: granules, mapping, unmapping, and which block is the best fit then."""

from __future__ import annotations

import pytest
from helpers.allocator_checks import check, stretches

from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator, OutOfMemory
from common.allocator.settings import MIB, Settings

GIB = 1 << 30


def made(capacity: int = 8 * GIB, text: str = "") -> CachingAllocator:
    settings = Settings.from_text(f"expandable_segments:True{text and ','}{text}")
    return CachingAllocator(SimulatedDriver(capacity), settings)


def maps(allocator: CachingAllocator, action: str = "segment_map") -> list[int]:
    return [entry[2] // MIB for entry in allocator.history if entry[0] == action]


def test_small_segments_grow_by_2_and_large_ones_by_20_mib() -> None:
    """ExpandableSegment: segment_size_."""
    allocator = made()
    allocator.malloc(512)
    allocator.malloc(3 * MIB)
    allocator.malloc(30 * MIB)  # 17 MiB are left: two more granules
    assert maps(allocator) == [2, 20, 20]
    assert allocator.counters.reserved == 42 * MIB
    check(allocator)


def test_one_segment_grows_for_all_allocations_of_a_stream() -> None:
    """try_allocate_expandable_block continues where the last one ended."""
    allocator = made()
    blocks = [allocator.malloc(30 * MIB) for _ in range(4)]
    assert [b - blocks[0] for b in blocks] == [0, 30 * MIB, 60 * MIB, 90 * MIB]
    assert len(stretches(allocator)) == 1 and allocator.counters.reserved == 120 * MIB
    check(allocator)


def test_streams_and_pools_have_segments_of_their_own() -> None:
    allocator, ids = made(), PoolIds()
    allocator.malloc(3 * MIB, stream=0)
    allocator.malloc(3 * MIB, stream=1)
    with Graph(allocator, ids).capture(1):
        allocator.malloc(3 * MIB, stream=1)
    assert len(stretches(allocator)) == 3
    check(allocator)


def test_every_rest_is_split_off() -> None:
    """should_split with the option: from 512 bytes on, large blocks too."""
    allocator = made()
    block = allocator.malloc(20 * MIB - 512)
    assert allocator.live[block].size == 20 * MIB - 512
    check(allocator)


def test_a_block_that_can_grow_is_taken_last() -> None:
    """get_free_block: a block before unmapped addresses counts with what it can grow to."""
    allocator = made()
    inner, _, *end = [allocator.malloc(size * MIB // 2) for size in (20, 3, 6, 11)]
    allocator.free(inner)  # 10 MiB between others
    for block in end:  # 8.5 MiB before the unmapped rest: the smaller block
        allocator.free(block)
    assert allocator.malloc(4 * MIB) == inner
    check(allocator)


def test_empty_cache_unmaps_whole_granules_within_free_blocks() -> None:
    """unmap_block: the parts of a granule that are in use keep it."""
    allocator = made()
    blocks = [allocator.malloc(30 * MIB) for _ in range(4)]  # granules end at 20, 40, ... 120
    allocator.free(blocks[1])  # 30 to 60: the granule 40 to 60
    allocator.empty_cache()
    assert maps(allocator, "segment_unmap") == [20]
    assert allocator.counters.reserved == 100 * MIB and len(stretches(allocator)) == 2
    check(allocator)
    again = allocator.malloc(28 * MIB)  # maps the gap again, with the 10 MiB before it
    assert again == blocks[1] and allocator.counters.reserved == 120 * MIB
    check(allocator)
    for address in list(allocator.live):
        allocator.free(address)
    allocator.empty_cache()
    assert allocator.counters.reserved == 0 and not stretches(allocator)
    check(allocator)


def test_out_of_memory_unmaps_what_is_free_and_maps_it_elsewhere() -> None:
    allocator = made(capacity=100 * MIB)
    cached = allocator.malloc(80 * MIB, stream=1)
    allocator.free(cached)
    allocator.malloc(60 * MIB, stream=2)
    assert maps(allocator, "segment_unmap") == [80] and allocator.retries == 1
    check(allocator)


def test_mapping_that_fails_on_the_way_takes_nothing() -> None:
    """ExpandableSegment::map releases the handles that it got."""
    allocator = made(capacity=50 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.malloc(60 * MIB)
    assert allocator.driver.free_bytes == 50 * MIB
    allocator.malloc(40 * MIB)
    check(allocator)


def test_a_pools_segment_can_be_given_back_when_its_graph_is_gone() -> None:
    """Supported for private pools since PR #128068."""
    allocator, ids = made(), PoolIds()
    graph = Graph(allocator, ids)
    with graph.capture(1) as pool:
        allocator.free(allocator.malloc(30 * MIB, stream=1))
    allocator.empty_cache()
    assert allocator.private[pool].reserved == 40 * MIB
    graph.reset()
    allocator.empty_cache()
    assert allocator.counters.reserved == 0 and pool not in allocator.private
    check(allocator)


def test_the_granule_follows_large_segment_size() -> None:
    allocator = made(text="large_segment_size_mb:32")
    allocator.malloc(3 * MIB)
    assert maps(allocator) == [32]


def test_a_growing_segment_of_a_capture_counts_as_its_memory() -> None:
    allocator, ids = made(), PoolIds()
    with Graph(allocator, ids).capture(1) as pool:
        allocator.malloc(30 * MIB, stream=1)
    assert [row.now["reserved_bytes"] for row in allocator.totals() if row.pool == pool] == [
        40 * MIB
    ]
