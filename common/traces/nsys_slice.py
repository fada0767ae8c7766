"""What is the least of an Nsight Systems database that still says the same? A slice of it.

    from common.traces.nsys_slice import slice_nsys
    slice_nsys(source, target, largest_bytes=3 << 20)

Kept are the tables that a reader here uses, of StringIds the texts that they name, and whole rows:
every column as it was. What names a machine or its user (capture settings, environment, host) is
in other tables and does not come along. If that is still too large, GPU work is kept from the start
of the range of interest (or of the capture) up to some moment, with the calls that launched it and
the ranges that it lies in. `WORKLOG_SLICE` in the new file says where it comes from and what was
cut: rows and nanoseconds of GPU work kept and left out, which add up to the source's.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from common.errors import UsageError
from common.traces.byte_source import sha256_of, unpacked
from common.traces.nsys_schema import find_tables, is_nsys
from common.traces.sqlite_file import Database, open_database, quoted

LARGEST_BYTES = 3 << 20
PROVENANCE = "WORKLOG_SLICE"
SCHEMA = "worklog.slice/1"
WORK = ("kernel", "memcpy", "memset", "graph")
# Columns of the kept tables that are ids of StringIds.
TEXT_IDS = ("demangledName", "shortName", "mangledName", "nameId", "textId", "jsonTextId", "name")
# To find how much fits: each one writes and packs a slice.
ATTEMPTS = 12


def slice_nsys(
    source: Path, target: Path, largest_bytes: int = LARGEST_BYTES, interest: str | None = None
) -> dict[str, Any]:
    """Write a gzipped slice of at most `largest_bytes` to `target`; returns its provenance.

    `interest` is the name of the NVTX range at whose first opening a cut slice begins. Raises
    UsageError for what is no export, or where not even one GPU activity fits.
    """
    with unpacked(source, ".sqlite") as file:
        digest, size = sha256_of(source), source.stat().st_size
        with open_database(file) as database:
            tables = find_tables(database)
            if not is_nsys(database, tables):
                raise UsageError(f"{source} is no export of Nsight Systems; give its .sqlite")
            columns = {
                name: _columns(database, name) for names in tables.values() for name in names
            }
            ends = _work_ends(database, tables, _begin(database, tables, interest))
        about = {"schema": SCHEMA, "source": source.name, "source_sha256": digest,
                 "source_bytes": size, "interest": interest}  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="worklog-") as folder:
            cut: tuple[int, int] | None = None  # None: everything
            low, high, packed, provenance = 0, len(ends), b"", about
            for attempt in range(ATTEMPTS):
                plain = Path(folder) / f"{attempt}.sqlite"
                made = _write(file, plain, tables, columns, cut, about)
                data = gzip.compress(plain.read_bytes(), 9, mtime=0)
                plain.unlink()
                count = len(ends) if cut is None else _count(ends, cut)
                if len(data) <= largest_bytes:
                    low, packed, provenance = count, data, made
                    if cut is None:
                        break
                else:
                    high = count
                # Size grows about as the work does; never outside what is known to fit or not.
                guess = int(0.98 * count * largest_bytes / len(data))
                guess = min(max(guess, low + 1), high - 1)
                if high - low <= max(1, len(ends) // 50) or guess <= low:
                    break
                cut = (ends[0][0], ends[guess - 1][1])
            if not packed:
                raise UsageError(
                    f"{source}: not even one GPU activity fits {largest_bytes} bytes; allow more"
                )
        target.write_bytes(packed)
        return provenance


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What a slice says about its making; None for a file that is no slice."""
    with unpacked(path, ".sqlite") as file, open_database(file) as database:
        if PROVENANCE not in database.tables:
            return None
        ((text,),) = database.rows(PROVENANCE, ("document",))
        found: dict[str, Any] = json.loads(str(text))
        return found


def _columns(database: Database, table: str) -> list[str]:
    rows = database.connection.execute(f"PRAGMA table_info({quoted(table)})")
    return [str(row[1]) for row in rows]


def _begin(
    database: Database, tables: dict[str, tuple[str, ...]], interest: str | None
) -> int | None:
    """When the range of interest is first opened; None where it was not recorded."""
    if interest is None or "nvtx" not in tables:
        return None
    (strings,) = tables["strings"][:1]
    found = [
        row[0]
        for table in tables["nvtx"]
        for row in database.connection.execute(
            f"SELECT min(e.start) FROM {quoted(table)} e "
            f"LEFT JOIN {quoted(strings)} s ON s.id = e.textId WHERE COALESCE(e.text, s.value) = ?",
            (interest,),
        )
        if isinstance(row[0], int)
    ]
    return min(found, default=None)


def _work_ends(
    database: Database, tables: dict[str, tuple[str, ...]], begin: int | None
) -> list[tuple[int, int]]:
    """(start, end) of all GPU work from `begin` on, by start; each end is the latest so far."""
    times: list[tuple[int, int]] = []
    for role in WORK:
        for table in tables.get(role, ()):
            columns, _ = database.integers(table, ("start", "end"))
            times += zip(columns["start"].tolist(), columns["end"].tolist(), strict=True)
    times = sorted(t for t in times if begin is None or t[0] >= begin) or sorted(times)
    latest, found = 0, []
    for start, end in times:
        latest = max(latest, end)
        found.append((start, latest))
    return found


def _count(ends: Sequence[tuple[int, int]], cut: tuple[int, int]) -> int:
    return sum(start >= cut[0] and end <= cut[1] for start, end in ends)


def _write(
    source: Path,
    target: Path,
    tables: dict[str, tuple[str, ...]],
    columns: dict[str, list[str]],
    cut: tuple[int, int] | None,
    about: dict[str, Any],
) -> dict[str, Any]:
    connection = sqlite3.connect(f"file:{quote(str(target))}", uri=True)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA trusted_schema = OFF")
        # Checked by `open_database`: no other program writes it, and no journal lies beside it.
        uri = f"file:{quote(str(source.absolute()))}?mode=ro&immutable=1"
        connection.execute("ATTACH DATABASE ? AS src", (uri,))
        connection.text_factory = bytes  # texts that are not UTF-8 are copied, not judged
        rows = _copy(connection, tables, columns, cut)
        work = _totals(connection, tables)
        window = {"window_ns": list(cut) if cut else None}
        provenance = {**about, **window, "rows": rows, "gpu_work": work}
        connection.execute(f"CREATE TABLE {PROVENANCE} (document TEXT)")
        connection.commit()
        connection.execute("DETACH DATABASE src")
        connection.execute(f"INSERT INTO {PROVENANCE} VALUES (?)", (json.dumps(provenance),))
        connection.commit()
        connection.execute("VACUUM")
        return provenance
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{source} cannot be sliced ({error}); export it again") from error
    finally:
        connection.close()


def _copy(
    connection: sqlite3.Connection,
    tables: dict[str, tuple[str, ...]],
    columns: dict[str, list[str]],
    cut: tuple[int, int] | None,
) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    named: set[int] = set()
    order = [*WORK, "runtime", "nvtx", "gpus", "cuda_devices", "export", "strings"]
    kept_work: list[str] = []
    for role in order:
        for table in tables.get(role, ()):
            where = _kept(role, cut, kept_work, columns, table)
            shown = ", ".join(_cell(role, column) for column in columns[table])
            declared = ", ".join(quoted(column) for column in columns[table])
            connection.execute(f"CREATE TABLE main.{quoted(table)} ({declared})")
            if role == "strings":
                connection.execute("CREATE TEMP TABLE wanted (id INTEGER PRIMARY KEY)")
                connection.executemany(
                    "INSERT OR IGNORE INTO wanted VALUES (?)", [(number,) for number in named]
                )
                where = "id IN (SELECT id FROM temp.wanted)"
            connection.execute(
                f"INSERT INTO main.{quoted(table)} SELECT {shown} FROM src.{quoted(table)}"
                + (f" WHERE {where}" if where else "")
            )
            if role in WORK:
                kept_work.append(table)
            if role not in ("strings", "gpus", "cuda_devices", "export"):
                named |= _text_ids(connection, table, columns[table])
            counts[table] = {
                side: int(
                    connection.execute(f"SELECT count(*) FROM {of}.{quoted(table)}").fetchone()[0]
                )
                for side, of in (("kept", "main"), ("source", "src"))
            }
    return counts


def _cell(role: str, column: str) -> str:
    """A table of devices may hold serial numbers and addresses; those say nothing about work."""
    private = role in ("gpus",) and column in ("uuid", "busLocation", "pciId", "hostname")
    return f"NULL AS {quoted(column)}" if private else quoted(column)


def _kept(
    role: str,
    cut: tuple[int, int] | None,
    work: Sequence[str],
    columns: dict[str, list[str]],
    table: str,
) -> str:
    """SQL of which rows stay. Empty: all of them."""
    if role == "export":  # versions; an export may also hold where it was made
        return "name LIKE 'EXPORT\\_%' ESCAPE '\\'"
    if cut is None or role in ("gpus", "cuda_devices", "strings"):
        return ""
    begin, end = cut
    if role in WORK:
        return f"start >= {begin} AND end <= {end}"
    if role == "nvtx":
        # Ranges that reach into the window, and marks without an end.
        return f"start <= {end} AND COALESCE(end, start) >= {begin}"
    launched = [
        f"correlationId IN (SELECT correlationId FROM main.{quoted(name)})"
        for name in work
        if "correlationId" in columns[name]
    ]
    inside = f"(start >= {begin} AND end <= {end})"
    return " OR ".join([inside, *launched])


def _text_ids(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> set[int]:
    found: set[int] = set()
    for column in TEXT_IDS:
        if column in columns:
            query = f"SELECT DISTINCT {quoted(column)} FROM main.{quoted(table)}"
            found |= {row[0] for row in connection.execute(query) if isinstance(row[0], int)}
    return found


def _totals(
    connection: sqlite3.Connection, tables: dict[str, tuple[str, ...]]
) -> dict[str, dict[str, int]]:
    """Per kind of GPU work: rows and nanoseconds in the slice, and what was left out of it."""
    found: dict[str, dict[str, int]] = {}
    for role in WORK:
        sides = {}
        for side, of in (("kept", "main"), ("source", "src")):
            rows, time = 0, 0
            for table in tables.get(role, ()):
                row = connection.execute(
                    f"SELECT count(*), COALESCE(sum(end - start), 0) FROM {of}.{quoted(table)} "
                    "WHERE typeof(start) = 'integer' AND typeof(end) = 'integer'"
                ).fetchone()
                rows, time = rows + int(row[0]), time + int(row[1])
            sides[side] = (rows, time)
        if sides["source"][0]:
            found[role] = {
                "kept": sides["kept"][0], "kept_ns": sides["kept"][1],
                "cut": sides["source"][0] - sides["kept"][0],
                "cut_ns": sides["source"][1] - sides["kept"][1],
            }  # fmt: skip
    return found
