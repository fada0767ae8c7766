"""Is the most worth recorded first, within the time, on what the machine has?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.recordable import make_recordable, step

from common.contract.problem import Problem, load_problem
from common.experiments.record_plan import Place, command, limit_s, plan, projected

GPU = Place("cuda", 140_000_000_000, 9.0, {"ncu": None, "nsys": "nsys is not installed here"})
GPU_PRESETS = """
[presets.large]
devices = ["cuda"]
needs_device_bytes = 36_000_000_000
min_rounds = 3
max_rounds = 3
max_seconds = 5
settings = { steps = 4 }
[presets.middle]
devices = ["cuda"]
needs_device_bytes = 20_000_000_000
min_rounds = 3
max_rounds = 3
max_seconds = 5
settings = { steps = 4 }
"""


@pytest.fixture
def problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problem:
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    monkeypatch.setenv("WORKLOG_VARIANTS", str(tmp_path / "variants"))
    sizes: dict[str, Any] = {"presets": ["large", "middle"], "variants": ["double"]}
    seconds = {"gpu": 300, "tiny": 5}
    steps = [
        step("nsys", 70, run="nsys", needs=["gpu", "nsys"], **sizes),
        step("second", 20, run="bench", seconds={"gpu": 60, "tiny": 5}, **sizes),
        step("first", 10, run="bench", seconds=seconds, **sizes),
        step("newest", 30, run="bench", needs=["gpu", "capability 10.0"], **sizes),
    ]
    make_recordable(tmp_path, steps, more=GPU_PRESETS)
    return load_problem("spin")


def test_steps_come_by_priority_and_the_impossible_say_why(problem: Problem) -> None:
    found = plan([problem], GPU)
    assert [one.step.name for one in found] == ["first", "second", "newest", "nsys"]
    reasons = {one.step.name: one.reason for one in found}
    assert reasons["first"] is None and reasons["second"] is None
    assert "nsys is not installed" in str(reasons["nsys"])
    assert "compute capability 10.0, this GPU has 9.0" in str(reasons["newest"])


def test_what_does_not_fit_the_budget_gives_way_to_what_does(problem: Problem) -> None:
    def fates(budget_s: float) -> list[str]:
        return [fate.split(":")[0] for _, fate in projected(plan([problem], GPU), budget_s)][:2]

    assert fates(600) == ["to be recorded", "to be recorded"]
    assert fates(320) == ["to be recorded", "does not fit"]
    assert fates(120) == ["does not fit", "to be recorded"]  # the smaller one of less worth
    assert fates(20) == ["does not fit", "does not fit"]


def test_a_gpu_that_is_too_small_takes_the_next_smaller_preset_and_says_so(
    problem: Problem,
) -> None:
    middle = plan([problem], Place("cuda", 24_000_000_000, 8.9, {}))[0]
    assert middle.presets == ("middle",)
    assert middle.notices == ("preset large needs 36 GB",)
    small = plan([problem], Place("cuda", 8_000_000_000, 8.9, {}))[0]
    assert small.reason is not None and "8.0 GB" in small.reason and "36 GB" in small.reason


def test_without_a_gpu_nothing_is_possible_and_a_rehearsal_is(problem: Problem) -> None:
    nothing = plan([problem], Place("cpu", 10**10, None, {}))
    assert all("NVIDIA GPU" in str(one.reason) for one in nothing)
    rehearsed = plan([problem], Place("cpu", 10**10, None, {"nsys": "missing"}, rehearsal=True))
    reasons = {one.step.name: one.reason for one in rehearsed}
    assert reasons == {"first": None, "second": None, "newest": None, "nsys": "missing"}
    assert all(one.presets == ("tiny",) for one in rehearsed)


def test_a_variant_whose_library_is_missing_is_left_out_and_named(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (problem.folder / "problem.toml").read_text()
    lacking = text.replace(
        '[variants."double"]\n', '[variants."double"]\npackages = ["nowhere==1.0"]\n'
    )
    (problem.folder / "problem.toml").write_text(lacking)
    (one, *_) = plan([load_problem("spin")], GPU)
    assert one.reason is not None and "nowhere==1.0 is not here" in one.reason
    (tmp_path / "variants" / "nowhere-1.0").mkdir(parents=True)
    assert plan([load_problem("spin")], GPU)[0].reason is None


def test_a_step_has_patience_but_never_more_than_is_left() -> None:
    assert limit_s(100, 1000) == 200
    assert limit_s(10, 1000) == 70
    assert limit_s(100, 120) == 120


def test_the_command_of_each_kind_of_step(problem: Problem, tmp_path: Path) -> None:
    verb = command(plan([problem], GPU)[0], "large", "cuda", tmp_path)
    assert verb[verb.index("bench") :] == [
        "bench", "spin", "--preset", "large", "--device", "cuda", "--out", str(tmp_path),
        "--variant", "double",
    ]  # fmt: skip
