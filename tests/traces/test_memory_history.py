"""The fast ways to read and replay a history, against the plain definition of what they give."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.snapshots import block, event, frame, segment, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from common.traces.memory_columns import ADDRESSED, MAX_SIZE_BYTES, SIZED, Reading, is_number
from common.traces.memory_events import read_events
from common.traces.memory_model import Events
from common.traces.memory_replay import FREE_ACTION, levels_after, start_state
from common.traces.memory_snapshot import read_memory_snapshot
from common.traces.memory_stacks import MAX_ALIKE, Stack, StackTable

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 7, 1.5, 1 << 50, (1 << 50) + 1, (1 << 63) - 1, 1 << 63, 1 << 70),
    *("", "text", [], [1, 2], (0, 1), (True, 1), (0, -1), (0, 1, 2), {}),
)
FIELDS = ("addr", "size", "stream", "time_us", "pool_id", "user_metadata", "frames")
ACTIONS = ("alloc", "free_requested", "free_completed", "segment_alloc", "oom", "later", 3, None)


@st.composite
def rows(draw: st.DrawFn) -> list[Any]:
    """Mostly events as torch writes them; some with odd or missing fields, some no events."""
    made: list[Any] = []
    for _ in range(draw(st.integers(0, 12))):
        row: dict[str, Any] = {
            **event(draw(st.sampled_from(ACTIONS[:4])), draw(st.integers(0, 3)) * 512, 512),
            "time_us": len(made),
            "pool_id": (0, draw(st.integers(0, 1))),
            "user_metadata": draw(st.sampled_from(("", "capture"))),
        }
        if draw(st.integers(0, 3)) == 0:
            row[draw(st.sampled_from(FIELDS))] = draw(st.sampled_from(ODD))
        if draw(st.integers(0, 5)) == 0:
            row.pop(draw(st.sampled_from(FIELDS)), None)
        if draw(st.integers(0, 7)) == 0:
            row["action"] = draw(st.sampled_from(ACTIONS))
        made.append(row if draw(st.integers(0, 15)) else draw(st.sampled_from(ODD)))
    return made


def _readable(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("action"), str):
        return False
    if row["action"] in SIZED and not is_number(row.get("size"), high=MAX_SIZE_BYTES):
        return False
    return row["action"] not in ADDRESSED or is_number(row.get("addr"))


def _number(row: dict[str, Any], key: str) -> int:
    return row[key] if is_number(row.get(key)) else -1


def _pool(row: dict[str, Any]) -> object:
    pool = row.get("pool_id")
    pair = isinstance(pool, (tuple, list)) and len(pool) == 2 and all(map(is_number, pool))
    return tuple(pool) if pair and pool is not None else None


@settings(max_examples=200, deadline=None)
@given(rows())
def test_columns_are_what_the_rows_say(raw: list[Any]) -> None:
    reading = Reading(1 << 20)
    found = read_events(raw, reading)
    kept = [(i, row) for i, row in enumerate(raw) if _readable(row)]
    assert reading.unreadable["events"] == len(raw) - len(kept)
    assert found.position.tolist() == [i for i, _ in kept]
    assert found.action == tuple(row["action"] for _, row in kept)
    expected = [row["addr"] if row["action"] in ADDRESSED else -1 for _, row in kept]
    assert found.address.tolist() == expected
    expected = [row["size"] if row["action"] in SIZED else 0 for _, row in kept]
    assert found.bytes.tolist() == expected
    assert found.stream.tolist() == [_number(row, "stream") for _, row in kept]
    assert found.time_us.tolist() == [_number(row, "time_us") for _, row in kept]
    assert found.pool == tuple(_pool(row) for _, row in kept)
    texts = [row.get("user_metadata") for _, row in kept]
    assert found.metadata == tuple(t if isinstance(t, str) else "" for t in texts)
    assert {type(n) for pool in found.pool if pool for n in pool} <= {int}


def _walked(events: Events, end: dict[int, int], free: str) -> tuple[dict[int, int], int]:
    """The definition: back from the dump, an alloc removes its block, a free puts it back."""
    live, wrong = dict(end), 0
    for i in reversed(range(len(events))):
        address, size = int(events.address[i]), int(events.bytes[i])
        if events.action[i] == "alloc":
            wrong += live.pop(address, None) != size
        elif events.action[i] == free:
            wrong += address in live
            live[address] = size
    return live, wrong


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ACTIONS[:4]), st.integers(0, 4), st.integers(0, 2)), max_size=25
    ),
    st.dictionaries(st.integers(0, 5), st.integers(0, 2), max_size=5),
)
def test_the_start_is_what_a_walk_back_finds(
    history: list[tuple[str, int, int]], end: dict[int, int]
) -> None:
    """Any history, also one that contradicts itself: same blocks, same count of contradictions."""
    raw: list[object] = [event(action, address, size) for action, address, size in history]
    events = read_events(raw, Reading(1 << 20))
    for free in FREE_ACTION.values():
        assert start_state(events, end, free) == _walked(events, end, free)


def test_levels_beyond_64_bits_stay_exact() -> None:
    steps = np.full(20_000, MAX_SIZE_BYTES, dtype=np.int64)
    assert int(levels_after(5, steps)[-1]) == 5 + 20_000 * MAX_SIZE_BYTES > 1 << 63
    assert int(levels_after(1 << 70, steps[:1])[-1]) == (1 << 70) + MAX_SIZE_BYTES


def _table() -> StackTable:
    return StackTable(Reading(1 << 30).spend)


def test_lists_of_the_same_frames_are_one_stack_whoever_made_them() -> None:
    shared = [frame(f"f{i}", line=i) for i in range(6)]
    copies = [list(shared), list(shared), [dict(each) for each in shared]]
    table = _table()
    assert [table.number(each) for each in copies] == [0, 0, 0]
    assert table.stacks == [Stack(tuple(f"model.py:f{i}" for i in range(5)), None, (0, 1, 2, 3, 4))]


def test_stacks_that_differ_anywhere_stay_apart() -> None:
    """More of them than are compared, alike in length and in the places that are looked at."""
    base = [frame(f"f{i}") for i in range(12)]
    lists = []
    for number in range(3 * MAX_ALIKE):
        changed = list(base)
        changed[1] = frame(f"other{number}")
        lists.append(changed)
    table = _table()
    numbers = [table.number(each) for each in lists]
    assert numbers == list(range(3 * MAX_ALIKE))
    copies = [list(each) for each in lists]  # kept: the table tells lists by their id
    assert [table.number(each) for each in copies] == numbers
    assert len(table.stacks) == 3 * MAX_ALIKE


def test_neighbours_that_share_a_list_and_events_without_frames() -> None:
    one, two = [frame("f")], [frame("g")]
    assert _table().numbers([None, one, one, [], two, None, one]).tolist() == [
        *(-1, 0, 0, -1, 1, -1, 0)
    ]  # fmt: skip


def test_frames_that_hold_each_other_without_end_cost_nothing() -> None:
    """Comparing two such towers would take 2^60 steps; recursion would end the process."""

    def tower() -> dict[str, Any]:
        inner: dict[str, Any] = {"name": "f", "filename": "m.py"}
        for _ in range(60):
            inner = {"name": inner, "filename": inner, "line": [inner, inner]}
        return inner

    table, lists = _table(), [[tower(), frame("f")] for _ in range(4)]
    began = time.process_time()
    assert [table.number(each) for each in lists] == [0, 0, 0, 0]
    assert time.process_time() - began < 1


def test_a_snapshot_of_another_backend_says_what_is_missing(tmp_path: Path) -> None:
    value = snapshot([], [])
    value["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
    path = tmp_path / "async.pickle"
    path.write_bytes(pickle.dumps(value))
    (warning,) = (w for w in read_memory_snapshot(path).warnings if "cudaMallocAsync" in w)
    assert "backend:native" in warning


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    place = Path(__file__).parent.parent / "benchmarks" / "generate_snapshot.py"
    spec = importlib.util.spec_from_file_location("generate_snapshot", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_snapshot"] = module
    spec.loader.exec_module(module)
    return module


def test_the_benchmarks_file_is_a_whole_snapshot_of_today(
    generator: ModuleType, tmp_path: Path
) -> None:
    made = generator.write_snapshot(tmp_path / "a.pickle", 30_000)
    found = read_memory_snapshot(tmp_path / "a.pickle")
    assert found.warnings == ()
    assert len(found.events[0]) == made["events"] >= 30_000
    assert set(found.pools()) == {(0, 0), (0, 1), (1, 0)}
    assert set(np.unique(found.events[0].stream).tolist()) == {0, 7, 9}
    assert set(found.actions) == {"alloc", "free_requested", "free_completed", "segment_alloc"}
    assert 150 < len(found.stacks) <= generator.STACKS
    assert {mark.name for mark in found.annotations} == {"prefill", "decode"}
    assert found.replays[0].allocated.contradictions == 0


def test_reading_costs_a_few_times_what_unpickling_costs(
    generator: ModuleType, tmp_path: Path
) -> None:
    """1M events in 8 s are about five times what the C unpickler alone takes for them."""
    path = tmp_path / "a.pickle"
    generator.write_snapshot(path, 60_000)
    data = path.read_bytes()
    ratios = []
    for _ in range(3):
        began = time.process_time()
        pickle.Unpickler(io.BytesIO(data)).load()
        bare, began = time.process_time() - began, time.process_time()
        read_memory_snapshot(path)
        ratios.append((time.process_time() - began) / bare)
    assert min(ratios) < 5


def test_the_file_pays_for_every_frame_that_is_looked_at(tmp_path: Path) -> None:
    """Lists that are not shared but repeated by reference still count once each."""
    frames = [frame("f")] * 50
    history: list[Any] = [event("alloc", 512 * i, 512, frames=frames) for i in range(500)]
    blocks = [block(512 * i, 512) for i in range(500)]
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(snapshot([segment(0, blocks)], history)))
    assert len(read_memory_snapshot(path).stacks) == 1
    with pytest.raises(UsageError, match="more elements than bytes"):
        read_events(history, Reading(520))
