"""How does the history of a snapshot, up to millions of dictionaries, become columns?

All fields are fetched together, a few hundred rows at a time; then column by column, in passes that
run in C: look at the types, convert, look at the range. Only a column that is not as torch writes
it (a field is missing, a value is of another type or out of range) is gone through value by value.
"""

from __future__ import annotations

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
_FIELDS = ("action", "addr", "size", "stream", "time_us", "frames", "pool_id", "user_metadata")
_ROWS_AT_ONCE = 500  # all fields of so many rows at a time: a row is in the cache for all of them


def read_events(raw: object, reading: Reading) -> Events:
    """The history of one device. Rows without what their action needs are counted and left out."""
    if not isinstance(raw, list):
        reading.unreadable["histories"] += 1
        raw = []
    reading.spend(len(raw))
    fields, position = _fields_of_rows_with_action(raw)
    codes, names = coded(fields["action"])
    address = _numbers(fields["addr"])
    size = _numbers(fields["size"], MAX_SIZE_BYTES)
    needs_address = np.array([name in ADDRESSED for name in names], dtype=np.bool_)[codes]
    needs_size = np.array([name in SIZED for name in names], dtype=np.bool_)[codes]
    readable = ~(needs_address & (address < 0)) & ~(needs_size & (size < 0))
    address, size = np.where(needs_address, address, _ABSENT), np.where(needs_size, size, 0)
    if not readable.all():
        kept = np.flatnonzero(readable)
        address, size, position = address[kept], size[kept], position[kept]
        chosen = kept.tolist()
        fields = {key: [values[i] for i in chosen] for key, values in fields.items()}
    reading.unreadable["events"] += len(raw) - len(position)
    return Events(
        action=tuple(fields["action"]),
        position=position,
        address=address,
        bytes=size,
        stream=_numbers(fields["stream"]),
        time_us=_numbers(fields["time_us"]),
        stack=reading.stacks.numbers(fields["frames"]),
        pool=_pools(fields["pool_id"]),
        metadata=_texts(fields["user_metadata"]),
    )


def _fields_of_rows_with_action(raw: list[Any]) -> tuple[dict[str, list[Any]], Int64]:
    """The fields of the rows that are dictionaries and name an action, and where they stand."""
    position = np.arange(len(raw), dtype=np.int64)
    if set(map(type, raw)) <= {dict}:
        fields = _fields(raw)
        if set(map(type, fields["action"])) <= {str}:
            return fields, position
    kept = [
        i for i, row in enumerate(raw) if isinstance(row, dict) and type(row.get("action")) is str
    ]
    return _fields([raw[i] for i in kept]), position[kept]


def _fields(rows: list[Row]) -> dict[str, list[Any]]:
    """Every field of every row, None where it is missing."""
    fields: dict[str, list[Any]] = {key: [] for key in _FIELDS}
    extend = [values.extend for values in fields.values()]
    fetch = itemgetter(*_FIELDS)
    try:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            columns = zip(*map(fetch, rows[start : start + _ROWS_AT_ONCE]), strict=True)
            for take, column in zip(extend, columns, strict=True):
                take(column)
    except KeyError:  # fields that this version did not write yet
        return {key: list(map(dict.get, rows, repeat(key))) for key in _FIELDS}
    return fields


def _numbers(values: list[Any], high: int = MAX_NUMBER) -> Int64:
    """A column of numbers from 0 to `high`; -1 where there is none."""
    if not set(map(type, values)) <= {int}:  # bool is no number
        values = [value if type(value) is int else _ABSENT for value in values]
    try:
        column = np.array(values, dtype=np.int64)
    except OverflowError:
        column = np.array([v if is_number(v) else _ABSENT for v in values], dtype=np.int64)
    return np.where((column < 0) | (column > high), _ABSENT, column)


def _pools(values: list[Any]) -> tuple[Pool | None, ...]:
    """One object for each distinct pool; None where a row names none."""
    if set(map(type, values)) <= {tuple} and set(map(type, chain.from_iterable(values))) <= {int}:
        one: dict[Pool, Pool] = {}
        pools = tuple(map(one.setdefault, values, values))
        if all(read_pool(value) == value for value in one):
            return pools
    return tuple(map(read_pool, values))


def _texts(values: list[Any]) -> tuple[str, ...]:
    """One object for each distinct text; "" where there is none."""
    if not set(map(type, values)) <= {str}:
        values = [value if isinstance(value, str) else "" for value in values]
    one: dict[str, str] = {}
    return tuple(map(one.setdefault, values, values))


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
