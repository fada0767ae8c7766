"""Is the turned product the same product, and taken only where it was measured to be better?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from common.workloads.few_rows import (
    FEW,
    FEW_OF_TALL,
    FewRowsLinear,
    expert_turned_rows,
    padded_rows,
    product,
    product_into,
    times_turned,
    turned_rows,
)

TALL, WIDE = (640, 256), (256, 640)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("rows", [*range(1, 9), 15, 16, 17, 96, 97])
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


def test_it_is_turned_for_few_rows_of_large_float32_matrices_alone(
    threads: Callable[[int], None],
) -> None:
    tall, wide = drawn(*TALL), drawn(*WIDE)
    threads(2)
    given = {rows: turned_rows(rows, tall) for rows in range(10)}
    assert given == {0: 0, 1: 2, **{n: n for n in range(2, FEW_OF_TALL + 1)}, 7: 0, 8: 0, 9: 0}
    assert [rows for rows in range(10) if turned_rows(rows, wide)] == list(range(2, FEW + 1))
    assert not turned_rows(2, tall.bfloat16()), "measured for float32 only"
    assert not turned_rows(2, tall[:64]), "a small matrix lies in a cache"
    assert not turned_rows(2, tall.to("meta")), "a GPU has kernels of its own"


def test_several_threads_share_a_large_matrix_by_its_own_rows(
    threads: Callable[[int], None],
) -> None:
    large, wide = torch.zeros(2048, 512), torch.zeros(512, 2048)
    threads(2)
    assert [turned_rows(n, large) for n in (6, 7, 16, 17, 96, 97)] == [6, 16, 16, 24, 96, 0]
    assert not turned_rows(16, wide), "turning its result back was not measured to pay"
    stack = torch.zeros(3, 2048, 512)
    assert [expert_turned_rows(n, stack) for n in (6, 7, 40, 192, 193)] == [0, 16, 40, 192, 0]
    assert not expert_turned_rows(16, stack.bfloat16()) and not expert_turned_rows(
        16, stack[:, :64]
    )
    threads(1)
    assert [turned_rows(n, large) for n in (6, 7, 16)] == [6, 0, 0]
    assert not expert_turned_rows(16, stack)


def test_rows_are_padded_to_what_the_kernel_takes() -> None:
    assert [padded_rows(n) for n in (1, 8, 16, 17, 24, 25)] == [16, 16, 16, 24, 24, 32]


def test_a_quantised_weight_keeps_its_own_product() -> None:
    class Stored(torch.Tensor):
        pass

    assert not turned_rows(2, drawn(*TALL).as_subclass(Stored))
    assert not expert_turned_rows(16, torch.zeros(2, 2048, 512).as_subclass(Stored))


def test_a_row_does_not_depend_on_its_neighbours_but_for_rounding() -> None:
    """A twin or a turned product must not mix rows: wrong on purpose, the rows' order is off."""
    x, weight = drawn(3, 256), drawn(*TALL)
    together = product(x, weight)
    alone = torch.cat([product(x[i : i + 1], weight) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert not torch.allclose(together.flip(0), alone, atol=1e-1)
