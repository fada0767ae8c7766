"""Which operators are there, and what do they accept? The fused product and its baseline.

    linear(x (M, K) bfloat16, weight (N, K) float8, scale (N,) or (1,) float32, nan_rows) -> (M, N)
    bf16_gemv(x (1, K) bfloat16, weight (N, K) bfloat16) -> (1, N)
    read_only(tensor, prefetch=True) -> int     reads all of it, to measure what the bus gives
    instructions_alone(codes) -> int    runs as many vector instructions as `linear` needs for one
                                    row of so many codes, without memory; says how many that is
                                    per vector of codes, 0 where nobody has counted
    on_huge_pages(tensor) -> Tensor a copy in memory of 2 MiB pages, where the system has them
    instruction_set(name) -> str    chooses the CPU kernels by name ("" changes nothing)

Sums are float32; each output is rounded to bfloat16 once, after the scale. `nan_rows` lists the
rows of the weight that hold a NaN code (`packing.pack` finds them): a NaN makes its whole output
NaN, so the kernels need not look for it. On a CPU the operators are the C++ kernels, or torch where
these cannot be built; on a GPU `linear` is Triton's. Defined once per process, usable inside
`torch.compile(fullgraph=True)`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from . import build

_library: Any = torch.library.Library  # untyped
LIBRARY = _library("float8_weight_only", "DEF")
LIBRARY.define("linear(Tensor x, Tensor weight, Tensor scale, Tensor nan_rows) -> Tensor")
LIBRARY.define("bf16_gemv(Tensor x, Tensor weight) -> Tensor")
LIBRARY.define("read_only(Tensor tensor, bool prefetch=True) -> int")
LIBRARY.define("instructions_alone(int codes) -> int")
LIBRARY.define("on_huge_pages(Tensor tensor) -> Tensor")
LIBRARY.define("instruction_set(str wanted) -> str")

FLOAT8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
ROWS_AT_ONCE = 256


def described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def check_linear(x: Tensor, weight: Tensor, scale: Tensor) -> None:
    """ValueError naming dtype and shape of the argument that does not fit."""
    if weight.dtype not in FLOAT8_DTYPES or weight.dim() != 2 or not weight.is_contiguous():
        raise ValueError(
            f"weight must be contiguous float8_e4m3fn or float8_e5m2 (N, K), not "
            f"{described(weight)}; pack it with fused_float8.packing.pack"
        )
    rows, columns = weight.shape
    if x.dtype != torch.bfloat16 or x.dim() != 2 or x.shape[1] != columns:
        raise ValueError(
            f"x must be bfloat16 (M, {columns}), not {described(x)}; convert or reshape it"
        )
    if scale.dtype != torch.float32 or scale.numel() not in (1, rows):
        raise ValueError(
            f"scale must be float32 with {rows} elements or 1, not {described(scale)}; "
            "pass one per row or one for all"
        )


def linear_by_torch(x: Tensor, weight: Tensor, scale: Tensor, nan_rows: Tensor) -> Tensor:
    """The same result with torch's own operators, a few rows at a time: no large temporaries."""
    check_linear(x, weight, scale)
    y = x.new_empty(x.shape[0], weight.shape[0])
    wide = x.float()
    per_row = scale.reshape(-1).expand(weight.shape[0])
    for start in range(0, weight.shape[0], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        y[:, rows] = (wide @ weight[rows].float().T) * per_row[rows]
    return y


def bf16_gemv_by_torch(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight)


def read_only_by_torch(tensor: Tensor, prefetch: bool = True) -> int:
    return int(tensor.view(torch.uint8).sum())


def _linear_shape(x: Tensor, weight: Tensor, scale: Tensor, nan_rows: Tensor) -> Tensor:
    check_linear(x, weight, scale)
    return x.new_empty(x.shape[0], weight.shape[0])


def _bf16_shape(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


torch.library.register_fake("float8_weight_only::linear", _linear_shape, lib=LIBRARY)
torch.library.register_fake("float8_weight_only::bf16_gemv", _bf16_shape, lib=LIBRARY)

UNAVAILABLE = build.unavailable()
"""None, or why the CPU operators are torch's own and slow."""

if UNAVAILABLE is not None:
    print(f"warning: {UNAVAILABLE}; computing with torch, slowly", file=sys.stderr)
    LIBRARY.impl("linear", linear_by_torch, "CPU")
    LIBRARY.impl("bf16_gemv", bf16_gemv_by_torch, "CPU")
    LIBRARY.impl("read_only", read_only_by_torch, "CPU")
    LIBRARY.impl("on_huge_pages", torch.clone, "CPU")
    LIBRARY.impl("instructions_alone", lambda codes: 0, "CompositeExplicitAutograd")
    LIBRARY.impl("instruction_set", lambda wanted: "torch", "CompositeExplicitAutograd")


def _linear_on_gpu(x: Tensor, weight: Tensor, scale: Tensor, nan_rows: Tensor) -> Tensor:
    from . import triton_linear  # needs Triton, which a CPU build of torch lacks

    check_linear(x, weight, scale)
    return triton_linear.linear(x, weight, scale, nan_rows)


LIBRARY.impl("linear", _linear_on_gpu, "CUDA")
LIBRARY.impl("on_huge_pages", torch.clone, "CUDA")  # its pages are large already

linear = torch.ops.float8_weight_only.linear
bf16_gemv = torch.ops.float8_weight_only.bf16_gemv
read_only = torch.ops.float8_weight_only.read_only
instructions_alone = torch.ops.float8_weight_only.instructions_alone
on_huge_pages = torch.ops.float8_weight_only.on_huge_pages
instruction_set = torch.ops.float8_weight_only.instruction_set
