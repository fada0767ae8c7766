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
    joined = b",".join(texts)
    if texts and is_plain(joined, len(texts)):
        return nanoseconds_of_plain([joined], [len(texts)])
    return _one_by_one([bytes(text) for text in texts])


def is_plain(joined: bytes, count: int) -> bool:
    """Whether numbers joined by commas hold nothing but digits and points, and no commas."""
    return not joined.translate(None, b"0123456789.,") and joined.count(b",") == count - 1


def nanoseconds_of_plain(joined: Sequence[bytes], counts: Sequence[int]) -> Times:
    """As `nanoseconds_of`, of groups of numbers joined by commas, each of them plain.

    A group with an odd number does not slow down the others.
    """
    fast = _plain(b",".join(joined), sum(counts))
    if fast is not None:
        return Times(fast, np.ones(len(fast), dtype=np.bool_), 0)
    if len(joined) == 1:
        return _one_by_one(joined[0].split(b","))
    parts = [
        nanoseconds_of_plain([text], [count]) for text, count in zip(joined, counts, strict=True)
    ]
    return Times(
        np.concatenate([part.ns for part in parts]),
        np.concatenate([part.valid for part in parts]),
        sum(part.finer for part in parts),
    )


def _one_by_one(texts: Sequence[bytes]) -> Times:
    found = [nanoseconds(text) for text in texts]
    return Times(
        np.array([0 if f is None else f[0] for f in found], dtype=np.int64),
        np.array([f is not None for f in found], dtype=np.bool_),
        sum(f is not None and not f[1] for f in found),
    )


def _plain(joined: bytes, count: int) -> Int64 | None:
    """All numbers at once, or None unless each is plain digits with at most three decimals."""
    text = np.frombuffer(joined + b",", dtype=np.uint8)
    ends = np.flatnonzero(text == _COMMA)
    if len(ends) != count:
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts
    decimals = np.zeros(count, dtype=np.int64)
    points = joined.count(b".")
    if points == count and int(lengths.min()) > 3 and (text[ends - 4] == _POINT).all():
        decimals += 3  # as Kineto prints them: one point in each, before the last three digits
        lengths -= 1
    elif points:
        at = np.flatnonzero(text == _POINT)
        owner = np.searchsorted(ends, at)
        if len(owner) > 1 and (owner[1:] == owner[:-1]).any():
            return None  # two points in one number
        decimals[owner] = ends[owner] - at - 1
        if int(decimals.max()) > 3 or (at == starts[owner]).any():
            return None
        lengths[owner] -= 1
    whole_digits = lengths - decimals
    if int(whole_digits.min()) < 1 or int(whole_digits.max()) > 16:
        return None
    values = np.fromstring(joined.replace(b".", b""), dtype=np.int64, sep=",")
    if len(values) != count:
        return None
    if int(whole_digits.max()) == 16:
        # 16 digits before the point may be more than 64 bits hold once they are nanoseconds (and
        # NumPy stops at the largest integer, which is out of range here as well).
        whole = values // (1000 // _POWERS[decimals])
        if int(whole.max()) >= FARTHEST_NS // 1000:
            return None
    return values * _POWERS[decimals]
