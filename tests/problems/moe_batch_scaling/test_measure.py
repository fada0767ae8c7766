"""A sweep keeps what it measured, whatever happens to one of its points. No model is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UsageError
from problems.moe_batch_scaling.measure import measure_group
from problems.moe_batch_scaling.plan import Group, Rounds
from problems.moe_batch_scaling.points import (
    POINTS_FILE,
    SAMPLES_FILE,
    Measured,
    Point,
    PointStore,
    read_points,
)

BASE = Point("decode", 2, 8, 2, "float32")
ROUNDS = Rounds(6, 6, 0.0)


class Fake:
    """A side that takes `ns`, and fails at its n-th call if told so."""

    def __init__(self, ns: int, fails_at: int | None = None, error: Exception | None = None):
        self.ns, self.fails_at, self.calls = ns, fails_at, 0
        self.error = error or MemoryError("no room")

    def sample(self) -> int:
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.error
        return self.ns

    def describe(self, measured: Measured) -> Measured:
        return replace(measured, touched=(3.0,), touched_bytes=12.0, imbalance=1.5)


def side(name: str) -> Point:
    return replace(BASE, side=name)


def measured(
    folder: Path, sides: dict[str, Fake], opened: Callable[[Point], object] = lambda p: None
) -> dict[str, Measured]:
    def open_side(point: Point) -> Fake:
        opened(point)
        return sides[point.side]

    store = PointStore(folder)
    group = Group("decode-b2", tuple(side(name) for name in sides))
    measure_group(group, open_side, store, ROUNDS, lambda text: None, 3.0)
    return {each.point.side: each for each in store.kept.values()}


def test_every_side_is_sampled_in_the_same_rounds(tmp_path: Path) -> None:
    found = measured(tmp_path, {"auto": Fake(100), "loop": Fake(200)})
    assert found["auto"].rounds == found["loop"].rounds == tuple(range(6))
    assert found["auto"].baseline and not found["loop"].baseline
    assert found["loop"].samples_ns == (200,) * 6 and found["loop"].touched == (3.0,)


def test_a_side_that_is_left_out_says_why(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    group = Group("decode-b2", (side("auto"), side("sorted"), side("loop")))
    measure_group(
        group, lambda p: Fake(100), store, ROUNDS, lambda text: None, 3.0, {"sorted": "the same"}
    )
    left_out = store.kept[side("sorted").id]
    assert (left_out.status, left_out.reason) == ("skipped", "the same")
    assert len(store.kept[side("loop").id].samples_ns) == 6


def test_points_say_why_their_rounds_ended(tmp_path: Path) -> None:
    found = measured(tmp_path, {"auto": Fake(100), "loop": Fake(200)})
    assert found["auto"].stopped.startswith("precise enough after 6 rounds")
    assert read_points(tmp_path)[0].stopped == found["auto"].stopped


def test_batches_in_turn_are_all_the_base_and_stay_to_the_end(tmp_path: Path) -> None:
    points = tuple(replace(BASE, batch=batch, in_turn=True) for batch in (1, 2, 4))
    store = PointStore(tmp_path)
    group = Group("decode", points)
    measure_group(group, lambda p: Fake(100 * p.batch), store, ROUNDS, lambda text: None, 30.0)
    assert all(each.baseline and len(each.samples_ns) == 6 for each in store.kept.values())


def test_a_batch_in_turn_that_stumbles_at_first_sight_is_sampled_like_the_others(
    tmp_path: Path,
) -> None:
    class Stumbles(Fake):
        def sample(self) -> int:
            return super().sample() * (1_000_000 if self.calls <= 2 else 1)

    points = tuple(replace(BASE, batch=batch, in_turn=True) for batch in (1, 2, 4))
    store = PointStore(tmp_path)
    measure_group(
        Group("decode", points), lambda p: Stumbles(100) if p.batch == 2 else Fake(100), store,
        ROUNDS, lambda text: None, 30.0,
    )  # fmt: skip
    assert all(each.stopped and len(each.samples_ns) == 6 for each in store.kept.values())


def test_a_point_that_runs_out_of_memory_is_recorded_and_the_others_are_measured(
    tmp_path: Path,
) -> None:
    found = measured(tmp_path, {"auto": Fake(100), "batched_mm": Fake(50, fails_at=1)})
    assert found["batched_mm"].status == "failed"
    assert found["batched_mm"].reason == "out of memory: no room"
    assert found["auto"].status == "measured" and len(found["auto"].samples_ns) == 6


def test_a_side_that_fails_in_a_later_round_loses_only_itself(tmp_path: Path) -> None:
    broken = Fake(100, fails_at=6, error=RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    found = measured(tmp_path, {"auto": Fake(100), "dense": broken})
    assert found["dense"].status == "failed" and found["dense"].reason.startswith("out of memory")
    assert len(found["dense"].samples_ns) == 4, "what it had measured is kept"
    assert found["auto"].status == "measured" and len(found["auto"].samples_ns) >= 6


def test_a_side_that_is_many_times_slower_is_sampled_once(tmp_path: Path) -> None:
    found = measured(tmp_path, {"auto": Fake(20_000_000), "dense": Fake(200_000_000)})
    assert found["dense"].samples_ns == (200_000_000,)
    assert found["dense"].reason == "sampled once: 10.0 times the fastest"


class _StumblesOnce(Fake):
    def sample(self) -> int:
        return super().sample() * (8 if self.calls == 1 else 1)


def test_a_side_that_stumbles_once_is_looked_at_again_and_sampled(tmp_path: Path) -> None:
    sides = {"auto": Fake(20_000_000), "loop": _StumblesOnce(30_000_000)}
    found = measured(tmp_path, sides)
    assert found["loop"].samples_ns == (30_000_000,) * 6 and not found["loop"].reason


def test_a_side_that_fails_when_it_is_looked_at_again_is_a_failed_point(tmp_path: Path) -> None:
    found = measured(tmp_path, {"auto": Fake(20_000_000), "dense": Fake(200_000_000, fails_at=2)})
    assert (found["dense"].status, found["dense"].samples_ns) == ("failed", ())
    assert len(found["auto"].samples_ns) == 6


def test_a_side_that_was_hopeless_at_a_smaller_batch_is_skipped(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    seconds = {"auto": 40_000_000, "dense": 800_000_000}
    for batch in (2, 4):
        points = tuple(replace(side(name), batch=batch) for name in seconds)
        group = Group(f"decode-b{batch}", points)
        measure_group(group, lambda p: Fake(seconds[p.side]), store, ROUNDS, lambda text: None, 3.0)
    last = store.kept[replace(side("dense"), batch=4).id]
    assert (last.status, last.reason) == ("skipped", "skipped: 20.0 times the fastest at batch 2")
    assert store.kept[replace(side("auto"), batch=4).id].status == "measured"


def test_the_baseline_is_sampled_even_if_it_is_the_slow_one(tmp_path: Path) -> None:
    found = measured(tmp_path, {"auto": Fake(400_000_000), "loop": Fake(40_000_000)})
    assert len(found["auto"].samples_ns) == 6


def test_what_a_folder_holds_is_not_measured_again(tmp_path: Path) -> None:
    measured(tmp_path, {"auto": Fake(100)})

    def never(point: Point) -> None:
        raise AssertionError(f"{point.id} was opened again")

    assert measured(tmp_path, {"auto": Fake(999)}, never)["auto"].samples_ns == (100,) * 6


def test_a_line_that_a_killed_run_had_begun_is_dropped(tmp_path: Path) -> None:
    measured(tmp_path, {"auto": Fake(100)})
    with (tmp_path / POINTS_FILE).open("a", encoding="utf-8") as stream:
        stream.write('{"id": "half')
    store = PointStore(tmp_path)
    store.add(Measured(side("loop"), "decode-b2", "failed", "a later one"))
    assert [each.point.side for each in read_points(tmp_path)] == ["auto", "loop"]


def test_samples_are_on_disk_before_the_next_is_taken(tmp_path: Path) -> None:
    """Killed in the fifth round: four rounds of the baseline are there."""
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, {"auto": _Interrupted(100)})
    lines = (tmp_path / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4


class _Interrupted(Fake):
    def sample(self) -> int:
        self.calls += 1
        if self.calls == 6:  # one call before the first round
            raise KeyboardInterrupt
        return self.ns


def test_a_wrong_call_is_no_failed_point(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose"):
        measured(tmp_path, {"auto": Fake(1, 1, UsageError("k is 9 of 8; choose less"))})


def test_points_that_make_no_sense_are_refused() -> None:
    for name in ("batch", "sequence", "top_k"):
        with pytest.raises(UsageError, match=f"{name} is 0; choose 1 or more"):
            replace(BASE, **{name: 0})


def test_a_line_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / POINTS_FILE).write_text('{"id": "x", "point": {}}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="take the sweep again"):
        read_points(tmp_path)
