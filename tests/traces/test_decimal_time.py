"""Microseconds in text become integer nanoseconds without a float in between."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from common.traces.decimal_time import (
    FARTHEST_NS,
    nanoseconds,
    nanoseconds_of,
    nanoseconds_of_plain,
)

WHOLE_NS = st.integers(0, FARTHEST_NS - 1)


def printed(ns: int, decimals: int) -> bytes:
    """ns as decimal microseconds with up to three decimals, as different writers print them."""
    whole, rest = divmod(ns, 1000)
    text = f"{rest:03d}"
    while len(text) > decimals and text.endswith("0"):
        text = text[:-1]
    return f"{whole}.{text}".rstrip(".").encode()


@given(st.lists(st.tuples(WHOLE_NS, st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_every_whole_nanosecond_comes_back(values: list[tuple[int, int]]) -> None:
    found = nanoseconds_of([printed(ns, decimals) for ns, decimals in values])
    assert found.ns.tolist() == [ns for ns, _ in values]
    assert found.valid.all() and found.finer == 0


@given(
    st.lists(
        st.one_of(
            st.decimals(allow_nan=True, allow_infinity=True).map(str),
            st.floats().map(repr),
            st.integers(-(10**25), 10**25).map(str),
            st.text(alphabet='0123456789.,eE+-" ', max_size=24),
            st.sampled_from(["", "NaN", "inf", "-inf", "null", "1e3", '"12.5"', "1.", ".5", "1,2"]),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=400, deadline=None)
def test_many_at_once_agree_with_one_at_a_time(texts: list[str]) -> None:
    one_by_one = [nanoseconds(text.encode()) for text in texts]
    together = nanoseconds_of([text.encode() for text in texts])
    assert together.valid.tolist() == [found is not None for found in one_by_one]
    assert [ns for ns, ok in zip(together.ns.tolist(), together.valid, strict=True) if ok] == [
        found[0] for found in one_by_one if found
    ]
    assert together.finer == sum(1 for found in one_by_one if found and not found[1])


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.builds(printed, WHOLE_NS, st.integers(0, 3)),
                st.text(alphabet="0123456789.", max_size=20).map(str.encode),
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_groups_converted_together_are_as_each_alone(groups: list[list[bytes]]) -> None:
    together = nanoseconds_of_plain([b",".join(texts) for texts in groups], [*map(len, groups)])
    alone = [nanoseconds(text) for texts in groups for text in texts]
    assert together.valid.tolist() == [found is not None for found in alone]
    assert together.ns[together.valid].tolist() == [found[0] for found in alone if found]
    assert together.finer == sum(1 for found in alone if found and not found[1])


@given(st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False, places=6))
@settings(max_examples=300, deadline=None)
def test_digits_below_a_nanosecond_round_half_to_even_and_are_told(value: Decimal) -> None:
    exact = value * 1000
    whole = int(exact.to_integral_value(ROUND_HALF_EVEN))
    assert nanoseconds(str(value).encode()) == (whole, exact == whole)


def test_an_epoch_of_19_digits_is_exact_where_a_float_is_not() -> None:
    text = b"1719000000123456.789"
    assert nanoseconds_of([text]).ns.tolist() == [1_719_000_000_123_456_789]
    assert int(float(text) * 1000) != 1_719_000_000_123_456_789


def test_what_does_not_fit_64_bits_stops_at_the_farthest_time() -> None:
    for text in (b"4611686018427388", b"9999999999999999", b"9223372036854775808", b"1e300"):
        assert nanoseconds(text) == (FARTHEST_NS, True)
        assert nanoseconds_of([b"1", text, b"-" + text]).ns.tolist() == [
            1000, FARTHEST_NS, -FARTHEST_NS,
        ]  # fmt: skip


def test_a_short_number_may_stand_for_many_digits() -> None:
    assert nanoseconds(b"1E8") == (10**11, True)
    assert nanoseconds(b"4e15") == (4 * 10**18, True)
    assert nanoseconds_of([b"1E8", b"4e15"]).ns.tolist() == [10**11, 4 * 10**18]
