"""What was a host thread doing at a given moment? Lookups for many (thread, time) at once.

Spans are taken one nesting level at a time: within one level and thread they do not overlap, so
that a binary search finds the span that is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import numpy as np

from common.traces.model import UNKNOWN, Bool, HostSpans, Int64, Trace
from common.traces.wrappers import is_wrapper

DEEPEST = 64  # levels that are looked into; a recursion may nest thousands


class Level(msgspec.Struct, frozen=True):
    """Spans that do not overlap within a thread: rows of the host table, by (thread, start)."""

    rows: Int64
    thread: Int64
    start_ns: Int64
    end_ns: Int64

    def begun(self, threads: Int64, times_ns: Int64, before: bool = False) -> Int64:
        """Position just behind the last span of the thread that began by then (or before it)."""
        found = np.zeros(len(threads), dtype=np.int64)
        side: str = "left" if before else "right"
        for thread, asked in _by_value(threads):
            low, high = np.searchsorted(self.thread, [thread, thread + 1])
            own = self.start_ns[low:high]
            found[asked] = low + np.searchsorted(own, times_ns[asked], side)  # type: ignore[call-overload]
        return found

    def own(self, threads: Int64, places: Int64) -> Int64:
        """The positions, but UNKNOWN for one before the first or of another thread."""
        if not len(self.rows):
            return np.full(len(threads), UNKNOWN, dtype=np.int64)
        return np.where((places >= 0) & (self.thread[places] == threads), places, UNKNOWN)

    def open_at(self, threads: Int64, times_ns: Int64) -> Int64:
        """Position of the span that is open; UNKNOWN where none is."""
        at = self.own(threads, self.begun(threads, times_ns) - 1)
        if not len(self.rows):
            return at
        return np.where((at != UNKNOWN) & (self.end_ns[at] > times_ns), at, UNKNOWN)


def named(trace: Trace, used: Int64, *words: str) -> Bool:
    """For every name, whether it has one of the words in it; asked only of the names `used`."""
    return _told(trace, used, lambda name: any(word in name for word in words))


def wrappers(trace: Trace, used: Int64) -> Bool:
    """For every name, whether it only encloses what does the work; only of the names `used`."""
    return _told(trace, used, is_wrapper)


def _told(trace: Trace, used: Int64, tells: Callable[[str], bool]) -> Bool:
    occurs: Bool = np.zeros(len(trace.names), dtype=np.bool_)
    occurs[used] = True
    for number in np.flatnonzero(occurs).tolist():
        occurs[number] = tells(trace.names[number])
    return occurs


def outermost(host: HostSpans, rows: Int64) -> Level:
    """Those of the rows that no other of them encloses (or overlaps from before)."""
    return _level(host, rows, _is_outermost(host, rows))


def levels(host: HostSpans, rows: Int64) -> Iterator[Level]:
    """The rows by depth, outermost first; DEEPEST levels at most."""
    for _ in range(DEEPEST):
        if not len(rows):
            return
        outer = _is_outermost(host, rows)
        yield _level(host, rows, outer)
        rows = rows[~outer]


def _level(host: HostSpans, rows: Int64, chosen: Bool) -> Level:
    picked = rows[chosen]
    return Level(picked, host.thread[picked], host.start_ns[picked], host.end_ns[picked])


def _is_outermost(host: HostSpans, rows: Int64) -> Bool:
    """`rows` ascend, and the table is ordered by (thread, start, longest first)."""
    chosen: Bool = np.ones(len(rows), dtype=np.bool_)
    threads, starts, ends = host.thread[rows], host.start_ns[rows], host.end_ns[rows]
    edges = [0, *(np.flatnonzero(np.diff(threads)) + 1).tolist(), len(rows)]
    for low, high in pairwise(edges):
        reached = np.maximum.accumulate(ends[low : high - 1])
        chosen[low + 1 : high] = starts[low + 1 : high] >= reached
    return chosen


def _by_value(values: Int64) -> Iterator[tuple[int, Int64]]:
    """(value, where it stands) for every value that occurs."""
    if not len(values):
        return
    if (values == values[0]).all():
        yield int(values[0]), np.arange(len(values))
        return
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    edges = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(values)]
    for low, high in pairwise(edges):
        yield int(ordered[low]), order[low:high]
