"""Whatever the calls: nothing overlaps, no byte is lost, neighbours are joined, runs repeat."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.allocator_checks import check
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import PoolIds
from common.allocator.model import CachingAllocator, OutOfMemory
from common.allocator.settings import MIB, Settings
from common.allocator.snapshot_file import write_snapshot
from common.allocator.validate import validate
from common.traces.memory_snapshot import read_memory_snapshot

TEXTS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:20",
    "roundup_power2_divisions:[1:4,16:2,>:8]",
    "garbage_collection_threshold:0.6",
    "graph_capture_record_stream_reuse:True",
    "expandable_segments:True,max_split_size_mb:24,garbage_collection_threshold:0.4",
)
CALLS = st.sampled_from(
    [*["malloc"] * 8, *["free"] * 6, "use", "finish", "launch", "wait", "empty"]
    + ["begin", "end", "release"]
)
sizes = st.one_of(
    st.integers(1, 2000),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 12 * MIB),
    st.integers(10 * MIB, 60 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 2 * MIB, 10 * MIB, 20 * MIB]),
)
call = st.tuples(CALLS, sizes, st.integers(0, 3), st.integers(0, 10**6))
calls = st.lists(call, max_size=60)
Call = tuple[str, int, int, int]


class Player:
    """Gives calls to an allocator; a call that makes no sense at its moment is left out."""

    def __init__(self, allocator: CachingAllocator) -> None:
        self.allocator = allocator
        self.ids = PoolIds()
        self.pools = [self.ids.handle(), self.ids.handle()]
        self.held: list[int] = []
        self.answers: list[int | None] = []

    def play(self, one: Call) -> None:
        kind, size, stream, pick = one
        allocator, pool = self.allocator, self.pools[pick % 2]
        if kind == "malloc":
            try:
                address = allocator.malloc(size, stream)
            except OutOfMemory:
                self.answers.append(None)
                return
            self.held.append(address)
            self.answers.append(address)
        elif kind == "free" and self.held:
            allocator.free(self.held.pop(pick % len(self.held)))
        elif kind == "use" and self.held:
            allocator.record_stream(self.held[pick % len(self.held)], stream)
        elif kind == "finish":
            allocator.finish_stream(stream)
        elif kind == "launch":
            allocator.launch(stream)
        elif kind == "wait":
            allocator.wait(stream, on=pick % 4)
        elif kind == "empty":
            allocator.empty_cache()
        elif kind == "begin" and pool not in [p for p, _ in allocator.captures]:
            if pool in allocator.freeable:
                return
            allocator.begin_allocate_to_pool(pool, {stream})
        elif kind == "end" and pool in [p for p, _ in allocator.captures]:
            allocator.end_allocate_to_pool(pool)
        elif kind == "release" and pool in allocator.private:
            capturing = pool in [p for p, _ in allocator.captures]
            if allocator.private[pool].use_count > capturing:
                allocator.release_pool(pool)

    def finish(self) -> None:
        """Give everything up: captures end, graphs die, all is freed."""
        allocator = self.allocator
        for pool, _ in list(allocator.captures):
            allocator.end_allocate_to_pool(pool)
        for pool_id, pool in list(allocator.private.items()):
            for _ in range(pool.use_count):
                allocator.release_pool(pool_id)
        while self.held:
            allocator.free(self.held.pop())


def _made(text: str, capacity: int, fraction: float | None = None) -> CachingAllocator:
    chosen = replace(Settings.from_text(text), memory_fraction=fraction)
    return CachingAllocator(SimulatedDriver(capacity), chosen)


capacities = st.sampled_from([64 * MIB, 200 * MIB, 1 << 40])
texts = st.sampled_from(TEXTS)
fractions = st.sampled_from([None, 1.0, 0.7])


@settings(max_examples=250, deadline=None)
@given(calls, texts, capacities, fractions)
def test_every_call_keeps_the_books_in_order(
    sequence: list[Call], text: str, capacity: int, fraction: float | None
) -> None:
    player = Player(_made(text, capacity, fraction))
    for one in sequence:
        player.play(one)
        check(player.allocator)
        assert len(set(player.held)) == len(player.held)


@settings(max_examples=150, deadline=None)
@given(calls, texts, capacities, fractions)
def test_freeing_everything_gives_everything_back(
    sequence: list[Call], text: str, capacity: int, fraction: float | None
) -> None:
    player = Player(_made(text, capacity, fraction))
    for one in sequence:
        player.play(one)
    player.finish()
    allocator = player.allocator
    allocator.empty_cache()
    counters = allocator.counters
    assert counters.reserved == counters.allocated == counters.active == counters.requested == 0
    assert not allocator.first_blocks() and not allocator.waiting
    assert allocator.driver.free_bytes == capacity
    if not allocator.settings.expandable_segments:
        assert not allocator.private
    check(allocator)


@settings(max_examples=100, deadline=None)
@given(calls, texts, capacities)
def test_equal_calls_give_equal_addresses_and_histories(
    sequence: list[Call], text: str, capacity: int
) -> None:
    first, second = Player(_made(text, capacity)), Player(_made(text, capacity))
    for player in (first, second):
        for one in sequence:
            player.play(one)
    assert first.answers == second.answers
    assert list(first.allocator.history) == list(second.allocator.history)


@settings(max_examples=100, deadline=None)
@given(calls, texts)
def test_the_history_accounts_for_every_byte(sequence: list[Call], text: str) -> None:
    """What events say was taken and freed is what the counters hold."""
    player = Player(_made(text, 1 << 40))
    for one in sequence:
        player.play(one)
    total = dict.fromkeys(("reserved", "active", "allocated"), 0)
    signs = {"segment_alloc": ("reserved", 1), "segment_map": ("reserved", 1)}
    signs |= {"segment_free": ("reserved", -1), "segment_unmap": ("reserved", -1)}
    for action, _, size, *_ in player.allocator.history:
        if action in signs:
            total[signs[action][0]] += signs[action][1] * size
        elif action == "alloc":
            total["active"] += size
            total["allocated"] += size
        elif action == "free_requested":
            total["allocated"] -= size
        elif action == "free_completed":
            total["active"] -= size
    assert total["reserved"] == player.allocator.counters.reserved
    assert total["active"] == player.allocator.counters.requested
    live = player.allocator.live.values()
    assert total["allocated"] == sum(block.requested for block in live)


@dataclass
class Piece:
    address: int
    size: int
    used: bool


class Naive:
    """The rules once more, as plainly as they can be written: every block in one list, searched
    from end to end. No pools, options or waiting frees.
    """

    def __init__(self) -> None:
        self.driver = SimulatedDriver(1 << 40)
        self.segments: dict[tuple[bool, int], list[list[Piece]]] = {}

    def malloc(self, size: int, stream: int) -> int:
        rounded = max(-(-size // 512) * 512, 512)
        small = rounded <= MIB
        segments = self.segments.setdefault((small, stream), [])
        fitting = [
            (piece.size, piece.address, pieces)
            for pieces in segments
            for piece in pieces
            if not piece.used and piece.size >= rounded
        ]
        if fitting:
            _, address, pieces = min(fitting, key=lambda found: found[:2])
        else:
            plain = -(-rounded // (2 * MIB)) * 2 * MIB
            length = 2 * MIB if small else 20 * MIB if rounded < 10 * MIB else plain
            taken = self.driver.malloc(length)
            assert taken is not None
            address, pieces = taken, [Piece(taken, length, False)]
            segments.append(pieces)
        at = next(i for i, piece in enumerate(pieces) if piece.address == address)
        piece = pieces[at]
        rest = piece.size - rounded
        if rest >= 512 if small else rest > MIB:
            pieces.insert(at + 1, Piece(address + rounded, rest, False))
            piece.size = rounded
        piece.used = True
        return address

    def free(self, address: int) -> None:
        for segments in self.segments.values():
            for pieces in segments:
                for piece in pieces:
                    if piece.address == address:
                        piece.used = False
                at = 0
                while at + 1 < len(pieces):
                    if pieces[at].used or pieces[at + 1].used:
                        at += 1
                    else:
                        pieces[at].size += pieces.pop(at + 1).size


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), sizes, st.integers(0, 2), st.integers(0, 999))))
def test_it_agrees_with_a_naive_allocator(moves: list[tuple[bool, int, int, int]]) -> None:
    allocator, naive = _made("", 1 << 40), Naive()
    held: list[int] = []
    for gives, size, stream, pick in moves:
        if gives and held:
            address = held.pop(pick % len(held))
            allocator.free(address)
            naive.free(address)
        else:
            address = allocator.malloc(size, stream)
            assert naive.malloc(size, stream) == address
            held.append(address)
    assert allocator.driver.free_bytes == naive.driver.free_bytes


@settings(max_examples=200, deadline=None)
@given(calls, texts, st.integers(1, 80))
def test_a_recording_that_begins_anywhere_is_predicted(
    sequence: list[Call], text: str, entries: int
) -> None:
    """The model's own runs, cut to their last entries, through the check for recorded runs.

    Where the start is not known for sure (a size had to be guessed, or an event before the history
    is needed) misses are allowed; else there must be none, and the end must be equal.
    """
    player = Player(CachingAllocator(SimulatedDriver(1 << 40), Settings.from_text(text)))
    for one in sequence:
        player.play(one)
    whole = list(player.allocator.history)
    assume(whole)
    cut = max(len(whole) - entries, 0)
    # Not between a segment and the allocation that took it: its free block never was a choice.
    assume(not cut or not whole[cut - 1][0].startswith("segment") or whole[cut][0] != "alloc")
    player.allocator.history = deque(whole[cut:])
    with tempfile.TemporaryDirectory() as folder:
        path = write_snapshot(Path(folder) / "a.pickle", player.allocator)
        recorded = read_memory_snapshot(path)
    found = validate(recorded)
    assert found.contradictions == 0 and found.unknown_frees == 0
    if not found.guessed_at_start:
        assert found.exact == found.allocations, found.misses
        assert found.segments_exact == found.segments and found.mapped_exact == found.mapped
        assert found.end_is_equal
