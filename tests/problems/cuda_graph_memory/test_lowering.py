"""Inductor's program for a GPU that is not there: lowered, run, and what it then asks for."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from problems.cuda_graph_memory.lowering import interpolated, lower_forward
from problems.cuda_graph_memory.plain_programs import PRODUCT, Forward

WIDTH = 512
PRESET: dict[str, Any] = {"model": "stack", "width": WIDTH, "layers": 3}
WEIGHT = 2 * WIDTH * WIDTH


@pytest.fixture(scope="module")
def lowered(with_triton: ProcessPoolExecutor) -> dict[tuple[str, int], Forward]:
    wanted = [("int8wo", 2), ("int8wo", 8), ("int8wo", 32), ("int8wo-fused", 8)]
    asked = {(k, size): with_triton.submit(lower_forward, k, size, PRESET) for k, size in wanted}
    return {key: found.result()[0] for key, found in asked.items()}


def test_one_weight_is_made_and_used_again_by_every_layer(
    lowered: dict[tuple[str, int], Forward],
) -> None:
    """One dequantised weight and two activations: the streamed order, with Inductor's own reuse."""
    found = lowered["int8wo", 8]
    sizes = sorted(step.size for step in found.steps if step.size)
    activation = 2 * 8 * WIDTH
    assert sizes == [activation, activation, WEIGHT]
    assert found.peak_bytes == WEIGHT + 2 * activation
    assert found.kernels == 6  # a dequantisation and a product per layer
    assert sum(step.operator == PRODUCT for step in found.steps) == 3
    assert len(found.outputs) == 1


def test_the_fused_kernel_makes_no_weight(lowered: dict[tuple[str, int], Forward]) -> None:
    found = lowered["int8wo-fused", 8]
    assert max(step.size or 0 for step in found.steps) == 2 * 8 * WIDTH
    assert found.kernels == 3


def test_a_size_between_is_the_program_that_inductor_writes_for_it(
    lowered: dict[tuple[str, int], Forward],
) -> None:
    low, high = lowered["int8wo", 2], lowered["int8wo", 32]
    between = interpolated(low, 2, high, 32, 8)
    real = lowered["int8wo", 8]
    assert between is not None

    def shape(found: Forward) -> list[tuple[int | None, str]]:
        return [(step.size, step.operator) for step in found.steps]

    assert shape(between) == shape(real)
    assert (between.kernels, between.input_bytes) == (real.kernels, real.input_bytes)


def test_two_programs_are_not_taken_for_one(lowered: dict[tuple[str, int], Forward]) -> None:
    low, high = lowered["int8wo", 2], lowered["int8wo", 32]
    assert interpolated(low, 2, lowered["int8wo-fused", 8], 8, 4) is None
    assert interpolated(low, 2, replace(high, kernels=7), 32, 8) is None
    odd = replace(high, steps=tuple(replace(s, size=s.size and s.size + 1) for s in high.steps))
    assert interpolated(low, 2, odd, 32, 8) is None  # bytes that no line goes through
