"""How much time is covered by at least one interval? Unions of [start, end) in integer ns."""

from __future__ import annotations

import numpy as np

from common.traces.model import Int64


def union_ns(starts_ns: Int64, ends_ns: Int64) -> int:
    """Length covered by at least one of n intervals; 0 for none."""
    if not len(starts_ns):
        return 0
    order = np.argsort(starts_ns, kind="stable")
    starts, reached = starts_ns[order], np.maximum.accumulate(ends_ns[order])
    gaps = np.maximum(starts[1:] - reached[:-1], 0)
    return int(reached[-1]) - int(starts[0]) - int(gaps.sum())


def total_ns(lengths_ns: Int64) -> int:
    """Exact sum of lengths of 0 or more, also where it does not fit 64 bits."""
    return (int((lengths_ns >> 24).sum()) << 24) + int((lengths_ns & 0xFFFFFF).sum())
