"""How does the model scale over ranks, and what does each rank spend its time on?

Runs the same tokens on 1, 2, … ranks under torchrun, compares the logits with one process, splits
every rank's time into parts (names that end in `_comm` are communication), and diffs the ranks'
traces with each other. One thread per rank, so that more ranks are more processors.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.diff.diff import compare_files
from common.report.results import Results
from common.report.tables import Table, significant
from common.workloads.expert_launch import ParallelResult, RankFailure, run_ranks
from common.workloads.expert_rank import Request, forward_steps
from common.workloads.moe_weights import build_random_moe
from problems.moe_batch_scaling.plan import Plan

REPEATS, BATCH, DECODE_STEPS, DIFF_ROWS = 5, 8, 4, 8


def request_of(plan: Plan, repeats: int = REPEATS) -> Request:
    layers = plan.layers if isinstance(plan.layers, int) else 2
    return Request(
        plan.model_of_ranks or plan.model, BATCH, plan.sequence, DECODE_STEPS,
        experts=(plan.experts_of_ranks,) * layers, layers=layers, repeats=repeats,
        timeout_s=40.0, trace=True,
    )  # fmt: skip


@torch.no_grad()
def one_process(request: Request) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The same tokens through the whole model in this process."""
    model = build_random_moe(request.config(), torch.device("cpu"), request.seed)
    model.backend = "sorted"
    logits = forward_steps(model, request.tokens(), request.prompt)
    found: np.ndarray[Any, np.dtype[np.float32]] = logits.numpy()
    return found


def ranks_results(plan: Plan, folder: Path | None, say: Callable[[str], None]) -> Results:
    found = Results()
    request = request_of(plan)
    expected = one_process(request)
    scaling, parts, diffs = [], [], []
    baseline: float | None = None
    for ranks in plan.ranks:
        say(f"{ranks} ranks")
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                result = run_ranks([request], ranks, Path(scratch))[0]
            except RankFailure as error:
                # A rank that is lost costs its own row, nothing that was measured before.
                scaling.append((str(ranks), "failed", "", "", "", str(error)))
                continue
            wall_s = time.perf_counter() - began
            diffs += diff_ranks(result.traces, ranks)
            if folder is not None:
                keep_traces(result.traces, folder / f"ranks{ranks}")
        difference = float(np.abs(result.logits - expected).max() / np.abs(expected).max())
        total_ms = slowest_ms(result, "total")
        baseline = total_ms if baseline is None else baseline
        comm = communication_share(result)
        found.figure(f"relative_error_{ranks}_ranks", difference, "", "measured-cpu")
        found.figure(f"seconds_{ranks}_ranks", wall_s, "s", "measured-cpu")
        found.figure(f"speedup_{ranks}_ranks", baseline / total_ms, "", "measured-cpu")
        found.figure(f"communication_share_{ranks}_ranks", comm, "", "measured-cpu")
        scaling.append(
            (
                str(ranks), significant(total_ms), f"{baseline / total_ms:.2f}",
                f"{100 * comm:.1f} %", f"{difference:.1e}", f"{wall_s:.1f} s with start-up",
            )
        )  # fmt: skip
        parts += breakdown_rows(result, ranks)
    columns = (
        "ranks",
        "slowest rank ms",
        "speed-up",
        "communication",
        "largest relative difference",
        "",
    )
    note = (
        f"_Prefill of {request.batch} × {request.prompt} tokens and {request.decode_steps} decode "
        f"steps, {request.repeats} passes, medians; {plan.experts_of_ranks} experts per layer, one "
        "thread per rank. A rank that waits for a slower one counts the wait as communication._"
    )
    found.tables["ranks"] = Table(columns, tuple(scaling), columns[1:5], note)
    names = ("ranks", "rank", "experts held", "part", "median ms", "share")
    found.tables["ranks-parts"] = Table(names, tuple(parts), names[4:])
    found.tables["ranks-diff"] = Table(
        ("ranks", "operator", "rank 0 ms", "other ms", "delta ms", "of the whole delta"),
        tuple(diffs), ("rank 0 ms", "other ms", "delta ms"),
        "_Traces of the profiled pass; the rows of a diff and its remainders add up to its delta._",
    )  # fmt: skip
    return found


def keep_traces(traces: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for trace in traces:
        (folder / trace.name).write_bytes(trace.read_bytes())


def median_ms(spent: Sequence[dict[str, int]], part: str) -> float:
    return statistics.median(each.get(part, 0) for each in spent) / 1e6


def slowest_ms(result: ParallelResult, part: str) -> float:
    return max(median_ms(rank.spent_ns, part) for rank in result.ranks)


def communication_share(result: ParallelResult) -> float:
    """Of all ranks' time; waiting is in it."""
    total = sum(median_ms(rank.spent_ns, "total") for rank in result.ranks)
    names = {name for rank in result.ranks for spent in rank.spent_ns for name in spent}
    comm = sum(
        median_ms(rank.spent_ns, name)
        for rank in result.ranks
        for name in names
        if name.endswith("_comm")
    )
    return comm / total


def breakdown_rows(result: ParallelResult, ranks: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for rank in result.ranks:
        total = median_ms(rank.spent_ns, "total")
        names = sorted({name for spent in rank.spent_ns for name in spent} - {"total"})
        spent = {name: median_ms(rank.spent_ns, name) for name in names}
        spent["everything else"] = total - sum(spent.values())
        for name, ms in spent.items():
            rows.append(
                (
                    str(ranks), str(rank.rank), f"{rank.expert_weights / 1e6:.1f} M weights", name,
                    significant(ms), f"{100 * ms / total:.1f} %",
                )
            )  # fmt: skip
    return rows


def diff_ranks(traces: Sequence[Path], ranks: int) -> list[tuple[str, ...]]:
    """Every rank's trace beside rank 0's, by operator."""
    rows: list[tuple[str, ...]] = []
    for other in traces[1:]:
        found = compare_files(str(traces[0]), str(other), "operator")
        shown = sorted(found.rows, key=lambda row: -abs(row.delta))[:DIFF_ROWS]
        for row in shown:
            share = f"{100 * row.delta / found.delta:.0f} %" if found.delta else ""
            cells = [f"{value / 1e6:.3f}" for value in (row.a, row.b, row.delta)]
            rows.append((str(ranks), f"`{row.name}`", *cells, share))
        whole = (found.total_a, found.total_b, found.delta)
        rows.append((str(ranks), "**all operators**", *(f"{v / 1e6:.3f}" for v in whole), "100 %"))
    return rows
