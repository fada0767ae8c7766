"""Is a recorded trace readable, free of names of machines and people, and otherwise unchanged?"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from common.diff.attribution import peak_in_range, time_in_range
from common.recording.profilers import anonymous, record_trace, write_anonymous
from common.recording.ranges import named_range
from common.traces.torch_trace import read_torch_trace


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"host_name": "box7", "x": 1}', b'{"host_name": "removed", "x": 1}'),
        (b'{"x": 1, "host_name" : "box7"}', b'{"x": 1, "host_name" : "removed"}'),
        (b'{"hostname":"box7"}', b'{"hostname":"removed"}'),
        (b'{"traceName": "/home/al/t.json"}', b'{"traceName": "t.json"}'),
        (b'{"kernel_file": "/tmp/inductor_al/ab/c.py"}', b'{"kernel_file": "c.py"}'),
        (b'{"a": ["/home/al/x","/home/al/y"]}', b'{"a": ["x","y"]}'),
        (b'{"name": "a/b", "dur": 0.100, "s": "// not a path"}', None),
    ],
)
def test_names_go_and_everything_else_stays_byte_for_byte(
    before: bytes, after: bytes | None
) -> None:
    if after is None:
        assert anonymous(before) == anonymous(anonymous(before))
        assert b'"name": "a/b", "dur": 0.100' in anonymous(before)
    else:
        assert anonymous(before) == after
    json.loads(anonymous(before))


def test_the_same_trace_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        write_anonymous(b'{"traceEvents": []}', tmp_path / name)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_a_recorded_trace_has_ranges_operators_and_allocations_but_no_names(tmp_path: Path) -> None:
    import torch

    matrix = torch.ones(256, 256)

    def work() -> None:
        with named_range("decode"):
            (matrix @ matrix).sum().item()

    path = tmp_path / "traces" / "trace.json.gz"
    path.parent.mkdir()
    record_trace(path, torch.device("cpu"), work)
    assert [p.name for p in path.parent.iterdir()] == ["trace.json.gz"]
    text = gzip.decompress(path.read_bytes()).decode()
    json.loads(text)
    assert os.uname().nodename not in text
    assert str(tmp_path) not in text
    trace = read_torch_trace(path)
    spent = time_in_range(trace, "decode")
    assert spent is not None and spent.quantity == "cpu_time_ns"
    assert {"aten::matmul", "aten::sum", "aten::item"} <= {row.name for row in spent.rows}
    assert sum(row.time_ns for row in spent.rows) + spent.outside_ns == spent.total_ns
    peak = peak_in_range(trace, "decode")
    assert peak is not None and 256 * 256 * 4 <= peak.peak_bytes < 256 * 256 * 4 + 4096
