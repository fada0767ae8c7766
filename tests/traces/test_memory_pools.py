"""Timelines per pool and stream, and growth per phase: on files whose truth the model knows."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator
from common.allocator.settings import MIB, Settings
from common.allocator.snapshot_file import snapshot as snapshot_value
from common.allocator.snapshot_file import write_snapshot
from common.diff.memory import diff_memory
from common.errors import UsageError
from common.report.memory_page import memory_text
from common.traces.memory_model import DEFAULT_POOL
from common.traces.memory_pools import NO_PHASE, growth_by_phase, pool_lines
from common.traces.memory_snapshot import MemorySnapshot, read_memory_snapshot
from common.traces.memory_summary import summarise_snapshot


def _run(text: str = "", device: int = 0, max_entries: int | None = None) -> CachingAllocator:
    """Two graphs of one pool and one stream, a third on a stream of its own, and eager work."""
    allocator = CachingAllocator(
        SimulatedDriver(1 << 40), Settings.from_text(text), device, max_entries
    )
    ids = PoolIds()
    allocator.metadata = "load"
    kept = [allocator.malloc(size) for size in (64 * MIB, 3 * MIB, 512)]
    shared = ids.handle()
    for stream, size in ((1, 40), (1, 24), (2, 24)):
        allocator.metadata = f"capture {size} on {stream}"
        with Graph(allocator, ids).capture(stream, shared):
            allocator.free(allocator.malloc(size * MIB, stream))
            allocator.malloc(1000, stream)
    allocator.metadata = "serve"
    allocator.free(allocator.malloc(100 * MIB))
    allocator.free(kept[1])
    allocator.metadata = ""
    return allocator


def _read(tmp_path: Path, allocator: CachingAllocator, **options: bool) -> MemorySnapshot:
    return read_memory_snapshot(write_snapshot(tmp_path / "a.pickle", allocator, **options))


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
@pytest.mark.parametrize("trace_pool_ids", [True, False])
def test_each_line_has_the_models_own_peaks(
    tmp_path: Path, text: str, trace_pool_ids: bool
) -> None:
    """Also where the events name no pool, as torch 2.11 writes them: settled by their address."""
    allocator = _run(text)
    lines = pool_lines(_read(tmp_path, allocator, trace_pool_ids=trace_pool_ids))
    truth = {(row.pool, row.stream): row.now for row in allocator.totals()}
    assert {(line.pool, line.stream) for line in lines} == set(truth)
    for line in lines:
        now = truth[line.pool or DEFAULT_POOL, line.stream]
        assert (line.reserved.start, line.allocated.start) == (0, 0)
        assert line.reserved.end == now["reserved_bytes"]
        assert line.reserved.peak == now["peak_reserved_bytes"]
        # Of the active blocks: what was asked for, the model's own count of it.
        assert (line.active.end, line.active.peak) == (
            now["requested_bytes"],
            now["peak_requested_bytes"],
        )
        assert line.inferred == (0 if trace_pool_ids else line.events)


def test_lines_add_up_to_the_device(tmp_path: Path) -> None:
    found = _read(tmp_path, _run())
    lines = pool_lines(found)
    assert sum(line.reserved.end for line in lines) == found.replays[0].reserved.end
    assert sum(line.allocated.end for line in lines) == found.replays[0].allocated.end
    # Peaks are at moments of their own: together at least the device's.
    assert sum(line.reserved.peak for line in lines) >= found.replays[0].reserved.peak
    for line in lines:
        if line.reserved.peak_event >= 0:
            at = line.reserved.at.tolist().index(line.reserved.peak_event)
            assert line.reserved.after[at] == line.reserved.peak


def test_a_history_that_begins_mid_run_starts_from_what_was_there(tmp_path: Path) -> None:
    whole, cut = _run(), _run(max_entries=8)
    assert len(cut.history) == 8
    lines = {(line.pool, line.stream): line for line in pool_lines(_read(tmp_path, cut))}
    for line in pool_lines(_read(tmp_path, whole)):
        short = lines[line.pool, line.stream]
        assert short.reserved.end == line.reserved.end
        assert short.allocated.end == line.allocated.end
    assert any(line.reserved.start for line in lines.values())


def test_growth_is_by_phase_and_only_what_a_capture_adds(tmp_path: Path) -> None:
    found = {row.phase: row for row in growth_by_phase(_read(tmp_path, _run()))}
    assert list(found) == [
        *("load", "capture 40 on 1", "capture 24 on 1", "capture 24 on 2", "serve"),
    ]
    assert found["load"].private_bytes == 0
    assert found["load"].default_bytes == (64 + 20 + 2) * MIB
    assert found["capture 40 on 1"].private_bytes == 42 * MIB  # and a small segment of 2
    assert found["capture 24 on 1"].private_bytes == 0  # fits into what the first left
    assert found["capture 24 on 2"].private_bytes == 26 * MIB  # another stream: nothing fits
    assert found["serve"].default_bytes == 100 * MIB


def test_phases_come_from_annotations_where_no_metadata_was_set(tmp_path: Path) -> None:
    allocator = CachingAllocator(SimulatedDriver(1 << 40))
    allocator.malloc(30 * MIB)
    first = allocator.clock_us
    allocator.malloc(40 * MIB)
    notes = [(0, first + 1, "prefill", "START"), (0, allocator.clock_us, "prefill", "END")]
    path = write_snapshot(tmp_path / "a.pickle", allocator, annotations=notes)
    found = {row.phase: row for row in growth_by_phase(read_memory_snapshot(path))}
    assert found[NO_PHASE].default_bytes == 30 * MIB
    assert found["prefill"].default_bytes == 40 * MIB


def test_without_phases_there_is_no_growth_to_tell(tmp_path: Path) -> None:
    allocator = CachingAllocator(SimulatedDriver(1 << 40))
    allocator.malloc(30 * MIB)
    assert growth_by_phase(_read(tmp_path, allocator)) == []


def test_several_devices_have_lines_of_their_own(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "a.pickle", _run(), _run(device=2))
    found = read_memory_snapshot(path)
    assert {line.device for line in pool_lines(found)} == {0, 2}
    assert len(pool_lines(found, 2)) == len(pool_lines(found, 0))
    assert {row.device for row in growth_by_phase(found)} == {0, 2}


def test_an_older_schema_has_no_pools_and_says_so(tmp_path: Path) -> None:
    """Neither the events nor the segments name a pool: one unknown pool, and no invention."""
    value = snapshot_value(_run(), trace_pool_ids=False)
    for segment in value["segments"]:
        del segment["segment_pool_id"], segment["is_expandable"]
    for event in value["device_traces"][0]:
        del event["user_metadata"], event["time_us"]
        event.pop("frames", None)
    path = tmp_path / "old.pickle"
    path.write_bytes(pickle.dumps(value))
    found = read_memory_snapshot(path)
    assert {line.kind for line in pool_lines(found)} == {"unknown pool"}
    assert sum(line.reserved.end for line in pool_lines(found)) == found.replays[0].reserved.end
    assert growth_by_phase(found) == []
    assert "unknown" in memory_text(summarise_snapshot(found, path))


def test_pools_after_json_are_lists_and_still_pools(tmp_path: Path) -> None:
    value = snapshot_value(_run())
    for segment in value["segments"]:
        segment["segment_pool_id"] = list(segment["segment_pool_id"])
    for event in value["device_traces"][0]:
        event["pool_id"] = list(event["pool_id"])
    path = tmp_path / "json.pickle"
    path.write_bytes(pickle.dumps(value))
    assert {line.pool for line in pool_lines(read_memory_snapshot(path))} == {(0, 0), (0, 1)}


def test_another_backends_snapshot_is_refused_with_a_reason(tmp_path: Path) -> None:
    """cudaMallocAsync has no snapshot: what code dumps of it holds no segments."""
    path = tmp_path / "async.pickle"
    path.write_bytes(pickle.dumps({"allocator": "cudaMallocAsync", "stats": {"reserved": 1}}))
    with pytest.raises(UsageError, match="no memory snapshot"):
        read_memory_snapshot(path)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "bomb.pickle"
    path.write_bytes(pickle.dumps({"segments": [], "device_traces": [[Bomb()]]}))
    with pytest.raises(UsageError, match="not opened"):
        read_memory_snapshot(path)
    assert not (tmp_path / "exploded").exists()


def test_the_page_shows_streams_fragmentation_and_growth(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "a.pickle", _run())
    summary = summarise_snapshot(read_memory_snapshot(path), path)
    text = memory_text(summary)
    assert "capture 24 on 2" in text and "+27,262,976" in text
    private = [line for line in summary["pool_streams"] if line["kind"] == "private pool"]
    assert [line["stream"] for line in private] == [1, 2]
    for line in private:
        free, largest = line["retained_bytes"], line["largest_inactive_bytes"]
        assert line["fragmentation"] == pytest.approx(1 - largest / free, abs=1e-4)


def test_a_wrong_pool_would_be_noticed(tmp_path: Path) -> None:
    """The comparison with the model can fail: one event moved to another pool."""
    found = _read(tmp_path, _run())
    events = found.events[0]
    at = events.action.index("segment_alloc")
    pools = (*events.pool[:at], (0, 1), *events.pool[at + 1 :])
    wrong = replace(found, events={0: replace(events, pool=pools)})
    right = {(ln.pool, ln.stream): ln.reserved.start for ln in pool_lines(found)}
    moved = {(ln.pool, ln.stream): ln.reserved.start for ln in pool_lines(wrong)}
    assert right != moved


def test_a_diff_says_in_which_phase_pools_grew_otherwise(tmp_path: Path) -> None:
    """One handle without one stream against one with it: the third capture pays again."""

    def write(name: str, last_stream: int) -> Path:
        allocator, ids = CachingAllocator(SimulatedDriver(1 << 40)), PoolIds()
        shared = ids.handle()
        for number, stream in enumerate((1, last_stream)):
            allocator.metadata = f"capture {number}"
            with Graph(allocator, ids).capture(stream, shared):
                allocator.free(allocator.malloc(40 * MIB, stream))
        return write_snapshot(tmp_path / name, allocator)

    a, b = (read_memory_snapshot(write(n, s)) for n, s in (("a.pickle", 1), ("b.pickle", 2)))
    summaries = [summarise_snapshot(each, tmp_path / "x.pickle") for each in (a, b)]
    found = diff_memory(a, b, summaries[0], summaries[1])
    rows = {row["name"]: row["private"] for row in found.extra["growth"]}
    assert rows["capture 0"] == {"a": 40 * MIB, "b": 40 * MIB, "delta": 0}
    assert rows["capture 1"] == {"a": 0, "b": 40 * MIB, "delta": 40 * MIB}
    assert any("1 of 2 phases, most in 'capture 1'" in note for note in found.notes)
    same = diff_memory(a, a, summaries[0], summaries[0])
    assert not any("grow otherwise" in note for note in same.notes)
