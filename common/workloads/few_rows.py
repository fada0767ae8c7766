"""How is a large matrix multiplied by a few rows on a CPU: read once, and shared among threads?

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

On two threads there is a second reason: as it is written, the product of four rows and more gains
little by the second thread (512 x 1,024, 16 rows: 419 us on one thread, 422 on two); turned, a
third (435 and 281). With x padded to a multiple of 8 rows, and to 16 at least (the width of its
kernel: 15 rows take twice as long as 16), the turned product takes, as parts of the time of
`x @ weight.T` on two threads (measured-cpu, as above; with the result turned back, but for the last
two columns: there both products of an expert stay turned from end to end):

    rows   10,000 x 512   4,096 x 4,096   2,048 x 512   expert 512, 1,024   expert 4,096, 14,336
       7           0.69            0.75          0.67                0.70                   0.74
      12           1.01            0.66          0.84                0.72                   0.65
      16           0.81            0.57          0.80                0.71                   0.64
      32           0.74            0.60          0.85                0.77                   0.71
      64           0.89            0.68          0.86                0.86                   0.76
     128           1.02            0.80          0.99                0.87                   0.81
     256           1.12            0.97          1.08                0.94                   0.88

How much it is depends on the hour of this shared machine: two hours later, with products a third
faster, it was 0.84 to 0.96 for the expert of 512, 1,024, and 0.96 of a whole pass. Experts of 2.4
MB lost as much by being taken one by one as they gained, so smaller ones are not turned. On one
thread it gains nothing (1.0 to 1.7 times as long): not there either.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW, FEW_OF_TALL = 3, 6
LEAST_WEIGHTS = 1 << 16  # below, the matrix lies in a core's own cache, and calls cost more
KERNEL_ROWS, LEAST_PADDED = 8, 16
PADDED_TO, EXPERT_PADDED_TO = 96, 192  # rows up to which sharing by the weight's rows is better
LEAST_SHARED_WEIGHTS = 1 << 20  # below, what is done around the products costs what is gained


def padded_rows(rows: int) -> int:
    """Rows of x as the turned product's kernel takes them best."""
    return max(LEAST_PADDED, -(-rows // KERNEL_ROWS) * KERNEL_ROWS)


def has_plain_products(weight: Tensor) -> bool:
    """Whether products with this weight are the library's, for which the tables above stand."""
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return False
    return type(weight) in (Tensor, nn.Parameter)  # quantised ones bring products of their own


def turned_rows(rows: int, weight: Tensor) -> int:
    """The rows that x is to have for `weight @ x.T`; 0 where `x @ weight.T` is better."""
    if not rows or not has_plain_products(weight) or weight.numel() < LEAST_WEIGHTS:
        return 0
    tall = weight.shape[0] >= weight.shape[1]
    if rows <= (FEW_OF_TALL if tall else FEW):
        if rows == 1:
            return 2 if tall else 0  # the single row of a wide matrix is slower with a twin
        return rows
    shared = tall and weight.numel() >= LEAST_SHARED_WEIGHTS and rows <= PADDED_TO
    return padded_rows(rows) if shared and torch.get_num_threads() > 1 else 0


def expert_turned_rows(rows: int, gate_up: Tensor) -> int:
    """The rows that x is to have for both products of an expert, turned; 0 where they are not.

    `gate_up` (…, 2 f, h) may be a stack of experts. Fewer rows are left to `turned_rows`.
    """
    if not FEW_OF_TALL < rows <= EXPERT_PADDED_TO or torch.get_num_threads() == 1:
        return 0
    if not has_plain_products(gate_up):
        return 0
    large = gate_up.shape[-2] * gate_up.shape[-1] >= LEAST_SHARED_WEIGHTS
    return padded_rows(rows) if large else 0


def times_turned(x: Tensor, weight: Tensor, rows: int = 0) -> Tensor:
    """`x @ weight.T` (rows of x, outputs), as a view of `weight @ x.T`; x is padded to `rows`."""
    own = x.shape[0]
    rows = max(rows, own, 2)
    padded = F.pad(x, (0, 0, 0, rows - own)) if rows > own else x
    return torch.mm(weight, padded.t())[:, :own].t()


def product_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """`x @ weight.T` into `out` (rows, outputs)."""
    if rows := turned_rows(x.shape[0], weight):
        out.copy_(times_turned(x, weight, rows))
    else:
        torch.mm(x, weight.t(), out=out)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T` for x of (rows, inputs), contiguous."""
    if rows := turned_rows(x.shape[0], weight):
        return times_turned(x, weight, rows).contiguous()
    return F.linear(x, weight)


class FewRowsLinear(nn.Linear):
    """`nn.Linear` by `product`: the same parameters, the same result but for rounding."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if self.bias is None and turned_rows(rows, self.weight):
            return product(x.reshape(rows, -1), self.weight).view(*x.shape[:-1], -1)
        return super().forward(x)
