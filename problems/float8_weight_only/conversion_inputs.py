"""Which codes do the passes of study conversion meet, and how is generated code changed?

What torch and Inductor generate for AVX-512 asks every 16 codes whether one of them is subnormal,
zero or NaN (`ATen/cpu/vec/vec512/vec512_float8.h`): a branch, which a core predicts. Weights that
torchao has quantised, each row by its largest, hold next to no such codes; bytes at random hold
one in most vectors. So the time of that code depends on what is stored, and has to be measured on
what a model stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

SEED = 20251120
LANES = 16  # codes that one 512-bit vector of float32 takes
LARGEST = 448.0  # of e4m3
NO_SUBNORMAL, EVERY_SECOND, HALF_AT_RANDOM, AT_RANDOM = (
    "no subnormal code",
    "a subnormal code in every second 16",
    "a subnormal code in half of the 16s, at random",
    "codes at random",
)


def quantised(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """(codes as uint8 (rows, columns), scales (rows, 1)): a normal weight as torchao stores it."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(SEED))
    scale = weight.abs().amax(1, keepdim=True) / LARGEST
    return (weight / scale).to(torch.float8_e4m3fn).view(torch.uint8), scale


def patterns(rows: int, columns: int) -> dict[str, Tensor]:
    """Name -> codes as uint8 that differ in how well a core can foretell that branch."""
    generator = torch.Generator().manual_seed(SEED)

    def codes(lowest: int) -> Tensor:
        # Positive, and no NaN; 8 is the smallest that is normal, 1 to 7 are subnormal.
        return torch.randint(lowest, 127, (rows, columns), dtype=torch.uint8, generator=generator)

    plain = codes(8)
    second, half = plain.view(-1, LANES).clone(), plain.view(-1, LANES).clone()
    second[::2, 0] = 3
    half[torch.rand(len(half), generator=generator) < 0.5, 0] = 3
    return {
        NO_SUBNORMAL: plain,
        EVERY_SECOND: second.view(rows, columns),
        HALF_AT_RANDOM: half.view(rows, columns),
        AT_RANDOM: codes(0),
    }


def subnormal_share(codes: Tensor) -> float:
    """Share of the vectors of 16 codes, as they lie, that hold a subnormal one."""
    magnitude = codes.view(-1, LANES) & 0x7F
    return float(((magnitude > 0) & (magnitude < 8)).any(1).float().mean())


BUFFERED_LOAD = re.compile(
    r"at::vec::Vectorized<int8_t>::loadu\(([^;]*?), static_cast<int64_t>\(16\)\)"
)
DIRECT_LOAD = (
    "at::vec::Vectorized<int8_t>(_mm256_castsi128_si256("
    r"_mm_loadu_si128(reinterpret_cast<const __m128i*>(\1))))"
)


@contextmanager
def loads_without_a_buffer() -> Iterator[list[str]]:
    """What is generated inside loads 16 int8 at once; yields the sources, once for each change.

    For 256 bits Inductor asks `Vectorized<int8_t>::loadu` for 16 of its 32 elements. It fills a
    buffer, copies the 16 into it and loads all 32 again: narrow stores before a wide load, which a
    core cannot forward (`ATen/cpu/vec/vec256/vec256_int.h`; for 512 bits it loads 16 directly).
    """
    from torch._inductor.async_compile import AsyncCompile

    changed: list[str] = []
    real = AsyncCompile.cpp_pybinding

    def edited(self: AsyncCompile, argtypes: list[str], source_code: str) -> Any:
        source_code, count = BUFFERED_LOAD.subn(DIRECT_LOAD, source_code)
        changed.extend([source_code] * count)
        return real(self, argtypes, source_code)

    with mock.patch.object(AsyncCompile, "cpp_pybinding", edited):
        yield changed
