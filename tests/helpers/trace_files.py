"""Small traces made for tests: JSON of torch.profiler and databases of Nsight Systems."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any


def event(category: str, name: str, ts: str, dur: str, **fields: Any) -> str:
    """One complete event as text; `ts` and `dur` are written as they are given."""
    args = fields.pop("args", {})
    rest = {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, **fields}
    body = json.dumps(rest)[1:-1]
    return f'{{{body}, "ts": {ts}, "dur": {dur}, "args": {json.dumps(args)}}}'


def kernel(name: str, ts: str, dur: str, correlation: int | None, **args: Any) -> str:
    ids = {} if correlation is None else {"correlation": correlation}
    return event("kernel", name, ts, dur, args={"device": 0, "stream": 7, **ids, **args})


def call(name: str, ts: str, dur: str, correlation: int, **args: Any) -> str:
    return event("cuda_runtime", name, ts, dur, args={"correlation": correlation, **args})


def document(*events: str, before: str = "", after: str = "") -> str:
    """A trace as torch writes it: an object around the list of events."""
    return (
        '{"schemaVersion": 1, '
        + before
        + '"traceEvents": [\n'
        + ",\n".join(events)
        + f"\n]{after}}}\n"
    )


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


KERNEL_COLUMNS = (
    '"start" INTEGER, "end" INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER, '
    "correlationId INTEGER, globalPid INTEGER, demangledName INTEGER, shortName INTEGER, "
    "gridX INTEGER, blockX INTEGER, graphNodeId INTEGER"
)
RUNTIME_COLUMNS = (
    '"start" INTEGER, "end" INTEGER, eventClass INTEGER, globalTid INTEGER, '
    "correlationId INTEGER, nameId INTEGER, returnValue INTEGER"
)
GRAPH_COLUMNS = (
    '"start" INTEGER, "end" INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER, '
    "correlationId INTEGER, globalPid INTEGER, graphId INTEGER, graphExecId INTEGER"
)
NVTX_COLUMNS = (
    '"start" INTEGER, "end" INTEGER, eventType INTEGER, text TEXT, globalTid INTEGER, '
    "textId INTEGER"
)


def process(pid: int) -> int:
    return pid << 24


class NsysFile:
    """A small database with the tables of an export; rows are added by name."""

    def __init__(self, path: Path, kernels: str = "CUPTI_ACTIVITY_KIND_KERNEL") -> None:
        self.path = path
        self.kernels = kernels
        self.db = sqlite3.connect(path)
        self.db.execute("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT)")
        self.db.execute("CREATE TABLE META_DATA_EXPORT (name TEXT, value TEXT)")
        self.db.execute("INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_SCHEMA_VERSION', '3.7.2')")
        self._texts: dict[str, int] = {}

    def text(self, value: str) -> int:
        if value not in self._texts:
            self._texts[value] = len(self._texts) + 1
            self.db.execute("INSERT INTO StringIds VALUES (?, ?)", (self._texts[value], value))
        return self._texts[value]

    def table(self, name: str, columns: str) -> None:
        self.db.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")

    def kernel(
        self, name: str, start: int, end: int, correlation: int, pid: int = 5, device: int = 0,
        node: int | None = None,
    ) -> None:  # fmt: skip
        self.table(self.kernels, KERNEL_COLUMNS)
        row = (start, end, device, 1, 7, correlation, process(pid), self.text(name))
        self.db.execute(
            f"INSERT INTO {self.kernels} VALUES (?,?,?,?,?,?,?,?,?,1,1,?)", (*row, row[-1], node)
        )

    def call(self, name: str, start: int, end: int, correlation: int, pid: int = 5) -> None:
        table = "CUPTI_ACTIVITY_KIND_RUNTIME"
        self.table(table, RUNTIME_COLUMNS)
        row = (start, end, 1, process(pid) + pid, correlation, self.text(name), 0)
        self.db.execute(f"INSERT INTO {table} VALUES (?,?,?,?,?,?,?)", row)

    def graph(self, start: int, end: int, correlation: int, pid: int = 5) -> None:
        table = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"
        self.table(table, GRAPH_COLUMNS)
        row = (start, end, 0, 1, 7, correlation, process(pid), 4, 5)
        self.db.execute(f"INSERT INTO {table} VALUES (?,?,?,?,?,?,?,?,?)", row)

    def nvtx(
        self, text: str | None, start: int, end: int | None, kind: int = 59,
        text_id: int | None = None,
    ) -> None:  # fmt: skip
        self.table("NVTX_EVENTS", NVTX_COLUMNS)
        row = (start, end, kind, text, process(5) + 5, text_id)
        self.db.execute("INSERT INTO NVTX_EVENTS VALUES (?,?,?,?,?,?)", row)

    def done(self) -> Path:
        self.db.commit()
        self.db.close()
        return self.path
