"""The route on a GPU, as far as it goes without one: Triton's own autotuner and its listener.

The tuner, its pruner, its hooks and GemLite's forward are the real ones; only the launch does
nothing and the benchmark's times are invented, here. What they give is the recorded fixture
tests/data/gemlite_tuning.json (python tests/problems/gemlite_autotune/test_gpu_route.py writes it).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from common.timing.sampling import StopRule
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.gpu_results import medians, stage_noise, tuning_results
from problems.gemlite_autotune.gpu_sides import (
    copies_for,
    default_config,
    shipped_config,
    time_sides,
    tolerance,
)
from problems.gemlite_autotune.gpu_task import tuned_config
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.shipped_tables import Config, shipped_tables

W4 = Layer(4096, 4096, "a16w4", 128)
RTX_4090, H200 = describe("rtx-4090"), describe("h200-sxm")
FIXTURE = Path(__file__).parents[2] / "data" / "gemlite_tuning.json"
# A configuration costs 10 µs and one more for each that came before it, the third cannot run, and
# each byte that is cloned costs a nanosecond for 100,000.
TUNE = """
import json, math, sys
from pathlib import Path
from problems.gemlite_autotune.described_device import DescriptionDriver, described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.gpu_route import record_tuning
from problems.gemlite_autotune.layers import Layer
import torch
cloned, count = [0], [0]
def benchmark(self):
    def bench(call, quantiles):
        cloned[0] = 0
        call()
        count[0] += 1
        if count[0] % 17 == 3:
            return [math.inf] * 3
        ms = 0.01 + 0.001 * (count[0] % 17) + cloned[0] * 1e-8
        return [ms, 0.9 * ms, 1.1 * ms]
    return bench
DescriptionDriver.get_benchmarker = benchmark
with described(describe("rtx-4090")):
    from gemlite import core
    from triton.runtime.jit import JITFunction
    JITFunction.run = lambda self, *a, **k: None
    clone = torch.Tensor.clone
    def counted(self, *a, **k):
        cloned[0] += self.nbytes
        return clone(self, *a, **k)
    torch.Tensor.clone = counted
    layer = Layer(4096, 4096, "a16w4", 128)
    found = record_tuning(layer, [1, 8, 64], ["default", "fast"], "cpu", Path(sys.argv[1]))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def document(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tuning")
    done = subprocess.run(
        [sys.executable, "-c", TUNE, str(folder)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (folder / "tuning.jsonl").read_text().splitlines()
    # 1 and 8 from the table, all three in two modes, one more without clones.
    assert [json.loads(line)["what"] for line in lines].count("tuned") == 6
    assert len(lines) == 9
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(FIXTURE.read_text())


@pytest.mark.slow
def test_the_tuner_still_gives_what_was_recorded(document: Any, recorded: Any) -> None:
    assert without_seconds(document) == without_seconds(recorded)


def without_seconds(found: Any) -> Any:
    """Without how long it took, which is the machine's."""
    if isinstance(found, Mapping):
        return {k: without_seconds(v) for k, v in found.items() if k != "duration_seconds"}
    return [without_seconds(each) for each in found] if isinstance(found, list) else found


def test_the_listener_hears_every_configuration_and_nothing_of_a_table_hit(recorded: Any) -> None:
    of_8 = recorded["batches"]["8"]
    assert of_8["route"] == {
        "family": "GEMM_SPLITK", "key": "(8, 4096, 4096, 128, 8, 104)", "in_table": True,
    }  # fmt: skip
    assert of_8["shipped"]["heard"] is None and len(of_8["shipped"]["left"]) == 1
    assert of_8["shipped"]["launched"]["SPLIT_K"] == 16
    tuned = of_8["modes"]["fast"]
    assert tuned["heard"]["kernel"] == "gemm_splitK_INT_kernel"
    assert len(tuned["heard"]["timings"]) == len(tuned["left"]) == 17


def test_route_and_table_are_known_where_the_listener_is_silent(recorded: Any) -> None:
    results = tuning_results(recorded)
    rows = {(row[0], row[3]): row for row in results.tables["routes"].rows}
    assert rows["8", "shipped"][2:6] == ("yes", "shipped", "1", "no")
    assert rows["64", "fast"][1:3] == ("GEMM", "no")  # the hole: nothing shipped for it
    assert ("64", "shipped") not in rows
    # One configuration in the list: the pruner, where the table is looked up, is not even asked.
    assert rows["1", "default"][4:6] == ("not asked", "no")


def test_what_could_not_run_has_no_time(recorded: Any) -> None:
    results = tuning_results(recorded)
    assert results.figures["m8_refused"]["value"] == 1
    times = medians(recorded["batches"]["8"]["modes"]["fast"]["heard"])
    assert results.figures["m8_best_us"]["value"] == pytest.approx(1e3 * min(times.values()))
    rows = results.tables["m8"].rows
    assert len(rows) == 17 and rows[-1][-1] == "could not run"
    assert all(found["origin"] == "measured-gpu" for found in results.figures.values())
    assert tuned_config(recorded, 8) == min(times, key=lambda config: times[config])


def test_the_clones_of_the_tuner_are_seen_in_its_times(recorded: Any) -> None:
    """8.4 MB of weights, x and the output are cloned in each timed call of GEMV_REVSPLITK only."""
    figures = tuning_results(recorded).figures
    cloned_bytes = 4096 * 4096 // 2 + 2 * 4096 * 2
    assert figures["m1_restore_added_us"]["value"] == pytest.approx(
        1e3 * cloned_bytes * 1e-8, rel=0.15
    )
    assert figures["m1_restore_ratio"]["value"] > 3
    assert "m8_restore_ratio" not in figures


def test_figures_of_another_triton_carry_its_version(recorded: Any) -> None:
    figures = tuning_results(recorded, "triton-3.6_").figures
    assert "triton-3.6_m8_best_us" in figures
    assert all(name.startswith("triton-3.6_") for name in figures)


def test_one_program_twice_is_the_gauge_of_noise(recorded: Any) -> None:
    one, two = Config(1, 128, 32, 1, 1), Config(1, 128, 32, 1, 2)
    times = {one: 0.010, two: 0.011, Config(1, 256, 32, 2, 1): 0.5}
    assert stage_noise("gemv_INT_revsplitK_kernel", times) == pytest.approx(1.1)
    assert stage_noise("gemm_INT_kernel", times) is None
    assert stage_noise("gemv_INT_revsplitK_kernel", {one: 0.01}) is None
    assert "m1_same_program_ratio" in tuning_results(recorded).figures


@pytest.mark.slow
def test_nothing_is_timed_without_a_gpu(h200: dict[str, Any]) -> None:
    assert h200["timed"] == "NothingToTime: no device is here, so that nothing can be timed"


def test_sides_that_a_gpu_has() -> None:
    tables = shipped_tables()
    winner = Config(16, 128, 64, warps=8, stages=1, split_k=16, a_order=2, group_m=8)
    assert shipped_config(RTX_4090, W4, 8, tables) == winner
    assert shipped_config(RTX_4090, W4, 2, tables) is None  # the hole
    borrowed = shipped_config(H200, W4, 8, tables)  # an H200 has none: its sister's, the H100's
    assert borrowed is not None and borrowed != winner
    assert default_config(H200, W4, 8, "GEMM_SPLITK").stages == 2


def test_weights_come_from_memory_and_rounding_is_allowed_for() -> None:
    assert copies_for(W4, 72 << 20) == 18  # twice the L2 cache of an RTX 4090
    assert copies_for(Layer(256, 256, "a16w4", 128), 72 << 20) == 64
    one = tolerance(W4, "GEMM", Config(64, 64, 64, 4, 1))
    many = tolerance(W4, "GEMV_REVSPLITK", Config(1, 512, 8, 4, 1))
    assert 2e-3 < one < many < 1e-2


class ScriptedClock:
    """Takes what each side says it takes, with a little noise that both sides share."""

    def __init__(self) -> None:
        self.rounds = 0

    def measure(self, fn: Callable[[], object]) -> int:
        self.rounds += 1
        return int(str(fn())) + self.rounds % 7


def test_sides_are_compared_in_rounds_with_an_interval_and_a_verdict() -> None:
    sides: dict[str, Callable[[], object]] = {
        "default": lambda: 100_000, "tuned": lambda: 80_000, "static": lambda: 100_100,
    }  # fmt: skip
    found = time_sides(sides, 10, ScriptedClock(), StopRule(12, 40, 5.0))
    assert found["ns"]["tuned"]["median"] == pytest.approx(8000, rel=0.01)
    assert found["against_default"]["tuned"]["verdict"] == "FASTER"
    assert found["against_default"]["static"]["verdict"] == "SAME"
    assert len(found["samples_ns"]["default"]) >= 12


def test_regret_is_shown_and_a_wrong_side_gets_no_time(recorded: Any) -> None:
    sides = {
        "family": "GEMM_SPLITK",
        "configs": {"default": "a", "tuned": "b", "static": "c", "shipped": "d"},
        "errors": {"default": 1e-3, "tuned": 1e-3, "static": 1e-3, "shipped": 0.7},
        "rejected": ["shipped"],
        **time_sides(
            {"default": lambda: 100_000, "tuned": lambda: 80_000, "static": lambda: 96_000},
            10, ScriptedClock(), StopRule(12, 40, 5.0),
        ),
    }  # fmt: skip
    changed = json.loads(json.dumps(recorded))
    changed["batches"]["8"]["sides"] = json.loads(json.dumps(sides))
    results = tuning_results(changed)
    assert results.figures["m8_static_regret"]["value"] == pytest.approx(1.2, rel=0.01)
    assert results.figures["m8_default_regret"]["value"] == pytest.approx(1.25, rel=0.01)
    assert "m8_shipped_us" not in results.figures
    rows = {row[0]: row for row in results.tables["sides-m8"].rows}
    assert rows["tuned"][-1] == "FASTER" and rows["default"][-1] == "baseline"
    assert rows["shipped"][-1] == "rejected: relative error 0.7"


def write_fixture() -> None:
    import os
    import tempfile

    from common.contract.problem import load_problem
    from common.experiments.request import package_folders

    problem = load_problem("gemlite_autotune")
    folders = package_folders(problem.variants[problem.baseline])
    path = os.pathsep.join([str(Path(__file__).parents[3]), *map(str, folders)])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", TUNE, folder], check=True, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    FIXTURE.write_text(json.dumps(json.loads(done.stdout.splitlines()[-1]), indent=1) + "\n")


if __name__ == "__main__":
    write_fixture()
