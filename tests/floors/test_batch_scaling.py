"""Do the three turns, the fit and the floors give what can be checked by hand?"""

from __future__ import annotations

import pytest

from common.errors import UsageError
from common.floors.batch_scaling import (
    BatchPoint,
    Turns,
    fit_affine,
    gains_per_doubling,
    gathered_weight_bytes,
    touched_experts_floor,
    turns,
)

# The profiling exercise's own figures (no hardware is stated there).
EXERCISE = [
    BatchPoint(*pair)
    for pair in [(1, 15.5), (2, 16.1), (4, 18.2), (8, 25.3), (16, 40.1), (32, 75.8)]
]


def test_the_exercises_throughputs_are_batch_over_latency() -> None:
    printed = [64.5, 124.2, 219.8, 316.2, 399.0, 422.2]
    assert [round(p.samples_per_s, 1) for p in EXERCISE] == printed


def test_the_three_definitions_name_different_batches_on_the_same_curve() -> None:
    assert turns(EXERCISE) == Turns(knee=16, latency_wall=8, plateau=16)


def test_the_gain_of_each_doubling() -> None:
    assert [round(g, 2) for g in gains_per_doubling(EXERCISE)] == [1.93, 1.77, 1.44, 1.26, 1.06]


def test_an_affine_latency_has_an_asymptote_and_a_half_point() -> None:
    fit = fit_affine(EXERCISE)
    assert (round(fit.fixed_ms, 1), round(fit.per_sample_ms, 2)) == (11.2, 1.97)
    assert fit.most_samples_per_s == pytest.approx(508, abs=1)
    assert fit.half_batch == pytest.approx(5.7, abs=0.05)


def test_a_sweep_that_keeps_gaining_has_no_plateau_and_no_wall() -> None:
    free = [BatchPoint(b, 10.0) for b in (1, 2, 4, 8)]
    found = turns(free)
    assert (found.latency_wall, found.plateau) == (None, None)
    assert found.knee is None, "throughput doubles with each batch: it bends the other way"


def test_a_sweep_that_gains_nothing_is_flat_from_its_first_batch() -> None:
    flat = [BatchPoint(b, 10.0 * b) for b in (1, 2, 4)]
    assert turns(flat) == Turns(knee=None, latency_wall=2, plateau=1)


def test_steps_that_are_no_doublings_are_compared_per_doubling() -> None:
    quadrupled = [BatchPoint(1, 10), BatchPoint(4, 10), BatchPoint(16, 20)]
    assert gains_per_doubling(quadrupled) == pytest.approx([2.0, 2.0**0.5])


def test_the_floor_of_a_point_is_the_bytes_of_the_experts_that_it_touched() -> None:
    floor = touched_experts_floor([2, 5], 1e9, 100)
    assert floor.time_ns == pytest.approx(7e7)
    assert floor.bound == "memory"
    assert touched_experts_floor([2], 1e9, 100, flops=1e12, rate_tflop_per_s=1).bound == "compute"


@pytest.mark.parametrize(
    ("tokens", "without", "published"),
    [(16, 27333.27, 28387), (128, 27425.16, 35866), (512, 27691.78, 61520)],
)
def test_peak_memory_of_batched_mm_in_three_published_points(
    tokens: int, without: float, published: float
) -> None:
    """Hugging Face's docs-benchmarks/experts-backends, prefill: eager's peak plus the copies of the
    weights is batched_mm's, within 0.1 % (Qwen1.5-MoE-A2.7B's widths, by inference; MiB fits)."""
    copies = gathered_weight_bytes(tokens, 4, 2048, 1408, 2) / 2**20
    assert without + copies == pytest.approx(published, rel=0.001)


@pytest.mark.parametrize(
    "points",
    [
        EXERCISE[:2],
        [EXERCISE[1], EXERCISE[0], EXERCISE[2]],
        [BatchPoint(0, 1), *EXERCISE],
        [BatchPoint(1, 0.0), *EXERCISE[1:]],
        [BatchPoint(1, float("nan")), *EXERCISE[1:]],
    ],
)
def test_what_is_no_sweep_is_refused(points: list[BatchPoint]) -> None:
    with pytest.raises(UsageError, match=r"measure more|leave out"):
        turns(points)
    with pytest.raises(UsageError):
        gathered_weight_bytes(0, 1, 1, 1, 1)
    with pytest.raises(UsageError):
        touched_experts_floor([], 1, 1)
