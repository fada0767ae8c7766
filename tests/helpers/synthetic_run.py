"""A run folder with known figures, written by the code that writes real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.recording.run_folder import RunWriter, open_run, write_json
from common.report.summary import build_summary

MACHINE = {
    "cpu": "Example CPU",
    "logical_cpus": 2,
    "usable_cpus": 2,
    "l2_bytes": 1 << 20,
    "l3_bytes": None,
    "memory_bytes": 8 << 30,
    "virtual": None,
    "kernel": "Linux 6.1",
    "transparent_huge_pages": None,
    "gpus": [],
}
GPU = {"name": "NVIDIA H200", "driver_version": "570.1", "memory.total": "143771 MiB"}


def manifest(variants: Sequence[str] = ("plain", "slow"), **changes: Any) -> dict[str, Any]:
    """What `worklog run` writes first, for variants of which the first is the baseline."""
    document: dict[str, Any] = {
        "problem": "example",
        "title": "An example that is slow",
        "question": "Why is it slow?",
        "kind": "run",
        "arguments": ["run", "example"],
        "worklog": "0.1.0",
        "revision": "0123456789abcdef",
        "uncommitted_changes": False,
        "device": {"kind": "cpu", "slug": "cpu-example-2c"},
        "origin": "measured-cpu",
        "machine": MACHINE,
        "preset": {
            "name": "tiny",
            "min_rounds": 10,
            "max_rounds": 30,
            "max_seconds": 10,
            "settings": {"decode_steps": 4},
        },
        "phases": {"prefill": "", "decode": "decode_steps"},
        "baseline": variants[0],
        "options": {},
        "variants": {name: {"title": name, "role": "compared"} for name in variants},
        "not_applicable": {},
        "claims": [],
        "predictions": {},
        "failures": {},
        "sampling": {"interleaved": True, "stopped_because": "the intervals are narrow enough"},
        "facts": {
            name: {"torch": "2.13.0", "torchao": None, "parameters": {"largest_linear": 1024}}
            for name in variants
        },
    }
    return {**document, **changes}


def write_run(
    parent: Path,
    document: Mapping[str, Any],
    rounds: int = 10,
    checks: Mapping[str, Any] | None = None,
    profiles: Mapping[str, Any] | None = None,
    finish: bool = True,
) -> Path:
    """Write a run: each variant is ten times as slow as the one before it, ±1 % by round.

    `profiles` (variant -> the summary's `profile` and `memory_timeline`) stand in for traces.
    """
    writer = RunWriter.create(parent, "0123456", "tiny", dict(document))
    for number in range(rounds):
        for order, name in enumerate(document["variants"]):
            for phase, base in (("prefill", 3_000_000), ("decode", 8_000_000)):
                duration = int(base * 10**order * (1 + 0.01 * (number % 3 - 1)))
                line = {"round": number, "order": order, "variant": name, "phase": phase}
                writer.add_sample({**line, "duration_ns": duration, "started_ns": number})
    if checks is not None:
        write_json(writer.folder / "checks.json", checks)
    folder = writer.finish() if finish else writer.folder
    if finish:
        summary = build_summary(open_run(folder))
        for name, record in (profiles or {}).items():
            summary["variants"][name].update(record)
        write_json(folder / "summary.json", summary)
    return folder


def profile(rows: Sequence[tuple[str, int]], outside: int = 50, other: int = 7) -> dict[str, Any]:
    """A variant's profiled figures: the same operators in both phases."""
    time = {
        "quantity": "cpu_time_ns",
        "occurrences": 2,
        "total_ns": sum(ns for _, ns in rows) + outside + other,
        "rows": [{"operator": n, "count": 2, "time_ns": ns, "calls": {}} for n, ns in rows],
        "other_operators": {"rows": 1, "time_ns": other},
        "outside_operators_ns": outside,
    }
    memory = {
        "temporary_peak_bytes": 3 << 20,
        "bytes_per_element_of_largest_linear": None,
        "left_allocated_bytes": 0,
        "held_by": [rows[0][0]],
    }
    both = {"time": time, "memory": memory}
    timeline = [[0, 0], [1_000_000, 3 << 20], [2_000_000, -4096], [3_000_000, 0]]
    return {"profile": {"prefill": both, "decode": both}, "memory_timeline": timeline}


def rewrite(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**document, **changes})
