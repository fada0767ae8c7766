"""Pools that go back to an earlier state, as graph trees need, and captures that fail."""

from __future__ import annotations

import pytest
from helpers.allocator_checks import check
from hypothesis import given, settings
from hypothesis import strategies as st

from common.allocator.checkpoint import checkpoint, restore
from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator, OutOfMemory
from common.allocator.settings import MIB, Settings
from common.errors import UsageError


def made(text: str = "", capacity: int = 1 << 40) -> CachingAllocator:
    return CachingAllocator(SimulatedDriver(capacity), Settings.from_text(text))


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
def test_siblings_of_a_tree_share_the_memory_after_their_parent(text: str) -> None:
    """Trees give the maximum over paths: B and B' record after A, in the same place."""
    allocator, ids = made(text), PoolIds()
    pool = ids.handle()
    with Graph(allocator, ids).capture(1, pool):
        output = allocator.malloc(30 * MIB, stream=1)
    after_a = checkpoint(allocator, pool)
    with Graph(allocator, ids).capture(1, pool):
        of_b = allocator.malloc(60 * MIB, stream=1)
    reserved = allocator.counters.reserved
    back = restore(allocator, after_a)
    assert set(back.freed) == {output, of_b} and back.created == (output,)
    if not text:  # a growing segment keeps what it has grown by
        assert checkpoint(allocator, pool).segments[0] == after_a.segments[0]
    with Graph(allocator, ids).capture(1, pool):
        of_sibling = allocator.malloc(60 * MIB, stream=1)
    assert of_sibling == of_b and allocator.counters.reserved == reserved
    assert set(allocator.live) == {output, of_sibling}
    check(allocator)


def test_without_going_back_the_childs_recording_would_overwrite_live_tensors() -> None:
    """What the checkpoint is for: A's output is freed in Python, and its replay makes it again."""
    allocator, ids = made(), PoolIds()
    pool = ids.handle()
    with Graph(allocator, ids).capture(1, pool):
        output = allocator.malloc(30 * MIB, stream=1)
    after_a = checkpoint(allocator, pool)
    allocator.free(output)
    with Graph(allocator, ids).capture(1, pool):
        assert allocator.malloc(30 * MIB, stream=1) == output
    restore(allocator, after_a)
    with Graph(allocator, ids).capture(1, pool):
        assert allocator.malloc(30 * MIB, stream=1) != output
    check(allocator)


def test_what_cannot_go_back_is_named() -> None:
    allocator, ids = made(), PoolIds()
    graph = Graph(allocator, ids)
    with graph.capture(1) as pool:
        block = allocator.malloc(30 * MIB, stream=1)
    state = checkpoint(allocator, pool)
    allocator.record_stream(block, 5)
    with pytest.raises(UsageError, match="another stream"):
        restore(allocator, state)
    with pytest.raises(UsageError, match="waits for a stream"):
        checkpoint(allocator, pool)
    graph.reset()
    for call in (lambda: checkpoint(allocator, pool), lambda: restore(allocator, state)):
        with pytest.raises(UsageError, match="no users"):
            call()


sizes = st.sampled_from([512, 5000, MIB, 3 * MIB, 12 * MIB, 30 * MIB])
moves = st.lists(st.tuples(st.booleans(), sizes, st.integers(0, 99)), max_size=25)


@settings(max_examples=150, deadline=None)
@given(moves, moves, st.sampled_from(["", "expandable_segments:True"]))
def test_going_back_restores_every_block(
    before: list[tuple[bool, int, int]], after: list[tuple[bool, int, int]], text: str
) -> None:
    allocator = made(text)
    allocator.begin_allocate_to_pool((0, 1), {1})
    held: list[int] = []

    def play(some: list[tuple[bool, int, int]]) -> None:
        for gives, size, pick in some:
            if gives and held:
                allocator.free(held.pop(pick % len(held)))
            else:
                held.append(allocator.malloc(size, stream=1))

    play(before)
    state = checkpoint(allocator, (0, 1))
    live = {address: allocator.live[address].size for address in held}
    play(after)
    restored = restore(allocator, state)
    check(allocator)
    assert {a: block.size for a, block in allocator.live.items()} == live
    assert sorted(restored.created) == sorted(live)
    kept = {segment[0].address for segment in state.segments}
    now = [s for s in checkpoint(allocator, (0, 1)).segments if s[0].address in kept]
    mapped = [[b for b in s if b.mapped and b.allocated] for s in state.segments]
    assert [[b for b in s if b.mapped and b.allocated] for s in now] == mapped
    if not text:
        assert now == list(state.segments)


@pytest.mark.parametrize("leaks", [True, False])
def test_a_failed_capture_leaked_its_pool_until_2026(leaks: bool) -> None:
    """PR #190348: loops that try a smaller size after each failure lost memory every time."""
    allocator, ids = made(capacity=100 * MIB), PoolIds()
    graph = Graph(allocator, ids, leaks_when_it_fails=leaks)
    with pytest.raises(OutOfMemory), graph.capture(1):
        first = allocator.malloc(60 * MIB, stream=1)
        try:
            allocator.malloc(60 * MIB, stream=1)
        finally:
            allocator.free(first)
    assert not allocator.captures and graph.pool is None
    allocator.empty_cache()
    assert allocator.counters.reserved == (60 * MIB if leaks else 0)
    check(allocator)
