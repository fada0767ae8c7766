"""What does one snapshot say in a few numbers? The keys of one side of a memory diff."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.traces.memory_model import Holdings, Level, pool_kind
from common.traces.memory_pools import PoolLine, growth_by_phase, pool_lines
from common.traces.memory_snapshot import FORMAT, MemorySnapshot


def summary(snapshot: MemorySnapshot) -> dict[str, Any]:
    """Plain numbers and texts for JSON. None where the file cannot say.

    Totals of several devices are sums; the peaks of devices are summed too, though each is at a
    moment of its own.
    """
    known = snapshot.segments_are_whole
    held = snapshot.holdings() if known else None
    private = snapshot.private_holdings() if known else None
    devices = [_device(snapshot, device) for device in snapshot.devices]
    return {
        "format": FORMAT,
        "devices": devices,
        "peak_allocated_bytes": _peak(snapshot, "allocated"),
        "peak_active_bytes": _peak(snapshot, "active"),
        "peak_reserved_bytes": _peak(snapshot, "reserved"),
        **_holdings(held),
        "private_pool_reserved_bytes": private and private.reserved_bytes,
        "private_pool_retained_bytes": private and private.retained_bytes,
        "pools": [
            {"pool": list(pool), "kind": pool_kind(pool), **_holdings(holdings)}
            for pool, holdings in (snapshot.pools() if known else {}).items()
        ],
        "pool_streams": [_line(snapshot, line) for line in pool_lines(snapshot)],
        "growth": [asdict(each) for each in growth_by_phase(snapshot)],
        "segment_types": {
            kind: snapshot.holdings(kind=kind).reserved_bytes if known else None
            for kind in sorted(set(snapshot.segments.kind))
        },
        "streams": sorted({int(stream) for stream in snapshot.segments.stream}),
        "expandable_segments": int(snapshot.segments.expandable.sum()) if known else None,
        "events": sum(len(events) for events in snapshot.events.values()),
        "events_with_frames": snapshot.events_with_frames,
        "actions": dict(sorted(snapshot.actions.items())),
        "out_of_memory": len(snapshot.out_of_memory),
        "warnings": list(snapshot.warnings),
    }


def _line(snapshot: MemorySnapshot, line: PoolLine) -> dict[str, Any]:
    """One (device, pool, stream): its peaks, what is left, and how broken the free part is."""
    held = snapshot.holdings(line.device, line.pool, line.stream) if line.pool else None
    free = held.reserved_bytes - held.active_bytes if held is not None else None
    largest = held.largest_inactive_bytes if held is not None else None
    return {
        "device": line.device,
        "pool": line.pool and list(line.pool),
        "kind": line.kind,
        "stream": line.stream,
        "peak_reserved_bytes": line.reserved.peak,
        "peak_allocated_bytes": line.allocated.peak,
        "peak_active_bytes": line.active.peak,
        "reserved_bytes": line.reserved.end,
        "allocated_bytes": line.allocated.end,
        "retained_bytes": free,
        "largest_inactive_bytes": largest,
        # 0: all that is free is one block; near 1: many small pieces.
        "fragmentation": None if not free or largest is None else round(1 - largest / free, 4),
        "events": line.events,
        "events_with_inferred_pool": line.inferred,
    }


def summarise_snapshot(snapshot: MemorySnapshot, path: Path) -> dict[str, Any]:
    """`summary` with the file's name."""
    return {"path": path.name, **summary(snapshot)}


_FIELDS = (
    *("segments", "reserved_bytes", "allocated_bytes", "active_bytes", "requested_bytes"),
    *("retained_bytes", "fragmentation_bytes", "largest_inactive_bytes"),
)


def _holdings(held: Holdings | None) -> dict[str, int | None]:
    return {name: None if held is None else getattr(held, name) for name in _FIELDS}


def _peak(snapshot: MemorySnapshot, quantity: str) -> int | None:
    """The devices' peaks, summed; unknown as soon as that of one device is."""
    if not snapshot.replays or set(snapshot.replays) != set(snapshot.devices):
        return None
    levels: list[Level] = [getattr(replay, quantity) for replay in snapshot.replays.values()]
    return sum(level.peak for level in levels)


def _device(snapshot: MemorySnapshot, device: int) -> dict[str, Any]:
    replay = snapshot.replays.get(device)
    held = snapshot.holdings(device=device) if snapshot.segments_are_whole else None
    return {
        "id": device,
        "name": None,  # snapshots do not say which GPU it was
        **_holdings(held),
        "peak_allocated_bytes": replay and replay.allocated.peak,
        "peak_active_bytes": replay and replay.active.peak,
        "peak_reserved_bytes": replay and replay.reserved.peak,
        "peak_event": replay and replay.allocated.peak_event,
        "start_bytes": replay and replay.allocated.start,
        "end_bytes": replay and replay.allocated.end,
        "contradictions": replay and replay.allocated.contradictions,
        "begins_mid_run": replay and replay.begins_mid_run,
        "events": len(snapshot.events[device]) if device in snapshot.events else 0,
    }
