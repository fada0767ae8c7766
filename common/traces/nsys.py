"""What did Nsight Systems record? Reads its SQLite exports (.sqlite, gzipped too) into columns.

Ids of calls repeat between processes, so work is joined to its call by process and correlation id.
Where CUDA graphs were traced as a whole their time is in a table of its own, and counts; where a
launch was traced both ways, its nodes count and the whole does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.errors import UsageError
from common.traces.byte_source import unpacked
from common.traces.decimal_time import LONGEST_NS
from common.traces.linking import latest_call, paired_keys
from common.traces.model import (
    GRAPH_LAUNCH,
    UNKNOWN,
    Caution,
    Device,
    GpuKind,
    GpuWork,
    HostKind,
    HostSpans,
    Int64,
    Trace,
    empty_allocations,
    empty_gpu,
    gpu_from,
)
from common.traces.nsys_schema import facts, find_tables, is_nsys
from common.traces.nvtx_names import without_counters
from common.traces.ordering import distinct, start_order, taken
from common.traces.side_by_side import begun
from common.traces.sqlite_file import Database, open_database
from common.traces.torch_columns import Interned

FORMAT = "nsys"
# Below this a second process costs more than it saves.
LARGE_BYTES = 32 << 20
PUSH_POP, START_END = (59, 70), (60, 71)  # NVTX, and NVTX read from text files
_PROCESS = ~0xFFFFFF  # a global thread id is a process id with the thread in its low 24 bits
_VERSION_OF_CALL = re.compile(r"_v\d+(?:_ptsz|_ptds)?$")
_CALL = ("start", "end", "globalTid", "correlationId", "nameId")
_COMMON = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "graphNodeId")
_KINDS = {
    "kernel": (GpuKind.KERNEL, ("demangledName|shortName",)),
    "memcpy": (GpuKind.MEMCPY, ("bytes", "copyKind")),
    "memset": (GpuKind.MEMSET, ("bytes",)),
    "graph": (GpuKind.GRAPH, ("graphId", "graphExecId")),
}
# ENUM_CUDA_MEMCPY_OPER of the exports, as the profiler's own reports print it.
COPY_KINDS = {
    1: "Host-to-Device", 2: "Device-to-Host", 3: "Host-to-Array", 4: "Array-to-Host",
    5: "Array-to-Array", 6: "Array-to-Device", 7: "Device-to-Array", 8: "Device-to-Device",
    9: "Host-to-Host", 10: "Peer-to-Peer",
}  # fmt: skip


def read_nsys(path: Path) -> Trace:
    """Read an SQLite export of Nsight Systems. Raises UsageError in one line when it is none."""
    with unpacked(path, ".sqlite") as file:
        try:
            large = file.stat().st_size > LARGE_BYTES
            with begun(lambda: _calls(file), large) as calls, open_database(file) as database:
                return _Reader(database, str(path), calls).trace()
        except UsageError as error:
            if file is path:
                raise
            # The reader knows the unpacked copy only; the user knows the file that was given.
            raise UsageError(str(error).replace(str(file), str(path))) from error


_Part = tuple[dict[str, Int64], int]  # columns of a table, and how many rows have no times


def _calls(file: Path) -> list[_Part]:
    """The runtime calls: about as many rows as all work on GPUs, so they are read beside it."""
    with open_database(file) as database:
        tables = find_tables(database).get("runtime", ())
        return [database.integers(table, _CALL) for table in tables]


class _Reader:
    def __init__(self, database: Database, name: str, calls: Callable[[], list[_Part]]) -> None:
        self.database = database
        self.calls = calls
        self.tables = find_tables(database)
        if not is_nsys(database, self.tables):
            raise UsageError(
                f"{name} is an SQLite file but no export of Nsight Systems; make one with "
                "nsys export --type sqlite"
            )
        self.names = Interned()
        self.cautions: list[Caution] = []
        self.counts: dict[str, int] = {}
        self.texts: dict[int, str] = {}
        for table in self.tables.get("strings", ()):
            for key, value in database.rows(table, ("id", "value")):
                if isinstance(key, int) and isinstance(value, str):
                    self.texts[key] = value
        self._by_text: dict[int, int] = {}

    def trace(self) -> Trace:
        work = self._work()
        host, threads, process = self._host()
        gpu = self._gpu(work, host, process)
        if self.database.not_utf8:
            count = self.database.not_utf8
            self._caution("not UTF-8", count, "texts are not UTF-8 and were read with a mark")
        version = facts(self.database, self.tables).get("EXPORT_SCHEMA_VERSION")
        return Trace(
            source="nsys",
            format=f"{FORMAT} {version}" if version else FORMAT,
            names=tuple(self.names),
            threads=threads,
            gpu=gpu,
            host=host,
            allocations=empty_allocations(),
            devices=self._devices(),
            events=sum(self.counts[key] for key in (*_KINDS, "runtime", "nvtx")),
            counts=self.counts,
            warnings=tuple(self.cautions),
        )

    def _caution(self, kind: str, count: int, says: str) -> None:
        if count:
            self.cautions.append(Caution(kind, count, f"{count} {says}"))

    # Names

    def _named(self, ids: Int64) -> Int64:
        """Numbers of names for ids of StringIds. An id without a text is named by itself."""
        unique, inverse = distinct(ids)
        numbers = [self.names[self.texts.get(i, f"name {i}")] for i in unique.tolist()]
        return np.array(numbers, dtype=np.int64)[inverse]

    def _calls_named(self, ids: Int64) -> Int64:
        """As `_named`, without the version that nsys puts behind a call (`_v7000`)."""
        unique, inverse = distinct(ids)
        texts = (self.texts.get(i, f"name {i}") for i in unique.tolist())
        numbers = [self.names[_VERSION_OF_CALL.sub("", text)] for text in texts]
        return np.array(numbers, dtype=np.int64)[inverse]

    # Tables

    def _rows(self, role: str, read: list[_Part], columns: tuple[str, ...]) -> dict[str, Int64]:
        """All tables of a role joined; rows with impossible times are left out and counted."""
        parts: list[dict[str, Int64]] = []
        for found, left_out in read:
            self._caution(f"{role} without times", left_out, f"{role} rows have no start or end")
            parts.append(found)
        names = [column.partition("|")[0] for column in columns]
        joined = {name: _joined([part[name] for part in parts]) for name in names}
        self.counts[role] = self.counts.get(role, 0) + len(joined["start"])
        length = joined["end"] - joined["start"]
        negative, too_long = length < 0, length > LONGEST_NS
        for kind, bad, says in (
            ("negative", negative, "end before they start"),
            ("too long", too_long, "last longer than a year"),
        ):
            self._caution(kind, int(bad.sum()), f"{role} rows {says} and are left out")
        good = ~(negative | too_long)
        return joined if good.all() else {name: c[good] for name, c in joined.items()}

    def _host(self) -> tuple[HostSpans, tuple[str, ...], Int64]:
        """(spans, threads, process of each span): runtime calls and NVTX ranges."""
        calls = self._rows("runtime", self.calls(), _CALL)
        size = len(calls["start"])
        kinds = [np.full(size, int(HostKind.RUNTIME), dtype=np.int64)]
        names = [self._calls_named(calls["nameId"])]
        tids, ids = [calls["globalTid"]], [calls["correlationId"]]
        starts, ends = [calls["start"]], [calls["end"]]
        for types, kind, label in (
            (PUSH_POP, HostKind.ANNOTATION, "nvtx_push_pop"),
            (START_END, HostKind.RANGE, "nvtx_start_end"),
        ):
            ranges, named, count = self._ranges(types, label)
            self.counts[label] = count
            named, operators = without_counters(self.names, named)
            emitted = operators & (kind is HostKind.ANNOTATION)
            kinds.append(np.where(emitted, int(HostKind.OPERATOR), int(kind)).astype(np.int64))
            names.append(named)
            tids.append(ranges["globalTid"])
            ids.append(np.full(len(named), UNKNOWN, dtype=np.int64))
            starts.append(ranges["start"])
            ends.append(ranges["end"])
        self.counts["nvtx"] = self._count("nvtx")
        tid = np.concatenate(tids)
        threads, place = _threads(tid)
        start, end = np.concatenate(starts), np.concatenate(ends)
        order = start_order(start, (start - end,), place)
        host = HostSpans(
            kind=taken(np.concatenate(kinds), order),
            name=taken(np.concatenate(names), order),
            thread=taken(place, order),
            start_ns=taken(start, order),
            end_ns=taken(end, order),
            correlation=taken(np.concatenate(ids), order),
            external=np.full(len(start), UNKNOWN, dtype=np.int64),
        )
        return host, threads, taken(tid & _PROCESS, order)

    def _count(self, role: str) -> int:
        connection = self.database.connection
        return sum(
            int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
            for table in self.tables.get(role, ())
        )

    def _ranges(self, types: tuple[int, int], label: str) -> tuple[dict[str, Int64], Int64, int]:
        """(columns, names, rows in the file) of NVTX ranges; those that never end are left out."""
        columns = ("start", "end", "globalTid", "textId", "rowid")
        where = f"eventType IN {types}"
        numbers: list[Int64] = []
        parts: list[dict[str, Int64]] = []
        count = 0
        for table in self.tables.get("nvtx", ()):
            query = f'SELECT count(*), sum(end IS NULL) FROM "{table}" WHERE {where}'
            rows, open_ = self.database.connection.execute(query).fetchone()
            count += int(rows)
            self._caution(f"{label} open", int(open_ or 0), f"{label} ranges never end")
            found, left_out = self._ranges_of(table, columns, where)
            self._caution("nvtx times", left_out - int(open_ or 0), "NVTX ranges have odd times")
            length = found["end"] - found["start"]
            bad = (length < 0) | (length > LONGEST_NS)
            self._caution("nvtx times", int(bad.sum()), "NVTX ranges have odd times")
            found = {name: column[~bad] for name, column in found.items()}
            parts.append(found)
            numbers.append(self._range_names(table, found))
        if not parts:
            return {name: np.empty(0, dtype=np.int64) for name in columns}, np.empty(0, np.int64), 0
        joined = {name: np.concatenate([part[name] for part in parts]) for name in columns}
        return joined, np.concatenate(numbers), count

    def _ranges_of(
        self, table: str, columns: tuple[str, ...], where: str
    ) -> tuple[dict[str, Int64], int]:
        database = self.database
        known = database.tables[table]
        database.tables[table] = known | {"rowid"}  # every table of an export has one
        try:
            return database.integers(table, columns, where)
        finally:
            database.tables[table] = known

    def _range_names(self, table: str, found: dict[str, Int64]) -> Int64:
        """The text of a range stands in the row, or in StringIds."""
        own: dict[int, str] = {}
        query = f'SELECT rowid, text FROM "{table}" WHERE text IS NOT NULL'
        for row, text in self.database.connection.execute(query):
            if isinstance(text, str):
                own[row] = text
        if not own:
            return self._named(found["textId"])
        texts = self.texts
        names = self.names
        return np.fromiter(
            (
                names[own[row]] if row in own else names[texts.get(text_id, f"name {text_id}")]
                for row, text_id in zip(
                    found["rowid"].tolist(), found["textId"].tolist(), strict=True
                )
            ),
            np.int64,
            len(found["rowid"]),
        )

    # GPUs

    def _work(self) -> dict[str, list[_Part]]:
        """The tables of each kind of work on GPUs, as they are in the file."""
        return {
            role: [
                self.database.integers(table, (*_COMMON, *extra))
                for table in self.tables.get(role, ())
            ]
            for role, (_, extra) in _KINDS.items()
        }

    def _gpu(self, work: dict[str, list[_Part]], host: HostSpans, process: Int64) -> GpuWork:
        parts: list[dict[str, Int64]] = []
        for role, (kind, extra) in _KINDS.items():
            rows = self._rows(role, work.pop(role), (*_COMMON, *extra))
            size = len(rows["start"])
            if not size:
                continue
            part = {
                "kind": np.full(size, int(kind), dtype=np.int64),
                "name": self._work_names(kind, rows),
                "size_bytes": rows.get("bytes", np.full(size, UNKNOWN)),
            }
            part |= {name: rows[name] for name in _COMMON}
            parts.append(part)
        if not parts:
            return empty_gpu()
        joined = {name: _joined([part[name] for part in parts]) for name in parts[0]}
        del parts
        joined = self._each_once(joined)
        order = start_order(joined["start"], (joined["deviceId"], joined["streamId"]))
        for name in joined:  # one at a time: the unordered ones need not all stay
            joined[name] = taken(joined[name], order)
        calls = np.flatnonzero(host.kind == HostKind.RUNTIME)
        by, call_by = joined["globalPid"] & _PROCESS, process[calls]
        if not (joined["globalPid"] != UNKNOWN).any() and len(distinct(call_by)[0]) == 1:
            by, call_by = by * 0, call_by * 0  # one process, though the work does not say which
        ids, call_ids = joined["correlationId"], host.correlation[calls]
        keys, call_keys = paired_keys(by, ids, call_by, call_ids)
        call = latest_call(keys, joined["start"], call_keys, host.start_ns[calls])
        launch = np.where(call == UNKNOWN, UNKNOWN, calls[call] if len(calls) else UNKNOWN)
        is_graph = np.array([GRAPH_LAUNCH in name for name in self.names], dtype=np.bool_)
        by_graph = joined["kind"] == GpuKind.GRAPH
        linked = launch != UNKNOWN
        by_graph[linked] |= is_graph[host.name[launch[linked]]]
        columns = {
            "kind": joined["kind"],
            "name": joined["name"],
            "device": self._physical(joined["deviceId"], joined["globalPid"]),
            "stream": joined["streamId"],
            "process": joined["globalPid"],
            "start_ns": joined["start"],
            "end_ns": joined["end"],
            "correlation": joined["correlationId"],
            "launch": launch,
            "by_graph_launch": by_graph.astype(np.int64),
            "graph_node": joined["graphNodeId"],
            "size_bytes": joined["size_bytes"],
        }
        return gpu_from(columns, len(launch))

    def _work_names(self, kind: GpuKind, rows: dict[str, Int64]) -> Int64:
        if kind is GpuKind.KERNEL:
            return self._named(rows["demangledName"])
        if kind is GpuKind.MEMCPY:
            copies = [COPY_KINDS.get(k, "unknown") for k in rows["copyKind"].tolist()]
            return self.names.numbers([f"Memcpy {text}" for text in copies])
        if kind is GpuKind.MEMSET:
            return self.names.numbers(["Memset"] * len(rows["start"]))
        # The ids of two captures have nothing in common; what is launched is one graph each.
        return self.names.numbers([f"CUDA graph {g}" for g in rows["graphId"].tolist()])

    def _each_once(self, rows: dict[str, Int64]) -> dict[str, Int64]:
        """Leave out a whole graph where the same launch was also traced node by node."""
        whole = rows["kind"] == GpuKind.GRAPH
        if not whole.any():
            return rows
        keys, nodes = paired_keys(
            rows["globalPid"][whole], rows["correlationId"][whole],
            rows["globalPid"][~whole], rows["correlationId"][~whole],
        )  # fmt: skip
        twice = np.isin(keys, nodes[nodes != UNKNOWN])
        if twice.any():
            says = "graph launches were traced both whole and node by node; the nodes count"
            self._caution("graph traced twice", int(twice.sum()), says)
        kept = np.ones(len(whole), dtype=np.bool_)
        kept[np.flatnonzero(whole)[twice]] = False
        return {name: column[kept] for name, column in rows.items()}

    def _physical(self, device: Int64, process: Int64) -> Int64:
        """Device numbers that mean one GPU each, also where every process calls its own GPU 0."""
        by_process = self._cuda_devices()
        gpus: dict[int, set[int]] = {}
        for (_, cuda), gpu in by_process.items():
            gpus.setdefault(cuda, set()).add(gpu)
        if all(len(several) == 1 for several in gpus.values()):
            return device
        pid = ((process >> 24) & 0xFFFFFF).tolist()
        return np.array(
            [by_process.get(key, key[1]) for key in zip(pid, device.tolist(), strict=True)],
            dtype=np.int64,
        )

    def _cuda_devices(self) -> dict[tuple[int, int], int]:
        """(process id, CUDA's number) -> number of the GPU in the machine."""
        found: dict[tuple[int, int], int] = {}
        for table in self.tables.get("cuda_devices", ()):
            for gpu, cuda, pid in self.database.rows(table, ("gpuId", "cudaId", "pid")):
                if isinstance(gpu, int) and isinstance(cuda, int) and isinstance(pid, int):
                    found[pid, cuda] = gpu
        return found

    def _devices(self) -> tuple[Device, ...]:
        """Every GPU listed; one without a multiprocessor cannot run CUDA and has no number."""
        mapped: dict[int, set[int]] = {}
        for (_, its_cuda), its_gpu in self._cuda_devices().items():
            mapped.setdefault(its_gpu, set()).add(its_cuda)
        # As in _physical: where a CUDA number means several GPUs, those keep their own numbers.
        numbers = [n for several in mapped.values() for n in several]
        clear = len(numbers) == len(set(numbers))
        found = []
        for table in self.tables.get("gpus", ()):
            columns = ("id", "name", "smCount", "cuDevice")
            for gpu, name, processors, cuda in self.database.rows(table, columns):
                own = gpu if isinstance(gpu, int) else None
                if clear and own in mapped and len(mapped[own]) == 1:
                    number: int | None = next(iter(mapped[own]))
                elif processors == 0:
                    number = None
                else:
                    number = cuda if clear and isinstance(cuda, int) else own
                found.append(Device(number, name if isinstance(name, str) and name else None))
        return tuple(found)


def _joined(parts: list[Int64]) -> Int64:
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, dtype=np.int64)])


def _threads(tids: Int64) -> tuple[tuple[str, ...], Int64]:
    """("process/thread", …) in order, and each row's place in it."""
    unique, inverse = distinct(tids)
    texts = [f"{(t >> 24) & 0xFFFFFF}/{t & 0xFFFFFF}" for t in unique.tolist()]
    ordered = tuple(sorted(set(texts)))
    place = {text: number for number, text in enumerate(ordered)}
    numbers = np.array([place[text] for text in texts], dtype=np.int64)
    return ordered, numbers[inverse]
