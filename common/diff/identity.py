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
    """Equal names, durations, devices and streams in equal order, at equal distances in time.

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
    if not np.array_equal(rows_a.start_ns + shift, rows_b.start_ns):
        return False
    if not np.array_equal(rows_a.duration_ns, rows_b.duration_ns):
        return False
    if isinstance(rows_a, GpuWork) and isinstance(rows_b, GpuWork):
        places = ((rows_a.device, rows_b.device), (rows_a.stream, rows_b.stream))
        if not all(np.array_equal(of_a, of_b) for of_a, of_b in places):
            return False
    return _same_names(a, b, rows_a.name, rows_b.name)


def _same_names(a: Trace, b: Trace, names_a: Int64, names_b: Int64) -> bool:
    numbers = {text: number for number, text in enumerate(b.names)}
    in_b = np.array([numbers.get(text, -1) for text in a.names] or [-1], dtype=np.int64)
    return np.array_equal(in_b[names_a], names_b) if len(names_a) else True
