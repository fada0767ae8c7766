"""Two snapshots: every byte of the peak's change has a holder, and addresses mean nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.known_facts import files_of, known_facts, pairs_of
from helpers.snapshots import MIB, block, event, frame, freed, segment, snapshot, write

from common.diff.difference import Difference, Row, Status, Tier
from common.diff.memory import diff_memory
from common.errors import UsageError
from common.traces.memory_snapshot import read_memory_snapshot
from common.traces.memory_summary import summarise_snapshot

Event = dict[str, Any]


def diff_files(a: Path, b: Path, by: str | None = None) -> Difference:
    left, right = read_memory_snapshot(a), read_memory_snapshot(b)
    summaries = summarise_snapshot(left, a), summarise_snapshot(right, b)
    return diff_memory(left, right, *summaries, by=by)


def diff_values(folder: Path, a: object, b: object, by: str | None = None) -> Difference:
    return diff_files(write(folder, a, "a.pickle"), write(folder, b, "b.pickle"), by)


def closes(found: Difference) -> bool:
    """Each side by itself, too: rows and remainders are the whole peak."""
    parts = [*found.rows, *found.remainders]
    return (
        found.residual == 0
        and sum(p.a for p in parts) == found.total_a
        and sum(p.b for p in parts) == found.total_b
    )


def sides(rows: tuple[Row, ...]) -> Counter[tuple[Any, ...]]:
    return Counter((r.name, r.name_b, r.path, r.tier, r.a, r.b, r.count_a, r.count_b) for r in rows)


def swapped(rows: tuple[Row, ...]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (r.name_b or r.name, r.name_b and r.name, r.path, r.tier, r.b, r.a, r.count_b, r.count_a)
        for r in rows
    )


@pytest.mark.parametrize("pair", pairs_of("memory"))
@pytest.mark.parametrize("by", ["stack", "pool", "size", "operator"])
def test_every_real_pair_closes_to_the_byte(real_data: Path, pair: str, by: str) -> None:
    fact = known_facts()["pairs"][pair]
    files = known_facts()["files"]
    found = diff_files(real_data / fact["a"], real_data / fact["b"], by)
    assert found.delta == fact["delta"]["peak_allocated"]
    assert found.total_a == files[fact["a"]]["replay_by_device"]["0"]["allocated"]["peak"]
    assert closes(found) and not found.remainders
    reserved = found.extra["reserved"]
    assert reserved["delta"] == fact["delta"]["reserved"]
    assert reserved["delta"] == sum(row["delta"] for row in reserved["rows"])
    assert (
        sum(pool["delta"]["active_bytes"] for pool in found.extra["pools"])
        == (fact["delta"]["active"])
    )
    for section in ("peak_by_stack", "peak_by_size"):
        assert sum(row["delta"] for row in found.extra[section]) == found.delta
    assert json.loads(json.dumps(found.to_json()))["residual"] == 0
    assert found.judgement.verdict == "AMBIGUOUS"
    back = diff_files(real_data / fact["b"], real_data / fact["a"], by)
    assert back.delta == -found.delta
    assert sides(back.rows) == swapped(found.rows)


@pytest.mark.parametrize("file", files_of("memory"))
def test_a_file_against_itself_is_the_same(real_data: Path, file: str) -> None:
    found = diff_files(real_data / file, real_data / file)
    assert found.delta == 0 and closes(found)
    assert not [row for row in found.rows if row.delta or row.status is not Status.BOTH]
    assert found.judgement.verdict == "SAME"
    assert found.extra["reserved"]["delta"] == 0


def test_a_reader_learns_what_made_the_peak_grow(real_data: Path) -> None:
    folder = real_data / "memory"
    found = diff_files(
        folder / "medium_128_inference.pickle.gz", folder / "medium_1024_inference.pickle.gz"
    )
    assert found.notes[0].startswith("Peak +1,140.5 MB (1,737.0 MB to 2,877.4 MB)")
    assert "inside model.py:scaled_dot_product_attention" in found.notes[0]
    assert any(note.startswith("Reserved bytes") and "+1,440.7 MB" in note for note in found.notes)
    smaller = diff_files(
        folder / "xl_fwd_cl512_fp32.pickle.gz", folder / "xl_fwd_cl512_bf16.pickle.gz"
    )
    assert smaller.notes[1].startswith("Against that, +")


# One program, drawn at random: allocations from a few stacks, in order, some of them freed.


def program(seed: int, place: random.Random | None = None, pool: Any = (0, 0)) -> dict[str, Any]:
    draw = random.Random(seed)
    slots = list(range(60))
    if place is not None:
        place.shuffle(slots)
    base = 1 << 40
    events: list[Event] = []
    live: dict[int, tuple[int, list[Event]]] = {}
    for slot in slots[:40]:
        address = base + slot * 64 * MIB
        size = draw.choice([700, 4096, MIB, 5 * MIB + 1, 33 * MIB])
        frames = [frame(draw.choice("fgh"), line=draw.randrange(3)), frame("main")]
        events.append(event("alloc", address, size, frames=frames))
        live[address] = (size, frames)
        if draw.random() < 0.4:
            gone = draw.choice(list(live))
            events += freed(gone, live.pop(gone)[0])
    blocks = [block(a, size, frames=frames) for a, (size, frames) in live.items()]
    segments = [segment(b["address"], [b], segment_pool_id=pool) for b in blocks]
    return snapshot(segments, events)


@pytest.mark.parametrize("seed", range(5))
def test_other_addresses_change_nothing(tmp_path: Path, seed: int) -> None:
    found = diff_values(tmp_path, program(seed), program(seed, random.Random(seed + 100)))
    assert found.total_a > 0 and found.delta == 0 and closes(found)
    assert not [row for row in found.rows if row.delta]
    assert {row.tier for row in found.rows} == {Tier.EXACT}
    assert found.judgement.verdict == "SAME"


@pytest.mark.parametrize("seed", range(5))
def test_two_programs_close_and_mirror(tmp_path: Path, seed: int) -> None:
    a, b = program(seed), program(seed + 1000)
    found, back = diff_values(tmp_path, a, b), diff_values(tmp_path, b, a)
    assert closes(found) and found.delta == -back.delta
    assert sides(back.rows) == swapped(found.rows)


A, B, C = 1 << 40, 2 << 40, 3 << 40


def held(*rows: tuple[int, int, list[Event], Any]) -> dict[str, Any]:
    """A snapshot whose history allocates (address, bytes, frames, pool) and frees nothing."""
    segments = [
        segment(a, [block(a, size, frames=frames)], segment_pool_id=pool)
        for a, size, frames, pool in rows
    ]
    events = [event("alloc", a, size, frames=frames) for a, size, frames, _ in rows]
    return snapshot(segments, events)


def test_moving_an_allocation_to_another_pool_moves_exactly_these_bytes(tmp_path: Path) -> None:
    stays, moves = [frame("stays")], [frame("moves")]
    before = held((A, 7 * MIB, stays, (0, 0)), (B, 3 * MIB + 5, moves, (0, 0)))
    after = held((A, 7 * MIB, stays, (0, 0)), (C, 3 * MIB + 5, moves, (0, 4)))
    found = diff_values(tmp_path, before, after)
    changed = sorted((row.path, row.delta, row.tier) for row in found.rows if row.delta)
    assert changed == [
        ("default pool", -3 * MIB - 5, Tier.UNMATCHED),
        ("private pool", 3 * MIB + 5, Tier.UNMATCHED),
    ]
    assert found.delta == 0 and found.judgement.verdict == "SAME"
    assert "though 2 rows" in " ".join(found.judgement.reasons)
    pools = diff_values(tmp_path, before, after, by="pool").rows
    assert {row.name: row.delta for row in pools} == {
        "default pool": -3 * MIB - 5,
        "private pool": 3 * MIB + 5,
    }
    assert {child.path for row in pools for child in row.children} == {row.name for row in pools}


def test_a_pools_own_number_means_nothing(tmp_path: Path) -> None:
    frames = [frame("captured")]
    found = diff_values(tmp_path, held((A, MIB, frames, (0, 3))), held((A, MIB, frames, (0, 11))))
    assert [row.delta for row in found.rows] == [0]
    (pool,) = found.extra["pools"]
    assert pool["kind"] == "private pool" and pool["delta"]["reserved_bytes"] == 0
    assert [own["rank"] for own in pool["pools"]] == [1]


def test_edited_lines_match_by_function_and_the_tier_says_so(tmp_path: Path) -> None:
    def at(*lines: int) -> dict[str, Any]:
        rows = [
            ((i + 1) << 40, (4 << i) * MIB, [frame("forward", line=line)], (0, 0))
            for i, line in enumerate(lines)
        ]
        return held(*rows)

    moved = diff_values(tmp_path, at(10, 12), at(12, 14))
    assert [(row.delta, row.tier) for row in moved.rows] == [(0, Tier.NORMALISED)] * 2
    assert moved.rows[0].name_b is not None and "model.py:14" in moved.rows[0].name_b
    other_file = diff_values(
        tmp_path,
        held((A, MIB, [frame("forward", "/a/model.py", 5)], (0, 0))),
        held((A, 2 * MIB, [frame("forward", "/b/net.py", 9)], (0, 0))),
    )
    assert [(row.delta, row.tier) for row in other_file.rows] == [(MIB, Tier.NORMALISED)]


def test_a_shape_that_grows_stays_one_row_per_line(tmp_path: Path) -> None:
    def sized(factor: int) -> dict[str, Any]:
        rows = [
            ((i + 1) << 40, factor * (i + 1) * MIB, [frame("forward", line=i)], (0, 0))
            for i in (1, 2, 3)
        ]
        return held(*rows)

    found = diff_values(tmp_path, sized(1), sized(8))
    assert sorted((row.a // MIB, row.b // MIB) for row in found.rows) == [(2, 16), (3, 24), (4, 32)]
    assert {row.tier for row in found.rows} == {Tier.EXACT}


def test_equal_stacks_are_one_row_and_counted(tmp_path: Path) -> None:
    frames = [frame("layer")]
    one = held((A, MIB, frames, (0, 0)))
    three = held(*((a, MIB, [frame("layer")], (0, 0)) for a in (A, B, C)))
    (row,) = diff_values(tmp_path, one, three).rows
    assert (row.count_a, row.count_b, row.delta) == (1, 3, 2 * MIB)
    assert (row.count_effect, row.duration_effect) == (2 * MIB, 0)


def test_blocks_from_before_the_history_and_without_frames_have_rows(tmp_path: Path) -> None:
    old = snapshot(
        [segment(A, [block(A, MIB)]), segment(B, [block(B, 5 * MIB, "inactive")])],
        [*freed(B, 5 * MIB), event("alloc", C, 100), *freed(C, 100)],
    )
    new = snapshot(
        [segment(A, [block(A, MIB)]), segment(B, [block(B, 3 * MIB)])],
        [event("alloc", B, 3 * MIB)],
    )
    found = diff_values(tmp_path, old, new)
    assert closes(found) and (found.total_a, found.total_b) == (6 * MIB, 4 * MIB)
    names = {row.name: (row.a, row.b, row.tier) for row in found.rows}
    assert names == {
        "allocated before the history began · blocks <= 8 MiB": (5 * MIB, 0, Tier.UNMATCHED),
        "allocated before the history began · blocks <= 1 MiB": (MIB, MIB, Tier.POSITION),
        "no frames recorded · blocks <= 4 MiB": (0, 3 * MIB, Tier.UNMATCHED),
    }
    assert any("no event has stack frames" in warning for warning in found.warnings)


def test_empty_snapshots(tmp_path: Path) -> None:
    empty = snapshot([], [])
    same = diff_values(tmp_path, empty, empty)
    assert same.delta == 0 and not same.rows and same.judgement.verdict == "SAME"
    assert "A: the snapshot is empty: no segment and no event" in same.warnings
    found = diff_values(tmp_path, empty, held((A, MIB, [frame("f")], (0, 0))))
    assert closes(found) and [row.status for row in found.rows] == [Status.ADDED]
    without = held((A, MIB, [frame("f")], (0, 0)))["segments"]
    no_history = diff_values(tmp_path, without, snapshot(without, []))
    assert no_history.delta == 0 and closes(no_history) and no_history.total_a == MIB


def test_several_devices_add_up_and_are_told_apart(tmp_path: Path) -> None:
    def on(*sizes: int) -> dict[str, Any]:
        segments = [segment(A + i, [block(A + i, size)], device=i) for i, size in enumerate(sizes)]
        traces = [
            [event("alloc", A + i, size, frames=[frame("f")])] for i, size in enumerate(sizes)
        ]
        return snapshot(segments, *traces)

    found = diff_values(tmp_path, on(MIB, MIB), on(MIB, 2 * MIB))
    assert found.total_b == 3 * MIB and closes(found)
    assert {row.path: row.delta for row in found.rows} == {
        "device 0 / default pool": 0,
        "device 1 / default pool": MIB,
    }
    # The same program on another GPU of the machine: one device each, so the number is no matter.
    other = snapshot(
        [segment(A, [block(A, MIB)], device=1)], [], [event("alloc", A, MIB, frames=[frame("f")])]
    )
    moved = diff_values(tmp_path, on(MIB), other)
    assert moved.delta == 0 and not [row for row in moved.rows if row.delta]


def test_events_that_contradict_the_blocks_are_a_named_remainder(tmp_path: Path) -> None:
    frames = [frame("f")]
    wrong = held((A, MIB, frames, (0, 0)))
    wrong["device_traces"][0] += [event("alloc", A, MIB, frames=frames)] * 2
    found = diff_values(tmp_path, held((A, MIB, frames, (0, 0))), wrong)
    assert closes(found)
    (rest,) = found.remainders
    assert rest.name == "device 0: events that contradict its blocks" and rest.delta == 2 * MIB
    assert any("contradict" in warning for warning in found.warnings)


def test_a_file_cut_within_its_history_has_no_peak_to_compare(tmp_path: Path) -> None:
    whole = write(tmp_path, program(1), "whole.pickle")
    cut = tmp_path / "cut.pickle"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(UsageError, match="peak is unknown; record or copy"):
        diff_files(whole, cut)


def test_a_device_whose_history_is_cut_is_a_named_remainder(tmp_path: Path) -> None:
    def on_two(events: int) -> dict[str, Any]:
        frames = [frame("f")]
        traces = [
            [event("alloc", A + i, MIB, frames=frames)]
            + [row for k in range(events) for row in (event("alloc", C + k, 9), *freed(C + k, 9))]
            for i in (0, 1)
        ]
        segments = [segment(A + i, [block(A + i, MIB)], device=i) for i in (0, 1)]
        return snapshot(segments, *traces)

    whole = write(tmp_path, on_two(50), "whole.pickle")
    cut = tmp_path / "cut.pickle"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size - 2000])
    found = diff_files(whole, cut)
    assert closes(found) and found.total_b == MIB + 9
    (rest,) = found.remainders
    assert rest.name == "device 1: cut short on the other side, its peak is unknown"
    assert (rest.a, rest.b) == (MIB + 9, 0)
    assert found.judgement.verdict == "AMBIGUOUS"
    assert closes(diff_files(cut, whole)) and diff_files(cut, whole).delta == -found.delta
    assert diff_files(cut, cut).delta == 0


def test_an_unknown_way_to_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one of: stack, pool, size, operator"):
        diff_values(tmp_path, program(1), program(1), by="kernel")


def test_phases_failures_and_pinned_pools_have_sections(tmp_path: Path) -> None:
    def marks(*rows: tuple[str, str, int]) -> list[Event]:
        return [{"device": 0, "time_us": t, "name": n, "stage": s} for n, s, t in rows]

    def run(size: int) -> dict[str, Any]:
        events = [
            event("alloc", A, size, time_us=10),
            *[{**row, "time_us": 20} for row in freed(A, size)],
            event("alloc", B, MIB, time_us=40),
            {"action": "oom", "size": 9 * MIB, "device_free": 5, "stream": 0, "time_us": 50},
        ]
        segments = [
            segment(A, [block(A, size, "inactive")], segment_pool_id=(0, 2)),
            segment(B, [block(B, MIB)]),
        ]
        found = marks(("forward", "START", 5), ("forward", "END", 25), ("update", "START", 30))
        return snapshot(segments, events, external_annotations=found)

    found = diff_values(tmp_path, run(4 * MIB), run(6 * MIB))
    assert {p["name"]: (p["a"], p["b"], p["delta"]) for p in found.extra["phases"]} == {
        "forward": (4 * MIB, 6 * MIB, 2 * MIB),
        "update": (MIB, MIB, 0),
    }
    assert found.extra["out_of_memory"]["a"]["largest"][0]["requested_bytes"] == 9 * MIB
    kept = found.extra["private_pools_retained"]
    assert kept == {"a": 4 * MIB, "b": 6 * MIB, "delta": 2 * MIB}
    assert any("what CUDA graphs pin" in note for note in found.notes)
    (timeline,) = found.extra["timeline"]["b"]
    assert max(size for _, size in timeline["points"]) == found.total_b


def test_known_devices_that_differ_are_not_comparable(tmp_path: Path) -> None:
    path = write(tmp_path, program(1))
    own = read_memory_snapshot(path)
    side = summarise_snapshot(own, path)
    other = {**side, "devices": [{"id": 0, "name": "H200"}]}
    mine = {**side, "devices": [{"id": 0, "name": "B200"}]}
    found = diff_memory(own, own, mine, other)
    assert found.judgement.verdict == "NOT_COMPARABLE" and found.rows
    assert diff_memory(own, own, side, other).judgement.verdict == "SAME"
