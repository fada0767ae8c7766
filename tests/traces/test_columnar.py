"""Tables for other programs: exact, null for unknown, and nothing is ever overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.command import CHECKOUT, assert_one_line_error, environment, worklog
from helpers.snapshots import MIB, block, event, segment, snapshot
from helpers.snapshots import write as write_snapshot
from helpers.trace_files import call, document, kernel, write
from helpers.trace_files import event as trace_event

from common.errors import UsageError
from common.traces.columnar import SCHEMA, clean, looked_up, tables_of, write_parquet
from common.traces.formats import open_any

KINDS = ("torch", "nsys", "ncu", "ncu_csv", "memory")


def _real(kind: str) -> list[str]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return ["(no data)"]
    files = json.loads(Path(place, "expected.json").read_text(encoding="utf-8"))["files"]
    return [name for name, facts in files.items() if facts["kind"] == kind and len(facts) > 2]


def converted(path: Path, folder: Path) -> dict[str, pa.Table]:
    """The tables of a file, through Parquet."""
    found, content = open_any(path)
    written = write_parquet(tables_of(found, content, path.name), folder)
    return {place.stem: pq.read_table(place) for place in written}


def total(column: Any) -> int:
    return pc.sum(column).as_py() or 0


@pytest.mark.parametrize("name", _real("torch") + _real("nsys"))
def test_a_trace_keeps_its_totals(
    name: str, real_data: Path, facts: dict[str, Any], tmp_path: Path
) -> None:
    if facts[name].get("gpu_ns") is None:
        return  # the file gets an error, which other tests are about
    tables = converted(real_data / name, tmp_path / "out")
    gpu, expected = tables["gpu"], facts[name]
    assert total(gpu["duration_ns"]) == expected["gpu_ns"]
    by_kind = expected.get("by_kind") or {
        **{kind: expected[kind] for kind in ("kernel", "memcpy", "memset")},
        "graph": expected["graph_trace"],
    }
    kinds = gpu["kind"].cast(pa.string())
    for kind, wanted in by_kind.items():
        rows = gpu.filter(pc.equal(kinds, kind))
        assert (rows.num_rows, total(rows["duration_ns"])) == (wanted["count"], wanted["ns"])
    names = gpu.filter(pc.equal(kinds, "kernel"))["name"].cast(pa.string())
    for kernel_name, count, ns in expected["top_kernels"]:
        rows = gpu.filter(
            pc.and_(pc.equal(kinds, "kernel"), pc.equal(gpu["name"].cast(pa.string()), kernel_name))
        )
        assert (rows.num_rows, total(rows["duration_ns"])) == (count, ns)
    assert len(pc.unique(names)) == expected["kernel_names"]
    metadata = dict(
        zip(*(tables["metadata"][c].to_pylist() for c in ("key", "value")), strict=True)
    )
    assert metadata["schema"] == SCHEMA
    launches = gpu["launch"].drop_null()
    assert set(tables["host"].take(launches)["kind"].cast(pa.string()).to_pylist()) <= {"runtime"}


@pytest.mark.parametrize("name", _real("memory"))
def test_a_snapshot_keeps_its_totals(
    name: str, real_data: Path, facts: dict[str, Any], tmp_path: Path
) -> None:
    tables, expected = converted(real_data / name, tmp_path / "out"), facts[name]
    segments, blocks = tables["segments"], tables["blocks"]
    assert segments.num_rows == expected["segments"]
    assert total(segments["total_bytes"]) == expected["reserved"]
    states = {row["values"]: row["counts"] for row in pc.value_counts(blocks["state"]).to_pylist()}
    assert states == expected["blocks_by_state"]
    used = blocks.filter(pc.equal(blocks["state"].cast(pa.string()), "active_allocated"))
    assert total(used["requested_bytes"]) == expected["requested"]
    assert tables["events"].num_rows == expected["trace_events"]
    assert pc.count(tables["events"]["stack"]).as_py() == expected["events_with_frames"]
    peaks = {
        str(row["device"]): row["peak_bytes"]
        for row in tables["levels"].to_pylist()
        if row["quantity"] == "allocated"
    }
    known = expected["replay_by_device"]
    assert peaks == {device: levels["allocated"]["peak"] for device, levels in known.items()}


@pytest.mark.parametrize("name", _real("ncu"))
def test_a_report_keeps_its_metrics(
    name: str, real_data: Path, facts: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    tables, expected = converted(real_data / name, tmp_path / "out"), facts[name]
    assert total(tables["launches"]["duration_ns"]) == (expected["total_ns"] or 0)
    per_launch = [action["demangled"] for action in expected["actions"]]
    assert tables["launches"]["name"].to_pylist() == per_launch
    exact = [
        row
        for row in tables["metrics"].to_pylist()
        if row["integer"] is not None and row["value"] != str(row["integer"])
    ]
    assert all(float(row["value"]) == row["integer"] for row in exact)


def test_unknown_is_null_and_zero_is_zero(tmp_path: Path) -> None:
    text = document(
        kernel("k", "1000000000000000.001", "0", None),
        call("cudaLaunchKernel", "5", "1.5", 9),
        trace_event("cpu_op", "aten::mul", "4", "3"),
    )
    tables = converted(write(tmp_path / "trace.json", text), tmp_path / "out")
    row = tables["gpu"].to_pylist()[0] if tables["gpu"].num_rows else {}
    assert tables["host"]["correlation"].to_pylist().count(None) == 1
    assert row == {} or (row["launch"], row["duration_ns"]) == (None, 0)
    assert -1 not in {value for t in tables.values() for c in t.columns for value in c.to_pylist()}


def test_times_are_exact_integers(tmp_path: Path) -> None:
    text = document(kernel("k", "1719000000123456.789", "0.001", 7))
    row = converted(write(tmp_path / "t.json", text), tmp_path / "out")["gpu"].to_pylist()[0]
    assert (row["start_ns"], row["end_ns"]) == (1719000000123456789, 1719000000123456790)


@pytest.mark.parametrize(
    "name",
    ["", "a\x00b", '"; DROP TABLE gpu; --', "🔥" * 50, "<script>", "\u202eevil", "x" * 99_999],
)
def test_hostile_names_come_back_as_they_are(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", document(kernel(name, "1", "2", 3)))
    tables = converted(path, tmp_path / "out")
    assert tables["gpu"]["name"].to_pylist() == [name]


def test_text_that_is_not_utf8_is_written_as_it_was_read(tmp_path: Path) -> None:
    text = document(kernel("NAME", "1", "2", 3)).encode().replace(b"NAME", b"caf\xe9")
    tables = converted(write(tmp_path / "t.json", text), tmp_path / "out")
    assert tables["gpu"]["name"].to_pylist() == ["caf\ufffd"]


def test_half_a_surrogate_pair_is_written_out_and_names_that_meet_are_one() -> None:
    assert clean("a\ud800b") == r"a\ud800b"
    numbers = np.array([0, 1, 2, -1, 1], dtype=np.int64)
    column = looked_up(numbers, ["a\ud800", r"a\ud800", "c", "unused"], unknown=-1)
    assert column.to_pylist() == [r"a\ud800", r"a\ud800", "c", None, r"a\ud800"]
    assert len(column.dictionary) == 2


def test_a_trace_without_anything_has_empty_tables_of_the_same_columns(tmp_path: Path) -> None:
    full = converted(write(tmp_path / "a.json", document(kernel("k", "1", "2", 3))), tmp_path / "a")
    empty = converted(write(tmp_path / "b.json", document()), tmp_path / "b")
    assert full.keys() == empty.keys()
    for name, found in empty.items():
        assert found.schema.equals(full[name].schema, check_metadata=False), name
    assert empty["gpu"].num_rows == 0


def test_every_file_names_its_schema_and_source(tmp_path: Path) -> None:
    tables = converted(write(tmp_path / "t.json", document()), tmp_path / "out")
    for found in tables.values():
        marks = found.schema.metadata
        assert marks[b"worklog.schema"] == SCHEMA.encode()
        assert marks[b"worklog.file"] == b"t.json" and marks[b"worklog.source"] == b"torch"


def test_a_snapshot_with_pools_and_two_devices(tmp_path: Path) -> None:
    first = segment(0x1000, [block(0x1000, MIB)], segment_pool_id=(0, 3))
    second = segment(0x9000, [block(0x9000, MIB)], device=1)
    history = [event("alloc", 0x1000, MIB), event("segment_alloc", 0x1000, MIB)]
    path = write_snapshot(tmp_path, snapshot([first, second], history, history[:1]))
    tables = converted(path, tmp_path / "out")
    assert tables["segments"]["pool"].to_pylist() == ["private pool", "default pool"]
    assert tables["segments"]["pool_number"].to_pylist() == [3, 0]
    assert tables["events"]["device"].to_pylist() == [0, 0, 1]
    assert tables["events"]["time_us"].null_count == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", document(kernel("k", "1", "2", 3)))
    target = tmp_path / "out"
    target.mkdir()
    converted(path, target)  # an empty folder is welcome
    before = {place.name: place.stat().st_mtime_ns for place in target.iterdir()}
    with pytest.raises(UsageError, match="is not empty; give a new folder"):
        converted(path, target)
    assert {place.name: place.stat().st_mtime_ns for place in target.iterdir()} == before
    with pytest.raises(UsageError, match="is a file"):
        converted(path, path)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["out", "t.json"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.json", document(kernel("k", "1", "2", 3)))
    plain, written = pq.write_table, []

    def full_disk(*arguments: Any, **options: Any) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(arguments)
        plain(*arguments, **options)

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space"):
        converted(path, tmp_path / "out")
    assert [place.name for place in tmp_path.iterdir()] == ["t.json"]


def test_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", document(kernel("k", "1", "2", 3)))
    done = worklog(tmp_path, "convert", str(path), "--parquet", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "out/gpu.parquet: 1 rows" in done.stdout
    again = worklog(tmp_path, "convert", str(path), "--parquet", "out")
    assert "is not empty" in assert_one_line_error(again, 2)
    missing = worklog(tmp_path, "convert", "none.json", "--parquet", "new")
    assert_one_line_error(missing, 2)
    assert not (tmp_path / "new").exists()


def test_frames_are_exact(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    from common.traces.formats import open_trace
    from common.traces.frames import frames_of_file, to_frames

    text = document(kernel("k", "1719000000123456.789", "2", None))
    path = write(tmp_path / "t.json", text)
    gpu = to_frames(open_trace(path))["gpu"]
    assert gpu["start_ns"].dtype == pandas.Int64Dtype()
    assert int(gpu["start_ns"][0]) == 1719000000123456789
    assert gpu["launch"].isna().all() and gpu["name"][0] == "k"
    assert gpu.groupby("name", observed=True)["duration_ns"].sum()["k"] == 2000
    assert "metadata" in frames_of_file(path)


def test_neither_pandas_nor_pyarrow_is_imported_to_show_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", document(kernel("k", "1", "2", 3)))
    code = (
        "import sys; from common.cli import main; "
        f"main(['show', {str(path)!r}]); "
        "print([m for m in ('pandas', 'pyarrow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path), cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.endswith("[]\n")
