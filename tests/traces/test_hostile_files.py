"""Faults that damaged files once showed, each in its smallest form; the cases are made up.

What nobody touched is read, what cannot be read is one line, and nothing costs more than it may.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from helpers.command import environment
from helpers.trace_files import NsysFile, document, kernel, write

from common.cli import main
from common.diff.diff import compare_files
from common.errors import UsageError
from common.traces.byte_source import MAX_RATIO, RATIO_CHECKED_FROM_BYTES
from common.traces.compiled_kernel import read_compiled
from common.traces.formats import open_and_summarise, summarise
from common.traces.ncu import read_ncu
from common.traces.nsys import read_nsys
from common.traces.torch_trace import read_torch_trace

DEEP = "[" * 5_000 + "]" * 5_000
KERNELS = [kernel(f"k{n}", str(100 * n), f"{n}.5", None) for n in range(1, 9)]


def names(path: Path) -> list[str]:
    trace = read_torch_trace(path)
    return [trace.names[name] for name in trace.gpu.name.tolist()]


# Traces of torch.profiler


def test_an_event_nested_too_deeply_costs_only_itself(tmp_path: Path) -> None:
    deep = kernel("deep", "50", "1", None).replace('"args": {', f'"args": {{"x": {DEEP}, ')
    path = write(tmp_path / "t.json", document(*KERNELS[:4], deep, *KERNELS[4:]))
    assert [name for name in names(path) if name != "deep"] == [f"k{n}" for n in range(1, 9)]


@pytest.mark.parametrize("rubbish", ["@@@", "\x00", "{", "}", ",,", "nul", '{"a" 1}', '"', "{{"])
def test_rubbish_between_two_events_costs_neither(tmp_path: Path, rubbish: str) -> None:
    events = [*KERNELS[:4], rubbish, *KERNELS[4:]]
    if rubbish == '"':  # a text that is never closed runs up to the next quote
        events[5] = events[5].replace('"ph"', 'x": 1, "ph"', 1)
    found = names(write(tmp_path / "t.json", document(*events)))
    lost = {f"k{n}" for n in range(1, 9)} - set(found)
    assert lost == set() if rubbish != '"' else lost <= {"k5"}


@pytest.mark.parametrize(
    "rubbish", ["", "\x00,", '"x",', "@@@", "{,", "{ {,", " " * 5_000, "@@," + " " * 5_000]
)
def test_a_broken_event_beside_rubbish_costs_no_third_one(tmp_path: Path, rubbish: str) -> None:
    events = [*KERNELS[:3], KERNELS[3].replace('"name": "', '"name": ""'), rubbish + KERNELS[4]]
    assert names(write(tmp_path / "t.json", document(*events))) == ["k1", "k2", "k3", "k5"]


@pytest.mark.parametrize("value", ['"\\ud800"', '"\\udfff5"'])
def test_half_a_surrogate_pair_as_a_time_costs_only_its_event(tmp_path: Path, value: str) -> None:
    odd = kernel("odd", "50", "1", None).replace('"ts": 50', f'"ts": {value}')
    # What is before it makes the lenient way of reading necessary.
    path = write(tmp_path / "t.json", document("5", *KERNELS, odd))
    assert names(path) == [f"k{n}" for n in range(1, 9)]


@pytest.mark.parametrize("size", [1 << 43, 1 << 63, 1 << 64, -(1 << 70)])
@pytest.mark.parametrize("key", ["Bytes", "Device Id"])
def test_an_allocation_beyond_64_bits_costs_at_most_itself(
    tmp_path: Path, size: int, key: str
) -> None:
    args = {"Bytes": 8, "Device Type": 1, "Device Id": 0, key: size}
    odd = json.dumps({"ph": "i", "name": "[memory]", "ts": 5, "args": args})
    path = write(tmp_path / "t.json", document(*KERNELS, odd))
    assert len(names(path)) == 8
    assert len(read_torch_trace(path).allocations) == (key == "Device Id")


@pytest.mark.parametrize(
    "head", ['{"x": @, "traceEvents": [', '{"x": ' + DEEP + ', "traceEvents": [', '{"x": "\n']
)
def test_what_is_broken_before_the_events_does_not_hide_them(tmp_path: Path, head: str) -> None:
    whole = document(*KERNELS)
    begin = whole.index('"traceEvents": [')
    rest = whole[begin + 16 :] if "traceEvents" in head else whole[begin:]
    path = write(tmp_path / "t.json", head + rest)
    assert len(names(path)) == 8
    assert "metadata" in [caution.kind for caution in read_torch_trace(path).warnings]


def test_many_arrays_of_the_right_name_take_no_quadratic_time(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", "{@" + '"traceEvents":[{"a":1,' * 60_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(UsageError):
        read_torch_trace(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5


# Archives: the limit is 500 times, from 64 MiB on


@pytest.mark.parametrize("pid", [10**39, -(1 << 70), "²", "9" * 5_000, "python", 7])
def test_calls_of_a_process_with_any_id_are_compared(tmp_path: Path, pid: int | str) -> None:
    def event(category: str, start: int, correlation: int, **place: object) -> dict[str, object]:
        times = {"ts": start, "dur": 5}
        arguments = {"device": 0, "stream": 7, "correlation": correlation}
        return {"ph": "X", "cat": category, "name": category, **times, **place, "args": arguments}

    calls = [event("cuda_runtime", at, at, pid=pid, tid=1) for at in (1, 20, 60)]
    kernels = [event("kernel", at + 10, at, pid=0, tid=7) for at in (1, 20, 50)]  # 50: no call
    file = tmp_path / "trace.json"
    file.write_text(json.dumps(calls + kernels))
    found = compare_files(str(file), str(file))
    assert found.delta == 0 and found.gaps is not None and found.gaps.a_ns == found.gaps.b_ns > 0


def bomb(path: Path, head: bytes, unit: bytes, mebibytes: int) -> Path:
    packer = zlib.compressobj(9, wbits=31)
    chunk = unit * ((1 << 20) // len(unit))
    parts = [packer.compress(head), *(packer.compress(chunk) for _ in range(mebibytes))]
    path.write_bytes(b"".join(parts) + packer.flush())
    return path


BOMBS = {
    "a trace": (b'{"a": "', b"x"),
    "one event": (b'{"traceEvents": [{"ph": "X", "name": "', b"x"),
    "behind the events": (b'{"traceEvents": [], "a": "', b"x"),
    "brackets": (b"[", b"["),
    "a database": (b"SQLite format 3\0", b"\0"),
    "a report": (b"NVR\0", b"\0"),
    "a snapshot": (b"\x80\x04]", b")"),
    "a compiled kernel": (b'{"schema": "worklog.compiled/1", "x": "', b"x"),
}
CHILD = """
import sys
from pathlib import Path
from common.diff.diff import compare_files
from common.errors import UsageError
from common.memory import peak_resident_bytes
from common.traces.formats import open_and_summarise
for name in sys.argv[1:]:
    try:
        open_and_summarise(Path(name))
        print("read", name)
    except UsageError as error:
        print("refused" if "times as much" in str(error) or "MiB" in str(error) else error)
print(peak_resident_bytes() >> 20)
"""


def test_no_small_archive_fills_the_memory_or_the_disk(tmp_path: Path) -> None:
    files = [
        bomb(tmp_path / f"bomb{number}", head, unit, 80)
        for number, (head, unit) in enumerate(BOMBS.values())
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, files)],
        env={**environment(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *said, peak = done.stdout.splitlines()
    assert said == ["refused"] * len(BOMBS), said
    assert int(peak) < 500  # MiB; the archives hold 640 MiB, and Python is there too
    assert MAX_RATIO == 500 and RATIO_CHECKED_FROM_BYTES == 64 << 20


@pytest.mark.parametrize("at", [3, 12, 40, -3])
def test_a_damaged_archive_of_a_compiled_kernel_is_one_line(tmp_path: Path, at: int) -> None:
    packed = bytearray(gzip.compress(b'{"schema": "worklog.compiled/1", "kernel": "k"}' * 9))
    packed[at] ^= 0x55
    (tmp_path / "k.json.gz").write_bytes(packed)
    with pytest.raises(UsageError, match="is no compiled kernel"):
        read_compiled(tmp_path / "k.json.gz")


def test_a_pipe_or_a_device_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.json").symlink_to(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path / "link.json", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UsageError, match="is a pipe or a device"):
            summarise(place)


# Databases


def export(tmp_path: Path, change: str) -> Path:
    made = NsysFile(tmp_path / "x.sqlite")
    for number in range(1, 9):
        made.call("cudaLaunchKernel", 1000 * number, 1000 * number + 50, number)
        made.kernel(f"k{number}", 1000 * number + 80, 1000 * number + 500 + number, number)
    path = made.done()
    with sqlite3.connect(path) as database:
        database.execute(change)
    database.close()
    return path


@pytest.mark.parametrize("value", ["1e300", "9e999", "18446744073709551616", "'1e300'", "2.5"])
@pytest.mark.parametrize("column", ["deviceId", "correlationId", "globalPid", "graphNodeId"])
def test_a_number_beyond_64_bits_in_one_cell_does_not_refuse_the_file(
    tmp_path: Path, column: str, value: str
) -> None:
    table = "CUPTI_ACTIVITY_KIND_KERNEL"
    path = export(tmp_path, f"UPDATE {table} SET {column} = {value} WHERE rowid = 3")
    trace = read_nsys(path)
    assert int(trace.gpu.duration_ns.sum()) == 8 * 420 + 36


def test_a_table_whose_name_is_no_text_is_no_table(tmp_path: Path) -> None:
    path = export(tmp_path, "CREATE TABLE other (x INTEGER)")
    database = sqlite3.connect(path)
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET name = CAST(name AS BLOB) WHERE name = 'other'")
    database.commit()
    database.close()
    assert int(read_nsys(path).gpu.duration_ns.sum()) == 8 * 420 + 36


def test_an_error_that_quotes_the_schema_is_one_line(tmp_path: Path) -> None:
    path = export(tmp_path, "CREATE TABLE a (x INTEGER,\n y INTEGER)")
    data = path.read_bytes().replace(b"CREATE TABLE a (x", b"CREATE TABLE a [x")
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        summarise(path)
    assert "\n" not in str(caught.value)


def test_nothing_in_a_file_is_obeyed_by_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the page, in the JSON and in the errors, from the file's name too."""
    escape = "\x1b]0;x\x07\u202e\x9b"
    kernel_ = {"schema": "worklog.compiled/1", "kernel": escape, "architecture": escape,
               "resources": {}, "instructions": {escape: 3}, "loop_instructions": 0}  # fmt: skip
    path = tmp_path / f"{escape}.json"
    for content in (document(kernel(escape, "5", "9", None)), json.dumps(kernel_), "nothing"):
        path.write_text(content)
        for arguments in (
            ["show", path], ["show", "--json", path], ["diff", path, path],
            ["diff", "--json", path, path], ["show", f"{path}.none"], ["show", path, escape],
        ):  # fmt: skip
            try:
                main([str(argument) for argument in arguments])
            except SystemExit:  # what argparse does with a word too many
                pass
            out, err = capsys.readouterr()
            assert out + err
            assert all(c.isprintable() or c == "\n" for c in out + err), (arguments, out + err)


# What ncu prints

HEADER = (
    '"ID","Process ID","Kernel Name","Device","gpu__time_duration.sum","x.avg"\n'
    '"","","","","ns",""\n'
)
ROW = '"{}","41","k","0","100","{}"\n'


@pytest.mark.parametrize("device", ["²", "٣", "9" * 30, "9" * 5_000])
def test_a_digit_that_is_no_number_is_an_unknown_device(tmp_path: Path, device: str) -> None:
    text = HEADER + ROW.format(0, 5).replace('"0","100"', f'"{device}","100"') + ROW.format(1, 5)
    report = read_ncu(write(tmp_path / "n.csv", text))
    assert [launch.device_id for launch in report.launches] == [None, 0]


@pytest.mark.parametrize("number", ["²", "9" * 5_000])
def test_a_row_whose_id_is_no_number_costs_only_itself(tmp_path: Path, number: str) -> None:
    report = read_ncu(write(tmp_path / "n.csv", HEADER + ROW.format(number, 5) + ROW.format(1, 5)))
    assert [launch.launch_id for launch in report.launches] == [1]


def test_a_value_beyond_any_counter_is_text(tmp_path: Path) -> None:
    metric = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
    text = HEADER.replace("x.avg", metric) + ROW.format(0, "1e999")
    path = write(tmp_path / "n.csv", text)
    _, report, _ = open_and_summarise(path)
    assert report.launches[0].metrics[metric].value == "1e999"


def test_a_nul_in_the_output_of_the_program_does_not_hide_the_table(tmp_path: Path) -> None:
    report = read_ncu(
        write(tmp_path / "n.csv", HEADER + ROW.format(0, 5) + "\0\n" + ROW.format(1, 5))
    )
    assert len(report.launches) == 2


@pytest.mark.parametrize("again", ['"ID"', '"Kernel Name"', '"x.avg"'])
def test_a_column_that_comes_twice_counts_once(tmp_path: Path, again: str) -> None:
    head, units = HEADER.splitlines()
    text = f"{head},{again}\n{units}\n" + ROW.format(3, 5) + ROW.format(4, 6).strip() + ',"9"\n'
    report = read_ncu(write(tmp_path / "n.csv", text))
    assert [(launch.launch_id, launch.name) for launch in report.launches] == [(3, "k"), (4, "k")]
    assert [launch.metrics["x.avg"].value for launch in report.launches] == [5, 6]
