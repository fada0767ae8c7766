"""Do the experts really shrink when a model is quantised? Weight-only int8 and float8 for stacks.

Library calls that replace the weights of `nn.Linear` leave a stacked three-dimensional parameter as
it is, without a word: nearly all bytes of a mixture of experts. So the experts are quantised here,
one scale per output row, and `check_experts_shrank` looks at the bytes that are stored afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import CheckFailed, UsageError
from common.workloads.moe_experts import Experts, Weights
from common.workloads.weights import stored_parts

Format = Literal["int8", "float8"]
_STORED = {"int8": (torch.int8, 127.0), "float8": (torch.float8_e4m3fn, 448.0)}


class QuantisedExperts(Experts):
    """Experts stored in one byte per weight; unpacked one expert at a time, when it is touched."""

    gate_up_scale: Tensor
    down_scale: Tensor

    def __init__(self, plain: Experts, format_: Format) -> None:
        nn.Module.__init__(self)
        self.count, self.dim, self.width = plain.count, plain.dim, plain.width
        self.format = format_
        for name in ("gate_up", "down"):
            weight = getattr(plain, f"{name}_proj")
            stored, scale = quantise_rows(weight.data, format_)
            self.register_parameter(f"{name}_proj", nn.Parameter(stored, requires_grad=False))
            self.register_buffer(f"{name}_scale", scale)

    def expert(self, index: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return (
            unpack(self.gate_up_proj[index], self.gate_up_scale[index], dtype),
            unpack(self.down_proj[index], self.down_scale[index], dtype),
        )

    def between(self, first: int, end: int, dtype: torch.dtype) -> tuple[Weights, Weights]:
        gate_up, down = self.expert(first, dtype)
        return (gate_up,), (down,)

    def rows_together(self, row_bytes: int) -> int:
        return 0  # one expert at a time: only its weights are unpacked

    def several(self, indices: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return (
            unpack(self.gate_up_proj[indices], self.gate_up_scale[indices], dtype),
            unpack(self.down_proj[indices], self.down_scale[indices], dtype),
        )

    def stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        raise UsageError(f"grouped_mm cannot read {self.format} experts; choose backend sorted")

    def can_group(self) -> bool:
        return True  # so that asking for it ends in `stacked`, whose message names the format


def quantise_rows(weight: Tensor, format_: Format) -> tuple[Tensor, Tensor]:
    """(stored values, float32 scale with a last dimension of 1): symmetric, one scale per row."""
    if format_ not in _STORED:
        raise UsageError(f"no format is called {format_!r}; choose from {', '.join(_STORED)}")
    dtype, largest = _STORED[format_]
    wide = weight.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / largest
    scaled = wide / scale
    if dtype is torch.int8:
        scaled = scaled.round()
    return scaled.clamp(-largest, largest).to(dtype), scale


def unpack(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (stored.to(torch.float32) * scale).to(dtype)


def quantise_experts(module: nn.Module, format_: Format) -> None:
    """Replace every stack of experts below `module` by a quantised one."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is Experts:
                setattr(parent, name, QuantisedExperts(child, format_))


@dataclass(frozen=True)
class ExpertBytes:
    """`stored` bytes of all experts' weights and scales, their weights, and the rows of them."""

    stored: int
    weights: int
    rows: int

    @property
    def per_weight(self) -> float:
        return self.stored / self.weights


def expert_bytes(model: nn.Module) -> ExpertBytes:
    """What all stacks of experts below `model` occupy, quantised by whomever."""
    stored = weights = rows = 0
    for module in model.modules():
        if isinstance(module, Experts):
            tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            stored += sum(part.nbytes for tensor in tensors for part in stored_parts(tensor))
            weights += 3 * module.count * module.dim * module.width
            rows += module.count * (2 * module.width + module.dim)
    return ExpertBytes(stored, weights, rows)


def check_experts_shrank(model: nn.Module, bytes_per_weight: float) -> ExpertBytes:
    """CheckFailed if the experts take more than asked for, and one float32 scale per row."""
    found = expert_bytes(model)
    if found.stored > bytes_per_weight * found.weights + 4 * found.rows:
        raise CheckFailed(
            f"experts take {found.per_weight:.2f} bytes per weight, not {bytes_per_weight:g}: the "
            "quantiser left the stacked parameters as they were; use quantise_experts"
        )
    return found
