"""Which elements of two sequences are the same, order kept? Longest common subsequences, in NumPy.

    left, right = align(a, b)        # a[left] == b[right], both strictly increasing

Two exact algorithms, each where it is fast. Sequences that are nearly equal: Myers' greedy one
(1986), O((n + m) D) with D the number of elements without a partner; each of its D rounds extends
all diagonals at once, and how far a diagonal runs is found by bisection on a rolling hash (every
pair is checked at the end: a collision can cost a pair and never make a wrong one). Sequences that
differ much: the bit-parallel one (Hyyro 2004), n * m / 64 word operations, up to `MOST_CELLS`.
Beyond that stretches of `WINDOW` elements are taken one after the other; where they have little in
common, the path that came furthest after `EDITS_AT_ONCE` rounds of the first algorithm is kept, and
after `MOST_ROUNDS` rounds in all it stops: the time stays bounded and the result in order and
correct, but it may not be the longest, and two ends with little in common stay unpaired.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.traces.model import Int64

UInt64 = NDArray[np.uint64]
EDITS_AT_FIRST = 64
EDITS_AT_ONCE = 400  # a round costs as many diagonals as there were rounds before it
MOST_ROUNDS = 10_000
MOST_CELLS = 250_000_000  # bits of the table that is kept for walking back: 31 MB
WINDOW = 2048  # elements of each side that are taken at once from sequences longer than that
FEW = 24  # diagonals that are extended one by one rather than all at once
_ODD = np.uint64(0x9E3779B97F4A7C15)


def align(a: Int64, b: Int64) -> tuple[Int64, Int64]:
    """Indexes of equal elements of `a` and `b` in order. Lengths n and m, any integers."""
    size_a, size_b = len(a), len(b)
    head = _common_head(a, b)
    rest = min(size_a, size_b) - head
    tail = _common_head(a[size_a - rest :][::-1], b[size_b - rest :][::-1]) if rest else 0
    left = [np.arange(head)]
    right = [np.arange(head)]
    middle_a, middle_b = a[head : size_a - tail], b[head : size_b - tail]
    if len(middle_a) and len(middle_b):
        # An element that the other side does not have cannot be paired: it only costs rounds.
        kinds, inverse = np.unique(np.concatenate((middle_a, middle_b)), return_inverse=True)
        ids_a, ids_b = np.split(inverse.reshape(-1).astype(np.int64), [len(middle_a)])
        in_a, in_b = np.zeros((2, len(kinds)), dtype=np.bool_)
        in_a[ids_a] = in_b[ids_b] = True
        here_a, here_b = np.flatnonzero(in_b[ids_a]), np.flatnonzero(in_a[ids_b])
        if len(here_a) and len(here_b):
            first, second = _myers(ids_a[here_a], ids_b[here_b], len(kinds))
            left.append(here_a[first] + head)
            right.append(here_b[second] + head)
    left.append(np.arange(size_a - tail, size_a))
    right.append(np.arange(size_b - tail, size_b))
    return (
        np.concatenate(left).astype(np.int64, copy=False),
        np.concatenate(right).astype(np.int64, copy=False),
    )


def _common_head(a: Int64, b: Int64) -> int:
    size = min(len(a), len(b))
    differs = np.flatnonzero(a[:size] != b[:size])
    return int(differs[0]) if len(differs) else size


def _myers(a: Int64, b: Int64, kinds: int) -> tuple[Int64, Int64]:
    """As `align`, of elements from 0 to kinds - 1."""
    runs = _Runs(a, b, kinds)
    lefts: list[Int64] = []
    rights: list[Int64] = []
    x = y = rounds = 0
    while x < len(a) and y < len(b) and rounds < MOST_ROUNDS:
        if rounds and (len(a) - x) * (len(b) - y) <= MOST_CELLS:
            left, right = _bit_parallel(a[x:], b[y:])
            left, right, x, y = left + x, right + y, len(a), len(b)
        elif (run := runs.length(x, y)) > WINDOW:
            left, right = np.arange(x, x + run), np.arange(y, y + run)
            x, y = x + run, y + run
        elif rounds and (found := _window(a, b, x, y)) is not None:
            left, right, x, y = found
        else:
            most = EDITS_AT_ONCE if rounds else EDITS_AT_FIRST
            left, right, x, y = _search(runs, x, y, most)
            rounds += most
        lefts.append(left)
        rights.append(right)
    left, right = _joined(lefts), _joined(rights)
    same = a[left] == b[right]
    return left[same], right[same]


def _window(a: Int64, b: Int64, x: int, y: int) -> tuple[Int64, Int64, int, int] | None:
    """As `_search`, for the next stretch of two long sequences; None where it has little in common.

    What is found in its first half is kept, and of the second what lies before the middle of the
    longest run of neighbours: there, what comes after the stretch can change nothing.
    """
    left, right = _bit_parallel(a[x : x + WINDOW], b[y : y + WINDOW])
    if 2 * len(left) < WINDOW:
        return None
    half = len(left) // 2
    breaks = np.flatnonzero((np.diff(left[half:]) > 1) | (np.diff(right[half:]) > 1)) + 1
    edges = np.concatenate(([0], breaks, [len(left) - half]))
    longest = int(np.diff(edges).argmax())
    cut = half + int(edges[longest] + edges[longest + 1]) // 2
    return left[:cut] + x, right[:cut] + y, x + int(left[cut]), y + int(right[cut])


def _joined(parts: list[Int64]) -> Int64:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


class _Runs:
    """How long a[x:] and b[y:] agree, for many (x, y) at once: bisection on a rolling hash."""

    def __init__(self, a: Int64, b: Int64, kinds: int) -> None:
        self.a, self.b = a, b
        with np.errstate(over="ignore"):
            weight = (np.arange(1, kinds + 1, dtype=np.uint64) * _ODD) ^ np.uint64(
                0x5851F42D4C957F2D
            )
            weight *= np.uint64(0xBF58476D1CE4E5B9)
            weight ^= weight >> np.uint64(31)
            size = max(len(a), len(b)) + 1
            power = np.ones(size, dtype=np.uint64)
            power[1:] = _ODD | np.uint64(1)
            self.power = np.multiply.accumulate(power)
            self.sum_a = self._sums(weight[a])
            self.sum_b = self._sums(weight[b])

    def _sums(self, weights: UInt64) -> UInt64:
        sums = np.zeros(len(weights) + 1, dtype=np.uint64)
        np.cumsum(weights * self.power[: len(weights)], out=sums[1:])
        return sums

    def lengths(self, x: Int64, y: Int64) -> Int64:
        found = np.zeros(len(x), dtype=np.int64)
        inside = np.flatnonzero((x < len(self.a)) & (y < len(self.b)) & (x >= 0) & (y >= 0))
        inside = inside[self.a[x[inside]] == self.b[y[inside]]]
        if len(inside) <= FEW:  # most rounds: elements are compared as they stand
            for at in inside.tolist():
                found[at] = self.length(int(x[at]), int(y[at]))
        else:
            found[inside] = self._bisected(x[inside], y[inside])
        return found

    def length(self, x: int, y: int) -> int:
        """How long a[x:] and b[y:] agree, by comparing them."""
        if self.a[x] != self.b[y]:
            return 0
        found, step = 1, 32
        while True:
            a = self.a[x + found : x + found + step]
            b = self.b[y + found : y + found + step]
            size = min(len(a), len(b))
            differs = a[:size] != b[:size]
            first = int(differs.argmax()) if size else 0
            if not size or differs[first]:
                return found + first
            found += size
            step *= 4

    def _bisected(self, at_x: Int64, at_y: Int64) -> Int64:
        low = np.ones(len(at_x), dtype=np.int64)
        high = np.minimum(len(self.a) - at_x, len(self.b) - at_y)
        shift_a, shift_b = self.power[at_y], self.power[at_x]  # to one common power
        start_a, start_b = self.sum_a[at_x], self.sum_b[at_y]
        with np.errstate(over="ignore"):
            while (low < high).any():
                middle = (low + high + 1) >> 1
                part_a = (self.sum_a[at_x + middle] - start_a) * shift_a
                part_b = (self.sum_b[at_y + middle] - start_b) * shift_b
                same = part_a == part_b
                low = np.where(same, middle, low)
                high = np.where(same, high, middle - 1)
        return low


def _search(runs: _Runs, x0: int, y0: int, most: int) -> tuple[Int64, Int64, int, int]:
    """(left, right, x, y): pairs from (x0, y0) on, with `most` rounds, and where it ended."""
    size_a, size_b = len(runs.a) - x0, len(runs.b) - y0
    history: list[Int64] = []
    furthest = np.zeros(1, dtype=np.int64)  # x by diagonal, k = -d, -d + 2, …, d
    furthest += runs.lengths(np.array([x0]), np.array([y0]))
    edits = 0
    while True:
        k = np.arange(-edits, edits + 1, 2)
        history.append(furthest)
        y = furthest - k
        done = np.flatnonzero((furthest >= size_a) & (y >= size_b))
        if len(done):
            return _path(runs, history, int(k[done[0]]), x0, y0, size_a, size_b)
        if edits == most:
            inside = (furthest <= size_a) & (y <= size_b)
            reach = np.where(inside, furthest + y, -1)
            best = int(reach.argmax())
            return _path(runs, history, int(k[best]), x0, y0, size_a, size_b)
        edits += 1
        k = np.arange(-edits, edits + 1, 2)
        down = np.append(furthest, -1)  # from diagonal k + 1: an element of b is left out
        right = np.append(-1, furthest + 1)  # from k - 1: one of a
        start = np.maximum(down, right)
        start = np.minimum(start, size_a + 1)
        furthest = start + runs.lengths(start + x0, start - k + y0)


def _path(
    runs: _Runs, history: list[Int64], k: int, x0: int, y0: int, size_a: int, size_b: int
) -> tuple[Int64, Int64, int, int]:
    """Walks the kept rounds back from diagonal `k` of the last one."""
    pieces: list[tuple[int, int, int]] = []  # x, y, length
    x = end_x = int(history[-1][(k + len(history) - 1) // 2])
    end_y = end_x - k
    for edits in range(len(history) - 1, 0, -1):
        before = history[edits - 1]
        place = (k + edits) // 2  # of k in this round; k + 1 stands there in the one before
        down = int(before[place]) if place < len(before) else -1
        right = int(before[place - 1]) + 1 if place > 0 else -1
        start = min(max(down, right), size_a + 1)
        if x > start:
            pieces.append((start, start - k, x - start))
        if down >= right:
            k, x = k + 1, down
        else:
            k, x = k - 1, right - 1
    if x > 0:
        pieces.append((0, 0, x))
    pieces.reverse()
    left = [np.arange(x, x + length) for x, _, length in pieces]
    right_ = [np.arange(y, y + length) for _, y, length in pieces]
    stop_x, stop_y = min(end_x, size_a) + x0, min(end_y, size_b) + y0
    return _joined(left) + x0, _joined(right_) + y0, stop_x, stop_y


def _bit_parallel(a: Int64, b: Int64) -> tuple[Int64, Int64]:
    """The longest common subsequence by rows of bits; a zero bit is a step of its length."""
    masks: dict[int, int] = {}
    places = np.argsort(a, kind="stable")
    kinds, firsts = np.unique(a[places], return_index=True)
    for kind, own in zip(kinds.tolist(), np.split(places, firsts[1:]), strict=True):
        if len(own) <= FEW:
            masks[kind] = sum(1 << place for place in own.tolist())
            continue
        bits = np.zeros(len(a), dtype=np.uint8)
        bits[own] = 1
        masks[kind] = int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
    full = (1 << len(a)) - 1
    state = full
    kept: list[int] = []
    for kind in b.tolist():
        met = state & masks.get(kind, 0)
        state = ((state + met) | (state - met)) & full
        kept.append(state)
    left: list[int] = []
    right: list[int] = []
    row, below = len(b), full
    while row:
        column = ((kept[row - 1] & below) ^ below).bit_length() - 1  # the last step in this row
        if column < 0:
            break
        row -= 1
        while row and not kept[row - 1] >> column & 1:  # the row that made it
            row -= 1
        left.append(column)
        right.append(row)
        below = (1 << column) - 1
    return np.array(left[::-1], dtype=np.int64), np.array(right[::-1], dtype=np.int64)
