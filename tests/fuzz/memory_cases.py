"""How are CUDA memory snapshots damaged so that one knows what is left of them?

The pickle is built from the changed objects, so that every change is one of content; besides it is
damaged byte by byte, and pieces of other programs are put among its instructions.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from fuzz.byte_changes import broken_gzip, damaged, packed
from fuzz.case import HUGE_INTEGERS, ODD_INTEGERS, ODD_TEXTS, Case, Units
from helpers.snapshots import MIB, block, event, frame, freed, segment, snapshot

FORMAT = "memory"
BASE = 0x7F00_0000_0000
# Instructions that would do something: each is refused, wherever it stands.
HOSTILE = (
    b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93", b"(S'id'\nios\nsystem\n", b"\x81", b"R",
    b"\x92", b"b", b"Px\n", b"Q", b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97",
    b"\x98", b"r\xff\xff\xff\x7f", b"p99999999\n",
)  # fmt: skip


def own_snapshot() -> dict[str, Any]:
    segments, history = [], []
    for number in range(4):
        start = BASE + number * 64 * MIB
        rows = [
            block(start, MIB + number, frames=[frame(f"f{number}")]),
            block(start + 2 * MIB, 3 * MIB, "inactive"),
        ]
        segments.append(segment(start, rows, segment_pool_id=(0, number % 2)))
        history += [event("segment_alloc", start, 4 * MIB), event("alloc", start, MIB + number)]
        history += [event("alloc", start + 2 * MIB, 1000 + number, frames=[frame("g")])]
        history += freed(start + 2 * MIB, 1000 + number)
    return snapshot(segments, history)


def units_of(held: dict[str, Any]) -> Units:
    """Segments by size, events by what they did and to how much."""
    found: Units = Counter()
    for row in held["segments"]:
        found["segment", row["total_size"]] += 1
    for row in held["device_traces"][0]:
        found[f"event:{row['action']}", row["size"]] += 1
    return found


class Seed:
    """An undamaged snapshot, small enough that a case of it takes milliseconds."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value
        self.units = units_of(value)
        self._data: dict[int, bytes] = {}

    def data(self, protocol: int) -> bytes:
        if protocol not in self._data:
            self._data[protocol] = pickle.dumps(self.value, protocol=protocol)
        return self._data[protocol]


def odd_value(draw: random.Random) -> Any:
    kind = draw.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return draw.choice(ODD_TEXTS)
    if kind == 2:
        return draw.choice((True, 0.5, float("nan"), float("inf"), (), [], {}, [[]]))
    if kind == 3:
        return draw.choice(HUGE_INTEGERS)
    if kind == 4:
        deep: Any = []
        for _ in range(draw.choice((5, 90, 250))):
            deep = [deep]
        return deep
    return draw.choice(ODD_INTEGERS)


class Held:
    """A snapshot under change; `unclear` rows may or may not be read."""

    def __init__(self, seed: Seed) -> None:
        self.value: Any = copy.deepcopy(seed.value)
        self.units, self.clean = Counter(seed.units), True

    def row(self, draw: random.Random) -> tuple[list[Any], int, tuple[str, int]]:
        """(list, place, unit) of a segment or an event that was not changed before."""
        rows = self.value["segments"] if draw.random() < 0.4 else self.value["device_traces"][0]
        at = draw.randrange(len(rows))
        row = rows[at]
        unit = ("segment", row["total_size"]) if "blocks" in row else _unit(row)
        return rows, at, unit

    def lose(self, unit: tuple[str, int]) -> None:
        self.units[unit] -= 1
        self.clean = False


def _unit(row: dict[str, Any]) -> tuple[str, int]:
    return f"event:{row['action']}", row["size"]


Change = Callable[[random.Random, Held], str]


def wrong_value(draw: random.Random, held: Held) -> str:
    rows, at, unit = held.row(draw)
    key, value = draw.choice(list(rows[at])), odd_value(draw)
    rows[at] = {**rows[at], key: value}
    held.lose(unit)
    return f"{unit[0]}: {key} = {str(value)[:30]}"


def wrong_row(draw: random.Random, held: Held) -> str:
    rows, at, unit = held.row(draw)
    rows[at] = odd_value(draw)
    held.lose(unit)
    return f"{unit[0]} is no dictionary"


def lost_key(draw: random.Random, held: Held) -> str:
    rows, at, unit = held.row(draw)
    key = draw.choice(list(rows[at]))
    rows[at] = {k: v for k, v in rows[at].items() if k != key}
    held.lose(unit)
    return f"{unit[0]}: {key} lost"


def dropped(draw: random.Random, held: Held) -> str:
    rows, at, unit = held.row(draw)
    del rows[at]
    held.units[unit] -= 1
    return f"{unit[0]} dropped"


def halved(draw: random.Random, held: Held) -> str:
    rows, at, unit = held.row(draw)
    key = "total_size" if unit[0] == "segment" else "size"
    rows[at] = {**rows[at], key: rows[at][key] // 2}
    held.units[unit] -= 1
    held.units[unit[0], unit[1] // 2] += 1
    return f"{unit[0]} halved"


def repeated(draw: random.Random, held: Held) -> str:
    rows, at, unit = held.row(draw)
    rows.insert(at, copy.deepcopy(rows[at]))
    held.units[unit] += 1
    return f"{unit[0]} twice"


def shuffled(draw: random.Random, held: Held) -> str:
    draw.shuffle(held.value["device_traces"][0])
    draw.shuffle(held.value["segments"])
    return "shuffled"


def odd_blocks(draw: random.Random, held: Held) -> str:
    row = draw.choice(held.value["segments"])
    if draw.random() < 0.5:
        row["blocks"] = odd_value(draw)
    else:
        one = draw.choice(row["blocks"])
        one[draw.choice(list(one))] = odd_value(draw)
    return "odd blocks"


def odd_frames(draw: random.Random, held: Held) -> str:
    row = draw.choice(held.value["device_traces"][0])
    row["frames"] = draw.choice((odd_value(draw), [odd_value(draw)], [{"name": odd_value(draw)}]))
    return "odd frames"


def odd_rest(draw: random.Random, held: Held) -> str:
    key = draw.choice(("allocator_settings", "external_annotations", "more"))
    held.value[key] = draw.choice((odd_value(draw), [odd_value(draw)], {"a": odd_value(draw)}))
    return f"{key} is odd"


KEEPING: tuple[Change, ...] = (
    dropped, halved, repeated, shuffled, odd_blocks, odd_frames, odd_rest,
)  # fmt: skip
SPOILING: tuple[Change, ...] = (wrong_value, wrong_value, wrong_row, lost_key)


def cut_case(draw: random.Random, seed: Seed) -> Case:
    """Cut anywhere: nothing may break. What stands before the cut is asked for in the tests."""
    data = seed.data(draw.choice((0, 2, 4)))
    at = draw.randrange(1, len(data))
    return Case(FORMAT, data[:at], (f"cut at {at}",))


def hostile_case(draw: random.Random, seed: Seed) -> Case:
    data = bytearray(seed.data(4))
    what, at = draw.choice(HOSTILE), draw.randrange(2, len(data))
    data[at:at] = what
    return Case(FORMAT, bytes(data), (f"{what!r} at {at}",))


def memory_case(draw: random.Random, seed: Seed | None = None) -> Case:
    """A case of our own small snapshot, or of a slice of a real one."""
    seed = seed or OWN
    kind = draw.random()
    if kind < 0.08:
        return cut_case(draw, seed)
    if kind < 0.16:
        return hostile_case(draw, seed)
    if kind < 0.34:
        data, said = damaged(draw, seed.data(draw.choice((0, 2, 4, 5))))
        return Case(FORMAT, data, said)
    if kind < 0.38:
        broken, said, _ = broken_gzip(draw, seed.data(4))
        return Case(FORMAT, broken, said)
    held = Held(seed)
    if draw.random() < 0.6:
        said = [draw.choice(SPOILING)(draw, held)]
    else:
        said = [draw.choice(KEEPING)(draw, held)]
    data = pickle.dumps(held.value, protocol=draw.choice((0, 1, 2, 3, 4, 5)))
    if kind > 0.95:
        data, how = packed(draw, data)
        said += how
    return Case(FORMAT, data, tuple(said), +held.units, held.clean)


OWN = Seed(own_snapshot())
SEED_BYTES = OWN.data(4)
