"""What is the fastest bfloat16 to compare with? Our own GEMV in a model, and the one-row formula.

`use_gemv_(module)` makes every `nn.Linear` multiply one row of activations by our own kernel, with
its weight on huge pages; more rows take torch's product. `decompose_one_row` lets Inductor write a
product with one row as multiply-and-sum on a CPU too, as it does by itself on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .operators import bf16_gemv, described, on_huge_pages


class GemvLinear(nn.Linear):
    """A bfloat16 linear layer. Made from an `nn.Linear` by `use_gemv_`."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != self.in_features:
            return nn.functional.linear(x, self.weight, self.bias)
        out: Tensor = bf16_gemv(x.reshape(1, self.in_features), self.weight)
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features)


@torch.no_grad()
def use_gemv_(module: nn.Module) -> None:
    """Replace every plain `nn.Linear` in `module` (itself included). ValueError: not bfloat16."""
    for each in module.modules():
        if type(each) is not nn.Linear:
            continue
        if each.weight.dtype != torch.bfloat16:
            raise ValueError(f"a weight is {described(each.weight)}; convert it to bfloat16")
        each.weight = nn.Parameter(on_huge_pages(each.weight), requires_grad=False)
        each.__class__ = GemvLinear


def decompose_one_row() -> None:
    """From now on in this process: `mm` with one row is compiled as a float32 multiply-and-sum."""
    from torch._inductor import decomposition

    table: Any = decomposition.decompositions
    product = torch.ops.aten.mm.default
    before = table[product]

    def mm(a: Tensor, b: Tensor) -> Any:
        if a.shape[0] == 1:
            wide = a.float().unsqueeze(2) * b.float().unsqueeze(0)
            return wide.sum(1).to(a.dtype)
        return before(a, b)

    table[product] = mm
