"""How does one work on a profiler's file in a notebook? As pandas DataFrames, one per table.

    frames = to_frames(open_trace(path))
    frames["gpu"].groupby("name", observed=True)["duration_ns"].sum()

Integers are exact (`Int64`, with <NA> for unknown), texts categorical. pandas is imported here and
nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from common.traces.columnar import Tables, tables_of
from common.traces.columnar_trace import trace_tables
from common.traces.formats import open_any
from common.traces.model import Trace

_TYPES: dict[pa.DataType, Any] = {
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(),
}


def to_frames(trace: Trace) -> dict[str, pd.DataFrame]:
    """The tables of a trace: gpu, host, allocations, steps, devices, warnings."""
    return _frames(trace_tables(trace)[0])


def frames_of_file(path: Path) -> dict[str, pd.DataFrame]:
    """The tables of any readable file: a trace, an ncu report, a memory snapshot."""
    found, content = open_any(path)
    return _frames(tables_of(found, content, path.name))


def _frames(tables: Tables) -> dict[str, pd.DataFrame]:
    return {name: table.to_pandas(types_mapper=_TYPES.get) for name, table in tables.items()}
