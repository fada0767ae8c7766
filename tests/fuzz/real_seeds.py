"""How does a real profiler file become a seed? By a slice of it, cut anew at every run.

A slice holds some of the file's own events, rows or launches as they were recorded, so few that a
case takes milliseconds; what a reader must find in it is counted here, without the readers. The
same files give the same slices, so a case is known by (seed, number) and the files' hashes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import pickle
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from fuzz import memory_cases, nsys_cases, text_cases, torch_cases
from fuzz.case import Unit, Units
from fuzz.text_cases import DURATION

LARGEST_TORCH_BYTES = 6 << 20  # packed or not: larger ones take seconds to cut
GPU_EVENTS, OTHERS_EACH, LONGEST_EVENT = 8, 4, 1_500
KERNELS_KEPT, ROWS_KEPT, LAUNCHES_KEPT, COLUMNS_KEPT = 10, 4, 4, 40
_GPU = frozenset(("kernel", "gpu_memcpy", "memcpy", "gpu_memset", "memset"))
_HOST = frozenset((
    "cpu_op", "operator", "user_annotation", "cuda_runtime", "cuda_driver", "runtime", "driver",
))  # fmt: skip
_IDS = ("correlation", "External id", "external id")
_COPIES = {1: "Host-to-Device", 2: "Device-to-Host", 8: "Device-to-Device", 10: "Peer-to-Peer"}
_EXPONENTS = {"second": 9, "s": 9, "msecond": 6, "ms": 6, "usecond": 3, "us": 3, "nsecond": 0,
              "ns": 0, "": 0}  # fmt: skip


@dataclass(frozen=True)
class RealSeed:
    """One slice: `held` is what the cases of its format start from."""

    format: str
    name: str
    sha256: str  # of the file that it was cut from
    data: bytes  # undamaged
    units: Units | None  # what must be read of it, and nothing else
    held: Any


def cut_all(folder: Path, compiled: Path) -> list[RealSeed]:
    """Slices of every fitting file below `folder`, and of our own compiled kernels."""
    ways: tuple[tuple[str, Path, str, Callable[[bytes], RealSeed | None]], ...] = (
        ("torch", folder / "torch", "*.json.gz", _torch),
        ("nsys", folder / "nsys", "*.sqlite.gz", _nsys),
        ("memory", folder / "memory", "*.pickle.gz", _memory),
        ("ncu", folder / "ncu", "*.csv", _ncu),
        ("compiled", compiled, "*.json", _compiled),
    )
    found = []
    for kind, place, pattern, way in ways:
        for path in sorted(place.glob(pattern)):
            raw = path.read_bytes()
            data = gzip.decompress(raw) if path.suffix == ".gz" else raw
            if kind == "torch" and len(data) > LARGEST_TORCH_BYTES:
                continue
            seed = way(data)
            if seed is not None:
                digest = hashlib.sha256(raw).hexdigest()
                name = f"{kind}/{path.name}"
                found.append(RealSeed(kind, name, digest, seed.data, seed.units, seed.held))
    return found


def _seed(data: bytes, units: Units | None, held: Any) -> RealSeed:
    return RealSeed("", "", "", data, units, held)


# Traces of torch.profiler


class Number(str):
    """A number as it is written."""


def _text(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


def _torch(data: bytes) -> RealSeed | None:
    text = data.decode("utf-8", "replace")
    document = json.loads(text, parse_float=Number, parse_int=Number, strict=False)
    events = [e for e in document["traceEvents"] if len(_text(e)) <= LONGEST_EVENT]
    kept = [_event(events[at]) for at in sorted(_chosen(events))]
    head = {key: value for key, value in document.items() if key != "traceEvents"}
    fields = "".join(
        f"{json.dumps(key)}: {_text(value)}, "
        for key, value in head.items()
        if len(_text(value)) < LONGEST_EVENT
    )
    seed = torch_cases.Seed(
        tuple(event for event in kept if event), "{" + fields + '"traceEvents": [\n'
    )
    return _seed(seed.data, seed.units, seed)


def _category(event: dict[str, Any]) -> str:
    return str(event.get("cat", "")).lower()


def _chosen(events: list[dict[str, Any]]) -> set[int]:
    """Some GPU work from the middle, what launched it, and a few events of every other kind."""
    work = [at for at, event in enumerate(events) if _category(event) in _GPU]
    begin = len(work) // 2
    chosen = set(work[begin : begin + GPU_EVENTS])
    ids = {
        (key, events[at].get("args", {}).get(key)) for at in chosen for key in _IDS
    }  # fmt: skip
    seen: dict[tuple[str, str], int] = {}
    middle = min(chosen, default=len(events) // 2)
    for at in [*range(middle, len(events)), *range(middle)]:
        event, args = events[at], events[at].get("args", {})
        kind = (_category(event), str(event.get("ph")))
        linked = any(args.get(key) is not None and (key, args[key]) in ids for key in _IDS)
        if at not in chosen and (seen.get(kind, 0) < (3 if linked else 1) * OTHERS_EACH):
            seen[kind] = seen.get(kind, 0) + 1
            chosen.add(at)
    return chosen


def _event(event: dict[str, Any]) -> torch_cases.Event | None:
    """None for what has parts of a nanosecond: its length is a matter of rounding."""
    args = event.get("args", {})
    fields = {key: _text(value) for key, value in event.items() if key != "args"}
    held = torch_cases.Event(fields, {key: _text(value) for key, value in args.items()})
    category, name = _category(event), str(event.get("name"))
    if event.get("ph") != "X":
        return held
    module = category == "python_function" and name.startswith("nn.Module: ")
    if category in _GPU or category in _HOST or module:
        spent = Decimal(event["dur"]) * 1000
        if spent != int(spent) or int(spent) < 0:
            return None
        held.unit = ("gpu:" if category in _GPU else "host:") + name, int(spent)
    return held


# Exports of Nsight Systems


def _nsys(data: bytes) -> RealSeed | None:
    source, target = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    source.deserialize(data)
    source.text_factory = lambda value: value.decode("utf-8", "replace")
    made = dict(source.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    if nsys_cases.KERNEL not in made or nsys_cases.CALL not in made:
        return None
    target.execute("PRAGMA page_size = 512")
    timed: nsys_cases.Timed = {}
    for table, query in _slices(source, made):
        cursor = source.execute(query)
        names = [column[0] for column in cursor.description]
        target.execute(made[table])
        marks = ", ".join("?" * len(names))
        for number, row in enumerate(cursor.fetchall(), 1):
            target.execute(f"INSERT INTO {table} VALUES ({marks})", row)
            unit = _unit(source, table, dict(zip(names, row, strict=True)))
            if unit is not None:
                timed[table, number] = unit
    target.commit()
    data = target.serialize()
    source.close()
    target.close()
    base = nsys_cases.Base(data, timed)
    return _seed(data, base.units, base)


def _slices(source: sqlite3.Connection, made: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(table, query): kernels of the middle, the calls that launched them, texts that they name."""
    cases = nsys_cases
    count = source.execute(f"SELECT count(*) FROM {cases.KERNEL}").fetchone()[0]
    work = f"SELECT * FROM {cases.KERNEL} LIMIT {KERNELS_KEPT} OFFSET {count // 2}"
    ids = [row[0] for row in source.execute(work.replace("*", "correlationId"))]
    inside = ", ".join(map(str, ids)) or "0"
    queries = {
        cases.KERNEL: work,
        cases.CALL: f"SELECT * FROM {cases.CALL} WHERE correlationId IN ({inside}) "
        f"AND nameId IS NOT NULL LIMIT {2 * KERNELS_KEPT}",
        cases.COPY: f"SELECT * FROM {cases.COPY} WHERE copyKind IN {tuple(_COPIES)} "
        f"LIMIT {ROWS_KEPT}",
        cases.SET: f"SELECT * FROM {cases.SET} LIMIT {ROWS_KEPT}",
        cases.NVTX: f"SELECT * FROM {cases.NVTX} WHERE eventType = 59 AND end > start "
        f"AND coalesce(text, '') NOT LIKE '%, %' LIMIT {ROWS_KEPT}",
    }
    texts = set()
    for table, columns in (
        (cases.KERNEL, ("demangledName", "shortName")), (cases.CALL, ("nameId",)),
        (cases.NVTX, ("textId",)),
    ):  # fmt: skip
        for column in columns if table in made else ():
            if column in made[table]:
                query = queries[table].replace("SELECT *", f"SELECT {column}")
                texts |= {row[0] for row in source.execute(query) if row[0] is not None}
    named = ", ".join(map(str, sorted(texts)))
    queries[cases.STRINGS] = f"SELECT * FROM {cases.STRINGS} WHERE id IN ({named})"
    for table in ("TARGET_INFO_GPU", "TARGET_INFO_CUDA_DEVICE", "META_DATA_EXPORT",
                  "EXPORT_META_DATA", "ENUM_CUDA_MEMCPY_OPER"):  # fmt: skip
        queries[table] = f"SELECT * FROM {table} LIMIT 20"
    for table, query in queries.items():
        if table in made:
            yield table, query


def _unit(source: sqlite3.Connection, table: str, row: dict[str, Any]) -> Unit | None:
    if table not in nsys_cases.TIMED:
        return None
    spent = row["end"] - row["start"]

    def text(number: int | None) -> str:
        query = "SELECT value FROM StringIds WHERE id = ?"
        return str(source.execute(query, (number,)).fetchone()[0])

    if table == nsys_cases.KERNEL:
        return f"gpu:{text(row['demangledName'])}", spent
    if table == nsys_cases.CALL:
        return "host:" + re.sub(r"_v\d+(_ptsz|_ptds)?$", "", text(row["nameId"])), spent
    if table == nsys_cases.COPY:
        return f"gpu:Memcpy {_COPIES[row['copyKind']]}", spent
    if table == nsys_cases.SET:
        return "gpu:Memset", spent
    own = row.get("text")
    return f"host:{own if own is not None else text(row['textId'])}", spent


# Memory snapshots


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


def _memory(data: bytes) -> RealSeed:
    whole = _Plain(io.BytesIO(data)).load()
    segments = sorted(whole["segments"], key=lambda row: len(row["blocks"]))[:ROWS_KEPT]
    trace = next((rows for rows in whole["device_traces"] if rows), [])
    middle = len(trace) // 2
    rows = trace[max(0, middle - 5) : middle + 7]
    value = {
        **{key: held for key, held in whole.items() if len(str(held)) < 2_000},
        "segments": [_short(row) for row in segments],
        "device_traces": [[_short(row) for row in rows]],
    }
    for row in value["segments"]:
        row["blocks"] = [_short(block) for block in row["blocks"][:6]]
    seed = memory_cases.Seed(value)
    return _seed(seed.data(4), seed.units, seed)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """With three frames: hundreds of them would be most of the file."""
    return {key: held[:3] if key == "frames" else held for key, held in row.items()}


# What ncu prints


def _ncu(data: bytes) -> RealSeed | None:
    lines = data.decode("utf-8", "replace").splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        return None
    table = list(csv.reader(lines[begin:]))
    header = table[0]
    raw = DURATION in header
    kept = [at for at, name in enumerate(header) if at < COLUMNS_KEPT or name == DURATION]
    cut = [[row[at] for at in kept] for row in table if len(row) == len(header)]
    head, rows = (cut[:2], cut[2:]) if raw else (cut[:1], cut[1:])
    rows = rows[: LAUNCHES_KEPT if raw else 10 * LAUNCHES_KEPT]
    units = [_launch(cut[0], head[1], row) for row in rows] if raw else None
    page = text_cases.Page(
        tuple(_quoted(row) for row in head), tuple(_quoted(row) for row in rows),
        None if units is None else tuple(units),
    )  # fmt: skip
    return _seed(page.data, page.units if raw else None, page)


def _quoted(cells: list[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def _launch(header: list[str], units: list[str], row: list[str]) -> tuple[Unit, ...]:
    at = header.index(DURATION)
    spent = Decimal(row[at].replace(",", "")).scaleb(_EXPONENTS[units[at]])
    return ((row[header.index("Kernel Name")], int(spent)),)


def _compiled(data: bytes) -> RealSeed:
    document = json.loads(data)
    units: Units | None = None
    return _seed(json.dumps(document).encode(), units, document)
