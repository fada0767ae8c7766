"""Which launch of B is which launch of A? One joint alignment of both sequences, in order.

The alignment keeps as many exact names as it can, then base names, then equal grids and blocks, so
a launch that was inserted or removed moves no other pair. What the order cannot place is paired by
exact name out of order, then by position between two pairs; the rest has no partner.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.diff.difference import Tier
from common.traces.ncu_model import KernelLaunch

# What an aligned pair is worth. Two base names do not outweigh one exact name.
EXACT, BASE, SHAPE = 64, 24, 1
# The table of the alignment holds 4 bytes a cell; beyond this launches are paired by count.
MAX_CELLS = 25_000_000


@dataclass(frozen=True)
class LaunchPair:
    """Indices into both reports; None where a side has no partner. `moved`: out of order."""

    a: int | None
    b: int | None
    tier: Tier
    moved: bool = False


def pair_launches(a: Sequence[KernelLaunch], b: Sequence[KernelLaunch]) -> list[LaunchPair]:
    """Every launch of both sides exactly once, in the order of A, then what only B has.

    Swapping the sides gives the same pairs: ties are always broken from the same side.
    """
    if [_identity(launch) for launch in a] > [_identity(launch) for launch in b]:
        swapped = [LaunchPair(p.b, p.a, p.tier, p.moved) for p in _paired(b, a)]
        return sorted(swapped, key=_position)
    return sorted(_paired(a, b), key=_position)


def _identity(launch: KernelLaunch) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    return launch.name, launch.grid or (), launch.block or ()


def _position(pair: LaunchPair) -> tuple[bool, int]:
    return (pair.a is None, (pair.a if pair.a is not None else pair.b) or 0)


def _paired(a: Sequence[KernelLaunch], b: Sequence[KernelLaunch]) -> list[LaunchPair]:
    anchors = _aligned(a, b)
    pairs = [LaunchPair(i, j, _tier(a[i], b[j])) for i, j in anchors]
    left, right = _without(range(len(a)), range(len(b)), anchors)
    moved = _by_count(left, right, a, b)
    pairs += [LaunchPair(i, j, Tier.EXACT, moved=True) for i, j in moved]
    left, right = _without(left, right, moved)
    placed = _between(left, right, anchors)
    pairs += [LaunchPair(i, j, Tier.POSITION) for i, j in placed]
    left, right = _without(left, right, placed)
    pairs += [LaunchPair(i, None, Tier.UNMATCHED) for i in left]
    pairs += [LaunchPair(None, j, Tier.UNMATCHED) for j in right]
    return pairs


def _without(
    left: Sequence[int], right: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> tuple[list[int], list[int]]:
    done_a, done_b = {i for i, _ in pairs}, {j for _, j in pairs}
    return [i for i in left if i not in done_a], [j for j in right if j not in done_b]


def _tier(a: KernelLaunch, b: KernelLaunch) -> Tier:
    return Tier.EXACT if a.name == b.name else Tier.NORMALISED


def _aligned(a: Sequence[KernelLaunch], b: Sequence[KernelLaunch]) -> list[tuple[int, int]]:
    """The alignment of the highest worth. Equal heads and tails need no table."""
    own, other = [_identity(launch) for launch in a], [_identity(launch) for launch in b]
    head = 0
    while head < min(len(own), len(other)) and own[head] == other[head]:
        head += 1
    tail = 0
    while tail < min(len(own), len(other)) - head and own[-1 - tail] == other[-1 - tail]:
        tail += 1
    inner_a, inner_b = a[head : len(a) - tail], b[head : len(b) - tail]
    pairs = [(i, i) for i in range(head)]
    if len(inner_a) * len(inner_b) > MAX_CELLS:
        own_range, other_range = range(head, len(a) - tail), range(head, len(b) - tail)
        pairs += _increasing(_by_count(own_range, other_range, a, b))
    elif inner_a and inner_b:
        pairs += [(i + head, j + head) for i, j in _best(inner_a, inner_b)]
    return pairs + [(len(a) - k, len(b) - k) for k in range(tail, 0, -1)]


def _best(a: Sequence[KernelLaunch], b: Sequence[KernelLaunch]) -> list[tuple[int, int]]:
    """Needleman-Wunsch without a cost for gaps: then a row is a running maximum."""
    names_a, names_b = _codes([x.name for x in a], [x.name for x in b])
    bases_a, bases_b = _codes([x.base_name for x in a], [x.base_name for x in b])
    shapes_a, shapes_b = _codes([(x.grid, x.block) for x in a], [(x.grid, x.block) for x in b])
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)
    for i in range(len(a)):
        worth = _worth(i, names_a, names_b, bases_a, bases_b, shapes_a, shapes_b)
        row = np.maximum(table[i, 1:], table[i, :-1] + worth)
        table[i + 1, 1:] = np.maximum.accumulate(row)
    i, j = len(a), len(b)
    pairs: list[tuple[int, int]] = []
    while i and j:
        # Skipping first leaves the later of equal launches alone and pairs the earlier.
        if table[i, j] == table[i, j - 1]:
            j -= 1
        elif table[i, j] == table[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


Codes = NDArray[np.int64]


def _worth(
    i: int, names_a: Codes, names_b: Codes, bases_a: Codes, bases_b: Codes, *shapes: Codes
) -> NDArray[np.int32]:
    named = names_b == names_a[i]
    based = bases_b == bases_a[i]
    value = np.where(named, EXACT, np.where(based, BASE, 0))
    value += SHAPE * ((named | based) & (shapes[1] == shapes[0][i]))
    return value.astype(np.int32)


def _codes(a: Sequence[object], b: Sequence[object]) -> tuple[Codes, Codes]:
    """Equal things as equal numbers."""
    number: dict[object, int] = {}
    for thing in (*a, *b):
        number.setdefault(thing, len(number))
    return (
        np.array([number[thing] for thing in a], dtype=np.int64),
        np.array([number[thing] for thing in b], dtype=np.int64),
    )


def _by_count(
    left: Sequence[int], right: Sequence[int], a: Sequence[KernelLaunch], b: Sequence[KernelLaunch]
) -> list[tuple[int, int]]:
    """The k-th launch of a name with the k-th of the same name."""
    waiting: dict[str, list[int]] = defaultdict(list)
    for j in reversed(right):
        waiting[b[j].name].append(j)
    return [(i, waiting[a[i].name].pop()) for i in left if waiting[a[i].name]]


def _increasing(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs that keep the order, taken from the front."""
    kept: list[tuple[int, int]] = []
    for i, j in pairs:
        if not kept or j > kept[-1][1]:
            kept.append((i, j))
    return kept


def _between(
    left: Sequence[int], right: Sequence[int], anchors: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Renamed kernels: between two pairs both sides have equally many launches left."""
    starts_a = [i for i, _ in anchors]
    starts_b = [j for _, j in anchors]
    gaps_a: dict[int, list[int]] = defaultdict(list)
    gaps_b: dict[int, list[int]] = defaultdict(list)
    for i in left:
        gaps_a[int(np.searchsorted(starts_a, i))].append(i)
    for j in right:
        gaps_b[int(np.searchsorted(starts_b, j))].append(j)
    pairs: list[tuple[int, int]] = []
    for gap in sorted(gaps_a.keys() & gaps_b.keys()):
        if len(gaps_a[gap]) == len(gaps_b[gap]):
            pairs += zip(gaps_a[gap], gaps_b[gap], strict=True)
    return pairs
