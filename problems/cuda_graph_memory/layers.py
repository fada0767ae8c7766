"""How is a linear layer computed from quantised weights? The kinds whose memory is compared.

Unfused kinds make the whole weight before the product, operator by operator; fused ones read the
stored bytes inside it. All of them run on a CPU, on a GPU and on fake tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["bf16", "int8wo", "float8wo", "int8wo-fused", "float8wo-0.13.0", "float8dq"]
KINDS: tuple[Kind, ...] = (
    *("bf16", "int8wo", "float8wo", "int8wo-fused", "float8wo-0.13.0", "float8dq"),
)
FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


class Quantised(nn.Module):
    """A weight (N, K) of one byte per element with a scale per row (float8dq: one for all)."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, by_row: bool = True) -> None:
        super().__init__()
        whole = linear.weight.detach().float()
        top = whole.abs().amax(dim=1, keepdim=True) if by_row else whole.abs().amax()
        scale = (top / (127.0 if dtype is torch.int8 else FLOAT8_MAX)).clamp(min=1e-12)
        scaled = whole / scale
        self.register_buffer(
            "weight", (scaled.round() if dtype is torch.int8 else scaled).to(dtype)
        )
        # The scale in the type that the product wants it in: the model's, or float32 for float8.
        self.register_buffer(
            "scale", scale.to(linear.weight.dtype) if dtype is torch.int8 else scale
        )


class UnfusedInt8(Quantised):
    """Convert, scale, multiply: what compiles to a dequantised weight and an extern product."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale)


class FusedInt8(Quantised):
    """PyTorch's own kernel for int8 weights: no temporary of the weight's size."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, torch.int8)
        self.scale = self.scale.flatten()

    def forward(self, x: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(x, self.weight, self.scale)


class UnfusedFloat8(Quantised):
    """Weight-only float8 as in torchao from 0.14.1 on: float32, times the scale, bf16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, FLOAT8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantised(x.dtype))

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        wide = self.weight.to(torch.float32)
        product = wide * self.scale
        return product.to(dtype)


class ExpandedFloat8(UnfusedFloat8):
    """The same as torchao 0.13.0 does it: the scale is first expanded to the weight's shape.

    Its locals are alive together: the operators, their order and the names that hold tensors are
    those of `_dequantize_affine_float8` there (read), 14 bytes per element at the peak.
    """

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        wide = self.weight.to(torch.float32)
        expanded = self.scale.expand(self.weight.shape).clone(
            memory_format=torch.contiguous_format
        )  # what repeat_interleave of a column comes to
        product = wide * expanded
        return product.to(dtype)


class DynamicFloat8(Quantised):
    """Activations quantised on the fly, one scale per tensor; the product is of float8."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, FLOAT8, by_row=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        scale = (wide.abs().amax() / FLOAT8_MAX).clamp(min=1e-12)
        small = (wide / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8)
        return torch._scaled_mm(small, self.weight.t(), scale, self.scale, out_dtype=x.dtype)


_MADE: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "int8wo": UnfusedInt8,
    "float8wo": UnfusedFloat8,
    "int8wo-fused": FusedInt8,
    "float8wo-0.13.0": ExpandedFloat8,
    "float8dq": DynamicFloat8,
}


def quantise(module: nn.Module, kind: Kind) -> nn.Module:
    """The module with every nn.Linear in it replaced, in the order of the module's own names."""
    if kind == "bf16":
        return module
    if isinstance(module, nn.Linear):
        return _MADE[kind](module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, _MADE[kind](child))
    return module
