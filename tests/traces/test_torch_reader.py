"""Small torch traces with known answers: what is read, linked, counted and left out."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from helpers.trace_files import call, document, event, kernel, write
from msgspec.structs import asdict

from common.errors import UsageError
from common.traces import json_events, torch_columns, torch_trace
from common.traces.model import GpuKind, HostKind, Trace
from common.traces.summary import summarise_trace
from common.traces.torch_trace import read_torch_trace

DAY_US = 86_400_000_000


def read(folder: Path, *events: str, **around: str) -> Trace:
    return read_torch_trace(write(folder / "t.json", document(*events, **around)))


def kinds(trace: Trace) -> dict[str, int]:
    return {caution.kind: caution.count for caution in trace.warnings}


def launches(trace: Trace) -> list[str | None]:
    """Name of the call that launched each GPU event."""
    return [
        None if row < 0 else trace.names[int(trace.host.name[row])]
        for row in trace.gpu.launch.tolist()
    ]


def test_work_is_linked_to_the_call_with_its_correlation_id(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        call("cudaLaunchKernel", "10", "2", 1),
        call("hipGraphLaunch", "20", "2", 2),
        kernel("a", "15", "3", 1),
        kernel("b", "25.5", "3.25", 2, **{"graph node id": 77}),
        kernel("c", "30", "1", 9),
    )
    assert launches(trace) == ["cudaLaunchKernel", "hipGraphLaunch", None]
    assert trace.gpu.by_graph_launch.tolist() == [False, True, False]
    assert trace.gpu.graph_node.tolist() == [-1, 77, -1]
    found = summarise_trace(trace, tmp_path / "t.json")
    assert found["gpu_time_ns"] == 7250 and found["unlinked_ns"] == 1000
    assert found["graph_launched_ns"] == 3250 and found["launches"] == 2
    assert found["span_ns"] == 16_000 and found["busy_ns"] == 7250
    assert found["path"] == "t.json"


def test_times_converted_together_or_piece_by_piece_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {20: "NaN", 41: '"12.5"', 60: "-3", 61: "1e3", 80: "0.12345", 120: "null", 121: "1e99"}
    events = [
        text
        for i in range(200)
        for text in (
            call("cudaLaunchKernel", str(100 * i), "5", i),
            kernel(f"k{i % 5}", f"{100 * i}.{i:03d}", odd.get(i, "7.250"), i),
        )
    ]
    path = write(tmp_path / "t.json", document(*events))
    found = []
    for piece_bytes, at_once in ((1 << 19, 1), (500, 1), (500, 40), (700, 1 << 15)):
        monkeypatch.setattr(json_events, "PIECE_BYTES", piece_bytes)
        monkeypatch.setattr(torch_trace, "PIECE_BYTES", piece_bytes)
        monkeypatch.setattr(torch_columns, "_TIMES_AT_ONCE", at_once)
        trace = read_torch_trace(path)
        columns = {**asdict(trace.gpu), **asdict(trace.host)}
        counts = {kind: count for kind, count in kinds(trace).items() if kind != "mended"}
        found.append(({name: column.tolist() for name, column in columns.items()}, counts))
    assert all(one == found[0] for one in found)
    assert found[0][1]["no number"] == 2 and found[0][1]["negative"] == 1
    assert found[0][1]["too long"] == 1 and found[0][1]["finer"] == 1
    assert found[0][1]["gpu work left out"] == 4


def test_of_several_calls_with_one_id_the_last_before_the_work_is_taken(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        call("first", "10", "1", 1), call("second", "20", "1", 1), call("third", "30", "1", 1),
        kernel("a", "12", "1", 1), kernel("b", "25", "1", 1), kernel("early", "5", "1", 1),
    )  # fmt: skip
    assert launches(trace) == ["first", "first", "second"]
    assert kinds(trace) == {"repeated ids": 2}


def test_where_no_call_has_the_id_one_of_the_same_operator_is_taken(tmp_path: Path) -> None:
    external = {"External id": 5}
    trace = read(
        tmp_path,
        event("cuda_runtime", "launch", "10", "1", args=external),
        event("cuda_runtime", "other", "11", "1", args={"External id": 0}),
        event("kernel", "a", "20", "1", args={"device": 0, "stream": 7, **external}),
        event("kernel", "b", "21", "1", args={"device": 0, "stream": 7, "External id": 0}),
    )
    assert launches(trace) == ["launch", None]


def test_the_categories_of_2021_are_those_of_today(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        event("Operator", "aten::add", "1", "9", tid="25", args={"external id": 3}),
        event("Operator", "ProfilerStep#4", "0", "50"),
        event("Runtime", "cudaLaunchKernel", "2", "1", tid="25", args={"correlation": 3}),
        event(
            "Kernel", "k", "12", "2", pid=0, tid="stream 7", args={"device": 0, "correlation": 3}
        ),
        event("Memcpy", "Memcpy HtoD", "20", "2", args={"device": 0, "stream": 7, "bytes": 64}),
    )
    assert trace.host.kind.tolist().count(HostKind.OPERATOR) == 1
    assert [step.name for step in trace.steps] == ["ProfilerStep#4"]
    assert trace.gpu.kind.tolist() == [GpuKind.KERNEL, GpuKind.MEMCPY]
    assert trace.gpu.stream.tolist() == [7, 7]
    assert trace.gpu.size_bytes.tolist() == [-1, 64]
    assert launches(trace) == ["cudaLaunchKernel", None]


def test_what_repeats_cpu_work_on_the_gpu_is_no_gpu_time(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        event("gpu_user_annotation", "step", "0", "100", args={"device": 0, "stream": 7}),
        event("cuda_sync", "Stream Sync", "0", "100", args={"device": 0, "stream": 7}),
        kernel("a", "5", "1", 1),
    )
    assert trace.gpu.duration_ns.tolist() == [1000] and trace.events == 3


def test_impossible_durations_are_counted_and_left_out_of_sums(tmp_path: Path) -> None:
    years = str(236 * 365 * DAY_US)
    trace = read(
        tmp_path,
        kernel("good", "10", "3", 1), kernel("negative", "11", "-2", 2),
        kernel("nan", "12", "NaN", 3), kernel("inf", "13", "inf", 4),
        kernel("minus inf", "13", "-Infinity", 4), kernel("ancient", "14", years, 5),
        kernel("null", "15", "null", 6), event("cpu_op", "op", "16", "-1"),
        '{"ph": "X", "cat": "kernel", "name": "no dur", "ts": 17, "args": {}}',
    )  # fmt: skip
    assert [trace.names[n] for n in trace.gpu.name.tolist()] == ["good"]
    assert trace.events == 9
    found = kinds(trace)
    assert found["negative"] == 2 and found["too long"] == 1 and found["no number"] == 5
    assert found["gpu work left out"] == 7
    assert summarise_trace(trace, tmp_path)["gpu_time_ns"] == 3000


def test_an_event_at_time_zero_does_not_stretch_the_span(tmp_path: Path) -> None:
    epoch = 1_719_000_000_123_456
    trace = read(
        tmp_path,
        kernel("stray", "0", "1", 1),
        *(kernel("k", f"{epoch + n}.125", "0.5", n) for n in range(5)),
    )
    assert kinds(trace)["out of range"] == 1
    assert summarise_trace(trace, tmp_path)["span_ns"] == 4500
    assert int(trace.gpu.start_ns[0]) == epoch * 1000 + 125


def test_finer_times_are_rounded_and_told(tmp_path: Path) -> None:
    trace = read(tmp_path, kernel("k", "10.00049", "1.0005", 1))
    assert trace.gpu.start_ns.tolist() == [10_000] and kinds(trace)["finer"] == 2
    assert trace.gpu.duration_ns.tolist() == [1000]  # half to even


def test_allocator_events_are_kept_by_device(tmp_path: Path) -> None:
    memory = (
        '{{"ph": "i", "name": "[memory]", "cat": "{}", "ts": {}, "pid": 1, "tid": 1, "args": '
        '{{"Bytes": {}, "Device Type": {}, "Device Id": {}, "Total Allocated": 9}}}}'
    )
    trace = read(
        tmp_path,
        memory.format("cpu_instant_event", 20, -8, 0, -1),
        memory.format("", 10, 64, 1, 0),
        memory.format("cpu_instant_event", 15, 32, 6, 0),
        '{"ph": "i", "name": "[memory]", "ts": 3, "args": {"Device Type": 0}}',
    )
    allocations = trace.allocations
    assert allocations.delta_bytes.tolist() == [64, 32, -8]
    assert allocations.device.tolist() == [0, 0, -1]
    assert kinds(trace)["memory"] == 1


def test_devices_may_stand_before_or_behind_the_events(tmp_path: Path) -> None:
    listed = '"deviceProperties": [{"id": 0, "name": "A"}, {"id": 1, "name": ""}]'
    for around in ({"before": listed + ", "}, {"after": ", " + listed}):
        trace = read(tmp_path, kernel("k", "1", "1", 1), **around)
        assert [(d.id, d.name) for d in trace.devices] == [(0, "A"), (1, None)]


def test_other_arrays_of_events_in_the_file_are_not_read(tmp_path: Path) -> None:
    nested = '"metadata": {"traceEvents": [{"ph": "X", "name": "not me"}]}, '
    after = ', "more": [{"ph": "X", "name": "nor me"}, {"ph": "X", "name": "x"}]'
    trace = read(tmp_path, kernel("k", "1", "1", 1), before=nested, after=after)
    assert trace.events == 1 and trace.warnings == ()


def test_an_event_may_hold_a_list_of_things_that_look_like_events(tmp_path: Path) -> None:
    inner = [{"name": "x", "ph": "X", "text": '}, {"ph": 1'}] * 30_000
    events = [event("cpu_op", f"op{n}", str(n), "1", args={"list": inner}) for n in range(3)]
    trace = read(tmp_path, *events, kernel("k", "5", "1", 1))
    assert trace.events == 4 and trace.warnings == ()


def test_a_bare_list_of_events_is_a_trace(tmp_path: Path) -> None:
    text = "[" + kernel("a", "1", "1", 1) + "," + kernel("b", "3", "1", 2) + "]"
    trace = read_torch_trace(write(tmp_path / "t.json", text))
    assert trace.events == 2 and trace.warnings == ()
    assert read_torch_trace(write(tmp_path / "u.json", text[:-1])).events == 2


def test_control_characters_and_odd_bytes_in_names_are_read(tmp_path: Path) -> None:
    raw = kernel("CONTROL", "1", "1", 1).replace("CONTROL", "a\x01b\nc").encode()
    odd = kernel("ODD", "3", "1", 2).encode().replace(b"ODD", b"caf\xe9")
    body = b'{"traceEvents": [' + raw + b", " + odd + b"]}"
    trace = read_torch_trace(write(tmp_path / "t.json", body))
    names = [trace.names[n] for n in trace.gpu.name.tolist()]
    assert names == ["a\x01b c", "caf\ufffd"] and kinds(trace) == {"mended": 1}


def test_a_nan_beside_text_that_looks_like_one_is_mended_alone(tmp_path: Path) -> None:
    # As Kineto prints the bandwidth of a copy that took no time.
    bad = '{"ph": "X", "cat": "kernel", "name": "f(x: nan, y)", "ts": 1, "dur": 2, '
    bad += '"args": {"device": 0, "stream": 7, "GB/s": inf}}'
    trace = read(tmp_path, bad, kernel("k", "5", "1", 1))
    assert [trace.names[n] for n in trace.gpu.name.tolist()] == ["f(x: nan, y)", "k"]


def test_fields_of_a_wrong_type_do_not_cost_the_other_events(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        kernel("good", "1", "1", 1),
        '{"ph": "X", "cat": "kernel", "name": 5, "ts": "7.5", "dur": 2, "pid": null, "args": []}',
        '{"ph": "X", "cat": "kernel", "name": "k", "ts": 9, "dur": 1, '
        '"args": {"device": "1", "stream": null, "correlation": 18446744073709551615}}',
        '{"no": "event"}',
        "17",
    )
    assert [trace.names[n] for n in trace.gpu.name.tolist()] == ["good", "5", "k"]
    assert trace.gpu.start_ns.tolist() == [1000, 7500, 9000]
    assert trace.gpu.device.tolist()[2] == 1
    assert kinds(trace)["unreadable"] >= 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds nothing"),
        (b"{}", "without a list of trace events"),
        (b'{"traceEvents": 5}', "without a list of trace events"),
        (b'{"a": [1, 2]}', "without a list of trace events"),
        (b"[1, 2, 3]", "no trace event"),
        (b'[{"a": 1}, {"b": 2}]', "no trace event"),
        (b'{"traceEve', "no readable JSON trace"),
        (b"hello", "no readable JSON trace"),
    ],
)
def test_what_is_no_trace_gets_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "x.json", content),
        write(tmp_path / "x.json.gz", gzip.compress(content)),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            read_torch_trace(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_empty_list_of_events_is_an_empty_trace(tmp_path: Path) -> None:
    trace = read(tmp_path)
    assert trace.events == 0 and len(trace.gpu) == 0
    assert summarise_trace(trace, tmp_path)["warnings"][0]["kind"] == "no GPU work"


def test_work_of_an_unknown_category_is_said(tmp_path: Path) -> None:
    shadow = event("gpu_user_annotation", "step", "1", "9", args={"device": 0, "stream": 7})
    odd = kernel("new", "2", "3", 1).replace('"kernel"', '"quantum_kernel"')
    none = kernel("new", "2", "3", 1).replace('"kernel"', "null")
    text = document(kernel("old", "1", "2", 2), shadow, odd, none)
    trace = read_torch_trace(write(tmp_path / "a.json", text))
    assert len(trace.gpu) == 1
    assert [(c.kind, c.count) for c in trace.warnings] == [("unknown work", 2)]
