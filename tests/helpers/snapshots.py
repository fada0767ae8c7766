"""Makes small snapshots in the schema of torch.cuda.memory, for tests with known answers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

MIB = 1 << 20


def block(address: int, size: int, state: str = "active_allocated", **more: Any) -> dict[str, Any]:
    return {
        "address": address,
        "size": size,
        "requested_size": size,
        "state": state,
        "frames": [],
        **more,
    }


def segment(address: int, blocks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    def total(key: str, states: tuple[str, ...]) -> int:
        return sum(b[key] for b in blocks if b["state"] in states)

    in_use = ("active_allocated", "active_pending_free")
    return {
        "device": 0,
        "address": address,
        "total_size": sum(b["size"] for b in blocks),
        "allocated_size": total("size", in_use[:1]),
        "active_size": total("size", in_use),
        "requested_size": total("requested_size", in_use[:1]),
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": blocks,
        **more,
    }


def event(action: str, address: int, size: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "stream": 0, **more}


def freed(address: int, size: int) -> list[dict[str, Any]]:
    return [event("free_requested", address, size), event("free_completed", address, size)]


def frame(function: str, file: str = "/home/someone/model.py", line: int = 1) -> dict[str, Any]:
    return {"name": function, "filename": file, "line": line}


def snapshot(
    segments: list[dict[str, Any]], *traces: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    return {
        "segments": segments,
        "device_traces": list(traces),
        "allocator_settings": {"expandable_segments": False},
        "external_annotations": [],
        **more,
    }


def write(folder: Path, value: object, name: str = "snapshot.pickle", protocol: int = 4) -> Path:
    file = folder / name
    file.write_bytes(pickle.dumps(value, protocol=protocol))
    return file
