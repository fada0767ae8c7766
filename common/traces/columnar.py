"""How does a profiler's file become tables that other programs can take over?

Arrow tables with exact int64 nanoseconds and bytes; what is unknown is null, never -1 or 0; texts
are dictionary-encoded. Parquet files of them serve DuckDB, Polars or Spark for fleets of traces.

    tables = tables_of(*open_any(path), path.name)
    write_parquet(tables, Path("out"))
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UsageError
from common.traces.formats import Format
from common.traces.model import Bool, Int64
from common.traces.ordering import occurring

SCHEMA = "worklog.columns/1"
Tables = dict[str, pa.Table]
# Which function makes the tables of each kind of file (`Format.kind`).
MAKERS = {
    "trace": "common.traces.columnar_trace:trace_tables",
    "ncu": "common.traces.columnar_ncu:ncu_tables",
    "memory": "common.traces.columnar_memory:memory_tables",
}


def tables_of(found: Format, content: Any, name: str) -> Tables:
    """Every table of a file's content, each marked with the schema's version and where it is from.

    Raises UsageError for a kind of file that has no tables.
    """
    if found.kind not in MAKERS:
        kinds = ", ".join(MAKERS)
        raise UsageError(f"{found.says} have no tables to write; give a file of: {kinds}")
    module, function = MAKERS[found.kind].split(":")
    make: Callable[[Any], tuple[Tables, dict[str, object]]] = getattr(
        import_module(module), function
    )
    tables, facts = make(content)
    facts = {"schema": SCHEMA, "file": name, "source": found.name, **facts}
    tables["metadata"] = pa.table(
        {
            "key": texts(list(facts)),
            "value": texts([None if v is None else str(v) for v in facts.values()]),
        }
    )
    marks = {
        f"worklog.{key}": clean(str(value))
        for key, value in facts.items()
        if key in ("schema", "file", "source", "format")
    }
    return {name: table.replace_schema_metadata(marks) for name, table in tables.items()}


def check_target(folder: Path) -> Path:
    """The folder to write into, resolved. Raises UsageError unless it is new or empty."""
    if not folder.name and not folder.exists():
        raise UsageError("no folder is named; give one that is new or empty")
    found = folder.resolve()
    if found.exists():
        if not found.is_dir():
            raise UsageError(f"{folder} is a file; give a folder that is new or empty")
        if any(found.iterdir()):
            raise UsageError(f"{folder} is not empty; give a new folder or empty it first")
    return found


def write_parquet(tables: Tables, folder: Path) -> list[Path]:
    """One file per table in a new or empty folder; all of them or none.

    Raises UsageError when the folder holds anything: nothing is ever overwritten.
    """
    given, folder = folder, check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", suffix=".part", ignore_cleanup_errors=True
    ) as made:
        part = Path(made) / "tables"
        part.mkdir()
        for name, table in tables.items():
            pq.write_table(table, part / f"{name}.parquet", compression="zstd")
        try:
            os.rename(part, folder)  # takes the place of an empty folder, and of nothing else
        except OSError as error:
            if folder.exists() and any(folder.iterdir()):
                raise UsageError(
                    f"{given} was filled by another program; give a new folder"
                ) from error
            raise
    return [given / f"{name}.parquet" for name in tables]


# Columns


def integers(column: Int64, unknown: int | None = None) -> pa.Array:
    """Exact int64; null where the value is `unknown`."""
    if unknown is None:
        return pa.array(column, type=pa.int64())
    mask = column == unknown
    return pa.array(column, type=pa.int64(), mask=mask if mask.any() else None)


def flags(column: Bool) -> pa.Array:
    return pa.array(column, type=pa.bool_())


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts as they are, for columns in which few repeat."""
    return pa.array([None if v is None else clean(v) for v in values], type=pa.string())


def repeated(values: Sequence[str | None]) -> pa.Array:
    """Dictionary-encoded texts."""
    return texts(values).dictionary_encode()


def looked_up(numbers: Int64, names: Sequence[str], unknown: int | None = None) -> pa.Array:
    """Dictionary-encoded texts from numbers into `names`; only texts that occur are kept."""
    mask: Bool | None = None
    if unknown is not None:
        mask = numbers == unknown
        numbers = np.where(mask, 0, numbers)
    used = occurring(numbers if mask is None else numbers[~mask])
    place = np.zeros(len(names) + 1, dtype=np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    indices = pa.array(place[numbers], type=pa.int32(), mask=mask)
    # Names that differ may be alike once they are clean: the encoding makes them one.
    kept = texts([names[number] for number in used.tolist()]).dictionary_encode()
    if len(kept.dictionary) < len(kept):
        indices = kept.indices.take(indices)
    return pa.DictionaryArray.from_arrays(indices, kept.dictionary)


def clean(text: str) -> str:
    """The text as UTF-8 can hold it: halves of surrogate pairs are written out."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def table(columns: Mapping[str, pa.Array]) -> pa.Table:
    return pa.table(dict(columns))
