"""Which tables does a memory snapshot become? Segments, blocks, history, stacks and failures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from common.traces.columnar import (
    Tables,
    flags,
    integers,
    looked_up,
    repeated,
    table,
    texts,
)
from common.traces.memory_model import NO_STACK, NO_TIME, Events, Level, Pool, pool_kind
from common.traces.memory_snapshot import FORMAT, MemorySnapshot

_ABSENT = -1
_QUANTITIES = ("allocated", "active", "reserved")


def memory_tables(snapshot: MemorySnapshot) -> tuple[Tables, dict[str, object]]:
    """(tables, facts about the file). `stack` is a `stack` of the table `stacks`."""
    segments, blocks = snapshot.segments, snapshot.blocks
    number = {stack: at for at, stack in enumerate(snapshot.stacks)}
    failures, phases = snapshot.out_of_memory, snapshot.annotations
    tables = {
        "segments": table(
            {
                "segment": _whole(range(len(segments))),
                "device": integers(segments.device),
                "address": integers(segments.address),
                "total_bytes": integers(segments.total_bytes),
                "allocated_bytes": integers(segments.allocated_bytes),
                "active_bytes": integers(segments.active_bytes),
                "requested_bytes": integers(segments.requested_bytes),
                "stream": integers(segments.stream),
                "expandable": flags(segments.expandable),
                "kind": repeated(segments.kind),
                **_pools(segments.pool),
            }
        ),
        "blocks": table(
            {
                "segment": integers(blocks.segment),
                "address": integers(blocks.address),
                "bytes": integers(blocks.bytes),
                "requested_bytes": integers(blocks.requested_bytes),
                "state": repeated(blocks.state),
                "stack": integers(blocks.stack, NO_STACK),
            }
        ),
        "events": _history(snapshot),
        "stacks": pa.table(
            {
                "stack": _whole(range(len(snapshot.stacks))),
                "operator": texts([stack.operator for stack in snapshot.stacks]),
                "label": texts([stack.label for stack in snapshot.stacks]),
            }
        ),
        "frames": _frames(snapshot),
        "levels": _levels(snapshot),
        "out_of_memory": pa.table(
            {
                "device": _whole(failure.device for failure in failures),
                "position": _whole(failure.position for failure in failures),
                "requested_bytes": _whole(failure.requested_bytes for failure in failures),
                "free_bytes": _whole(failure.free_bytes for failure in failures),
                "time_us": _whole(failure.time_us for failure in failures),
                "stack": _whole(number.get(f.stack) if f.stack else None for f in failures),
            }
        ),
        "phases": pa.table(
            {
                "device": _whole(phase.device for phase in phases),
                "time_us": _whole(phase.time_us for phase in phases),
                "name": repeated([phase.name for phase in phases]),
                "stage": repeated([phase.stage for phase in phases]),
            }
        ),
        "warnings": pa.table({"says": texts(snapshot.warnings)}),
    }
    settings = {f"setting {k}": v for k, v in snapshot.allocator_settings.items()}
    whole = {"segments are whole": snapshot.segments_are_whole}
    return tables, {"format": FORMAT, **whole, **settings}


def _history(snapshot: MemorySnapshot) -> pa.Table:
    """The histories of all devices, one after the other."""
    parts = [_events(device, events) for device, events in sorted(snapshot.events.items())]
    empty = np.empty(0, dtype=np.int64)
    nothing = Events((), empty, empty, empty, empty, empty, empty, ())
    return pa.concat_tables(parts or [_events(0, nothing)]).unify_dictionaries().combine_chunks()


def _events(device: int, events: Events) -> pa.Table:
    return table(
        {
            "device": integers(np.full(len(events), device, dtype=np.int64)),
            "position": integers(events.position),
            "action": repeated(events.action),
            "address": integers(events.address, _ABSENT),
            "bytes": integers(events.bytes),
            "stream": integers(events.stream, _ABSENT),
            "time_us": integers(events.time_us, NO_TIME),
            "stack": integers(events.stack, NO_STACK),
            **_pools(events.pool),
        }
    )


def _frames(snapshot: MemorySnapshot) -> pa.Table:
    """The user's frames of every stack, innermost first."""
    rows = [
        (at, depth, frame)
        for at, stack in enumerate(snapshot.stacks)
        for depth, frame in enumerate(stack.frames)
    ]
    return pa.table(
        {
            "stack": _whole(at for at, _, _ in rows),
            "depth": _whole(depth for _, depth, _ in rows),
            "frame": repeated([frame for _, _, frame in rows]),
        }
    )


def _levels(snapshot: MemorySnapshot) -> pa.Table:
    """What the replay of each history found, in bytes."""
    rows: list[tuple[int, str, Level]] = [
        (device, quantity, getattr(replay, quantity))
        for device, replay in sorted(snapshot.replays.items())
        for quantity in _QUANTITIES
    ]
    fields = ("start", "peak", "lowest", "end")
    return pa.table(
        {
            "device": _whole(device for device, _, _ in rows),
            "quantity": texts([quantity for _, quantity, _ in rows]),
            **{f"{f}_bytes": _whole(getattr(level, f) for _, _, level in rows) for f in fields},
            "peak_event": _whole(
                None if level.peak_event == _ABSENT else level.peak_event for _, _, level in rows
            ),
        }
    )


def _pools(pools: Sequence[Pool | None]) -> dict[str, pa.Array]:
    """The two numbers of a pool's id and what kind it is; null where the file is older than ids."""
    kinds: dict[Pool | None, int] = {}
    numbers = np.array([kinds.setdefault(pool, len(kinds)) for pool in pools], dtype=np.int64)
    return {
        "pool": looked_up(numbers, [pool_kind(pool) for pool in kinds]),
        "pool_owner": _whole(None if pool is None else pool[0] for pool in pools),
        "pool_number": _whole(None if pool is None else pool[1] for pool in pools),
    }


def _whole(values: object) -> pa.Array:
    return pa.array(list(values), pa.int64())  # type: ignore[call-overload]
