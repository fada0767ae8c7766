"""Does the roofline give the times and bounds that can be computed by hand?"""

from __future__ import annotations

import math

import pytest

from common.errors import UsageError
from common.floors.roofline import Floor, share_of_floor, time_floor_ns


def test_bytes_over_bandwidth_is_the_memory_floor() -> None:
    assert time_floor_ns(4.8e12, 0, 4800, 989.5) == Floor(1e9, "memory")


def test_operations_over_rate_is_the_compute_floor() -> None:
    floor = time_floor_ns(1, 989.5e12, 4800, 989.5)
    assert floor.time_ns == pytest.approx(1e9)
    assert floor.bound == "compute"


def test_the_larger_of_both_binds_and_a_tie_is_memory() -> None:
    # At 1 GB/s and 1 TFLOP/s a byte takes as long as 1000 operations.
    assert time_floor_ns(10, 9_999, 1, 1).bound == "memory"
    assert time_floor_ns(10, 10_000, 1, 1) == Floor(10, "memory")
    assert time_floor_ns(10, 10_001, 1, 1).bound == "compute"


def test_an_unknown_rate_leaves_the_memory_floor() -> None:
    assert time_floor_ns(100, 1e30, 2, None) == Floor(50, "memory")


def test_a_published_decode_rate_reaches_nine_tenths_of_its_floor() -> None:
    """8B in bfloat16 on an RTX 5090: 105.73 tokens per second published."""
    floor = time_floor_ns(2 * 7.505e9, 2 * 7.505e9, 1792, 209.5)
    assert floor.bound == "memory"
    assert share_of_floor(1e9 / 105.73, floor) == pytest.approx(0.886, abs=0.001)


def test_a_measurement_below_its_floor_is_not_hidden() -> None:
    assert share_of_floor(50, Floor(100, "memory")) == 2.0


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_a_speed_that_is_not_positive_and_finite_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="bandwidth_gb_per_s"):
        time_floor_ns(1, 1, bad, 1)
    with pytest.raises(UsageError, match="rate_tflop_per_s"):
        time_floor_ns(1, 1, 1, bad)
    with pytest.raises(UsageError, match="measured_ns"):
        share_of_floor(bad, Floor(1, "memory"))


def test_negative_work_is_refused() -> None:
    with pytest.raises(UsageError, match="bytes_moved"):
        time_floor_ns(-1, 0, 1, 1)
    with pytest.raises(UsageError, match="flops"):
        time_floor_ns(0, -1, 1, 1)
