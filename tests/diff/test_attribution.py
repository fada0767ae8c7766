"""Does attribution conserve every nanosecond, and charge the outermost operator, no wrapper?"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.diff.attribution import (
    WRAPPER_PREFIXES,
    is_wrapper,
    memory_timeline,
    peak_in_range,
    time_in_range,
)
from common.traces.model import HostKind, Trace
from common.traces.torch_trace import read_torch_trace

REAL = os.environ.get("WORKLOG_TEST_DATA")
Event = tuple[str, str, int, int]  # name, category, start, end
Full = tuple[str, str, str, int, int, int, int]  # thread, name, category, start, end, corr, device


def microseconds(time_ns: int) -> str:
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"


def trace_of(
    events: Sequence[Full], memory: Sequence[tuple[int, int]] = (), device: int = -1
) -> Trace:
    """The events as torch.profiler would have written them, read back."""
    lines = []
    for thread, name, category, start, end, correlation, gpu in events:
        arguments = {"correlation": correlation} if correlation >= 0 else {}
        arguments |= {"device": gpu, "stream": 7} if gpu >= 0 else {}
        head = {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": thread}
        times = f'"ts": {microseconds(start)}, "dur": {microseconds(end - start)}'
        lines.append(f'{json.dumps(head)[:-1]}, {times}, "args": {json.dumps(arguments)}}}')
    for time_ns, size in memory:
        arguments = {"Bytes": size, "Device Type": int(device >= 0), "Device Id": device}
        head = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": "t"}
        text = f'{json.dumps(head)[:-1]}, "ts": {microseconds(time_ns)}'
        lines.append(f'{text}, "args": {json.dumps(arguments)}}}')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        path.write_text('{"traceEvents": [' + ",\n".join(lines) + "]}", encoding="utf-8")
        return read_torch_trace(path)


def cpu(*events: Event, thread: str = "t") -> list[Full]:
    return [(thread, n, c, s, e, -1, -1) for n, c, s, e in events]


def rows(trace: Trace, name: str = "run") -> dict[str, int]:
    found = time_in_range(trace, name)
    assert found is not None
    assert sum(row.time_ns for row in found.rows) + found.outside_ns == found.total_ns
    return {row.name: row.time_ns for row in found.rows}


RUN = ("run", "user_annotation", 0, 100)


def test_the_outermost_operator_is_charged_and_its_calls_are_drill_down() -> None:
    trace = trace_of(cpu(RUN, ("a", "cpu_op", 10, 50), ("b", "cpu_op", 20, 40),
                         ("c", "cpu_op", 25, 30), ("a", "cpu_op", 60, 70)))  # fmt: skip
    found = time_in_range(trace, "run")
    assert found is not None
    (row,) = found.rows
    assert (row.name, row.count, row.time_ns, row.children_ns) == ("a", 2, 50, {"b": 20})
    assert (found.quantity, found.total_ns, found.outside_ns) == ("cpu_time_ns", 100, 50)
    assert found.share("a") == 0.5
    assert found.share("b") == 0


@pytest.mark.parametrize("wrapper", [f"{prefix}: 0/0" for prefix in WRAPPER_PREFIXES])
def test_a_wrapper_is_never_charged_but_what_it_encloses_is(wrapper: str) -> None:
    assert is_wrapper(wrapper)
    trace = trace_of(cpu(RUN, (wrapper, "cpu_op", 5, 95), ("a", "cpu_op", 10, 40),
                         (wrapper, "cpu_op", 41, 60), ("b", "cpu_op", 45, 50)))  # fmt: skip
    assert rows(trace) == {"a": 30, "b": 5}


def test_a_wrapper_inside_an_operator_changes_nothing() -> None:
    trace = trace_of(cpu(RUN, ("a", "cpu_op", 10, 90), ("ProfilerStep#1", "cpu_op", 20, 80),
                         ("b", "cpu_op", 30, 70)))  # fmt: skip
    assert rows(trace) == {"a": 80}


def test_annotations_and_launches_are_no_operators() -> None:
    trace = trace_of(cpu(RUN, ("note", "user_annotation", 5, 95), ("a", "cpu_op", 10, 20),
                         ("cudaLaunchKernel", "cuda_runtime", 30, 40)))  # fmt: skip
    assert rows(trace) == {"a": 10}


def test_a_range_inside_its_own_name_counts_once_and_repeats_add_up() -> None:
    trace = trace_of(cpu(RUN, ("run", "user_annotation", 10, 90), ("a", "cpu_op", 20, 30),
                         ("run", "user_annotation", 200, 250),
                         ("a", "cpu_op", 210, 215)))  # fmt: skip
    found = time_in_range(trace, "run")
    assert found is not None
    assert (found.occurrences, found.total_ns) == (2, 150)
    assert rows(trace) == {"a": 15}


def test_what_encloses_the_range_is_outside_of_it() -> None:
    """A custom operator that opens the range in its own body must not swallow what is inside."""
    trace = trace_of(cpu(("outer", "cpu_op", 0, 300), ("run", "user_annotation", 100, 200),
                         ("a", "cpu_op", 110, 150)))  # fmt: skip
    assert rows(trace) == {"a": 40}


def test_threads_are_kept_apart() -> None:
    trace = trace_of(cpu(RUN, ("a", "cpu_op", 10, 20)) + cpu(("b", "cpu_op", 30, 40), thread="u"))
    assert rows(trace) == {"a": 10}
    both = trace_of(cpu(RUN, ("a", "cpu_op", 10, 20)) +
                    cpu(RUN, ("b", "cpu_op", 30, 45), thread="u"))  # fmt: skip
    assert rows(both) == {"a": 10, "b": 15}
    found = time_in_range(both, "run")
    assert found is not None and found.total_ns == 200


def test_events_that_touch_the_edges_are_inside() -> None:
    trace = trace_of(cpu(RUN, ("first", "cpu_op", 0, 10), ("last", "cpu_op", 90, 99),
                         ("zero", "cpu_op", 100, 100), ("after", "cpu_op", 101, 120)))  # fmt: skip
    assert rows(trace) == {"first": 10, "last": 9, "zero": 0}
    next_one = trace_of(cpu(RUN, ("after", "cpu_op", 100, 120)))
    assert rows(next_one) == {}


def test_an_unknown_range_has_no_time() -> None:
    assert time_in_range(trace_of(cpu(RUN)), "walk") is None
    assert time_in_range(trace_of([]), "run") is None
    empty = time_in_range(trace_of(cpu(("run", "user_annotation", 5, 5))), "run")
    assert empty is not None and empty.share("a") is None


def test_gpu_time_goes_to_the_operator_that_launched_it() -> None:
    trace = trace_of([
        *cpu(RUN, ("a", "cpu_op", 10, 50)),
        ("t", "cudaLaunchKernel", "cuda_runtime", 20, 21, 1, -1),
        ("t", "cudaGraphLaunch", "cuda_runtime", 60, 61, 2, -1),
        ("t", "cudaLaunchKernel", "cuda_runtime", 150, 151, 3, -1),
        ("g", "gemm", "kernel", 500, 530, 1, 0),
        ("g", "copy", "gpu_memcpy", 530, 537, 1, 0),
        ("g", "replayed", "kernel", 540, 545, 2, 0),
        ("g", "replayed", "kernel", 545, 550, 2, 0),
        ("g", "elsewhere", "kernel", 600, 700, 3, 0),
        ("g", "unlinked", "kernel", 10, 90, -1, 0),
        ("g", "run", "kernel", 0, 1, 77, 0),
    ])  # fmt: skip
    found = time_in_range(trace, "run")
    assert found is not None
    assert (found.quantity, found.total_ns, found.outside_ns) == ("gpu_time_ns", 47, 0)
    assert rows(trace) == {"a": 37, "replayed": 10}
    assert found.rows[0].children_ns == {"gemm": 30, "copy": 7}


@st.composite
def trees(draw: st.DrawFn, low: int = 0, high: int = 1000, depth: int = 4) -> list[Event]:
    """Properly nested events: every child lies within its parent, siblings do not overlap."""
    names = ["run", "a", "b", "Torch-Compiled Region: 0/0", "ProfilerStep#3", "cudaLaunchKernel"]
    events: list[Event] = []
    at = low
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(at, high))
        end = draw(st.integers(start, high))
        name = draw(st.sampled_from(names))
        category = {"run": "user_annotation", "cudaLaunchKernel": "cuda_runtime"}.get(
            name, "cpu_op"
        )
        events.append((name, category, start, end))
        if depth:
            events += draw(trees(start, end, depth - 1))
        at = end
    return events


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(trees(), min_size=1, max_size=3))
def test_any_nested_tree_conserves_time_and_charges_no_wrapper(threads: list[list[Event]]) -> None:
    events = [e for i, tree in enumerate(threads) for e in cpu(*tree, thread=f"t{i}")]
    found = time_in_range(trace_of(events), "run")
    if found is None:
        assert not any(e[1] == "run" for e in events)
        return
    assert sum(row.time_ns for row in found.rows) + found.outside_ns == found.total_ns
    assert 0 <= found.outside_ns <= found.total_ns  # rows are disjoint and inside
    assert not {row.name for row in found.rows} - {"a", "b"}
    for row in found.rows:
        assert sum(row.children_ns.values()) <= row.time_ns


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["run", "a", "b", "CompiledFunction"]),
            st.integers(0, 60),
            st.integers(0, 60),
        ),
        max_size=12,
    )
)
def test_even_events_that_overlap_crosswise_never_make_more_than_the_range(
    drawn: list[tuple[str, int, int]],
) -> None:
    events = [
        (name, "user_annotation" if name == "run" else "cpu_op", start, start + length)
        for name, start, length in drawn
    ]
    found = time_in_range(trace_of(cpu(*events)), "run")
    if found is not None:
        assert sum(row.time_ns for row in found.rows) + found.outside_ns == found.total_ns
        assert all(row.time_ns >= 0 for row in found.rows)


def test_an_operator_that_outlasts_its_range_is_charged_for_what_lies_inside() -> None:
    trace = trace_of(cpu(RUN, ("a", "cpu_op", 90, 103), ("b", "cpu_op", 95, 105)))
    assert rows(trace) == {"a": 10}


@pytest.mark.parametrize(
    "name",
    ["torch/leimao_with_make_graphed", "torch/leimao_without_make_graphed", "torch/hta_cpu_only",
     "torch/tutorial_h100_a", "torch/kineto_nw4", "torch/compile_triton_mi300",
     "torch/zoology_no_kernels"],
)  # fmt: skip
def test_every_range_of_a_real_trace_conserves_time(name: str) -> None:
    if REAL is None:
        pytest.skip("WORKLOG_TEST_DATA is not set")
    trace = read_torch_trace(Path(REAL) / f"{name}.json.gz")
    annotations = {
        trace.names[number]
        for number in trace.host.name[trace.host.kind == HostKind.ANNOTATION].tolist()
    }
    for each in sorted(annotations)[:25]:
        found = time_in_range(trace, each)
        assert found is not None
        assert found.occurrences >= 1
        assert sum(row.time_ns for row in found.rows) + found.outside_ns == found.total_ns
        assert not any(is_wrapper(row.name) for row in found.rows)
        assert found.outside_ns >= 0


MEMORY = cpu(
    ("run", "user_annotation", 100, 200), ("a", "cpu_op", 110, 180), ("b", "cpu_op", 120, 140)
)


def test_the_peak_is_above_what_lived_when_the_range_began() -> None:
    memory = [(50, 1000), (125, 300), (130, 200), (150, -300), (160, -200), (300, -1000)]
    found = peak_in_range(trace_of(MEMORY, memory), "run")
    assert found is not None
    assert (found.peak_bytes, found.end_bytes, found.peak_at_ns) == (500, 0, 130)
    assert found.holders == ("a", "b")


def test_of_several_occurrences_the_highest_one_is_told() -> None:
    twice = MEMORY + cpu(("run", "user_annotation", 300, 400))
    memory = [(120, 100), (130, -100), (310, 700), (390, -600), (500, -100)]
    found = peak_in_range(trace_of(twice, memory), "run")
    assert found is not None
    assert (found.peak_bytes, found.end_bytes, found.peak_at_ns) == (700, 100, 310)


def test_releases_of_what_was_never_seen_make_no_peak() -> None:
    only = peak_in_range(trace_of(MEMORY, [(120, -800), (130, -100)]), "run")
    assert only is not None
    assert (only.peak_bytes, only.end_bytes, only.peak_at_ns, only.holders) == (0, -900, None, ())
    mixed = peak_in_range(trace_of(MEMORY, [(120, -800), (130, 900), (140, -900)]), "run")
    assert mixed is not None
    assert (mixed.peak_bytes, mixed.end_bytes) == (100, -800)


def test_an_event_at_the_start_is_inside_and_one_at_the_end_is_not() -> None:
    at_start = peak_in_range(trace_of(MEMORY, [(100, 64), (150, -64)]), "run")
    at_end = peak_in_range(trace_of(MEMORY, [(150, 16), (200, 64)]), "run")
    before = peak_in_range(trace_of(MEMORY, [(99, 64), (150, 1)]), "run")
    assert at_start is not None and at_start.peak_bytes == 64
    assert at_end is not None and (at_end.peak_bytes, at_end.end_bytes) == (16, 16)
    assert before is not None and before.peak_bytes == 1


def test_devices_are_kept_apart() -> None:
    trace = trace_of(MEMORY, [(120, 64)], device=0)
    assert peak_in_range(trace, "run") is None  # nothing of the CPU's allocator was recorded
    found = peak_in_range(trace, "run", device=0)
    assert found is not None and found.peak_bytes == 64
    assert peak_in_range(trace, "walk", device=0) is None
    quiet = peak_in_range(trace_of(MEMORY, [(10, 64)]), "run")
    assert quiet is not None and (quiet.peak_bytes, quiet.peak_at_ns) == (0, None)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=400), st.integers(1, 50))
def test_a_thinned_timeline_keeps_its_peak_and_its_end(deltas: list[int], points: int) -> None:
    trace = trace_of([], [(5 + i, d) for i, d in enumerate(deltas)])
    steps = memory_timeline(trace.allocations, points=points)
    live = np.cumsum(deltas)
    assert max(size for _, size in steps) == live.max()
    assert steps[-1] == (len(deltas) - 1, live[-1])
    assert len(steps) <= 2 * points
    assert [t for t, _ in steps] == sorted({t for t, _ in steps})
    assert all(size == live[t] for t, size in steps)
