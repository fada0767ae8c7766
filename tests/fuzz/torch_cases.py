"""How are traces of torch.profiler damaged so that one knows what is left of them?

The seed is a list of events whose values are JSON text. A change touches one or two of them, or
what stands between and around them; all others are intact and must be read to the nanosecond.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from fuzz.byte_changes import broken_gzip, damaged, packed
from fuzz.case import ODD_JSON, ODD_TEXTS, Case, Unit, Units, nested

FORMAT = "torch"
START_US = 1_719_000_000_123_456
_BETWEEN = ("@@@", ",,", "null", "5", '"x"', "[]", "[[1]]", "\x00", "}", "{", '{"a": 1}', "NaN")


@dataclass
class Event:
    """One event; `unit` is what a reader must find of it (None: it makes no row)."""

    fields: dict[str, str]
    args: dict[str, str] = field(default_factory=dict)
    unit: Unit | None = None
    raw: str | None = None  # its text, where it is no event any more

    def text(self) -> str:
        if self.raw is not None:
            return self.raw
        inner = ", ".join(f'"{key}": {value}' for key, value in self.args.items())
        outer = ", ".join(f'"{key}": {value}' for key, value in self.fields.items())
        return f'{{{outer}, "args": {{{inner}}}}}' if "args" not in self.fields else f"{{{outer}}}"

    def copy(self) -> Event:
        return dataclasses.replace(self, fields=dict(self.fields), args=dict(self.args))


def microseconds(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def _span(category: str, name: str, at_us: int, ns: int, tid: int, **args: str) -> Event:
    fields = {
        "ph": '"X"', "cat": f'"{category}"', "name": f'"{name}"', "pid": "1", "tid": str(tid),
        "ts": f"{START_US + at_us}.125", "dur": microseconds(ns),
    }  # fmt: skip
    label = {"kernel": "gpu", "gpu_memcpy": "gpu", "gpu_memset": "gpu"}.get(category, "host")
    unit = None if category == "python_function" else (f"{label}:{name}", ns)
    return Event(fields, {key.replace("_", " "): value for key, value in args.items()}, unit)


def seed_events(layers: int = 3) -> list[Event]:
    """Operators, their calls and kernels, a copy, a graph, frames, arrows, allocator events."""
    events = [_span("user_annotation", "ProfilerStep#3", 0, 990_001, 1)]
    number = 0
    for layer in range(layers):
        for name in ("aten::linear", "aten::relu"):
            number += 1
            at, ns = 40 * number, 7_001 + 13 * number
            ids = {"correlation": str(number), "External_id": str(number)}
            events += [
                _span("cpu_op", f"{name}{layer}", at, 30_003, 1, External_id=str(number)),
                _span("cuda_runtime", f"cudaLaunchKernel{number}", at + 3, 4_000, 1, **ids),
                _span("kernel", f"k{number}<float>", at + 9, ns, 7, device="0", stream="7", **ids),
            ]
    events += [
        _span("gpu_memcpy", "Memcpy HtoD", 700, 1_500, 7, device="0", stream="7", bytes="4096"),
        _span("gpu_memset", "Memset", 710, 900, 7, device="0", stream="7", bytes="64"),
        _span("python_function", "module.py(3): forward", 1, 900_000, 1),
        Event({"ph": '"s"', "cat": '"ac2g"', "name": '"ac2g"', "pid": "1", "tid": "1",
               "id": "1", "ts": str(START_US)}),
        Event({"ph": '"i"', "s": '"t"', "name": '"[memory]"', "pid": "1", "tid": "1",
               "ts": f"{START_US + 5}.250"}, {"Bytes": "512", "Device Type": "1", "Device Id": "0",
               "Total Allocated": "512", "Total Reserved": "2097152"}),
        Event({"ph": '"M"', "name": '"process_name"', "pid": "1", "tid": "0", "ts": "0"},
              {"name": '"python"'}),
    ]  # fmt: skip
    return events


HEAD = '"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "GPU"}], '


@dataclass
class File:
    """A trace under change. `clean`: only what `units` says may be read of it."""

    events: list[Event]
    between: str = ",\n"
    head: str = "{" + HEAD + '"traceEvents": [\n'
    tail: str = '\n], "traceName": "t.json"}\n'
    clean: bool = True
    foreign: dict[int, str] = field(default_factory=dict)  # event -> what stands before it

    def text(self) -> str:
        parts = [
            self.foreign.get(number, "") + event.text() for number, event in enumerate(self.events)
        ]
        return self.head + self.between.join(parts) + self.tail

    def units(self) -> Units:
        return Counter(event.unit for event in self.events if event.unit is not None)


@dataclass(frozen=True)
class Seed:
    """An undamaged trace, small enough that a case of it takes milliseconds."""

    events: tuple[Event, ...]
    head: str = File.head

    @cached_property
    def data(self) -> bytes:
        return self._file().text().encode()

    @property
    def units(self) -> Units:
        return self._file().units()

    def _file(self) -> File:
        return File(list(self.events), head=self.head)


Change = Callable[[random.Random, File], str]


def _pick(draw: random.Random, file: File) -> int:
    return draw.randrange(len(file.events))


def wrong_value(draw: random.Random, file: File) -> str:
    """Another value, perhaps of another type, in one field of one event."""
    event = file.events[_pick(draw, file)]
    where = event.args if event.args and draw.random() < 0.6 else event.fields
    key = draw.choice(list(where))
    value = draw.choice(ODD_JSON) if draw.random() < 0.9 else nested(draw)
    where[key] = value
    file.clean = False
    if key in ("name", "ts", "dur", "ph", "cat") or not _plain(value):
        event.unit = None
    return f"{key} = {value[:40]}"


def _plain(value: str) -> bool:
    """Whether it is JSON that any reader takes for a value of some kind."""
    return value in ("null", "true", "false", "-1", "0", "1", "7", '""', '"text"', "[]", "{}")


def lost_field(draw: random.Random, file: File) -> str:
    event = file.events[_pick(draw, file)]
    where = event.args if event.args and draw.random() < 0.6 else event.fields
    key = draw.choice(list(where))
    del where[key]
    file.clean = False
    if where is event.fields and key not in ("pid", "tid", "id", "s", "bp"):
        event.unit = None
    return f"{key} lost"


def odd_text(draw: random.Random, file: File) -> str:
    event = file.events[_pick(draw, file)]
    key = draw.choice(("name", "cat", "ph"))
    event.fields[key] = '"' + draw.choice(ODD_TEXTS) + '"'
    event.unit, file.clean = None, False
    return f"{key} with odd text"


def dropped(draw: random.Random, file: File) -> str:
    del file.events[_pick(draw, file)]
    return "one event dropped"


def halved(draw: random.Random, file: File) -> str:
    """Half the length: the total must change by exactly the other half."""
    timed = [event for event in file.events if event.unit is not None]
    event = draw.choice(timed)
    assert event.unit is not None
    name, ns = event.unit
    event.unit = (name, ns // 2)
    event.fields["dur"] = microseconds(ns // 2)
    return "one event halved"


def repeated(draw: random.Random, file: File) -> str:
    number = _pick(draw, file)
    file.events.insert(number, file.events[number].copy())
    return "one event twice"


def shuffled(draw: random.Random, file: File) -> str:
    draw.shuffle(file.events)
    return "events shuffled"


def other_ids(draw: random.Random, file: File) -> str:
    """Ids repeated, missing, of another kind: no time depends on them."""
    for _ in range(draw.choice((1, 3, 30))):
        event = file.events[_pick(draw, file)]
        key = draw.choice(("correlation", "External id", "stream", "device", "graph node id"))
        if key in event.args:
            event.args[key] = draw.choice(("1", "2", "0", "-1", "99999999", "4294967295"))
        if draw.random() < 0.3:
            event.args.pop(key, None)
    return "ids repeated or missing"


def rubbish_between(draw: random.Random, file: File) -> str:
    number = _pick(draw, file)
    what = draw.choice(_BETWEEN)
    comma = draw.random() < 0.7
    file.foreign[number] = what + ("," if comma else "")
    file.clean = False
    if not comma:  # it runs into the event behind it
        file.events[number].unit = None
    return f"{what!r} before event {number}"


def more_arguments(draw: random.Random, file: File) -> str:
    """Arguments that nobody asked for do not touch the event."""
    event = file.events[_pick(draw, file)]
    kind = draw.choice(("deep", "long", "many", "number", "control", "key twice"))
    if kind == "deep":
        depth = draw.choice((10, 200, 900))
        event.args["x"] = "[" * depth + "]" * depth
    elif kind == "long":
        event.args["x"] = '"' + "y" * draw.choice((10, 5_000, 50_000)) + '"'
    elif kind == "many":
        event.args |= {f"x{i}": str(i) for i in range(draw.choice((3, 300)))}
    elif kind == "number":
        event.args["x"] = draw.choice(("1e308", "1e-300", "123456789012345678901234567890"))
    elif kind == "control":
        event.args["x"] = '"a\x01\x1fb\tc"'
    else:
        event.args["x"] = '1, "x": 2'
    return f"more arguments: {kind}"


def deeper_than_any_parser(draw: random.Random, file: File) -> str:
    event = file.events[_pick(draw, file)]
    event.args["x"] = nested(draw)
    event.unit, file.clean = None, False
    return "nested deeply"


def other_layout(draw: random.Random, file: File) -> str:
    way = draw.choice(("list", "bom", "tight", "crlf", "spaces", "late", "unfinished list"))
    if way in ("list", "unfinished list"):
        file.head, file.tail = "[\n", "\n]\n" if way == "list" else "\n"
    elif way == "bom":
        file.head = "\ufeff" + file.head.removeprefix("\ufeff")
    elif way == "tight":
        file.between = ","
    elif way == "crlf":
        file.between = "\r\n,\r\n  "
    elif way == "spaces":
        file.between = " " * draw.choice((2, 2_000)) + ",\t"
    else:
        file.head, file.tail = '{"traceEvents": [', "], " + HEAD + '"x": 1}'
    return f"layout: {way}"


def other_metadata(draw: random.Random, file: File) -> str:
    value = draw.choice(ODD_JSON[:40]) if draw.random() < 0.8 else nested(draw)
    key = draw.choice(("deviceProperties", "schemaVersion", "baseTimeNanoseconds", "x"))
    if draw.random() < 0.5:
        file.tail = f'], "{key}": {value}}}\n'
    elif _plain(value):
        file.head = f'{{"{key}": {value}, "traceEvents": ['
    else:
        file.head = '{"x": {"traceEvents": []}, "traceEvents": ['
    return f"metadata {key} = {value[:30]}"


KEEPING: tuple[Change, ...] = (
    dropped, halved, repeated, shuffled, other_ids, more_arguments, other_layout, other_metadata,
)  # fmt: skip
SPOILING: tuple[Change, ...] = (
    wrong_value, wrong_value, lost_field, odd_text, rubbish_between, deeper_than_any_parser,
)  # fmt: skip


def cut_case(draw: random.Random, file: File) -> Case:
    """Cut anywhere: every event before the cut counts."""
    text = file.text()
    data = text.encode("utf-8", "surrogatepass")
    at = draw.randrange(1, len(data))
    intact: Units = Counter()
    position = len(file.head.encode())
    for number, event in enumerate(file.events):
        position += len((file.foreign.get(number, "") + event.text()).encode())
        if position <= at and event.unit is not None:
            intact[event.unit] += 1
        position += len(file.between.encode())
    return Case(FORMAT, data[:at], (f"cut at {at}",), intact, exact=True)


def torch_case(draw: random.Random, seed: Seed | None = None) -> Case:
    """A case of our own small trace, or of a slice of a real one."""
    seed = seed or OWN
    file = File([event.copy() for event in seed.events], head=seed.head)
    kind = draw.random()
    if kind < 0.12:
        return cut_case(draw, file)
    if kind < 0.30:
        data, said = damaged(draw, seed.data)
        if draw.random() < 0.1:
            data = packed(draw, data)[0]
        return Case(FORMAT, data, said)
    said = [draw.choice(KEEPING)(draw, file) for _ in range(draw.choice((0, 1, 1, 2)))]
    if kind > 0.55 or not said:
        said += [draw.choice(SPOILING)(draw, file) for _ in range(draw.choice((1, 1, 1, 2)))]
    data = file.text().encode("utf-8", "surrogatepass")
    if kind > 0.94:
        broken, how, readable = broken_gzip(draw, data)
        units = file.units() if readable == data else None
        return Case(FORMAT, broken, (*said, *how), units, file.clean)
    if kind > 0.88:
        data, how = packed(draw, data)
        said += how
    return Case(FORMAT, data, tuple(said), file.units(), file.clean)


OWN = Seed(tuple(seed_events()))
SEED_BYTES = OWN.data
