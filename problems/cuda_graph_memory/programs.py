"""What does a model allocate, phase by phase? Its steps, traced on a pretended GPU, as plain data.

The model is the Llama of `common/workloads` at the published widths, with the layers that the
preset says, or a stack of linear layers. Loading and prefill are eager. A decode step of n tokens
is there twice: as eager code, and as Inductor compiled it (`lowering`). The captured "size" is n:
of one sequence, because the Llama has no batch; of a batch for the stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.workloads.allocation_tracer import AllocationTracer, build_fake, pretended_gpu
from common.workloads.fake_cuda import DEVICE, Capability
from common.workloads.llama import CONFIGS, LlamaConfig
from problems.cuda_graph_memory.layers import Kind, quantise
from problems.cuda_graph_memory.plain_programs import Forward, Program

CACHE_POSITIONS = 512


class KernelCounter(TorchDispatchMode):
    """Operators that do something on the device: neither views nor questions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func)
        if not getattr(func, "is_view", False) and not name.startswith(_NO_KERNEL):
            self.count += 1
        return func(*args, **(kwargs or {}))


_NO_KERNEL = ("aten.empty", "aten.detach", "aten._unsafe_view", "aten.view", "aten.alias", "prim")


def llama_config(name: str, layers: int | None) -> LlamaConfig:
    config = CONFIGS[name].with_cache_length(CACHE_POSITIONS)
    return config if layers is None else replace(config, layers=layers)


def build_quantised(config: LlamaConfig, kind: Kind) -> nn.Module:
    """The Llama on the pretended GPU; each layer quantised as soon as it is there."""
    if kind == "bf16":
        return build_fake(config, torch.bfloat16)
    model = build_fake(config, torch.bfloat16, after_module=lambda module: _inside(module, kind))
    return quantise(model, kind)  # the head is its own module: only the model can replace it


def _inside(module: nn.Module, kind: Kind) -> None:
    if not isinstance(module, nn.Linear):
        quantise(module, kind)


def llama_inputs(size: int, first: int = 0) -> tuple[Tensor, ...]:
    positions = torch.arange(first, first + size, device=DEVICE)
    return torch.zeros(size, dtype=torch.int64, device=DEVICE), positions


def build_stack(width: int, layers: int, kind: Kind) -> nn.Module:
    made = [
        nn.Linear(width, width, bias=False, device=DEVICE, dtype=torch.bfloat16)
        for _ in range(layers)
    ]
    return quantise(nn.Sequential(*made), kind)


def call(gpu: AllocationTracer, model: nn.Module, inputs: Sequence[Tensor], phase: str) -> Forward:
    """One eager call as a Forward. The outputs are let go after it was noted."""
    counter = KernelCounter()
    first = len(gpu.steps)
    with gpu.phase(phase), counter:
        out = model(*inputs)
    steps = tuple(gpu.steps[first:])
    del out
    return Forward(steps, counter.count, tuple(each.untyped_storage().nbytes() for each in inputs))


def trace_llama_program(
    config: LlamaConfig,
    kind: Kind,
    sizes: Sequence[int],
    prompt_tokens: int,
    capability: Capability = (9, 0),
) -> Program:
    """Load, one prefill of `prompt_tokens`, and an eager decode step of every size."""
    if prompt_tokens + max(sizes) > config.max_positions:
        config = config.with_cache_length(prompt_tokens + max(sizes))
    with pretended_gpu(capability) as gpu:
        with gpu.phase("load"):
            model = build_quantised(config, kind)
        load = tuple(gpu.steps)
        inputs = llama_inputs(prompt_tokens)
        prefill = call(gpu, model, inputs, "prefill")
        eager = {}
        for size in sizes:
            inputs = llama_inputs(size, prompt_tokens)
            eager[size] = call(gpu, model, inputs, f"size {size}")
        del inputs
    return Program(kind, load, prefill, eager, largest_weight_bytes=2 * config.vocab * config.dim)


def trace_stack_program(
    width: int, layers: int, kind: Kind, sizes: Sequence[int], rows: int
) -> Program:
    """The same of a stack of linear layers; the "prefill" has `rows` rows."""
    with pretended_gpu() as gpu:
        with gpu.phase("load"):
            model = build_stack(width, layers, kind)
        load = tuple(gpu.steps)

        def batch(size: int) -> tuple[Tensor]:
            return (torch.empty(size, width, dtype=torch.bfloat16, device=DEVICE),)

        prefill = call(gpu, model, batch(rows), "prefill")
        eager = {size: call(gpu, model, batch(size), f"size {size}") for size in sizes}
    return Program(kind, load, prefill, eager, largest_weight_bytes=2 * width * width)
