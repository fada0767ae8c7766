"""Run folders with samples that are known beforehand, written without measuring anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.recording.run_folder import RunWriter, open_run, write_json
from common.report.summary import build_summary

MACHINE = {"cpu": "A CPU", "usable_cpus": 2, "virtual": None, "gpus": []}


def write_run(
    parent: Path,
    durations_ns: Mapping[str, Mapping[str, Sequence[int]]],
    checks: Mapping[str, Any] | None = None,
    finish: bool = True,
    **manifest: Any,
) -> Path:
    """`durations_ns`: variant -> phase -> duration per round. Passed checks unless given."""
    variants = {
        name: {"title": f"the {name}", "traffic": {}, "role": "compared"} for name in durations_ns
    }
    document = {
        "problem": "spin", "kind": "run", "revision": "0123456789abcdef",
        "device": {"kind": "cpu", "slug": "cpu-a-2c"}, "origin": "measured-cpu",
        "machine": MACHINE, "preset": {"name": "small", "settings": {"steps": 4}},
        "phases": {"fill": "", "step": "steps"}, "baseline": "plain", "variants": variants,
        "not_applicable": {}, "claims": [], "predictions": {},
        "started": "2026-01-02T03:04:05+00:00",
        **manifest,
    }  # fmt: skip
    writer = RunWriter.create(parent, "0123456789", "small", document)
    if checks is None:
        errors = {"fill": 0.0, "step": 0.0}
        checks = {
            name: {
                "passed": True, "relative_error": errors, "top1_agreement": {"step": 1.0},
                "divergence_nats": {"step": 0.0}, "tolerance": 0.1,
            }
            for name in durations_ns
        }  # fmt: skip
    write_json(writer.folder / "checks.json", checks)
    length = max((len(s) for v in durations_ns.values() for s in v.values()), default=0)
    for number in range(length):
        for order, (variant, phases) in enumerate(durations_ns.items()):
            for phase, series in phases.items():
                if number < len(series):
                    writer.add_sample({
                        "round": number, "order": order, "variant": variant, "phase": phase,
                        "duration_ns": series[number], "started_ns": number,
                    })  # fmt: skip
    return writer.finish() if finish else writer.folder


def summarise_into(folder: Path) -> dict[str, Any]:
    summary = build_summary(open_run(folder))
    write_json(folder / "summary.json", summary)
    return summary


def change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
