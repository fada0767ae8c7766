"""Are torch traces read exactly: every GPU event, every nanosecond, and nothing made up?"""

from __future__ import annotations

import gzip
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers.synthetic import write_trace
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UsageError
from common.traces.torch_trace import GPU_CATEGORIES, LONGEST_NS, nanoseconds, read_torch_trace

REAL = os.environ.get("WORKLOG_TEST_DATA")


@lru_cache
def expected() -> dict[str, Any]:
    if not REAL:
        return {}
    files = json.loads((Path(REAL) / "expected.json").read_text())["files"]
    return {name: facts for name, facts in files.items() if name.startswith("torch/")}


def test_the_real_files_are_there() -> None:
    if not REAL:
        pytest.skip("WORKLOG_TEST_DATA is not set")
    assert len(expected()) >= 30


@pytest.mark.parametrize("name", sorted(expected()) or [None])
def test_gpu_events_and_their_time_are_those_counted_independently(name: str | None) -> None:
    if name is None or REAL is None:
        pytest.skip("WORKLOG_TEST_DATA is not set")
    trace = read_torch_trace(Path(REAL) / name)
    spans, facts = trace.spans, expected()[name]
    durations = (spans.end_ns - spans.start_ns).tolist()
    gpu = [i for i, category in enumerate(spans.category) if category in GPU_CATEGORIES]
    assert len(gpu) == facts["gpu_events"]
    assert sum(durations[i] for i in gpu) == facts["gpu_ns"]
    assert trace.has_gpu_events == (facts["gpu_events"] > 0)
    assert all(spans.device[i] >= 0 for i in gpu)
    assert trace.warnings == ()


def span(**fields: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": "kernel",
        "name": "k",
        "pid": 0,
        "tid": 7,
        "ts": 0,
        "dur": 1,
        **fields,
    }


def memory(ts: Any, size: Any, **fields: Any) -> dict[str, Any]:
    args = {"Bytes": size, "Device Type": 0, "Device Id": -1, **fields}
    return {"ph": "i", "name": "[memory]", "pid": 0, "tid": 7, "ts": ts, "args": args}


def raw(tmp_path: Path, *events: str, head: str = "") -> Path:
    """A file whose numbers are written as given, which `json` would not do."""
    path = tmp_path / "raw.json"
    path.write_text(f'{{{head}"traceEvents": [{",".join(events)}]}}')
    return path


def event(ts: str, dur: str) -> str:
    return f'{{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":1,"ts":{ts},"dur":{dur}}}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1753789654321987.654", 1753789654321987654),  # 19 digits: a float holds 15 to 17
        ("1753789654321987.655", 1753789654321987655),
        ("0.001", 1),
        ("12", 12000),
        ('"12.5"', 12500),
        ("1.5e3", 1500000),
        ("-3", -3000),
        ("1E400", None),
        ("1e999999999", None),
        ("1e-999999999", 0),
        ('"NaN"', None),
        ('"-Infinity"', None),
        ('"later"', None),
        ("null", None),
        ("true", None),
        ("", None),
        ("[1]", None),
    ],
)
def test_microseconds_become_exact_nanoseconds_or_nothing(text: str, value: int | None) -> None:
    assert nanoseconds(msgspec.Raw(text.encode())) == value


@given(st.integers(0, LONGEST_NS))
def test_every_nanosecond_survives(value: int) -> None:
    assert nanoseconds(msgspec.Raw(f"{value // 1000}.{value % 1000:03d}".encode())) == value


def test_an_absolute_epoch_keeps_its_last_digit(tmp_path: Path) -> None:
    path = raw(tmp_path, event("1753789654321987.651", "0.003"), event("1753789654321987.654", "2"))
    spans = read_torch_trace(path).spans
    assert spans.start_ns.tolist() == [1753789654321987651, 1753789654321987654]
    assert spans.end_ns[0] == spans.start_ns[1]


@pytest.mark.parametrize(
    "bad",
    [event('"NaN"', "1"), event("1", '"inf"'), event("1", "-2"), event("1e300", "1"),
     event("1", "1e300"), event("null", "1"), event("1", "null"),
     '{"ph":"X","cat":"kernel","dur":1}', '{"ph":"X","cat":"kernel","ts":1}'],
)  # fmt: skip
def test_an_event_without_a_readable_time_is_counted_and_left_out(tmp_path: Path, bad: str) -> None:
    trace = read_torch_trace(raw(tmp_path, event("1", "2"), bad, event("5", "0")))
    assert len(trace.spans) == 2
    assert trace.warnings == ("1 events with unreadable times or sizes",)


def test_numbers_beyond_64_bits_do_no_harm(tmp_path: Path) -> None:
    huge = 1 << 80
    path = write_trace(tmp_path / "t.json", [
        span(args={"correlation": huge, "device": huge}),
        span(args={"correlation": 2**63, "device": -5}),
        span(args={"correlation": "7", "device": "0"}),
        memory(1, huge), memory(2, 5, **{"Device Type": 1, "Device Id": huge}), memory(3, None),
    ])  # fmt: skip
    trace = read_torch_trace(path)
    assert trace.spans.device.tolist() == [0, 0, 0]
    assert trace.spans.correlation.tolist() == [-1, -1, -1]
    assert trace.allocations.delta_bytes.tolist() == [5]
    assert trace.warnings == ("2 events with unreadable times or sizes",)


def test_the_longest_events_do_not_overflow(tmp_path: Path) -> None:
    most = f"{LONGEST_NS // 1000}"
    spans = read_torch_trace(raw(tmp_path, event(most, most))).spans
    assert spans.end_ns[0] - spans.start_ns[0] == LONGEST_NS // 1000 * 1000


def test_of_two_equal_keys_the_last_one_counts(tmp_path: Path) -> None:
    path = raw(tmp_path, '{"ph":"X","cat":"kernel","name":"k","ts":1,"ts":9,"dur":5,"dur":2}')
    spans = read_torch_trace(path).spans
    assert (spans.start_ns.tolist(), spans.end_ns.tolist()) == ([9000], [11000])


def test_other_fields_and_kinds_of_events_are_ignored(tmp_path: Path) -> None:
    path = write_trace(
        tmp_path / "t.json.gz",
        [span(), {"ph": "M", "name": "process_name", "args": {"name": "python"}}, {"ph": 3},
         span(cat="python_function"), span(cat="gpu_user_annotation"), span(cat="ac2g"), {}],
        deviceProperties=[{"id": 0, "name": "NVIDIA H200"}, {"id": 1}], schemaVersion=1,
    )  # fmt: skip
    trace = read_torch_trace(path)
    assert (len(trace.spans), trace.gpu_names, trace.warnings) == (1, ("NVIDIA H200", ""), ())


def test_memory_events_are_in_time_order_with_their_device(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.json", [
        memory(5, -10), memory(1, 10), memory(3, 99, **{"Device Type": 1, "Device Id": 1}),
    ])  # fmt: skip
    found = read_torch_trace(path).allocations
    assert found.time_ns.tolist() == [1000, 3000, 5000]
    assert found.delta_bytes.tolist() == [10, 99, -10]
    assert found.device.tolist() == [-1, 1, -1]


GOOD = json.dumps({"traceEvents": [span()] * 50}).encode()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"3", b"null", b"{}", b'{"traceEvents": 3}', b'{"traceEvents": [3]}',
     GOOD[:-20], gzip.compress(GOOD)[:-20], gzip.compress(GOOD)[:40], b"\x1f\x8b",
     b"\x1f\x8bnot gzip",
     gzip.compress(GOOD[:-20]), b"\xff\xfe\x00", GOOD.replace(b'"k"', b'"\xff"', 1),
     b'{"traceEvents": [{"ts": NaN}]}', b"SQLite format 3\x00", b"[" * 100_000,
     b'{"traceEvents": [' + b'{"args":' * 100_000],
)  # fmt: skip
def test_what_is_no_trace_is_a_usage_error_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_torch_trace(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_file_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            read_torch_trace(path)


def test_an_empty_trace_is_a_trace(tmp_path: Path) -> None:
    trace = read_torch_trace(write_trace(tmp_path / "t.json", []))
    assert (len(trace.spans), len(trace.allocations), trace.has_gpu_events) == (0, 0, False)
