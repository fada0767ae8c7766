"""Where did a GPU's memory go? Reads torch.cuda memory snapshots (pickles, gzipped or not).

    snapshot = read_memory_snapshot(path)
    snapshot.replays[0].allocated.peak          # bytes, replayed over the recorded history
    group_live(snapshot.live_at(), by=("pool", "stack"))

From the schema of 2023 to that of 2026. The pickle is opened as data only (`plain_pickle`), so
opening a file can never run code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UsageError
from common.traces import memory_columns as columns
from common.traces.memory_events import read_events, read_out_of_memory
from common.traces.memory_live import live_blocks
from common.traces.memory_model import (
    Annotation,
    Blocks,
    Events,
    Holdings,
    LiveBlock,
    OutOfMemory,
    Pool,
    Replay,
    Segments,
    pool_kind,
)
from common.traces.memory_notes import backend_note, cut_note, notes_on
from common.traces.memory_replay import Quantity, replay
from common.traces.memory_stacks import Stack
from common.traces.pickle_scan import PickleCut, PickleRefused
from common.traces.plain_pickle import garbage_collector_off, load_plain
from common.traces.raw_file import read_raw

FORMAT = "memory_snapshot"
_EXPECTED = "a memory snapshot that torch.cuda.memory._dump_snapshot wrote"


@dataclass(frozen=True)
class MemorySnapshot:
    """One snapshot. `events` and `replays` are by device.

    A device has a replay where its history is whole; where the file is cut within the history or
    before it, the levels are unknown and the device is missing from `replays`.
    """

    segments: Segments
    blocks: Blocks
    events: Mapping[int, Events]
    replays: Mapping[int, Replay]
    stacks: tuple[Stack, ...]
    out_of_memory: tuple[OutOfMemory, ...]
    annotations: tuple[Annotation, ...]
    allocator_settings: Mapping[str, str]
    segments_are_whole: bool
    warnings: tuple[str, ...]

    @property
    def devices(self) -> tuple[int, ...]:
        return tuple(sorted({int(d) for d in self.segments.device} | set(self.events)))

    @property
    def actions(self) -> Mapping[str, int]:
        """How many events of each action, on all devices."""
        found: Counter[str] = Counter()
        for events in self.events.values():
            found.update(events.count())
        return found

    @property
    def events_with_frames(self) -> int:
        return sum(int((events.stack >= 0).sum()) for events in self.events.values())

    def holdings(
        self,
        device: int | None = None,
        pool: Pool | None = None,
        stream: int | None = None,
        kind: str | None = None,
    ) -> Holdings:
        """What was held at the dump; each argument that is given narrows it."""
        of_pool = np.array([pool is None or p == pool for p in self.segments.pool], dtype=np.bool_)
        of_kind = np.array([kind is None or k == kind for k in self.segments.kind], dtype=np.bool_)
        chosen = of_pool & of_kind
        if device is not None:
            chosen &= self.segments.device == device
        if stream is not None:
            chosen &= self.segments.stream == stream
        return self._held(chosen)

    def private_holdings(self, device: int | None = None) -> Holdings:
        """All pools but the default one together: CUDA graphs' and user-made pools."""
        kinds = ("private pool", "graph pool")
        chosen = np.array([pool_kind(p) in kinds for p in self.segments.pool], dtype=np.bool_)
        if device is not None:
            chosen &= self.segments.device == device
        return self._held(chosen)

    def holdings_by_kind(self) -> dict[str, Holdings]:
        """The same by kind of pool, which unlike a pool's number is equal in two runs."""
        kinds = np.array([pool_kind(p) for p in self.segments.pool], dtype=np.str_)
        return {kind: self._held(kinds == kind) for kind in sorted(set(kinds.tolist()))}

    def _held(self, chosen: np.typing.NDArray[np.bool_]) -> Holdings:
        in_chosen = np.zeros(0, dtype=np.bool_)
        if len(self.blocks):
            in_chosen = chosen[self.blocks.segment]
        inactive = np.array([state == "inactive" for state in self.blocks.state], dtype=np.bool_)
        allocated = np.array(
            [state == "active_allocated" for state in self.blocks.state], dtype=np.bool_
        )
        free = self.blocks.bytes[in_chosen & inactive]
        return Holdings(
            segments=int(chosen.sum()),
            reserved_bytes=_total(self.segments.total_bytes[chosen]),
            allocated_bytes=_total(self.segments.allocated_bytes[chosen]),
            active_bytes=_total(self.segments.active_bytes[chosen]),
            requested_bytes=_total(self.blocks.requested_bytes[in_chosen & allocated]),
            largest_inactive_bytes=int(free.max()) if len(free) else 0,
        )

    def pools(self, device: int | None = None) -> dict[Pool, Holdings]:
        """Each pool that has segments at the dump. Empty for files older than pool ids."""
        found = {
            pool
            for pool, owner in zip(self.segments.pool, self.segments.device, strict=True)
            if pool is not None and (device is None or owner == device)
        }
        return {pool: self.holdings(device=device, pool=pool) for pool in sorted(found)}

    def live_at(
        self, device: int = 0, position: int | None = None, quantity: Quantity = "allocated"
    ) -> tuple[LiveBlock, ...]:
        """The blocks live right after the event at `position` (-1: before the first).

        Without a position: at the device's peak. Raises UsageError when the history is unknown.
        """
        if device not in self.replays:
            raise UsageError(
                f"the history of device {device} is not in the snapshot or is cut; "
                f"devices with a history: {sorted(self.replays) or 'none'}"
            )
        if position is None:
            level = self.replays[device]
            position = (level.allocated if quantity == "allocated" else level.active).peak_event
        return live_blocks(
            self.segments, self.blocks, self.events[device], self.stacks, device, position, quantity
        )


def read_memory_snapshot(path: Path) -> MemorySnapshot:
    """Read a snapshot. Raises UsageError, one line, when the file is none or would run code."""
    raw = read_raw(path, _EXPECTED)
    with garbage_collector_off():
        try:
            plain = load_plain(raw.data)
        except PickleRefused as error:
            raise UsageError(
                f"{path} was not opened: {error}; give {_EXPECTED}, from a source that you trust"
            ) from error
        except PickleCut as error:
            raise UsageError(f"{path} is no readable pickle ({error}); give {_EXPECTED}") from error
        try:
            return _build(plain.value, plain.cut, raw.warnings, len(raw.data))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        finally:
            del plain  # with the collector off still: it would walk all that the file holds


def _build(value: object, cut: str, warnings: tuple[str, ...], budget: int) -> MemorySnapshot:
    if isinstance(value, list) and value:  # torch.cuda.memory_snapshot(): the segments alone
        value = {"segments": value}
    if not isinstance(value, dict) or not ({"segments", "device_traces"} & value.keys()):
        raise UsageError(f"this pickle is no memory snapshot; give {_EXPECTED}")
    # None: the key was written, the file ends before its value.
    raw_segments, raw_traces = value.get("segments") or [], value.get("device_traces") or []
    if not isinstance(raw_segments, list) or not isinstance(raw_traces, list):
        raise UsageError(f"its segments or device_traces are no lists; give {_EXPECTED}")
    if any(raw_segments) and not any(isinstance(row, dict) for row in raw_segments):
        raise UsageError(f"its segments are no dictionaries; give {_EXPECTED}")

    reading = columns.Reading(budget)
    segments, blocks = columns.read_segments(raw_segments, reading)
    reading.spend(len(raw_traces))
    events = {device: read_events(trace, reading) for device, trace in enumerate(raw_traces)}
    held = {int(device) for device in segments.device}
    events = {device: rows for device, rows in events.items() if len(rows) or device in held}
    for device in held - set(events):
        events[device] = read_events([], reading)
    annotations = columns.read_annotations(value.get("external_annotations"), reading)
    failures = [
        failure
        for device, rows in events.items()
        if device < len(raw_traces)
        for failure in read_out_of_memory(raw_traces[device], rows, device, reading.stacks.stacks)
    ]
    # The keys are written in this order, so what follows a cut is missing.
    segments_are_whole = not cut or "device_traces" in value
    history_is_whole = not cut or "allocator_settings" in value
    last = len(raw_traces) - 1
    whole = [d for d in events if segments_are_whole and (history_is_whole or d < last)]
    replays = {device: _replayed(device, segments, blocks, events[device]) for device in whole}
    settings = _settings(value.get("allocator_settings"))
    notes = backend_note(settings) + notes_on(reading, events, replays, segments, blocks)
    if cut:
        notes.insert(0, cut_note(cut, len(segments), events, segments_are_whole, history_is_whole))
    return MemorySnapshot(
        segments=segments,
        blocks=blocks,
        events=events,
        replays=replays,
        stacks=tuple(reading.stacks.stacks),
        out_of_memory=tuple(failures),
        annotations=annotations,
        allocator_settings=settings,
        segments_are_whole=segments_are_whole,
        warnings=(*warnings, *notes),
    )


def _replayed(device: int, segments: Segments, blocks: Blocks, events: Events) -> Replay:
    mine = (segments.device[blocks.segment] == device).tolist() if len(blocks) else []
    allocated: dict[int, int] = {}
    active: dict[int, int] = {}
    rows = zip(
        mine, blocks.address.tolist(), blocks.requested_bytes.tolist(), blocks.state, strict=True
    )
    for is_mine, address, size, state in rows:
        if not is_mine or state == "inactive":
            continue
        active[address] = size
        if state == "active_allocated":
            allocated[address] = size
    reserved = _total(segments.total_bytes[segments.device == device])
    return replay(events, allocated, active, reserved)


def _settings(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict):
        return {}
    return {
        key: str(value)
        for key, value in raw.items()
        if isinstance(key, str)
        and (isinstance(value, (str, bool, float)) or columns.is_number(value, -(1 << 63)))
    }


def _total(column: np.typing.NDArray[np.int64]) -> int:
    return sum(column.tolist())  # exact: a column's own sum could overflow on a hostile file
