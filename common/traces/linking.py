"""Which runtime call launched which work on a GPU? Joined by correlation id, in NumPy."""

from __future__ import annotations

import numpy as np

from common.traces.model import UNKNOWN, Int64
from common.traces.ordering import distinct, occurring, start_order, taken


def latest_call(keys: Int64, starts_ns: Int64, call_keys: Int64, call_starts_ns: Int64) -> Int64:
    """Index of the call with the same key, UNKNOWN (-1) where there is none; key -1 matches none.

    Ids can repeat (several processes, a profiler that was restarted): the call chosen is the last
    that began at or before the work did, or the first of all if none did.
    """
    found = np.full(len(keys), UNKNOWN, dtype=np.int64)
    usable = np.flatnonzero(call_keys != UNKNOWN)
    if not len(usable) or not len(keys):
        return found
    order = taken(usable, start_order(call_keys[usable], (call_starts_ns[usable],)))
    by_key, by_start = call_keys[order], call_starts_ns[order]
    first = np.searchsorted(by_key, keys, "left")
    end = np.searchsorted(by_key, keys, "right")
    has = (end > first) & (keys != UNKNOWN)
    low, high = first[has], end[has]
    earliest, wanted = low.copy(), starts_ns[has]
    while (open_ := low < high).any():  # bisection of all groups at once
        middle = (low + high) // 2
        before = open_ & (by_start[np.minimum(middle, len(by_start) - 1)] <= wanted)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    found[has] = order[np.maximum(low - 1, earliest)]
    return found


def paired_keys(
    first: Int64, second: Int64, other_first: Int64, other_second: Int64
) -> tuple[Int64, Int64]:
    """One key for each pair (process, correlation) of two tables; equal pairs have equal keys."""
    size = len(first)
    firsts, seconds = np.concatenate((first, other_first)), np.concatenate((second, other_second))
    left = distinct(firsts)[1]
    right = seconds
    if len(seconds) and (int(seconds.min()) < UNKNOWN or int(seconds.max()) >= 1 << 32):
        right = distinct(seconds)[1]
    keys = ((left << 32) | (right & 0xFFFFFFFF)).astype(np.int64)
    keys[seconds == UNKNOWN] = UNKNOWN
    return keys[:size], keys[size:]


def repeated(keys: Int64) -> int:
    """How many keys occur again after their first time, UNKNOWN aside."""
    known = keys[keys != UNKNOWN]
    return len(known) - len(occurring(known))
