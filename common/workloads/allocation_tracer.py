"""Which memory would a model ask of a GPU that is not there? Its storages, in order, with frames.

    with pretended_gpu() as gpu, gpu.phase("load"):
        model = build_fake(CONFIGS["llama-3.1-8b"], torch.bfloat16)
    steps = gpu.steps

The model really runs, operator by operator, under FakeTensorMode: shapes, dtypes and Python's own
lifetimes are real, values and memory are not. What a kernel takes for itself (workspaces of matrix
libraries, scratch of sorts and attention) is not seen. Attention is the composite of plain
operators, which CUDA also falls back to for a mask with grouped queries; a fused attention kernel
would need less. Every figure made of this is *modelled*.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.allocator.blocks import Frames
from common.allocator.steps import Step
from common.workloads.fake_cuda import DEVICE, Capability, fake_cuda
from common.workloads.llama import Llama, LlamaConfig, rope_frequencies
from common.workloads.weights import AfterModule, fill_order, meta_model

MAX_FRAMES = 24
_BEFORE = -1  # the name of every storage from before the tracer
# Machinery between the model's code and the operator: of no interest to a reader.
_MACHINERY = (
    *("torch/_subclasses/", "torch/utils/_", "torch/_ops.py", "torch/_library/"),
    *("torch/_dynamo/", "torch/_compile.py", "torch/overrides.py", "torch/_prims_common/"),
    *("common/workloads/allocation_tracer.py", "common/workloads/fake_cuda.py"),
)


class AllocationTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes when a storage of a kind of device begins and ends. `steps` is what it saw.

    `known` are tensors from before, whose storages are not news.
    """

    def __init__(self, device_type: str = "cuda", known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._device_type = device_type
        self._phase = ""
        self._live: dict[int, int] = {}  # by the storage's C++ object: its name here
        self._next = 0
        self._stacks: dict[tuple[Any, ...], Frames] = {}
        self._files: dict[str, str] = {}
        for tensor in known:
            storage = tensor.untyped_storage()
            self._live[storage._cdata] = _BEFORE
            weakref.finalize(storage, self._free, storage._cdata, _BEFORE).atexit = False

    @contextmanager
    def phase(self, name: str) -> Iterator[AllocationTracer]:
        """Steps within are of this phase."""
        before, self._phase = self._phase, name
        try:
            yield self
        finally:
            self._phase = before

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == self._device_type:
                self._note(tensor.untyped_storage(), func)
        return out

    def _note(self, storage: torch.UntypedStorage, func: Any) -> None:
        key = storage._cdata
        if key in self._live:
            return
        size = storage.nbytes()
        if size == 0:
            return
        name, self._next = self._next, self._next + 1
        self._live[key] = name
        operator = str(func)
        self.steps.append(Step(name, size, self._phase, operator, self._frames(operator)))
        weakref.finalize(storage, self._free, key, name).atexit = False

    def _free(self, key: int, name: int) -> None:
        if self._live.pop(key, None) is not None and name != _BEFORE:
            self.steps.append(Step(name, None, self._phase))

    def _frames(self, operator: str) -> Frames:
        """The operator, then the Python frames from the inside out. Equal stacks are one object."""
        at: FrameType | None = sys._getframe(3)
        found: list[tuple[CodeType, int]] = []
        while at is not None and len(found) < MAX_FRAMES:
            if not self._file(at.f_code).startswith(_MACHINERY):
                found.append((at.f_code, at.f_lineno))
            at = at.f_back
        key = (operator, *found)
        known = self._stacks.get(key)
        if known is None:
            parts = operator.split(".")
            call = f"at::_ops::{parts[1] if len(parts) > 1 else operator}::call(fake)"
            rows: list[dict[str, object]] = [{"name": call, "filename": "??", "line": 0}]
            rows += [
                {"name": code.co_name, "filename": self._shown(code), "line": line}
                for code, line in found
            ]
            known = self._stacks[key] = tuple(rows)
        return known

    def _file(self, code: CodeType) -> str:
        """The file from the package's folder on: a whole path would name people and machines."""
        known = self._files.get(code.co_filename)
        if known is None:
            path = code.co_filename.replace("\\", "/")
            for folder in ("/site-packages/", "/dist-packages/"):
                if folder in path:
                    path = path.rsplit(folder, 1)[1]
            for folder in ("/common/", "/problems/", "/tests/"):
                if path.startswith("/") and folder in path:
                    path = path[path.rindex(folder) + 1 :]
            known = self._files[code.co_filename] = path if path[0] != "/" else path.rsplit("/")[-1]
        return known

    def _shown(self, code: CodeType) -> str:
        """torch's own files under the folder by which readers of stacks know them."""
        path = self._file(code)
        return f"site-packages/{path}" if path.startswith("torch/") else path


@contextmanager
def pretended_gpu(capability: Capability = (9, 0)) -> Iterator[AllocationTracer]:
    """Tensors made within on device "cuda" are fake, and their storages are noted.

    `capability` is what torch.cuda.get_device_capability answers (9, 0: H100 and H200): libraries
    choose kernels and layouts by it. No gradients are recorded.
    """
    tracer = AllocationTracer()
    with fake_cuda(capability), tracer:
        yield tracer


def build_fake(
    config: LlamaConfig, dtype: torch.dtype, after_module: AfterModule | None = None
) -> Llama:
    """The Llama on the pretended GPU, weights without values, taken in the order of `build_filled`.

    Not by `build_filled` itself: modules cannot move fake parameters from one device to another.
    """
    with unset_fake_temporarily():
        model = meta_model(config).eval().requires_grad_(False)
    for name, module in fill_order(model):
        if name == "lm_head" and config.tied_embeddings:
            model.lm_head.weight = model.embed_tokens.weight
        else:
            _take(module, dtype)
        if after_module is not None and name != "embed_tokens":
            after_module(module)
    model.rope = rope_frequencies(config).to(DEVICE)
    return model


def _take(module: nn.Module, dtype: torch.dtype) -> None:
    for part in module.modules():
        for key, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=dtype, device=DEVICE)
                part._parameters[key] = nn.Parameter(empty, requires_grad=False)
        for key, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[key] = torch.empty(buffer.shape, dtype=dtype, device=DEVICE)


def trace_llama(
    config: LlamaConfig,
    prompt_tokens: int,
    decode_steps: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    after_module: AfterModule | None = None,
    capability: Capability = (9, 0),
) -> list[Step]:
    """The allocations of loading the model, one prefill and some decode steps, eager.

    Phases: "load", "prefill", "decode 0", "decode 1", ... What is held at the end stays held: the
    weights, the caches and the last token.
    """
    if prompt_tokens + decode_steps > config.max_positions:
        config = config.with_cache_length(prompt_tokens + decode_steps)
    with pretended_gpu(capability) as gpu:
        with gpu.phase("load"):
            model = build_fake(config, dtype, after_module)
        with gpu.phase("prefill"):
            tokens = torch.zeros(prompt_tokens, dtype=torch.int64, device=DEVICE)
            positions = torch.arange(prompt_tokens, device=DEVICE)
            token = model(tokens, positions).argmax().view(1)
            del tokens, positions
        for step in range(decode_steps):
            with gpu.phase(f"decode {step}"):
                position = torch.full((1,), prompt_tokens + step, device=DEVICE)
                token = model(token, position).argmax().view(1)
                del position
        steps = list(gpu.steps)
        del token
    return steps
