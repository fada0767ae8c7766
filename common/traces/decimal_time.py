"""How does a printed number of microseconds become nanoseconds, exactly?

By moving the decimal point in the text. A float of 64 bits holds 15 to 17 digits; an absolute epoch
in microseconds with three decimals has 19, so no float may stand in between. Many numbers
are converted at once: without their points the texts are integers, which NumPy reads in C, and
a power of ten per number puts the point back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

import msgspec
import numpy as np

from common.traces.model import Bool, Int64

LONGEST_NS = 366 * 86_400 * 10**9  # nothing that a profiler recorded lasts a year
FARTHEST_NS = 1 << 62  # 146 years: beyond it a start plus a duration may not fit 64 bits
_WHOLE_DIGITS = 20  # of anything nearer than that, and one more
_NUMBER = re.compile(rb"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,4})?")
_POWERS = np.array([1000, 100, 10, 1], dtype=np.int64)
_COMMA, _POINT = ord(","), ord(".")


@dataclass(frozen=True)
class Times:
    """`ns` where `valid`; `finer` numbers had digits below a nanosecond and were rounded."""

    ns: Int64
    valid: Bool
    finer: int


def nanoseconds(text: bytes) -> tuple[int, bool] | None:
    """(integer ns, whether it was exact) of decimal microseconds; None if that is no finite number.

    Rounds half to even below one nanosecond. Numbers in quotes count as numbers. What lies beyond
    FARTHEST_NS (either sign) becomes that.
    """
    bare = text.strip(b' \t\r\n"')
    if not _NUMBER.fullmatch(bare):
        return None
    exact = Context(prec=len(bare) + _WHOLE_DIGITS, Emax=99_999, Emin=-99_999)
    value = exact.create_decimal(bare.decode("ascii")).scaleb(3, exact)
    if abs(value) >= FARTHEST_NS:
        return (FARTHEST_NS if value > 0 else -FARTHEST_NS), True
    whole = value.quantize(Decimal(1), ROUND_HALF_EVEN, exact)
    return int(whole), whole == value


def nanoseconds_of(texts: Sequence[bytes | msgspec.Raw]) -> Times:
    """Exact ns of many printed numbers of microseconds, in one pass where all are plain."""
    fast = _plain(b",".join(texts), len(texts)) if texts else None
    if fast is not None:
        return Times(fast, np.ones(len(texts), dtype=np.bool_), 0)
    found = [nanoseconds(bytes(text)) for text in texts]
    return Times(
        np.array([0 if f is None else f[0] for f in found], dtype=np.int64),
        np.array([f is not None for f in found], dtype=np.bool_),
        sum(f is not None and not f[1] for f in found),
    )


def _plain(joined: bytes, count: int) -> Int64 | None:
    """All numbers at once, or None unless each is plain digits with at most three decimals."""
    if joined.translate(None, b"0123456789.,"):
        return None
    text = np.frombuffer(joined + b",", dtype=np.uint8)
    ends = np.flatnonzero(text == _COMMA)
    if len(ends) != count:
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts
    decimals = np.zeros(count, dtype=np.int64)
    points = np.flatnonzero(text == _POINT)
    if len(points):
        owner = np.searchsorted(ends, points)
        if len(owner) > 1 and (owner[1:] == owner[:-1]).any():
            return None  # two points in one number
        decimals[owner] = ends[owner] - points - 1
        if int(decimals.max()) > 3 or (points == starts[owner]).any():
            return None
        lengths[owner] -= 1
        joined = joined.replace(b".", b"")
    whole_digits = lengths - decimals
    if int(whole_digits.min()) < 1 or int(whole_digits.max()) > 16:
        return None
    values = np.fromstring(joined, dtype=np.int64, sep=",")
    if len(values) != count:
        return None
    if int(whole_digits.max()) == 16:
        # 16 digits before the point may be more than 64 bits hold once they are nanoseconds (and
        # NumPy stops at the largest integer, which is out of range here as well).
        whole = values // (1000 // _POWERS[decimals])
        if int(whole.max()) >= FARTHEST_NS // 1000:
            return None
    return values * _POWERS[decimals]
