"""What memory does compiled code ask for, on a GPU that is not there? Inductor's own program, run.

The forward is traced on fake tensors and goes through AOTAutograd and all of Inductor for a
pretended device of capability 9.0, up to the Python program that would launch the kernels: graph
passes, fusion, scheduling and memory planning are Inductor's. That program is then run on fake
tensors with its kernels left out, so that its allocations, reuses and frees happen in its own
order. Nothing is compiled to machine code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from common.allocator.steps import Step
from common.workloads.allocation_tracer import AllocationTracer, pretended_gpu
from common.workloads.fake_cuda import DEVICE, fake_cuda
from common.workloads.pretended_compiler import CAPABILITY, pretended_compiler
from problems.cuda_graph_memory.plain_programs import PRODUCT, Forward
from problems.cuda_graph_memory.programs import (
    build_quantised,
    build_stack,
    llama_config,
    llama_inputs,
)

# Passes that would make real tensors on the device, to fold constants or to time padded products.
WITHOUT_A_DEVICE = {
    "fx_graph_cache": False,
    "joint_graph_constant_folding": False,
    "shape_padding": False,
}
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "_scaled_mm", "_int_mm")


class _Lowered(Exception):
    """Carries the generated program out of the compiler."""

    def __init__(self, source: str) -> None:
        super().__init__("lowered")
        self.source = source


def lowered_source(
    model: nn.Module, inputs: Sequence[Tensor], settings: Mapping[str, Any] | None = None
) -> str:
    """The program that Inductor writes for `model(*inputs)`; within `pretended_compiler`.

    `settings` are Inductor's own.
    """
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.graph import GraphLowering
    from torch.fx.experimental.proxy_tensor import make_fx

    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = list(held)

    def flat(*tensors: Tensor) -> Any:
        state = dict(zip(names, tensors[: len(names)], strict=True))
        return torch.func.functional_call(model, state, tensors[len(names) :])

    def stop(self: Any) -> None:
        code = self.codegen()
        code = code[0] if isinstance(code, tuple) else code
        raise _Lowered(str(getattr(code, "value", code)))

    arguments = [*held.values(), *inputs]
    traced = make_fx(flat, tracing_mode="real")(*arguments)
    options = {**WITHOUT_A_DEVICE, **(settings or {})}
    patched: Any = config
    with mock.patch.object(GraphLowering, "compile_to_module", stop), patched.patch(**options):
        try:
            compile_fx(traced, arguments)
        except Exception as error:
            found = _found(error)
            if found is None:
                raise
            return found.source
    raise AssertionError("Inductor compiled nothing")


def _found(error: BaseException | None) -> _Lowered | None:
    while error is not None:
        if isinstance(error, _Lowered):
            return error
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return None


class _Extern:
    """Stands for Inductor's extern_kernels: with `out` nothing is left to do but to say so."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def kernel(*arguments: Any, out: Any = None, **more: Any) -> Any:
            self._note(name)
            return getattr(torch, name)(*arguments, **more) if out is None else out

        return kernel


class _Kernel:
    """Stands for one generated kernel."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def run(self, *arguments: Any, **more: Any) -> None:
        self._note("generated")


def run_lowered(source: str, arguments: list[Tensor], gpu: AllocationTracer) -> Forward:
    """Run a lowered program on fake tensors, its kernels left out; within `pretended_gpu`."""
    body = source[source.index("class Runner") : source.index("runner = Runner")]
    kernels: list[str] = []

    def note(name: str) -> None:
        kernels.append(name)
        if name in PRODUCTS:
            # Where the library's workspace is asked for: a step of no bytes marks it.
            gpu.steps.append(Step(("mark", len(gpu.steps)), 0, "", PRODUCT))

    def empty(size: Any, stride: Any, dtype: torch.dtype) -> Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device=DEVICE)

    def reinterpret(tensor: Tensor, size: Any, stride: Any, offset: int = 0) -> Tensor:
        return torch.as_strided(tensor, size, stride, tensor.storage_offset() + offset)

    names: dict[str, Any] = {
        "torch": torch,
        "aten": torch.ops.aten,
        "empty_strided_cuda": empty,
        "reinterpret_tensor": reinterpret,
        "extern_kernels": _Extern(note),
        "assert_size_stride": lambda *a: None,
        "assert_alignment": lambda *a: None,
        "copy_if_misaligned": lambda tensor: tensor,
        "get_raw_stream": lambda *a: 0,
        **{name: _Kernel(note) for name in set(re.findall(r"\btriton_\w+", body))},
    }
    exec(compile(body, "<lowered>", "exec"), names)
    first = len(gpu.steps)
    with ExitStack() as guards:
        for name in ("_exchange_device", "_maybe_exchange_device", "set_device"):
            guards.enter_context(mock.patch.object(torch.cuda, name, lambda *a: 0))
        out = names["Runner"](partitions=[]).call(arguments)
    steps = tuple(gpu.steps[first:])
    del out
    return Forward(steps, len(kernels), ())


def lower_forward(
    kind: Any, size: int, preset: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> tuple[Forward, str]:
    """One compiled decode step: its allocations and the program. The model is that of the preset.

    The weights are taken twice, once to lower and once to run, because a tracer must not see what
    the compiler tries on fake tensors.
    """
    with pretended_compiler():
        with fake_cuda(CAPABILITY):
            model, inputs = _workload(kind, size, preset)
            source = lowered_source(model, inputs, settings)
        with pretended_gpu(CAPABILITY) as gpu:
            model, inputs = _workload(kind, size, preset)
            held = [*dict(model.named_parameters()).values(), *dict(model.named_buffers()).values()]
            sizes = tuple(each.untyped_storage().nbytes() for each in inputs)
            forward = run_lowered(source, [*held, *inputs], gpu)
    return Forward(forward.steps, forward.kernels, sizes), source


def _workload(
    kind: Any, size: int, preset: Mapping[str, Any]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    if preset["model"] == "stack":
        width = int(preset["width"])
        model = build_stack(width, int(preset["layers"]), kind)
        return model, (torch.empty(size, width, dtype=torch.bfloat16, device=DEVICE),)
    config = llama_config(str(preset["model"]), int(preset["layers"]))
    return build_quantised(config, kind), llama_inputs(size, 0)


def compiled_forwards(
    kind: Any, sizes: Sequence[int], preset: Mapping[str, Any]
) -> tuple[dict[int, Forward], dict[int, str]]:
    """The compiled step of every size, and the programs that were lowered for them.

    One token is a program of its own. The others are lowered for the least and the largest size;
    where those two differ in nothing but bytes, and these grow with the size, what lies between
    follows. Else the one in the middle is lowered too, and the same is asked of both halves.
    """
    found: dict[int, Forward] = {}
    sources: dict[int, str] = {}

    def lower(size: int) -> None:
        found[size], sources[size] = lower_forward(kind, size, preset, preset.get("inductor"))

    def fill(span: Sequence[int]) -> None:
        low, high, inner = span[0], span[-1], span[1:-1]
        between = [interpolated(found[low], low, found[high], high, size) for size in inner]
        if inner and None in between:
            middle = len(span) // 2
            lower(span[middle])
            fill(span[: middle + 1])
            fill(span[middle:])
        else:
            found.update((s, f) for s, f in zip(inner, between, strict=True) if f is not None)

    many = sorted(size for size in sizes if size > 1)
    for size in dict.fromkeys([*(size for size in sizes if size == 1), *many[:1], *many[-1:]]):
        lower(size)
    if len(many) > 2:
        fill(many)
    return {size: found[size] for size in sizes}, sources


def interpolated(
    low: Forward, at_low: int, high: Forward, at_high: int, size: int
) -> Forward | None:
    """The program of a size between two, None where theirs are not one program."""
    if len(low.steps) != len(high.steps) or low.kernels != high.kernels:
        return None
    positions = [
        {s.name: i for i, s in enumerate(f.steps) if s.size is not None} for f in (low, high)
    ]

    def between(a: int, b: int) -> int | None:
        whole, rest = divmod((b - a) * (size - at_low), at_high - at_low)
        return None if rest else a + whole

    steps: list[Step] = []
    for a, b in zip(low.steps, high.steps, strict=True):
        same = positions[0].get(a.name) == positions[1].get(b.name) and a.operator == b.operator
        if not same or (a.size is None) != (b.size is None):
            return None
        bytes_ = None if a.size is None or b.size is None else between(a.size, b.size)
        if a.size is not None and bytes_ is None:
            return None
        steps.append(replace(a, size=bytes_))
    inputs = [between(a, b) for a, b in zip(low.input_bytes, high.input_bytes, strict=True)]
    if None in inputs:
        return None
    return Forward(tuple(steps), low.kernels, tuple(each or 0 for each in inputs))
