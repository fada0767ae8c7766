"""How does a weight become float8, and a model use it? `pack`, `FusedFloat8Linear`, `quantize_`.

`quantize_(module)` is called where torchao's `quantize_(module, Float8WeightOnlyConfig())` was: it
replaces the weight of every `nn.Linear` in place, in any module or in a bare linear, and so drops
into `common.workloads`' builders. Values and scales are torchao's: one scale per row (or one for
all), the largest magnitude over the format's largest number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .operators import FLOAT8_DTYPES, described, linear, on_huge_pages

SMALLEST_AMAX = 1e-12  # torchao's: keeps the scale of a row of zeros above zero


@dataclass(frozen=True)
class PackedWeight:
    """`values` (N, K) float8, `scale` (N,) or (1,) float32, `nan_rows` int64: rows with a NaN."""

    values: Tensor
    scale: Tensor
    nan_rows: Tensor


def pack(
    weight: Tensor,
    granularity: Literal["row", "tensor"] = "row",
    dtype: torch.dtype = torch.float8_e4m3fn,
) -> PackedWeight:
    """Quantise a floating-point (N, K) weight. ValueError naming shape and dtype if it is none."""
    if weight.dim() != 2 or not weight.numel() or weight.dtype not in _FLOATS:
        raise ValueError(
            f"weight must be float32, bfloat16 or float16 (N, K) and not empty, not "
            f"{described(weight)}; pass the weight of a linear layer"
        )
    if dtype not in FLOAT8_DTYPES:
        raise ValueError(f"dtype is {dtype}; use torch.float8_e4m3fn or torch.float8_e5m2")
    if granularity not in ("row", "tensor"):
        raise ValueError(f"granularity is {granularity!r}; use 'row' or 'tensor'")
    largest = torch.finfo(dtype).max
    wide = weight.detach().float()
    size = wide.abs()
    amax = size.amax(1) if granularity == "row" else size.amax().reshape(1)
    scale = amax.clamp(min=SMALLEST_AMAX) / largest
    values = (wide / scale[:, None]).clamp(-largest, largest).to(dtype)
    return pack_float8(values, scale)


_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def pack_float8(values: Tensor, scale: Tensor) -> PackedWeight:
    """Take over a weight that is float8 already, such as torchao's `qdata` and `scale`.

    The scale may be of shape (), (1,), (1, 1), (N,) or (N, 1), in any floating-point dtype.
    """
    if values.dtype not in FLOAT8_DTYPES or values.dim() != 2 or not values.numel():
        raise ValueError(
            f"values must be float8_e4m3fn or float8_e5m2 (N, K) and not empty, not "
            f"{described(values)}; quantise with pack"
        )
    rows = values.shape[0]
    shapes = ((), (1,), (1, 1), (rows,), (rows, 1))
    if tuple(scale.shape) not in shapes or not scale.dtype.is_floating_point:
        raise ValueError(
            f"scale must be floating-point of shape (), (1,), ({rows},) or ({rows}, 1), not "
            f"{described(scale)}; pass one per row or one for all"
        )
    values = values.contiguous()
    bits = values.view(torch.uint8) & 0x7F
    if values.dtype == torch.float8_e5m2:
        if bool((bits == 0x7C).any()):
            raise ValueError(
                f"values {described(values)} hold infinities, which no weight has; "
                "clamp before converting"
            )
        is_nan = bits > 0x7C
    else:
        is_nan = bits == 0x7F
    nan_rows = is_nan.any(1).nonzero().reshape(-1)
    moved = on_huge_pages(values.view(torch.uint8)).view(values.dtype)
    return PackedWeight(moved, scale.float().reshape(-1).contiguous(), nan_rows)


class FusedFloat8Linear(nn.Linear):
    """A linear layer with a packed weight. Made from an `nn.Linear` by `convert_`."""

    weight_scale: Tensor
    nan_rows: Tensor

    def forward(self, x: Tensor) -> Tensor:
        # torch.compile specialises on the shape, so the reshapes cost nothing there.
        flat = x.reshape(-1, self.in_features)
        out: Tensor = linear(flat, self.weight, self.weight_scale, self.nan_rows)
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        scales = "per row" if self.weight_scale.numel() > 1 else "per tensor"
        return f"{super().extra_repr()}, weight {described(self.weight)}, scale {scales}"


def convert_(module: nn.Linear, packed: PackedWeight) -> None:
    """Turn `module` into a FusedFloat8Linear in place; its own weight is let go, not written."""
    if tuple(packed.values.shape) != (module.out_features, module.in_features):
        raise ValueError(
            f"the packed weight is {described(packed.values)}, the layer has "
            f"({module.out_features}, {module.in_features}); pack this layer's own weight"
        )
    module.__class__ = FusedFloat8Linear
    module.weight = nn.Parameter(packed.values, requires_grad=False)
    module.register_buffer("weight_scale", packed.scale)
    module.register_buffer("nan_rows", packed.nan_rows)


@torch.no_grad()
def quantize_(
    module: nn.Module,
    granularity: Literal["row", "tensor"] = "row",
    dtype: torch.dtype = torch.float8_e4m3fn,
) -> None:
    """Replace every plain `nn.Linear` in `module` (itself included) by a fused float8 one."""
    for each in module.modules():
        if type(each) is nn.Linear:
            convert_(each, pack(each.weight, granularity, dtype))
