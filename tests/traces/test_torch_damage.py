"""Damaged torch traces: every intact event is read, and what is lost is said with a count."""

from __future__ import annotations

import gzip
import importlib.util
import io
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.trace_files import write

from common.traces.model import Trace
from common.traces.torch_trace import read_torch_trace

EVENTS = 6_000  # several pieces of the reader


def _generator() -> ModuleType:
    place = Path(__file__).parent.parent / "benchmarks" / "generate_trace.py"
    spec = importlib.util.spec_from_file_location("generate_trace", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_trace"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def whole() -> str:
    stream = io.StringIO()
    _generator().write_trace(stream, EVENTS)
    return stream.getvalue()


def intact(text: str) -> int:
    """Events that end within the text: each begins on a line of its own and ends in one."""
    body = text[text.index('"traceEvents"') :]
    return sum(body.count(end) for end in ("\n  },", "\n  }\n")) + sum(
        line.startswith('  {"ph": ') and line.rstrip(",").endswith("}") for line in body.split("\n")
    )


def truncated(trace: Trace) -> bool:
    return any(caution.kind == "truncated" for caution in trace.warnings)


def test_the_generated_trace_is_read_to_the_nanosecond(tmp_path: Path) -> None:
    stream = io.StringIO()
    totals = _generator().write_trace(stream, 20_000, seed=7)
    trace = read_torch_trace(write(tmp_path / "t.json", stream.getvalue()))
    assert (trace.events, len(trace.gpu)) == (totals.events, totals.kernels)
    assert int(trace.gpu.duration_ns.sum()) == totals.gpu_ns
    assert trace.warnings == () and (trace.gpu.launch >= 0).all()


def test_a_file_cut_anywhere_gives_every_event_before_the_cut(whole: str, tmp_path: Path) -> None:
    assert intact(whole) == EVENTS
    begin = whole.index('"traceEvents": [') + 20
    random_ = random.Random(4)
    for at in [random_.randrange(begin + 300, len(whole) - 40) for _ in range(40)]:
        cut = whole[:at]
        trace = read_torch_trace(write(tmp_path / "t.json", cut))
        # The cut may fall behind the last brace of an event and before its comma.
        assert trace.events - intact(cut) in (0, 1), at
        assert cut.rstrip().endswith("}") or trace.events == intact(cut)
        assert truncated(trace)


def test_a_gzip_stream_cut_anywhere_gives_what_was_before(whole: str, tmp_path: Path) -> None:
    packed = gzip.compress(whole.encode(), 6, mtime=0)
    for part in (0.3, 0.6, 0.9, 0.999):
        data = packed[: int(len(packed) * part)]
        inflater = __import__("zlib").decompressobj(wbits=31)
        readable = inflater.decompress(data).decode("utf-8", "ignore")
        trace = read_torch_trace(write(tmp_path / "t.json.gz", data))
        assert trace.events - intact(readable) in (0, 1)
        assert truncated(trace) and any("gzip" in str(c) for c in trace.warnings)


def test_a_gzip_stream_with_a_flipped_byte_keeps_its_beginning(whole: str, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(whole.encode(), 6, mtime=0))
    packed[len(packed) // 2 :] = bytes(len(packed) - len(packed) // 2)
    trace = read_torch_trace(write(tmp_path / "t.json.gz", bytes(packed)))
    assert EVENTS * 0.4 < trace.events < EVENTS and truncated(trace)


def test_rubbish_in_the_middle_costs_only_the_events_that_it_hits(
    whole: str, tmp_path: Path
) -> None:
    marks = [whole.index('"ts": ', int(len(whole) * part)) for part in (0.2, 0.5, 0.8)]
    text = whole
    for at in reversed(marks):
        text = text[:at] + "@@@rubbish" + text[at + 6 :]
    trace = read_torch_trace(write(tmp_path / "t.json", text))
    assert trace.events == EVENTS - 3
    assert [(c.kind, c.count) for c in trace.warnings if c.kind == "unreadable"] == [
        ("unreadable", 3)
    ]


def test_several_gzip_members_are_one_file(whole: str, tmp_path: Path) -> None:
    half = len(whole) // 2
    packed = gzip.compress(whole[:half].encode()) + gzip.compress(whole[half:].encode())
    trace = read_torch_trace(write(tmp_path / "t.json.gz", packed + b"\0" * 64))
    assert trace.events == EVENTS and trace.warnings == ()


def test_nan_in_every_piece_is_mended(whole: str, tmp_path: Path) -> None:
    text = whole.replace('"grid": [128, 1, 1]', '"memory bandwidth (GB/s)": -nan')
    trace = read_torch_trace(write(tmp_path / "t.json", text))
    plain = read_torch_trace(write(tmp_path / "u.json", whole))
    assert trace.events == EVENTS and trace.gpu.duration_ns.tolist() == (
        plain.gpu.duration_ns.tolist()
    )
    assert [c.kind for c in trace.warnings] == ["mended"]
