"""A program for CUDA graphs that is small enough to work out by hand."""

from __future__ import annotations

from common.allocator.settings import MIB
from common.allocator.steps import Step
from problems.cuda_graph_memory.plain_programs import PRODUCT, Forward, Program

SIZES = (1, 2, 4, 8)


def forward(weight: int, size: int) -> Forward:
    """A dequantised weight of `weight` MiB and an output of 2 MiB per unit of size."""
    steps = [Step("out", 2 * size * MIB), Step("mark", 0, "", PRODUCT)]
    if weight:
        steps = [Step("weight", weight * MIB), *steps, Step("weight", None)]
    return Forward(tuple(steps), 2 if weight else 1, (8 * size,))


def program(weight: int = 64) -> Program:
    prefill = Forward((Step("p", 200 * MIB), Step("q", 12 * MIB), Step("p", None)), 3, (8 * 256,))
    forwards = {size: forward(weight, size) for size in SIZES}
    return Program("int8wo", (Step("w", 128 * MIB),), prefill, forwards, forwards)
