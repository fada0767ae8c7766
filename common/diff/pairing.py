"""Which piece of work of A is which of B? Joint alignment in tiers, order kept.

1. Units (what one operator instance launched) are aligned by their whole path; what is left between
   two aligned units is aligned by the outermost operator. Paths say the same on every GPU and with
   every kernel library, so that renamed kernels meet.
2. Within two units the kernels are aligned by name, by normalised name, by family, and, within one
   operator, by being kernels at all: the best sum of these wins, order kept. Where an operator
   launched the same kernel more often on one side, the others belong to its pair: one became two.
3. What is left is aligned between its neighbours, then over the whole trace, by name, normalised
   name and the renamings that step 2 saw; last, equal names are paired in order of appearance.
"""

from __future__ import annotations

import msgspec
import numpy as np

from common.diff.alignment import align
from common.diff.nesting import UInt64, mixed
from common.diff.sequence import Launched
from common.traces.model import UNKNOWN, Bool, GpuKind, Int64

SMALL = 4096  # cells of a table that is filled in Python
EXACT, NORMALISED, FAMILY, KERNEL = 9, 6, 4, 1


class Pairs(msgspec.Struct):
    """Found so far. `partner` of each piece of A is an index in B; `joins_a` and `joins_b` are
    indexes on the same side, of the piece whose pair it belongs to. UNKNOWN (-1) without one."""

    partner: Int64
    joins_a: Int64
    joins_b: Int64

    def free_a(self) -> Int64:
        return np.flatnonzero((self.partner == UNKNOWN) & (self.joins_a == UNKNOWN))

    def free_b(self) -> Int64:
        free = self.joins_b == UNKNOWN
        free[self.partner[self.partner != UNKNOWN]] = False
        return np.flatnonzero(free)


def pair(a: Launched, b: Launched) -> Pairs:
    """Who is whose partner among the work of `a` and `b`, both in launch order.

    Swapping the sides gives the same pairs: ties are always broken from the same side.
    """
    if _side_key(a) <= _side_key(b):
        return _paired(a, b)
    found = _paired(b, a)
    partner = np.full(len(a), UNKNOWN, dtype=np.int64)
    paired = np.flatnonzero(found.partner != UNKNOWN)
    partner[found.partner[paired]] = paired
    return Pairs(partner, found.joins_b, found.joins_a)


def _side_key(side: Launched) -> tuple[int, bytes, bytes]:
    return len(side), side.name.tobytes(), side.path.tobytes()


def _paired(a: Launched, b: Launched) -> Pairs:
    found = Pairs(*(np.full(len(side), UNKNOWN, dtype=np.int64) for side in (a, a, b)))
    left, right = _units(a, b)
    _contents(a, b, left, right, found.partner)
    paired = np.flatnonzero(found.partner != UNKNOWN)
    _join(a, paired, left, found.joins_a)
    _join(b, found.partner[paired], right, found.joins_b)
    renamed = _renamings(a, b, found.partner)
    for keys in (
        (a.name, b.name),
        (a.normalised, b.normalised),
        (renamed, b.name),
        (a.family, b.family),
    ):
        _between_neighbours(a, b, keys, found)
    for keys in ((a.name, b.name), (a.normalised, b.normalised), (renamed, b.name)):
        _anywhere(a, b, keys, found)
    return found


def _join(side: Launched, paired: Int64, units: Int64, joins: Int64) -> None:
    """Gives what an operator launched beside a pair of the same normalised name to that pair."""
    matched_unit = np.zeros(len(side.unit_first), dtype=np.bool_)
    matched_unit[units] = True
    free = matched_unit[side.unit] & side.in_operator & ~side.by_graph if len(side) else joins > 0
    free[paired] = False
    alone = np.flatnonzero(free)
    if not len(alone) or not len(paired):
        return
    key = mixed(side.normalised, side.unit.astype(np.uint64))
    order = paired[np.argsort(key[paired], kind="stable")]
    at = np.minimum(np.searchsorted(key[order], key[alone]), len(order) - 1)
    same = key[order[at]] == key[alone]
    joins[alone[same]] = order[at[same]]


def _units(a: Launched, b: Launched) -> tuple[Int64, Int64]:
    left, right = align(a.unit_path.view(np.int64), b.unit_path.view(np.int64))
    free_a, free_b = _free(len(a.unit_first), left), _free(len(b.unit_first), right)
    if len(free_a) and len(free_b):
        key_a = mixed(a.unit_outer[free_a], _gap(left, free_a))
        key_b = mixed(b.unit_outer[free_b], _gap(right, free_b))
        more_left, more_right = align(key_a.view(np.int64), key_b.view(np.int64))
        left = np.concatenate((left, free_a[more_left]))
        right = np.concatenate((right, free_b[more_right]))
    return left, right


def _free(size: int, taken: Int64) -> Int64:
    free = np.ones(size, dtype=np.bool_)
    free[taken] = False
    return np.flatnonzero(free)


def _gap(anchors: Int64, places: Int64) -> UInt64:
    """Between which two anchors each place lies; both sides number their gaps alike."""
    return np.searchsorted(anchors, places).astype(np.uint64)


def _contents(a: Launched, b: Launched, left: Int64, right: Int64, partner: Int64) -> None:
    equal = a.unit_content[left] == b.unit_content[right]
    size = a.unit_size[left[equal]]
    place = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    partner[np.repeat(a.unit_first[left[equal]], size) + place] = (
        np.repeat(b.unit_first[right[equal]], size) + place
    )
    single: Bool = ~equal & (a.unit_size[left] == 1) & (b.unit_size[right] == 1)
    _singles(a, b, a.unit_first[left[single]], b.unit_first[right[single]], partner)
    rest = ~equal & ~single
    known: dict[tuple[int, int, bool], tuple[Int64, Int64]] = {}
    for unit_a, unit_b in zip(left[rest].tolist(), right[rest].tolist(), strict=True):
        first_a, first_b = int(a.unit_first[unit_a]), int(b.unit_first[unit_b])
        own = bool(a.in_operator[first_a])
        key = (int(a.unit_content[unit_a]), int(b.unit_content[unit_b]), own)
        if key not in known:
            slice_a = slice(first_a, first_a + int(a.unit_size[unit_a]))
            slice_b = slice(first_b, first_b + int(b.unit_size[unit_b]))
            known[key] = _content(a, b, slice_a, slice_b, own)
        found_a, found_b = known[key]
        partner[found_a + first_a] = found_b + first_b


def _singles(a: Launched, b: Launched, of_a: Int64, of_b: Int64, partner: Int64) -> None:
    """As `_content` for units of one piece each, all at once: most units that differ are such."""
    kernel_a = a.trace.gpu.kind[a.event[of_a]] == GpuKind.KERNEL
    kernel_b = b.trace.gpu.kind[b.event[of_b]] == GpuKind.KERNEL
    alike: Bool = a.in_operator[of_a] & kernel_a & kernel_b
    for names_a, names_b in ((a.name, b.name), (a.normalised, b.normalised), (a.family, b.family)):
        alike |= names_a[of_a] == names_b[of_b]
    partner[of_a[alike]] = of_b[alike]


def _content(
    a: Launched, b: Launched, slice_a: slice, slice_b: slice, own: bool
) -> tuple[Int64, Int64]:
    """Pairs within two units, counted from their beginnings."""
    size_a, size_b = slice_a.stop - slice_a.start, slice_b.stop - slice_b.start
    if size_a * size_b > SMALL:
        return _long_content(a, b, slice_a, slice_b)
    gpu_a, gpu_b = a.trace.gpu, b.trace.gpu
    scores = EXACT * (a.name[slice_a][:, None] == b.name[slice_b])
    scores = np.maximum(
        scores, NORMALISED * (a.normalised[slice_a][:, None] == b.normalised[slice_b])
    )
    scores = np.maximum(scores, FAMILY * (a.family[slice_a][:, None] == b.family[slice_b]))
    if own:
        kernel_a = gpu_a.kind[a.event[slice_a]] == GpuKind.KERNEL
        kernel_b = gpu_b.kind[b.event[slice_b]] == GpuKind.KERNEL
        scores = np.maximum(scores, KERNEL * (kernel_a[:, None] & kernel_b))
    return _best(scores.tolist())


def _best(scores: list[list[int]]) -> tuple[Int64, Int64]:
    """The pairs, order kept, with the largest sum of scores (Needleman and Wunsch, no gap cost)."""
    size_a, size_b = len(scores), len(scores[0])
    table = [[0] * (size_b + 1) for _ in range(size_a + 1)]
    for i in range(size_a - 1, -1, -1):
        row, below, score = table[i], table[i + 1], scores[i]
        for j in range(size_b - 1, -1, -1):
            best = below[j] if below[j] >= row[j + 1] else row[j + 1]
            if score[j] and below[j + 1] + score[j] > best:
                best = below[j + 1] + score[j]
            row[j] = best
    left, right = [], []
    i = j = 0
    while i < size_a and j < size_b:
        if scores[i][j] and table[i][j] == table[i + 1][j + 1] + scores[i][j]:
            left.append(i)
            right.append(j)
            i, j = i + 1, j + 1
        elif table[i][j] == table[i + 1][j]:
            i += 1
        else:
            j += 1
    return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)


def _long_content(a: Launched, b: Launched, slice_a: slice, slice_b: slice) -> tuple[Int64, Int64]:
    """As `_content` for many kernels: by the finest kind of name that covers nearly all of them.

    Few common names would be anchors at the wrong places; names that nearly all have are dense.
    """
    for of_a, of_b in ((a.name, b.name), (a.normalised, b.normalised)):
        shared_a = np.isin(of_a[slice_a], of_b[slice_b]).mean()
        shared_b = np.isin(of_b[slice_b], of_a[slice_a]).mean()
        if min(shared_a, shared_b) >= 0.8:
            return align(of_a[slice_a].view(np.int64), of_b[slice_b].view(np.int64))
    return align(a.family[slice_a].view(np.int64), b.family[slice_b].view(np.int64))


def _renamings(a: Launched, b: Launched, partner: Int64) -> UInt64:
    """The name of each piece of A as B calls it: the partner most often seen, if that is mutual."""
    paired = np.flatnonzero(partner != UNKNOWN)
    names_a, names_b = a.name[paired], b.name[partner[paired]]
    differs = names_a != names_b
    seen, counts = np.unique(
        np.stack((names_a[differs], names_b[differs])), axis=1, return_counts=True
    )
    order = np.argsort(counts, kind="stable")  # the most frequent comes last and stays
    to_b = {int(seen[0, i]): int(seen[1, i]) for i in order.tolist()}
    to_a = {int(seen[1, i]): int(seen[0, i]) for i in order.tolist()}
    renamed = a.name.copy()
    for old, new in to_b.items():
        if to_a[new] == old:
            renamed[a.name == np.uint64(old)] = np.uint64(new)
    return renamed


def _between_neighbours(
    a: Launched, b: Launched, keys: tuple[UInt64, UInt64], found: Pairs
) -> None:
    """Pairs equal keys that lie between the same two pairs."""
    partner = found.partner
    anchors = np.flatnonzero(partner != UNKNOWN)
    order = _increasing(partner[anchors])
    left, right = anchors[order], partner[anchors[order]]
    free_a, free_b = found.free_a(), found.free_b()
    if not len(free_a) or not len(free_b):
        return
    key_a = mixed(mixed(keys[0][free_a], _gap(left, free_a)), a.lane[free_a].astype(np.uint64))
    key_b = mixed(mixed(keys[1][free_b], _gap(right, free_b)), b.lane[free_b].astype(np.uint64))
    found_a, found_b = align(key_a.view(np.int64), key_b.view(np.int64))
    partner[free_a[found_a]] = free_b[found_b]


def _increasing(values: Int64) -> Int64:
    """Places of a longest increasing run-through of `values` (nearly all of them are)."""
    if (np.diff(values) > 0).all():
        return np.arange(len(values))
    ranks = np.argsort(values, kind="stable")
    return align(np.arange(len(values), dtype=np.int64), ranks.astype(np.int64))[0]


def _anywhere(a: Launched, b: Launched, keys: tuple[UInt64, UInt64], found: Pairs) -> None:
    """Pairs equal keys in order over the whole trace, then by their order of appearance."""
    for ordered in (True, False):
        free_a, free_b = found.free_a(), found.free_b()
        if not len(free_a) or not len(free_b):
            return
        key_a = mixed(keys[0][free_a], a.lane[free_a].astype(np.uint64)).view(np.int64)
        key_b = mixed(keys[1][free_b], b.lane[free_b].astype(np.uint64)).view(np.int64)
        if not ordered:
            key_a, key_b = numbered(key_a), numbered(key_b)
            _, found_a, found_b = np.intersect1d(key_a, key_b, return_indices=True)
        else:
            found_a, found_b = align(key_a, key_b)
        found.partner[free_a[found_a]] = free_b[found_b]


def numbered(keys: Int64) -> Int64:
    """Keys made different by how often each occurred before."""
    return mixed(keys.view(np.uint64), occurrence(keys)).view(np.int64)


def occurrence(keys: Int64) -> UInt64:
    """How many equal keys came before each."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.append(True, ordered[1:] != ordered[:-1]) if len(keys) else np.empty(0, np.bool_)
    starts = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
    number = np.empty(len(keys), dtype=np.int64)
    number[order] = np.arange(len(keys)) - starts
    return number.astype(np.uint64)
