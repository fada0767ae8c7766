"""What must be true of the allocator's model after every call, whatever the calls were."""

from __future__ import annotations

from itertools import pairwise

from common.allocator.blocks import Block
from common.allocator.driver import SimulatedDriver
from common.allocator.model import CachingAllocator


def stretches(allocator: CachingAllocator) -> list[list[Block]]:
    """The blocks of each stretch of mapped memory, by address."""
    out: list[list[Block]] = []
    for first in allocator.first_blocks():
        blocks: list[Block] = []
        at: Block | None = first
        while at is not None and at.mapped:
            blocks.append(at)
            at = at.next
        out.append(blocks)
    return out


def check(allocator: CachingAllocator, other_bytes: int = 0) -> None:
    """No overlap, every byte in one block, neighbours joined, lists and counters true."""
    blocks = [block for stretch in stretches(allocator) for block in stretch]
    for left, right in pairwise(blocks):
        assert left.address + left.size <= right.address, "blocks overlap"
    for stretch in stretches(allocator):
        for left, right in pairwise(stretch):
            assert left.address + left.size == right.address and right.previous is left
            assert left.in_use or right.in_use, "two free neighbours were not joined"
    assert all(block.size % 512 == 0 and block.size > 0 for block in blocks)
    assert {b.address for b in blocks if b.allocated} == set(allocator.live)
    listed: list[Block] = []
    for pool in allocator.pools:
        for small in (True, False):
            for home in pool.lists(small):
                keys = [(entry[0], entry[1]) for entry in home.entries]
                assert keys == sorted(set(keys))
                for size, address, block in home.entries:
                    assert (block.size, block.address, block.home) == (size, address, home)
                    listed.append(block)
    assert sorted(map(id, listed)) == sorted(id(b) for b in blocks if not b.in_use)
    for name in ("allocated", "active", "reserved", "requested"):
        total = getattr(allocator.counters, name)
        scopes = [c for pool in allocator.pools for c in pool.counters.values()]
        assert total == sum(getattr(counters, name) for counters in scopes)
        assert total <= getattr(allocator.counters, f"peak_{name}")
        assert all(0 <= getattr(c, name) <= getattr(c, f"peak_{name}") for c in scopes)
    assert allocator.counters.reserved == sum(block.size for block in blocks)
    assert allocator.counters.allocated == sum(b.size for b in blocks if b.allocated)
    assert allocator.counters.active == sum(b.size for b in blocks if b.in_use)
    assert allocator.counters.requested == sum(b.requested for b in blocks if b.in_use)
    driver = allocator.driver
    assert isinstance(driver, SimulatedDriver)
    assert driver.total_bytes - driver.free_bytes == allocator.counters.reserved + other_bytes
