"""Are measured rates plausible, honest about how they were taken, and kept by a round trip?"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import PreconditionError, UsageError
from common.floors.machine import cpu_seconds, last_level_cache_bytes
from common.floors.measure import measure_floors
from common.floors.measured import MeasuredFloors, Rate, from_json, to_json
from common.memory import memory_available_bytes


@pytest.fixture(scope="module")
def measured() -> MeasuredFloors:
    return measure_floors("cpu", threads=1, budget_s=0.01, matrix_size=256)


def test_a_tiny_budget_still_gives_six_rounds_of_plausible_rates(measured: MeasuredFloors) -> None:
    for rate in (measured.read, measured.copy, measured.matmul_bf16, measured.matmul_fp32):
        assert rate.n >= 6
        assert rate.interval is not None
        low, high = rate.interval
        assert 0 < low <= rate.median <= high <= rate.best < math.inf
    # Any machine of this century, however busy, reads between 0.3 and 10,000 GB/s.
    assert 0.3 < measured.read.median < 10_000
    assert measured.read.best > measured.copy.best / 4


def test_the_working_set_is_at_least_four_last_level_caches(measured: MeasuredFloors) -> None:
    cache = last_level_cache_bytes()
    assert measured.last_cache_bytes == cache
    assert measured.read.working_set_bytes >= 4 * (cache or 0)
    assert measured.read.working_set_bytes >= 128 << 20


def test_copying_counts_what_is_read_and_what_is_written(measured: MeasuredFloors) -> None:
    assert measured.copy.work_per_sample == 2 * measured.read.work_per_sample


def test_the_reading_kernel_is_the_best_of_those_tried(measured: MeasuredFloors) -> None:
    tried = measured.read.candidates
    assert len(tried) >= 4
    assert tried[measured.read.kernel] == max(tried.values())
    assert measured.read.median == pytest.approx(max(tried.values()))


def test_the_result_says_that_it_was_measured_on_a_cpu_with_one_thread(
    measured: MeasuredFloors,
) -> None:
    assert (measured.origin, measured.threads) == ("measured-cpu", 1)
    assert measured.torch_version == torch.__version__


def test_settings_of_torch_are_as_before_afterwards(measured: MeasuredFloors) -> None:
    assert measured.threads == 1
    assert torch.get_num_threads() == DEFAULT_THREADS
    assert not torch.is_inference_mode_enabled()


DEFAULT_THREADS = torch.get_num_threads()


def test_json_and_back_is_the_same_result_and_the_same_text(measured: MeasuredFloors) -> None:
    text = to_json(measured)
    assert json.loads(text)["schema"] == "worklog.floors/1"
    assert from_json(text) == measured
    assert to_json(from_json(text)) == text


def test_statistics_are_derived_from_samples_and_not_believed(measured: MeasuredFloors) -> None:
    document = json.loads(to_json(measured))
    document["read"]["median"] = 1e9
    assert from_json(json.dumps(document)).read.median == measured.read.median


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "worklog.floors/0"},
        {"origin": "guessed"},
        {"read": {}},
        {"read": None},
    ],
)
def test_a_file_that_is_no_result_is_refused(
    measured: MeasuredFloors, change: dict[str, object]
) -> None:
    with pytest.raises(UsageError, match="measure the machine again"):
        from_json(json.dumps(json.loads(to_json(measured)) | change))
    with pytest.raises(UsageError, match="measure the machine again"):
        from_json(to_json(measured)[:-20])


def test_median_best_and_interval_have_their_known_values() -> None:
    rate = Rate("k", "gb_per_s", 1000, 1000, (100, 50, 200, 125, 80, 250, 400, 500))
    assert (rate.n, rate.best, rate.median) == (8, 20.0, 1000 / 162.5)
    # Eight samples: 2 * P(B < 1) = 0.8 %, 2 * P(B < 2) = 7 %, so the extremes are the interval.
    assert rate.interval == (2.0, 20.0)
    nine = Rate("k", "tflop_per_s", 10**6, 1, tuple(range(1, 10)))
    assert nine.interval is not None
    assert list(nine.interval) == pytest.approx([1e3 / 8, 1e3 / 2])


def test_five_samples_have_no_interval() -> None:
    assert Rate("k", "gb_per_s", 1, 1, (1, 2, 3, 4, 5)).interval is None


def test_a_working_set_that_fits_the_cache_is_refused() -> None:
    with pytest.raises(UsageError, match="cache"):
        measure_floors(working_set_bytes=64 << 10)


def test_a_working_set_beyond_memory_is_refused_before_it_is_allocated() -> None:
    free = memory_available_bytes()
    assert free is not None
    with pytest.raises(PreconditionError, match="free memory"):
        measure_floors(working_set_bytes=free)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"device": "tpu"}, "choose cpu or cuda"),
        ({"budget_s": 0}, "budget_s"),
        ({"budget_s": math.inf}, "budget_s"),
        ({"threads": 0}, "threads"),
        ({"matrix_size": 0}, "matrix_size"),
        ({"device": "cuda", "threads": 2}, "threads"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure_floors(**arguments)  # type: ignore[arg-type]


def test_last_level_caches_are_summed_over_those_that_the_process_can_use(tmp_path: Path) -> None:
    for cpu, (level3, shared) in enumerate([("32768K", "0-1"), ("32768K", "0-1"), ("16M", "2")]):
        for index, (level, kind, size, cpus) in enumerate(
            [
                ("1", "Data", "48K", str(cpu)),
                ("1", "Instruction", "32K", str(cpu)),
                ("3", "Unified", level3, shared),
            ]
        ):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, value in [("level", level), ("type", kind), ("size", size)]:
                (folder / name).write_text(value + "\n")
            (folder / "shared_cpu_list").write_text(cpus + "\n")
    assert last_level_cache_bytes(tmp_path, frozenset({0, 1})) == 32 << 20
    assert last_level_cache_bytes(tmp_path, frozenset({0, 1, 2})) == 48 << 20
    assert last_level_cache_bytes(tmp_path / "nowhere", frozenset({0})) is None


def test_busy_time_counts_other_guests_but_not_idling_or_waiting(tmp_path: Path) -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 20 30 1000 500 1 2 40 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert cpu_seconds(stat) == pytest.approx((103 * tick, 1603 * tick))
    assert cpu_seconds(tmp_path / "nowhere") is None


def test_the_result_says_how_much_others_used_the_machine(measured: MeasuredFloors) -> None:
    assert measured.others_cpu_share is not None
    assert 0 <= measured.others_cpu_share <= 1


def test_the_tables_need_no_torch() -> None:
    code = (
        "import sys, common.floors.devices, common.floors.traffic, common.floors.measured, "
        "common.floors.measure; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
