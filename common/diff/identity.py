"""Do two sides hold the same thing? The same bytes, or the same work at another time."""

from __future__ import annotations

import numpy as np

from common.diff.sides import Side
from common.traces.byte_source import open_file
from common.traces.model import GpuWork, HostSpans, Int64, Trace

_BLOCK = 1 << 20


def identical(a: Side, b: Side) -> bool:
    """True for one file given twice, for equal bytes, and for equal traces shifted in time."""
    return same_bytes(a, b) or same_work(a.trace, b.trace)


def same_bytes(a: Side, b: Side) -> bool:
    if a.path.stat().st_size != b.path.stat().st_size:
        return False
    if a.path.samefile(b.path):
        return True
    with open_file(a.path) as one, open_file(b.path) as other:
        while block := one.read(_BLOCK):
            if block != other.read(_BLOCK):
                return False
    return True


def same_work(a: Trace, b: Trace) -> bool:
    """Equal names, durations, devices, streams and threads, at equal distances in time.

    Two traces that recorded nothing have nothing that could be equal: False.
    """
    if len(a.gpu) != len(b.gpu) or len(a.host) != len(b.host) or not len(a.gpu) + len(a.host):
        return False
    shift = _origin(b) - _origin(a)
    return _same_rows(a, b, a.gpu, b.gpu, shift) and _same_rows(a, b, a.host, b.host, shift)


def _origin(trace: Trace) -> int:
    starts = [side.start_ns.min() for side in (trace.gpu, trace.host) if len(side)]
    return int(min(starts))


def _same_rows(
    a: Trace, b: Trace, rows_a: GpuWork | HostSpans, rows_b: GpuWork | HostSpans, shift: int
) -> bool:
    numbers = {text: number for number, text in enumerate(b.names)}
    in_b = np.array([numbers.get(text, -1) for text in a.names] or [-1], dtype=np.int64)
    columns_a, columns_b = _columns(rows_a), _columns(rows_b)
    columns_a[:2] = in_b[rows_a.name], rows_a.start_ns + shift
    for columns in (columns_a, columns_b):
        columns[-1] = _by_first_use(columns)
    return np.array_equal(_ordered(columns_a), _ordered(columns_b))


def _columns(rows: GpuWork | HostSpans) -> Int64:
    """Name, start, duration and place of each row."""
    place = [rows.thread] if isinstance(rows, HostSpans) else [rows.device, rows.stream]
    return np.stack((rows.name, rows.start_ns, rows.duration_ns, *place))


def _by_first_use(columns: Int64) -> Int64:
    """Threads or streams numbered in the order in which they begin: their own numbers mean nothing.

    Of two that begin at once the order of name and duration says which is the first.
    """
    last = columns[-1]
    order = np.lexsort((*columns[3:-1], columns[0], columns[2], columns[1]))
    _, first, inverse = np.unique(last[order], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    found: Int64 = np.empty(len(last), dtype=np.int64)
    found[order] = rank[inverse.reshape(-1)]
    return found


def _ordered(columns: Int64) -> Int64:
    """What began at once stands in the order of the file, which means nothing."""
    return columns[:, np.lexsort(columns)]
