"""How does a printed number of microseconds become nanoseconds, exactly?

By moving the decimal point in the text. A float of 64 bits holds 15 to 17 digits; an absolute epoch
in microseconds with three decimals has 19, so no float may stand in between. Many numbers
are converted at once: without their points the texts are integers, of which eight digits fit a word
of 64 bits and become a number in three multiplications; a power of ten per number puts the point
back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.traces.model import Bool, Int64

UInt64 = NDArray[np.uint64]
LONGEST_NS = 366 * 86_400 * 10**9  # nothing that a profiler recorded lasts a year
FARTHEST_NS = 1 << 62  # 146 years: beyond it a start plus a duration may not fit 64 bits
_WHOLE_DIGITS = 20  # of anything nearer than that, and one more
_NUMBER = re.compile(rb"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,4})?")
_POWERS = np.array([1000, 100, 10, 1], dtype=np.int64)
_PLACES = np.array([100, 10, 1], dtype=np.int64)
_COMMA, _POINT, _NOUGHT, _NINE = b",.09"
_WORD = 8  # bytes
_ZERO, _LARGEST = np.uint64(0), np.uint64(np.iinfo(np.int64).max)
_DIGITS = np.uint64(0x0F0F0F0F0F0F0F0F)
_BITS_8, _BITS_16, _BITS_32 = np.uint64(8), np.uint64(16), np.uint64(32)
_TENS, _HUNDREDS, _TEN_THOUSANDS = np.uint64(10), np.uint64(100), np.uint64(10_000)
_BELOW_100 = np.uint64(0x00FF00FF00FF00FF)
_BELOW_10_000 = np.uint64(0x0000FFFF0000FFFF)
_BELOW_10_8 = np.uint64(0x00000000FFFFFFFF)


class Times(msgspec.Struct, frozen=True):
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
    text = np.frombuffer(joined, dtype=np.uint8)
    if b"-" in joined or b"/" in joined:  # the other two characters from comma to nine
        return False
    known: bool = int((text - np.uint8(_COMMA)).max(initial=0)) <= _NINE - _COMMA
    return known and int(np.count_nonzero(text == _COMMA)) == count - 1


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
    found = _of_one_width(joined, count)
    return _of_any_width(joined, count) if found is None else found


def _of_one_width(joined: bytes, count: int) -> Int64 | None:
    """Numbers that are printed with equally many digits, as starts mostly are; else None."""
    width, rest = divmod(len(joined) + 1, count)
    if rest:
        return None
    text = np.frombuffer(joined + b",", dtype=np.uint8).reshape(count, width)
    if (text[:, -1] != _COMMA).any():
        return None
    points, whole_digits = int(np.count_nonzero(text == _POINT)), width - 1
    if points:
        whole_digits -= 4  # as Kineto prints them: one point in each, before the last three digits
        if points != count or whole_digits < 1 or (text[:, whole_digits] != _POINT).any():
            return None
    if not 1 <= whole_digits <= 16:
        return None
    padded = b"0" * _WORD + joined  # there are eight bytes before the end of the first as well
    whole: UInt64 = np.zeros(count, dtype=np.uint64)
    for known in range(0, whole_digits, _WORD):
        at = whole_digits - known  # of the padded text: eight bytes before that end
        words: UInt64 = np.ndarray(count, dtype="<u8", buffer=padded, offset=at, strides=(width,))
        foreign = np.uint64(8 * max(0, _WORD - (whole_digits - known)))
        whole += _number(words, foreign) * np.uint64(10**known)
    if whole_digits == 16 and int(whole.max()) >= FARTHEST_NS // 1000:
        return None
    ns: Int64 = whole.astype(np.int64) * 1000
    if points:
        ns += (text[:, -4:-1] - np.uint8(_NOUGHT)).astype(np.int64) @ _PLACES
    return ns


def _of_any_width(joined: bytes, count: int) -> Int64 | None:
    text = np.frombuffer(joined + b",", dtype=np.uint8)
    ends = np.flatnonzero(text == _COMMA)
    if len(ends) != count:
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts
    decimals = np.zeros(count, dtype=np.int64)
    points = int(np.count_nonzero(text == _POINT))
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
    values = _integers(joined.replace(b".", b"") if points else joined, lengths)
    if int(whole_digits.max()) == 16:
        # 16 digits before the point may be more than 64 bits hold once they are nanoseconds (and
        # NumPy stops at the largest integer, which is out of range here as well).
        whole = values // (1000 // _POWERS[decimals])
        if int(whole.max()) >= FARTHEST_NS // 1000:
            return None
    return values * _POWERS[decimals]


def _integers(joined: bytes, lengths: Int64) -> Int64:
    """Integers in decimal, joined by commas, of 1 to 19 digits; what is too large for 64 bits with
    a sign becomes the largest. `lengths` are their numbers of digits."""
    text = b"0" * _WORD + joined
    words: UInt64 = np.ndarray(len(text) - _WORD + 1, dtype="<u8", buffer=text, strides=(1,))
    ends = np.cumsum(lengths + 1) - 1
    total: UInt64 = np.zeros(len(lengths), dtype=np.uint64)
    for known in range(0, int(lengths.max()), _WORD):
        digits = np.clip(lengths - known, 0, _WORD)
        foreign = (8 * np.minimum(_WORD - digits, _WORD - 1)).astype(np.uint64)
        number = _number(words[np.maximum(ends - known, 0)], foreign)
        total += np.where(digits > 0, number, _ZERO) * np.uint64(10**known)
    return np.minimum(total, _LARGEST).astype(np.int64)


def _number(words: UInt64, foreign: UInt64 | np.uint64) -> UInt64:
    """The number that each word of eight digits is, the first of which is the lowest byte.

    The lowest `foreign` bits are no part of it (56 at most). Neighbours are joined to numbers below
    100, then 10,000, then 10^8, all of a word at once.
    """
    word: UInt64 = (words & _DIGITS) >> foreign << foreign
    word = (word * _TENS + (word >> _BITS_8)) & _BELOW_100
    word = (word * _HUNDREDS + (word >> _BITS_16)) & _BELOW_10_000
    return (word * _TEN_THOUSANDS + (word >> _BITS_32)) & _BELOW_10_8
