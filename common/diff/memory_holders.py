"""Who held the bytes at a peak, and which holder of A is which of B? Never told by address.

A holder is what lay live at the peak with one pool kind, one stack and one size class. Blocks from
before the recorded history, and blocks without frames, are holders by pool kind and size class.
Both sides are matched jointly, on the best evidence first; a holder is never matched with one in
another kind of pool, so memory that moves between pools shows as exactly these bytes twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from common.diff.difference import Tier
from common.traces.memory_model import LiveBlock, pool_kind
from common.traces.memory_stacks import size_class

BEFORE = "allocated before the history began"
NO_FRAMES = "no frames recorded"
# A stated guess: with so many innermost frames equal, other callers reached the same code.
INNER_FRAMES = 3


@dataclass(frozen=True)
class Site:
    """Where a holder's blocks come from. `device` is a label that both sides share.

    `frames` are "file.py:function", innermost first. Without a stack `label` says why.
    """

    device: int
    pool: str
    label: str
    operator: str | None = None
    frames: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()

    @property
    def has_stack(self) -> bool:
        return bool(self.operator or self.frames)

    @property
    def located(self) -> tuple[str, ...]:
        """The frames as "file.py:12 function"."""
        lines = (*self.lines, *(0 for _ in self.frames))
        return tuple(
            f"{file}:{line or '?'} {function}"
            for (file, _, function), line in zip(
                (frame.partition(":") for frame in self.frames), lines, strict=False
            )
        )


@dataclass(frozen=True)
class Holder:
    site: Site
    size: str  # size class of each of its blocks
    largest: int
    bytes: int
    count: int

    @property
    def name(self) -> str:
        site = self.site
        parts = ([site.operator] if site.operator else []) + list(site.located)
        return f"{' < '.join(parts) or site.label} · blocks {self.size}"


@dataclass(frozen=True)
class Pairing:
    a: Holder | None
    b: Holder | None
    tier: Tier


def holders(blocks: Iterable[LiveBlock], device: int) -> list[Holder]:
    """Live blocks of one device summed by site and size class; the bytes add up exactly."""
    sums: dict[tuple[Site, str], list[int]] = {}
    sites: dict[tuple[object, ...], Site] = {}
    for block in blocks:
        origin = (block.stack, block.since < 0, block.pool)
        site = sites.get(origin)
        if site is None:
            site = sites[origin] = _site(block, device)
        key = (site, size_class(block.bytes))
        held = sums.setdefault(key, [0, 0, 0])
        held[0] = max(held[0], block.bytes)
        held[1] += block.bytes
        held[2] += 1
    return [Holder(*key, *held) for key, held in sums.items()]


def _site(block: LiveBlock, device: int) -> Site:
    pool, stack = pool_kind(block.pool), block.stack
    if stack is None or not (stack.operator or stack.frames):
        unseen = stack is None and block.since < 0
        return Site(device, pool, BEFORE if unseen else NO_FRAMES)
    return Site(device, pool, stack.label, stack.operator, stack.frames, stack.lines)


def match(a: list[Holder], b: list[Holder]) -> list[Pairing]:
    """Every holder of both sides once, in pairs where there is evidence.

    Tiers: the same stack with its lines (exact name); the same functions, though lines or files
    moved (normalised name); the same line under another operator, the same inner frames under
    other callers, or the same pool and size class without any stack (path and position).
    """
    work = _Matching(sorted(a, key=_order), sorted(b, key=_order))
    work.each(lambda h: (_place(h), h.site.label), _same_stack, only=lambda h: h.site.has_stack)
    work.each(
        lambda h: (_place(h), h.site.label, h.size),
        _by_size(Tier.POSITION),
        only=lambda h: not h.site.has_stack,
    )
    work.each(
        lambda h: (_place(h), h.site.operator, tuple(f.partition(":")[2] for f in h.site.frames)),
        _by_size(Tier.NORMALISED),
        only=lambda h: bool(h.site.frames),
    )
    work.each(
        lambda h: (_place(h), h.site.frames, h.site.lines),
        _by_size(Tier.POSITION),
        only=lambda h: any(h.site.lines),
    )
    work.each(
        lambda h: (_place(h), h.site.operator, h.site.frames[:INNER_FRAMES]),
        _by_size(Tier.POSITION),
        only=lambda h: bool(h.site.frames),
    )
    alone = [Pairing(h, None, Tier.UNMATCHED) for h in work.a]
    alone += [Pairing(None, h, Tier.UNMATCHED) for h in work.b]
    return work.pairs + alone


def _order(holder: Holder) -> tuple[object, ...]:
    """The same on both sides and whichever side comes first: by code, then by size."""
    site = holder.site
    return (site.device, site.pool, site.label, site.lines, holder.largest, holder.size)


def _place(holder: Holder) -> tuple[int, str]:
    return holder.site.device, holder.site.pool


Rule = Callable[[list[Holder], list[Holder]], list[Pairing]]


class _Matching:
    """What is still alone on either side, and the pairs so far."""

    def __init__(self, a: list[Holder], b: list[Holder]) -> None:
        self.a, self.b = a, b
        self.pairs: list[Pairing] = []

    def each(
        self, key: Callable[[Holder], Hashable], rule: Rule, only: Callable[[Holder], bool]
    ) -> None:
        """Apply `rule` to what both sides have under one key."""
        left, right = _grouped(filter(only, self.a), key), _grouped(filter(only, self.b), key)
        for shared in left.keys() & right.keys():
            self.pairs += rule(left[shared], right[shared])
        paired_a = {id(pair.a) for pair in self.pairs}
        paired_b = {id(pair.b) for pair in self.pairs}
        self.a = [holder for holder in self.a if id(holder) not in paired_a]
        self.b = [holder for holder in self.b if id(holder) not in paired_b]


def _grouped(
    rows: Iterable[Holder], key: Callable[[Holder], Hashable]
) -> dict[Hashable, list[Holder]]:
    found: dict[Hashable, list[Holder]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def _same_stack(a: list[Holder], b: list[Holder]) -> list[Pairing]:
    """One label on both sides: by line where the lines agree, by the order of lines if not."""
    left, right = _grouped(a, lambda h: h.site.lines), _grouped(b, lambda h: h.site.lines)
    shared = sorted(left.keys() & right.keys(), key=str)
    pairs: list[Pairing] = []
    # One line in common of several may be chance once an edit has moved all of them.
    if 2 * len(shared) > min(len(left), len(right)):
        for lines in shared:
            pairs += _by_size(Tier.EXACT)(left.pop(lines), right.pop(lines))
    if len(left) == len(right):
        for own, other in zip(left.values(), right.values(), strict=True):
            pairs += _by_size(Tier.NORMALISED)(own, other)
        return pairs
    rest_a = [holder for group in left.values() for holder in group]
    rest_b = [holder for group in right.values() for holder in group]
    return pairs + _by_size(Tier.NORMALISED)(rest_a, rest_b)


def _by_size(tier: Tier) -> Rule:
    """Pair by size: in order where both have equally many (a shape that grew moves all of them),
    else equal classes first and the rest from the largest down."""

    def rule(a: list[Holder], b: list[Holder]) -> list[Pairing]:
        a, b = sorted(a, key=_by_largest), sorted(b, key=_by_largest)
        if len(a) == len(b):
            return [Pairing(x, y, tier) for x, y in zip(a, b, strict=True)]
        pairs: list[Pairing] = []
        waiting = _grouped(b, lambda h: h.size)
        rest_a: list[Holder] = []
        for holder in a:
            if waiting[holder.size]:
                pairs.append(Pairing(holder, waiting[holder.size].pop(0), tier))
            else:
                rest_a.append(holder)
        taken = {id(pair.b) for pair in pairs}
        rest_b = [holder for holder in b if id(holder) not in taken]
        rest = zip(reversed(rest_a), reversed(rest_b), strict=False)
        return pairs + [Pairing(x, y, tier) for x, y in rest]

    return rule


def _by_largest(holder: Holder) -> tuple[object, ...]:
    return (holder.largest, holder.site.lines, holder.site.label)
