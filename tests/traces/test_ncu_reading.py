"""What limits a kernel: the thresholds from both sides, and honesty where metrics are missing."""

from __future__ import annotations

from decimal import Decimal

import pytest

from common.traces.ncu import KernelLaunch, Metric, bound, metrics_of_interest, reading

PEAK = ".avg.pct_of_peak_sustained_elapsed"
SM, MEMORY, DRAM = (
    f"sm__throughput{PEAK}",
    f"gpu__compute_memory_throughput{PEAK}",
    f"gpu__dram_throughput{PEAK}",
)


def _launch(**metrics: float) -> KernelLaunch:
    named = {"sm": SM, "memory": MEMORY, "dram": DRAM}
    values = {
        named.get(name, name.replace("_dot_", ".")): Metric(Decimal(str(value)), "")
        for name, value in metrics.items()
    }
    return KernelLaunch(0, "f(int)", "f", values)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"sm": 20, "memory": 90, "dram": 90}, "memory"),
        ({"sm": 90, "memory": 20, "dram": 20}, "compute"),
        ({"sm": 59.9, "memory": 59.9}, "latency"),
        ({"sm": 50, "memory": 60}, "memory"),
        ({"sm": 50.1, "memory": 60}, "balanced"),
        ({"sm": 85, "memory": 90}, "balanced"),
        ({"sm": 20, "dram": 30}, "unknown"),  # the caches were not measured
        ({"sm": 20, "dram": 85}, "memory"),
        ({"sm": 85}, "compute"),
        ({"sm": 85, "dram": 85}, "balanced"),
        ({"sm": 79}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_bound(metrics: dict[str, float], expected: str) -> None:
    assert bound(metrics_of_interest(_launch(**metrics))) == expected


def test_a_saturated_cache_is_not_called_dram_bound() -> None:
    assert "in the caches, not in DRAM" in reading(_launch(sm=20, memory=95, dram=10))
    assert "in DRAM" in reading(_launch(sm=20, memory=95, dram=94))
    assert "Memory-bound (" in reading(_launch(sm=20, memory=95))


def test_nothing_collected_is_said() -> None:
    assert reading(_launch()) == (
        "Cannot tell what limits it: nothing collected; occupancy not collected; "
        "spills not collected."
    )


def _limits(**limits: float) -> KernelLaunch:
    return _launch(**{f"launch__occupancy_limit_{name}": value for name, value in limits.items()})


def test_the_smallest_limit_is_the_limiter_and_ties_are_all_named() -> None:
    one = _limits(registers=2, shared_mem=3, blocks=16, warps=6)
    assert metrics_of_interest(one).occupancy_limiter == ("registers",)
    tie = _limits(registers=3, shared_mem=3, blocks=16, warps=6)
    assert metrics_of_interest(tie).occupancy_limiter == ("registers", "shared memory")
    assert metrics_of_interest(_launch()).occupancy_limiter is None


def test_full_occupancy_has_no_limiter() -> None:
    launch = _launch(
        sm__maximum_warps_per_active_cycle_pct=100, launch__occupancy_limit_registers=8
    )
    assert metrics_of_interest(launch).occupancy_limiter == ()


def test_spills_are_told_from_local_memory() -> None:
    spills = _launch(
        sass__inst_executed_register_spilling_op_read=3000,
        sass__inst_executed_register_spilling_op_write=0,
        sass__inst_executed_local_loads=9000,
    )
    assert reading(spills).endswith("register spills: 3,000 loads, 0 stores.")
    local = _launch(sass__inst_executed_local_loads=5, sass__inst_executed_local_stores=7)
    assert "(spills, or arrays indexed at run time)" in reading(local)
    none = _launch(sass__inst_executed_local_loads=0, sass__inst_executed_local_stores=0)
    assert reading(none).endswith("no register spills.")
    half = _launch(sass__inst_executed_local_loads=0)
    assert "unknown stores" in reading(half)


def test_sectors_stand_in_for_bytes_and_zero_is_not_missing() -> None:
    assert metrics_of_interest(_launch(dram__sectors_read_dot_sum=2)).dram_read_bytes == 64
    both = _launch(dram__bytes_read_dot_sum=0, dram__sectors_read_dot_sum=2)
    assert metrics_of_interest(both).dram_read_bytes == 0


def test_a_grid_smaller_than_the_gpu_is_named() -> None:
    small = _launch(sm=5, memory=5, launch__waves_per_multiprocessor=0.25)
    assert "the grid fills only 25 % of the GPU" in reading(small)
    full = _launch(sm=5, memory=5, launch__waves_per_multiprocessor=1)
    assert "no unit is busy enough" in reading(full)
