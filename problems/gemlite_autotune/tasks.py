"""What each variant works out: the shipped tables, a GPU's configurations, families, numerics.

Every task gives `Results`; nothing here is timed, and what was not run has no time.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from statistics import median
from typing import Any

from common.errors import WorklogError
from common.report.tables import Table, significant
from common.timing.worker_client import child_command, child_environment
from common.traces.compiled_kernel import CompiledKernel
from problems.gemlite_autotune.compilers import with_packages
from problems.gemlite_autotune.coverage import coverage
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.explored_table import explored_table
from problems.gemlite_autotune.explorer import Outcome, explore
from problems.gemlite_autotune.figure_data import figure_data
from problems.gemlite_autotune.jobs import Job, space_jobs, winner_job
from problems.gemlite_autotune.layers import Layer, check_layer
from problems.gemlite_autotune.ranking import rank
from problems.gemlite_autotune.results import Results, file_name
from problems.gemlite_autotune.routes import Route, route_map
from problems.gemlite_autotune.shipped_tables import FAMILIES, shipped_tables
from problems.gemlite_autotune.table_findings import findings
from problems.gemlite_autotune.text_charts import (
    route_strips,
    split_by_batch,
    stages_by_gpu,
    tile_by_batch,
)

TUNED_ON = "rtx-4090"  # whose winners are compiled for the other GPUs too
LARGEST_BATCH = 4096
FORMATS_TO_COMPILE = ("a16w4", "a8w8-int8", "a8w8-fp8")
GPUS = ("rtx-4090", "h200-sxm", "rtx-5090")
NUMERICS_SECONDS = 240


class ExplorationFailed(WorklogError):
    """Not one kernel came out."""


def layer_from(settings: Mapping[str, Any]) -> Layer:
    return check_layer(
        Layer(
            int(settings["n"]),
            int(settings["k"]),
            str(settings["format"]),
            int(settings["group"]) if settings.get("group") else None,
            str(settings.get("activation", "fp16")),
        )
    )


def tables_task(layer: Layer) -> Results:
    """Shipped winners: what is said of them, how they stand to today's code, the route map."""
    results, tables = Results(), shipped_tables()
    found = findings(tables)
    rows = tuple(
        (
            f.id,
            f.says,
            f"{significant(f.value, 4)} {f.unit}".strip(),
            significant(f.low, 4)
            if f.low == f.high
            else f"{significant(f.low, 4)} … {significant(f.high, 4)}",
            "confirmed" if f.holds else "**refuted**",
        )
        for f in found
    )
    columns = ("id", "statement", "in the tables", "noted before", "result")
    results.tables["findings"] = Table(columns, rows, ("in the tables", "noted before"))
    for f in found:
        results.figure(f.id, f.value, f.unit, "published")
    results.figure("refuted", sum(not f.holds for f in found), "statements", "published")
    gpu = describe(TUNED_ON)
    covered = list(coverage(tables, "4090", gpu))
    results.tables["coverage"] = Table(
        ("family", "entries", "in today's fast list", "in the max list", "reached by a route"),
        tuple(
            (c.family, str(c.entries), str(c.in_fast), str(c.in_max), str(c.reachable))
            for c in covered
        ),
        ("entries", "in today's fast list", "in the max list", "reached by a route"),
    )
    gemm = [c for c in covered if c.family.startswith("GEMM")]
    results.figure("gemm_in_fast", sum(c.in_fast for c in gemm), "entries", "published")
    dead = sum(c.entries - c.reachable for c in covered)
    results.figure("dead_rows", dead, "entries", "published")
    results.tables["figure-split"] = split_by_batch(tables)
    results.tables["figure-tile"] = tile_by_batch(tables)
    results.tables["figure-stages"] = stages_by_gpu(tables)
    mapped = (TUNED_ON, "h100-sxm", "rtx-5090", "h200-sxm")
    gpus = [describe(name) for name in mapped]
    results.tables["figure-routes"] = route_strips(layer, gpus, tables)
    results.data = figure_data(layer, gpus, tables)
    for gpu_id in mapped:
        stretches = route_map(layer, range(1, LARGEST_BATCH + 1), describe(gpu_id), tables)
        results.tables[f"routes-{gpu_id}"] = Table(
            ("M", "family", "key M", "answer"),
            tuple(
                (
                    str(s.first) if s.first == s.last else f"{s.first} … {s.last}",
                    s.route.family,
                    str(s.route.key.m),
                    _answer(s.route),
                )
                for s in stretches
            ),
            ("M", "key M"),
        )
        missed = sum(s.last - s.first + 1 for s in stretches if not s.route.hit)
        results.figure(f"tuned_batches_{gpu_id}", missed, "of 4096", "modelled")
    return results


def _answer(found: Route) -> str:
    if found.winner is not None:
        return f"table {found.table}: {found.winner}"
    if not found.candidates:
        return "fails: the pruner leaves nothing"
    return f"tunes over {len(found.candidates)}"


def explore_task(
    gpu_id: str,
    layer: Layer,
    batches: list[int],
    mode: str,
    report: Callable[[str, int], None],
) -> Results:
    """Every configuration of the list, and the 4090's winner, compiled for one GPU."""
    results, tables = Results(), shipped_tables()
    jobs: dict[int, list[Job]] = {}
    winners: dict[int, Job | None] = {}
    for m in batches:
        winners[m] = winner_job(gpu_id, layer, m, tables, TUNED_ON)
        winner = [winners[m]] if winners[m] is not None else []
        listed = space_jobs(gpu_id, layer, m, mode)
        jobs[m] = list(dict.fromkeys([*(w for w in winner if w is not None), *listed]))
    outcomes = explore([job for each in jobs.values() for job in each], report)
    by_job = {outcome.job: outcome for outcome in outcomes}
    if not any(outcome.kernel for outcome in outcomes):
        raise ExplorationFailed(f"no kernel was compiled ({outcomes[0].failure}); see the log")
    for m in batches:
        of_m = [by_job[job] for job in jobs[m]]
        winner_of_m = winners[m]
        marks: dict[object, str] = {winner_of_m: "(4090's winner)"} if winner_of_m else {}
        results.tables[f"m{m}"] = explored_table(of_m, marks)
        _explored_figures(results, m, of_m, winner_of_m)
        for outcome in of_m:
            if outcome.kernel is not None:
                name = file_name(f"m{m}-{outcome.job.family}-{outcome.job.config}")
                results.kernels[name] = outcome.kernel
    results.tables["rank"] = _ranks(gpu_id, batches, winners, by_job, jobs)
    failed = [outcome for outcome in outcomes if outcome.kernel is None]
    compiled = [outcome for outcome in outcomes if outcome.kernel is not None]
    results.figure("compiled", len(compiled), "kernels", "compiled")
    results.figure("without_kernel", len(failed), "configurations", "compiled")
    cannot = sum(not outcome.can_launch for outcome in compiled)
    results.figure("cannot_launch", cannot, "configurations", "compiled")
    if any(outcome.job.family.startswith("GEMM") for outcome in compiled):
        _order_figures(results, {o.job: o.kernel for o in compiled if o.kernel is not None})
    # A property of the machine that compiled, whenever that was; not a time of a kernel.
    results.figure(
        "compile_cpu_seconds", median(o.seconds for o in compiled), "s, median", "measured-cpu"
    )
    return results


def _explored_figures(
    results: Results, m: int, outcomes: list[Outcome], winner: Job | None
) -> None:
    kernels = {o.job: o.kernel for o in outcomes if o.kernel is not None}
    listed = {job: kernel for job, kernel in kernels.items() if job != winner}
    if winner in kernels and winner is not None:
        own = kernels[winner]
        for name in ("blocks_per_sm", "occupancy", "waves"):
            results.figure(f"m{m}_winner_{name}", own.metrics.get(name), "", "compiled")
        for name in ("registers", "shared_bytes"):
            results.figure(f"m{m}_winner_{name}", own.resources[name], "", "compiled")
        results.figure(f"m{m}_winner_ldgsts", own.count("LDGSTS"), "instructions", "compiled")
        results.figure(f"m{m}_winner_loop", own.loop_instructions, "instructions", "compiled")
    few = sum(kernel.metrics["blocks_per_sm"] == 1 for kernel in listed.values())
    results.figure(f"m{m}_one_block_per_sm", few, "of the list", "compiled")
    results.figure(
        f"m{m}_pipelined", sum(k.count("LDGSTS") > 0 for k in listed.values()), "of the list",
        "compiled",
    )  # fmt: skip
    cas = sum(k.metrics["atomics"] == "compare-and-swap" for k in kernels.values())
    results.figure(f"m{m}_cas_loops", cas, "kernels", "compiled")
    results.figure(
        f"m{m}_spilling", sum(k.resources["stack_bytes"] > 0 for k in kernels.values()), "kernels",
        "compiled",
    )  # fmt: skip
    same, pairs = _stage_pairs(kernels)
    results.figure(f"m{m}_stage_pairs", pairs, "pairs", "compiled")
    results.figure(f"m{m}_stage_pairs_identical", same, "pairs", "compiled")
    # Pipelines and stages: copies that go to shared memory by themselves.
    both = [job for job in kernels if job.family.startswith("GEMM")]
    odd = [job for job in both if (kernels[job].count("LDGSTS") > 0) != (job.config.stages > 1)]
    results.figure(f"m{m}_stages_without_pipeline", len(odd), "kernels", "compiled")


def _order_figures(results: Results, kernels: Mapping[Job, CompiledKernel]) -> None:
    """Configurations that differ in the order of their loads alone: programs and registers."""
    groups: dict[Job, list[CompiledKernel]] = {}
    for job, kernel in kernels.items():
        alike = replace(job, config=replace(job.config, a_order=0))
        groups.setdefault(alike, []).append(kernel)
    pairs = [pair for found in groups.values() for pair in combinations(found, 2)]
    if not pairs:
        return
    same = sum(one.facts["program_sha256"] == other.facts["program_sha256"] for one, other in pairs)
    differ = [abs(one.resources["registers"] - other.resources["registers"])
              for one, other in pairs]  # fmt: skip
    results.figure("order_pairs", len(pairs), "pairs", "compiled")
    results.figure("order_pairs_identical", same, "pairs", "compiled")
    results.figure("order_registers_median", median(differ), "registers", "compiled")
    results.figure("order_registers_most", max(differ), "registers", "compiled")


def _stage_pairs(kernels: Mapping[Job, CompiledKernel]) -> tuple[int, int]:
    """(identical programs, pairs) among configurations that differ in their stages alone."""
    groups: dict[Job, list[str]] = {}
    for job, kernel in kernels.items():
        alike = replace(job, config=replace(job.config, stages=1))
        groups.setdefault(alike, []).append(str(kernel.facts["program_sha256"]))
    pairs = [pair for programs in groups.values() for pair in combinations(programs, 2)]
    return sum(one == other for one, other in pairs), len(pairs)


def _ranks(
    gpu_id: str,
    batches: list[int],
    winners: Mapping[int, Job | None],
    by_job: Mapping[Job, Outcome],
    jobs: Mapping[int, list[Job]],
) -> Table:
    """Where the 4090's winner stands among the list by each static order."""
    rows = []
    for m in batches:
        winner = winners[m]
        pool = [(job, k) for job in jobs[m] if (k := by_job[job].kernel) is not None]
        if winner is None or winner not in dict(pool):
            continue
        for found in rank(winner, pool, describe(gpu_id)):
            ties = f" (+{found.ties} equal)" if found.ties else ""
            rows.append((str(m), str(winner.config), found.order, f"{found.rank}{ties}",
                         str(found.of)))  # fmt: skip
    columns = ("M", "winner", "order by", "rank", "of")
    return Table(columns, tuple(rows), ("M", "rank", "of"))


def families_task(n: int, k: int, report: Callable[[str, int], None]) -> Results:
    """Architectures x families x formats: one configuration each, or why there is none."""
    results = Results()
    cells: dict[tuple[str, str, str], Job | str] = {}
    for gpu_id in GPUS:
        for family in FAMILIES:
            for name in FORMATS_TO_COMPILE:
                layer = Layer(n, k, name, 128 if name == "a16w4" else None)
                m = 1 if family.startswith("GEMV") else 8 if family == "GEMM_SPLITK" else 128
                listed = space_jobs(gpu_id, layer, m, "fast", family)
                cells[gpu_id, family, name] = listed[0] if listed else "the pruner leaves nothing"
    jobs = [job for job in cells.values() if isinstance(job, Job)]
    outcomes = {outcome.job: outcome for outcome in explore(jobs, report)}
    rows = []
    states: Counter[str] = Counter()
    for (gpu_id, family, name), cell in cells.items():
        outcome = outcomes[cell] if isinstance(cell, Job) else None
        tensor, says = "", str(cell)
        if outcome is not None and outcome.kernel is not None:
            kinds = Counter(
                opcode.split(".")[0]
                for opcode, count in outcome.kernel.instructions.items()
                if opcode.split(".")[0].endswith("MMA")
                for _ in range(count)
            )
            tensor = ", ".join(f"{kind} x{count}" for kind, count in sorted(kinds.items()))
            says = "compiled" if outcome.can_launch else "compiled, cannot launch"
        elif outcome is not None:
            says = f"refused: {outcome.failure}"
        states[says.split(":")[0]] += 1
        config = str(cell.config) if isinstance(cell, Job) else ""
        rows.append((f"sm_{describe(gpu_id).architecture}", family, name, config, tensor or "none",
                     says))  # fmt: skip
    columns = ("architecture", "family", "format", "configuration", "tensor-core instructions",
               "result")  # fmt: skip
    results.tables["families"] = Table(columns, tuple(rows))
    results.figure("cells", len(rows), "cells", "compiled")
    results.figure("compiled", states["compiled"], "cells", "compiled")
    return results


def numerics_task() -> Results:
    """GemLite's kernels in Triton's interpreter, in a process of its own that never compiles."""
    command = child_command("problems.gemlite_autotune.numerics")
    environment = {**with_packages(child_environment()), "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment,
        timeout=NUMERICS_SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise ExplorationFailed(f"the interpreter failed ({words[-1] if words else 'no message'})")
    results, rows = Results(), []
    for case in json.loads(done.stdout.splitlines()[-1]):
        result = "rejected" if case["error"] > case["tolerance"] else "passed"
        expected = "rejected" if case["wrong"] else "passed"
        rows.append((case["family"], case["format"], case["what"], significant(case["error"]),
                     significant(case["tolerance"]), result))  # fmt: skip
        if result != expected:
            raise ExplorationFailed(f"{case['family']} {case['format']}: {case['what']} {result}")
        results.figure(case["name"], case["error"], "relative error", "measured-cpu")
    columns = ("family", "format", "kernel's data", "relative error", "tolerance", "result")
    results.tables["numerics"] = Table(columns, tuple(rows), ("relative error", "tolerance"))
    return results
