"""Every Nsight Compute file of the test data, against figures that were computed independently."""

from __future__ import annotations

import gzip
import importlib.util
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.errors import PreconditionError, UsageError
from common.traces.ncu import base_name, metrics_of_interest, read_ncu, reading, summary
from common.traces.ncu_rep import MAGIC, frame

needs_ncu_report = pytest.mark.skipif(
    importlib.util.find_spec("ncu_report") is None, reason="ncu-report is not installed"
)
FIXED_COLUMNS = 11


@needs_ncu_report
def test_a_report_has_every_launch_metric_and_nanosecond(
    real_data: Path, facts: dict[str, Any], ncu_file: str
) -> None:
    report, expected = read_ncu(real_data / ncu_file), facts[ncu_file]
    found = [
        {
            "name": launch.base_name,
            "demangled": launch.name,
            "metrics": len(launch.metrics),
            "device": launch.device_name,
            "gpu__time_duration.sum": launch.time_ns,
            "unit": launch.metrics["gpu__time_duration.sum"].unit or "ns",
        }
        for launch in report.launches
    ]
    assert found == expected["actions"]
    assert report.total_ns == expected["total_ns"]
    assert summary(report)["gpu_time_ns"] == expected["total_ns"]
    assert all(launch.grid and launch.block for launch in report.launches if launch.time_ns)


@needs_ncu_report
def test_our_base_name_agrees_with_nvidias(
    real_data: Path, facts: dict[str, Any], ncu_file: str
) -> None:
    for action in facts[ncu_file]["actions"]:
        assert base_name(action["demangled"]) == action["name"]


def test_a_csv_gives_back_what_it_printed(
    real_data: Path, facts: dict[str, Any], ncu_csv_file: str
) -> None:
    report, expected = read_ncu(real_data / ncu_csv_file), facts[ncu_csv_file]
    assert report.kind == expected["page"]
    assert report.rows == expected["rows"]
    assert report.columns == expected.get("columns", report.columns)
    assert [[str(x.launch_id), x.name] for x in report.launches] == expected["launches"]
    durations = [(x.launch_id, x.metrics["gpu__time_duration.sum"]) for x in report.launches]
    assert [[str(i), m.printed, m.printed_unit] for i, m in durations] == expected["durations"]
    assert all(x.grid and x.block and x.compute_capability for x in report.launches)
    if report.kind == "raw":
        assert {len(x.metrics) for x in report.launches} == {report.columns - FIXED_COLUMNS}


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("toy_2080ti.details.csv", 1_170_000_000 + 993_020),  # 1.17 second + 993.02 usecond
        ("toy_2080ti.raw.csv", 1_168_078_000 + 993_000),  # six decimals of a second
        ("graph_pdl_gb200.raw.csv", 14_944),  # no units: base units
        ("graph_pdl_gb200.details.csv", 14_944),
        ("dsocr_kernel_0001.metrics.csv", 6_750),
        ("dsocr_kernel_0004.details.csv", 4_700),
    ],
)
def test_mixed_units_become_nanoseconds_exactly(real_data: Path, name: str, total: int) -> None:
    assert read_ncu(real_data / "ncu" / name).total_ns == total


def test_the_resolution_of_a_rounded_csv_covers_the_true_value(
    real_data: Path, facts: dict[str, Any]
) -> None:
    true = [a["gpu__time_duration.sum"] for a in facts["ncu/toy_2080ti.ncu-rep"]["actions"]]
    for page in ("raw", "details"):
        launches = read_ncu(real_data / f"ncu/toy_2080ti.{page}.csv").launches
        for launch, nanoseconds in zip(launches, true, strict=True):
            metric = launch.metrics["gpu__time_duration.sum"]
            assert metric.number is not None and metric.resolution is not None
            assert abs(metric.number - Decimal(nanoseconds)) <= metric.resolution / 2


@needs_ncu_report
@pytest.mark.parametrize("name", ["toy_2080ti", "graph_pdl_gb200"])
@pytest.mark.parametrize("page", ["raw", "details"])
def test_a_csv_agrees_with_its_report_metric_by_metric(
    real_data: Path, name: str, page: str
) -> None:
    report = read_ncu(real_data / f"ncu/{name}.ncu-rep")
    text = read_ncu(real_data / f"ncu/{name}.{page}.csv")
    compared = 0
    for a, b in zip(report.launches, text.launches, strict=True):
        assert (a.name, a.grid, a.block, a.stream) == (b.name, b.grid, b.block, b.stream)
        for metric_name, printed in b.metrics.items():
            stored = a.metrics.get(metric_name)
            if stored is None or stored.number is None or printed.number is None:
                continue
            assert printed.resolution is not None
            last_bit = Decimal(math.ulp(float(stored.number)))
            allowed = max(printed.resolution / 2, last_bit)
            assert abs(Decimal(stored.number) - printed.number) <= allowed, metric_name
            compared += 1
    assert compared > 40


@needs_ncu_report
def test_a_nan_duration_is_unknown_and_said(real_data: Path) -> None:
    report = read_ncu(real_data / "ncu/sgemm_a10g_0331_nan.ncu-rep")
    assert report.launches[-1].time_ns is None
    assert "launches without a duration (NaN), not in the total: 1" in report.warnings
    assert len(summary(report)["devices"]) == 1


@needs_ncu_report
@pytest.mark.parametrize(
    ("name", "launch", "beginning"),
    [
        ("adamw_3060ti", 0, "Memory-bound in DRAM (memory 92 %"),
        ("matmul_h100", 0, "Memory-bound in the caches, not in DRAM (memory 99 %"),
        ("toy_2080ti", 0, "Compute-bound (memory 9 %"),
        ("graph_pdl_gb200", 0, "Latency-bound: the grid fills only less than 1 % of the GPU"),
        ("warptiling_a10g_0516", 1, "Memory-bound in DRAM (memory 77 %"),
        ("sgemm_a10g_0331_nan", 5, "Cannot tell what limits it: nothing collected"),
    ],
)
def test_the_reading_of_real_kernels(
    real_data: Path, name: str, launch: int, beginning: str
) -> None:
    assert reading(read_ncu(real_data / f"ncu/{name}.ncu-rep").launches[launch]).startswith(
        beginning
    )


@needs_ncu_report
def test_figures_of_a_real_kernel(real_data: Path) -> None:
    figures = metrics_of_interest(read_ncu(real_data / "ncu/adamw_3060ti.ncu-rep").launches[0])
    assert (figures.dram_read_bytes, figures.dram_write_bytes) == (16_806_528, 12_294_272)
    assert (figures.registers_per_thread, figures.dynamic_shared_bytes) == (26, 8192)
    assert (figures.local_loads, figures.local_stores, figures.spill_loads) == (0, 0, None)
    assert figures.occupancy_limiter == ()
    assert figures.instruction_mix is not None
    assert figures.instruction_mix["FFMA"] == 196_608
    assert sum(figures.instruction_mix.values()) == figures.instructions == 2_064_384


@needs_ncu_report
@pytest.mark.parametrize("name", ["sgemm_a10g_0304.ncu-rep", "toy_2080ti.raw.csv"])
def test_a_gzipped_file_reads_the_same(real_data: Path, tmp_path: Path, name: str) -> None:
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress((real_data / "ncu" / name).read_bytes()))
    assert read_ncu(packed) == read_ncu(real_data / "ncu" / name)


@needs_ncu_report
def test_a_report_cut_between_launches_says_what_is_missing(
    real_data: Path, tmp_path: Path
) -> None:
    data = (real_data / "ncu/adamw_3060ti.ncu-rep").read_bytes()
    assert frame(data).is_whole and frame(data).results == 4
    cut = tmp_path / "cut.ncu-rep"
    cut.write_bytes(data[: len(data) // 2])
    report = read_ncu(cut)
    assert [launch.time_ns for launch in report.launches] == [72640]
    assert "the report is cut short; launches read before the cut: 1" in report.warnings


def test_every_report_is_whole_and_every_cut_is_noticed(real_data: Path, ncu_file: str) -> None:
    data = (real_data / ncu_file).read_bytes()
    assert frame(data).is_whole
    for part in (8, 100, len(data) // 3, len(data) // 2, len(data) - 1):
        assert not frame(data[:part]).is_whole


def test_a_report_cut_before_its_first_launch_is_an_error(real_data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ncu-rep"
    cut.write_bytes((real_data / "ncu/sgemm_a10g_0304.ncu-rep").read_bytes()[:300])
    with pytest.raises(UsageError, match="cut short before its first launch"):
        read_ncu(cut)


def in_place_of_nvidias(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Another `ncu_report` for the process that reads reports."""
    (folder / "ncu_report.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


REPORT = MAGIC + bytes(4)  # the frame of a report without a block: whole, and holding nothing


def test_without_ncu_report_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of_nvidias(monkeypatch, tmp_path, "raise ImportError('none')")
    (tmp_path / "x.ncu-rep").write_bytes(REPORT)
    with pytest.raises(PreconditionError, match="pip install ncu-report==") as caught:
        read_ncu(tmp_path / "x.ncu-rep")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os\ndef load_report(path): os.abort()", "ended with SIGABRT on it"),
        ("import os\ndef load_report(path): os.kill(os.getpid(), 11)", "ended with SIGSEGV on it"),
        ("import os\ndef load_report(path): os._exit(0)", "gave nothing"),
        ("def load_report(path): raise RuntimeError('two\\nlines')", "cannot read it"),
    ],
)
def test_a_report_that_ends_nvidias_reader_does_not_end_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    in_place_of_nvidias(monkeypatch, tmp_path, code)
    (tmp_path / "x.ncu-rep").write_bytes(REPORT)
    with pytest.raises(UsageError, match=says) as caught:
        read_ncu(tmp_path / "x.ncu-rep")
    assert "\n" not in str(caught.value) and "again" in str(caught.value)
