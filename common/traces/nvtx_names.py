"""Which NVTX ranges are operators? Those that torch.autograd.profiler.emit_nvtx writes.

Their texts end in counters and shapes (`aten::bmm, seq = 12, op_id = 345, sizes = [...]`), other
ones at each call: without them they are the operators that a trace of torch.profiler would show.
"""

from __future__ import annotations

import re

import numpy as np

from common.traces.model import Bool, Int64
from common.traces.torch_columns import Interned

_EMITTED = re.compile(
    r"^(?P<name>.+?), (?:seq = \d+, )?op_id = \d+(?:, |$)|^(?P<early>.+?), seq = \d+"
)


def operator_name(text: str) -> str | None:
    """`aten::bmm` for a range of emit_nvtx, None for any other range."""
    found = _EMITTED.match(text)
    return (found["name"] or found["early"]) if found else None


def without_counters(names: Interned, numbers: Int64) -> tuple[Int64, Bool]:
    """(numbers of the names to show, which rows are operators) for the ranges' names."""
    unique, inverse = np.unique(numbers, return_inverse=True)
    texts = tuple(names)
    operators = [operator_name(texts[number]) for number in unique.tolist()]
    shown = [
        number if name is None else names[name]
        for number, name in zip(unique.tolist(), operators, strict=True)
    ]
    place = inverse.reshape(-1)
    is_operator = np.array([name is not None for name in operators], dtype=np.bool_)
    return np.array(shown, dtype=np.int64)[place], is_operator[place]
