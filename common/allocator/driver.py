"""Where does the allocator's memory come from? A driver of limited capacity, exact and repeatable.

The model asks it for what the allocator asks of CUDA: cudaMalloc and cudaFree, or address ranges
with memory mapped into them piece by piece (cuMemAddressReserve, cuMemCreate + cuMemMap).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from common.errors import UsageError

FIRST_ADDRESS = 0x7F00_0000_0000
ALIGNMENT_BYTES = 2 << 20  # of every segment of the recorded snapshots (tests/allocator)


class Driver(Protocol):
    """What the allocator needs of a device."""

    @property
    def total_bytes(self) -> int:
        """The device's memory (cudaMemGetInfo)."""

    @property
    def free_bytes(self) -> int:
        """What is left of it (cudaMemGetInfo)."""

    def malloc(self, size: int) -> int | None:
        """The address of `size` new bytes, None when there are not that many (cudaMalloc)."""

    def free(self, address: int) -> None:
        """Give back what `malloc` gave (cudaFree)."""

    def reserve(self, size: int) -> int:
        """An address range without memory (cuMemAddressReserve)."""

    def map(self, size: int) -> bool:
        """Memory for a part of a reserved range, False when there is none (cuMemMap)."""

    def unmap(self, size: int) -> None:
        """Give mapped memory back (cuMemUnmap, cuMemRelease)."""


class SimulatedDriver:
    """Ascending addresses, never used twice: equal streams of calls give equal addresses.

    `other_bytes` is what others hold of the capacity: the CUDA context, graph executables, other
    processes. A real driver reuses addresses; nothing in the allocator depends on that.
    """

    def __init__(self, capacity_bytes: int, other_bytes: int = 0) -> None:
        if capacity_bytes <= 0 or not 0 <= other_bytes <= capacity_bytes:
            raise UsageError(
                f"a device of {capacity_bytes} bytes with {other_bytes} taken by others cannot be; "
                "give a positive capacity, and others no more than it"
            )
        self._capacity = capacity_bytes
        self._next = FIRST_ADDRESS
        self._sizes: dict[int, int] = {}
        self._used = other_bytes

    @property
    def total_bytes(self) -> int:
        return self._capacity

    @property
    def free_bytes(self) -> int:
        return self._capacity - self._used

    def malloc(self, size: int) -> int | None:
        if self._used + size > self._capacity:
            return None
        self._used += size
        address = self.reserve(size)
        self._sizes[address] = size
        return address

    def free(self, address: int) -> None:
        self._used -= self._sizes.pop(address)

    def reserve(self, size: int) -> int:
        address = self._next
        self._next += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return address

    def map(self, size: int) -> bool:
        if self._used + size > self._capacity:
            return False
        self._used += size
        return True

    def unmap(self, size: int) -> None:
        self._used -= size


class RecordedDriver(SimulatedDriver):
    """Gives the addresses that a recorded run got, in its order: of segments, and (`reserved`) of
    the ranges that segments grow in.

    What the model asks for must be what the run asked for: `unexpected` counts the requests that
    the recording does not have at this place; they get addresses of their own.
    """

    def __init__(
        self,
        recorded: Iterable[tuple[int, int]],
        reserved: Iterable[int] = (),
        capacity_bytes: int = 1 << 40,
    ) -> None:
        super().__init__(capacity_bytes)
        self._recorded = list(recorded)
        self._reserved = list(reserved)[::-1]
        self._at = 0
        self.unexpected = 0

    def reserve(self, size: int) -> int:
        return self._reserved.pop() if self._reserved else super().reserve(size)

    def malloc(self, size: int) -> int | None:
        if self._at < len(self._recorded) and self._recorded[self._at][1] == size:
            address = self._recorded[self._at][0]
            self._at += 1
        else:
            self.unexpected += 1
            address = super().reserve(size)
        self._used += size
        self._sizes[address] = size
        return address

    def adopt(self, address: int, size: int) -> None:
        """A segment that was there before the recording began."""
        self._used += size
        self._sizes[address] = size

    def adopt_mapped(self, size: int) -> None:
        """Memory that was mapped before the recording began."""
        self._used += size
