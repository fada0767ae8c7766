"""Rounding, size classes, splitting, best fit, and the options that change them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.allocator_checks import check

from common.allocator.driver import FIRST_ADDRESS, SimulatedDriver
from common.allocator.model import CachingAllocator, OutOfMemory
from common.allocator.settings import MIB, Settings, next_division
from common.errors import UsageError

GIB = 1 << 30


def made(
    text: str = "", capacity: int = 64 * GIB, fraction: float | None = None
) -> CachingAllocator:
    settings = replace(Settings.from_text(text), memory_fraction=fraction)
    return CachingAllocator(SimulatedDriver(capacity), settings)


def taken(allocator: CachingAllocator) -> list[int]:
    """Sizes of the segments asked of the driver, in order."""
    return [entry[2] for entry in allocator.history if entry[0] == "segment_alloc"]


@pytest.mark.parametrize(
    ("asked", "rounded"),
    [(1, 512), (511, 512), (512, 512), (513, 1024), (MIB - 1, MIB), (MIB + 1, MIB + 512)],
)
def test_every_size_is_rounded_up_to_512_bytes(asked: int, rounded: int) -> None:
    """round_size, kMinBlockSize."""
    allocator = made()
    allocator.malloc(asked)
    assert allocator.counters.allocated == rounded
    assert allocator.counters.requested == asked


@pytest.mark.parametrize(
    ("asked", "segment"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (21 * MIB, 22 * MIB),
        (22 * MIB, 22 * MIB),
    ],
)
def test_the_segment_depends_on_the_size_class(asked: int, segment: int) -> None:
    """get_allocation_size: up to 1 MiB 2 MiB, below 10 MiB 20 MiB, else rounded to 2 MiB."""
    allocator = made()
    allocator.malloc(asked)
    assert taken(allocator) == [segment]
    check(allocator)


def test_just_under_ten_mib_counts_by_its_rounded_size() -> None:
    """The class is that of the rounded size: 10 MiB - 1 is rounded to 10 MiB."""
    allocator = made()
    allocator.malloc(10 * MIB - 1)
    assert taken(allocator) == [10 * MIB]


def test_small_and_large_blocks_never_share_a_segment() -> None:
    """get_pool: kSmallSize decides, however much room the other class has."""
    allocator = made()
    allocator.malloc(2 * MIB)  # leaves 18 MiB free
    allocator.malloc(MIB)
    assert taken(allocator) == [20 * MIB, 2 * MIB]


def test_small_blocks_are_split_down_to_512_bytes() -> None:
    """should_split: a rest of kMinBlockSize is worth it in a small segment."""
    allocator = made()
    first, second = allocator.malloc(MIB), allocator.malloc(MIB - 512)
    third = allocator.malloc(512)
    assert (second - first, third - second) == (MIB, MIB - 512)
    assert taken(allocator) == [2 * MIB]
    check(allocator)


@pytest.mark.parametrize(("rest", "split"), [(MIB, False), (MIB + 512, True)])
def test_a_large_block_keeps_a_rest_of_up_to_one_mib(rest: int, split: bool) -> None:
    """should_split: remaining > kSmallSize."""
    allocator = made()
    block = allocator.malloc(30 * MIB)
    allocator.free(block)
    again = allocator.malloc(30 * MIB - rest)
    assert again == block
    assert allocator.live[again].size == (30 * MIB - rest if split else 30 * MIB)
    assert allocator.counters.allocated == allocator.live[again].size
    check(allocator)


def test_the_smallest_block_that_fits_is_taken() -> None:
    """get_free_block: lower_bound in the order of BlockComparatorSize."""
    allocator = made()
    blocks = {size: allocator.malloc(size * MIB) for size in (40, 20, 30)}
    for address in blocks.values():
        allocator.free(address)
    assert allocator.malloc(25 * MIB) == blocks[30]
    assert allocator.malloc(12 * MIB) == blocks[20]


def test_of_equal_blocks_the_lowest_address_is_taken() -> None:
    """BlockComparatorSize: by size, then by address, not by the time of the free."""
    allocator = made()
    blocks = [allocator.malloc(20 * MIB) for _ in range(4)]
    for at in (2, 0, 3, 1):
        allocator.free(blocks[at])
    assert [allocator.malloc(20 * MIB) for _ in range(4)] == sorted(blocks)


def test_free_neighbours_are_joined_in_any_order() -> None:
    """try_merge_blocks: both sides, only within a segment."""
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
        allocator = made()
        parts = [allocator.malloc(5 * MIB) for _ in range(3)]
        for i in order:
            allocator.free(parts[i])
            check(allocator)
        assert allocator.malloc(19 * MIB) == parts[0] and taken(allocator) == [20 * MIB]


def test_neighbouring_segments_are_not_joined() -> None:
    """prev and next are of one cudaMalloc; here the driver's addresses happen to touch."""
    allocator = made()
    first, second = allocator.malloc(10 * MIB), allocator.malloc(10 * MIB)
    assert second == first + 10 * MIB
    allocator.free(first)
    allocator.free(second)
    assert allocator.malloc(20 * MIB) not in (first, second)


def test_no_bytes_have_no_address_and_absurd_sizes_are_refused() -> None:
    """NativeCachingAllocator::allocate: size 0 is a null pointer, from 1 EiB on an error."""
    allocator = made()
    assert allocator.malloc(0) == 0 and not allocator.live
    allocator.free(0)
    for size in (-1, 1 << 60):
        with pytest.raises(UsageError, match="1 EiB"):
            allocator.malloc(size)


def test_freeing_what_is_not_in_use_is_an_error() -> None:
    allocator = made()
    address = allocator.malloc(512)
    allocator.free(address)
    with pytest.raises(UsageError, match="in use"):
        allocator.free(address)


def test_empty_cache_gives_back_only_whole_free_segments() -> None:
    """release_blocks: no segment of which a part is in use."""
    allocator = made()
    part = allocator.malloc(3 * MIB)
    whole = allocator.malloc(50 * MIB)
    allocator.free(whole)
    assert allocator.counters.reserved == 70 * MIB
    allocator.empty_cache()
    assert allocator.counters.reserved == 20 * MIB
    allocator.free(part)
    allocator.empty_cache()
    assert allocator.counters.reserved == 0 and allocator.driver_frees == 2
    assert allocator.counters.peak_reserved == 70 * MIB
    check(allocator)


def test_out_of_memory_first_gives_the_cache_back_and_tries_again() -> None:
    """malloc: release_cached_blocks, then alloc_block as a retry."""
    allocator = made(capacity=64 * MIB)
    cached = allocator.malloc(40 * MIB)
    allocator.free(cached)
    allocator.malloc(60 * MIB)
    actions = [entry[0] for entry in allocator.history]
    assert actions[-3:] == ["segment_free", "segment_alloc", "alloc"]
    assert (allocator.retries, allocator.out_of_memory) == (1, 0)
    check(allocator)


def test_out_of_memory_fails_when_nothing_can_be_given_back() -> None:
    """The oom entry holds the device's free bytes in place of an address, and the rounded size."""
    allocator = made(capacity=64 * MIB)
    kept = allocator.malloc(40 * MIB)
    with pytest.raises(OutOfMemory, match="more capacity") as caught:
        allocator.malloc(30 * MIB + 1)
    assert (caught.value.requested_bytes, caught.value.free_bytes) == (30 * MIB + 1, 24 * MIB)
    assert allocator.history[-1][:3] == ("oom", 24 * MIB, 30 * MIB + 512)
    assert (allocator.retries, allocator.out_of_memory) == (1, 1)
    check(allocator)
    allocator.free(kept)
    assert allocator.malloc(30 * MIB + 1)  # goes on after the failure


def test_a_fragmented_cache_cannot_help() -> None:
    """A split segment is not given back, however little of it is in use."""
    allocator = made(capacity=64 * MIB)
    parts = [allocator.malloc(30 * MIB), allocator.malloc(2 * MIB)]
    allocator.free(parts[0])
    again = allocator.malloc(2 * MIB + 512)  # goes into the segment of 20 MiB, splits it
    assert again == parts[1] + 2 * MIB
    allocator.free(parts[1])
    with pytest.raises(OutOfMemory):
        allocator.malloc(50 * MIB)


@pytest.mark.parametrize(
    ("size", "divisions", "expected"),
    [(1200, 4, 1280), (1024, 4, 1024), (1025, 4, 1280), (1793, 4, 2048), (3, 16, 4)],
)
def test_divisions_of_powers_of_two(size: int, divisions: int, expected: int) -> None:
    """roundup_power2_next_division; 1200 in 4 is the example of its own comment."""
    assert next_division(size, divisions) == expected


def test_roundup_power2_divisions_per_interval() -> None:
    """The intervals and values of PyTorch's own test of the option (AllocatorConfigTest)."""
    settings = Settings.from_text("roundup_power2_divisions:[64:8,128:2,256:4,512:2,1024:4,>:1]")
    expected = {32: 8, 64: 8, 128: 2, 256: 4, 512: 2, 1024: 4, 2048: 1, 4096: 1, 8192: 1}
    assert {size: settings.divisions_of(size * MIB) for size in expected} == expected
    assert settings.round_size(65 * MIB) == 72 * MIB
    assert settings.round_size(129 * MIB) == 192 * MIB
    assert settings.round_size(2049 * MIB + 1) == 2049 * MIB + 512
    everywhere = Settings.from_text("roundup_power2_divisions:4")
    assert everywhere.round_size(9 * MIB) == 10 * MIB
    assert everywhere.round_size(1200) == 1536  # too small for divisions: 512 bytes
    allocator = made("roundup_power2_divisions:4")
    allocator.malloc(9 * MIB)
    assert allocator.counters.allocated == 10 * MIB and taken(allocator) == [10 * MIB]


def test_max_split_size_keeps_large_blocks_whole() -> None:
    """should_split and get_free_block: oversize blocks serve only large requests, and are whole."""
    allocator = made("max_split_size_mb:40")
    big = allocator.malloc(100 * MIB)
    allocator.free(big)
    assert allocator.malloc(30 * MIB) != big
    assert allocator.malloc(70 * MIB) != big  # 30 MiB more than asked for: over the limit
    again = allocator.malloc(85 * MIB)
    assert again == big and allocator.live[again].size == 100 * MIB
    check(allocator)


def test_max_non_split_rounding_size_limits_what_an_oversize_block_may_waste() -> None:
    allocator = made("max_split_size_mb:40,max_non_split_rounding_mb:64")
    big = allocator.malloc(100 * MIB)
    allocator.free(big)
    assert allocator.malloc(36 * MIB) != big
    assert allocator.malloc(41 * MIB) == big


@pytest.mark.parametrize(
    ("block", "asked", "refused"),
    [(39, 30, False), (40, 30, True), (59, 40, False), (60, 40, True), (64, 45, False)],
)
def test_the_limits_of_oversize_blocks(block: int, asked: int, refused: bool) -> None:
    """The end of get_free_block: both comparisons are >=."""
    settings = Settings.from_text("max_split_size_mb:40")
    assert settings.oversize_refused(block * MIB, asked * MIB) is refused


def test_oversize_blocks_are_given_back_before_the_rest_of_the_cache() -> None:
    """release_available_cached_blocks: the one that is large enough, nothing else."""
    allocator = made("max_split_size_mb:20", capacity=300 * MIB)
    small, large = allocator.malloc(12 * MIB), allocator.malloc(200 * MIB)
    allocator.free(small)
    allocator.free(large)
    allocator.malloc(150 * MIB)  # 50 MiB too many for the block of 200 to serve
    freed = [entry[1] for entry in allocator.history if entry[0] == "segment_free"]
    assert freed == [large] and allocator.retries == 0
    check(allocator)


def test_several_oversize_blocks_are_given_back_largest_first() -> None:
    allocator = made("max_split_size_mb:20", capacity=300 * MIB)
    blocks = {size: allocator.malloc(size * MIB) for size in (60, 80, 100)}
    for address in blocks.values():
        allocator.free(address)
    allocator.malloc(150 * MIB)
    freed = [entry[1] for entry in allocator.history if entry[0] == "segment_free"]
    assert freed == [blocks[100], blocks[80]]
    check(allocator)


def test_garbage_collection_gives_back_what_was_not_used_for_long() -> None:
    """garbage_collect_cached_blocks: from the threshold on, blocks of at least the mean age."""
    allocator = made("garbage_collection_threshold:0.5", capacity=400 * MIB, fraction=1.0)
    old, young = allocator.malloc(100 * MIB), allocator.malloc(60 * MIB)
    allocator.free(old)
    for _ in range(5):  # searches that find something make the others older
        allocator.free(young)
        young = allocator.malloc(60 * MIB)
    allocator.free(young)
    allocator.malloc(120 * MIB)  # 160 MiB reserved: under the threshold of 200
    assert "segment_free" not in {entry[0] for entry in allocator.history}
    allocator.malloc(110 * MIB)  # 280 MiB reserved: 80 too many
    freed = [entry[1] for entry in allocator.history if entry[0] == "segment_free"]
    assert freed == [old]
    check(allocator)


def test_a_block_of_the_mean_age_is_collected() -> None:
    """The one block there is has the mean age; in use or split, blocks do not count."""
    allocator = made("garbage_collection_threshold:0.5", capacity=400 * MIB, fraction=1.0)
    free, split = allocator.malloc(100 * MIB), allocator.malloc(3 * MIB)
    allocator.free(free)
    allocator.malloc(120 * MIB)  # not yet: 120 MiB are reserved, the threshold is 200
    allocator.malloc(130 * MIB)
    freed = [entry[1] for entry in allocator.history if entry[0] == "segment_free"]
    assert freed == [free] and split in allocator.live
    check(allocator)


def test_without_a_memory_fraction_there_is_no_garbage_collection() -> None:
    allocator = made("garbage_collection_threshold:0.1", capacity=400 * MIB)
    allocator.free(allocator.malloc(100 * MIB))
    allocator.malloc(200 * MIB)
    assert allocator.driver_frees == 0


def test_the_memory_fraction_is_a_limit_like_the_drivers() -> None:
    """alloc_block: set_per_process_memory_fraction, counted on what is reserved."""
    allocator = made(capacity=100 * MIB, fraction=0.5)
    allocator.malloc(30 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.malloc(22 * MIB)
    allocator.malloc(20 * MIB)
    assert allocator.counters.reserved == 50 * MIB


def test_large_segment_size_is_a_setting() -> None:
    allocator = made("large_segment_size_mb:64")
    allocator.malloc(3 * MIB)
    assert taken(allocator) == [64 * MIB]


def test_options_are_read_with_blanks_and_unknown_ones_of_host_memory() -> None:
    settings = Settings.from_text(
        " expandable_segments : True , pinned_use_background_threads:True,max_split_size_mb:512"
    )
    assert settings.expandable_segments and settings.max_split_bytes == 512 * MIB
    assert Settings.from_text("") == Settings()
    assert Settings.from_text("per_process_memory_fraction:0.5").memory_fraction == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "expandable_segments",
        "expandable_segments:yes",
        "max_split_size_mb:19",
        "max_split_size_mb:big",
        "garbage_collection_threshold:0",
        "garbage_collection_threshold:x",
        "roundup_power2_divisions:3",
        "roundup_power2_divisions:[256:3]",
        "roundup_power2_divisions:[255:2]",
    ],
)
def test_wrong_options_are_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="give|write") as caught:
        Settings.from_text(text)
    assert "\n" not in str(caught.value)


def test_the_driver_has_a_limited_capacity_and_counts_what_others_hold() -> None:
    driver = SimulatedDriver(100 * MIB, other_bytes=60 * MIB)
    allocator = CachingAllocator(driver)
    assert allocator.malloc(30 * MIB) == FIRST_ADDRESS
    assert (driver.free_bytes, driver.total_bytes) == (10 * MIB, 100 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.malloc(12 * MIB)
    check(allocator, other_bytes=60 * MIB)
    with pytest.raises(UsageError, match="capacity"):
        SimulatedDriver(10, other_bytes=11)


def test_the_history_is_a_ring_and_can_be_off() -> None:
    """TraceEntryRingBuffer keeps the last entries."""
    allocator = CachingAllocator(SimulatedDriver(GIB), max_entries=3)
    for _ in range(5):
        allocator.free(allocator.malloc(512))
    assert [entry[0] for entry in allocator.history] == [
        "alloc",
        "free_requested",
        "free_completed",
    ]
    silent = CachingAllocator(SimulatedDriver(GIB), max_entries=0)
    silent.malloc(512)
    assert not silent.history


def test_peaks_can_be_reset() -> None:
    """resetPeakStats: the peak is then what is held now."""
    allocator = made()
    allocator.free(allocator.malloc(30 * MIB))
    allocator.counters.reset_peaks()
    assert allocator.counters.peak_allocated == 0
    assert allocator.counters.peak_reserved == 30 * MIB
