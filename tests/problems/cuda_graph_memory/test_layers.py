"""Quantised layers: right on real numbers, and of the memory that they are said to take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.allocator.steps import Step
from common.floors.traffic import peak_temporary_bytes
from common.workloads.allocation_tracer import pretended_gpu
from problems.cuda_graph_memory.layers import KINDS, Kind, quantise
from problems.cuda_graph_memory.plain_programs import Forward, Program
from problems.cuda_graph_memory.programs import call, llama_config, trace_llama_program
from problems.cuda_graph_memory.published import benchmark_peak

WIDTH = 256


def _layer(dtype: torch.dtype = torch.bfloat16) -> tuple[nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(1)
    linear = nn.Linear(WIDTH, WIDTH, bias=False).to(dtype).requires_grad_(False)
    spread = torch.randn(WIDTH, 1, generator=generator).exp()
    weight = torch.randn(WIDTH, WIDTH, generator=generator) * spread / WIDTH**0.5
    linear.weight.data = weight.to(dtype)
    return linear, torch.randn(4, WIDTH, generator=generator).to(dtype)


@pytest.mark.parametrize("kind", ["int8wo", "int8wo-fused", "float8wo", "float8wo-0.13.0"])
def test_the_product_is_that_of_the_weight(kind: Kind) -> None:
    """Within the rounding of one byte per weight; a scale of the wrong row is far outside."""
    linear, x = _layer()
    expected = linear(x).float()
    module = quantise(linear, kind)

    def error() -> float:
        return float((module(x).float() - expected).norm() / expected.norm())

    assert error() < 0.04
    scale = module.get_buffer("scale")
    scale.copy_(scale.roll(1, dims=0))
    assert error() > 0.2


def test_fused_and_unfused_int8_are_the_same_numbers() -> None:
    linear, x = _layer()
    fused, unfused = quantise(linear, "int8wo-fused")(x), quantise(linear, "int8wo")(x)
    assert torch.allclose(fused.float(), unfused.float(), rtol=0.02, atol=0.02)


def _peak(kind: Kind) -> int:
    with pretended_gpu() as gpu:
        plain = nn.Linear(WIDTH, WIDTH, bias=False, device="cuda:0", dtype=torch.bfloat16)
        model = quantise(plain, kind)
        x = torch.empty(16, WIDTH, device="cuda:0", dtype=torch.bfloat16)
        found = call(gpu, model, (x,), "forward")
    return found.peak_bytes


def test_temporaries_are_those_counted_from_the_real_library() -> None:
    """Bytes per element as profiled of torchao 0.13.0 and 0.14.1 on a CPU (common/floors)."""
    elements = WIDTH * WIDTH
    assert _peak("float8wo-0.13.0") == peak_temporary_bytes("float8-0.13.0-eager", elements)
    assert _peak("float8wo") == peak_temporary_bytes("float8-0.14.1-eager", elements)
    assert _peak("int8wo") == 2 * 2 * elements
    output = 16 * WIDTH * 2
    assert _peak("bf16") == _peak("int8wo-fused") == output
    assert _peak("float8dq") < 16 * output  # activations only


def test_quantised_weights_are_one_byte_and_every_kind_runs_in_the_llama() -> None:
    config = llama_config("tiny", 1)
    held = {}
    for kind in KINDS:
        program = trace_llama_program(config, kind, (1, 4), 8)
        freed = {step.name for step in program.load if step.size is None}
        held[kind] = sum(s.size for s in program.load if s.size and s.name not in freed)
        assert program.eager[1].outputs and program.eager[4].kernels > 20
    linears = 512 * (512 + 512 + 128 + 128) + 3 * 512 * 1536 + 512 * 2048
    for kind in KINDS[1:]:
        # One byte less per weight, and scales.
        assert 0 < held["bf16"] - held[kind] <= linears
        assert held["bf16"] - held[kind] > 0.97 * linears


def test_the_benchmarks_order_of_events_counts_the_spike_twice() -> None:
    """40 MB loaded; a call needs 100 MB for a moment: once in the pool, once in prefill."""
    mb = 2 << 20  # a multiple of segments, so that nothing is rounded
    spike = Forward((Step("t", 50 * mb, "", "aten.mm.default"), Step("t", None)), 1, (8,))
    program = Program("bf16", (Step("w", 20 * mb),), spike, {1: spike})
    found = benchmark_peak(program, "8B", tied=False)
    assert found.weights_active_bytes == 20 * mb
    assert found.private_bytes == 50 * mb + 20 * (1 << 20)  # and the workspace's segment
    # The eager call's 100 MB, and the workspace that its stream keeps.
    assert found.prefill_spike_bytes == 50 * mb
    assert found.loaded_reserved_bytes == 20 * mb + 20 * (1 << 20)
