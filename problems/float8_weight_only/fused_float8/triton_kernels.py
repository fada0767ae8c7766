# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""How does a GPU multiply by float8 weights where they lie? One GEMV and one small GEMM in Triton.

Weights are read once, 16 bytes per thread and load, converted by the hardware (compute capability
8.9 and later; NaN codes included) and multiplied in float32 (GEMV) or by tensor cores in bfloat16
(GEMM: every float8 value is a bfloat16 value, so nothing is lost). The scale is applied to the sum,
in float32. Nothing of the weight's size is ever written.

`DOT_IN_FLOAT32`: Triton's interpreter multiplies the bit patterns of bfloat16 operands of `tl.dot`
as integers, so there both are made float32 first. Compiled code never does that.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gemv(
    x_ptr,
    w_ptr,
    scale_ptr,
    y_ptr,
    rows,
    columns,
    PER_ROW: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y (N,) = w (N, K) @ x (K,). WHOLE: columns is a multiple of BLOCK_K."""
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    inside = n < rows
    sums = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, columns, BLOCK_K):
        here = start + k
        places = w_ptr + n[:, None] * columns + here[None, :]
        if WHOLE:
            x = tl.load(x_ptr + here)
            w = tl.load(places, mask=inside[:, None], other=0.0)
        else:
            x = tl.load(x_ptr + here, mask=here < columns, other=0.0)
            w = tl.load(places, mask=inside[:, None] & (here < columns)[None, :], other=0.0)
        sums += w.to(tl.float32) * x.to(tl.float32)[None, :]
    scale = tl.load(scale_ptr + n, mask=inside, other=0.0) if PER_ROW else tl.load(scale_ptr)
    y = tl.sum(sums, 1) * scale
    tl.store(y_ptr + n, y.to(tl.bfloat16), mask=inside)


@triton.jit
def gemm(
    x_ptr,
    w_ptr,
    scale_ptr,
    y_ptr,
    batch,
    rows,
    columns,
    PER_ROW: tl.constexpr,
    WHOLE: tl.constexpr,
    DOT_IN_FLOAT32: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """y (M, N) = x (M, K) @ w (N, K).T for small M. WHOLE: columns is a multiple of BLOCK_K."""
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    rows_x, rows_w = (m < batch)[:, None], (n < rows)[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, columns, BLOCK_K):
        here = (start + k)[None, :]
        x_places = x_ptr + m[:, None] * columns + here
        w_places = w_ptr + n[:, None] * columns + here
        if WHOLE:
            x = tl.load(x_places, mask=rows_x, other=0.0)
            w = tl.load(w_places, mask=rows_w, other=0.0)
        else:
            x = tl.load(x_places, mask=rows_x & (here < columns), other=0.0)
            w = tl.load(w_places, mask=rows_w & (here < columns), other=0.0)
        if DOT_IN_FLOAT32:
            sums += tl.dot(x.to(tl.float32), tl.trans(w.to(tl.float32)), input_precision="ieee")
        else:
            sums += tl.dot(x, tl.trans(w.to(tl.bfloat16)))
    if PER_ROW:
        sums *= tl.load(scale_ptr + n, mask=n < rows, other=0.0)[None, :]
    else:
        sums *= tl.load(scale_ptr)
    y_places = y_ptr + m[:, None] * rows + n[None, :]
    tl.store(y_places, sums.to(tl.bfloat16), mask=rows_x & (n < rows)[None, :])
