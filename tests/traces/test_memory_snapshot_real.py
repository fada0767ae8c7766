"""Every memory snapshot of the test data, against figures that were computed independently."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import UsageError
from common.traces.memory_live import group_live
from common.traces.memory_snapshot import MemorySnapshot, read_memory_snapshot
from common.traces.memory_summary import summary


@pytest.fixture
def pair(
    real_data: Path, facts: dict[str, Any], memory_file: str
) -> tuple[MemorySnapshot, dict[str, Any]]:
    return read_memory_snapshot(real_data / memory_file), facts[memory_file]


def test_every_total_equals_what_is_known(pair: tuple[MemorySnapshot, dict[str, Any]]) -> None:
    snapshot, expected = pair
    held = snapshot.holdings()
    found = {
        "kind": "memory",
        "segments": held.segments,
        "segments_by_type": dict(Counter(snapshot.segments.kind)),
        "expandable_segments": int(snapshot.segments.expandable.sum()),
        "reserved": held.reserved_bytes,
        "allocated": held.allocated_bytes,
        "active": held.active_bytes,
        "requested": held.requested_bytes,
        "blocks_by_state": dict(Counter(snapshot.blocks.state)),
        "largest_inactive_block": held.largest_inactive_bytes,
        "pools": [list(pool) for pool in snapshot.pools()],
        "streams": sorted({int(stream) for stream in snapshot.segments.stream}),
        "trace_events": sum(len(events) for events in snapshot.events.values()),
        "actions": dict(snapshot.actions),
        "events_with_frames": snapshot.events_with_frames,
        "replay_by_device": {
            str(device): {
                name: {
                    "start": level.start,
                    "start_blocks": level.start_blocks,
                    "peak": level.peak,
                    "peak_event": level.peak_event,
                    "lowest": level.lowest,
                    "end": level.end,
                    "contradictions": level.contradictions,
                }
                for name, level in (("allocated", replay.allocated), ("active", replay.active))
            }
            | {
                "reserved": {
                    "start": replay.reserved.start,
                    "end": replay.reserved.end,
                    "peak": replay.reserved.peak,
                }
            }
            for device, replay in snapshot.replays.items()
        },
    }
    assert found == expected
    assert snapshot.warnings == ()


def test_what_is_live_at_any_moment_adds_up(pair: tuple[MemorySnapshot, dict[str, Any]]) -> None:
    snapshot, _ = pair
    for quantity in ("allocated", "active"):
        level = getattr(snapshot.replays[0], quantity)
        live = snapshot.live_at(0, quantity=quantity)
        assert sum(b.bytes for b in live) == level.peak
        at_start = snapshot.live_at(0, -1, quantity)
        assert (sum(b.bytes for b in at_start), len(at_start)) == (level.start, level.start_blocks)
        last = len(snapshot.events[0]) - 1
        assert sum(b.bytes for b in snapshot.live_at(0, last, quantity)) == level.end


def test_groups_close_and_name_neither_people_nor_addresses(
    pair: tuple[MemorySnapshot, dict[str, Any]],
) -> None:
    snapshot, _ = pair
    peak = snapshot.replays[0].allocated.peak
    for by in (("pool",), ("stack",), ("size_class",), ("pool", "stack", "size_class")):
        groups = group_live(snapshot.live_at(), by)
        assert sum(group.bytes for group in groups) == peak
    keys = " ".join(text for group in group_live(snapshot.live_at()) for text in group.key)
    for forbidden in ("/home", "/root", "\\", "0x", "unwind", "_PyEval", "_call_impl"):
        assert forbidden not in keys


def test_the_summary_has_the_keys_of_a_diff(pair: tuple[MemorySnapshot, dict[str, Any]]) -> None:
    snapshot, expected = pair
    side = summary(snapshot)
    peaks = expected["replay_by_device"]["0"]
    assert side["peak_allocated_bytes"] == peaks["allocated"]["peak"]
    assert side["peak_active_bytes"] == peaks["active"]["peak"]
    assert side["peak_reserved_bytes"] == peaks["reserved"]["peak"]
    assert side["reserved_bytes"] == expected["reserved"]
    assert side["fragmentation_bytes"] == expected["reserved"] - expected["allocated"]
    assert side["private_pool_retained_bytes"] == 0
    assert side["devices"][0]["contradictions"] == 0


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_a_cut_file_gives_its_intact_beginning_and_says_so(
    real_data: Path, memory_file: str, tmp_path: Path, part: float
) -> None:
    whole = read_memory_snapshot(real_data / memory_file)
    with gzip.open(real_data / memory_file) as file:
        data = file.read()
    cut = tmp_path / "cut.pickle"
    cut.write_bytes(data[: int(len(data) * part)])
    found = read_memory_snapshot(cut)
    assert "the file is cut short" in found.warnings[0]
    assert found.replays == {}
    assert summary(found)["peak_allocated_bytes"] is None
    with pytest.raises(UsageError, match="is cut"):
        found.live_at()
    if found.segments_are_whole:
        assert found.holdings() == whole.holdings()
    else:
        assert summary(found)["reserved_bytes"] is None
    for device, events in found.events.items():
        assert events.action == whole.events[device].action[: len(events)]
        assert events.address.tolist() == whole.events[device].address[: len(events)].tolist()


def test_a_cut_gzip_is_read_as_far_as_it_goes(real_data: Path, tmp_path: Path) -> None:
    packed = (real_data / "memory/small_fwd_fp32.pickle.gz").read_bytes()
    cut = tmp_path / "cut.pickle.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    found = read_memory_snapshot(cut)
    assert "gzip stream is damaged" in found.warnings[0]
    assert found.segments_are_whole and 100 < len(found.events[0]) < 2043
    assert found.holdings().segments == 29


def test_a_history_that_begins_mid_run_is_known_as_one(real_data: Path) -> None:
    backward = read_memory_snapshot(real_data / "memory/attn_backward.pickle.gz")
    forward = read_memory_snapshot(real_data / "memory/attn_forward.pickle.gz")
    assert backward.replays[0].begins_mid_run
    assert forward.replays[0].allocated.end == backward.replays[0].allocated.start == 4_855_234_564
    assert (
        not read_memory_snapshot(real_data / "memory/small_from_empty.pickle.gz")
        .replays[0]
        .begins_mid_run
    )


def test_annotations_and_settings_are_kept(real_data: Path) -> None:
    training = read_memory_snapshot(real_data / "memory/medium_128_training.pickle.gz")
    stages = [(a.name, a.stage) for a in training.annotations]
    assert stages[:2] == [
        ("Optimizer.step#AdamW.step", "START"),
        ("Optimizer.step#AdamW.step", "END"),
    ]
    expandable = read_memory_snapshot(real_data / "memory/xl_fwd_cl512_bf16.pickle.gz")
    assert expandable.allocator_settings["expandable_segments"] == "True"


def test_a_stack_reads_as_operator_and_callers(real_data: Path) -> None:
    snapshot = read_memory_snapshot(real_data / "memory/xl_fwd_cl512_bf16.pickle.gz")
    labels = {group.key[0] for group in group_live(snapshot.live_at(), ("stack",))}
    assert any(label.startswith("aten::exp < nn_utils.py:softmax < model.py:") for label in labels)
