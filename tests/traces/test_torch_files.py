"""Every real torch.profiler trace gives the figures that were computed without this project."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.traces.formats import open_trace
from common.traces.model import GpuKind
from common.traces.summary import summarise_trace


def expected_of(kind: str) -> dict[str, dict[str, Any]]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return {"(no data)": {}}
    files = json.loads((Path(place) / "expected.json").read_text(encoding="utf-8"))["files"]
    return {name: facts for name, facts in files.items() if facts["kind"] == kind}


EXPECTED = expected_of("torch")


@pytest.mark.parametrize("name", EXPECTED)
def test_totals_are_exactly_those_expected(name: str, real_data: Path) -> None:
    facts = EXPECTED[name]
    trace = open_trace(real_data / name)
    found = summarise_trace(trace, real_data / name)
    assert found["events"] == facts["events"]
    assert found["gpu_events"] == facts["gpu_events"]
    assert found["gpu_time_ns"] == facts["gpu_ns"]
    assert found["span_ns"] == facts["gpu_span_ns"]
    for kind, row in facts["by_kind"].items():
        assert found["by_kind"][kind] == {"count": row["count"], "time_ns": row["ns"]}
    busy = {str(device["id"]): device["busy_ns"] for device in found["devices"]}
    assert busy == facts["busy_union_ns_by_device"]
    assert found["unlinked_ns"] == facts["unlinked"]["ns"]
    assert found["unlinked"] == facts["unlinked"]["count"]
    assert found["graph_launched_ns"] == facts["kernels_via_graph_launch"]["ns"]
    assert found["graph_launched"] == facts["kernels_via_graph_launch"]["count"]
    assert found["streams"] == facts["streams"]
    assert (found["steps"] or {"count": 0})["count"] == facts["profiler_steps"]
    assert found["gpus_listed"] == facts["gpus_listed"]
    top = [[row["name"], row["count"], row["time_ns"]] for row in found["top_kernels"]]
    assert top == facts["top_kernels"]
    gpu = trace.gpu
    kernels = gpu.kind == GpuKind.KERNEL
    assert len(np.unique(gpu.name[kernels])) == facts["kernel_names"]
    assert int((gpu.duration_ns == 0).sum()) == facts["gpu_events_of_zero_ns"]
    lonely = kernels & (gpu.launch < 0)
    assert int(lonely.sum()) == facts["unlinked_kernels"]["count"]
    calls = Counter("GraphLaunch" in trace.names[n] for n in trace.host.name.tolist())
    assert calls[True] == facts["graph_launch_calls"]


@pytest.mark.parametrize("name", EXPECTED)
def test_columns_are_consistent(name: str, real_data: Path) -> None:
    trace = open_trace(real_data / name)
    gpu, host = trace.gpu, trace.host
    assert (gpu.duration_ns >= 0).all() and (host.duration_ns >= 0).all()
    assert (np.diff(gpu.start_ns) >= 0).all()
    same = np.diff(host.thread) == 0
    assert (np.diff(host.thread) >= 0).all() and (np.diff(host.start_ns)[same] >= 0).all()
    linked = gpu.launch >= 0
    assert (host.correlation[gpu.launch[linked]] == gpu.correlation[linked]).all()
    assert list(trace.threads) == sorted(trace.threads)
    assert len(set(trace.names)) == len(trace.names)


def test_frames_are_counted_and_only_kept_when_asked_for(real_data: Path) -> None:
    from common.traces.model import HostKind
    from common.traces.torch_trace import read_torch_trace

    path = real_data / "torch/qwen_h100.json.gz"
    plain, full = read_torch_trace(path), read_torch_trace(path, frames=True)
    frames = int((full.host.kind == HostKind.FRAME).sum())
    modules = int((plain.host.kind == HostKind.MODULE).sum())  # among the frames, always kept
    assert modules == 316
    assert frames + modules == plain.counts["python_function"] > 1000
    assert len(full.host) - len(plain.host) == frames
    assert not (plain.host.kind == HostKind.FRAME).any()
