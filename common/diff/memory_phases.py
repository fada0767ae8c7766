"""How did memory move over the recorded history? Levels, a timeline for a chart, named phases.

Levels are requested bytes before the first event and after each one, exact integers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.traces.memory_model import NO_TIME, Int64
from common.traces.memory_replay import FREE_ACTION, block_steps, levels_after
from common.traces.memory_snapshot import MemorySnapshot

TIMELINE_POINTS = 150


def requested_levels(
    snapshot: MemorySnapshot, device: int
) -> NDArray[np.int64] | NDArray[np.object_]:
    """Requested bytes before the first event and after each one."""
    steps = block_steps(snapshot.events[device], FREE_ACTION["allocated"])
    return levels_after(snapshot.replays[device].allocated.start, steps)


def timeline(snapshot: MemorySnapshot) -> list[dict[str, Any]]:
    """[index of an event, bytes] for a chart: the highest level of each stretch, by device."""
    found = []
    for device in sorted(snapshot.replays):
        own = requested_levels(snapshot, device)
        stretch = -(-len(own) // TIMELINE_POINTS)
        points = []
        for first in range(0, len(own), stretch):
            part = own[first : first + stretch]
            high = int(part.argmax())
            points.append([first + high - 1, int(part[high])])
        found.append({"device": device, "points": points})
    return found


def phases(a: MemorySnapshot, b: MemorySnapshot) -> list[dict[str, Any]] | None:
    """The peak of requested bytes within each annotated phase, over all its occurrences.

    None where neither file has annotations: a share of the time would be no phase of the program.
    A phase without an end runs to the end of the history. Phases nest, so they do not add up.
    """
    if not (a.annotations or b.annotations):
        return None
    left, right = _phases(a), _phases(b)
    rows: list[dict[str, Any]] = []
    for name in sorted(left.keys() | right.keys()):
        own, other = left.get(name), right.get(name)
        rows.append(
            {
                "name": name,
                "a": own and own[0],
                "b": other and other[0],
                "delta": other[0] - own[0] if own and other else None,
                "count_a": own[1] if own else 0,
                "count_b": other[1] if other else 0,
            }
        )
    rows.sort(key=lambda row: (-max(row["a"] or 0, row["b"] or 0), row["name"]))
    return rows


def _phases(snapshot: MemorySnapshot) -> dict[str, tuple[int, int]]:
    """{name: (highest level, occurrences)} over all devices."""
    found: dict[str, tuple[int, int]] = {}
    for device in sorted(snapshot.replays):
        times = snapshot.events[device].time_us
        if not len(times) or bool((times == NO_TIME).any()):
            continue
        own = requested_levels(snapshot, device)
        # Threads may write their events a little out of order.
        clock = np.maximum.accumulate(times)
        for name, first, last in occurrences(snapshot, device, clock):
            before, count = found.get(name, (0, 0))
            highest = int(own[first : last + 1].max())
            found[name] = (max(before, highest), count + 1)
    return found


def occurrences(snapshot: MemorySnapshot, device: int, clock: Int64) -> list[tuple[str, int, int]]:
    """(name, first, last) of every phase on a device, as indices into `requested_levels`."""
    open_: Mapping[str, list[int]] = defaultdict(list)
    found: list[tuple[str, int, int]] = []

    def level_at(time_us: int) -> int:
        return int(np.searchsorted(clock, time_us, side="right"))

    for mark in snapshot.annotations:
        if mark.device != device:
            continue
        if mark.stage == "START":
            open_[mark.name].append(level_at(mark.time_us))
        elif mark.stage == "END" and open_[mark.name]:
            found.append((mark.name, open_[mark.name].pop(), level_at(mark.time_us)))
    for name, starts in open_.items():
        found += [(name, start, len(clock)) for start in starts]
    return found
