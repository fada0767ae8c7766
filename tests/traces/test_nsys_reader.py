"""Small Nsight Systems databases with known answers, and files that are none."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from helpers.trace_files import KERNEL_COLUMNS, NsysFile, process, write

from common.errors import PreconditionError, UsageError
from common.traces.formats import open_trace
from common.traces.model import GpuKind, HostKind, Trace
from common.traces.nsys import read_nsys
from common.traces.nsys_report import export_command
from common.traces.summary import summarise_trace


def launches(trace: Trace) -> list[str | None]:
    return [
        None if row < 0 else trace.names[int(trace.host.name[row])]
        for row in trace.gpu.launch.tolist()
    ]


def kinds(trace: Trace) -> dict[str, int]:
    return {caution.kind: caution.count for caution in trace.warnings}


@pytest.fixture
def small(tmp_path: Path) -> NsysFile:
    return NsysFile(tmp_path / "small.sqlite")


def test_work_is_joined_by_process_and_correlation_id(small: NsysFile) -> None:
    small.call("cudaLaunchKernel_v7000", 10, 12, 1, pid=5)
    small.call("cuLaunchKernel", 11, 13, 1, pid=6)
    small.kernel("a", 20, 25, 1, pid=5)
    small.kernel("b", 21, 30, 1, pid=6, device=1)
    small.kernel("c", 40, 41, 1, pid=7)
    trace = read_nsys(small.done())
    assert launches(trace) == ["cudaLaunchKernel", "cuLaunchKernel", None]
    assert trace.threads == ("5/5", "6/6")
    found = summarise_trace(trace, small.path)
    assert [d["busy_ns"] for d in found["devices"]] == [6, 9] and found["unlinked_ns"] == 1


def test_a_table_is_found_by_its_columns_under_any_name(tmp_path: Path) -> None:
    later = NsysFile(tmp_path / "later.sqlite", kernels="GPU_KERNELS_OF_2031")
    later.kernel("a", 1, 5, 1)
    assert read_nsys(later.done()).gpu.duration_ns.tolist() == [4]


def test_a_copy_of_a_table_is_not_counted_again(small: NsysFile) -> None:
    small.kernel("a", 1, 5, 1)
    small.db.execute("CREATE TABLE backup AS SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL")
    assert read_nsys(small.done()).gpu.duration_ns.tolist() == [4]


def test_columns_that_are_not_there_are_unknown(small: NsysFile) -> None:
    small.table("CUPTI_ACTIVITY_KIND_KERNEL", KERNEL_COLUMNS.replace(", graphNodeId INTEGER", ""))
    row = (1, 5, 0, 1, 7, 3, process(5), small.text("a"), None, 1, 1)
    marks = ",".join("?" * len(row))
    small.db.execute(f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({marks})", row)
    trace = read_nsys(small.done())
    assert trace.gpu.graph_node.tolist() == [-1] and trace.gpu.correlation.tolist() == [3]


def test_a_graph_counts_once_whether_traced_whole_or_by_node(small: NsysFile) -> None:
    small.call("cudaGraphLaunch_v10000", 1, 2, 1)
    small.call("cudaGraphLaunch_v10000", 3, 4, 2)
    small.graph(10, 110, 1)
    small.graph(200, 300, 2)
    small.kernel("node", 210, 250, 2, node=9)
    small.kernel("node", 250, 290, 2, node=10)
    trace = read_nsys(small.done())
    assert trace.gpu.kind.tolist() == [GpuKind.GRAPH, GpuKind.KERNEL, GpuKind.KERNEL]
    found = summarise_trace(trace, small.path)
    assert found["gpu_time_ns"] == 180 == found["graph_launched_ns"]
    assert kinds(trace) == {"graph traced twice": 1}
    assert trace.gpu.graph_node.tolist() == [-1, 9, 10]


def test_ranges_are_named_by_text_or_by_id(small: NsysFile) -> None:
    small.nvtx("own text", 1, 10)
    small.nvtx(None, 2, 5, text_id=small.text("registered"))
    small.nvtx("open", 3, None)
    small.nvtx("free", 4, 20, kind=60)
    small.nvtx("mark", 5, None, kind=34)
    trace = read_nsys(small.done())
    assert [trace.names[n] for n in trace.host.name.tolist()] == ["own text", "registered", "free"]
    assert trace.host.kind.tolist() == [
        HostKind.ANNOTATION, HostKind.ANNOTATION, HostKind.RANGE,
    ]  # fmt: skip
    assert trace.counts["nvtx"] == 5 and trace.counts["nvtx_push_pop"] == 3
    assert kinds(trace) == {"nvtx_push_pop open": 1}


def test_rows_with_impossible_times_are_counted_and_left_out(small: NsysFile) -> None:
    small.kernel("good", 1, 5, 1)
    small.kernel("negative", 9, 2, 2)
    small.kernel("ancient", 1, 10**18, 3)
    small.db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET gridX = 2")
    small.kernel("no end", 1, 5, 4)
    small.db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = NULL WHERE correlationId = 4")
    trace = read_nsys(small.done())
    assert trace.gpu.duration_ns.tolist() == [4]
    assert kinds(trace) == {"negative": 1, "too long": 1, "kernel without times": 1}


def test_each_process_with_its_own_device_0_has_its_own_gpu(small: NsysFile) -> None:
    small.table("TARGET_INFO_CUDA_DEVICE", "gpuId INTEGER, cudaId INTEGER, pid INTEGER")
    small.db.executemany("INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (?, 0, ?)", [(0, 5), (1, 6)])
    small.table("TARGET_INFO_GPU", "id INTEGER, name TEXT, smCount INTEGER, cuDevice INTEGER")
    small.db.executemany(
        "INSERT INTO TARGET_INFO_GPU VALUES (?, ?, 9, ?)", [(0, "A", 0), (1, "B", 1)]
    )
    small.kernel("a", 1, 5, 1, pid=5)
    small.kernel("a", 1, 5, 1, pid=6)
    found = summarise_trace(read_nsys(small.done()), small.path)
    assert [(d["id"], d["name"], d["busy_ns"]) for d in found["devices"]] == [
        (0, "A", 4), (1, "B", 4),
    ]  # fmt: skip


def test_views_are_not_read(small: NsysFile) -> None:
    small.kernel("a", 1, 5, 1)
    small.db.execute("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME TO hidden")
    columns = "start, end, deviceId, demangledName, 1 AS bytes, 1 AS copyKind"
    small.db.execute(f"CREATE VIEW CUPTI_ACTIVITY_KIND_MEMCPY AS SELECT {columns} FROM hidden")
    small.db.execute("DELETE FROM hidden")
    small.db.execute(
        "CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS SELECT 1 AS start, 9 AS end, 0 AS deviceId, "
        "1 AS demangledName, abs(-9223372036854775808) AS correlationId"
    )
    assert len(read_nsys(small.done()).gpu) == 0


def test_what_is_no_export_gets_one_line(small: NsysFile, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE people (name TEXT)")
    db.close()
    for at in range(400):
        small.kernel(f"kernel {at} " + "x" * 300, at * 10, at * 10 + 5, at)
    whole = small.done().read_bytes()
    damaged = bytearray(whole)
    damaged[4096 : len(whole) - 4096] = b"\xff" * (len(whole) - 8192)
    cases = {
        "no export of Nsight Systems": other.read_bytes(),
        "cut off": whole[: len(whole) // 2],
        "damaged|cannot be read": bytes(damaged),
        "SQLite file": whole[:60],
    }
    for says, content in cases.items():
        for path in (
            write(tmp_path / "x.sqlite", content),
            write(tmp_path / "x.sqlite.gz", gzip.compress(content)),
        ):
            with pytest.raises(UsageError, match=f"{says}|cut off") as caught:
                open_trace(path)
            assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    cut = write(tmp_path / "y.sqlite.gz", gzip.compress(whole)[:-200])
    with pytest.raises(UsageError, match="cannot be unpacked"):
        open_trace(cut)


def test_a_locked_or_unfinished_database_is_refused(small: NsysFile) -> None:
    small.kernel("a", 1, 5, 1)
    path = small.done()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError, match="locked by another program"):
        read_nsys(path)
    writer.execute("ROLLBACK")
    writer.close()
    assert len(read_nsys(path).gpu) == 1
    path.with_name(path.name + "-wal").write_bytes(b"x" * 40)
    with pytest.raises(UsageError, match="left unfinished"):
        read_nsys(path)


def test_a_database_in_wal_mode_is_read_without_a_file_beside_it(small: NsysFile) -> None:
    small.kernel("a", 1, 5, 1)
    small.db.commit()
    small.db.execute("PRAGMA journal_mode = WAL")
    path = small.done()
    assert len(read_nsys(path).gpu) == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


REPORT = b"NVIDIA Tegra Profiler Report 2025@5@1@121-255136380782v0.\n"


def fake_nsys(folder: Path, script: str) -> None:
    """An `nsys` of the given behaviour; the real one cannot be installed for tests."""
    tool = folder / "bin" / "nsys"
    tool.parent.mkdir()
    version = "echo 'NVIDIA Nsight Systems version 2023.4.4.54-234433681190v0'; exit 0"
    tool.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then {version}; fi\n{script}\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def test_a_report_without_nsys_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = write(tmp_path / "r.nsys-rep", REPORT)
    with pytest.raises(PreconditionError, match="install Nsight Systems"):
        open_trace(path)


def test_a_report_is_exported_and_read(
    small: NsysFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.kernel("a", 1, 5, 1)
    fake_nsys(tmp_path, f'for last; do :; done; test -s "$last" && cp {small.done()} "$7"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert export_command("nsys", Path("r"), Path("t"))[6:] == ["--output", "t", "r"]
    # The script above copies to its seventh argument, which is --output's.
    for path in (
        write(tmp_path / "r.nsys-rep", REPORT),
        write(tmp_path / "r.nsys-rep.gz", gzip.compress(REPORT)),
    ):
        assert open_trace(path).gpu.duration_ns.tolist() == [4]


def test_a_report_newer_than_nsys_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nsys(tmp_path, "echo 'cannot load' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    path = write(tmp_path / "r.nsys-rep", REPORT)
    with pytest.raises(UsageError, match=r"by nsys 2025.5.1, which is newer .* 2023.4.4; install"):
        open_trace(path)
    old = write(tmp_path / "o.nsys-rep", b"NVIDIA Tegra Profiler Report 1.\n")
    with pytest.raises(UsageError, match=r"refused by nsys 2023.4.4 \(cannot load\)"):
        open_trace(old)


def test_real_reports_are_exported_or_refused_by_the_installed_nsys(real_data: Path) -> None:
    """The first was written by nsys 2022.4, the second by 2025.5."""
    if shutil.which("nsys") is None:
        pytest.skip("nsys is not installed, docker/ci-tools.sh installs it")
    expected = json.loads((real_data / "expected.json").read_text())["files"]
    name = "nsys/nvtx_only_2022.nsys-rep"
    trace = open_trace(real_data / name)
    assert trace.counts["nvtx"] == expected[name]["export"]["nvtx_rows"]
    assert {device.name: 1 for device in trace.devices} == expected[name]["export"]["gpus_listed"]
    with pytest.raises(UsageError, match=r"2025\.5\.1, which is newer than the installed nsys"):
        open_trace(real_data / "nsys/graph_pdl_gb200.nsys-rep")
