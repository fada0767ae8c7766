"""The replay against a naive model of an allocator that knows the whole truth."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

from helpers.snapshots import block, event, segment, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from common.traces.memory_live import group_live
from common.traces.memory_snapshot import MemorySnapshot, read_memory_snapshot
from common.traces.memory_summary import summary

BASE, STRIDE = 1 << 40, 1 << 20


def _read(data: bytes) -> MemorySnapshot:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "snapshot.pickle"
        file.write_bytes(data)
        return read_memory_snapshot(file)


@st.composite
def runs(
    draw: st.DrawFn,
) -> tuple[list[dict[str, Any]], list[dict[int, int]], list[dict[int, int]]]:
    """Events, and after each (first: before any) what is allocated and what is active.

    Addresses are reused as soon as they are free, and a free is completed at once or later.
    """
    allocated: dict[int, int] = {}
    waiting: dict[int, int] = {}
    history: list[dict[str, Any]] = []
    states = [dict(allocated)]
    actives = [{**allocated, **waiting}]

    def note(action: str, address: int, size: int) -> None:
        history.append(event(action, address, size))
        states.append(dict(allocated))
        actives.append({**allocated, **waiting})

    for _ in range(draw(st.integers(0, 40))):
        free = [a for a in range(6) if a not in allocated and a not in waiting]
        choices = ["alloc"] * bool(free) + ["free"] * bool(allocated) + ["done"] * bool(waiting)
        what = draw(st.sampled_from(choices))
        if what == "alloc":
            address, size = draw(st.sampled_from(free)), draw(st.integers(0, STRIDE))
            allocated[address] = size
            note("alloc", BASE + address * STRIDE, size)
        elif what == "free":
            address = draw(st.sampled_from(sorted(allocated)))
            size = waiting[address] = allocated.pop(address)
            note("free_requested", BASE + address * STRIDE, size)
        else:
            address = draw(st.sampled_from(sorted(waiting)))
            size = waiting.pop(address)
            note("free_completed", BASE + address * STRIDE, size)
    return history, states, actives


def _pickled(
    history: list[dict[str, Any]], allocated: dict[int, int], active: dict[int, int]
) -> bytes:
    blocks = [
        block(
            BASE + address * STRIDE,
            STRIDE,
            "active_allocated"
            if address in allocated
            else "active_pending_free"
            if address in active
            else "inactive",
            requested_size=active.get(address, 0),
        )
        for address in range(6)
    ]
    return pickle.dumps(snapshot([segment(BASE, blocks)], history))


@settings(max_examples=150, deadline=None)
@given(runs(), st.data())
def test_a_history_that_begins_anywhere_gives_the_true_levels(
    run: tuple[list[dict[str, Any]], list[dict[int, int]], list[dict[int, int]]],
    data: st.DataObject,
) -> None:
    history, states, actives = run
    begin = data.draw(st.integers(0, len(history)))
    found = _read(_pickled(history[begin:], states[-1], actives[-1]))
    for level, truth in (
        (found.replays[0].allocated, states[begin:]),
        (found.replays[0].active, actives[begin:]),
    ):
        totals = [sum(state.values()) for state in truth]
        assert (level.start, level.end) == (totals[0], totals[-1])
        assert (level.peak, level.lowest) == (max(totals), min(totals))
        assert level.peak_event == totals.index(max(totals)) - 1
        assert level.start_blocks == len(truth[0])
        assert level.contradictions == 0
    moment = data.draw(st.integers(-1, len(history) - begin - 1))
    for quantity, truth in (("allocated", states), ("active", actives)):
        live = found.live_at(0, moment, quantity)  # type: ignore[arg-type]
        expected = {BASE + a * STRIDE: size for a, size in truth[begin + moment + 1].items()}
        assert {b.address: b.bytes for b in live} == expected
        assert sum(g.bytes for g in group_live(live)) == sum(expected.values())


@settings(max_examples=100, deadline=None)
@given(runs(), st.data())
def test_losing_any_event_is_noticed_or_harmless(
    run: tuple[list[dict[str, Any]], list[dict[int, int]], list[dict[int, int]]],
    data: st.DataObject,
) -> None:
    """An event that is left out makes the end wrong for the replay: never a silent wrong end."""
    history, states, actives = run
    if not history:
        return
    lost = data.draw(st.integers(0, len(history) - 1))
    found = _read(_pickled(history[:lost] + history[lost + 1 :], states[-1], actives[-1]))
    replay = found.replays[0]
    end = sum(states[-1].values())
    assert replay.allocated.end == end or replay.allocated.contradictions


@settings(max_examples=150, deadline=None)
@given(runs(), st.data())
def test_a_file_that_is_cut_or_corrupted_anywhere_never_gives_a_traceback(
    run: tuple[list[dict[str, Any]], list[dict[int, int]], list[dict[int, int]]],
    data: st.DataObject,
) -> None:
    history, states, actives = run
    whole = bytearray(_pickled(history, states[-1], actives[-1]))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        summary(_read(cut))
    except UsageError as error:
        assert "\n" not in str(error)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
row = st.dictionaries(
    st.sampled_from(
        [
            *("device", "address", "total_size", "blocks", "size", "state", "action", "addr"),
            *("frames", "pool_id", "segment_pool_id", "stream", "time_us", "history", "name"),
        ]
    ),
    plain | st.sampled_from(["alloc", "oom", "free_completed", "active_allocated", (0, 1)]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(row | plain, max_size=4), st.lists(st.lists(row | plain, max_size=5), max_size=3))
def test_wrong_types_anywhere_are_counted_or_refused(
    segments: list[Any], traces: list[Any]
) -> None:
    try:
        summary(_read(pickle.dumps(snapshot(segments, *traces))))
    except UsageError as error:
        assert "\n" not in str(error)
