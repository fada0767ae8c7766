"""Snapshots with known answers: pools, streams, old schemas, failures, several devices, damage."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import pytest
from helpers.snapshots import MIB, block, event, frame, freed, segment, snapshot, write

from common.errors import UsageError
from common.traces.memory_live import group_live
from common.traces.memory_model import pool_kind
from common.traces.memory_snapshot import read_memory_snapshot
from common.traces.memory_stacks import Stack, classify, size_class
from common.traces.memory_summary import summary

A, B, C = 1 << 30, 2 << 30, 3 << 30


def test_pools_are_told_apart_and_retained_bytes_are_those_nobody_uses(tmp_path: Path) -> None:
    value = snapshot(
        [
            segment(A, [block(A, 6 * MIB), block(A + 6 * MIB, 4 * MIB, "inactive")]),
            segment(B, [block(B, 20 * MIB, "inactive")], segment_pool_id=(0, 1), stream=7),
            segment(
                C,
                [block(C, 3 * MIB), block(C + 3 * MIB, 2 * MIB, "active_pending_free")],
                segment_pool_id=(4, 0),
                segment_type="small",
            ),
        ],
        [event("alloc", A, 6 * MIB), event("alloc", C, 3 * MIB)],
    )
    found = read_memory_snapshot(write(tmp_path, value))
    pools = found.pools()
    assert {p: h.reserved_bytes // MIB for p, h in pools.items()} == {
        (0, 0): 10,
        (0, 1): 20,
        (4, 0): 5,
    }
    assert [pool_kind(p) for p in pools] == ["default pool", "private pool", "graph pool"]
    assert found.private_holdings().retained_bytes == 20 * MIB
    assert found.holdings().fragmentation_bytes == (35 - 9) * MIB
    assert found.holdings(stream=7).reserved_bytes == 20 * MIB
    assert found.holdings(kind="small").active_bytes == 5 * MIB
    side = summary(found)
    assert side["private_pool_reserved_bytes"] == 25 * MIB
    assert side["segment_types"] == {"large": 30 * MIB, "small": 5 * MIB}
    assert side["streams"] == [0, 7]
    by_pool = {g.key[0]: g.bytes // MIB for g in group_live(found.live_at(), ("pool",))}
    assert by_pool == {"default pool": 6, "graph pool": 3}
    # Requested and given up, still read by another stream: active, not allocated.
    assert found.replays[0].active.end - found.replays[0].allocated.end == 2 * MIB


def test_the_pool_of_an_event_wins_and_a_younger_segment_does_not_claim_an_old_block(
    tmp_path: Path,
) -> None:
    later = [
        event("alloc", A, 4 * MIB),  # in a segment that is gone at the dump
        event("alloc", B, 5 * MIB, pool_id=[0, 3], stream=9),
        *freed(A, 4 * MIB),
        event("segment_free", A, 4 * MIB),
        event("segment_alloc", A, 2 * MIB),
        event("alloc", A, MIB),
    ]
    value = snapshot([segment(A, [block(A, MIB), block(A + MIB, MIB, "inactive")])], later)
    value["segments"].append(segment(B, [block(B, 5 * MIB)], segment_pool_id=(0, 3)))
    found = read_memory_snapshot(write(tmp_path, value))
    assert found.replays[0].allocated.peak_event == 1
    assert [(b.bytes // MIB, b.pool, b.stream) for b in found.live_at()] == [
        (5, (0, 3), 9),
        (4, None, 0),
    ]
    last = {(b.bytes // MIB, b.pool) for b in found.live_at(0, 7)}
    assert last == {(5, (0, 3)), (1, (0, 0))}
    level = found.replays[0].reserved
    assert (level.start // MIB, level.peak // MIB, level.end // MIB) == (9, 9, 7)


def test_free_requested_and_free_completed_are_different_moments(tmp_path: Path) -> None:
    history = [
        event("alloc", A, 10),
        event("free_requested", A, 10),
        event("alloc", B, 7),
        event("free_completed", A, 10),
        *freed(B, 7),
    ]
    found = read_memory_snapshot(write(tmp_path, snapshot([], history)))
    assert (found.replays[0].allocated.peak, found.replays[0].allocated.peak_event) == (10, 0)
    assert (found.replays[0].active.peak, found.replays[0].active.peak_event) == (17, 2)
    assert len(found.live_at(quantity="active")) == 2


def test_a_failed_allocation_is_reported_with_what_was_free(tmp_path: Path) -> None:
    oom = {
        "action": "oom",
        "device_free": 5 * MIB,
        "size": 900 * MIB,
        "stream": 0,
        "time_us": 1234,
        "frames": [frame("forward")],
    }
    found = read_memory_snapshot(
        write(tmp_path, snapshot([], [event("alloc", A, 8), oom, *freed(A, 8)]))
    )
    failure = found.out_of_memory[0]
    assert (failure.device, failure.position, failure.requested_bytes) == (0, 1, 900 * MIB)
    assert (failure.free_bytes, failure.time_us) == (5 * MIB, 1234)
    assert failure.stack == Stack(("model.py:forward",), lines=(1,))
    assert found.replays[0].allocated.peak == 8
    assert found.warnings == ()


def test_devices_are_replayed_apart_and_their_peaks_summed(tmp_path: Path) -> None:
    value = snapshot(
        [segment(A, [block(A, 100)], device=2)],
        [event("alloc", A, 30), *freed(A, 30)],
        [],
        [event("alloc", A, 100)],
    )
    found = read_memory_snapshot(write(tmp_path, value))
    assert sorted(found.replays) == [0, 2]
    side = summary(found)
    assert side["peak_allocated_bytes"] == 130
    assert [(d["id"], d["end_bytes"]) for d in side["devices"]] == [(0, 0), (2, 100)]


def test_a_device_with_memory_and_no_history_is_there(tmp_path: Path) -> None:
    found = read_memory_snapshot(write(tmp_path, snapshot([segment(A, [block(A, 64)])])))
    assert found.replays[0].allocated.peak == 64
    assert found.warnings == ("no history was recorded: peaks are those of the moment of the dump",)


def test_the_schema_before_2023_is_read(tmp_path: Path) -> None:
    """Blocks without addresses; requested size and frames stand in `history`."""
    old = {
        "device": 0,
        "address": A,
        "total_size": 3072,
        "stream": 0,
        "segment_type": "small",
        "blocks": [
            {
                "size": 1024,
                "state": "active_allocated",
                "history": [{"addr": A, "real_size": 1000, "frames": [frame("f", "m.py")]}],
            },
            {"size": 2048, "state": "active_allocated", "history": []},
        ],
    }
    for value in (snapshot([old], []), [old], {"segments": [old]}):
        found = read_memory_snapshot(write(tmp_path, value))
        held = found.holdings()
        assert (held.reserved_bytes, held.allocated_bytes, held.requested_bytes) == (
            3072,
            3072,
            3048,
        )
        assert found.blocks.address.tolist() == [A, A + 1024]
        assert found.pools() == {}
        assert {b.stack.label if b.stack else None for b in found.live_at()} == {"m.py:f", None}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    value = snapshot(
        [segment(A, [block(A, 512, frames=[frame("g")])], segment_pool_id=(70000, 1 << 40))],
        [event("alloc", A, 512, time_us=1_783_874_495_956_444)],
    )
    found = read_memory_snapshot(write(tmp_path, value, protocol=protocol))
    assert found.holdings().requested_bytes == 512
    assert list(found.pools()) == [(70000, 1 << 40)]


def test_unreadable_rows_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    bad: list[Any] = [
        {"action": "alloc", "addr": B},
        {"action": "alloc", "addr": B, "size": -5},
        {"action": "alloc", "addr": B, "size": 2.5},
        {"action": "alloc", "addr": B, "size": True},
        {"action": "alloc", "addr": 1 << 70, "size": 5},
        {"action": "alloc", "addr": B, "size": 1 << 60},
        {"action": 7},
        "text",
        None,
    ]
    good = [*bad, event("alloc", A, 512), {"action": "novelty", "x": 1}]
    segments: list[Any] = [segment(A, [block(A, 512)]), 5, {"device": "0"}, {"address": A}]
    found = read_memory_snapshot(write(tmp_path, snapshot(segments, good)))
    assert "unreadable segments: 3" in found.warnings
    assert "unreadable events: 9" in found.warnings
    assert any("unknown kinds of events" in warning for warning in found.warnings)
    assert (found.replays[0].allocated.peak, found.replays[0].allocated.peak_event) == (512, 9)


def test_contradictions_and_segments_that_do_not_add_up_are_said(tmp_path: Path) -> None:
    value = snapshot(
        [segment(A, [block(A, 512)], total_size=4096)],
        [event("alloc", B, 100), event("alloc", A, 512)],  # B is live nowhere at the end
    )
    found = read_memory_snapshot(write(tmp_path, value))
    assert found.replays[0].allocated.contradictions == 1
    assert any("contradict its blocks: 1" in warning for warning in found.warnings)
    assert "segments that are larger or smaller than their blocks together: 1" in found.warnings


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "no readable pickle"),
        (b"PK\x03\x04" + b"\0" * 100, "no readable pickle"),
        (pickle.dumps({"a": 1}), "no memory snapshot"),
        (pickle.dumps([]), "no memory snapshot"),
        (pickle.dumps("text"), "no memory snapshot"),
        (pickle.dumps({"segments": 5}), "no lists"),
        (pickle.dumps({"segments": [], "device_traces": {"a": 1}}), "no lists"),
        (pickle.dumps({"segments": ["a", "b"]}), "no dictionaries"),
        (gzip.compress(b"", mtime=0), "cannot be unpacked"),
        (gzip.compress(b"x" * 100, mtime=0)[:10], "cannot be unpacked"),
    ],
)
def test_what_is_no_snapshot_is_one_line_of_error(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        read_memory_snapshot(file)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_directory_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no file"):
        read_memory_snapshot(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_memory_snapshot(tmp_path / "none.pickle")


def test_a_device_whose_history_is_whole_is_replayed_in_a_cut_file(tmp_path: Path) -> None:
    first = [event("alloc", A, 30), *freed(A, 30)]
    second = [event("alloc", B, size) for size in range(1, 40)]
    data = pickle.dumps(snapshot([], first, second), protocol=4)
    cut = tmp_path / "cut.pickle"
    cut.write_bytes(data[: data.index(b"allocator_settings") - 60])
    found = read_memory_snapshot(cut)
    assert sorted(found.replays) == [0]
    assert found.replays[0].allocated.peak == 30
    assert 20 < len(found.events[1]) < 39
    assert summary(found)["peak_allocated_bytes"] is None


@pytest.mark.parametrize(
    ("function", "file", "expected"),
    [
        ("f", "/home/someone/x/model.py", ("own", "model.py:f")),
        ("f", "D:\\Dev\\x\\model.py", ("own", "model.py:f")),
        ("f", "/home/someone/lib/model.py", ("own", "model.py:f")),
        ("f", "/v/lib/python3.12/site-packages/vllm/x.py", ("own", "x.py:f")),
        ("_call_impl", "/v/site-packages/torch/nn/modules/module.py", ("inner", "module.py:_call")),
        ("run", "/usr/lib/python3.11/runpy.py", ("inner", "runpy.py:run")),
        ("run", "C:\\Python312\\Lib\\runpy.py", ("inner", "runpy.py:run")),
        ("call", "/tmp/torchinductor_me/ab/cabcdef.py", ("own", "<generated>:call")),
        ("forward", "<eval_with_key>.12", ("own", "<generated>:forward")),
        ("at::_ops::mm::call(at::Tensor const&)", "??", ("operator", "aten::mm")),
        ("_PyEval_EvalFrameDefault", "??", ("dropped", "")),
        ("main", "/build/Python/ceval.c", ("dropped", "")),
        ("<lambda at 0x7f00ab>", "m.py", ("own", "m.py:<lambda at 0x>")),
    ],
)
def test_frames_keep_what_is_equal_in_two_runs(
    function: str, file: str, expected: tuple[str, str]
) -> None:
    kind, shown = classify(frame(function, file))
    assert kind == expected[0] and shown.startswith(expected[1])
    assert classify(frame(function, file, line=1)) == classify(frame(function, file, line=2))


@pytest.mark.parametrize("broken", [None, 5, {}, {"name": 1, "filename": "m.py"}, {"name": "f"}])
def test_broken_frames_are_dropped(broken: object) -> None:
    assert classify(broken) == ("dropped", "")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "<= 512 B"),
        (512, "<= 512 B"),
        (513, "<= 1 KiB"),
        (MIB, "<= 1 MiB"),
        (MIB + 1, "<= 2 MiB"),
        (3 << 30, "<= 4 GiB"),
    ],
)
def test_size_classes_are_powers_of_two(size: int, expected: str) -> None:
    assert size_class(size) == expected
