"""Do the detectors see our problems, and nothing else? On recordings, models and real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command import assert_one_line_error, worklog
from helpers.synthetic import write_trace

from common.allocator.layer_stack import Dequantise, Knobs, Stack, capture_all
from common.allocator.snapshot_file import write_snapshot
from common.contract.problem import load_problem, problem_names
from common.errors import UsageError
from common.experiments.request import package_folders
from common.pages.detect import as_document, detect
from common.pages.detectors.expert_loop import ADD, LOOK, OTHER, PRODUCT, visits
from common.pages.detectors.gemlite_tuning import KERNEL, find_many_configurations
from common.traces.ncu_model import KernelLaunch, NcuReport

CHECKOUT = Path(__file__).resolve().parents[2]
NEWER_THAN_ITS_READER = ("graph_pdl_gb200.nsys-rep",)  # needs an nsys as new as the report


def marks(path: Path) -> list[str]:
    return [f"{found.problem}:{found.mark}" for found in detect(path).signatures]


def test_no_false_alarm_on_any_real_file(real_data: Path) -> None:
    silent = 0
    for kind in ("torch", "nsys", "ncu", "memory"):
        for path in sorted((real_data / kind).iterdir()):
            try:
                found = detect(path)
            except UsageError:
                assert path.suffix == ".nsys-rep", path  # no nsys here, or an older one
                continue
            assert found.signatures == (), (path, found.signatures)
            silent += 1
    assert silent >= 76


def recorded_traces() -> list[tuple[str, str, Path]]:
    found = []
    for name in problem_names():
        problem = load_problem(name)
        for place in problem.evidence.values():
            for path in sorted((problem.folder / place / "traces").glob("*/trace.json.gz")):
                found.append((name, path.parent.name, path))
    return found


def test_float8_is_found_in_its_recordings_and_not_in_the_fixed_ones() -> None:
    seen = {True: 0, False: 0}
    problem = load_problem("float8_weight_only")
    for name, variant, path in recorded_traces():
        if name != problem.name or variant not in problem.variants:
            continue
        settings = problem.variants[variant].settings
        # The ablations take the opaque operator away from 0.13.0.
        opaque = "torchao==0.13.0" in problem.variants[variant].packages and "2961" not in str(
            settings
        )
        expected = ["float8_weight_only:opaque-dequantisation"] if opaque else []
        assert marks(path) == expected, path
        seen[opaque] += 1
    assert seen[True] and seen[False]


def test_a_trace_that_hardly_dequantises_has_another_problem(tmp_path: Path) -> None:
    def span(name: str, start: int, duration: int) -> dict[str, Any]:
        return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1, "ts": start,
                "dur": duration}  # fmt: skip

    opaque = "torchao::dequantize_affine_float8"
    rare = [span("aten::mm", 0, 980), span(opaque, 1000, 20)]
    often = [span("aten::mm", 0, 500), span(opaque, 1000, 500)]
    assert marks(write_trace(tmp_path / "rare.json", rare)) == []
    assert marks(write_trace(tmp_path / "often.json", often)) == [
        "float8_weight_only:opaque-dequantisation"
    ]
    fixed = [span("torchao::dequantize_affine_float8_non_decomposed", 0, 500)]
    assert marks(write_trace(tmp_path / "fixed.json", fixed)) == []


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triton's own autotuner around GemLite's own kernels, whose launches do nothing."""
    folder = tmp_path_factory.mktemp("tuning")
    problem = load_problem("gemlite_autotune")
    packages = package_folders(problem.variants[problem.baseline])
    path = os.pathsep.join(map(str, [CHECKOUT, CHECKOUT / "tests", *packages]))
    done = subprocess.run(
        [sys.executable, "-m", "helpers.gemlite_tuning", str(folder)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_gemlites_real_tuner_is_found_and_a_hit_of_its_table_is_not(tuning: Path) -> None:
    assert marks(tuning / "tuned-1.json.gz") == ["gemlite_autotune:autotuning-in-a-call"]
    assert marks(tuning / "tuned-8.json.gz") == ["gemlite_autotune:autotuning-in-a-call"]
    assert marks(tuning / "table-1.json.gz") == []
    facts = {f.what: f.value for f in detect(tuning / "tuned-1.json.gz").signatures[0].facts}
    cloned = next(int(value) for what, value in facts.items() if "restore_value" in what)
    assert cloned == 17 * 3 * 3  # configurations, calls of each, tensors


def gpu_trace(path: Path, *steps: tuple[str, str, int]) -> Path:
    """GPU activities one after the other: (category, name, µs)."""
    events, now = [], 0
    for category, name, duration in steps:
        events.append({"ph": "X", "cat": category, "name": name, "pid": 0, "tid": 7, "ts": now,
                       "dur": duration, "args": {"device": 0, "stream": 7}})  # fmt: skip
        now += duration + 1
    return write_trace(path, events)


FLUSH = ("kernel", "void at::native::vectorized_elementwise_kernel<4, FillFunctor<int>>", 60)
SMALL_FILL = (*FLUSH[:2], 3)
REVSPLITK = ("kernel", "gemv_INT_revsplitK_kernel", 9)
SPLITK = ("kernel", "gemm_splitK_INT_kernel", 12)
CLONE = ("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 4)
TIMED = (CLONE, CLONE, CLONE, REVSPLITK, CLONE, CLONE, CLONE)


def test_the_tuners_stopwatch_is_found_in_gpu_work_of_any_trace(tmp_path: Path) -> None:
    stopwatch = ["gemlite_autotune:stopwatch"]
    assert marks(gpu_trace(tmp_path / "flush.json", *([FLUSH, SPLITK] * 40))) == stopwatch
    assert marks(gpu_trace(tmp_path / "restore.json", *(TIMED * 40))) == stopwatch
    both = [FLUSH, *TIMED] * 40
    found = detect(gpu_trace(tmp_path / "both.json", *both)).signatures[0]
    assert [fact.value for fact in found.facts[:3]] == ["40", "40", "39"]
    # What serving looks like once it is tuned: a zeroed output, other layers, a few copies.
    steady = [SMALL_FILL, SPLITK, ("kernel", "ampere_fp16_gemm", 30), REVSPLITK, CLONE] * 60
    assert marks(gpu_trace(tmp_path / "steady.json", *steady)) == []
    # Somebody else's kernel under the same stopwatch is no problem of GemLite's.
    other = [FLUSH, ("kernel", "my_triton_kernel", 12)] * 60
    assert marks(gpu_trace(tmp_path / "other.json", *other)) == []


def test_gemlites_kernels_are_known_by_name() -> None:
    families = (CHECKOUT / "problems/gemlite_autotune/launches.py").read_text()
    table = families.split("FAMILY_OF_KERNEL = {")[1].split("}")[0]
    names = [line.split('"')[1] for line in table.splitlines() if '"' in line]
    assert len(names) == 8
    assert all(KERNEL.match(name) for name in names)
    for other in ("gemm_kernel", "gemv2T_kernel_val", "gemvNSP_kernel", "gemm_int_kernel"):
        assert not KERNEL.match(other)


def test_listed_configurations_are_found_among_the_recorded_kernels_and_the_winner_is_not() -> None:
    problem = load_problem("gemlite_autotune")
    folder = problem.folder / problem.evidence["cpu"] / "traces" / "rtx-4090" / "kernels"
    winner = folder / "m8-gemm_splitk-16x128x64-sk16-a2-w8-s1.json.gz"
    listed = folder / "m8-gemm_splitk-16x128x64-sk4-a2-w8-s3.json.gz"
    assert marks(winner) == []
    assert marks(listed) == ["gemlite_autotune:default-configuration"]
    fired = [path for path in sorted(folder.glob("m8-*")) if marks(path)]
    counted = json.loads((folder.parent / "figures.json").read_text())["m8_one_block_per_sm"]
    assert len(fired) == counted["value"] > 0
    assert not any(marks(path) for path in folder.glob("m128-*"))


def test_many_configurations_in_a_report_of_nsight_compute() -> None:
    def launch(number: int, name: str) -> KernelLaunch:
        return KernelLaunch(number, name, name, {}, grid=(number, 1, 1), block=(128, 1, 1))

    tuned = tuple(launch(n, "gemm_splitK_INT_kernel") for n in range(12))
    assert find_many_configurations(NcuReport("raw", tuned)) is not None
    assert find_many_configurations(NcuReport("raw", tuned[:3] * 9)) is None
    other = tuple(launch(n, "sgemm") for n in range(12))
    assert find_many_configurations(NcuReport("raw", other)) is None


@pytest.mark.parametrize(
    ("dequantise", "shared", "prefill", "expected"),
    [
        ("streamed", False, 0, "a-pool-per-graph"),
        ("hoisted", False, 2048, "a-pool-per-graph"),
        ("hoisted", True, 0, "a-pool-that-holds-most"),
        ("streamed", True, 0, None),  # the fix: one pool
        ("fused", True, 2048, None),  # and no temporaries
    ],
)
@pytest.mark.parametrize("pool_ids", [True, False])
def test_private_pools_in_modelled_snapshots(
    tmp_path: Path, dequantise: Dequantise, shared: bool, prefill: int, expected: str | None,
    pool_ids: bool,
) -> None:  # fmt: skip
    knobs = Knobs(dequantise=dequantise, share_pool=shared, prefill_tokens=prefill)
    allocator, _ = capture_all(Stack(), knobs)
    path = write_snapshot(tmp_path / "x.pickle", allocator, trace_pool_ids=pool_ids)
    assert marks(path) == ([f"cuda_graph_memory:{expected}"] if expected else [])


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces of one layer's experts on this CPU, by every backend."""
    import torch

    from common.recording.profilers import record_trace
    from common.workloads.moe_experts import BACKENDS, Experts
    from common.workloads.moe_routing import Picks

    folder = tmp_path_factory.mktemp("experts")
    torch.manual_seed(20251120)
    layer = Experts(8, 64, 96)
    with torch.no_grad():
        layer.gate_up_proj.normal_()
        layer.down_proj.normal_()
        for tokens in (1, 32):
            weights, chosen = torch.rand(tokens, 8).softmax(-1).topk(2)
            picks, x = Picks(experts=chosen, weights=weights), torch.randn(tokens, 64)
            for backend in BACKENDS:

                def layers(x: Any = x, picks: Any = picks, backend: Any = backend) -> None:
                    with torch.no_grad():
                        for _ in range(3):
                            layer(x, picks, backend)

                record_trace(folder / f"{backend}-{tokens}.json.gz", torch.device("cpu"), layers)
    return folder


def test_the_loop_over_experts_is_found_and_every_other_way_is_not(experts: Path) -> None:
    for path in sorted(experts.iterdir()):
        expected = ["moe_batch_scaling:expert-by-expert"] if "loop" in path.name else []
        assert marks(path) == expected, path
    facts = [f.value for f in detect(experts / "loop-32.json.gz").signatures[0].facts]
    assert facts[:3] == ["24", "24", "24"]  # 3 layers of 8 experts, all of them hit


def test_the_loop_is_found_by_its_kernels_alone(tmp_path: Path) -> None:
    look = [
        ("kernel", "void cub::DeviceReduceSingleTileKernel<NonZeroOp<bool>>", 2),
        ("kernel", "void cub::DeviceSelectSweepKernel<x>", 2),
        ("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 1),
    ]
    product = ("kernel", "ampere_bf16_s16816gemm_bf16_64x64_sliced1x2_ldg8_f2f_stages_64x5_tn", 5)
    add = ("kernel", "void at::native::index_elementwise_kernel<index_put_kernel_impl>", 2)
    visit = [*look, product, product, add]
    loop = gpu_trace(tmp_path / "loop.json", *(visit * 8))
    assert marks(loop) == ["moe_batch_scaling:expert-by-expert"]
    grouped = gpu_trace(tmp_path / "grouped.json", *([product, product, add] * 8))
    assert marks(grouped) == []


def test_the_rhythm() -> None:
    visit = [LOOK, OTHER, PRODUCT, OTHER, ADD, OTHER]
    assert len(visits(visit * 8).looks) == 8 and visits(visit * 8).with_product == 8
    # Looking alone is no loop over experts, nor is one that comes back after long.
    assert visits([LOOK, OTHER] * 20).with_product == 0
    assert visits([*visit, *[OTHER] * 100] * 8).longest_row == 1
    assert visits([]).looks == ()


def test_the_command_shows_evidence_and_refuses_what_it_cannot_read(
    tmp_path: Path, experts: Path
) -> None:
    loop, fixed = experts / "loop-32.json.gz", experts / "grouped_mm-32.json.gz"
    done = worklog(CHECKOUT, "detect", str(loop), str(fixed))
    assert done.returncode == 0
    assert "moe_batch_scaling [expert-by-expert]" in done.stdout
    assert "visits in a row: 24" in done.stdout and "next: " in done.stdout
    assert "no signature of our problems (3 looked for); this proves nothing" in done.stdout
    document = as_document(detect(loop))
    assert document["schema"] == "worklog.detect/1"
    assert document["signatures"][0]["facts"][0]["value"] == "24"
    (tmp_path / "x").write_text("nothing")
    assert_one_line_error(worklog(tmp_path, "detect", str(tmp_path / "x")), 2)
