"""How often does the model give the address that a real run got? Event by event, misses explained.

After a miss the allocation is moved to its recorded address, so that one miss does not cause the
next ones; `free_running` says how far the model gets without that help.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from common.allocator.blocks import DEFAULT_POOL, Block, PoolId, splice
from common.allocator.model import CachingAllocator
from common.allocator.rewind import pool_of_events, rewind
from common.errors import UsageError
from common.traces.memory_snapshot import MemorySnapshot

EXACT = "exact"
UNEXPECTED_SEGMENT = "the model took a segment, the run did not"
MISSING_SEGMENT = "the run took a segment, the model did not"
NOT_FREE = "the recorded address is not free in the model"
TIE = "another free block of the same size"
LARGER = "a free block that is larger than the recorded one"
SMALLER = "a free block that is smaller than the recorded one"
# What a class of misses says about the model, or about what it knows of the run.
EXPLANATIONS = {
    UNEXPECTED_SEGMENT: "the run had a free block that the model lacks: freed before the history "
    "without a trace, or of another stream or pool than the event says",
    MISSING_SEGMENT: "the model has a free block that the run could not use: another stream or "
    "pool, or the size of a block at the start was guessed too small",
    NOT_FREE: "the recording contradicts itself, or events are missing (a ring that was full)",
    TIE: "the order among equal blocks: the rule of the lowest address does not hold",
    LARGER: "a smaller block would have fit: it is free in the run and not in the model",
    SMALLER: "the run passed over a better fit: it is free in the model and not in the run",
}


BlockRow = tuple[int, int, int | None]  # address, size, requested bytes of a block in use


@dataclass(frozen=True)
class Miss:
    """One allocation whose address the model got wrong."""

    position: int  # of the event in the history
    requested: int
    recorded: int
    predicted: int
    kind: str


@dataclass
class Validation:
    """The counts of one device's history."""

    allocations: int = 0
    exact: int = 0
    misses: list[Miss] = field(default_factory=list)
    segments: int = 0  # segment_alloc events of the recording
    segments_exact: int = 0  # at the same event, of the same size
    segments_extra: int = 0  # the model's own
    mapped: int = 0  # allocations that segments of the recording grew for
    mapped_exact: int = 0  # for which the model's grew by as much
    frees: int = 0
    unknown_frees: int = 0
    free_running: int = 0  # exact before the first miss
    used_at_start: int = 0
    guessed_at_start: int = 0
    contradictions: int = 0
    end_is_equal: bool = False  # every block of the dump: address, size, state, requested bytes

    @property
    def share(self) -> float | None:
        """Exact addresses of all, None without allocations."""
        return self.exact / self.allocations if self.allocations else None

    @property
    def kinds(self) -> Counter[str]:
        return Counter(miss.kind for miss in self.misses)

    def as_dict(self) -> dict[str, object]:
        return {
            "allocations": self.allocations,
            "exact": self.exact,
            "share": self.share,
            "exact_before_the_first_miss": self.free_running,
            "misses": dict(sorted(self.kinds.items())),
            "segment_alloc_events": self.segments,
            "segment_alloc_exact": self.segments_exact,
            "segment_alloc_extra": self.segments_extra,
            "grown_for": self.mapped,
            "grown_for_exact": self.mapped_exact,
            "frees": self.frees,
            "unknown_frees": self.unknown_frees,
            "blocks_at_start": self.used_at_start,
            "blocks_at_start_with_guessed_size": self.guessed_at_start,
            "contradictions": self.contradictions,
            "end_is_equal": self.end_is_equal,
        }


def report(found: Validation) -> list[str]:
    """The counts as text: totals, then each class of misses, explained, with an example."""
    share = "no allocations" if found.share is None else f"{100 * found.share:.2f} % exact"
    lines = [
        f"{found.exact} of {found.allocations} addresses predicted: {share}; "
        f"{found.free_running} before the first miss",
        f"{found.segments_exact} of {found.segments} segment_alloc events predicted, "
        f"{found.segments_extra} more taken",
        f"{found.mapped_exact} of {found.mapped} growths of segments predicted",
        f"{found.used_at_start} blocks at the start, the size of {found.guessed_at_start} guessed; "
        f"{found.unknown_frees} frees of unknown blocks; {found.contradictions} contradictions",
        "all blocks of the dump are equal" if found.end_is_equal else "blocks at the dump differ",
    ]
    for kind, number in found.kinds.most_common():
        first = next(miss for miss in found.misses if miss.kind == kind)
        lines.append(
            f"{number} x {kind}: {EXPLANATIONS[kind]} (event {first.position}: {first.requested} "
            f"bytes, recorded {first.recorded:#x}, predicted {first.predicted:#x})"
        )
    return lines


def validate(snapshot: MemorySnapshot, device: int = 0) -> Validation:
    """Replay a device's recorded events through the model.

    Raises UsageError as `rewind` does, and for a snapshot that cannot be: blocks that overlap,
    events of memory that no segment has.
    """
    try:
        return _validated(snapshot, device)
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        # TypeError: two blocks at one address, which a free list cannot put in order.
        raise UsageError(
            f"the blocks and events of device {device} contradict one another "
            f"({type(error).__name__}); record the snapshot again"
        ) from error


def _validated(snapshot: MemorySnapshot, device: int) -> Validation:
    start = rewind(snapshot, device)
    allocator = start.allocator
    allocator.recording = False
    events = snapshot.events[device]
    found = Validation(
        used_at_start=len(start.used),
        guessed_at_start=start.guessed,
        contradictions=start.contradictions,
    )
    pools = pool_of_events(snapshot, device)
    rows = zip(
        events.action,
        events.address.tolist(),
        events.bytes.tolist(),
        events.stream.tolist(),
        strict=True,
    )
    waiting_segment: tuple[int, int] | None = None
    mapped = 0
    for i, (action, address, size, stream) in enumerate(rows):
        if action == "segment_alloc":
            waiting_segment = (address, size)
            found.segments += 1
        elif action == "alloc":
            before = allocator.counters.reserved
            _check(allocator, found, i, address, size, max(stream, 0), pools[i], waiting_segment)
            if waiting_segment is None:
                grown = allocator.counters.reserved - before
                found.mapped_exact += bool(mapped) and grown == mapped
            waiting_segment, mapped = None, 0
        elif action == "free_completed":
            found.frees += 1
            if address in allocator.live:
                allocator.free(address)
            else:
                found.unknown_frees += 1
        elif action == "segment_free":
            _give_back(allocator, address)
        elif action == "segment_map":
            found.mapped += not mapped
            mapped += size
        elif action == "segment_unmap":
            _unmap(allocator, address)
    found.end_is_equal = _blocks_of(allocator) == _blocks_at_the_dump(snapshot, device)
    return found


def _blocks_of(allocator: CachingAllocator) -> list[BlockRow]:
    out: list[BlockRow] = []
    for first in allocator.first_blocks():
        at: Block | None = first
        while at is not None and at.mapped:
            out.append((at.address, at.size, at.requested if at.in_use else None))
            at = at.next
    return out


def _blocks_at_the_dump(snapshot: MemorySnapshot, device: int) -> list[BlockRow]:
    blocks, segments = snapshot.blocks, snapshot.segments
    mine = (segments.device[blocks.segment] == device).tolist()
    rows = zip(
        mine,
        blocks.address.tolist(),
        blocks.bytes.tolist(),
        blocks.requested_bytes.tolist(),
        blocks.state,
        strict=True,
    )
    found = [
        (address, size, None if state == "inactive" else requested)
        for is_mine, address, size, requested, state in rows
        if is_mine
    ]
    return sorted(found, key=lambda row: row[:2])


def _check(
    allocator: CachingAllocator,
    found: Validation,
    position: int,
    address: int,
    size: int,
    stream: int,
    pool: PoolId,
    segment: tuple[int, int] | None,
) -> None:
    found.allocations += 1
    before = allocator.driver_allocations
    if pool != DEFAULT_POOL:
        if pool not in allocator.private:
            allocator.use_pool(pool)
        allocator.captures = [(pool, None)]
    predicted = allocator.malloc(max(size, 1), stream)
    allocator.captures = []
    took = allocator.driver_allocations > before
    block = allocator.live[predicted]
    taken = None
    if took:
        taken = block.size + (block.next.size if block.next is not None else 0)
    if segment is not None and taken == segment[1]:
        found.segments_exact += 1
    elif took and block.expandable is None:
        found.segments_extra += 1
    if predicted == address:
        found.exact += 1
        if not found.misses:
            found.free_running += 1
        return
    found.misses.append(
        Miss(position, size, address, predicted, _move(allocator, block, address, took, segment))
    )


def _move(
    allocator: CachingAllocator,
    block: Block,
    address: int,
    took: bool,
    segment: tuple[int, int] | None,
) -> str:
    """Undo the prediction, allocate at the recorded address instead, and say what was wrong."""
    requested, home = block.requested, block.home
    rounded = allocator.settings.round_size(requested)
    chosen = block.size + (block.next.size if block.next and not block.next.in_use else 0)
    allocator.free(block.address)
    if took and block.expandable is None:  # what was mapped stays, as after a failed growth
        _give_back(allocator, block.address)
    if segment is not None and not took:
        free = Block(segment[0], segment[1], home)
        allocator.count_reserved(home, segment[1])
        home.insert(free)
    right = next(
        (
            entry[2]
            for entry in home.entries
            if entry[1] <= address and address + rounded <= entry[1] + entry[0]
        ),
        None,
    )
    if right is None:
        return NOT_FREE
    size = right.size
    if address > right.address:
        home.remove(right)
        front = Block(right.address, address - right.address, home)
        front.expandable = right.expandable
        splice(front, right.previous, right)
        right.address, right.size = address, right.size - front.size
        home.insert(front)
        home.insert(right)
    home.remove(right)
    allocator.hand_out(right, home, rounded, requested, None)
    if took:
        return UNEXPECTED_SEGMENT
    if segment is not None:
        return MISSING_SEGMENT
    return TIE if size == chosen else SMALLER if chosen < size else LARGER


def _unmap(allocator: CachingAllocator, address: int) -> None:
    """Unmap the whole granules of the free block of a growing segment that holds the address."""
    for pool in allocator.pools:
        for small in (True, False):
            for home in pool.lists(small):
                for size, at, block in home.entries:
                    if at <= address < at + size and block.expandable is not None:
                        allocator.unmap_block(block)
                        return


def _give_back(allocator: CachingAllocator, address: int) -> None:
    """Release the wholly free segment at the address, if the model has it."""
    for pool in allocator.pools:
        for small in (True, False):
            for home in pool.lists(small):
                for _, at, block in home.entries:
                    if at == address and not block.split:
                        allocator.release_segment(block)
                        return
