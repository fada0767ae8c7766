"""Is the turned product the same product, and taken only where it was measured to be better?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.workloads.few_rows import (
    FEW,
    FEW_OF_TALL,
    FewRowsLinear,
    product,
    product_into,
    times_turned,
    turned,
)

TALL, WIDE = (640, 256), (256, 640)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("rows", range(1, 9))
def test_every_form_is_the_product_of_float64(rows: int, shape: tuple[int, int]) -> None:
    x, weight = drawn(rows, shape[1]), drawn(*shape)
    expected = x.double() @ weight.double().T
    into = torch.full((rows, shape[0]), torch.nan)
    product_into(into, x, weight)
    linear = FewRowsLinear(shape[1], shape[0], bias=False).requires_grad_(False)
    linear.weight.copy_(weight)
    for got in (product(x, weight), into, times_turned(x, weight), linear(x)):
        assert got.shape == expected.shape
        assert (got.double() - expected).norm() / expected.norm() < 1e-6
    assert product(x, weight).is_contiguous()


def test_a_linear_takes_any_leading_shape() -> None:
    linear = FewRowsLinear(256, 640, bias=False).requires_grad_(False)
    plain = nn.functional.linear
    for shape in ((3, 1, 256), (2, 2, 256), (256,), (1, 9, 256)):
        x = drawn(*shape)
        assert torch.allclose(linear(x), plain(x, linear.weight), atol=1e-5)
    with_bias = FewRowsLinear(256, 640).requires_grad_(False)
    assert torch.equal(with_bias(x), plain(x, with_bias.weight, with_bias.bias))


def test_it_is_turned_for_few_rows_of_large_float32_matrices_alone() -> None:
    tall, wide = drawn(*TALL), drawn(*WIDE)
    assert [rows for rows in range(10) if turned(rows, tall)] == list(range(1, FEW_OF_TALL + 1))
    assert [rows for rows in range(2, 10) if turned(rows, wide)] == list(range(2, FEW + 1))
    assert not turned(2, tall.bfloat16()), "measured for float32 only"
    assert not turned(2, tall[:64]), "a small matrix lies in a cache"
    assert not turned(2, tall.to("meta")), "a GPU has kernels of its own"


def test_a_quantised_weight_keeps_its_own_product() -> None:
    class Stored(torch.Tensor):
        pass

    assert not turned(2, drawn(*TALL).as_subclass(Stored))


def test_a_row_does_not_depend_on_its_neighbours_but_for_rounding() -> None:
    """A twin or a turned product must not mix rows: wrong on purpose, the rows' order is off."""
    x, weight = drawn(3, 256), drawn(*TALL)
    together = product(x, weight)
    alone = torch.cat([product(x[i : i + 1], weight) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert not torch.allclose(together.flip(0), alone, atol=1e-1)
