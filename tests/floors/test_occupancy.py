"""Blocks per SM, against real reports of Nsight Compute and NVIDIA's own calculator."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from common.errors import UsageError
from common.experiments.request import packages_root
from common.floors.occupancy import SM_LIMITS, occupancy, sm_limits, waves
from common.traces.ncu import read_ncu
from common.traces.ncu_model import KernelLaunch

REPORTS = {
    "toy_2080ti.ncu-rep": "7.5",
    "adamw_3060ti.ncu-rep": "8.6",
    "sgemm_a10g_0304.ncu-rep": "8.6",
    "sgemm_a10g_0310.ncu-rep": "8.6",
    "sgemm_a10g_0331_nan.ncu-rep": "8.6",
    "warptiling_a10g_0423.ncu-rep": "8.6",
    "warptiling_a10g_0516.ncu-rep": "8.6",
    "matmul_h100.ncu-rep": "9.0",
    "graph_pdl_gb200.ncu-rep": "10.0",
}
# (capability, threads, registers, shared bytes) -> (blocks, what limits), worked out by hand from
# the tables of the CUDA C++ Programming Guide.
BY_HAND = {
    ("8.9", 32, 55, 0): (24, ("blocks",)),
    ("8.9", 32, 79, 0): (24, ("blocks", "registers")),
    ("8.9", 32, 168, 0): (12, ("registers",)),
    ("8.9", 32, 255, 0): (8, ("registers",)),
    ("8.9", 64, 48, 0): (20, ("registers",)),
    ("8.9", 64, 95, 0): (10, ("registers",)),
    ("8.9", 128, 40, 0): (12, ()),
    ("8.9", 128, 95, 0): (5, ("registers",)),
    ("8.9", 128, 247, 0): (2, ("registers",)),
    ("8.9", 128, 152, 0): (3, ("registers",)),
    ("8.9", 256, 64, 18_432): (4, ("registers",)),
    ("8.9", 256, 80, 87_040): (1, ("shared memory",)),
    ("8.9", 128, 92, 90_624): (1, ("shared memory",)),
    ("8.9", 128, 199, 101_376): (1, ("shared memory",)),
    ("8.9", 128, 199, 101_377): (0, ("shared memory",)),
    ("8.9", 256, 80, 32_768): (3, ("registers", "shared memory")),
    ("9.0", 128, 32, 232_448): (1, ("shared memory",)),
    ("9.0", 128, 32, 232_449): (0, ("shared memory",)),
    ("9.0", 1024, 64, 0): (1, ("registers",)),
    ("9.0", 1024, 32, 0): (2, ()),
    ("9.0", 32, 32, 0): (32, ("blocks",)),
    ("12.0", 1024, 32, 0): (1, ("warps",)),
    ("12.0", 384, 40, 0): (4, ()),
    ("8.6", 64, 24, 0): (16, ("blocks",)),
    ("8.0", 256, 65, 0): (3, ("registers",)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_known_cases(case: tuple[str, int, int, int]) -> None:
    found = occupancy(*case)
    assert (found.blocks, found.limiter) == BY_HAND[case]


def of_launch(launch: KernelLaunch, capability: str) -> tuple[dict[str, int], float]:
    def number(name: str) -> int:
        value = launch.number(name)
        assert value is not None, name
        return int(value)

    found = occupancy(
        capability,
        number("launch__block_size"),
        number("launch__registers_per_thread"),
        number("launch__shared_mem_per_block_static")
        + number("launch__shared_mem_per_block_dynamic"),
        number("launch__shared_mem_config_size"),
    )
    return dict(found.blocks_by), 100 * found.share


def test_limits_are_those_inside_real_reports(real_data: Path) -> None:
    pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    compared = 0
    for name, capability in REPORTS.items():
        for launch in read_ncu(real_data / "ncu" / name).launches:
            if launch.number("launch__block_size") is None:
                continue  # a whole graph, which has no block of its own
            limits, share = of_launch(launch, capability)
            for what, metric in (
                ("blocks", "launch__occupancy_limit_blocks"),
                ("warps", "launch__occupancy_limit_warps"),
                ("registers", "launch__occupancy_limit_registers"),
                ("shared memory", "launch__occupancy_limit_shared_mem"),
            ):
                assert limits[what] == launch.number(metric), (name, launch.name, what)
            theoretical = launch.number("sm__maximum_warps_per_active_cycle_pct")
            if theoretical is not None:
                assert share == pytest.approx(float(theoretical), abs=0.01), name
            compared += 1
    assert compared >= 30


def test_as_nvidias_own_calculator_says(tmp_path: Path) -> None:
    header = packages_root() / "triton-3.9.0" / "triton" / "backends" / "nvidia" / "include"
    compiler = shutil.which("g++")
    assert compiler and (header / "cuda_occupancy.h").is_file()
    program = tmp_path / "reference"
    source = Path(__file__).with_name("occupancy_reference.cpp")
    subprocess.run([compiler, f"-I{header}", str(source), "-o", str(program)], check=True)
    draw = random.Random(20261121)
    cases = [
        (capability, 32 * draw.randint(1, 32), draw.randint(1, 255), draw.randint(0, 240_000))
        for capability in ("7.5", "8.0", "8.6", "8.9", "9.0")
        for _ in range(2_000)
    ]
    lines = []
    for capability, threads, registers, shared in cases:
        sm = sm_limits(capability)
        lines.append(
            f"{capability} {threads} {registers} {shared} "
            f"{sm.shared_bytes} {sm.shared_bytes_per_block} {sm.warps}"
        )
    done = subprocess.run(
        [str(program)], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    answers = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases)
    for case, (code, blocks, *_limits) in zip(cases, answers, strict=True):
        if code == 0:
            assert occupancy(*case).blocks == blocks, case
    assert sum(code == 0 for code, *_ in answers) > 9_000


def test_waves_and_their_tail() -> None:
    found = waves(2048, 128, 12)
    assert (round(found.count, 2), found.full, round(found.tail, 2)) == (1.33, 1, 0.33)
    assert waves(1536, 128, 12).tail == 0
    with pytest.raises(UsageError, match="kernel that can launch"):
        waves(16, 128, 0)


def test_what_is_no_block_or_no_architecture_is_said() -> None:
    with pytest.raises(UsageError, match="give 1 to 1024 threads"):
        occupancy("8.9", 2048, 32, 0)
    with pytest.raises(UsageError, match=r"there are 7\.5, 8\.0"):
        occupancy("6.1", 128, 32, 0)
    assert set(SM_LIMITS) >= {"8.9", "9.0", "12.0"}
