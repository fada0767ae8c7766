"""How many blocks of a kernel fit on one SM, and what keeps more of them out?

Theoretical occupancy from what the compiler says: registers, shared memory and warps of a block.
The rules are those of NVIDIA's occupancy calculator (`cuda_occupancy.h`, CUDA 12.9): registers are
given out per warp in units of 256 within each of four partitions, shared memory per block in units
with what the driver takes. Limits per SM: CUDA C++ Programming Guide, "Technical Specifications
per Compute Capability".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import UsageError

WARP = 32
PARTITIONS = 4  # of an SM, each with its own registers
REGISTER_UNIT = 256  # registers of a warp are rounded up to this
LARGEST_BLOCK = 1024


@dataclass(frozen=True)
class SmLimits:
    """What one SM of a compute capability has."""

    warps: int
    blocks: int
    shared_bytes: int  # the largest carve-out
    shared_bytes_per_block: int  # the most that one block may ask for (opt-in)
    driver_bytes: int  # of shared memory that the driver takes for each block
    shared_unit: int
    registers: int = 65536


KIB = 1024
SM_LIMITS: Mapping[str, SmLimits] = {
    "7.5": SmLimits(32, 16, 64 * KIB, 64 * KIB, 0, 256),
    "8.0": SmLimits(64, 32, 164 * KIB, 163 * KIB, KIB, 128),
    "8.6": SmLimits(48, 16, 100 * KIB, 99 * KIB, KIB, 128),
    "8.9": SmLimits(48, 24, 100 * KIB, 99 * KIB, KIB, 128),
    "9.0": SmLimits(64, 32, 228 * KIB, 227 * KIB, KIB, 128),
    "10.0": SmLimits(64, 32, 228 * KIB, 227 * KIB, KIB, 128),
    "12.0": SmLimits(48, 24, 100 * KIB, 99 * KIB, KIB, 128),
}


@dataclass(frozen=True)
class Occupancy:
    """`blocks_by` is what each resource alone would allow; the smallest of them is `blocks`."""

    blocks: int
    warps: int
    share: float  # of the SM's warps, 0-1
    limiter: tuple[str, ...]  # every resource that allows no more; () where all warps are used
    blocks_by: Mapping[str, int]

    @property
    def can_launch(self) -> bool:
        return self.blocks > 0


def sm_limits(capability: str) -> SmLimits:
    """The limits of "8.9" and so on. Raises UsageError for one that is not in the table."""
    found = SM_LIMITS.get(capability)
    if found is None:
        raise UsageError(
            f"no SM limits for compute capability {capability}; there are "
            f"{', '.join(SM_LIMITS)}, add it to common/floors/occupancy.py"
        )
    return found


def occupancy(
    capability: str,
    threads: int,
    registers: int,
    shared_bytes: int,
    carve_out_bytes: int | None = None,
) -> Occupancy:
    """Blocks per SM of a kernel with `threads` per block and `registers` per thread.

    `shared_bytes` is static and dynamic shared memory of a block without the driver's part.
    `carve_out_bytes` is the shared memory that the driver chose for the launch; None: the largest,
    which the driver chooses where it helps. A block that asks for more than any may have fits 0
    times, and so does one whose registers do not fit. Raises UsageError for an impossible block.
    """
    if not 0 < threads <= LARGEST_BLOCK or registers < 0 or shared_bytes < 0:
        raise UsageError(
            f"a block of {threads} threads, {registers} registers and {shared_bytes} bytes is "
            f"none; give 1 to {LARGEST_BLOCK} threads and nothing negative"
        )
    sm = sm_limits(capability)
    warps = math.ceil(threads / WARP)
    by = {
        "blocks": sm.blocks,
        "warps": sm.warps // warps,
        "registers": _by_registers(sm, warps, registers),
        "shared memory": _by_shared(sm, shared_bytes, carve_out_bytes),
    }
    blocks = min(by.values())
    used = blocks * warps
    full = used == sm.warps
    limiter = () if full else tuple(name for name, limit in by.items() if limit == blocks)
    return Occupancy(blocks, used, used / sm.warps, limiter, by)


def _by_registers(sm: SmLimits, warps: int, registers: int) -> int:
    if registers == 0:
        return sm.blocks
    per_warp = _up(registers * WARP, REGISTER_UNIT)
    warps_that_fit = sm.registers // PARTITIONS // per_warp * PARTITIONS
    # One block must fit with its warps spread evenly, whole warps to each partition.
    if _up(warps, PARTITIONS) > warps_that_fit:
        return 0
    return warps_that_fit // warps


def _by_shared(sm: SmLimits, shared_bytes: int, carve_out_bytes: int | None) -> int:
    if shared_bytes > sm.shared_bytes_per_block:
        return 0
    taken = _up(shared_bytes + sm.driver_bytes, sm.shared_unit)
    available = sm.shared_bytes if carve_out_bytes is None else carve_out_bytes
    return sm.blocks if taken == 0 else available // taken


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


@dataclass(frozen=True)
class Waves:
    """How a grid fills the GPU. `full` waves and a last one that is `tail` full (0: none left)."""

    count: float
    full: int
    tail: float


def waves(grid_blocks: int, sm_count: int, blocks_per_sm: int) -> Waves:
    """Waves of a grid: blocks over what runs at once. Raises UsageError where nothing can run."""
    at_once = sm_count * blocks_per_sm
    if grid_blocks < 1 or at_once < 1:
        raise UsageError(
            f"{grid_blocks} blocks on {sm_count} SMs with {blocks_per_sm} each make no wave; "
            "give a grid and a kernel that can launch"
        )
    full, rest = divmod(grid_blocks, at_once)
    return Waves(grid_blocks / at_once, full, rest / at_once)
