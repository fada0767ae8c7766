"""Is the fused kernel faster than every library's, and how near to the memory's copy bandwidth?

    .venv/bin/worklog bench float8_weight_only --study layers                    (a GPU)
    .venv/bin/worklog bench float8_weight_only --study layers --device cpu --preset tiny

Linear layers of Llama 3.1 8B's largest shape, as many as fill eight times the last cache, applied
one after the other to M = 1, 4, 16 and 64 rows: our kernels, torchao 0.14.1 and the newest, GemLite
A16W8, bf16, and a copy of the same bytes. Each library in a process of its own; their rounds are
interleaved. A layer whose output is wrong gets no figures.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import WorklogError
from common.experiments.request import packages_root
from common.experiments.study import add_sample, ratio_figure
from common.timing.sampling import Sample, StopRule, interleave
from common.timing.statistics import Comparison, compare
from common.timing.worker_client import Worker

HERE = Path(__file__).parent
LONGEST_SECONDS = 600.0
LARGEST_ERROR = 0.06  # e4m3 rounds a weight by 2.6 % root mean square; a wrong scale gives 0.5
FUSED, COPY = "fused float8", "copy"


@dataclass(frozen=True)
class Side:
    name: str
    library: str
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")


SIDES = (
    Side(FUSED, "fused"),
    Side(COPY, "copy"),
    Side("bf16", "bf16"),
    Side("torchao 0.14.1", "torchao", ("torchao-0.14.1",)),
    Side("torchao 0.18.0", "torchao", ("torchao-0.18.0",)),
    # Its Triton is torch's own on a GPU; only what torch does not bring is put on the path.
    Side("GemLite A16W8", "gemlite", ("gemlite-0.6.0.post2", "tqdm-4.67.1"), ("cuda",)),
)
PRESETS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    # 14336 × 4096 as in the MLP; 32 of them are 1.9 GB in float8: 37 times an H200's L2.
    ("cuda", ""): {"rows": 14336, "columns": 4096, "count": 32, "batches": [1, 4, 16, 64]},
    ("cuda", "tiny"): {"rows": 512, "columns": 256, "count": 2, "batches": [1, 4]},
    ("cpu", ""): {"rows": 4096, "columns": 4096, "count": 16, "batches": [1, 4, 16, 64]},
    ("cpu", "tiny"): {"rows": 256, "columns": 192, "count": 2, "batches": [1, 4]},
}
RULES = {"": StopRule(20, 100, 60.0), "tiny": StopRule(10, 10, 2.0)}
COLUMNS = ("M", "what", "µs per layer", "GB/s of stored weights", "time ÷ fused", "of the copy")


def missing(side: Side, device: str) -> str | None:
    """Why this side cannot run here; None if it can."""
    if device not in side.devices:
        return f"needs {' or '.join(side.devices)}"
    for package in side.packages:
        if not (packages_root() / package).is_dir():
            return f"{package} is not installed; run ./run.sh setup"
    return None


def start(side: Side, preset: Mapping[str, Any], device: str, logs: Path) -> tuple[Worker, Any]:
    """A prepared worker and its facts. WorklogError if it fails or computes something else."""
    packages = [packages_root() / package for package in side.packages]
    log = logs / f"{side.library}-{len(list(logs.iterdir()))}.log"
    worker = Worker(side.name, HERE / "layer_session.py", packages, {}, log)
    arguments: dict[str, Any] = {"variant": {"library": side.library}, "preset": dict(preset)}
    worker.request("open", LONGEST_SECONDS, device=device, options={}, **arguments)
    facts = worker.request("prepare", LONGEST_SECONDS)["facts"]
    if facts.get("error", 0.0) > LARGEST_ERROR:
        worker.close()
        raise WorklogError(f"its output is off by {facts['error']:.2f}; it gets no figures")
    return worker, facts


Taken = dict[tuple[str, str], list[int]]


def measure(workers: Mapping[str, Worker], rule: StopRule) -> Taken:
    """(side, phase) -> ns of every round."""
    taken: Taken = {}

    def keep(sample: Sample) -> None:
        taken.setdefault((sample.variant, sample.phase), []).append(sample.duration_ns)
        line = {"round": sample.round, "order": sample.order, "variant": sample.variant}
        add_sample({**line, "phase": sample.phase, "duration_ns": sample.duration_ns})

    def side(worker: Worker) -> Callable[[], Mapping[str, int]]:
        return lambda: dict(worker.request("sample", LONGEST_SECONDS)["phases"])

    interleave({n: side(w) for n, w in workers.items()}, FUSED, rule, on_sample=keep)
    return taken


def shown(found: Comparison) -> str:
    ends = found.interval
    return f"{found.ratio:.2f}" + (f" ({ends.low:.2f} … {ends.high:.2f})" if ends else "")


def report(
    taken: Taken, preset: Mapping[str, Any], reasons: Mapping[str, str]
) -> tuple[list[list[Any]], dict[str, Any]]:
    """The table's rows, and the figures that predictions are about."""
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {}
    weights = preset["rows"] * preset["columns"] * preset["count"]
    for m in preset["batches"]:
        phase = f"M={m}"
        fused = taken[FUSED, phase]
        for side in SIDES:
            if side.name in reasons:
                rows.append([m, side.name, "", "", "", reasons[side.name]])
                continue
            ns = statistics.median(taken[side.name, phase])
            width = 2 if side.library in ("bf16", "copy") else 1  # a copy reads and writes
            ratio = compare(fused, taken[side.name, phase])
            # Two bytes move for each byte that is copied.
            of_copy = compare(taken[side.name, phase], taken[COPY, phase])
            share = ratio_figure(of_copy, "of the copy bandwidth", 0.5 * width)
            key = side.name.replace(" ", "-").lower()
            figures[f"{key}-share-m{m}"] = share
            if side.name not in (FUSED, COPY):
                figures[f"{key}-over-fused-m{m}"] = ratio_figure(
                    ratio, "time over the fused kernel's"
                )
            speed = f"{width * weights / ns:.0f}"
            cells = (f"{ns / 1e3 / preset['count']:.2f}", speed, shown(ratio))
            rows.append([m, side.name, *cells, f"{100 * share['value']:.0f} %"])
    return rows, figures


def checks(figures: Mapping[str, Any], device: str) -> list[dict[str, Any]]:
    """On a GPU: 85 % of the copy bandwidth, faster than every library. Else only that it ran."""
    share = figures["fused-float8-share-m1"]
    libraries = {k: f for k, f in figures.items() if k.endswith("-over-fused-m1")}
    if device != "cuda":
        return [
            {"says": f"{len(libraries)} other layers ran beside ours", "holds": bool(libraries)}
        ]

    def low(found: Mapping[str, Any]) -> float:
        return float(found["interval"][0] if found["interval"] else found["value"])

    return [
        {
            "says": f"one row: {share['value']:.2f} of the measured copy bandwidth, wanted 0.85",
            "holds": low(share) >= 0.85,
        },
        *(
            {"says": f"{name} is {found['value']:.2f}, wanted above 1", "holds": low(found) > 1}
            for name, found in libraries.items()
        ),
    ]


def main() -> None:
    device, size = (sys.argv[1:] + ["cpu", ""])[:2]
    if (device, size) not in PRESETS:
        print(f"error: there is no preset {size!r}; use tiny or none", file=sys.stderr)
        sys.exit(2)
    preset, rule = PRESETS[device, size], RULES[size]
    workers: dict[str, Worker] = {}
    reasons: dict[str, str] = {}
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as logs:
        try:
            for side in SIDES:
                why = missing(side, device)
                if why is None:
                    print(f"preparing {side.name}", file=sys.stderr, flush=True)
                    try:
                        workers[side.name], facts[side.name] = start(
                            side, preset, device, Path(logs)
                        )
                        continue
                    except WorklogError as error:
                        why = str(error)[:200]
                reasons[side.name] = why
                print(f"without {side.name}: {why}", file=sys.stderr, flush=True)
            for needed in (FUSED, COPY):
                if needed in reasons:
                    raise WorklogError(f"{needed}: {reasons[needed]}; mend it first")
            taken = measure(workers, rule)
        finally:
            for worker in workers.values():
                worker.close()
    rows, figures = report(taken, preset, reasons)
    shape = f"{preset['count']} layers of {preset['rows']} × {preset['columns']}"
    document = {
        "schema": "worklog.study/1",
        "title": f"{shape}, each used once per pass; {len(taken[FUSED, 'M=1'])} rounds",
        "columns": COLUMNS,
        "right": ("M", *COLUMNS[2:]),
        "rows": rows,
        "figures": figures,
        "facts": {"torch": facts[FUSED]["torch"], "sides": facts, "missing": reasons},
        "checks": checks(figures, device),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    try:
        main()
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
