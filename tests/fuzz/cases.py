"""Which cases are there? One function per format, and how often each is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fuzz import memory_cases, nsys_cases, text_cases, torch_cases
from fuzz.case import Case
from fuzz.real_seeds import RealSeed

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
    "memory": memory_cases.SEED_BYTES,
    "ncu": text_cases.RAW_BYTES,
}
# The same changes, from a slice of a real file.
_FROM_REAL: Mapping[str, Callable[[random.Random, Any], Case]] = {
    "torch": torch_cases.torch_case,
    "nsys": nsys_cases.nsys_case,
    "memory": memory_cases.memory_case,
    "ncu": text_cases.real_ncu_case,
    "compiled": text_cases.compiled_case,
}
REAL_SHARE = 0.35
_NAMES, _SHARES = list(WEIGHTS), [share for share, _ in WEIGHTS.values()]


def make(seed: int, number: int, only: str | None = None, real: Sequence[RealSeed] = ()) -> Case:
    """The same case for the same numbers and the same real files, on every machine."""
    draw = random.Random(seed << 40 | number)
    name = draw.choices(_NAMES, _SHARES)[0]
    name = only or name
    fitting = [one for one in real if one.format == name]
    if not fitting or draw.random() >= REAL_SHARE:
        return WEIGHTS[name][1](draw)
    chosen = draw.choice(fitting)
    made = _FROM_REAL[name](draw, chosen.held)
    return replace(made, seed=chosen.name)
