"""Where did a recorded run's growing segments lie? Their memory at the start, and their addresses.

An event of a growing segment has an address and a stream; whether it is of the small or the large
blocks shows in the allocation that it was mapped for, and whose address range it is in the order of
the mapping: a new range is filled from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from common.allocator.blocks import PoolId
from common.allocator.settings import SMALL_SEGMENT_BYTES
from common.errors import UsageError

Key = tuple[PoolId, int, bool]  # pool, stream, small
# More than a device has, so that a stream's ranges are not taken for one another.
RANGE_BYTES = 1 << 39


@dataclass(frozen=True)
class Change:
    """One event that maps (or unmaps) memory."""

    address: int
    size: int
    maps: bool
    stream: int
    pool: PoolId
    small: bool | None  # None: the event itself does not show it


@dataclass
class Stretches:
    """Disjoint address ranges, joined where they touch."""

    rows: list[tuple[int, int]] = field(default_factory=list)  # begin, end; ascending

    def add(self, begin: int, end: int) -> None:
        kept = [row for row in self.rows if row[1] < begin or row[0] > end]
        touching = [row for row in self.rows if not (row[1] < begin or row[0] > end)]
        joined = (min([begin, *(r[0] for r in touching)]), max([end, *(r[1] for r in touching)]))
        self.rows = sorted([*kept, joined])

    def remove(self, begin: int, end: int) -> None:
        out: list[tuple[int, int]] = []
        for low, high in self.rows:
            out += [(low, min(high, begin)), (max(low, end), high)]
        self.rows = [(low, high) for low, high in out if low < high]

    def holds(self, address: int) -> bool:
        return any(low <= address < high for low, high in self.rows)


@dataclass(frozen=True)
class Growth:
    """`at_start`: mapped ranges and the base of each range that had memory at the start, by key.
    `reserved`: the bases of the ranges that the history begins, in its order.
    """

    at_start: dict[Key, Stretches]
    bases: dict[Key, int]
    reserved: tuple[int, ...]


def rewind_growth(at_end: dict[Key, Stretches], changes: list[Change]) -> Growth:
    """Walk the changes back from the end. UsageError when one belongs to no known segment."""
    keys = list(_keys(at_end, changes))
    now = {key: Stretches(list(found.rows)) for key, found in at_end.items()}
    for change, key in reversed(list(zip(changes, keys, strict=True))):
        stretches = now.setdefault(key, Stretches())
        move = stretches.remove if change.maps else stretches.add
        move(change.address, change.address + change.size)
    at_start = {key: Stretches(list(found.rows)) for key, found in now.items() if found.rows}
    bases = {key: found.rows[0][0] for key, found in at_start.items()}
    fresh: set[Key] = set()
    reserved: list[int] = []
    for change, key in zip(changes, keys, strict=True):
        stretches = now[key]
        if change.maps:
            if not stretches.rows:
                reserved.append(change.address)
                fresh.add(key)
            elif key not in fresh:
                bases[key] = min(bases[key], change.address)
            stretches.add(change.address, change.address + change.size)
        else:
            stretches.remove(change.address, change.address + change.size)
    for key, found in at_start.items():
        if found.rows[-1][1] - bases[key] > RANGE_BYTES:
            raise UsageError(
                "one stream has several growing segments; record a shorter history to check "
                "the model against it"
            )
    return Growth(at_start, bases, tuple(reserved))


def _keys(at_end: dict[Key, Stretches], changes: list[Change]) -> Iterator[Key]:
    """Whose segment each change is of: as it shows, else that of memory at the same address."""
    for i, change in enumerate(changes):
        if change.small is not None:
            yield change.pool, change.stream, change.small
            continue
        same = _overlapping(change)
        known = next((c.small for c in changes[:i][::-1] if c.small is not None and same(c)), None)
        if known is None:
            known = next((c.small for c in changes[i:] if c.small is not None and same(c)), None)
        if known is None:
            known = _near(at_end, change)
        if known is None:
            # The granule is all that is left to tell: a large one is a multiple of 20 MiB.
            known = change.size % (10 * SMALL_SEGMENT_BYTES) != 0
        yield change.pool, change.stream, known


def _overlapping(change: Change) -> Callable[[Change], bool]:
    def same(other: Change) -> bool:
        return (
            other.stream == change.stream
            and other.address < change.address + change.size
            and change.address < other.address + other.size
        )

    return same


def _near(at_end: dict[Key, Stretches], change: Change) -> bool | None:
    """The size class of the stream's memory at the end that lies nearest."""
    found = [
        (min(abs(low - change.address), abs(high - change.address)), key[2])
        for key, stretches in at_end.items()
        if key[1] == change.stream
        for low, high in stretches.rows
    ]
    distance, small = min(found, default=(RANGE_BYTES, False))
    return small if distance < RANGE_BYTES else None
