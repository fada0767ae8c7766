"""The model against every recorded snapshot: which address did each allocation get?

The floor is 95 % per file; what the model reaches is written beside it. Models that are wrong on
purpose must fall under the floor, or the check would prove nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.snapshots import block, event, freed, segment, snapshot, write
from hypothesis import given, settings
from hypothesis import strategies as st

from common.allocator import validate as validation
from common.allocator.blocks import Block, FreeList
from common.allocator.driver import ALIGNMENT_BYTES
from common.allocator.model import CachingAllocator
from common.allocator.rewind import rewind
from common.allocator.settings import MIB, Settings
from common.allocator.validate import validate
from common.errors import UsageError, WorklogError
from common.traces.memory_snapshot import MemorySnapshot, read_memory_snapshot

FLOOR = 0.95
# file: allocations, of which exact, blocks at the start whose size had to be guessed
REACHED = {
    "attn_backward": (33, 33, 1),
    "attn_forward": (22, 22, 0),
    "medium_1024_inference": (1280, 1280, 0),
    "medium_128_inference": (1280, 1280, 0),
    "medium_128_training": (6526, 6526, 0),
    "medium_256_inference": (1280, 1280, 0),
    "medium_512_inference": (1666, 1666, 0),
    "small_from_empty": (36, 36, 0),
    "small_fwd_bf16": (937, 937, 0),
    "small_fwd_fp32": (681, 681, 0),
    "some_without_frames": (1721, 1721, 1),
    "xl_fwd_cl512_bf16": (2218, 2218, 0),  # expandable segments
    "xl_fwd_cl512_fp32": (1704, 1704, 0),  # expandable segments
}


def _read(real_data: Path, name: str) -> MemorySnapshot:
    return read_memory_snapshot(real_data / f"memory/{name}.pickle.gz")


def test_every_recorded_file_is_on_the_list(real_data: Path) -> None:
    assert {p.name.split(".")[0] for p in (real_data / "memory").iterdir()} == set(REACHED)


@pytest.mark.parametrize("name", REACHED)
def test_addresses_are_predicted(real_data: Path, name: str) -> None:
    found = validate(_read(real_data, name))
    assert found.share is not None and found.share >= FLOOR
    assert (found.allocations, found.exact, found.guessed_at_start) == REACHED[name]
    assert sum(found.kinds.values()) == found.allocations - found.exact
    assert found.free_running == found.allocations, "one miss would end this"
    assert found.unknown_frees == found.contradictions == found.segments_extra == 0
    assert found.end_is_equal, "all blocks of the dump: address, size, requested bytes"


@pytest.mark.parametrize("name", REACHED)
def test_segments_of_recorded_runs_begin_where_the_driver_model_puts_them(
    real_data: Path, name: str
) -> None:
    assert not (_read(real_data, name).segments.address % ALIGNMENT_BYTES).any()


def test_all_segments_of_a_run_from_an_empty_cache_are_predicted(real_data: Path) -> None:
    found = validate(_read(real_data, "small_from_empty"))
    assert (found.segments, found.segments_exact, found.segments_extra) == (9, 9, 0)
    assert found.used_at_start == 0


def test_requested_sizes_that_stay_behind_in_free_blocks_are_equal_too(real_data: Path) -> None:
    """A free block keeps the last request; so the pieces are split and joined as in the source."""
    recorded = _read(real_data, "small_from_empty")
    allocator = rewind(recorded).allocator
    for action, address, size in zip(
        recorded.events[0].action,
        recorded.events[0].address.tolist(),
        recorded.events[0].bytes.tolist(),
        strict=True,
    ):
        if action == "alloc":
            assert allocator.malloc(size) == address
        elif action == "free_completed":
            allocator.free(address)
    mine: list[tuple[int, int]] = []
    for first in allocator.first_blocks():
        at: Block | None = first
        while at is not None:
            mine.append((at.address, at.requested))
            at = at.next
    blocks = recorded.blocks
    assert mine == sorted(
        zip(blocks.address.tolist(), blocks.requested_bytes.tolist(), strict=True)
    )


# Wrong on purpose


def _largest_fits(self: CachingAllocator, home: FreeList, rounded: int) -> Block | None:
    if not home.entries or home.entries[-1][0] < rounded:
        return None
    return home.entries.pop()[2]


def _first_address_fits(self: CachingAllocator, home: FreeList, rounded: int) -> Block | None:
    fitting = [entry for entry in home.entries if entry[0] >= rounded]
    if not fitting:
        return None
    chosen = min(fitting, key=lambda entry: entry[1])
    home.entries.remove(chosen)
    return chosen[2]


def _last_address_fits(self: CachingAllocator, home: FreeList, rounded: int) -> Block | None:
    fitting = [entry for entry in home.entries if entry[0] >= rounded]
    if not fitting:
        return None
    chosen = max((e for e in fitting if e[0] == fitting[0][0]), key=lambda entry: entry[1])
    home.entries.remove(chosen)
    return chosen[2]


def _split_everything(
    self: Settings, block: int, rounded: int, small: bool, expandable: bool
) -> bool:
    return block - rounded >= 512


def _split_nothing(self: Settings, block: int, rounded: int, small: bool, expandable: bool) -> bool:
    return False


WRONG = {
    "the largest block": (CachingAllocator, "_free_fit", _largest_fits),
    "the lowest address": (CachingAllocator, "_free_fit", _first_address_fits),
    "the highest of equals": (CachingAllocator, "_free_fit", _last_address_fits),
    "large blocks split to 512 bytes": (Settings, "should_split", _split_everything),
    "nothing is split": (Settings, "should_split", _split_nothing),
}


@pytest.fixture
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    owner, name, rule = WRONG[request.param]
    monkeypatch.setattr(owner, name, rule)
    yield request.param


@pytest.mark.parametrize("wrong", WRONG, indirect=True)
def test_a_wrong_model_is_found_out(real_data: Path, wrong: str) -> None:
    """Each wrong rule falls under the floor, or ends with other blocks, in one file at least."""
    shares: dict[str, float] = {}
    ends: dict[str, bool] = {}
    for name in ("medium_128_training", "some_without_frames", "small_from_empty"):
        found = validate(_read(real_data, name))
        shares[name], ends[name] = found.share or 0.0, found.end_is_equal
        assert sum(found.kinds.values()) == found.allocations - found.exact
    assert min(shares.values()) < FLOOR or not all(ends.values()), (wrong, shares)


def test_joining_nothing_is_found_out(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.allocator import model

    monkeypatch.setattr(model, "merge_neighbour", lambda block, neighbour: None)
    found = validate(_read(real_data, "small_fwd_bf16"))
    assert found.share is not None and found.share < FLOOR and not found.end_is_equal


# Synthetic: what the public files do not have

A, B = 1 << 40, 1 << 41


def _validated(tmp_path: Path, value: dict[str, Any]) -> validation.Validation:
    return validate(read_memory_snapshot(write(tmp_path, value)))


def test_classes_of_misses_are_told_apart(tmp_path: Path) -> None:
    """A recording that no allocator would make: each event breaks one rule."""
    free = [block(A, 20 * MIB, "inactive")]
    end = [
        segment(A, free),
        segment(B, [block(B, 30 * MIB), block(B + 30 * MIB, 10 * MIB, "inactive")]),
    ]
    found = _validated(tmp_path, snapshot(end, [event("alloc", B, 30 * MIB)]))
    assert found.exact == 1
    end[1] = segment(B, [block(B, 12 * MIB), block(B + 12 * MIB, 28 * MIB, "inactive")])
    larger = _validated(tmp_path, snapshot(end, [event("alloc", B, 12 * MIB)]))
    assert larger.kinds == {validation.SMALLER: 1}
    assert larger.end_is_equal  # moved to where the recording has it
    end[1] = segment(B, [block(B, 20 * MIB)])
    tie = _validated(tmp_path, snapshot(end, [event("alloc", B, 20 * MIB)]))
    assert tie.kinds == {validation.TIE: 1} and tie.end_is_equal
    nowhere = [event("alloc", A + 7 * MIB, 12 * MIB), *freed(A + 7 * MIB, 12 * MIB)]
    found = _validated(tmp_path, snapshot([segment(A, free)], nowhere))
    assert found.misses[0].predicted == A and found.end_is_equal
    outside = [event("alloc", B, 12 * MIB), *freed(B, 12 * MIB)]
    found = _validated(tmp_path, snapshot([segment(A, free)], outside))
    assert found.kinds == {validation.NOT_FREE: 1} and found.unknown_frees == 1


def test_the_report_counts_and_explains_every_miss(tmp_path: Path) -> None:
    end = [segment(A, [block(A, 20 * MIB, "inactive")]), segment(B, [block(B, 20 * MIB)])]
    found = _validated(tmp_path, snapshot(end, [event("alloc", B, 20 * MIB)]))
    lines = validation.report(found)
    assert lines[0].startswith("0 of 1 addresses predicted: 0.00 % exact")
    assert lines[-1].startswith(f"1 x {validation.TIE}: {validation.EXPLANATIONS[validation.TIE]}")
    assert hex(A) in lines[-1] and hex(B) in lines[-1]
    kinds = {validation.UNEXPECTED_SEGMENT, validation.MISSING_SEGMENT, validation.NOT_FREE}
    assert set(validation.EXPLANATIONS) > kinds
    assert validation.report(validation.Validation())[0].startswith("0 of 0")
    assert found.as_dict()["misses"] == {validation.TIE: 1}


def test_segments_that_only_one_side_takes_are_counted(tmp_path: Path) -> None:
    held = segment(A, [block(A, 12 * MIB), block(A + 12 * MIB, 8 * MIB, "inactive")])
    new = segment(B, [block(B, 6 * MIB), block(B + 6 * MIB, 14 * MIB, "inactive")])
    history = [event("segment_alloc", B, 20 * MIB), event("alloc", B, 6 * MIB)]
    found = _validated(tmp_path, snapshot([held, new], history))
    assert found.kinds == {validation.MISSING_SEGMENT: 1}
    assert (found.segments, found.segments_exact, found.segments_extra) == (1, 0, 0)
    assert found.end_is_equal


def test_segments_given_back_are_there_at_the_start(tmp_path: Path) -> None:
    history = [
        *freed(A, 30 * MIB),
        event("segment_free", A, 30 * MIB),
        event("segment_alloc", B, 20 * MIB),
        event("alloc", B, 5 * MIB),
    ]
    end = [segment(B, [block(B, 5 * MIB), block(B + 5 * MIB, 15 * MIB, "inactive")])]
    found = _validated(tmp_path, snapshot(end, history))
    assert (found.exact, found.used_at_start, found.segments_exact) == (1, 1, 1)
    assert found.end_is_equal


def test_blocks_of_private_pools_are_predicted_from_their_pool(tmp_path: Path) -> None:
    """Without `pool_id` in the events, as torch 2.11 writes them, by the segment's address."""
    end = [
        segment(A, [block(A, 20 * MIB, "inactive")]),
        segment(B, [block(B, 20 * MIB)], segment_pool_id=(0, 1), stream=3),
    ]
    found = _validated(tmp_path, snapshot(end, [event("alloc", B, 20 * MIB, stream=3)]))
    assert found.exact == 1 and found.end_is_equal


@pytest.mark.parametrize("rest", [MIB // 2, MIB])
def test_the_unsplit_rest_of_a_block_that_is_gone_at_the_end_is_found(
    tmp_path: Path, rest: int
) -> None:
    """Its neighbour's allocation during its life shows how large it was."""
    size = 12 * MIB
    history = [
        event("alloc", A + size + rest, 5 * MIB),  # while A lives: A must end here
        *freed(A, size),
        event("alloc", A, size + rest),  # fits only if A had the rest too
    ]
    end = [
        segment(
            A,
            [
                block(A, size + rest),
                block(A + size + rest, 5 * MIB),
                block(A + size + rest + 5 * MIB, 23 * MIB - size - rest, "inactive"),
            ],
        )
    ]
    recorded = read_memory_snapshot(write(tmp_path, snapshot(end, history)))
    start = rewind(recorded)
    assert [(u.size - size, u.guessed) for u in start.used] == [(rest, False)]
    found = validate(recorded)
    assert found.exact == 2 and found.end_is_equal


def test_segments_that_grow_within_the_history_are_predicted(tmp_path: Path) -> None:
    """A range that the history begins, one that it extends, and memory that it gives back."""
    small, large = A, B
    history = [
        event("alloc", large + 5 * MIB, 12 * MIB),  # into what is mapped
        event("segment_map", large + 20 * MIB, 20 * MIB),
        event("alloc", large + 17 * MIB, 18 * MIB),
        event("segment_map", small, 2 * MIB),
        event("alloc", small, 512),
        *freed(large, 5 * MIB),
        *freed(large + 5 * MIB, 12 * MIB),
        *freed(large + 17 * MIB, 18 * MIB),
        event("segment_unmap", large, 40 * MIB),
    ]
    end = [
        segment(
            small,
            [block(small, 512), block(small + 512, 2 * MIB - 512, "inactive")],
            segment_type="small",
            is_expandable=True,
        )
    ]
    value = snapshot(end, history)
    value["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    found = _validated(tmp_path, value)
    assert (found.allocations, found.exact) == (3, 3)
    assert (found.mapped, found.mapped_exact, found.used_at_start) == (2, 2, 1)
    assert found.end_is_equal and found.unknown_frees == 0


def test_another_allocators_snapshot_is_refused(tmp_path: Path) -> None:
    value = snapshot([], [event("alloc", A, 512)])
    value["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}
    with pytest.raises(UsageError, match="backend:native"):
        _validated(tmp_path, value)


addresses = st.integers(0, 6).map(lambda n: A + n * 3 * MIB)
some_sizes = st.sampled_from([0, 1, 512, MIB, 3 * MIB, 5 * MIB, 20 * MIB, 1 << 45])
actions = st.sampled_from(
    ["alloc", "free_requested", "free_completed", "segment_alloc", "segment_free"]
    + ["segment_map", "segment_unmap", "oom", "snapshot"]
)
some_blocks = st.tuples(addresses, some_sizes, st.sampled_from(["active_allocated", "inactive"]))
some_segments = st.tuples(
    addresses, st.lists(some_blocks, max_size=4), st.booleans(), st.sampled_from(["small", "large"])
)


@settings(max_examples=300, deadline=None)
@given(st.lists(some_segments, max_size=3), st.lists(st.tuples(actions, addresses, some_sizes)))
def test_nonsense_is_an_answer_or_one_line(
    segments: list[Any], history: list[tuple[str, int, int]]
) -> None:
    value = snapshot(
        [
            segment(at, [block(*row) for row in rows], is_expandable=grows, segment_type=kind)
            for at, rows, grows, kind in segments
        ],
        [event(action, at, size) for action, at, size in history],
    )
    with tempfile.TemporaryDirectory() as folder:
        recorded = read_memory_snapshot(write(Path(folder), value))
    try:
        found = validate(recorded)
    except WorklogError as error:
        assert "\n" not in str(error)
    else:
        assert found.exact + len(found.misses) == found.allocations


def test_histories_that_cannot_be_rewound_are_refused(tmp_path: Path) -> None:
    grown = [event("alloc", A, 5 * MIB)]
    held = segment(A, [block(A, 5 * MIB), block(A + 5 * MIB, 15 * MIB, "inactive")])
    with pytest.raises(UsageError, match="devices with a history"):
        validate(read_memory_snapshot(write(tmp_path, snapshot([held], grown))), device=3)
