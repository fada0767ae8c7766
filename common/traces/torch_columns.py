"""How do a profiler's JSON events become columns? Batches of structs in, int64 arrays out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from typing import Any

import msgspec
import numpy as np

from common.traces.decimal_time import (
    FARTHEST_NS,
    LONGEST_NS,
    Times,
    is_plain,
    nanoseconds_of,
    nanoseconds_of_plain,
)
from common.traces.json_events import Arguments, Event
from common.traces.model import MODULE_PREFIX, UNKNOWN, Bool, Caution, GpuKind, HostKind, Int64

MEMORY_EVENT = "[memory]"
_OTHER, _ARROW, _MEMORY = 0, 64, 65
_HOST, _GPU = 1, 16  # codes of categories: HOST + HostKind, GPU + GpuKind
_FRAME = _HOST + HostKind.FRAME
_RUNTIME = _HOST + HostKind.RUNTIME
_MODULE = _HOST + HostKind.MODULE

CATEGORIES = {
    "cpu_op": _HOST + HostKind.OPERATOR,
    "operator": _HOST + HostKind.OPERATOR,  # the names of 2021, in lower case
    "user_annotation": _HOST + HostKind.ANNOTATION,
    "cuda_runtime": _RUNTIME,
    "cuda_driver": _RUNTIME,
    "runtime": _RUNTIME,
    "driver": _RUNTIME,
    "xpu_runtime": _RUNTIME,
    "xpu_driver": _RUNTIME,
    "mtia_runtime": _RUNTIME,
    "privateuse1_runtime": _RUNTIME,
    "privateuse1_driver": _RUNTIME,
    "python_function": _FRAME,
    "": _MEMORY,  # allocator events had no category in 2021
    "cpu_instant_event": _MEMORY,
    "ac2g": _ARROW,  # arrows between events: correlation ids say the same
    "async_cpu_to_gpu": _ARROW,
    "async_gpu": _ARROW,
    "async": _ARROW,
    "fwdbwd": _ARROW,
    # `gpu_user_annotation` repeats a CPU range on the GPU's time line: no work of its own.
    "kernel": _GPU + GpuKind.KERNEL,
    "gpu_memcpy": _GPU + GpuKind.MEMCPY,
    "memcpy": _GPU + GpuKind.MEMCPY,
    "gpu_memset": _GPU + GpuKind.MEMSET,
    "memset": _GPU + GpuKind.MEMSET,
}
# On a stream and yet no work: a range's shadow, a wait, the profiler's own time.
_NO_WORK = frozenset(("gpu_user_annotation", "cuda_sync", "hip_sync", "xpu_sync", "overhead"))
_TIMES_AT_ONCE = 1 << 15  # of spans whose times are converted together
LARGEST_BYTES = 1 << 43  # 8 TiB: more than any allocator has
_TRAILING_NUMBER = re.compile(r"(\d{1,18})\s*$")


class _Codes(dict[str, int]):
    """Category -> code, whatever its case."""

    def __missing__(self, category: str) -> int:
        code = self[category] = CATEGORIES.get(category.lower(), _OTHER)
        return code


class Interned(dict[Any, int]):
    """Value -> small number, in order of first appearance."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self)
        return number

    def numbers(self, values: Sequence[Any]) -> Int64:
        return np.fromiter(map(self.__getitem__, values), np.int64, len(values))


class _Piece(msgspec.Struct, frozen=True):
    """The spans of a piece of the file; their times as text, joined by commas."""

    columns: dict[str, Any]
    on_gpu: dict[str, Int64]  # more columns, of those on a GPU
    starts: bytes
    lengths: bytes

    def __len__(self) -> int:
        return len(self.columns["code"])


def _with_modules(events: Sequence[Event], codes: bytes) -> bytes:
    """The codes with those frames told apart that are calls of a torch.nn.Module."""
    told = np.frombuffer(codes, dtype=np.uint8).copy()
    frames = np.flatnonzero(told == _FRAME)
    is_module = [events[at].name.startswith(MODULE_PREFIX) for at in frames.tolist()]
    told[frames[np.array(is_module, dtype=np.bool_)]] = _MODULE
    return told.tobytes()


class Gathered:
    """Columns under construction: one entry of each list per batch of events."""

    def __init__(self, frames: bool) -> None:
        self.names = Interned()
        self.threads = Interned()
        self.events = 0
        self.arrows = 0
        self.has_phase = False  # whether any event is one: a list of other objects is no trace
        self.frames = 0
        self.odd: Counter[str] = Counter()  # cautions by kind
        self._codes = _Codes()
        self._other_streams = Interned()
        self._kept = bytes(
            int(_HOST <= code < _ARROW and (frames or code != _FRAME)) for code in range(256)
        )
        self._rest = bytes(int(code in (_OTHER, _MEMORY)) for code in range(256))
        self._spans: dict[str, list[Any]] = {}
        self._gpu: dict[str, list[Int64]] = {}
        self._waiting: list[_Piece] = []  # spans whose times are still text
        self._memory: dict[str, list[Int64]] = {}

    def add(self, events: Sequence[Event]) -> None:
        self.events += len(events)
        self.has_phase = self.has_phase or any(event.ph for event in events)
        codes = bytes(map(self._codes.__getitem__, [event.cat for event in events]))
        frames = codes.count(_FRAME)
        if frames:
            self.frames += frames
            codes = _with_modules(events, codes)
        self.arrows += codes.count(_ARROW)
        chosen = codes.translate(self._kept)
        spans = list(compress(events, chosen))
        if spans:
            kept_codes = bytes(compress(codes, chosen))
            phases = [event.ph for event in spans]
            if phases.count("X") < len(phases):
                complete = [phase == "X" for phase in phases]
                self.odd["begin and end"] += phases.count("B") + phases.count("E")
                spans = list(compress(spans, complete))
                kept_codes = bytes(compress(kept_codes, complete))
            if spans:
                self._add_spans(spans, kept_codes)
        others = codes.translate(self._rest)
        if 1 in others:
            rest = list(compress(events, others))
            phases = [event.ph for event in rest]
            self.odd["begin and end"] += phases.count("B") + phases.count("E")
            self.odd["unknown work"] += sum(
                e.ph == "X" and e.args.stream is not None and e.cat.lower() not in _NO_WORK
                for e in rest
            )
            memory = [e for e in rest if e.name == MEMORY_EVENT and e.ph in ("i", "I")]
            if memory:
                self._add_memory(memory)

    def _add_spans(self, spans: list[Event], kept_codes: bytes) -> None:
        """The columns of a piece. Plain times wait until there are many of them."""
        codes = np.frombuffer(kept_codes, dtype=np.uint8)
        on_gpu = np.flatnonzero(codes >= _GPU)
        args = [event.args for event in spans]
        columns = {
            "code": codes,
            "name": self.names.numbers([event.name for event in spans]),
            "thread": self._thread(spans),
            "correlation": whole([a.correlation for a in args]),
            "external": _external(args),
        }
        on_gpu_columns = self._gpu_columns([spans[i] for i in on_gpu.tolist()])
        starts, lengths = [event.ts for event in spans], [event.dur for event in spans]
        piece = _Piece(columns, on_gpu_columns, b",".join(starts), b",".join(lengths))
        if is_plain(piece.starts, len(spans)) and is_plain(piece.lengths, len(spans)):
            self._waiting.append(piece)
            if sum(map(len, self._waiting)) >= _TIMES_AT_ONCE:
                self._settle()
            return
        self._settle()
        self._add_timed([piece], nanoseconds_of(starts), nanoseconds_of(lengths))

    def _settle(self) -> None:
        """Convert the times that are waiting."""
        pieces, self._waiting = self._waiting, []
        if pieces:
            counts = [len(piece) for piece in pieces]
            starts = nanoseconds_of_plain([piece.starts for piece in pieces], counts)
            lengths = nanoseconds_of_plain([piece.lengths for piece in pieces], counts)
            self._add_timed(pieces, starts, lengths)

    def _add_timed(self, pieces: Sequence[_Piece], starts: Times, lengths: Times) -> None:
        self.odd["finer"] += starts.finer + lengths.finer
        bad = {
            "no number": ~(starts.valid & lengths.valid),
            "out of range": np.abs(starts.ns) >= FARTHEST_NS,
            "negative": lengths.valid & (lengths.ns < 0),
            "too long": lengths.valid & (lengths.ns > LONGEST_NS),
        }
        good: Bool = np.ones(len(starts.ns), dtype=np.bool_)
        codes = np.concatenate([piece.columns["code"] for piece in pieces])
        for kind, rows in bad.items():
            self._count_bad(kind, rows & good, codes)
            good &= ~rows
        times = {"start_ns": starts.ns, "end_ns": starts.ns + np.where(good, lengths.ns, 0)}
        if good.all():
            _append(self._spans, times)
            for piece in pieces:
                _append(self._spans, piece.columns)
                _append(self._gpu, piece.on_gpu)
            return
        _append(self._spans, {name: column[good] for name, column in times.items()})
        at = 0
        for piece in pieces:
            kept = good[at : at + len(piece)]
            at += len(piece)
            kept_on_gpu = kept[piece.columns["code"] >= _GPU]
            _append(self._spans, {name: column[kept] for name, column in piece.columns.items()})
            _append(self._gpu, {name: column[kept_on_gpu] for name, column in piece.on_gpu.items()})

    def _gpu_columns(self, work: list[Event]) -> dict[str, Int64]:
        args = [event.args for event in work]
        return {
            "device": whole([
                a.device if a.device is not None else e.pid for a, e in zip(args, work, strict=True)
            ]),
            "stream": self._streams([
                a.stream if a.stream is not None else e.tid for a, e in zip(args, work, strict=True)
            ]),
            "size_bytes": whole([a.bytes for a in args]),
            "graph_node": whole([a.graph_node or UNKNOWN for a in args]),
        }  # fmt: skip

    def _streams(self, values: list[int | str | None]) -> Int64:
        """Streams by number; `stream 7` is 7, and a name without a number gets one below -1."""
        try:
            return np.fromiter(values, np.int64, len(values))
        except (ValueError, TypeError, OverflowError):
            pass
        numbers: list[int | str | None] = []
        for value in values:
            if isinstance(value, str):
                match = _TRAILING_NUMBER.search(value)
                value = int(match[1]) if match else -2 - self._other_streams[value]
            numbers.append(value)
        return whole(numbers)

    def _thread(self, events: list[Event]) -> Int64:
        return self.threads.numbers([(event.pid, event.tid) for event in events])

    def _count_bad(self, kind: str, rows: Bool, codes: Any) -> None:
        count = int(rows.sum())
        if count:
            self.odd[kind] += count
            self.odd["on a GPU"] += int((rows & (codes >= _GPU)).sum())

    def _add_memory(self, events: list[Event]) -> None:
        times = nanoseconds_of([event.ts for event in events])
        args = [event.args for event in events]
        sizes = [a.allocated if _is_size(a.allocated) else None for a in args]
        known: Bool = times.valid & np.array([size is not None for size in sizes])
        self.odd["memory"] += len(events) - int(known.sum())
        columns = {
            "time_ns": times.ns,
            "delta_bytes": np.array([size or 0 for size in sizes], dtype=np.int64),
            "device": whole([a.device_id if a.device_type else None for a in args]),
            "thread": self._thread(events),
            "allocated_bytes": whole([a.total_allocated for a in args]),
            "reserved_bytes": whole([a.total_reserved for a in args]),
        }
        _append(self._memory, {name: column[known] for name, column in columns.items()})

    # What came out

    def spans(self) -> tuple[dict[str, Any], dict[str, Int64]]:
        """(columns of all spans, more columns of those on a GPU), joined.

        What begins a year or more from the rest is left out and counted.
        """
        self._settle()
        columns, on_gpu = _joined(self._spans), _joined(self._gpu)
        if not columns:
            every = ["code", "name", "thread", "start_ns", "end_ns", "correlation", "external"]
            columns = {name: np.empty(0, dtype=np.int64) for name in every}
            more = ["device", "stream", "size_bytes", "graph_node"]
            return columns, {name: np.empty(0, dtype=np.int64) for name in more}
        starts = columns["start_ns"]
        if len(starts) and int(starts.max()) - int(starts.min()) > LONGEST_NS:
            middle = int(np.partition(starts, len(starts) // 2)[len(starts) // 2])
            near: Bool = np.abs(starts - middle) <= LONGEST_NS
            self._count_bad("out of range", ~near, columns["code"])
            near_on_gpu = near[columns["code"] >= _GPU]
            on_gpu = {name: column[near_on_gpu] for name, column in on_gpu.items()}
            columns = {name: column[near] for name, column in columns.items()}
        return columns, on_gpu

    def memory(self) -> dict[str, Int64]:
        return _joined(self._memory)

    def sorted_threads(self) -> tuple[tuple[str, ...], Int64]:
        """("process/thread", …) in order, and the place of each thread number in it."""
        texts = [f"{process}/{thread}" for process, thread in self.threads]
        ordered = tuple(sorted(set(texts)))
        place = {text: number for number, text in enumerate(ordered)}
        return ordered, np.array([place[text] for text in texts], dtype=np.int64)

    def cautions(self) -> list[Caution]:
        odd = self.odd
        said = {
            "no number": "events have no readable time (missing, NaN or inf) and are left out",
            "negative": "events have a negative duration and are left out",
            "too long": "events last longer than a year and are left out",
            "out of range": "events begin a year or more from the others and are left out",
            "memory": "allocator events have no readable time or size and are left out",
            "begin and end": "begin/end events are not read",
            "finer": "times have digits below a nanosecond and were rounded",
            "unknown work": "events on a GPU's stream are of no known category and are left out",
        }
        found = [Caution(k, odd[k], f"{odd[k]} {says}") for k, says in said.items() if odd[k]]
        if odd["on a GPU"]:
            count = odd["on a GPU"]
            found.append(
                Caution("gpu work left out", count, f"{count} of the events left out are GPU work")
            )
        return found


def _append(parts: dict[str, list[Any]], columns: dict[str, Any]) -> None:
    for name, column in columns.items():
        parts.setdefault(name, []).append(column)


def _joined(parts: dict[str, list[Any]]) -> dict[str, Any]:
    """One column of each list of parts, which are emptied."""
    found = {}
    for name in list(parts):
        found[name] = np.concatenate(parts.pop(name))
    return found


def _is_size(size: int | None) -> bool:
    """Bytes that fit 64 bits, also where a million of them are added up."""
    return size is not None and abs(size) < LARGEST_BYTES


def _external(args: list[Arguments]) -> Int64:
    found = whole([a.external for a in args])
    if (found == UNKNOWN).all():
        return whole([a.external_2021 for a in args])
    return found


def is_gpu(codes: Any) -> Bool:
    found: Bool = codes >= _GPU
    return found


def gpu_kind(codes: Any) -> Int64:
    kinds: Int64 = np.subtract(codes, _GPU, dtype=np.int64)
    return kinds


def host_kind(codes: Any) -> Int64:
    kinds: Int64 = np.subtract(codes, _HOST, dtype=np.int64)
    return kinds


def whole(values: Sequence[int | str | None]) -> Int64:
    """Integers as int64, UNKNOWN for None and for text without a number."""
    try:
        return np.fromiter(values, np.int64, len(values))
    except (ValueError, TypeError, OverflowError):
        return np.fromiter(map(_whole, values), np.int64, len(values))


def _whole(value: int | str | None) -> int:
    if isinstance(value, str):
        match = _TRAILING_NUMBER.search(value)
        value = int(match[1]) if match else None
    if value is None:
        return UNKNOWN
    # Ids of 64 bits without a sign wrap; what matters is that equal ids stay equal.
    return int(value) & ((1 << 63) - 1) if abs(value) >> 63 else int(value)
