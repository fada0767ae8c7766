"""Rows by operator and by range are disjoint, close exactly and name the cause first."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.trace_files import NsysFile, call, document, event, kernel, write

from common.diff.diff import compare_files
from common.diff.difference import Row, Tier
from common.diff.kernel_rows import kernel_rows, match
from common.diff.nesting import host_tree
from common.diff.operator_rows import cpu_operator_rows, gpu_operator_rows
from common.diff.range_rows import OUTSIDE, OUTSIDE_MODULES, UNLINKED, range_rows
from common.errors import UsageError
from common.traces.formats import open_trace
from common.traces.model import HostKind, Trace
from common.traces.nvtx_names import operator_name
from common.traces.summary import cpu_time_ns
from common.traces.torch_trace import read_torch_trace


def trace_of(folder: Path, name: str, *events: str) -> Trace:
    return read_torch_trace(write(folder / name, document(*events)))


def operator(name: str, ts: int, dur: int, category: str = "cpu_op", tid: int = 1) -> str:
    return event(category, name, str(ts), str(dur), tid=tid)


def launch(name: str, at: int, number: int, duration: int) -> list[str]:
    return [
        call("cudaLaunchKernel", str(at), "1", number),
        kernel(name, str(at + 1000), str(duration), number),
    ]


def found(rows: tuple[Row, ...]) -> dict[str, tuple[int, int, int, int]]:
    return {row.name: (row.a, row.b, row.count_a, row.count_b) for row in rows}


# By operator


def test_gpu_time_goes_to_the_outermost_operator_through_every_wrapper(tmp_path: Path) -> None:
    def side(name: str, duration: int) -> Trace:
        return trace_of(
            tmp_path, name,
            operator("ProfilerStep#1", 0, 900, "user_annotation"),
            operator("Torch-Compiled Region: 0/0", 5, 500), operator("aten::linear", 10, 50),
            operator("aten::addmm", 20, 20), *launch("gemm", 25, 1, duration),
            operator("triton_fused", 100, 20), *launch("triton_fused", 105, 2, 7),
            *launch("bare", 700, 3, 4), kernel("lost", "5000", "2", None),
        )  # fmt: skip

    rows = gpu_operator_rows(match(side("a.json", 10), side("b.json", 15)))
    assert found(rows) == {
        "aten::linear": (10_000, 15_000, 1, 1),
        "triton_fused": (7_000, 7_000, 1, 1),
        "bare": (4_000, 4_000, 1, 1),
        "lost": (2_000, 2_000, 1, 1),
    }
    assert rows[0].name == "aten::linear"
    assert [(child.name, child.delta) for child in rows[0].children] == [("gemm", 5_000)]


def test_a_renamed_operator_is_recognised_by_its_place(tmp_path: Path) -> None:
    def side(name: str, middle: str, duration: int) -> Trace:
        events: list[str] = []
        for number, own in enumerate(("aten::a", middle, "aten::b", middle, "aten::c")):
            at = 100 * number
            events += [operator(own, at, 50), *launch("same_kernel", at + 5, number + 1, duration)]
        return trace_of(tmp_path, name, *events)

    rows = gpu_operator_rows(match(side("a.json", "old::op", 5), side("b.json", "new::thing", 6)))
    renamed = next(row for row in rows if row.name == "old::op")
    assert (renamed.name_b, renamed.tier, renamed.delta) == ("new::thing", Tier.POSITION, 2_000)
    assert len(rows) == 4


def test_cpu_time_is_that_of_the_outermost_operators_of_each_thread(tmp_path: Path) -> None:
    def side(name: str, extra: int) -> Trace:
        return trace_of(
            tmp_path, name, operator("aten::linear", 0, 100 + extra), operator("aten::mm", 5, 60),
            operator("aten::add", 300, 20), operator("aten::linear", 0, 40, tid=2),
        )  # fmt: skip

    a, b = side("a.json", 0), side("b.json", 30)
    rows, remainders = cpu_operator_rows(a, b)
    assert found(rows) == {
        "aten::linear": (140_000, 170_000, 2, 2),
        "aten::add": (20_000, 20_000, 1, 1),
    }
    assert remainders == ()
    assert found(rows[0].children) == {"aten::mm": (60_000, 60_000, 1, 1)}
    assert sum(row.b for row in rows) == cpu_time_ns(b)


def test_operators_that_overlap_are_counted_once_and_said(tmp_path: Path) -> None:
    a = trace_of(tmp_path, "a.json", operator("one", 0, 100), operator("two", 50, 100))
    rows, remainders = cpu_operator_rows(a, a)
    total = sum(row.a for row in rows) + sum(remainder.a for remainder in remainders)
    assert total == cpu_time_ns(a) == 150_000


# By range


def test_ranges_are_exclusive_in_rows_and_inclusive_beside(tmp_path: Path) -> None:
    def side(name: str, factor: int) -> Trace:
        file = NsysFile(tmp_path / name)
        file.nvtx("step", 0, 1000)
        file.nvtx("attention", 100, 400)
        for number, (at, duration) in enumerate(((50, 10), (150, 20), (500, 30), (2000, 40))):
            file.call("cudaLaunchKernel", at, at + 5, number + 1)
            start = 5000 + 100 * number
            file.kernel("k", start, start + duration * factor, number + 1)
        file.kernel("k", 9000, 9001, 77)
        return open_trace(file.done())

    rows = range_rows(side("a.sqlite", 1), side("b.sqlite", 2)).rows
    assert {row.path: (row.a, row.b) for row in rows} == {
        "step": (40, 80),
        "step / attention": (20, 40),
        OUTSIDE: (40, 80),
        UNLINKED: (1, 1),
    }
    step = next(row for row in rows if row.path == "step")
    assert step.metrics is not None
    assert step.metrics["gpu_inclusive_ns"] == {"a": 60, "b": 120}
    assert step.metrics["cpu_inclusive_ns"] == {"a": 1000, "b": 1000}
    assert step.metrics["cpu_exclusive_ns"] == {"a": 700, "b": 700}


def test_ranges_of_a_cpu_trace_hold_the_time_of_their_operators(tmp_path: Path) -> None:
    def side(name: str, spent: int) -> Trace:
        return trace_of(
            tmp_path, name, operator("decode", 0, 500, "user_annotation"),
            operator("aten::linear", 10, spent), operator("aten::add", 600, 5),
        )  # fmt: skip

    a, b = side("a.json", 100), side("b.json", 250)
    rows = range_rows(a, b).rows
    assert {row.path: (row.a, row.b) for row in rows} == {
        "decode": (100_000, 250_000),
        OUTSIDE: (5_000, 5_000),
    }


def test_ranges_alone_hold_their_own_time(tmp_path: Path) -> None:
    def side(name: str, spent: int) -> Path:
        file = NsysFile(tmp_path / name)
        file.nvtx("decode", 0, 1000 + spent)
        file.nvtx("step", 100, 100 + spent)
        return file.done()

    found = compare_files(str(side("a.sqlite", 300)), str(side("b.sqlite", 800)))
    assert (found.by, found.quantity, found.delta, found.residual) == (
        "range", "cpu_time_ns", 500, 0,
    )  # fmt: skip
    assert {row.path: (row.a, row.b) for row in found.rows} == {
        "decode": (1000, 1000),
        "decode / step": (300, 800),
    }
    with pytest.raises(UsageError, match="--by range"):
        compare_files(str(tmp_path / "a.sqlite"), str(tmp_path / "b.sqlite"), "operator")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("aten::bmm, op_id = 26468, sizes = [[1, 2]], input_op_ids = [(1,0)]", "aten::bmm"),
        ("aten::einsum, seq = 12325, op_id = 92679, sizes = [[]]", "aten::einsum"),
        ("FlashAttnFunc, seq = 46588, op_id = 995009", "FlashAttnFunc"),
        ("aten::add, seq = 7", "aten::add"),
        ("forward pass", None),
        ("loss, seq length 12", None),
        ("step 3, op_id", None),
    ],
)
def test_operators_written_as_nvtx_ranges_are_told_from_ranges(text: str, name: str | None) -> None:
    assert operator_name(text) == name


def test_operators_of_emit_nvtx_are_operators_of_the_trace(tmp_path: Path) -> None:
    def side(name: str, counter: int) -> Trace:
        file = NsysFile(tmp_path / name)
        file.nvtx("forward", 0, 1000)
        file.nvtx(f"aten::mm, seq = {counter}, op_id = {counter + 5}, sizes = [[]]", 10, 90)
        file.call("cudaLaunchKernel", 20, 30, 1)
        file.kernel("gemm", 100, 150 + counter, 1)
        return open_trace(file.done())

    a, b = side("a.sqlite", 3), side("b.sqlite", 9)
    assert found(gpu_operator_rows(match(a, b))) == {"aten::mm": (53, 59, 1, 1)}
    assert [row.path for row in range_rows(a, b).rows] == ["forward"]


# By module


def test_modules_are_rows_of_their_own_and_part_of_the_path(tmp_path: Path) -> None:
    def side(name: str, duration: int) -> Trace:
        return trace_of(
            tmp_path, name, operator("nn.Module: Model_0", 0, 900, "python_function"),
            operator("model.py(12): forward", 1, 890, "python_function"),
            operator("nn.Module: Linear_0", 10, 100, "python_function"),
            operator("aten::linear", 20, 50), *launch("gemm", 25, 1, duration),
            operator("nn.Module: Linear_1", 200, 100, "python_function"),
            operator("aten::linear", 220, 50), *launch("gemm", 225, 2, 5),
            operator("aten::add", 500, 20), *launch("add", 505, 3, 1), *launch("bare", 950, 4, 2),
        )  # fmt: skip

    a, b = side("a.json", 10), side("b.json", 30)
    rows = range_rows(a, b, HostKind.MODULE).rows
    assert {row.path: (row.a, row.b) for row in rows} == {
        "Model_0 / Linear_0": (10_000, 30_000),
        "Model_0 / Linear_1": (5_000, 5_000),
        "Model_0": (1_000, 1_000),
        OUTSIDE_MODULES: (2_000, 2_000),
    }
    model = next(row for row in rows if row.path == "Model_0")
    assert model.metrics is not None
    assert model.metrics["gpu_inclusive_ns"] == {"a": 16_000, "b": 36_000}
    places = {row.path for row in kernel_rows(match(a, b))}
    assert "Model_0 / Linear_0 / aten::linear" in places
    assert "Model_0 / Linear_1 / aten::linear" in places


# Nesting


def test_spans_that_touch_are_neighbours_and_rounded_ones_stay_inside(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, "a.json", operator("outer", 0, 100), operator("first", 0, 40),
        operator("second", 40, 60), operator("instant", 70, 0), operator("next", 100, 10),
    )  # fmt: skip
    tree = host_tree(trace)
    names = [trace.names[number] for number in trace.host.name.tolist()]
    above = {
        name: names[parent] if parent >= 0 else None
        for name, parent in zip(names, tree.parent.tolist(), strict=True)
    }
    assert above == {
        "outer": None,
        "first": "outer",
        "second": "outer",
        "instant": "second",
        "next": None,
    }


# Real files


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("torch/hta_control.json.gz", "torch/hta_test.json.gz"),
        ("torch/qwen_h100.json.gz", "torch/qwen_mi300.json.gz"),
        ("torch/kineto_nw0.json.gz", "torch/kineto_nw4.json.gz"),
        ("torch/vllm_graph_decode.json.gz", "torch/vllm_graph_piecewise.json.gz"),
        ("nsys/small_fwd.sqlite.gz", "nsys/small_opt.sqlite.gz"),
        ("nsys/mfu_2gpu_before.sqlite.gz", "nsys/mfu_2gpu_after.sqlite.gz"),
        ("nsys/lm_2_7B_clean.sqlite.gz", "nsys/lm_2_7B_compile_ro.sqlite.gz"),
        ("torch/zoology_no_kernels.json.gz", "torch/bert_small_h100.json.gz"),
    ],
)
def test_rows_of_real_pairs_close(real_data: Path, a: str, b: str) -> None:
    left, right = open_trace(real_data / a), open_trace(real_data / b)
    totals = [int(trace.gpu.duration_ns.sum()) for trace in (left, right)]
    for rows in (gpu_operator_rows(match(left, right)), range_rows(left, right).rows):
        assert [sum(row.a for row in rows), sum(row.b for row in rows)] == totals


def test_the_range_that_costs_most_comes_first(real_data: Path) -> None:
    a = open_trace(real_data / "nsys/small_fwd.sqlite.gz")
    b = open_trace(real_data / "nsys/small_fwd_cl4096.sqlite.gz")
    first = range_rows(a, b).rows[0]
    assert first.name == "computing softmax"
    assert (first.count_a, first.count_b) == (12, 12)


def test_the_cpu_only_trace_closes_by_operator(real_data: Path) -> None:
    trace = open_trace(real_data / "torch/hta_cpu_only.json.gz")
    rows, remainders = cpu_operator_rows(trace, trace)
    total = sum(row.a for row in rows) + sum(remainder.a for remainder in remainders)
    assert total == cpu_time_ns(trace)
    assert not any(row.delta for row in rows)
