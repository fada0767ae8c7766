"""Every piece of GPU work is in exactly one row, beside what it became on the other side."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trace_files import NsysFile, call, document, event, kernel, write

from common.diff import pairing
from common.diff.difference import Row, Status, Tier
from common.diff.kernel_rows import kernel_rows, match, matching_quality
from common.traces.formats import open_trace
from common.traces.model import UNKNOWN, Trace
from common.traces.torch_trace import read_torch_trace

LAUNCH = "cudaLaunchKernel"


def program(*operators: tuple[str, list[tuple[str, str]]], first: int = 0) -> list[str]:
    """Operators one after the other, each launching its kernels (name, duration in us)."""
    events, at, number = [], first, first
    for name, kernels in operators:
        events.append(event("cpu_op", name, str(at), "50"))
        for own, duration in kernels:
            number += 1
            events.append(call(LAUNCH, str(at + number % 7 + 1), "1", number))
            events.append(kernel(own, str(at + 500 + number), duration, number))
        at += 100
    return events


def trace_of(folder: Path, name: str, *events: str) -> Trace:
    return read_torch_trace(write(folder / name, document(*events)))


def rows_of(a: Trace, b: Trace) -> tuple[Row, ...]:
    rows = kernel_rows(match(a, b))
    for side, trace in (("a", a), ("b", b)):
        assert sum(getattr(row, side) for row in rows) == int(trace.gpu.duration_ns.sum())
        assert sum(getattr(row, f"count_{side}") for row in rows) == len(trace.gpu)
    return rows


def short(rows: tuple[Row, ...]) -> set[tuple[str, str | None, str, int]]:
    return {(row.name, row.name_b, str(row.tier), row.delta) for row in rows}


def test_renamed_kernels_meet_in_the_operator_that_launched_them(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a.json", *program(
        ("aten::mm", [("sm90_gemm_a", "10")]), ("aten::add", [("add_v1_x", "3")]),
        ("aten::mm", [("sm90_gemm_a", "12")]),
    ))  # fmt: skip
    b = trace_of(tmp_path, "b.json", *program(
        ("aten::mm", [("Cijk_b", "7")]), ("aten::add", [("sum_of", "4")]),
        ("aten::mm", [("Cijk_b", "8")]),
    ))  # fmt: skip
    assert short(rows_of(a, b)) == {
        ("sm90_gemm_a", "Cijk_b", "path and position", -3000),
        ("add_v1_x", "sum_of", "path and position", 1000),
        ("sm90_gemm_a", "Cijk_b", "path and position", -4000),
    }


def test_units_of_one_piece_are_paired_at_once_as_one_by_one(tmp_path: Path) -> None:
    copy = {"device": 0, "stream": 7, "correlation": 90}
    names = ("gemm_64x64", "gemm_128x64", "add_v1_x", "Cijk_b", "softmax<float>", "softmax<half>")
    units = [(f"aten::{name}", [(name, "10")]) for name in names]
    alone = [kernel(name, str(5000 + i), "1", None) for i, name in enumerate(names)]
    memset = [call("cudaMemsetAsync", "4000", "1", 90),
              event("gpu_memset", "Memset (Device)", "4600", "1", args=copy)]  # fmt: skip
    trace = trace_of(tmp_path, "a.json", *program(*units), *alone, *memset)
    side = match(trace, trace).a
    assert {*side.unit_size.tolist()} == {1} and len(side.unit_first) == 13
    met = 0
    for i in side.unit_first.tolist():
        for j in side.unit_first.tolist():
            partner = np.full(len(side), UNKNOWN)
            pairing._singles(side, side, np.array([i]), np.array([j]), partner)
            own = bool(side.in_operator[i])
            found, _ = pairing._content(side, side, slice(i, i + 1), slice(j, j + 1), own)
            assert (partner[i] == j) == (len(found) == 1), (i, j)
            met += len(found)
    assert 13 < met < 13 * 13  # some but not all


def test_an_operator_that_was_put_in_shifts_nothing(tmp_path: Path) -> None:
    layers = [(f"aten::op{i % 3}", [(f"k{i % 3}", str(i + 1))]) for i in range(30)]
    a = trace_of(tmp_path, "a.json", *program(*layers))
    more = [*layers[:11], ("aten::extra", [("new", "100")]), *layers[11:]]
    b = trace_of(tmp_path, "b.json", *program(*more))
    rows = rows_of(a, b)
    changed = [row for row in rows if row.delta]
    assert [(row.name, row.status, row.delta) for row in changed] == [
        ("new", Status.ADDED, 100_000)
    ]
    assert sum(row.tier is Tier.EXACT for row in rows) == 30


def test_a_memset_is_never_taken_for_a_kernel(tmp_path: Path) -> None:
    memset = event("gpu_memset", "Memset (Device)", "600", "1",
                   args={"device": 0, "stream": 7, "correlation": 90})  # fmt: skip
    a = trace_of(tmp_path, "a.json", *program(("aten::mm", [("gemm_a", "10")])),
                 call("cudaMemsetAsync", "2", "1", 90), memset)  # fmt: skip
    b = trace_of(tmp_path, "b.json", *program(("aten::mm", [("other", "9")])))
    assert short(rows_of(a, b)) == {
        ("gemm_a", "other", "path and position", -1000),
        ("Memset (Device)", None, "unmatched", -1000),
    }


def test_a_kernel_that_became_two_is_one_row(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a.json", *program(("aten::div", [("divide", "10")])))
    b = trace_of(tmp_path, "b.json", *program(("aten::div", [("divide", "6"), ("divide", "7")])))
    rows = rows_of(a, b)
    assert [(row.count_a, row.count_b, row.delta) for row in rows] == [(1, 2, 3000)]
    assert (rows[0].count_effect, rows[0].duration_effect) == (10_000, -7_000)


def test_unlinked_work_is_matched_by_order_and_by_renamings_seen_elsewhere(tmp_path: Path) -> None:
    tail = [("aten::x", [("weave_a", "5")]), ("aten::y", [("knit_a", "6")])]
    tail_b = [("aten::x", [("loop_b", "5")]), ("aten::y", [("purl_b", "6")])]
    before = [kernel("weave_a", "10", "2", None), kernel("knit_a", "20", "3", None)]
    before_b = [kernel("loop_b", "10", "1", None), kernel("purl_b", "20", "1", None)]
    a = trace_of(tmp_path, "a.json", *before, *program(*tail, first=100))
    b = trace_of(tmp_path, "b.json", *before_b, *program(*tail_b, first=100))
    assert short(rows_of(a, b)) == {
        ("weave_a", "loop_b", "path and position", 0),
        ("knit_a", "purl_b", "path and position", 0),
        ("weave_a", "loop_b", "path and position", -1000),
        ("knit_a", "purl_b", "path and position", -2000),
    }


def replays(count: int, durations: list[int], names: list[str]) -> list[str]:
    events = []
    for number in range(count):
        start = 1000 * number
        events.append(call("cudaGraphLaunch", str(start), "5", number + 1))
        for node, (name, duration) in enumerate(zip(names, durations, strict=True)):
            ts = start + 20 + 100 * node
            events.append(kernel(name, str(ts), str(duration), number + 1))
    return events


def test_replays_of_a_graph_are_aligned_node_by_node(tmp_path: Path) -> None:
    names = ["gemm", "norm", "gemm", "mystery"]
    a = trace_of(tmp_path, "a.json", *replays(4, [10, 2, 20, 8], names))
    b = trace_of(tmp_path, "b.json", *replays(4, [10, 2, 15, 4], [*names[:3], "mystery"]))
    rows = [row for row in rows_of(a, b) if row.delta]
    found = {(row.name, row.path, row.delta, row.count_a, row.count_b) for row in rows}
    assert found == {
        ("gemm", "cudaGraphLaunch / node 2", -20_000, 4, 4),
        ("mystery", "cudaGraphLaunch / node 3", -16_000, 4, 4),
    }
    assert len(rows_of(a, b)) == 4


def test_a_renamed_node_of_a_graph_is_matched_by_its_place(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a.json", *replays(2, [5, 6, 7], ["x", "sm80_gemm_q", "y"]))
    b = trace_of(tmp_path, "b.json", *replays(2, [5, 3, 7], ["x", "nvjet_q", "y"]))
    changed = [row for row in rows_of(a, b) if row.delta]
    assert [(r.name, r.name_b, r.tier, r.delta) for r in changed] == [
        ("sm80_gemm_q", "nvjet_q", Tier.GRAPH_NODE, -6000)
    ]


def test_places_are_taken_together_over_profiler_steps(tmp_path: Path) -> None:
    def run(steps: int, duration: str) -> list[str]:
        events = []
        for step in range(steps):
            events.append(event("user_annotation", f"ProfilerStep#{step}", str(1000 * step), "900"))
            events += program(("aten::mm", [("gemm", duration)]), ("aten::mm", [("gemm", "1")]),
                              first=1000 * step + 10)  # fmt: skip
        return events

    a = trace_of(tmp_path, "a.json", *run(3, "10"))
    b = trace_of(tmp_path, "b.json", *run(5, "20"))
    rows = rows_of(a, b)
    assert {(row.count_a, row.count_b, row.a, row.b) for row in rows} == {
        (3, 5, 30_000, 100_000),
        (3, 5, 3_000, 5_000),
    }
    longer = rows[0]
    assert (longer.count_effect, longer.duration_effect) == (20_000, 50_000)


def test_devices_are_never_mixed(tmp_path: Path) -> None:
    def two(first: int, second: int, name: str) -> Trace:
        file = NsysFile(tmp_path / name)
        for device, duration in ((first, 10), (second, 30)):
            file.kernel("k", 100 * device, 100 * device + duration, device + 1, device=device)
        return open_trace(file.done())

    rows = rows_of(two(0, 1, "a.sqlite"), two(0, 1, "b.sqlite"))
    assert {(row.a, row.b) for row in rows} == {(10, 10), (30, 30)}
    rows = rows_of(two(0, 1, "c.sqlite"), two(4, 6, "d.sqlite"))  # other numbers: by order
    assert {(row.a, row.b) for row in rows} == {(10, 10), (30, 30)}


def test_one_side_without_gpu_work(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a.json", *program(("aten::mm", [("gemm", "10")])))
    b = trace_of(tmp_path, "b.json", event("cpu_op", "aten::mm", "1", "5"))
    assert [(row.status, row.delta) for row in rows_of(a, b)] == [(Status.REMOVED, -10_000)]
    assert [(row.status, row.delta) for row in rows_of(b, a)] == [(Status.ADDED, 10_000)]
    assert rows_of(b, b) == ()


# Real files


def _pairs() -> dict[str, dict[str, Any]]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return {}
    pairs = json.loads(Path(place, "expected.json").read_text())["pairs"]
    return {k: v for k, v in pairs.items() if k.startswith(("torch", "nsys"))}


PAIRS = _pairs()


@pytest.mark.parametrize("name", PAIRS or ["no file"])
def test_real_pairs_close_to_the_nanosecond(real_data: Path, name: str) -> None:
    pair = PAIRS[name]
    a, b = open_trace(real_data / pair["a"]), open_trace(real_data / pair["b"])
    rows = rows_of(a, b)
    assert sum(row.delta for row in rows) == pair["delta"]["gpu_ns"]
    back = rows_of(b, a)
    assert sum(row.delta for row in back) == -pair["delta"]["gpu_ns"]
    by_name = [Counter[str](), Counter[str]()]
    for row in rows:
        by_name[0][row.name] -= row.a if row.count_a else 0
        by_name[0][row.name_b or row.name] += row.b
    for row in back:
        by_name[1][row.name] += row.a
        by_name[1][row.name_b or row.name] -= row.b
    assert {k: v for k, v in by_name[0].items() if v} == {k: v for k, v in by_name[1].items() if v}


@pytest.mark.parametrize("name", sorted({p[s] for p in PAIRS.values() for s in "ab"}) or ["no"])
def test_a_real_file_against_itself_changes_nothing(real_data: Path, name: str) -> None:
    trace = open_trace(real_data / name)
    for row in rows_of(trace, trace):
        assert (row.tier, row.status, row.delta) == (Tier.EXACT, Status.BOTH, 0)


@pytest.mark.parametrize(
    ("name", "groups"), [("torch qwen vendor", 800), ("torch owlv2 vendor", 3000)]
)
def test_kernels_renamed_by_another_vendor_are_matched(
    real_data: Path, name: str, groups: int
) -> None:
    pair = PAIRS[name]
    a, b = open_trace(real_data / pair["a"]), open_trace(real_data / pair["b"])
    matched = match(a, b)
    found = matching_quality(matched, kernel_rows(matched))
    assert found["groups"] >= groups
    assert found["one_to_one_groups"] >= 0.8 * found["groups"]
    assert found["two_sided_a_ns"] >= 0.95 * pair["a_values"]["gpu_ns"]
    assert found["two_sided_b_ns"] >= 0.95 * pair["b_values"]["gpu_ns"]


@pytest.mark.parametrize(
    ("name", "delta_ns"), [("vllm_graph_decode", -1_880_942), ("vllm_graph_piecewise", -41_644_180)]
)
def test_one_kernel_made_twice_as_fast_in_graph_replays_is_found(
    real_data: Path, tmp_path: Path, name: str, delta_ns: int
) -> None:
    source = real_data / "torch" / f"{name}.json.gz"
    content = json.loads(gzip.decompress(source.read_bytes()), parse_float=Decimal)
    kernels = [e for e in content["traceEvents"] if e.get("ph") == "X" and e["cat"] == "kernel"]
    total: Counter[str] = Counter()
    for entry in kernels:
        total[entry["name"]] += entry["dur"]
    slowest = total.most_common(1)[0][0]
    for entry in kernels:
        if entry["name"] == slowest:
            entry["dur"] = Decimal(int(entry["dur"] * 1000) // 2) / 1000
    halved = write(tmp_path / "half.json", json.dumps(content, default=float))
    rows = rows_of(open_trace(source), open_trace(halved))
    changed = [row for row in rows if row.delta]
    assert {row.name for row in changed} == {slowest}
    assert sum(row.delta for row in changed) == delta_ns
