"""How are long columns ordered and told apart, when most of them are nearly in order already?

General sorts are the dearest step of reading a large file, and rarely needed: profilers write in
the order of time, and ids, threads and devices are few small numbers. Results are exactly those
of `np.lexsort` and `np.unique`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.traces.model import Bool, Int64

_RADIX_VALUES = 1 << 16  # NumPy sorts 16-bit numbers in linear time


def distinct(values: Int64) -> tuple[Int64, Int64]:
    """(sorted distinct values, each row's place among them), as np.unique with return_inverse."""
    if not len(values):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    low, high = int(values.min()), int(values.max())
    if low == high:
        return np.array([low], dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    if high - low > 4 * len(values) + 1024:
        unique, inverse = np.unique(values, return_inverse=True)
        return unique, inverse.reshape(-1).astype(np.int64, copy=False)
    shifted = values - low
    there = np.zeros(high - low + 1, dtype=np.bool_)
    there[shifted] = True
    found = np.flatnonzero(there)
    place = np.zeros(len(there), dtype=np.int64)
    place[found] = np.arange(len(found))
    return found + low, place[shifted]


def occurring(values: NDArray[Any]) -> NDArray[Any]:
    """The sorted distinct values alone, of whole numbers.

    np.unique without a count asks whether its argument is masked, and loads numpy.ma to find out:
    2 % of the time that a small comparison takes.
    """
    return np.unique(values, return_counts=True)[0]


def grouped(places: Int64, groups: int) -> Int64:
    """Stable order that brings equal places (0 to groups - 1) together."""
    few = groups <= _RADIX_VALUES
    return np.argsort(places.astype(np.uint16) if few else places, kind="stable")


def start_order(start: Int64, ties: tuple[Int64, ...], group: Int64 | None = None) -> Int64 | None:
    """Stable order by (group, start, *ties); None where the rows are in that order already."""
    if len(start) < 2:
        return None
    tied: Bool = start[1:] == start[:-1]
    rising = (start[1:] > start[:-1]) | (tied & _not_falling(ties, tied))
    if group is not None:
        rising = ((group[1:] == group[:-1]) & rising) | (group[1:] > group[:-1])
    if rising.all():
        return None
    order = np.argsort(start, kind="stable")  # quick on the few rising runs of a file
    if group is not None:
        unique, places = distinct(group)
        if len(unique) > 1:
            order = order[grouped(places[order], len(unique))]
    _settle(order, start, ties, group)
    return order


def _not_falling(ties: tuple[Int64, ...], among: Bool) -> Bool:
    """Of each row but the last: do the ties not put the next one before it?"""
    decided = ~among
    good = np.ones(len(among), dtype=np.bool_)
    for column in ties:
        if decided.all():
            break
        good &= decided | (column[1:] >= column[:-1])
        decided |= column[1:] > column[:-1]
    return good


def _settle(order: Int64, start: Int64, ties: tuple[Int64, ...], group: Int64 | None) -> None:
    """Put rows of equal group and start in the order of the ties, in place."""
    starts = start[order]
    tied: Bool = starts[1:] == starts[:-1]
    if group is not None:
        groups = group[order]
        tied &= groups[1:] == groups[:-1]
    if not tied.any():
        return
    rows = np.zeros(len(order), dtype=np.bool_)
    rows[1:] = tied
    rows[:-1] |= tied
    at = np.flatnonzero(rows)
    run = np.cumsum(np.concatenate(([True], ~tied)))[at]
    picked = order[at]
    order[at] = picked[np.lexsort((*(column[picked] for column in reversed(ties)), run))]


def taken(column: Int64, order: Int64 | None) -> Int64:
    return column if order is None else column[order]
