"""How does the model's state look as a memory snapshot? The file that torch.cuda.memory writes.

Keys and their order are those of `torch/csrc/cuda/memory_snapshot.cpp: _memory_snapshot_pickled` as
of 2026 (`pool_id` in the history since torch 2.12 or 2.13). The pickle holds plain data only.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.allocator.blocks import Block
from common.allocator.model import CachingAllocator
from common.allocator.segments import TraceEntry
from common.allocator.settings import UNLIMITED_BYTES, Settings

Annotation = tuple[int, int, str, str]  # device, time_us, name, START or END


def snapshot(
    *allocators: CachingAllocator,
    annotations: Sequence[Annotation] = (),
    trace_pool_ids: bool = True,
) -> dict[str, Any]:
    """The snapshot of one or more devices. Without `trace_pool_ids`: as torch 2.11 writes it."""
    traces: list[list[dict[str, Any]]] = []
    segments: list[dict[str, Any]] = []
    for allocator in sorted(allocators, key=lambda a: a.device):
        traces += [[] for _ in range(allocator.device + 1 - len(traces))]
        traces[allocator.device] = [_event(entry, trace_pool_ids) for entry in allocator.history]
        segments += [_segment(block, allocator.device) for block in allocator.first_blocks()]
    return {
        "segments": segments,
        "device_traces": traces,
        "allocator_settings": _settings(allocators[0].settings if allocators else Settings()),
        "external_annotations": [
            {"name": name, "stage": stage, "device": device, "time_us": time}
            for device, time, name, stage in annotations
        ],
    }


def write_snapshot(
    path: Path,
    *allocators: CachingAllocator,
    annotations: Sequence[Annotation] = (),
    trace_pool_ids: bool = True,
) -> Path:
    """Write it where PyTorch's viewer, and `read_memory_snapshot`, can open it."""
    value = snapshot(*allocators, annotations=annotations, trace_pool_ids=trace_pool_ids)
    path.write_bytes(pickle.dumps(value, protocol=4))
    return path


def _segment(first: Block, device: int) -> dict[str, Any]:
    """One stretch of mapped memory from its first block on. Models `snapshot`."""
    blocks: list[Block] = []
    at: Block | None = first
    while at is not None and at.mapped:
        blocks.append(at)
        at = at.next
    active = [block for block in blocks if block.in_use]
    return {
        "device": device,
        "address": first.address,
        "total_size": sum(block.size for block in blocks),
        "allocated_size": sum(block.size for block in blocks if block.allocated),
        "active_size": sum(block.size for block in active),
        "requested_size": sum(block.requested for block in active),
        "stream": first.home.stream,
        "segment_type": "small" if first.home.small else "large",
        "segment_pool_id": first.home.pool.id,
        "is_expandable": first.expandable is not None,
        "frames": list(first.segment_frames or ()),
        "blocks": [_block(block) for block in blocks],
    }


def _block(block: Block) -> dict[str, Any]:
    waits = "active_pending_free" if block.in_use else "inactive"
    return {
        "address": block.address,
        "size": block.size,
        "requested_size": block.requested,
        "state": "active_allocated" if block.allocated else waits,
        "frames": list(block.frames or ()),
    }


def _event(entry: TraceEntry, with_pool: bool) -> dict[str, Any]:
    action, address, size, stream, pool, time, frames, metadata = entry
    row: dict[str, Any] = {
        "action": action,
        "device_free" if action == "oom" else "addr": address,
        "size": size,
        "stream": stream,
        "compile_context": "N/A",
        "user_metadata": metadata,
        "time_us": time,
    }
    if with_pool:
        row["pool_id"] = pool
    if frames is not None:
        row["frames"] = list(frames)
    return row


def _settings(settings: Settings) -> dict[str, Any]:
    limit = settings.max_split_bytes
    divisions = settings.roundup_power2_divisions
    return {
        "PYTORCH_CUDA_ALLOC_CONF": settings.text,
        "max_split_size": -1 if limit == UNLIMITED_BYTES else limit,
        "garbage_collection_threshold": settings.garbage_collection_threshold,
        "expandable_segments": settings.expandable_segments,
        "pinned_num_register_threads": 1,
        "release_lock_on_cudamalloc": False,
        "pinned_use_cuda_host_register": False,
        "graph_capture_record_stream_reuse": settings.graph_capture_record_stream_reuse,
        "roundup_power2_divisions": {str(1 << i): value for i, value in enumerate(divisions)},
    }
