"""What does each variant work out? One kind of weights, the stack, plans, published peaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.allocator.layer_stack import Knobs, Stack, knob_table, measure
from common.allocator.snapshot_file import write_snapshot
from common.report.results import Results
from problems.cuda_graph_memory import tables
from problems.cuda_graph_memory.cells import CAPTURING, MODES, Outcome, run_cell
from problems.cuda_graph_memory.plain_programs import Program

Say = Callable[[str, int], None]
MIB = 1 << 20
SEVEN = (64, 32, 16, 8, 4, 2, 1)
TEN = tuple(1 << power for power in range(10))
SNAPSHOTS = ("separate-pools", "shared-large-first", "reduce-overhead")
CHECKED_FROM = {"separate-pools": "m_separate", "shared-large-first": "m_shared"}


def size_sets(sizes: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The 1, 4 and 8 smallest sizes of the preset, as far as it has them."""
    ordered = sorted(sizes)
    return {n: tuple(ordered[:n]) for n in (1, 4, 8) if n <= len(ordered)}


def traced_program(
    kind: Any, preset: Mapping[str, Any], say: Say
) -> tuple[Program, dict[int, str]]:
    """One kind's program: traced, and its decode steps lowered by Inductor; needs torch."""
    from problems.cuda_graph_memory.lowering import compiled_forwards
    from problems.cuda_graph_memory.programs import llama_config, trace_llama_program

    sizes = [int(size) for size in preset["sizes"]]
    config = llama_config(str(preset["model"]), int(preset["layers"]))
    say(f"tracing {kind}", 0)
    program = trace_llama_program(config, kind, sizes, int(preset["prompt_tokens"]))
    say(f"lowering {kind}", 1)
    compiled, sources = compiled_forwards(kind, sizes, preset)
    return replace(program, compiled=compiled), sources


def matrix_task(
    kind: str, preset: Mapping[str, Any], folder: Path | None = None, say: Say = lambda *a: None
) -> Results:
    """All modes and numbers of sizes for one kind of weights; snapshots into `folder`."""
    program, sources = traced_program(kind, preset, say)
    results = matrix_results(program, preset["sizes"], folder)
    results.figure("lowered_programs", len(sources), "programs", "compiled")
    if folder is not None:
        for size, source in sources.items():
            (folder / f"lowered-{size}.py.txt").write_text(source[source.index("class Runner") :])
    return results


def matrix_results(program: Program, sizes: Sequence[int], folder: Path | None) -> Results:
    results = Results()
    cells = {
        (mode, n): run_cell(program, mode, chosen)
        for n, chosen in size_sets(sizes).items()
        for mode in MODES
    }
    most = max(n for _, n in cells)
    largest = [cells[mode, most] for mode in MODES]
    results.tables["matrix"] = tables.matrix(list(cells.values()))
    results.tables["phases"] = tables.phases(largest)
    results.tables["growth"] = tables.growth([o for o in largest if o.growth_bytes])
    for (mode, n), outcome in cells.items():
        _cell_figures(results, f"{mode}_{n}", outcome)
    first, last = min(program.eager), max(program.eager)
    for size in dict.fromkeys((first, last)):
        forward = program.forward(size, bool(program.compiled))
        results.figure(f"graph_nodes_{size}", forward.kernels, "kernels", "compiled")
        results.figure(f"compiled_peak_{size}", forward.peak_bytes / MIB, "MiB", "compiled")
        results.figure(
            f"eager_peak_{size}", program.eager[size].peak_bytes / MIB, "MiB", "modelled"
        )
    results.figure(
        "largest_weight", program.largest_weight_bytes / MIB, "MiB, one in bf16", "modelled"
    )
    if folder is not None:
        for mode in SNAPSHOTS:
            write_small_snapshot(folder / f"{mode}.pickle.gz", cells[mode, most])
    return results


def write_small_snapshot(path: Path, outcome: Outcome) -> None:
    """A genuine snapshot file of a cell, gzipped the same way every time."""
    import gzip

    plain = write_snapshot(path.with_suffix(""), outcome.allocator)
    path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()


def _cell_figures(results: Results, name: str, outcome: Outcome) -> None:
    parts = {
        "private": outcome.end.private_reserved_bytes,
        "default_peak": outcome.default_peak_reserved_bytes,
        "default_end": outcome.end.default_reserved_bytes,
        "non_torch": outcome.end.non_torch_bytes,
        "total": outcome.total_bytes,
    }
    for part, size in parts.items():
        if part in ("private", "non_torch") and outcome.mode not in CAPTURING:
            continue
        results.figure(f"{name}_{part}", size / MIB, "MiB", "modelled")


def stack_task() -> Results:
    """The layer stack of the note, its arithmetic, and the table of knobs. No torch."""
    results, stack = Results(), Stack()
    for name, sizes in (("7", SEVEN), ("10", TEN)):
        for dequantise in ("streamed", "hoisted", "fused"):
            for shared in (False, True):
                found = measure(
                    stack,
                    Knobs(sizes=sizes, dequantise=dequantise, share_pool=shared),
                )
                which = "shared" if shared else "separate"
                results.figure(
                    f"{dequantise}_{which}_{name}", found.private_reserved_bytes / MIB, "MiB",
                    "modelled",
                )  # fmt: skip
    large_first = measure(stack, Knobs(sizes=TEN[::-1], share_pool=True))
    results.figure("streamed_large_first_10", large_first.private_reserved_bytes / MIB, "MiB",
                   "modelled")  # fmt: skip
    rows = knob_table(stack)
    results.tables["knobs"] = tables.knobs(rows)
    for row in rows:
        results.figure("saved: " + row.knob, row.saved_bytes / MIB, "MiB", "modelled")
    return results


def plan_task(preset: Mapping[str, Any], say: Say = lambda *a: None) -> Results:
    """Inductor's memory plan, estimated and measured, in the chosen and in the forced order."""
    from problems.cuda_graph_memory.inductor_plan import (
        DEQUANTISE_FIRST,
        KIB,
        chosen_bytes,
        dequantise_first_bytes,
        plan,
    )

    results, found = Results(), []
    for layers in preset["plan_layers"]:
        for forced in (None, DEQUANTISE_FIRST):
            one = plan(int(layers), forced)
            found.append(one)
            name = "first" if forced else "chosen"
            say(f"{layers} layers, {name}", len(found))
            expected = dequantise_first_bytes(one.layers) if forced else chosen_bytes()
            estimate = one.estimates[forced or "baseline"]
            results.figure(f"{name}_{layers}_measured", one.measured_peak_bytes / KIB, "KiB",
                           "measured-cpu")  # fmt: skip
            results.figure(f"{name}_{layers}_estimated", estimate / KIB, "KiB", "compiled")
            off = max(abs(one.measured_peak_bytes - expected), abs(estimate - expected))
            results.figure(f"{name}_{layers}_off", off, "bytes from the formula", "measured-cpu")
    results.tables["plans"] = tables.plans(found)
    return results


def freezing_task(preset: Mapping[str, Any]) -> Results:
    from problems.cuda_graph_memory.freezing import freeze

    results, found = Results(), []
    for compute in ("float32", "bfloat16"):
        one = freeze(int(preset["frozen_layers"]), compute)
        found.append(one)
        results.figure(f"{compute}_times_quantised", one.times_quantised, "", "measured-cpu")
        results.figure(f"{compute}_new_bytes", one.new_bytes, "B", "measured-cpu")
    results.tables["frozen"] = tables.frozen(found)
    return results


def published_task(preset: Mapping[str, Any], say: Say = lambda *a: None) -> Results:
    """The published peaks beside the modelled ones; the models are those of the preset."""
    from problems.cuda_graph_memory.published import (
        Peak,
        benchmark_peak,
        cases,
        residuals,
        traced,
    )

    results = Results()
    found: list[Peak] = []
    chosen = [case for case in cases() if case[0] in preset["published_models"]]
    for model, kind, tied in chosen:
        say(f"tracing {model} {kind}", len(found))
        found.append(benchmark_peak(traced(model, kind, tied), model, tied))
    for peak in found:
        name = f"{peak.model}_{peak.kind}" + ("_tied" if peak.tied else "")
        results.figure(f"{name}_gb", peak.peak_bytes / 1e9, "GB", "modelled")
        results.figure(f"{name}_private_gb", peak.private_bytes / 1e9, "GB", "modelled")
        results.figure(f"{name}_prefill_gb", peak.prefill_spike_bytes / 1e9, "GB", "modelled")
    rows = residuals(found)
    for row in rows:
        name = f"{row.model}_{row.kind}_{row.card.split()[-1]}" + ("_tied" if row.tied else "")
        results.figure(f"{name}_residual_percent", 100 * row.relative, "%", "modelled")
    results.tables["peaks"] = tables.peaks(found)
    results.tables["residuals"] = tables.residuals(rows)
    return results
