"""How do the dictionaries of a snapshot become columns? Every field is checked before it is used.

The file is not trusted and its schema has changed: a field that is missing is unknown, a row that
cannot be read is counted, and nothing is walked that the file has not paid for with bytes (shared
lists could otherwise make a few bytes look like endless events).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from common.errors import UsageError
from common.traces.memory_model import (
    Annotation,
    Blocks,
    Int64,
    Pool,
    Segments,
)
from common.traces.memory_stacks import StackTable

# Beyond these nothing is real and sums could overflow: 1 PiB, and the addresses of 63 bits.
MAX_SIZE_BYTES = 1 << 50
MAX_NUMBER = (1 << 63) - 1
MAX_DEVICE = 1 << 20
BLOCK_ACTIONS = frozenset({"alloc", "free_requested", "free_completed"})
SEGMENT_ACTIONS = frozenset({"segment_alloc", "segment_free", "segment_map", "segment_unmap"})
ADDRESSED = BLOCK_ACTIONS | SEGMENT_ACTIONS
SIZED = ADDRESSED | {"oom"}
KNOWN_ACTIONS = SIZED | {"snapshot", "user_defined"}


@dataclass
class Reading:
    """What is learnt on the way: stacks, how much of the file was paid for, what was unreadable."""

    budget: int
    unreadable: Counter[str] = field(default_factory=Counter)
    stacks: StackTable = field(init=False)

    def __post_init__(self) -> None:
        self.stacks = StackTable(self.spend)

    def spend(self, count: int) -> None:
        """Every element takes at least one byte in a file; more than that are repeats."""
        self.budget -= count
        if self.budget < 0:
            raise UsageError(
                "the file repeats one list so often that it holds more elements than bytes, which "
                "no snapshot does; record the snapshot again"
            )


def is_number(value: object, low: int = 0, high: int = MAX_NUMBER) -> bool:
    """A real int (bool is none) in the range."""
    return type(value) is int and low <= value <= high


def _number(row: dict[object, object], key: str, default: int, high: int = MAX_NUMBER) -> int:
    value = row.get(key)
    return value if type(value) is int and 0 <= value <= high else default


def read_pool(value: object) -> Pool | None:
    """(owner, number) from the tuple of a pickle or the list that JSON makes of it."""
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(map(is_number, value)):
        return value[0], value[1]
    return None


def _column(values: list[int]) -> Int64:
    return np.array(values, dtype=np.int64)


def read_segments(raw: list[object], reading: Reading) -> tuple[Segments, Blocks]:
    """Segments and their blocks. Files before 2023 have no block addresses: sizes are added up."""
    reading.spend(len(raw))
    numbers: list[tuple[int, int, int, int, int, int, int]] = []
    texts: list[tuple[bool, str, Pool | None]] = []
    blocks: list[_Block] = []
    for row in raw:
        if (
            not isinstance(row, dict)
            or not is_number(row.get("device"), high=MAX_DEVICE)
            or not is_number(row.get("address"))
            or not is_number(row.get("total_size"), high=MAX_SIZE_BYTES)
        ):
            reading.unreadable["segments"] += 1
            continue
        own = _read_blocks(row, row["address"], len(numbers), reading)
        used = [block for block in own if block.state == "active_allocated"]
        allocated = sum(block.size for block in used)
        active = sum(block.size for block in own if block.state != "inactive")
        requested = sum(block.requested for block in used)
        numbers.append(
            (
                row["device"],
                row["address"],
                row["total_size"],
                _number(row, "allocated_size", allocated, MAX_SIZE_BYTES),
                _number(row, "active_size", active, MAX_SIZE_BYTES),
                _number(row, "requested_size", requested, MAX_SIZE_BYTES),
                _number(row, "stream", 0),
            )
        )
        kind = row.get("segment_type")
        texts.append(
            (
                row.get("is_expandable") is True,
                kind if isinstance(kind, str) else "unknown",
                read_pool(row.get("segment_pool_id")),
            )
        )
        blocks.extend(own)
    return (
        Segments(
            device=_column([row[0] for row in numbers]),
            address=_column([row[1] for row in numbers]),
            total_bytes=_column([row[2] for row in numbers]),
            allocated_bytes=_column([row[3] for row in numbers]),
            active_bytes=_column([row[4] for row in numbers]),
            requested_bytes=_column([row[5] for row in numbers]),
            stream=_column([row[6] for row in numbers]),
            expandable=np.array([row[0] for row in texts], dtype=np.bool_),
            kind=tuple(row[1] for row in texts),
            pool=tuple(row[2] for row in texts),
        ),
        Blocks(
            segment=_column([block.segment for block in blocks]),
            address=_column([block.address for block in blocks]),
            bytes=_column([block.size for block in blocks]),
            requested_bytes=_column([block.requested for block in blocks]),
            stack=_column([block.stack for block in blocks]),
            state=tuple(block.state for block in blocks),
        ),
    )


class _Block(NamedTuple):
    segment: int
    address: int
    size: int
    requested: int
    stack: int
    state: str


def _read_blocks(
    segment: dict[object, object], start: int, number: int, reading: Reading
) -> list[_Block]:
    raw = segment.get("blocks")
    if not isinstance(raw, list):
        reading.unreadable["segments without a list of blocks"] += 1
        return []
    reading.spend(len(raw))
    out: list[_Block] = []
    at = start
    for row in raw:
        state = row.get("state") if isinstance(row, dict) else None
        if not isinstance(state, str) or not is_number(row.get("size"), high=MAX_SIZE_BYTES):
            reading.unreadable["blocks"] += 1
            continue
        size = row["size"]
        requested, frames = _requested(row, size)
        address = _number(row, "address", min(at, MAX_NUMBER))
        out.append(_Block(number, address, size, requested, reading.stacks.number(frames), state))
        at = address + size
    return out


def _requested(row: dict[object, object], size: int) -> tuple[int, object]:
    """Requested bytes and frames of a block; up to PyTorch 2.0 they stand in its `history`."""
    history = row.get("history")
    if "frames" not in row and isinstance(history, list) and history:
        first = history[0]
        if isinstance(first, dict):
            return _number(first, "real_size", size, MAX_SIZE_BYTES), first.get("frames")
    return _number(row, "requested_size", size, MAX_SIZE_BYTES), row.get("frames")


def read_annotations(raw: object, reading: Reading) -> tuple[Annotation, ...]:
    if not isinstance(raw, list):
        return ()
    reading.spend(len(raw))
    out: list[Annotation] = []
    for row in raw:
        match row:
            case {
                "device": int(device),
                "time_us": int(time),
                "name": str(name),
                "stage": str(stage),
            }:
                out.append(Annotation(device, time, name, stage))
            case _:
                reading.unreadable["annotations"] += 1
    return tuple(out)
