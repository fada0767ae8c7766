"""How do cells, knobs, plans and residuals read as tables? The three memories are apart."""

from __future__ import annotations

from collections.abc import Sequence

from common.allocator.layer_stack import KnobRow
from common.report.tables import Table
from problems.cuda_graph_memory.cells import Outcome
from problems.cuda_graph_memory.freezing import Frozen
from problems.cuda_graph_memory.inductor_plan import KIB, Plan
from problems.cuda_graph_memory.published import Peak, Residual

MIB = 1 << 20
SYNTHETIC = (
    "_Per-pool figures are synthetic evidence: the allocator's model, not a recording of private "
    "pools on a GPU._"
)
MEMORIES = ("(a) private pools", "(b) default, peak", "(b) default, end", "(c) non-torch")


def mib(size: int) -> str:
    return f"{size / MIB:,.0f}"


def matrix(outcomes: Sequence[Outcome]) -> Table:
    """A row per cell: mode and number of sizes."""
    rows = tuple(
        (
            o.mode,
            str(len(o.sizes)),
            mib(o.end.private_reserved_bytes),
            mib(o.default_peak_reserved_bytes),
            mib(o.end.default_reserved_bytes),
            f"{o.end.non_torch_bytes / MIB:.1f}",
            mib(o.total_bytes),
            "modelled",
        )
        for o in outcomes
    )
    columns = ("mode", "sizes", *MEMORIES, "most at once while serving", "origin")
    return Table(columns, rows, columns[1:-1], f"_MiB._ {SYNTHETIC}")


def phases(outcomes: Sequence[Outcome]) -> Table:
    """A row per mode and phase."""
    rows = tuple(
        (
            o.mode,
            p.phase,
            mib(p.private_reserved_bytes),
            mib(p.private_reserved_bytes - p.private_active_bytes),
            mib(p.default_peak_reserved_bytes),
            mib(p.default_reserved_bytes),
            f"{p.non_torch_bytes / MIB:.1f}",
            "modelled",
        )
        for o in outcomes
        for p in o.phases
    )
    columns = (
        "mode", "phase", MEMORIES[0], "of it retained", *MEMORIES[1:], "origin",
    )  # fmt: skip
    return Table(columns, rows, columns[2:-1], f"_MiB at the end of each phase._ {SYNTHETIC}")


def growth(outcomes: Sequence[Outcome]) -> Table:
    """By how much each capture made the private pools grow, in the order of the captures."""
    rows = tuple(
        (o.mode, str(size), mib(grown), "modelled")
        for o in outcomes
        for size, grown in o.growth_bytes
    )
    return Table(
        ("mode", "captured size", "growth MiB", "origin"), rows, ("captured size", "growth MiB"),
        f"_Marginal growth in the order of capture._ {SYNTHETIC}",
    )  # fmt: skip


def knobs(rows: Sequence[KnobRow]) -> Table:
    """Each knob against the base; negative: it costs."""
    found = tuple(
        (
            row.knob,
            mib(row.memories.private_reserved_bytes),
            mib(row.memories.default_peak_reserved_bytes),
            mib(row.memories.default_reserved_bytes),
            f"{row.memories.non_torch_bytes / MIB:.1f}",
            f"{row.saved_bytes / MIB:+,.0f}",
            row.memories.source,
        )
        for row in rows
    )
    columns = ("knob", *MEMORIES, "saved MiB", "origin")
    return Table(
        columns, found, columns[1:-1], f"_MiB; saved: of (a) + (b) at the end + (c)._ {SYNTHETIC}"
    )


def plans(found: Sequence[Plan]) -> Table:
    """Inductor's estimates beside what the compiled code asked for."""
    rows = tuple(
        (
            str(p.layers),
            p.order,
            *(f"{p.estimates[name] / KIB:,.0f}" for name in _ORDERS),
            f"{p.measured_peak_bytes / KIB:,.0f}",
            "measured-cpu",
        )
        for p in found
    )
    columns = ("L", "order that was run", *_ORDERS.values(), "measured peak", "origin")
    return Table(
        columns, rows, (columns[0], *columns[2:-1]),
        "_KiB. The estimates are Inductor's own (compiled); the peak is counted from the "
        "profiler's allocation events._",
    )  # fmt: skip


_ORDERS = {
    "baseline": "baseline",
    "topological_sort_lpmf": "LPMF",
    "topological_sort_bfs": "BFS",
    "topological_sort_dfs": "DFS",
}


def frozen(found: Sequence[Frozen]) -> Table:
    rows = tuple(
        (
            f.compute,
            str(f.layers),
            f"{f.quantised_bytes:,}",
            f.folded,
            f"{f.times_quantised:.2f}",
            "measured-cpu",
        )
        for f in found
    )
    columns = ("dequantised to", "layers", "int8 bytes", "made by freezing", "all ÷ int8", "origin")
    return Table(columns, rows, columns[1:-1])


def peaks(found: Sequence[Peak]) -> Table:
    """The parts of each modelled peak."""
    rows = tuple(
        (
            p.model,
            p.kind,
            "tied" if p.tied else "own",
            *(
                f"{size / 1e9:.3f}"
                for size in (
                    *(p.weights_active_bytes, p.loaded_reserved_bytes - p.weights_active_bytes),
                    *(p.private_bytes, p.prefill_spike_bytes, p.peak_bytes),
                )
            ),
            "modelled",
        )
        for p in found
    )
    columns = ("model", "weights", "head", "(b) held by tensors", "(b) rounded and in pieces",
               "(a) private pool", "(b) second prefill", "peak reserved", "origin")  # fmt: skip
    note = "_GB. (c), what is outside torch, is no part of what the script printed._"
    return Table(columns, rows, columns[3:-1], note)


def residuals(found: Sequence[Residual]) -> Table:
    rows = tuple(
        (
            r.model, r.card, r.kind, "tied" if r.tied else "own", f"{r.published_gb:.2f}",
            f"{r.modelled_gb:.3f}", f"{r.residual_gb:+.3f}", f"{100 * r.relative:+.1f} %",
            r.settles,
        )
        for r in found
    )  # fmt: skip
    columns = ("model", "card", "weights", "head", "published GB", "modelled GB", "residual GB",
               "residual", "what would settle it")  # fmt: skip
    return Table(columns, rows, columns[4:8], "_Retrospective; no term is fitted._")
