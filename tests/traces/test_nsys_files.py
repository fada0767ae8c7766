"""Every real Nsight Systems export gives the figures that were computed without this project."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.traces.formats import open_trace
from common.traces.model import GpuKind, HostKind
from common.traces.summary import summarise_trace


def _expected() -> dict[str, dict[str, Any]]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return {"(no data)": {}}
    files = json.loads((Path(place) / "expected.json").read_text(encoding="utf-8"))["files"]
    return {name: facts for name, facts in files.items() if facts["kind"] == "nsys"}


EXPECTED = _expected()
KINDS = {"kernel": "kernel", "memcpy": "memcpy", "memset": "memset", "graph": "graph_trace"}


@pytest.mark.parametrize("name", EXPECTED)
def test_totals_are_exactly_those_expected(name: str, real_data: Path) -> None:
    facts = EXPECTED[name]
    trace = open_trace(real_data / name)
    found = summarise_trace(trace, real_data / name)
    assert found["gpu_time_ns"] == facts["gpu_ns"]
    assert found["span_ns"] == facts["gpu_span_ns"]
    for ours, theirs in KINDS.items():
        row = facts[theirs]
        assert found["by_kind"][ours] == {"count": row["count"], "time_ns": row["ns"]}
    busy = {str(device["id"]): device["busy_ns"] for device in found["devices"]}
    assert busy == facts["busy_union_ns_by_device"]
    assert found["gpus_listed"] == facts["gpus_listed"]
    gpu = trace.gpu
    kernels = gpu.kind == GpuKind.KERNEL
    lonely = kernels & (gpu.launch < 0)
    assert int(lonely.sum()) == facts["unlinked_kernels"]["count"]
    assert int(gpu.duration_ns[lonely].sum()) == facts["unlinked_kernels"]["ns"]
    streams = set(zip(gpu.device[kernels].tolist(), gpu.stream[kernels].tolist(), strict=True))
    assert len(streams) == facts["streams"]
    by_device = {
        str(device): {
            "count": int((kernels & (gpu.device == device)).sum()),
            "ns": int(gpu.duration_ns[kernels & (gpu.device == device)].sum()),
        }
        for device in np.unique(gpu.device[kernels]).tolist()
    }
    assert by_device == facts["kernel_by_device"]
    assert int((gpu.graph_node[kernels] >= 0).sum()) == facts["kernels_with_graph_node"]
    assert len(np.unique(gpu.name[kernels])) == facts["kernel_names"]
    assert trace.counts["nvtx"] == facts["nvtx_rows"]
    assert trace.counts["nvtx_push_pop"] == facts["nvtx_push_pop"]
    # Those that torch.autograd.profiler.emit_nvtx wrote are operators.
    ranges = int(np.isin(trace.host.kind, (HostKind.ANNOTATION, HostKind.OPERATOR)).sum())
    assert ranges == facts["nvtx_push_pop"] - facts["nvtx_push_pop_without_end"]
    assert facts["schema_version"] is None or trace.format.endswith(facts["schema_version"])


@pytest.mark.parametrize("name", EXPECTED)
def test_the_largest_kernels_are_those_expected(name: str, real_data: Path) -> None:
    trace = open_trace(real_data / name)
    gpu = trace.gpu
    totals: dict[str, list[int]] = {}
    for at in np.flatnonzero(gpu.kind == GpuKind.KERNEL).tolist():
        row = totals.setdefault(trace.names[gpu.name[at]], [0, 0])
        row[0] += 1
        row[1] += int(gpu.duration_ns[at])
    found = sorted(([n, c, t] for n, (c, t) in totals.items()), key=lambda r: (-r[2], r[0]))
    assert found[:10] == EXPECTED[name]["top_kernels"]


def test_a_graph_capture_has_its_time_in_the_graph_table(real_data: Path) -> None:
    trace = open_trace(real_data / "nsys/lm_2_7B_compile_ro.sqlite.gz")
    found = summarise_trace(trace, Path("x"))
    assert found["gpu_time_ns"] == 7_811_219_965
    assert found["graph_launched_ns"] == 7_811_141_695 and found["graph_launched"] == 10


def test_a_gpu_that_cannot_run_cuda_has_no_number(real_data: Path) -> None:
    trace = open_trace(real_data / "nsys/laptop_three_gpus.sqlite.gz")
    assert [device.id for device in trace.devices] == [0, None, None]
    assert trace.device_name(0) == "NVIDIA RTX 5000 Ada Generation Laptop GPU"


def test_reading_changes_neither_the_file_nor_its_folder(real_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.sqlite"
    with gzip.open(real_data / "nsys/small_fwd.sqlite.gz") as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    open_trace(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.sqlite"]


def test_text_that_is_not_utf8_is_read_and_counted(real_data: Path) -> None:
    trace = open_trace(real_data / "nsys/no_cuda.sqlite.gz")
    assert [(c.kind, c.count) for c in trace.warnings] == [("not UTF-8", 1)]
