"""How fast could this possibly be, given bytes to move and operations to do?

The roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009): a kernel needs at least the
time to move its bytes at full bandwidth, and at least the time to do its operations at full rate;
the larger one binds. The result is a bound, not a forecast: launches, latency and what cannot
overlap come on top. It is worth what its inputs are worth, so pass bytes that were counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from common.errors import UsageError

Bound = Literal["memory", "compute"]


@dataclass(frozen=True)
class Floor:
    """The least time in nanoseconds, and which resource sets it."""

    time_ns: float
    bound: Bound


def time_floor_ns(
    bytes_moved: float,
    flops: float,
    bandwidth_gb_per_s: float,
    rate_tflop_per_s: float | None,
) -> Floor:
    """The least time in which `bytes_moved` can be moved and `flops` be done.

    `bandwidth_gb_per_s` is in 10^9 bytes per second, `rate_tflop_per_s` in 10^12 operations per
    second (a fused multiply-add counts two). A rate of None means unknown: then only the bytes
    bound the time, which is still a floor. On a tie the bound is "memory". Raises UsageError for
    negative work, for a speed that is not positive, and for anything that is not finite.
    """
    _check("bytes_moved", bytes_moved, may_be_zero=True)
    _check("flops", flops, may_be_zero=True)
    _check("bandwidth_gb_per_s", bandwidth_gb_per_s)
    memory_ns = bytes_moved / bandwidth_gb_per_s  # 1 GB/s is 1 byte per nanosecond
    if rate_tflop_per_s is None:
        return Floor(memory_ns, "memory")
    _check("rate_tflop_per_s", rate_tflop_per_s)
    compute_ns = flops / (rate_tflop_per_s * 1e3)  # 1 TFLOP/s is 1000 operations per nanosecond
    return Floor(compute_ns, "compute") if compute_ns > memory_ns else Floor(memory_ns, "memory")


def share_of_floor(measured_ns: float, floor: Floor) -> float:
    """How close a measurement comes to its floor: 1.0 reaches it, 0.5 takes twice as long.

    A share above 1.0 is not clipped: it says that the floor's bytes or bandwidth are wrong (data
    served by a cache, work that was skipped), and that must be seen and explained.
    """
    _check("measured_ns", measured_ns)
    return floor.time_ns / measured_ns


def _check(name: str, value: float, may_be_zero: bool = False) -> None:
    if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
        least = "zero or more" if may_be_zero else "more than zero"
        raise UsageError(f"{name} is {value!r}; pass a finite number of {least}")
