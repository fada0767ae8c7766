"""How do a profiler's JSON events become columns? Batches of structs in, int64 arrays out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np

from common.traces.decimal_time import FARTHEST_NS, LONGEST_NS, nanoseconds_of
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
        self._spans: dict[str, list[Int64]] = {}
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
                self._add_spans(spans, np.frombuffer(kept_codes, dtype=np.uint8))
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

    def _add_spans(self, spans: list[Event], codes: Any) -> None:
        starts = nanoseconds_of([event.ts for event in spans])
        lengths = nanoseconds_of([event.dur for event in spans])
        self.odd["finer"] += starts.finer + lengths.finer
        on_gpu = np.flatnonzero(codes >= _GPU)
        bad = {
            "no number": ~(starts.valid & lengths.valid),
            "out of range": np.abs(starts.ns) >= FARTHEST_NS,
            "negative": lengths.valid & (lengths.ns < 0),
            "too long": lengths.valid & (lengths.ns > LONGEST_NS),
        }
        good: Bool = np.ones(len(spans), dtype=np.bool_)
        for kind, rows in bad.items():
            self._count_bad(kind, rows & good, codes)
            good &= ~rows
        args = [event.args for event in spans]
        columns = {
            "code": codes.astype(np.int64),
            "name": self.names.numbers([event.name for event in spans]),
            "thread": self._thread(spans),
            "start_ns": starts.ns,
            "end_ns": starts.ns + np.where(good, lengths.ns, 0),
            "correlation": whole([a.correlation for a in args]),
            "external": _external(args),
            **self._gpu_columns([spans[i] for i in on_gpu.tolist()], on_gpu, len(spans)),
        }
        for name, column in columns.items():
            self._spans.setdefault(name, []).append(column if good.all() else column[good])

    def _gpu_columns(self, work: list[Event], rows: Int64, size: int) -> dict[str, Int64]:
        args = [event.args for event in work]
        found = {
            "device": whole([
                a.device if a.device is not None else e.pid for a, e in zip(args, work, strict=True)
            ]),
            "stream": self._streams([
                a.stream if a.stream is not None else e.tid for a, e in zip(args, work, strict=True)
            ]),
            "size_bytes": whole([a.bytes for a in args]),
            "graph_node": whole([a.graph_node or UNKNOWN for a in args]),
        }  # fmt: skip
        spread = {}
        for name, column in found.items():
            spread[name] = np.full(size, UNKNOWN, dtype=np.int64)
            spread[name][rows] = column
        return spread

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
        for name, column in columns.items():
            self._memory.setdefault(name, []).append(column[known])

    # What came out

    def spans(self) -> dict[str, Int64]:
        """All columns joined; what begins a year or more from the rest is left out and counted."""
        columns = {name: np.concatenate(parts) for name, parts in self._spans.items()}
        self._spans.clear()
        if not columns:
            names = "code name thread start_ns end_ns correlation external device stream"
            every = f"{names} size_bytes graph_node".split()
            return {name: np.empty(0, dtype=np.int64) for name in every}
        starts = columns["start_ns"]
        if len(starts) and int(starts.max()) - int(starts.min()) > LONGEST_NS:
            middle = int(np.partition(starts, len(starts) // 2)[len(starts) // 2])
            far: Bool = np.abs(starts - middle) > LONGEST_NS
            self._count_bad("out of range", far, columns["code"])
            columns = {name: column[~far] for name, column in columns.items()}
        return columns

    def memory(self) -> dict[str, Int64]:
        found = {name: np.concatenate(parts) for name, parts in self._memory.items()}
        self._memory.clear()
        return found

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


def _is_size(size: int | None) -> bool:
    """Bytes that fit 64 bits, also where a million of them are added up."""
    return size is not None and abs(size) < LARGEST_BYTES


def _external(args: list[Arguments]) -> Int64:
    found = whole([a.external for a in args])
    if (found == UNKNOWN).all():
        return whole([a.external_2021 for a in args])
    return found


def is_gpu(codes: Int64) -> Bool:
    return codes >= _GPU


def gpu_kind(codes: Int64) -> Int64:
    return codes - _GPU


def host_kind(codes: Int64) -> Int64:
    return codes - _HOST


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
