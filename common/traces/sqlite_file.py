"""How is somebody else's SQLite file read without touching it? Read-only, and columns at a time.

Nothing in the file is run: only real tables are read (no view, no virtual table), triggers do not
fire on reads, and the schema's functions are not trusted. A database that another program
has locked or left a journal beside is refused, because half of its rows may still be elsewhere.
"""

from __future__ import annotations

import itertools
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np

from common.errors import UsageError
from common.traces.byte_source import open_file
from common.traces.model import UNKNOWN, Int64

MAGIC = b"SQLite format 3\0"
_HEADER = 100
_BLOCK_ROWS = 1 << 13
_TEXT_ROWS = 1 << 16


class Database:
    """Real tables of one open file by name, each with its columns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.not_utf8 = 0
        connection.text_factory = self._text
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND typeof(name) = 'text' "
            "AND upper(ltrim(sql)) NOT LIKE 'CREATE VIRTUAL%'"
        ).fetchall()
        self.tables: dict[str, frozenset[str]] = {}
        self._of_integers: dict[str, frozenset[str]] = {}
        for (name,) in names:
            about = connection.execute(f"PRAGMA table_info({quoted(name)})").fetchall()
            self.tables[name] = frozenset(row[1] for row in about)
            declared = (row[1] for row in about if "INT" in str(row[2]).upper())
            self._of_integers[name] = frozenset(declared) | {"rowid"}

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.not_utf8 += 1
            return raw.decode("utf-8", "replace")

    def integers(
        self, table: str, columns: Sequence[str], where: str = ""
    ) -> tuple[dict[str, Int64], int]:
        """({column: values}, rows left out). Absent columns and NULLs are UNKNOWN (-1).

        `start` and `end`, where asked for, must be integers: rows without them are left out.
        `a|b` is column b where a has no value; it is named `a`. `where` is SQL of ours, never text
        of the file.
        """
        have = self.tables[table]
        wanted: dict[str, list[str]] = {}
        for column in columns:
            known = [name for name in column.split("|") if name in have]
            if known:
                wanted[column.partition("|")[0]] = known
        needed = [f"typeof({quoted(c)}) = 'integer'" for c in ("start", "end") if c in columns]
        conditions = " AND ".join([*needed, *([f"({where})"] if where else [])]) or "1"
        source = f"FROM {quoted(table)}"
        query = f"SELECT count(*) {source}" + (f" WHERE {where}" if where else "")
        total = int(self.connection.execute(query).fetchone()[0])
        named = list(wanted.values())
        rows = self._packed(table, named, conditions, total)
        if rows is None:
            rows = self._integers(named, f"{source} WHERE {conditions} LIMIT {total}", total)
        found = dict(zip(wanted, rows, strict=True))
        size = rows.shape[1]
        absent = np.full(0 if len(found) == len(columns) else size, UNKNOWN, dtype=np.int64)
        names = [column.partition("|")[0] for column in columns]
        return {name: found.get(name, absent) for name in names}, total - size if needed else 0

    def _packed(
        self, table: str, columns: Sequence[Sequence[str]], conditions: str, total: int
    ) -> Int64 | None:
        """One line per column, fetched as one text of numbers per block: half the time of one
        Python integer per value. None where the rows are not of plain integers, or too few.
        """
        if total < _BLOCK_ROWS or not self._of_integers[table].issuperset(
            itertools.chain(*columns)
        ):
            return None
        source = f"FROM {quoted(table)} WHERE rowid BETWEEN ? AND ? AND {conditions}"
        shown = ", ".join(
            f"CAST(group_concat({_value(names, strict=False)}, ' ') AS BLOB)" for names in columns
        )
        try:
            query = f"SELECT min(rowid), max(rowid) FROM {quoted(table)}"
            first, last = self.connection.execute(query).fetchone()
        except sqlite3.OperationalError:  # a table WITHOUT ROWID
            return None
        if last - first >= 2 * total:
            return None
        found = np.empty((len(columns), total), dtype=np.int64)
        size = 0
        for at in range(first, last + 1, _TEXT_ROWS):
            block = f"SELECT count(*), {shown} {source}"
            count, *texts = self.connection.execute(block, (at, at + _TEXT_ROWS - 1)).fetchone()
            for line, text in enumerate(texts if count else ()):
                numbers = _numbers(text, count)
                if numbers is None:
                    return None
                found[line, size : size + count] = numbers
            size += count
        return found[:, :size]

    def _integers(self, columns: Sequence[Sequence[str]], source: str, total: int) -> Int64:
        """One line per column, whatever the rows hold; what is no integer is UNKNOWN."""
        shown = ", ".join(_value(names, strict=True) for names in columns)
        return _columns(self.connection.execute(f"SELECT {shown} {source}"), len(columns), total)

    def rows(self, table: str, columns: Sequence[str]) -> list[tuple[object, ...]]:
        """All rows, None for a column that is not there. For small tables."""
        have = self.tables[table]
        shown = ", ".join(quoted(c) if c in have else "NULL" for c in columns)
        return self.connection.execute(f"SELECT {shown} FROM {quoted(table)}").fetchall()


def _value(names: Sequence[str], strict: bool) -> str:
    """SQL of the first of the columns that has a value."""
    shown = str(UNKNOWN)
    for name in reversed(names):
        own = quoted(name)
        if strict:
            shown = f"CASE WHEN typeof({own}) = 'integer' THEN {own} ELSE {shown} END"
        else:
            shown = f"ifnull({own}, {shown})"
    return shown


def _numbers(text: bytes, count: int) -> Int64 | None:
    """So many whole numbers, one blank between two; None for anything else."""
    if text.count(b" ") != count - 1:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what NumPy says of text behind the last number
            numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    return numbers if len(numbers) == count else None


def _columns(cursor: Iterable[Sequence[int]], width: int, total: int) -> Int64:
    """Rows of integers as columns; by blocks that fit a cache, never as one list of rows."""
    found = np.empty((width, total), dtype=np.int64)
    values = itertools.chain.from_iterable(cursor)
    size = 0
    while True:
        block = np.fromiter(itertools.islice(values, _BLOCK_ROWS * width), np.int64)
        rows = block.reshape(-1, width).T
        found[:, size : size + rows.shape[1]] = rows
        size += rows.shape[1]
        if rows.shape[1] < _BLOCK_ROWS:
            return found[:, :size]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """The database, read-only. Raises UsageError in one line for what cannot be read."""
    _check_whole(path)
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    if _uses_wal(path):
        # Reading it the usual way would write a -shm file beside it; its log is empty (checked).
        uri += "&immutable=1"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=0.2)
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be opened ({error}); copy it again") from error
    try:
        yield Database(connection)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UsageError(
                f"{path} is locked by another program; close that program and try again"
            ) from error
        raise UsageError(
            f"{path} cannot be read ({_line(error)}); export or copy it again"
        ) from error
    except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
        # The last is a message of SQLite that quotes bytes of the file.
        raise UsageError(
            f"{path} is a damaged SQLite file ({_line(error)}); export or copy it again"
        ) from error
    finally:
        connection.close()


def _line(error: Exception) -> str:
    """What SQLite says, in one line: it quotes the schema of the file as it stands there."""
    return " ".join(str(error).split())[:200]


def _header(path: Path) -> bytes:
    with open_file(path) as stream:
        return stream.read(_HEADER)


def _uses_wal(path: Path) -> bool:
    return _header(path)[18:20] == b"\x02\x02"


def _check_whole(path: Path) -> None:
    header = _header(path)
    if not header.startswith(MAGIC):
        raise UsageError(f"{path} is no SQLite file; give a profiler's file")
    for suffix in ("-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise UsageError(
                f"{path} was left unfinished ({beside.name} lies beside it); let the program that "
                "writes it end, then try again"
            )
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    size = path.stat().st_size
    # The page count is only kept by versions of SQLite that also set the second counter.
    counted = header[24:28] == header[92:96]
    if len(header) < _HEADER:
        raise UsageError(f"{path} is cut off within its header; export or copy it again")
    if counted and size < page * pages:
        raise UsageError(
            f"{path} is cut off ({size} of {page * pages} bytes); export or copy it again"
        )
