"""Columns of somebody else's database come out the same, however they are fetched."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.traces.model import UNKNOWN
from common.traces.sqlite_file import open_database

ROWS = 30_000  # more than one block of values that is fetched as one text, and a rest


def _table(path: Path, odd: dict[int, Any], how: str = "value INTEGER", step: int = 1) -> None:
    """Rows of (start, end, value); `odd` replaces some of the values."""
    rows = [
        (1 + step * at, at, at + 5, odd.get(at, at * at * 1_000_003 - at)) for at in range(ROWS)
    ]
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, start INT, 'end' INT, {how})")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    connection.close()


def _read(path: Path, where: str = "") -> tuple[np.ndarray, np.ndarray, int]:
    with open_database(path) as database:
        found, left_out = database.integers("t", ("start", "end", "value|absent"), where)
    return found["start"], found["value"], left_out


def _expected(odd: dict[int, Any]) -> list[int]:
    whole = {at: value if isinstance(value, int) else UNKNOWN for at, value in odd.items()}
    return [whole.get(at, at * at * 1_000_003 - at) for at in range(ROWS)]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {7: None, 29_999: None},
        {7: "text"},
        {7: "12 13", 8: ""},
        {7: "", 8: ""},
        {7: "12 13"},
        {7: 1.5, 20_000: 1e300},
        {7: b"blob"},
        {7: 2**63 - 1, 8: -(2**63)},
        {0: "12abc", 29_999: "0x10"},
        {7: "\x00", 8: "5\x006"},
    ],
    ids=str,
)
def test_a_value_that_is_no_integer_is_unknown_and_moves_no_other(
    tmp_path: Path, odd: dict[int, Any]
) -> None:
    _table(tmp_path / "f.sqlite", odd)
    starts, values, left_out = _read(tmp_path / "f.sqlite")
    assert starts.tolist() == list(range(ROWS))
    assert values.tolist() == _expected(odd)
    assert left_out == 0


def test_text_of_digits_in_a_column_without_a_type_stays_text(tmp_path: Path) -> None:
    _table(tmp_path / "f.sqlite", {7: "12"}, how="value")
    assert _read(tmp_path / "f.sqlite")[1].tolist() == _expected({7: "12"})


def test_sparse_row_numbers_and_conditions_choose_the_same_rows(tmp_path: Path) -> None:
    _table(tmp_path / "dense.sqlite", {})
    _table(tmp_path / "sparse.sqlite", {}, step=1000)
    dense = _read(tmp_path / "dense.sqlite", "value % 3 = 0")
    sparse = _read(tmp_path / "sparse.sqlite", "value % 3 = 0")
    expected = [at for at, value in enumerate(_expected({})) if value % 3 == 0]
    assert dense[0].tolist() == sparse[0].tolist() == expected
    assert dense[1].tolist() == sparse[1].tolist()


def test_rows_without_a_whole_time_are_counted(tmp_path: Path) -> None:
    _table(tmp_path / "f.sqlite", {})
    with sqlite3.connect(tmp_path / "f.sqlite") as connection:
        connection.execute("UPDATE t SET start = NULL WHERE id = 5")
        connection.execute("UPDATE t SET \"end\" = 'late' WHERE id = 7")
    connection.close()
    starts, _, left_out = _read(tmp_path / "f.sqlite")
    assert left_out == 2
    assert starts.tolist() == [at for at in range(ROWS) if at not in (4, 6)]
