"""A model that runs on a pretended GPU asks for the memory that the same model really asks for."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.allocator.driver import SimulatedDriver
from common.allocator.model import CachingAllocator
from common.allocator.snapshot_file import write_snapshot
from common.allocator.steps import Step, run
from common.traces.memory_live import group_live
from common.traces.memory_snapshot import read_memory_snapshot
from common.workloads.allocation_tracer import (
    AllocationTracer,
    build_fake,
    pretended_gpu,
    trace_llama,
)
from common.workloads.llama import CONFIGS
from common.workloads.weights import build_random, parameter_counts

TINY = CONFIGS["tiny"]


def _balance(steps: list[Step]) -> dict[object, int]:
    """What is held at the end, by name; fails on a step that cannot be."""
    held: dict[object, int] = {}
    for step in steps:
        if step.size is None:
            assert step.name in held
            del held[step.name]
        else:
            assert step.name not in held and step.size > 0
            held[step.name] = step.size
    return held


def _shape(steps: list[Step]) -> list[tuple[str, int | None]]:
    """Operators and sizes in order, without the names of storages."""
    return [(step.operator, step.size) for step in steps]


@pytest.mark.parametrize("tokens", [1, 16])
def test_a_pretended_forward_allocates_what_a_real_one_does(tokens: int) -> None:
    """The same code on real CPU tensors: same operators, same bytes, freed in the same order.

    Both use the attention of plain operators.
    """
    model = build_random(TINY, torch.device("cpu"), dtype=torch.bfloat16)
    real = AllocationTracer("cpu", known=[*model.parameters(), *model.buffers()])
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), real:
        inputs = torch.zeros(tokens, dtype=torch.int64), torch.arange(tokens)
        logits = model(*inputs)
        del inputs
        seen = list(real.steps)
    del logits
    with pretended_gpu() as gpu:
        pretended = build_fake(TINY, torch.bfloat16)
        before = len(gpu.steps)
        zeros = torch.zeros(tokens, dtype=torch.int64, device="cuda:0")
        inputs = zeros, torch.arange(tokens, device="cuda:0")
        del zeros
        logits = pretended(*inputs)
        del inputs
        fake = list(gpu.steps[before:])
    del logits
    assert _shape(fake) == _shape(seen)


def test_the_weights_take_their_bytes() -> None:
    steps = trace_llama(TINY, prompt_tokens=4, decode_steps=0)
    loaded = [step for step in steps if step.phase == "load" and step.size]
    weights = parameter_counts(TINY)["total"] * 2
    caches = TINY.layers * 2 * TINY.kv_heads * TINY.max_positions * TINY.head_dim * 2
    rope = TINY.head_dim // 2 * 4
    assert sum(step.size or 0 for step in loaded) == weights + caches + rope


def test_tied_embeddings_are_one_storage() -> None:
    from dataclasses import replace

    tied = trace_llama(replace(TINY, tied_embeddings=True), 4, 0)
    plain = trace_llama(TINY, 4, 0)
    difference = sum(_balance(plain).values()) - sum(_balance(tied).values())
    assert difference == TINY.vocab * TINY.dim * 2


def test_phases_follow_one_another_and_nothing_leaks() -> None:
    steps = trace_llama(TINY, prompt_tokens=8, decode_steps=3)
    order = list(dict.fromkeys(step.phase for step in steps))
    assert order == ["load", "prefill", "decode 0", "decode 1", "decode 2"]
    by_phase = {p: [s for s in steps if s.phase == p] for p in order}
    assert _shape(by_phase["decode 1"]) == _shape(by_phase["decode 2"])
    held = _balance(steps)
    weights = _balance(by_phase["load"])
    assert set(held) - set(weights) == {name for name in held if held[name] == 8}
    assert len(set(held) - set(weights)) == 1  # the last token
    again = trace_llama(TINY, prompt_tokens=8, decode_steps=3)
    assert _shape(again) == _shape(steps)


def test_prefill_grows_with_the_prompt_and_decode_does_not() -> None:
    def peak(tokens: int, phase: str) -> int:
        level = highest = 0
        for step in trace_llama(TINY, tokens, 1):
            if step.phase == phase:
                size = step.size if step.size is not None else -sizes[step.name]
                level += size
                highest = max(highest, level)
            if step.size is not None:
                sizes[step.name] = step.size
        return highest

    sizes: dict[object, int] = {}
    assert peak(32, "prefill") > peak(8, "prefill")
    assert peak(32, "decode 0") == peak(8, "decode 0")


class WeightOnly(nn.Module):
    """A linear layer of int8 weights that are made whole before the product: not fused."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        out, columns = linear.weight.shape
        like = {"device": linear.weight.device}
        self.register_buffer("weight", torch.empty(out, columns, dtype=torch.int8, **like))
        self.register_buffer("scale", torch.empty(out, 1, dtype=linear.weight.dtype, **like))

    weight: torch.Tensor
    scale: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale)


def quantise(module: nn.Module) -> None:
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                setattr(part, name, WeightOnly(child))


def test_a_quantised_model_is_smaller_and_makes_its_weights_anew_in_each_step() -> None:
    plain, small = trace_llama(TINY, 4, 1), trace_llama(TINY, 4, 1, after_module=quantise)
    assert sum(_balance(small).values()) < 0.75 * sum(_balance(plain).values())
    whole = TINY.mlp_dim * TINY.dim * 2
    made = Counter(s.operator for s in small if s.size == whole and s.phase == "decode 0")
    # Per MLP weight the converted and the scaled one; none of them in the unquantised model.
    assert made == {"aten._to_copy.default": 3 * TINY.layers, "aten.mul.Tensor": 3 * TINY.layers}
    assert not [s for s in plain if s.size == whole and s.phase == "decode 0"]


def test_an_unfused_stack_holds_two_whole_weights_at_a_time() -> None:
    """8 x (4096 x 4096 int8): the converted and the scaled weight, 32 MiB each, and activations."""
    mib, rows = 1 << 20, 16
    with pretended_gpu() as gpu:
        plain = nn.Linear(4096, 4096, bias=False, device="cuda:0", dtype=torch.bfloat16)
        with gpu.phase("load"):
            stack = nn.Sequential(*(WeightOnly(plain) for _ in range(8)))
            x = torch.empty(rows, 4096, device="cuda:0", dtype=torch.bfloat16)
        with gpu.phase("forward"):
            out = stack(x)
        steps = list(gpu.steps)
        del out, x
    sizes = {step.name: step.size for step in steps if step.size is not None}
    scales = 8 * 4096 * 2
    loaded = sum(step.size or 0 for step in steps if step.phase == "load")
    assert loaded == 8 * 16 * mib + scales + rows * 4096 * 2
    level = highest = 0
    for step in steps:
        if step.phase == "forward":
            level += step.size if step.size is not None else -(sizes[step.name] or 0)
            highest = max(highest, level)
    # Beside the two weights the output of the layer before; the layer's own comes when the
    # converted weight is gone.
    assert highest == 64 * mib + rows * 4096 * 2


def test_the_capability_is_what_code_is_told() -> None:
    with pretended_gpu((8, 9)):
        assert torch.cuda.is_available() and torch.cuda.get_device_capability() == (8, 9)
        assert torch.cuda.get_device_capability("cuda:0") == (8, 9)
    assert not torch.cuda.is_available()


def test_indexing_by_views_is_the_indexing_of_torch() -> None:
    keys = [(None, 1), (slice(1, 3), None), (..., 0), (0, ..., None), (slice(None, None, 2),)]
    keys += [(-1, slice(-2, None)), (slice(None), 1, slice(0, 2)), (..., None, slice(1, 2))]
    real = torch.arange(4 * 5 * 6).view(4, 5, 6)
    with pretended_gpu() as gpu:
        fake = torch.empty(4, 5, 6, device="cuda:0")
        before = len(gpu.steps)
        for key in keys:
            expected, found = real[key], fake[key]
            assert (found.shape, found.stride()) == (expected.shape, expected.stride())
            assert found.storage_offset() == expected.storage_offset()
        assert len(gpu.steps) == before


def _in_place(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
    """Methods that look for the device before they call an operator."""
    x.copy_(y)
    x[0] = y[1]
    x[1:3] = 2.0
    x[:, rows] = y[:, :2]
    x[rows]
    x.uniform_(0, 1)
    return [x.t().contiguous(), x.contiguous(), x[:, rows]]


def test_methods_that_look_for_a_device_allocate_as_on_a_real_one() -> None:
    """The CPU's own are the measure: same sizes in the same order."""
    real = AllocationTracer("cpu")
    with torch.no_grad(), real:
        x, y = torch.empty(4, 4), torch.empty(4, 4)
        kept = _in_place(x, y, torch.zeros(2, dtype=torch.int64))
        sizes = [step.size for step in real.steps]
    with pretended_gpu() as gpu:
        x, y = torch.empty(4, 4, device="cuda"), torch.empty(4, 4, device="cuda")
        kept += _in_place(x, y, torch.zeros(2, dtype=torch.int64, device="cuda"))
        fake = [step.size for step in gpu.steps]
    sizes.remove(4)  # the number that is written to rows: on a GPU it is an argument of a kernel
    sizes.remove(None)
    assert fake == sizes


def test_every_way_to_the_device_is_understood() -> None:
    with pretended_gpu() as gpu:
        made = [
            torch.empty(3, device="cuda"),
            torch.empty(3, device=torch.device("cuda")),
            torch.empty(3).cuda(),
            torch.empty(3).to("cuda"),
            torch.tensor([1.0, 2.0, 3.0], device="cuda"),
        ]
        assert {str(tensor.device) for tensor in made} == {"cuda:0"}
        assert [step.size for step in gpu.steps] == [12] * 5
        assert torch.tensor([1.0]).device.type == "cpu"


def test_frames_and_phases_reach_a_snapshot(tmp_path: Path) -> None:
    """Tracer, allocator's model, snapshot, reader: who holds the peak, by operator and code."""
    steps = trace_llama(TINY, prompt_tokens=16, decode_steps=1)
    allocator = CachingAllocator(SimulatedDriver(1 << 34))
    run(steps, allocator)
    found = read_memory_snapshot(write_snapshot(tmp_path / "a.pickle", allocator))
    assert found.warnings == ()
    assert found.replays[0].allocated.end == sum(_balance(steps).values())
    groups = {group.key[0]: group.bytes for group in group_live(found.live_at(), ("stack",))}
    assert sum(groups.values()) == found.replays[0].allocated.peak
    assert any("llama.py:forward" in key for key in groups)
    operators = {group.key[0] for group in group_live(found.live_at(), ("operator",))}
    assert "aten::empty" in operators and not any("fake" in name for name in operators)
    files = {str(row["filename"]) for step in steps for row in step.frames or ()}
    assert not any(name.startswith("/") for name in files), "paths name people and machines"
    assert {entry[7] for entry in allocator.history} >= {"load", "prefill", "decode 0"}


@pytest.mark.slow
def test_llama_8b_is_traced_within_a_minute_and_3_gib() -> None:
    """In a process of its own: CPU seconds and the highest resident memory, torch included."""
    code = """
import time
from common.memory import peak_resident_bytes
from common.workloads.llama import CONFIGS
from common.workloads.allocation_tracer import trace_llama
start = time.process_time()
steps = trace_llama(CONFIGS["llama-3.1-8b"], prompt_tokens=512, decode_steps=2)
cost = time.process_time() - start
print(cost, peak_resident_bytes(), sum(s.size or 0 for s in steps if s.phase == "load"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cost, peak, loaded = map(float, done.stdout.split())
    assert cost <= 60 and peak <= 3 << 30
    assert loaded > 16e9
