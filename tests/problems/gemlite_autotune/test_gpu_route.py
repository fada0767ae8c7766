"""The route on a GPU, as far as it goes without one: Triton's own autotuner and its listener."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from problems.gemlite_autotune.gpu_route import stage_noise, tuning_results
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.shipped_tables import Config

W4 = Layer(4096, 4096, "a16w4", 128)
# Triton's real autotuner tunes GemLite's list; only the benchmark is invented, here in the test.
TUNE = """
import json, math, sys
from problems.gemlite_autotune.described_device import DescriptionDriver, described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.gpu_route import listener_record
from problems.gemlite_autotune.layers import Layer
heard, count = [], [0]
def benchmark(self):
    def bench(call, quantiles):
        count[0] += 1
        if count[0] == 3:
            return [math.inf] * 3
        return [0.01 * count[0], 0.009 * count[0], 0.011 * count[0]]
    return bench
DescriptionDriver.get_benchmarker = benchmark
with described(describe("rtx-4090")):
    from gemlite import core
    from triton import knobs
    from triton.runtime.jit import JITFunction
    from problems.gemlite_autotune.gemlite_layers import batch, gemlite_layer
    core.GemLiteLinear.reset_config()
    knobs.autotuning.listener = lambda **said: heard.append(listener_record(**said))
    JITFunction.run = lambda self, *a, **k: None
    layer = Layer(4096, 4096, "a16w4", 128)
    gemlite_layer(layer).forward(batch(layer, 8))
    core.GemLiteLinear.load_config(core.get_default_cache_config())
    gemlite_layer(layer).forward(batch(layer, 16))  # in the table: the listener is silent
print(json.dumps(heard))
"""


@pytest.fixture(scope="module")
def heard(environment: dict[str, str]) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", TUNE], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_the_listener_hears_every_configuration_and_nothing_of_a_table_hit(
    heard: list[dict[str, object]],
) -> None:
    (record,) = heard
    assert record["kernel"] == "gemm_splitK_INT_kernel"
    assert len(list(record["timings"])) == 17  # type: ignore[call-overload]


def test_what_could_not_run_has_no_time(heard: list[dict[str, object]]) -> None:
    results = tuning_results(W4, {8: heard[0]})
    assert results.figures["m8_refused"]["value"] == 1
    assert results.figures["m8_best_us"]["value"] == pytest.approx(10)
    assert results.figures["m8_worst_over_best"]["value"] == pytest.approx(17)
    rows = results.tables["m8"].rows
    assert len(rows) == 17 and rows[-1][-1] == "could not run"
    assert rows[0][0] == "16x32x128 SK4 A2 w4 s5"
    assert all(found["origin"] == "measured-gpu" for found in results.figures.values())


def test_one_program_twice_is_the_gauge_of_noise() -> None:
    one, two = Config(1, 128, 32, 1, 1), Config(1, 128, 32, 1, 2)
    times = {one: 0.010, two: 0.011, Config(1, 256, 32, 2, 1): 0.5}
    assert stage_noise("gemv_INT_revsplitK_kernel", times) == pytest.approx(1.1)
    assert stage_noise("gemm_INT_kernel", times) is None
    assert stage_noise("gemv_INT_revsplitK_kernel", {one: 0.01}) is None


def test_nothing_is_timed_without_a_gpu(environment: dict[str, str]) -> None:
    code = TUNE.replace("DescriptionDriver.get_benchmarker = benchmark\n", "")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert "NothingToTime: no device is here" in done.stderr
