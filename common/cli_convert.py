"""`worklog convert`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common.quick_start import start_reading


def add_convert(commands: Any) -> None:
    """Add the command to the parser's."""
    says = "a profiler's file as tables for other programs"
    convert = commands.add_parser("convert", help=says, description=says)
    convert.add_argument("file", type=Path, metavar="FILE", help="as for `show`")
    convert.add_argument(
        "--parquet", type=Path, metavar="DIR", required=True, help="a new or empty folder"
    )
    convert.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    start_reading()
    from common.traces.columnar import check_target, tables_of, write_parquet
    from common.traces.formats import open_any

    check_target(arguments.parquet)  # before the work
    found, content = open_any(arguments.file)
    tables = tables_of(found, content, arguments.file.name)
    for path, table in zip(write_parquet(tables, arguments.parquet), tables.values(), strict=True):
        print(f"{path}: {table.num_rows} rows")
    return 0
