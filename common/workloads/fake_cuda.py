"""How does code for a GPU run where there is none? On fake tensors that say they are on one.

FakeTensorMode does nearly all of it. But the C++ behind some methods of a tensor switches to the
tensor's device before it calls any operator, and PyTorch without CUDA has no device to switch to.
Those methods are written here with the operators that they would call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

Capability = tuple[int, int]
DEVICE = "cuda:0"  # with its number: to look the current device up, there must be one


@contextmanager
def fake_cuda(capability: Capability) -> Iterator[None]:
    """Tensors on "cuda" are fake, and code that asks is told of one GPU of this capability.

    Not for several threads: methods of torch.Tensor are others while it lasts.
    """
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: capability,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(torch.cuda, **answers))
        for name, replacement in _METHODS.items():
            stack.enter_context(mock.patch.object(Tensor, name, _either(name, replacement)))
        for name in ("tensor", "as_tensor"):
            stack.enter_context(mock.patch.object(torch, name, _made(getattr(torch, name))))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.no_grad())
        yield


def _either(name: str, replacement: Callable[..., Any]) -> Callable[..., Any]:
    """The replacement for tensors on the pretended device, the method itself for all others."""
    original = getattr(Tensor, name)
    for_all = name in ("cuda", "to")

    def method(self: Tensor, *arguments: Any, **more: Any) -> Any:
        if for_all or self.is_cuda:
            found = replacement(original, self, *arguments, **more)
            if found is not NotImplemented:
                return found
        return original(self, *arguments, **more)

    return method


def _made(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A tensor of given values: made on the CPU, then moved."""

    def make(data: Any, *, dtype: Any = None, device: Any = None, **more: Any) -> Tensor:
        if device is None or torch.device(device).type != "cuda":
            return original(data, dtype=dtype, device=device, **more)
        return original(data, dtype=dtype, **more).to(device)

    return make


def _numbered(value: Any) -> Any:
    """ "cuda" as "cuda:0"."""
    if isinstance(value, torch.device) and value.type == "cuda" and value.index is None:
        return torch.device(DEVICE)
    return DEVICE if isinstance(value, str) and value == "cuda" else value


def _to(original: Any, tensor: Tensor, *arguments: Any, **more: Any) -> Any:
    if "device" in more:
        more["device"] = _numbered(more["device"])
    return original(tensor, *map(_numbered, arguments), **more)


def _cuda(original: Any, tensor: Tensor, *arguments: Any, **more: Any) -> Any:
    return tensor.to(DEVICE)


def _copy(original: Any, tensor: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    return torch.ops.aten.copy_.default(tensor, source, non_blocking)


def _unchanged(original: Any, tensor: Tensor, *arguments: Any, **more: Any) -> Any:
    """Random values in place: there are no values."""
    return tensor


def _contiguous(
    original: Any, tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format
) -> Any:
    if tensor.is_contiguous(memory_format=memory_format):
        return tensor
    return tensor.clone(memory_format=memory_format)


def _get(original: Any, tensor: Tensor, key: Any) -> Any:
    """x[key]: views for numbers, slices, None and "..."; a gather for tensors along dimensions."""
    keys = key if isinstance(key, tuple) else (key,)
    if all(k is None or k is ... or type(k) in (int, slice) for k in keys):
        return _view(tensor, keys)
    whole = slice(None)
    if all(isinstance(k, Tensor) or k == whole for k in keys):
        indices = [k if isinstance(k, Tensor) else None for k in keys]
        return torch.ops.aten.index.Tensor(tensor, indices)
    return NotImplemented


def _set(original: Any, tensor: Tensor, key: Any, value: Any) -> Any:
    """x[key] = value: a copy into the view, or one scatter."""
    keys = key if isinstance(key, tuple) else (key,)
    if all(k is None or k is ... or type(k) in (int, slice) for k in keys):
        view = _view(tensor, keys)
        return view.copy_(value) if isinstance(value, Tensor) else view.fill_(value)
    if all(isinstance(k, Tensor) or k == slice(None) for k in keys) and isinstance(value, Tensor):
        indices = [k if isinstance(k, Tensor) else None for k in keys]
        return torch.ops.aten.index_put_.default(tensor, indices, value)
    return NotImplemented


def _view(tensor: Tensor, keys: tuple[Any, ...]) -> Tensor:
    taken = sum(key is not None and key is not ... for key in keys)
    dim = 0
    for key in keys:
        if key is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif key is ...:
            dim += tensor.dim() - dim - taken
        elif isinstance(key, int):
            tensor, taken = tensor.select(dim, key), taken - 1
        else:
            tensor = torch.ops.aten.slice.Tensor(tensor, dim, key.start, key.stop, key.step or 1)
            dim, taken = dim + 1, taken - 1
    return tensor


_METHODS: Mapping[str, Callable[..., Any]] = {
    "to": _to,
    "cuda": _cuda,
    "copy_": _copy,
    "uniform_": _unchanged,
    "contiguous": _contiguous,
    "__getitem__": _get,
    "__setitem__": _set,
}
