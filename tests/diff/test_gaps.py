"""Idle gaps close the wall clock exactly, and their causes are those of the recorded calls."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.trace_files import NsysFile, call, document, event, kernel, write

from common.diff.difference import GapCause
from common.diff.gaps import PLACES, Cause, compare_gaps, idle_gaps, wall_clock
from common.traces.formats import open_trace
from common.traces.intervals import union_ns
from common.traces.model import Trace
from common.traces.torch_trace import read_torch_trace


def trace_of(folder: Path, *events: str) -> Trace:
    return read_torch_trace(write(folder / "trace.json", document(*events)))


def parts(trace: Trace) -> list[tuple[str, int, int]]:
    """(cause, start, length) of every row, in ns."""
    gaps = idle_gaps(trace)
    columns = (gaps.cause.tolist(), gaps.start_ns.tolist(), gaps.length_ns.tolist())
    return [(Cause(cause).text, start, ns) for cause, start, ns in zip(*columns, strict=True)]


def children(trace: Trace, cause: Cause) -> list[str]:
    return [child.cause for child in compare_gaps(trace, trace).causes[cause].children]


def operator(name: str, ts: str, dur: str, category: str = "cpu_op") -> str:
    return event(category, name, ts, dur)


def test_work_launched_after_the_gpu_ran_dry_is_host_late(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "10", 1),
        operator("aten::add", "95", "20"), call("cudaLaunchKernel", "100", "3", 2),
        kernel("k2", "105", "5", 2),
    )  # fmt: skip
    assert parts(trace) == [("host late", 15_000, 90_000)]
    assert children(trace, Cause.HOST_LATE) == ["before aten::add"]


def test_a_launch_still_running_when_the_gpu_ran_dry_is_host_late(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "10", 1),
        call("cudaLaunchKernel", "10", "400", 2), kernel("k2", "409", "5", 2),
    )  # fmt: skip
    assert parts(trace) == [("host late", 15_000, 394_000)]
    assert children(trace, Cause.HOST_LATE) == ["in cudaLaunchKernel of k2"]


def test_what_the_thread_did_instead_of_launching_is_named(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "10", 1),
        operator("enumerate(DataLoader)", "20", "900", "user_annotation"),
        operator("aten::to", "950", "30"), call("cudaMemcpyAsync", "960", "5", 2),
        kernel("k2", "970", "5", 2),
    )  # fmt: skip
    assert children(trace, Cause.HOST_LATE) == ["in enumerate(DataLoader)"]


def test_work_launched_in_time_waited_in_the_queue(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "10", 1),
        call("cudaLaunchKernel", "3", "2", 2), kernel("k2", "17", "5", 2),
    )  # fmt: skip
    assert parts(trace) == [("queue/dependency", 15_000, 2_000)]


def test_waiting_long_after_a_late_launch_is_no_lateness(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "10", 1),
        call("cudaLaunchKernel", "20", "5", 2), kernel("k2", "125", "5", 2),
    )  # fmt: skip
    assert parts(trace) == [("host late", 15_000, 10_000), ("queue/dependency", 25_000, 100_000)]


def synchronised(took_us: int, *between: str) -> list[str]:
    """k1 runs until 1000 while the host waits for it, and k2 is launched at 1090."""
    return [
        call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "995", 1),
        operator("aten::item", str(1005 - took_us), str(took_us)),
        call("cudaStreamSynchronize", str(1005 - took_us), str(took_us), 2), *between,
        operator("aten::add", "1085", "20"), call("cudaLaunchKernel", "1090", "3", 3),
        kernel("k2", "1100", "5", 3),
    ]  # fmt: skip


def test_a_launch_held_up_by_a_synchronising_call_is_its_fault(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, *synchronised(900))
    assert parts(trace) == [("synchronise", 1_000_000, 100_000)]
    assert children(trace, Cause.SYNCHRONISE) == ["cudaStreamSynchronize in aten::item"]


def test_a_synchronising_call_answers_for_no_more_than_it_took(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, *synchronised(30))
    assert parts(trace) == [("synchronise", 1_000_000, 30_000), ("host late", 1_030_000, 70_000)]


def test_other_work_of_the_host_after_a_synchronising_call_is_host_late(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, *synchronised(900, operator("aten::sort", "1010", "70")))
    assert parts(trace) == [("synchronise", 1_000_000, 5_000), ("host late", 1_005_000, 95_000)]
    assert children(trace, Cause.HOST_LATE) == ["in aten::sort"]


def test_the_synchronising_call_of_another_thread_is_not_to_blame(tmp_path: Path) -> None:
    sync = event("cuda_runtime", "cudaStreamSynchronize", "100", "905", tid=9)
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 1), kernel("k1", "5", "995", 1), sync,
        call("cudaLaunchKernel", "1090", "3", 3), kernel("k2", "1100", "5", 3),
    )  # fmt: skip
    assert parts(trace) == [("host late", 1_000_000, 100_000)]


def test_a_blocking_copy_synchronises(tmp_path: Path) -> None:
    place = {"device": 0, "stream": 7}
    for name, copied, cause in (
        ("hipMemcpyWithStream", "Memcpy DtoH (Device -> Host)", "synchronise"),
        ("cudaMemcpyAsync", "Memcpy DtoH (Device -> Pageable)", "synchronise"),
        ("cudaMemcpyAsync", "Memcpy DtoH (Device -> Pinned)", "host late"),
    ):
        copy = event("gpu_memcpy", copied, "500", "500", args={"correlation": 1, **place})
        trace = trace_of(
            tmp_path, call(name, "0", "1003", 1), copy,
            call("cudaLaunchKernel", "1090", "3", 3), kernel("k2", "1100", "5", 3),
        )  # fmt: skip
        assert parts(trace) == [(cause, 1_000_000, 100_000)]


def test_clocks_that_differ_do_not_hide_a_synchronising_call(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("hipLaunchKernel", "0", "2", 1), kernel("k1", "5", "995", 1),
        call("hipDeviceSynchronize", "10", "982", 2),  # over 8 µs before k1 is
        call("hipLaunchKernel", "1090", "3", 3), kernel("k2", "1100", "5", 3),
    )  # fmt: skip
    assert parts(trace) == [("synchronise", 1_000_000, 100_000)]


def test_nodes_of_one_graph_launch_wait_for_each_other(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, call("hipGraphLaunch", "0", "50", 1), kernel("n1", "5", "10", 1),
        kernel("n2", "18", "5", 1), kernel("n3", "24", "5", 1),
    )  # fmt: skip
    assert parts(trace) == [
        ("queue/dependency", 15_000, 3_000),
        ("queue/dependency", 23_000, 1_000),
    ]
    assert children(trace, Cause.QUEUE) == ["within hipGraphLaunch"]


@pytest.mark.parametrize(
    ("correlation", "cause"),
    [
        (1, "queue/dependency"),  # before the first recorded call, which was in time
        (15, "host late"),  # between two calls within the gap
        (25, "host late"),  # after the last call, which was within the gap
        (7, "none known"),  # between a call before the gap and one within it
        (None, "none known"),
    ],
)
def test_work_without_a_call_is_told_by_the_order_of_ids(
    tmp_path: Path, correlation: int | None, cause: str
) -> None:
    trace = trace_of(
        tmp_path, call("cudaLaunchKernel", "0", "2", 5), kernel("k1", "5", "15", 5),
        call("cudaEventQuery", "40", "1", 10), call("cudaEventQuery", "60", "1", 20),
        kernel("k2", "100", "5", correlation),
    )  # fmt: skip
    assert parts(trace) == [(cause, 20_000, 80_000)]


def test_work_without_a_call_is_told_by_the_order_of_its_stream(tmp_path: Path) -> None:
    events = [
        call("cudaLaunchKernel", "0", "2", 5), kernel("k1", "5", "15", 5),
        kernel("k2", "100", "5", None), call("cudaLaunchKernel", "3", "2", 6),
    ]  # fmt: skip
    later = [kernel("k3", "105", "5", 6, stream=stream) for stream in (7, 8)]
    assert parts(trace_of(tmp_path, *events, later[0])) == [("queue/dependency", 20_000, 80_000)]
    assert parts(trace_of(tmp_path, *events, later[1])) == [("none known", 20_000, 80_000)]


def test_ids_of_one_process_say_nothing_about_another(tmp_path: Path) -> None:
    file = NsysFile(tmp_path / "two.sqlite")
    file.call("cudaLaunchKernel", 0, 2_000, 5, pid=5)
    file.call("cudaLaunchKernel", 0, 2_000, 900, pid=6)
    file.kernel("k1", 5_000, 15_000, 5, pid=5)
    file.kernel("k2", 100_000, 105_000, 4, pid=5)  # before id 5 of its own process
    file.kernel("k3", 200_000, 205_000, 6, pid=5)  # before id 900, but of the other process
    trace = open_trace(file.done())
    assert [cause for cause, _, _ in parts(trace)] == ["queue/dependency", "none known"]


def test_two_streams_are_one_timeline_and_two_devices_are_two(tmp_path: Path) -> None:
    trace = trace_of(
        tmp_path, kernel("a", "0", "10", None), kernel("b", "5", "20", None, stream=8),
        kernel("c", "8", "1", None), kernel("zero", "25", "0", None),
        kernel("zero", "28", "0", None), kernel("d", "30", "5", None),
        kernel("e", "100", "5", None, device=1), kernel("f", "150", "5", None, device=1),
    )  # fmt: skip
    gaps = idle_gaps(trace)
    assert gaps.device.tolist() == [0, 0, 1]
    assert gaps.start_ns.tolist() == [25_000, 28_000, 105_000]
    assert gaps.end_ns.tolist() == [28_000, 30_000, 150_000]
    names = [[trace.names[n] for n in trace.gpu.name[rows]] for rows in (gaps.before, gaps.after)]
    assert names == [["zero", "zero", "e"], ["zero", "d", "f"]]
    compared = compare_gaps(trace, trace)
    assert (compared.a_ns, compared.delta_ns) == (50_000, 0)


def test_a_trace_without_gpu_work_has_no_gaps(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, operator("aten::add", "0", "5"))
    compared = compare_gaps(trace, trace)
    assert (compared.a_ns, compared.b_ns) == (0, 0)
    assert [cause.cause for cause in compared.causes] == [cause.text for cause in Cause]
    assert all(cause.children == () for cause in compared.causes)
    assert wall_clock(trace, trace) == []


def test_devices_are_paired_by_id_or_else_in_order(tmp_path: Path) -> None:
    def on(*devices: int) -> Trace:
        return trace_of(tmp_path, *(kernel("k", "5", "5", None, device=d) for d in devices))

    def pairs(a: Trace, b: Trace) -> list[tuple[int | None, int | None]]:
        return [(pair["device_a"], pair["device_b"]) for pair in wall_clock(a, b)]

    assert pairs(on(0), on(2)) == [(0, 2)]
    assert pairs(on(0, 1), on(1, 2)) == [(0, 1), (1, 2)]
    assert pairs(on(0, 1), on(0)) == [(0, 0), (1, None)]
    alone = wall_clock(on(0), on(0, 1))[1]
    assert (alone["device_a"], alone["span_a_ns"], alone["delta_busy_ns"]) == (None, 0, 5_000)


def test_places_beyond_those_listed_are_added_up(tmp_path: Path) -> None:
    many = []
    for n in range(1, PLACES + 10):
        many.append(call("cudaLaunchKernel", str(1000 * n), "2", n))
        many.append(kernel(f"k{n}", str(1000 * n + 5), "5", n))
    trace = trace_of(tmp_path, *many)
    late = compare_gaps(trace, trace).causes[Cause.HOST_LATE]
    assert len(late.children) == PLACES + 1
    assert late.children[-1].cause == f"other ({PLACES + 9 - 1 - PLACES} places)"
    assert sum(child.a_ns for child in late.children) == late.a_ns == 28 * 995_000


# Real files


def real_names(folder: str) -> list[str]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return ["(no data)"]
    facts = json.loads((Path(place) / "expected.json").read_text(encoding="utf-8"))["files"]
    return [name for name, fact in facts.items() if fact["kind"] == folder]


def assert_closed(cause: GapCause) -> None:
    assert sum(child.a_ns for child in cause.children) == cause.a_ns
    assert sum(child.b_ns for child in cause.children) == cause.b_ns
    assert sum(child.count_a for child in cause.children) == cause.count_a


@pytest.mark.parametrize("name", [*real_names("torch"), *real_names("nsys")])
def test_span_is_busy_plus_gaps_on_every_device_of_every_file(name: str, real_data: Path) -> None:
    trace = open_trace(real_data / name)
    gpu, gaps = trace.gpu, idle_gaps(trace)
    assert (gaps.length_ns > 0).all()
    for device in np.unique(gpu.device):
        rows, own = gpu.device == device, gaps.device == device
        starts, ends = gpu.start_ns[rows], gpu.end_ns[rows]
        idle = int(ends.max()) - int(starts.min()) - union_ns(starts, ends)
        assert int(gaps.length_ns[own].sum()) == idle
        assert (gaps.start_ns[own][1:] >= gaps.end_ns[own][:-1]).all()
        # Nothing of the device runs within a gap.
        begun = np.searchsorted(starts, gaps.end_ns[own], "left")
        assert (np.maximum.accumulate(ends)[begun - 1] <= gaps.start_ns[own]).all()
    compared = compare_gaps(trace, trace)
    assert compared.delta_ns == 0
    assert sum(cause.a_ns for cause in compared.causes) == compared.a_ns
    for cause in compared.causes:
        assert_closed(cause)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("torch/kineto_nw0.json.gz", "torch/kineto_nw4.json.gz"),
        ("torch/qwen_h100.json.gz", "torch/qwen_mi300.json.gz"),
        ("nsys/mfu_2gpu_before.sqlite.gz", "nsys/mfu_2gpu_after.sqlite.gz"),
        ("nsys/lm_2_7B_clean.sqlite.gz", "nsys/lm_2_7B_compile_ro.sqlite.gz"),
    ],
)
def test_the_wall_clock_of_real_pairs_closes(a: str, b: str, real_data: Path) -> None:
    one, two = open_trace(real_data / a), open_trace(real_data / b)
    gaps, clock = compare_gaps(one, two), wall_clock(one, two)
    for pair in clock:
        assert pair["delta_span_ns"] == pair["delta_busy_ns"] + pair["delta_idle_ns"]
        assert pair["span_a_ns"] == pair["busy_a_ns"] + pair["idle_a_ns"]
    assert gaps.delta_ns == sum(pair["delta_idle_ns"] for pair in clock)
    assert gaps.delta_ns == sum(cause.delta_ns for cause in gaps.causes)
    assert [cause.cause for cause in gaps.causes] == [cause.text for cause in Cause]
    for cause in gaps.causes:
        assert_closed(cause)


def test_workers_make_the_loader_stop_holding_up_the_gpu(real_data: Path) -> None:
    a = open_trace(real_data / "torch/kineto_nw0.json.gz")
    b = open_trace(real_data / "torch/kineto_nw4.json.gz")
    (clock,) = wall_clock(a, b)
    gaps = compare_gaps(a, b)
    assert clock["delta_busy_ns"] == 10_855_000  # +1.8 %
    assert gaps.delta_ns == clock["delta_idle_ns"] == -205_782_000
    assert round(100 * clock["delta_span_ns"] / clock["span_a_ns"], 1) == -19.6
    assert gaps.causes[Cause.NONE_KNOWN].delta_ns == 0
    late = gaps.causes[Cause.HOST_LATE]
    assert late.delta_ns <= 0.8 * gaps.delta_ns
    loader = late.children[0]
    assert loader.cause == "in enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
    assert (loader.count_a, loader.count_b) == (5, 0)
    assert loader.delta_ns == -285_214_000
