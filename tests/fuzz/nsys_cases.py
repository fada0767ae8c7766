"""How are exports of Nsight Systems damaged so that one knows what is left of them?

Every case is a database of its own, made in memory from one seed: values of the wrong type, rows
lost, halved or repeated, tables gone, renamed or replaced by views, triggers, odd encodings; and
pages, headers and pointers overwritten, where only "nothing breaks" can be asked.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from fuzz.byte_changes import broken_gzip, damaged, packed
from fuzz.case import HUGE_INTEGERS, ODD_INTEGERS, ODD_TEXTS, Case, Unit, Units

FORMAT = "nsys"
CUPTI = "CUPTI_ACTIVITY_KIND_"
KERNEL, CALL, COPY, SET = (CUPTI + name for name in ("KERNEL", "RUNTIME", "MEMCPY", "MEMSET"))
NVTX, STRINGS = "NVTX_EVENTS", "StringIds"
PROCESS = 5 << 24
SCHEMA = f"""
CREATE TABLE {STRINGS} (id INTEGER NOT NULL PRIMARY KEY, value TEXT);
CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT);
CREATE TABLE {KERNEL} ("start" INTEGER, "end" INTEGER, deviceId INTEGER, contextId INTEGER,
  streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER,
  shortName INTEGER, graphNodeId INTEGER);
CREATE TABLE {COPY} ("start" INTEGER, "end" INTEGER, deviceId INTEGER, streamId INTEGER,
  correlationId INTEGER, globalPid INTEGER, bytes INTEGER, copyKind INTEGER);
CREATE TABLE {SET} ("start" INTEGER, "end" INTEGER, deviceId INTEGER, streamId INTEGER,
  correlationId INTEGER, globalPid INTEGER, bytes INTEGER, value INTEGER);
CREATE TABLE {CALL} ("start" INTEGER, "end" INTEGER, eventClass INTEGER, globalTid INTEGER,
  correlationId INTEGER, nameId INTEGER, returnValue INTEGER);
CREATE TABLE {NVTX} ("start" INTEGER, "end" INTEGER, eventType INTEGER, text TEXT,
  globalTid INTEGER, textId INTEGER);
CREATE TABLE TARGET_INFO_GPU (id INTEGER, name TEXT, smCount INTEGER, cuDevice INTEGER);
CREATE TABLE TARGET_INFO_CUDA_DEVICE (gpuId INTEGER, cudaId INTEGER, pid INTEGER);
"""
KERNELS = 12
# Tables whose rows are (label, end - start); the row's number is enough to know its label.
TIMED = (KERNEL, CALL, COPY, SET, NVTX)
Timed = dict[tuple[str, int], Unit]  # (table, rowid) -> what a reader must find of it


def label(table: str, row: int) -> str:
    if table == KERNEL:
        return f"gpu:k{row}"
    if table == CALL:
        return f"host:cudaLaunchKernel{row}"
    if table == NVTX:
        return f"host:range{row}"
    return "gpu:Memcpy Host-to-Device" if table == COPY else "gpu:Memset"


@cache
def seed() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.executescript(SCHEMA)
        insert = database.execute
        insert("INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_SCHEMA_VERSION', '3.11.0')")
        insert("INSERT INTO TARGET_INFO_GPU VALUES (0, 'GPU', 132, 0)")
        insert("INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (0, 0, 5)")
        for row in range(1, KERNELS + 1):
            at, thread = 10_000 * row, PROCESS + 77
            for number, text in ((row, f"k{row}"), (100 + row, f"cudaLaunchKernel{row}")):
                insert(f"INSERT INTO {STRINGS} VALUES (?, ?)", (number, text))
            call = (at, at + 400 + row, 0, thread, row, 100 + row, 0)
            insert(f"INSERT INTO {CALL} VALUES (?,?,?,?,?,?,?)", call)
            kernel = (at + 600, at + 4_000 + 7 * row, 0, 1, 7, row, PROCESS, row, row, None)
            insert(f"INSERT INTO {KERNEL} VALUES (?,?,?,?,?,?,?,?,?,?)", kernel)
            if row % 3 == 0:
                copy = (at + 5_000, at + 5_100 + row, 0, 7, 1000 + row, PROCESS, 4096, 1)
                insert(f"INSERT INTO {COPY} VALUES (?,?,?,?,?,?,?,?)", copy)
                clear = (at + 6_000, at + 6_050 + row, 0, 7, 2000 + row, PROCESS, 64, 0)
                insert(f"INSERT INTO {SET} VALUES (?,?,?,?,?,?,?,?)", clear)
            if row % 2 == 0:
                span = (at - 50, at + 9_000 + row, 59, f"range{row // 2}", thread, None)
                insert(f"INSERT INTO {NVTX} VALUES (?,?,?,?,?,?)", span)
    data: bytes = database.serialize()
    database.close()
    return data


class Base:
    """An undamaged export: what each of its timed rows is, and where its texts are used."""

    def __init__(self, data: bytes, timed: Timed) -> None:
        self.data, self.timed = data, timed
        database = sqlite3.connect(":memory:")
        database.deserialize(data)
        self.columns = {
            table: [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            for table in sorted({table for table, _ in timed})
        }
        used: dict[int, list[tuple[str, int]]] = {}
        for table, names in self.columns.items():
            for column in sorted({"demangledName", "nameId", "textId"} & set(names)):
                for row, text in database.execute(f"SELECT rowid, {column} FROM {table}"):
                    used.setdefault(text, []).append((table, row))
        known = [row[0] for row in database.execute(f"SELECT id FROM {STRINGS} ORDER BY id")]
        self.texts = {text: used[text] for text in known if text in used}
        database.close()

    @property
    def units(self) -> Units:
        return Counter(self.timed.values())


@cache
def own() -> Base:
    database = sqlite3.connect(":memory:")
    database.deserialize(seed())
    timed = {
        (table, row): (label(table, row), spent)
        for table in TIMED
        for row, spent in database.execute(f'SELECT rowid, "end" - "start" FROM {table}')
    }
    database.close()
    return Base(seed(), timed)


class Export:
    """A database under change, and which of its rows are intact."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.database = sqlite3.connect(":memory:")
        self.database.deserialize(base.data)
        self.rows = dict(base.timed)
        self.more: list[tuple[str, Unit]] = []  # rows whose number is not known
        self.clean, self.refusable = True, False

    def run(self, query: str, values: tuple[Any, ...] = ()) -> None:
        self.database.execute(query, values)

    def any_row(self, draw: random.Random) -> tuple[str, int]:
        return draw.choice(list(self.rows) or [(self.any_table(draw, KERNEL, CALL), 0)])

    def any_table(self, draw: random.Random, *of: str) -> str:
        return draw.choice([table for table in of if table in self.base.columns])

    def spoil(self, table: str, row: int) -> None:
        self.rows.pop((table, row), None)
        self.clean = False

    def forget(self, table: str) -> None:
        self.rows = {key: unit for key, unit in self.rows.items() if key[0] != table}
        self.more = [held for held in self.more if held[0] != table]

    def units(self) -> Units:
        return Counter(self.rows.values()) + Counter(unit for _, unit in self.more)

    def done(self) -> bytes:
        self.database.commit()
        data: bytes = self.database.serialize()
        self.database.close()
        return data


def odd_value(draw: random.Random) -> Any:
    kind = draw.randrange(7)
    if kind == 0:
        return None
    if kind == 1:
        return draw.choice(ODD_TEXTS)
    if kind == 2:
        return draw.randbytes(draw.choice((0, 1, 8, 300)))
    if kind == 3:
        return draw.choice((0.5, -0.0, 1e300, float("inf"), float("nan"), 1e18))
    if kind == 4:
        return str(draw.choice(HUGE_INTEGERS))
    return draw.choice(ODD_INTEGERS)


# Columns that no time and no name depends on.
_FREE = frozenset((
    "deviceId", "contextId", "streamId", "correlationId", "globalPid", "graphNodeId", "shortName",
    "bytes", "value", "returnValue", "eventClass", "globalTid",
))  # fmt: skip

Change = Callable[[random.Random, Export], str]


def wrong_value(draw: random.Random, export: Export) -> str:
    table, row = export.any_row(draw)
    column, value = draw.choice(export.base.columns[table]), odd_value(draw)
    # Real tables take no NULL in some columns: then the row stays as it is.
    export.run(f'UPDATE OR IGNORE {table} SET "{column}" = ? WHERE rowid = ?', (value, row))
    if column not in _FREE:
        export.spoil(table, row)
    return f"{table}.{column} = {str(value)[:30]!r}"


def wrong_column(draw: random.Random, export: Export) -> str:
    """A whole column of another type: schemas change."""
    table = export.any_table(draw, *TIMED)
    column = draw.choice([c for c in export.base.columns[table] if c in _FREE])
    value = odd_value(draw)
    export.run(f'UPDATE OR IGNORE {table} SET "{column}" = ?', (value,))
    return f"all of {table}.{column} = {str(value)[:30]!r}"


def odd_string(draw: random.Random, export: Export) -> str:
    if export.refusable:
        return "no text left"
    text = draw.choice(list(export.base.texts))
    value = odd_value(draw)
    new = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
    export.run(f"UPDATE OR IGNORE {STRINGS} SET value = {new} WHERE id = ?", (value, text))
    for table, row in export.base.texts[text]:
        export.spoil(table, row)
    return f"text {text} = {str(value)[:30]!r}"


def dropped(draw: random.Random, export: Export) -> str:
    table, row = export.any_row(draw)
    export.run(f"DELETE FROM {table} WHERE rowid = ?", (row,))
    export.rows.pop((table, row), None)
    return f"row {row} of {table} dropped"


def halved(draw: random.Random, export: Export) -> str:
    table, row = export.any_row(draw)
    if (table, row) not in export.rows:
        return "nothing left to halve"
    name, spent = export.rows[table, row]
    export.run(f'UPDATE {table} SET "end" = "start" + ? WHERE rowid = ?', (spent // 2, row))
    export.rows[table, row] = name, spent // 2
    return f"row {row} of {table} halved"


def repeated(draw: random.Random, export: Export) -> str:
    table, row = export.any_row(draw)
    if (table, row) not in export.rows:
        return "nothing left to repeat"
    export.run(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = ?", (row,))
    export.more.append((table, export.rows[table, row]))
    return f"row {row} of {table} twice"


def other_order(draw: random.Random, export: Export) -> str:
    table = export.any_table(draw, KERNEL, CALL)
    rows = export.database.execute(f"SELECT * FROM {table}").fetchall()
    draw.shuffle(rows)
    export.run(f"DELETE FROM {table}")
    for row in rows:
        export.run(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    # From here on a row's number says nothing.
    for key in [key for key in export.rows if key[0] == table]:
        export.more.append((table, export.rows.pop(key)))
    return f"{table} in another order"


def lost_table(draw: random.Random, export: Export) -> str:
    table = draw.choice((CALL, COPY, SET, NVTX, "TARGET_INFO_GPU", "META_DATA_EXPORT"))
    export.run(f"DROP TABLE IF EXISTS {table}")
    export.forget(table)
    return f"{table} is gone"


def no_texts(draw: random.Random, export: Export) -> str:
    if export.refusable:
        return "no text left"
    export.run(draw.choice((f"ALTER TABLE {STRINGS} RENAME id TO x", f"DELETE FROM {STRINGS}")))
    export.rows, export.more, export.clean = {}, [], False
    export.refusable = True
    return "no texts"


def renamed(draw: random.Random, export: Export) -> str:
    """Roles are told by columns, not by names."""
    table = export.any_table(draw, KERNEL, CALL)
    name = draw.choice(("NEW_NAME", 'a "quoted" one', "x'; DROP TABLE StringIds; --", "ünï", "7"))
    quoted = name.replace('"', '""')
    export.run(f'ALTER TABLE {table} RENAME TO "{quoted}"')
    return f"{table} is called {name!r}"


def view(draw: random.Random, export: Export) -> str:
    """Views and triggers are somebody else's program: nothing of them is run."""
    way = draw.choice(("view", "endless view", "trigger", "index", "virtual"))
    if way == "view":
        export.run(f"CREATE VIEW more_kernels AS SELECT * FROM {KERNEL}")
    elif way == "endless view":
        export.run(
            f"CREATE VIEW IF NOT EXISTS {CUPTI}GRAPH_TRACE AS WITH RECURSIVE n(start) AS "
            "(SELECT 1 UNION ALL "
            "SELECT start + 1 FROM n) SELECT start, start AS end, 0 AS deviceId, 1 AS graphExecId "
            "FROM n"
        )
    elif way == "trigger":
        export.run(f"CREATE TRIGGER t AFTER UPDATE ON {KERNEL} BEGIN DELETE FROM {STRINGS}; END")
    elif way == "index":
        export.run(f'CREATE INDEX i ON {KERNEL} ("end", "start" DESC) WHERE deviceId > 0')
    else:
        export.run("CREATE TABLE virtual_like (a, b)")
    return f"with a {way}"


def more_columns(draw: random.Random, export: Export) -> str:
    table = SET  # of the rest, what is gone or has another name cannot get one
    column = draw.choice(("newContextId INTEGER", '"a ""b"" c" TEXT', "x", "rowidx INTEGER"))
    export.run(f"ALTER TABLE {table} ADD COLUMN {column}")
    return f"{table} has a column more"


KEEPING: tuple[Change, ...] = (
    dropped, halved, repeated, other_order, lost_table, renamed, view, wrong_column,
)  # fmt: skip
SPOILING: tuple[Change, ...] = (
    wrong_value, wrong_value, wrong_value, odd_string, odd_string, no_texts,
)  # fmt: skip


def nsys_case(draw: random.Random, base: Base | None = None) -> Case:
    """A case of our own small export, or of a slice of a real one."""
    base = base or own()
    kind = draw.random()
    if kind < 0.25:
        data, said = damaged(draw, base.data)
        return Case(FORMAT, data, said)
    if kind < 0.30:
        broken, said, readable = broken_gzip(draw, base.data)
        return Case(FORMAT, broken, said, refusable=readable is not None)
    export = Export(base)
    said = [draw.choice(SPOILING)(draw, export) for _ in range(draw.choice((0, 1, 1, 2)))]
    way = draw.choice(KEEPING) if draw.random() < 0.7 or not said else None
    if way is not None:
        said.append(way(draw, export))
    units, clean, refusable = export.units(), export.clean, export.refusable
    if draw.random() < 0.05 and way is not lost_table and SET in base.columns:
        said.append(more_columns(draw, export))
    data = export.done()
    if kind > 0.95:
        data, how = packed(draw, data)
        said += how
    return Case(FORMAT, data, tuple(said), units, clean, refusable)
