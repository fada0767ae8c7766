"""Alignments are longest common subsequences, in order, whichever algorithm found them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from common.diff import alignment
from common.diff.alignment import align
from common.traces.model import Int64


def longest(a: list[int], b: list[int]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


def check(a: Int64, b: Int64, left: Int64, right: Int64) -> None:
    assert len(left) == len(right)
    assert (np.diff(left) > 0).all() and (np.diff(right) > 0).all()
    assert (a[left] == b[right]).all()


@pytest.mark.parametrize("rounds", [1, 2, 64])  # 1: nearly all by bits; 64: nearly all by diagonals
def test_random_sequences_get_a_longest_common_subsequence(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "EDITS_AT_FIRST", rounds)
    chance = random.Random(rounds)
    for _ in range(400):
        kinds = chance.randint(1, 8)
        sizes = chance.randint(0, 40), chance.randint(0, 40)
        a, b = (np.array([chance.randrange(kinds) for _ in range(n)], np.int64) for n in sizes)
        left, right = align(a, b)
        check(a, b, left, right)
        if rounds == 64:  # within the first rounds the result is the longest; after a cut, nearly
            assert len(left) == longest(a.tolist(), b.tolist())
        if len(a) and len(b):
            left, right = alignment._bit_parallel(a, b)
            check(a, b, left, right)
            assert len(left) == longest(a.tolist(), b.tolist())


def test_long_sequences_are_cut_into_pieces_and_stay_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alignment, "MOST_CELLS", 0)  # as if too long for bits
    monkeypatch.setattr(alignment, "EDITS_AT_ONCE", 20)
    rng = np.random.default_rng(1)
    a = np.tile(np.arange(50), 200)
    b = a[rng.random(len(a)) > 0.05]
    left, right = align(a, b)
    check(a, b, left, right)
    assert len(left) > 0.98 * len(b)


def test_the_time_is_bounded_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MOST_CELLS", 0)
    monkeypatch.setattr(alignment, "MOST_ROUNDS", 500)
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 50, 20_000), rng.integers(0, 50, 20_000)
    left, right = align(a, b)
    check(a, b, left, right)
    assert 0 < len(left) < len(a)


def test_equal_and_empty_sequences() -> None:
    a = np.arange(1000)
    assert (align(a, a)[0] == a).all()
    assert len(align(a, a[:0])[0]) == 0
    assert align(a, a[::2])[0].tolist() == a[::2].tolist()
    assert len(align(a, a + 1000)[0]) == 0


def test_a_step_that_only_one_side_has_costs_no_pair() -> None:
    step = np.arange(300)
    a = np.tile(step, 20)
    left, _ = align(a, np.tile(step, 23))
    assert len(left) == len(a)
