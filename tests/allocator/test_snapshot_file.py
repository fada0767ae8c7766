"""What the model writes is a memory snapshot: for our reader and for PyTorch's viewer."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.allocator_checks import check

from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.layer_stack import Knobs, Stack, capture_all
from common.allocator.model import CachingAllocator, OutOfMemory
from common.allocator.settings import MIB, Settings
from common.allocator.snapshot_file import snapshot, write_snapshot
from common.allocator.validate import validate
from common.traces.memory_snapshot import read_memory_snapshot
from common.traces.memory_summary import summary

FRAMES = ({"name": "forward", "filename": "model.py", "line": 7},)


def _busy(text: str = "", device: int = 0) -> CachingAllocator:
    """A bit of everything: pools, streams, waiting blocks, failures, frames."""
    allocator = CachingAllocator(SimulatedDriver(200 * MIB), Settings.from_text(text), device)
    ids = PoolIds()
    kept = [allocator.malloc(size, frames=FRAMES) for size in (100, 3 * MIB, 700_000)]
    shared = allocator.malloc(5 * MIB)
    with Graph(allocator, ids).capture(1, ids.handle()):
        allocator.metadata = "capture bs=8"
        allocator.malloc(12 * MIB, stream=1)
        allocator.free(allocator.malloc(30 * MIB, stream=1))
        allocator.metadata = ""
    with Graph(allocator, ids).capture(2):
        allocator.malloc(1000, stream=2)
    allocator.record_stream(shared, 9)
    allocator.free(shared)
    allocator.free(kept[0])
    with pytest.raises(OutOfMemory):
        allocator.malloc(500 * MIB)
    shared = allocator.malloc(6 * MIB)
    allocator.record_stream(shared, 9)
    allocator.free(shared)
    check(allocator)
    return allocator


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
@pytest.mark.parametrize("trace_pool_ids", [True, False])
def test_totals_read_back_equal_the_models_counters(
    tmp_path: Path, text: str, trace_pool_ids: bool
) -> None:
    allocator = _busy(text)
    path = write_snapshot(tmp_path / "a.pickle", allocator, trace_pool_ids=trace_pool_ids)
    found = read_memory_snapshot(path)
    assert found.warnings == ()
    held, counters = found.holdings(), allocator.counters
    assert held.reserved_bytes == counters.reserved
    assert held.allocated_bytes == counters.allocated
    assert held.active_bytes == counters.active
    for row in allocator.totals():
        part = found.holdings(pool=row.pool, stream=row.stream)
        assert part.reserved_bytes == row.now["reserved_bytes"]
        assert part.allocated_bytes == row.now["allocated_bytes"]
        assert part.active_bytes == row.now["active_bytes"]
    replay = found.replays[0]
    assert replay.reserved.start == 0 and replay.reserved.end == counters.reserved
    assert replay.reserved.peak == counters.peak_reserved
    # Requested bytes of active blocks: the model's own peak, found again from the events alone.
    assert replay.active.peak == counters.peak_requested
    assert replay.active.end == counters.requested
    assert replay.allocated.contradictions == 0
    assert {p for p in found.pools() if p != (0, 0)} == {(0, 1), (1, 0)}
    assert [failure.requested_bytes for failure in found.out_of_memory] == [500 * MIB]


@pytest.mark.parametrize("text", ["", "roundup_power2_divisions:4"])
def test_the_model_predicts_its_own_recording_from_any_moment_on(tmp_path: Path, text: str) -> None:
    """The same check that recordings of real runs get, private pools included."""
    allocator = CachingAllocator(SimulatedDriver(1 << 40), Settings.from_text(text), max_entries=60)
    capture_all(Stack(layers=3), Knobs(share_pool=True, warm_up="default pool"), allocator)
    for trace_pool_ids in (True, False):
        path = write_snapshot(tmp_path / "a.pickle", allocator, trace_pool_ids=trace_pool_ids)
        found = validate(read_memory_snapshot(path))
        assert found.allocations > 10 and found.exact == found.allocations
        assert found.end_is_equal


def test_the_keys_are_those_of_pytorch(tmp_path: Path) -> None:
    value = snapshot(_busy())
    assert list(value) == [
        "segments",
        "device_traces",
        "allocator_settings",
        "external_annotations",
    ]
    assert list(value["segments"][0]) == [
        *("device", "address", "total_size", "allocated_size", "active_size", "requested_size"),
        *("stream", "segment_type", "segment_pool_id", "is_expandable", "frames", "blocks"),
    ]
    block = {"address", "size", "requested_size", "state", "frames"}
    assert all(set(b) == block for s in value["segments"] for b in s["blocks"])
    for event in value["device_traces"][0]:
        expected = {"action", "size", "stream", "compile_context", "user_metadata", "time_us"}
        expected |= {"pool_id", "device_free" if event["action"] == "oom" else "addr"}
        assert set(event) - {"frames"} == expected
    times = [event["time_us"] for event in value["device_traces"][0]]
    assert times == sorted(set(times))
    older = snapshot(_busy(), trace_pool_ids=False)
    assert not any("pool_id" in event for event in older["device_traces"][0])


def test_the_settings_are_those_of_a_recorded_file(real_data: Path) -> None:
    import gzip

    with gzip.open(real_data / "memory/medium_128_inference.pickle.gz") as file:
        recorded: dict[str, Any] = pickle.load(file)
    assert list(snapshot(_busy())["allocator_settings"].items()) == list(
        recorded["allocator_settings"].items()
    )


def test_event_sizes_are_requested_and_block_sizes_rounded() -> None:
    """The trap of the schema: a timeline of the events under-counts what is reserved."""
    allocator = CachingAllocator(SimulatedDriver(1 << 30))
    allocator.malloc(1000)
    value = snapshot(allocator)
    alloc = next(e for e in value["device_traces"][0] if e["action"] == "alloc")
    block = next(b for b in value["segments"][0]["blocks"] if b["state"] == "active_allocated")
    assert (alloc["size"], block["size"], block["requested_size"]) == (1000, 1024, 1000)


def test_every_state_of_a_block_is_written() -> None:
    value = snapshot(_busy())
    states = {b["state"] for s in value["segments"] for b in s["blocks"]}
    assert states == {"active_allocated", "active_pending_free", "inactive"}


def test_frames_metadata_and_annotations_are_kept(tmp_path: Path) -> None:
    notes = [(0, 1, "capture bs=8", "START"), (0, 9, "capture bs=8", "END")]
    path = write_snapshot(tmp_path / "a.pickle", _busy(), annotations=notes)
    found = read_memory_snapshot(path)
    assert {b.stack.label for b in found.live_at() if b.stack} == {"model.py:forward"}
    assert [(a.time_us, a.name, a.stage) for a in found.annotations] == [n[1:] for n in notes]
    events = pickle.loads(path.read_bytes())["device_traces"][0]
    assert {e["user_metadata"] for e in events} == {"", "capture bs=8"}


def test_several_devices_are_one_snapshot(tmp_path: Path) -> None:
    first, third = _busy(), _busy(device=2)
    found = read_memory_snapshot(write_snapshot(tmp_path / "a.pickle", third, first))
    assert found.devices == (0, 2)
    assert found.holdings(device=2).reserved_bytes == third.counters.reserved
    assert summary(found)["peak_reserved_bytes"] == 2 * first.counters.peak_reserved


def test_the_pickle_holds_plain_data_only(tmp_path: Path) -> None:
    data = write_snapshot(tmp_path / "a.pickle", _busy()).read_bytes()
    names = {op.name for op, _, _ in pickletools.genops(data)}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "INST", "OBJ"}


def test_pytorchs_viewer_opens_it(tmp_path: Path) -> None:
    """Its own command line: texts and the pages of the trace and of the segments."""
    path = write_snapshot(tmp_path / "a.pickle", _busy())
    code = """
import pickle, sys
from torch.cuda import _memory_viz as viz
data = pickle.load(open(sys.argv[1], "rb"))
print(len(viz.segsum(data)), len(viz.trace(data)), len(viz.trace_plot(data)))
print(len(viz.segment_plot(data)))
print(viz.segsum(data))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sizes = [int(n) for n in done.stdout.split()[:4]]
    assert all(size > 500 for size in sizes)


def test_the_model_needs_no_torch() -> None:
    code = (
        "import importlib, pkgutil, sys, common.allocator as a\n"
        "for m in pkgutil.iter_modules(a.__path__):\n"
        "    importlib.import_module(f'common.allocator.{m.name}')\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
