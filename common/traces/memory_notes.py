"""What must a reader of this snapshot know before trusting its figures? Warnings, with counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.traces.memory_columns import KNOWN_ACTIONS, Reading
from common.traces.memory_model import Blocks, Events, Replay, Segments


def cut_note(
    cut: str, segments: int, events: Mapping[int, Events], whole: bool, history_is_whole: bool
) -> str:
    count = sum(len(rows) for rows in events.values())
    if not whole:
        lost = "the other segments and the history are lost, totals are unknown"
    elif not history_is_whole:
        lost = "the end of the history is lost, so its peak cannot be replayed"
    else:
        lost = "what follows the history is lost"
    return f"the file is cut short ({cut}): {segments} segments, {count} events read; {lost}"


def backend_note(settings: Mapping[str, str]) -> list[str]:
    """PyTorch's allocator is not the only one; the driver's keeps no segments and no history."""
    if "cudaMallocAsync" not in settings.get("PYTORCH_CUDA_ALLOC_CONF", ""):
        return []
    return [
        "recorded under another allocator (cudaMallocAsync), which keeps neither segments nor a "
        "history: its memory is not in this file; record with backend:native"
    ]


def notes_on(
    reading: Reading,
    events: Mapping[int, Events],
    replays: Mapping[int, Replay],
    segments: Segments,
    blocks: Blocks,
) -> list[str]:
    notes = [f"unreadable {what}: {count}" for what, count in reading.unreadable.items() if count]
    unknown = {action for rows in events.values() for action in rows.coded_actions[1]}
    unknown -= KNOWN_ACTIONS
    if unknown:
        names = ", ".join(repr(action[:40]) for action in sorted(unknown)[:5])
        notes.append(f"unknown kinds of events, no part of the replay: {len(unknown)} ({names})")
    if not any(len(rows) for rows in events.values()) and replays:
        notes.append("no history was recorded: peaks are those of the moment of the dump")
    for device, history in replays.items():
        wrong = max(history.allocated.contradictions, history.active.contradictions)
        if wrong:
            notes.append(
                f"events of device {device} that contradict its blocks: {wrong}; "
                "its peak is uncertain"
            )
        if history.reserved.start < 0 or history.allocated.lowest < 0:
            notes.append(f"the replay of device {device} goes below zero: its peak is uncertain")
    sums = np.zeros(len(segments), dtype=np.int64)
    if len(blocks):
        np.add.at(sums, blocks.segment, blocks.bytes)
    odd = int((sums != segments.total_bytes).sum())
    if odd:
        notes.append(f"segments that are larger or smaller than their blocks together: {odd}")
    return notes
