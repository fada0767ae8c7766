"""This worklog's figures, drawn from the recorded snapshots alone.

    .venv/bin/worklog render cuda_graph_memory

Each file names the hash of the snapshots that it was drawn from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from common.contract.problem import Problem
from common.traces.memory_snapshot import MemorySnapshot, read_memory_snapshot
from problems.cuda_graph_memory.charts import growth_bars, pool_timeline


def inputs(folder: Path, kind: str, modes: Sequence[str]) -> tuple[dict[str, MemorySnapshot], str]:
    """The snapshots of one kind of weights in a run folder, and the hash of their files."""
    paths = {mode: folder / "traces" / kind / f"{mode}.pickle.gz" for mode in modes}
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths.values())).hexdigest()
    return {f"{kind}, {m}": read_memory_snapshot(p) for m, p in paths.items()}, digest[:16]


def draw(folder: Path) -> dict[str, str]:
    """File name -> SVG, from one recorded run."""
    graphs = ("separate-pools", "shared-large-first", "reduce-overhead")
    wide, seal = inputs(folder, "int8wo", graphs)
    fused, fused_seal = inputs(folder, "int8wo-fused", graphs[:2])
    return {
        "pools-int8wo.svg": pool_timeline(wide, seal),
        "pools-int8wo-fused.svg": pool_timeline(fused, fused_seal),
        "growth-int8wo.svg": growth_bars(wide, seal),
    }


def figures(problem: Problem) -> dict[str, str]:
    return draw(problem.folder / problem.evidence["cpu"])
