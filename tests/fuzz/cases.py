"""Which cases are there? One function per format, and how often each is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from fuzz import memory_cases, nsys_cases, text_cases, torch_cases
from fuzz.case import Case

Maker = Callable[[random.Random], Case]
# In 100 cases. A database costs several times what the others do.
WEIGHTS: Mapping[str, tuple[int, Maker]] = {
    "torch": (28, torch_cases.torch_case),
    "nsys": (12, nsys_cases.nsys_case),
    "memory": (24, memory_cases.memory_case),
    "ncu": (26, text_cases.ncu_case),
    "compiled": (10, text_cases.compiled_case),
}
GOOD: Mapping[str, bytes] = {
    "torch": torch_cases.SEED_BYTES,
    "nsys": nsys_cases.seed(),
    "memory": memory_cases.SEED_BYTES[4],
    "ncu": text_cases.RAW_BYTES,
}
_NAMES, _MAKERS = list(WEIGHTS), [maker for _, maker in WEIGHTS.values()]
_SHARES = [share for share, _ in WEIGHTS.values()]


def make(seed: int, number: int, only: str | None = None) -> Case:
    """The same case for the same numbers, on every machine."""
    draw = random.Random(seed << 40 | number)
    maker = draw.choices(_MAKERS, _SHARES)[0]
    return (maker if only is None else WEIGHTS[only][1])(draw)
