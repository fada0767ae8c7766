"""What was live at the peak of each side, device by device, and what can a replay not say?

The total of a side is the sum of its devices' peaks of requested bytes (each at a moment of its
own), as `worklog show` gives it:

    total == sum(holder.bytes) + sum(unexplained)          exactly, in bytes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.diff.difference import Remainder
from common.diff.memory_holders import Holder, holders
from common.errors import UsageError
from common.traces.memory_snapshot import MemorySnapshot


@dataclass(frozen=True)
class Peaks:
    """One side. `unexplained` maps a device's label to the bytes of its peak that no block has."""

    total: int
    holders: list[Holder]
    by_device: Mapping[int, int]
    unexplained: Mapping[int, int]
    unknown: frozenset[int]  # devices whose history is cut short: their peak is not known


def device_labels(a: MemorySnapshot, b: MemorySnapshot) -> tuple[dict[int, int], dict[int, int]]:
    """{device: label} of both sides: a number that both have is one device, the rest go in order.

    The label is the number in A, or that in B where A has no such device.
    """
    left = {device: device for device in a.devices}
    shared = set(a.devices) & set(b.devices)
    right = {device: device for device in shared}
    rest = [device for device in a.devices if device not in shared]
    spare = max((*a.devices, *b.devices), default=0) + 1
    for device in b.devices:
        if device in shared:
            continue
        if rest:
            right[device] = rest.pop(0)
        else:
            right[device] = device if device not in left else spare
            spare += right[device] == spare
    return left, right


def peaks(snapshot: MemorySnapshot, labels: Mapping[int, int], side: str) -> Peaks:
    """The holders at each device's peak. Raises UsageError when no device has a known peak."""
    known = [device for device in snapshot.devices if device in snapshot.replays]
    if not known and (snapshot.devices or not snapshot.segments_are_whole):
        raise UsageError(
            f"{side} is cut short before the end of its history, so its peak is unknown; "
            "record or copy that snapshot again"
        )
    found: list[Holder] = []
    by_device: dict[int, int] = {}
    unexplained: dict[int, int] = {}
    for device in known:
        own = holders(snapshot.live_at(device), labels[device])
        peak = snapshot.replays[device].allocated.peak
        by_device[labels[device]] = peak
        unexplained[labels[device]] = peak - sum(holder.bytes for holder in own)
        found += own
    unknown = frozenset(labels[device] for device in snapshot.devices if device not in known)
    return Peaks(sum(by_device.values()), found, by_device, unexplained, unknown)


def remainders(a: Peaks, b: Peaks) -> list[Remainder]:
    """What is in the totals and in no block: histories that contradict their blocks."""
    found: list[Remainder] = []
    for device in sorted(a.unexplained.keys() | b.unexplained.keys()):
        left, right = a.unexplained.get(device, 0), b.unexplained.get(device, 0)
        if left or right:
            name = f"device {device}: events that contradict its blocks"
            found.append(Remainder(name, left, right))
    return found


def without_unknown(side: Peaks, other: Peaks) -> tuple[Peaks, list[Remainder]]:
    """`side` without the holders of devices whose peak `other` does not know.

    Their bytes stay in the total and become a remainder: 0 on the other side means unknown there,
    and the remainder's name says so.
    """
    lost = other.unknown & side.by_device.keys()
    if not lost:
        return side, []
    kept = [holder for holder in side.holders if holder.site.device not in lost]
    unexplained = {d: size for d, size in side.unexplained.items() if d not in lost}
    rest = [
        Remainder(
            f"device {d}: cut short on the other side, its peak is unknown", side.by_device[d], 0
        )
        for d in sorted(lost)
    ]
    return Peaks(side.total, kept, side.by_device, unexplained, side.unknown), rest
