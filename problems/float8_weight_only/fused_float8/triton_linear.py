"""Which Triton kernel, and which block sizes, for which shape? The GPU side of `operators.linear`.

The sizes are not tuned: nobody has run them on a GPU yet. They are chosen from what the compiler
says (`aot.py`: no spills, 16-byte loads) and so that a matrix of 4096 rows gives every
multiprocessor several blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import triton_kernels as kernels

LARGEST_BATCH = 64  # up to here one block holds the whole batch, and weights are read once


@dataclass(frozen=True)
class Blocks:
    """Sizes of one launch; `block_m` 0 means the GEMV."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


def blocks_for(batch: int) -> Blocks:
    """The GEMV for one row; else the smallest tile that holds the batch (16 is the hardware's)."""
    if batch == 1:
        return Blocks(0, 4, 1024, 4, 1)
    block_m = 16 if batch <= 16 else 32 if batch <= 32 else 64
    return Blocks(block_m, 32, 128, 4, 4)


def linear(x: Tensor, weight: Tensor, scale: Tensor, nan_rows: Tensor) -> Tensor:
    """y (M, N) for checked arguments (`operators.check_linear`) on one device."""
    batch, columns = x.shape
    rows = weight.shape[0]
    y = torch.empty((batch, rows), dtype=torch.bfloat16, device=x.device)
    if not y.numel():
        return y
    x, scale = x.contiguous(), scale.contiguous()
    blocks = blocks_for(batch)
    per_row, whole = scale.numel() == rows and rows > 1, columns % blocks.block_k == 0
    grid_n = -(-rows // blocks.block_n)
    gemv: Any = kernels.gemv
    gemm: Any = kernels.gemm
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    if not blocks.block_m:
        gemv[(grid_n,)](
            *(x, weight, scale, y, rows, columns, per_row, whole),
            *(blocks.block_n, blocks.block_k),
            **options,
        )
    else:
        interpreted = not x.is_cuda
        gemm[(grid_n, -(-batch // blocks.block_m))](
            *(x, weight, scale, y, batch, rows, columns, per_row, whole, interpreted),
            *(blocks.block_m, blocks.block_n, blocks.block_k),
            **options,
        )
    # Compiled kernels convert NaN codes themselves; the interpreter takes them for 480.
    return y.index_fill_(1, nan_rows, float("nan")) if nan_rows.numel() else y
