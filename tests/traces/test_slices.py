"""Does a slice read back as its source does, and does it say exactly what was cut?"""

from __future__ import annotations

import gzip
import sqlite3
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from helpers.command import worklog

from common.errors import UsageError
from common.traces.model import GpuKind, HostKind, Trace
from common.traces.ncu import read_ncu
from common.traces.ncu_slice import is_used, slice_ncu
from common.traces.ncu_slice import read_provenance as ncu_provenance
from common.traces.nsys import read_nsys
from common.traces.nsys_slice import read_provenance, slice_nsys
from common.traces.summary import summarise_trace

NSYS = ("h100_2gpu_1s", "laptop_three_gpus", "lm_2_7B_compile_ro", "lm_2_7B_nvtx", "no_cuda",
        "saxpy_mpi_2022", "small_fwd")  # fmt: skip
NCU = ("adamw_3060ti.ncu-rep", "sgemm_a10g_0331_nan.ncu-rep", "matmul_h100.ncu-rep",
       "graph_pdl_gb200.raw.csv", "dsocr_kernel_0002.details.csv")  # fmt: skip


def totals(trace: Trace, path: Path) -> dict[str, Any]:
    return {k: v for k, v in summarise_trace(trace, path).items() if k != "path"}


def by_kernel(trace: Trace) -> dict[str, tuple[int, int]]:
    """name -> (launches, ns) of all GPU work."""
    counts: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for name, duration in zip(trace.gpu.name, trace.gpu.duration_ns, strict=True):
        counts[trace.names[name]] += 1
        times[trace.names[name]] += int(duration)
    return {name: (counts[name], times[name]) for name in counts}


@pytest.mark.parametrize("name", NSYS)
def test_a_whole_slice_says_what_its_source_says(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    source, target = real_data / "nsys" / f"{name}.sqlite.gz", tmp_path / "s.sqlite.gz"
    made = slice_nsys(source, target)
    assert target.stat().st_size <= 3 << 20
    before, after = read_nsys(source), read_nsys(target)
    assert totals(after, target) == totals(before, source)
    assert by_kernel(after) == by_kernel(before)
    assert made == read_provenance(target) and made["window_ns"] is None
    assert all(row["cut"] == 0 == row["cut_ns"] for row in made["gpu_work"].values())


@pytest.mark.parametrize("name", ["small_fwd", "h100_2gpu_1s", "laptop_three_gpus"])
def test_a_cut_slice_keeps_a_window_and_its_totals_add_up(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    source, target = real_data / "nsys" / f"{name}.sqlite.gz", tmp_path / "s.sqlite.gz"
    made = slice_nsys(source, target, 30_000)
    assert target.stat().st_size <= 30_000
    whole, kept = read_nsys(source), read_nsys(target)
    begin, end = made["window_ns"]
    inside = (whole.gpu.start_ns >= begin) & (whole.gpu.end_ns <= end)
    assert 0 < len(kept.gpu) == int(inside.sum()) < len(whole.gpu)
    # Exactly the source's work in that window: name by name, count and nanoseconds.
    expected: dict[str, tuple[int, int]] = {}
    for row in inside.nonzero()[0]:
        text = whole.names[whole.gpu.name[row]]
        count, time = expected.get(text, (0, 0))
        expected[text] = count + 1, time + int(whole.gpu.duration_ns[row])
    assert by_kernel(kept) == expected
    # The calls that launched what was kept came along.
    assert int((kept.gpu.launch == -1).sum()) == int((whole.gpu.launch[inside] == -1).sum())
    work = made["gpu_work"].values()
    assert sum(row["kept_ns"] for row in work) == int(kept.gpu.duration_ns.sum())
    assert sum(row["kept_ns"] + row["cut_ns"] for row in work) == int(whole.gpu.duration_ns.sum())
    assert sum(row["kept"] + row["cut"] for row in work) == len(whole.gpu)


def test_a_cut_begins_at_the_range_of_interest(real_data: Path, tmp_path: Path) -> None:
    source, target = real_data / "nsys" / "small_fwd.sqlite.gz", tmp_path / "s.sqlite.gz"
    whole = read_nsys(source)
    # A range that is first opened after some work was already done.
    rows = (whole.host.kind == HostKind.ANNOTATION).nonzero()[0]
    opened: dict[str, int] = {}
    for row in rows:
        opened.setdefault(whole.names[whole.host.name[row]], int(whole.host.start_ns[row]))
    first = int(whole.gpu.start_ns.min())
    name, begin = next(item for item in opened.items() if item[1] > first)
    made = slice_nsys(source, target, 30_000, interest=name)
    assert made["window_ns"][0] >= begin and made["interest"] == name
    assert int(read_nsys(target).gpu.start_ns.min()) >= begin


def test_nothing_that_names_a_machine_comes_along(real_data: Path, tmp_path: Path) -> None:
    target = tmp_path / "s.sqlite.gz"
    slice_nsys(real_data / "nsys" / "small_fwd.sqlite.gz", target)
    plain = tmp_path / "s.sqlite"
    plain.write_bytes(gzip.decompress(target.read_bytes()))
    connection = sqlite3.connect(plain)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert not any(
        word in table for table in tables for word in ("CAPTURE", "ENV", "PROCESSES", "Thread")
    )
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    texts = {row[0] for row in connection.execute("SELECT value FROM StringIds")}
    whole = read_nsys(real_data / "nsys" / "small_fwd.sqlite.gz")
    assert {t for t in texts if "/" in t} <= set(whole.names)  # no path that no event names


def test_a_strange_or_too_small_limit_is_one_line(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "nsys" / "lm_2_7B_clean.sqlite.gz"
    with pytest.raises(UsageError, match="not even one GPU activity fits 2000 bytes"):
        slice_nsys(source, tmp_path / "s", 2000)
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("CREATE TABLE a (b)").connection.commit()
    with pytest.raises(UsageError, match="no export of Nsight Systems"):
        slice_nsys(other, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def ncu_file(real_data: Path, name: str) -> Path:
    if name.endswith(".ncu-rep"):
        pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    return real_data / "ncu" / name


@pytest.mark.parametrize("name", NCU)
def test_an_ncu_slice_holds_every_value_exactly(real_data: Path, tmp_path: Path, name: str) -> None:
    source, target = ncu_file(real_data, name), tmp_path / "s.csv.gz"
    made = slice_ncu(source, target)
    before, after = read_ncu(source), read_ncu(target)
    assert after.total_ns == before.total_ns
    for one, other in zip(before.launches, after.launches, strict=True):
        assert (one.name, one.grid, one.block, one.time_ns) == (
            other.name, other.grid, other.block, other.time_ns,
        )  # fmt: skip
        for metric, value in one.metrics.items():
            if value.value not in (None, ""):
                assert other.metrics[metric].value == value.value, metric
    assert made == ncu_provenance(target) and made["launches"]["cut"] == 0
    assert (made["time_ns"]["kept"], made["time_ns"]["cut"]) == (str(before.total_ns), "0")


def test_a_cut_ncu_slice_drops_metrics_first_then_launches(real_data: Path, tmp_path: Path) -> None:
    source = ncu_file(real_data, "adamw_3060ti.ncu-rep")
    whole = read_ncu(source)
    made = slice_ncu(source, tmp_path / "fewer", 4000)
    assert made["launches"] == {"kept": len(whole.launches), "cut": 0}
    assert all(map(is_used, read_ncu(tmp_path / "fewer").launches[0].metrics))
    made = slice_ncu(source, tmp_path / "few", 2200)
    kept = read_ncu(tmp_path / "few")
    assert 0 < len(kept.launches) == made["launches"]["kept"] < len(whole.launches)
    assert [a.time_ns for a in kept.launches] == [
        a.time_ns for a in whole.launches[: len(kept.launches)]
    ]
    parts = made["time_ns"]
    assert Decimal(parts["kept"]) + Decimal(parts["cut"]) == whole.total_ns
    assert (tmp_path / "few").stat().st_size <= 2200
    with pytest.raises(UsageError, match="not even one launch"):
        slice_ncu(source, tmp_path / "none", 500)


def test_the_command_slices_shows_and_refuses(real_data: Path, tmp_path: Path) -> None:
    source = str(real_data / "nsys" / "lm_2_7B_compile_ro.sqlite.gz")
    done = worklog(tmp_path, "slice", source, "one.gz", cwd=tmp_path)
    assert done.returncode == 0 and '"gpu_work"' in done.stdout, done.stderr
    assert int((read_nsys(tmp_path / "one.gz").gpu.kind == GpuKind.GRAPH).sum()) == 10
    again = worklog(tmp_path, "slice", source, "one.gz", cwd=tmp_path)
    assert again.returncode == 2 and "name a new file" in again.stderr
    torch = str(real_data / "torch" / "bert_small_h100.json.gz")
    wrong = worklog(tmp_path, "slice", torch, "two.gz", cwd=tmp_path)
    assert wrong.returncode == 2 and "give an nsys" in wrong.stderr
