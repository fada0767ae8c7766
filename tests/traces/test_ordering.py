"""The shortcuts give what NumPy's general functions give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.traces.ordering import distinct, grouped, start_order, taken

NUMBERS = st.sampled_from([-(1 << 62), -2, -1, 0, 1, 2, 3, 70_000, 1 << 62])
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=40)


def columns(rows: list[tuple[int, int, int]]) -> list[np.ndarray]:
    return [np.array([row[at] for row in rows], dtype=np.int64) for at in range(3)]


@given(ROWS)
def test_order_is_that_of_lexsort(rows: list[tuple[int, int, int]]) -> None:
    first, start, last = columns(rows)
    rows_ = np.arange(len(rows))
    grouped_ = taken(rows_, start_order(start, (last,), first))
    assert grouped_.tolist() == np.lexsort((last, start, first)).tolist()
    alone = taken(rows_, start_order(start, (first, last)))
    assert alone.tolist() == np.lexsort((last, first, start)).tolist()


def test_rows_in_order_are_left_alone() -> None:
    first, start, last = columns([(0, 1, 5), (0, 1, 5), (0, 1, 6), (0, 2, 0), (1, 0, 0)])
    assert start_order(start, (last,), first) is None
    assert start_order(start[:4], (last[:4], first[:4])) is None


@given(st.lists(NUMBERS, max_size=40))
def test_distinct_is_unique(values: list[int]) -> None:
    column = np.array(values, dtype=np.int64)
    unique, inverse = np.unique(column, return_inverse=True)
    found, places = distinct(column)
    assert found.tolist() == unique.tolist()
    assert places.tolist() == inverse.reshape(-1).tolist()


@pytest.mark.parametrize("groups", [3, 1 << 17])
def test_grouped_is_stable(groups: int) -> None:
    places = np.array([2, 0, 1, 2, 0, 1, 1], dtype=np.int64)
    assert grouped(places, groups).tolist() == [1, 4, 2, 5, 6, 0, 3]
