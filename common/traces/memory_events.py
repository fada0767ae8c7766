"""How does the history of a snapshot, up to millions of dictionaries, become columns?

Column by column, each in a few passes that run in C: fetch, look at the types, convert, look at the
range. Only a column that is not as torch writes it (a field is missing, a value is of another type
or out of range) is gone through value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

import numpy as np

from common.traces.memory_columns import (
    ADDRESSED,
    MAX_NUMBER,
    MAX_SIZE_BYTES,
    SIZED,
    Reading,
    is_number,
    read_pool,
)
from common.traces.memory_model import NO_TIME, Events, Int64, OutOfMemory, Pool, coded
from common.traces.memory_stacks import Stack

Row = dict[Any, Any]
_ABSENT = -1


def read_events(raw: object, reading: Reading) -> Events:
    """The history of one device. Rows without what their action needs are counted and left out."""
    if not isinstance(raw, list):
        reading.unreadable["histories"] += 1
        raw = []
    reading.spend(len(raw))
    rows, position = _rows_with_action(raw)
    action = _field(rows, "action")
    codes, names = coded(action)
    address, size = _numbers(rows, "addr"), _numbers(rows, "size", MAX_SIZE_BYTES)
    needs_address = np.array([name in ADDRESSED for name in names], dtype=np.bool_)[codes]
    needs_size = np.array([name in SIZED for name in names], dtype=np.bool_)[codes]
    readable = ~(needs_address & (address < 0)) & ~(needs_size & (size < 0))
    address, size = np.where(needs_address, address, _ABSENT), np.where(needs_size, size, 0)
    if not readable.all():
        kept = np.flatnonzero(readable)
        address, size, position = address[kept], size[kept], position[kept]
        rows, action = [rows[i] for i in kept.tolist()], [action[i] for i in kept.tolist()]
    reading.unreadable["events"] += len(raw) - len(rows)
    return Events(
        action=tuple(action),
        position=position,
        address=address,
        bytes=size,
        stream=_numbers(rows, "stream"),
        time_us=_numbers(rows, "time_us"),
        stack=reading.stacks.numbers(map(dict.get, rows, repeat("frames"))),
        pool=_pools(rows),
        metadata=_texts(rows, "user_metadata"),
    )


def _rows_with_action(raw: list[Any]) -> tuple[list[Row], Int64]:
    """The rows that are dictionaries and name an action, and where they stand in the file."""
    position = np.arange(len(raw), dtype=np.int64)
    if set(map(type, raw)) <= {dict} and set(map(type, _field(raw, "action"))) <= {str}:
        return raw, position
    kept = [
        i for i, row in enumerate(raw) if isinstance(row, dict) and type(row.get("action")) is str
    ]
    return [raw[i] for i in kept], position[kept]


def _field(rows: list[Row], key: str) -> list[Any]:
    """One field of every row, None where it is missing."""
    try:
        return list(map(itemgetter(key), rows))
    except KeyError:
        return list(map(dict.get, rows, repeat(key)))


def _numbers(rows: list[Row], key: str, high: int = MAX_NUMBER) -> Int64:
    """A column of numbers from 0 to `high`; -1 where there is none."""
    values = _field(rows, key)
    if not set(map(type, values)) <= {int}:  # bool is no number
        values = [value if type(value) is int else _ABSENT for value in values]
    try:
        column = np.array(values, dtype=np.int64)
    except OverflowError:
        column = np.array([v if is_number(v) else _ABSENT for v in values], dtype=np.int64)
    return np.where((column < 0) | (column > high), _ABSENT, column)


def _pools(rows: list[Row]) -> tuple[Pool | None, ...]:
    """One object for each distinct pool; None where a row names none."""
    values = _field(rows, "pool_id")
    if set(map(type, values)) <= {tuple} and set(map(type, chain.from_iterable(values))) <= {int}:
        one = {value: read_pool(value) for value in set(values)}
        return tuple(map(one.__getitem__, values))
    return tuple(map(read_pool, values))


def _texts(rows: list[Row], key: str) -> tuple[str, ...]:
    """One object for each distinct text; "" where there is none."""
    values: Sequence[Any] = _field(rows, key)
    if not set(map(type, values)) <= {str}:
        values = [value if isinstance(value, str) else "" for value in values]
    one = {value: value for value in values}
    return tuple(map(one.__getitem__, values))


def read_out_of_memory(
    raw: list[object], events: Events, device: int, stacks: list[Stack]
) -> list[OutOfMemory]:
    """The failed allocations: their `device_free` stands where others have an address."""
    if "oom" not in events.coded_actions[1]:
        return []
    found: list[OutOfMemory] = []
    for i in np.flatnonzero(events.signs({"oom": 1})).tolist():
        position, stack, time = int(events.position[i]), int(events.stack[i]), events.time_us[i]
        row = raw[position]
        free = row.get("device_free") if isinstance(row, dict) else None
        found.append(
            OutOfMemory(
                device,
                position,
                int(events.bytes[i]),
                free if type(free) is int and 0 <= free <= MAX_SIZE_BYTES else None,
                None if time == NO_TIME else int(time),
                stacks[stack] if stack >= 0 else None,
            )
        )
    return found
