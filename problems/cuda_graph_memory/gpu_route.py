"""How is the matrix recorded on a GPU? One process per cell, its snapshot through the analyser.

What torch says of pools comes from the snapshot file, what lies outside torch from the driver
(`mem_get_info` less what torch reserves), both by phase. Each recording also tests the allocator's
model: it predicts the address of every recorded allocation.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.allocator.validate import validate
from common.errors import UsageError, WorklogError
from common.recording.environment import without_places
from common.recording.nsys_command import NsysPlan, nsys_command
from common.report.results import Results
from common.report.tables import Table
from common.timing.worker_client import child_command, child_environment
from common.traces.memory_pools import growth_by_phase
from common.traces.memory_snapshot import MemorySnapshot, read_memory_snapshot
from problems.cuda_graph_memory.cells import CAPTURING, MODES
from problems.cuda_graph_memory.tables import MEMORIES

MIB = 1 << 20
MODULE = "problems.cuda_graph_memory.gpu_cell"
KINDS = ("bf16", "int8wo", "float8wo", "int8wo-fused")
CELL_SECONDS = 420
Run = Callable[["CellName", Mapping[str, Any], Path], Mapping[str, Any]]
Say = Callable[[str, int], None]


@dataclass(frozen=True)
class Knob:
    """One knob turned against a cell of the matrix; the same row stands in the model's table."""

    kind: str
    mode: str
    every: int = 1  # of the sizes
    environment: Mapping[str, str] = field(default_factory=dict)
    inductor: Mapping[str, Any] = field(default_factory=dict)


# Pools, their order and fused kernels are cells of the matrix; these are not. Workspaces are told
# by bf16, whose pools hold little else.
KNOBS: Mapping[str, Knob] = {
    "fewer-sizes": Knob("int8wo", "separate-pools", every=2),
    "expandable": Knob(
        "int8wo",
        "separate-pools",
        environment={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    ),
    "workspace": Knob(
        "bf16",
        "separate-pools",
        # KiB and number of buffers: the classic 8.125 MiB, and 8 MiB for the Lt handle.
        environment={
            "CUBLAS_WORKSPACE_CONFIG": ":4096:2:16:8",
            "CUBLASLT_WORKSPACE_SIZE": "8192",
        },
    ),
    "freezing": Knob("int8wo", "compiled", inductor={"freezing": True}),
}


@dataclass(frozen=True)
class CellName:
    kind: str
    mode: str
    sizes: tuple[int, ...]
    knob: str = ""

    @property
    def text(self) -> str:
        turned = f"_{self.knob}" if self.knob else ""
        return f"{self.kind}_{self.mode}_{len(self.sizes)}{turned}"


class CellFailed(WorklogError):
    """One cell ended without figures; the others go on."""


def cells(preset: Mapping[str, Any]) -> list[CellName]:
    """Every kind and mode with all sizes; the smaller sets of sizes only where `gpu_sizes` asks.

    Then one cell for each knob, with all sizes or every other one.
    """
    sizes = sorted(int(size) for size in preset["sizes"])
    counts = [int(n) for n in preset.get("gpu_sizes", [len(sizes)])]
    matrix = [
        CellName(kind, mode, tuple(sizes[:n])) for n in counts for kind in KINDS for mode in MODES
    ]
    turned = [
        CellName(knob.kind, knob.mode, tuple(sizes[:: knob.every]), name)
        for name, knob in KNOBS.items()
    ]
    return matrix + turned


def run_in_process(cell: CellName, preset: Mapping[str, Any], snapshot: Path) -> Mapping[str, Any]:
    """The cell in a process of its own. CellFailed with its last words."""
    knob = KNOBS.get(cell.knob, Knob(cell.kind, cell.mode))
    given = {
        **preset, "kind": cell.kind, "mode": cell.mode, "sizes": list(cell.sizes),
        "inductor": dict(knob.inductor),
    }  # fmt: skip
    environment = {**child_environment(), **knob.environment}
    # The variant's own packages are on this process's path, not on that of the environment.
    own = [path for path in sys.path if Path(path).name.startswith("triton-")]
    environment["PYTHONPATH"] = os.pathsep.join([*own, environment["PYTHONPATH"]])
    try:
        done = subprocess.run(
            [*child_command(MODULE), str(snapshot)], input=json.dumps(given), check=False,
            capture_output=True, text=True, env=environment, timeout=CELL_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CellFailed(f"{cell.text}: no answer in {CELL_SECONDS} s; run it by itself") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise CellFailed(without_places(f"{cell.text}: {words[-1] if words else 'no message'}"))
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def nsys_of_cell(cell: CellName, program: Sequence[str], output: Path) -> tuple[str, ...]:
    """The command line that records one cell with nsys, memory usage and graph nodes included."""
    plan = NsysPlan(tuple(program), "capture", "node", output / f"nsys-{cell.text}")
    return nsys_command(plan, None).argv


def memories(facts: Mapping[str, Any], snapshot: MemorySnapshot) -> list[dict[str, int | str]]:
    """The three memories after each phase, in bytes.

    (a) what private pools took so far, from the snapshot's history; (b) the rest of what torch
    reserves, now and at most; (c) what the device lacks and torch does not reserve, less what was
    so after loading: contexts and modules are not the graphs'.
    """
    growth = {row.phase: row.private_bytes for row in growth_by_phase(snapshot)}
    rows: list[dict[str, int | str]] = []
    private, outside = 0, None
    for row in facts["phases"]:
        private += growth.get(row["phase"], 0)
        reserved = int(row["reserved_bytes"])
        beyond = int(row["total_bytes"]) - int(row["free_bytes"]) - reserved
        outside = beyond if outside is None else outside
        rows.append(
            {
                "phase": str(row["phase"]),
                "private_bytes": private,
                "default_bytes": reserved - private,
                "default_peak_bytes": int(row["peak_reserved_bytes"]) - private,
                "non_torch_bytes": beyond - outside,
            }
        )
    return rows


def cell_results(
    results: Results, cell: CellName, facts: Mapping[str, Any], snapshot: MemorySnapshot
) -> list[tuple[str, ...]]:
    """Figures of one cell, and its rows of the table of phases. Origin: measured on the GPU."""
    rows = memories(facts, snapshot)
    end = rows[-1]
    held = snapshot.private_holdings()
    after_load = rows[1:]
    parts: dict[str, float] = {
        "private": held.reserved_bytes,
        "private_retained": held.retained_bytes,
        "default_end": int(end["default_bytes"]),
        "default_peak": max(int(row["default_peak_bytes"]) for row in after_load),
        "non_torch": int(end["non_torch_bytes"]),
    }
    grown = [row for row in rows if str(row["phase"]).startswith("capture")]
    if cell.mode in CAPTURING and grown:
        first, last = int(grown[0]["private_bytes"]), int(grown[-1]["private_bytes"])
        parts["growth_after_first"] = last - first
    for name, size in parts.items():
        results.figure(f"{cell.text}_{name}", size / MIB, "MiB", "measured-gpu")
    for size, rate in facts["steps_per_s"].items():
        results.figure(f"{cell.text}_{size}_steps_per_s", float(rate), "1/s", "measured-gpu")
    return [
        (cell.text, str(row["phase"]), *(f"{int(row[k]) / MIB:,.0f}" for k in _COLUMNS),
         "measured-gpu")
        for row in rows
    ]  # fmt: skip


_COLUMNS = ("private_bytes", "default_peak_bytes", "default_bytes", "non_torch_bytes")


def model_check(results: Results, snapshots: Mapping[str, MemorySnapshot]) -> Table:
    """The allocator's model against each recording, event by event."""
    rows, exact, total = [], 0, 0
    for name, snapshot in snapshots.items():
        try:
            found = validate(snapshot)
        except UsageError as error:
            rows.append((name, "", "", "", f"not checked: {error}"))
            continue
        exact, total = exact + found.exact, total + found.allocations
        segments = f"{found.segments_exact} of {found.segments}"
        share = f"{100 * found.exact / max(found.allocations, 1):.2f} %"
        classes = sorted({miss.kind for miss in found.misses})
        rows.append((name, f"{found.allocations:,}", share, segments, ", ".join(classes)))
    if total:
        results.figure("model_exact_percent", 100 * exact / total, "%", "measured-gpu")
    columns = ("cell", "allocations", "address exact", "segments exact", "kinds of misses")
    return Table(columns, tuple(rows), columns[1:4])


def gpu_task(
    preset: Mapping[str, Any],
    folder: Path | None,
    say: Say,
    run: Run = run_in_process,
) -> Results:
    """Every cell; those that fail are named in the table and leave no figures."""
    import tempfile

    results = Results()
    rows: list[tuple[str, ...]] = []
    snapshots: dict[str, MemorySnapshot] = {}
    with tempfile.TemporaryDirectory() as place:
        for number, cell in enumerate(cells(preset)):
            say(cell.text, number)
            plain = Path(place) / f"{cell.text}.pickle"
            try:
                facts = run(cell, preset, plain)
                snapshot = read_memory_snapshot(plain)
                rows += cell_results(results, cell, facts, snapshot)
            except WorklogError as error:
                rows.append((cell.text, f"failed: {error}", "", "", "", "", "measured-gpu"))
                continue
            snapshots[cell.text] = snapshot
            if folder is not None and cell.kind == "int8wo" and cell.mode in CAPTURING:
                data = gzip.compress(plain.read_bytes(), mtime=0)
                (folder / f"{cell.text}.pickle.gz").write_bytes(data)
    columns = ("cell", "phase", *MEMORIES, "origin")
    results.tables["phases"] = Table(columns, tuple(rows), MEMORIES, "_MiB_")
    results.tables["model"] = model_check(results, snapshots)
    return results
