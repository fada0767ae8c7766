"""How is a large matrix multiplied by a few rows on a CPU without reading it once per row?

`x @ weight.T` with two or three rows costs MKL's `sgemm` as much as so many matrix-vector products,
each of which reads the whole matrix. Three rows then take longer than four, where a blocked kernel
takes over. `weight @ x.T` takes the blocked kernel from two rows on; a single row is
given a twin for it. Microseconds of CPU time on one thread, weights from memory (measured-cpu: AMD
EPYC without AVX-512, MKL 2024.2, medians, the two in turn):

    rows                            1      2      3      4      5      6      7      8
    10,000 x 512  x @ weight.T  2,039  4,443  6,791  3,565  4,152  3,858  4,338  4,166
                  weight @ x.T  1,579  1,305  2,052  2,075  2,572  2,983  3,585  3,279
    2,048 x 512   x @ weight.T    408    667    762    528    626    616    740    697
                  weight @ x.T    329    269    385    524    512    591    745    697
    512 x 1,024   x @ weight.T    161    248    297    257    336    330    342    315
                  weight @ x.T    176    143    206    338    472    544    623    602

So the turned product is taken for up to three rows, and up to six where the matrix has at least as
many rows as columns. MKL does not share the product of a single row among threads, but that of two;
a twin is worth it only where there are many rows to share (on two threads 0.61, 0.70 and 1.53 times
as long for the three shapes; measured-cpu, table `few-rows` of the recorded run).
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
    if weight.shape[0] >= weight.shape[1]:
        return 1 <= rows <= FEW_OF_TALL
    return 2 <= rows <= FEW  # the single row of a wide matrix is slower with a twin


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
