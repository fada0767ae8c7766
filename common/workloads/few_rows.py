"""How is a large matrix multiplied by one, two or three rows on a CPU, without reading it thrice?

`x @ weight.T` with up to three rows is done by MKL's `sgemm` as so many matrix-vector products: the
matrix is read once *per row*, by one thread. Three rows then take longer than four, for which a
blocked kernel is chosen (an output head of 20 MB, microseconds of CPU time on one thread,
measured-cpu, AMD EPYC without AVX-512 in torch, MKL 2024.2, machine shared with others):

    rows                  1       2       3       4       6       8
    x @ weight.T      1,950   4,480  10,000   3,220   3,650   3,810
    weight @ x.T          -   1,250   1,830   1,950   2,890   3,200

`weight @ x.T` takes the blocked kernel from two rows on and reads the matrix once; a single row is
given a twin for it (two threads share that product, and not the other). The gain ends at four rows
where the matrix has fewer rows than columns, at seven otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW, FEW_OF_TALL = 3, 6
LEAST_WEIGHTS = 1 << 16  # below, the matrix lies in a core's own cache, and calls cost more


def turned(rows: int, weight: Tensor) -> bool:
    """Whether `weight @ x.T` is the better product for so many rows of x."""
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return False
    if type(weight) not in (Tensor, nn.Parameter) or weight.numel() < LEAST_WEIGHTS:
        return False  # quantised weights bring products of their own
    tall = weight.shape[0] > weight.shape[1]
    return 1 <= rows <= (FEW_OF_TALL if tall else FEW)


def times_turned(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T` (rows, outputs), as a view of `weight @ x.T`."""
    if x.shape[0] == 1:
        return torch.mm(weight, x.repeat(2, 1).t())[:, :1].t()
    return torch.mm(weight, x.t()).t()


def product_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """`x @ weight.T` into `out` (rows, outputs)."""
    if turned(x.shape[0], weight):
        out.copy_(times_turned(x, weight))
    else:
        torch.mm(x, weight.t(), out=out)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T` for x of (rows, inputs), contiguous."""
    if turned(x.shape[0], weight):
        return times_turned(x, weight).contiguous()
    return F.linear(x, weight)


class FewRowsLinear(nn.Linear):
    """`nn.Linear` by `product`: the same parameters, the same result but for rounding."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if self.bias is None and turned(rows, self.weight):
            return product(x.reshape(rows, -1), self.weight).view(*x.shape[:-1], -1)
        return super().forward(x)
