"""What does a sweep amount to? Its points as pandas tables, with intervals, floors and turns.

Pure: from the lines of `points.jsonl` and `profiles.jsonl` (and the machine's read bandwidth, where
it was measured) to data frames and tables. A notebook calls the same functions on recorded runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from common.floors.batch_scaling import BatchPoint, Turns, fit_affine, gains_per_doubling, turns
from common.report.tables import Table, significant
from common.timing.statistics import compare, relative_half_width, summarise
from problems.moe_batch_scaling.points import Measured
from problems.moe_batch_scaling.stages import STAGES

ONCE = "sampled once"
SAME_CODE = "auto runs it here: the same code"


def points_frame(points: Sequence[Measured], read_gb_per_s: float | None = None) -> pd.DataFrame:
    """One row per point. Latency in ms with its 95 % interval, throughput, routing, floor.

    `floor_ms` is the least time for the bytes of the experts that the point's own routing touched;
    NaN where the bandwidth or the routing is not known.
    """
    return pd.DataFrame([_row(point, read_gb_per_s) for point in points])


def _row(measured: Measured, read_gb_per_s: float | None) -> dict[str, Any]:
    p = measured.point
    row: dict[str, Any] = {
        "group": measured.group, "phase": p.phase, "batch": p.batch, "sequence": p.sequence,
        "top_k": p.top_k, "weights": p.weights, "routing": p.routing, "side": p.side,
        "tokens": p.tokens, "status": measured.status, "reason": measured.reason,
        "samples": len(measured.samples_ns),
        "baseline": measured.baseline, "in_turn": p.in_turn,
    }  # fmt: skip
    nothing = math.nan
    low = middle = high = half = nothing
    if measured.status == "measured":
        found = summarise(measured.samples_ns)
        middle = found.median / 1e6
        if found.interval is not None:
            low, high = found.interval.low / 1e6, found.interval.high / 1e6
            half = relative_half_width(measured.samples_ns)
    row |= {
        "latency_ms": middle, "low_ms": low, "high_ms": high, "half_width": half,
        "samples_per_s": p.batch / middle * 1e3, "tokens_per_s": p.tokens / middle * 1e3,
    }  # fmt: skip
    touched_bytes = nothing if measured.touched_bytes is None else measured.touched_bytes
    floor = nothing if not read_gb_per_s else touched_bytes / read_gb_per_s / 1e6
    row |= {
        "touched": sum(measured.touched) / len(measured.touched) if measured.touched else nothing,
        "touched_mb": touched_bytes / 1e6,
        "imbalance": nothing if measured.imbalance is None else measured.imbalance,
        "floor_ms": floor, "of_floor": floor / middle,
    }  # fmt: skip
    return row


def base_rows(
    frame: pd.DataFrame, phase: str, batches: Sequence[int] | None = None
) -> pd.DataFrame:
    """The base of the sweep in one phase, by batch: the batches that were measured in turn.

    Where none was (a comparison of sides, an older sweep), the baseline of each group.
    """
    measured = frame[(frame["phase"] == phase) & (frame["status"] == "measured")]
    base = measured[measured["baseline"]].sort_values("batch")
    base = base[base["in_turn"]] if base["in_turn"].any() else base
    return base if batches is None else base[base["batch"].isin(batches)]


def batch_points(base: pd.DataFrame) -> list[BatchPoint]:
    return [
        BatchPoint(int(b), float(ms))
        for b, ms in zip(base["batch"], base["latency_ms"], strict=True)
    ]


def turns_of(base: pd.DataFrame) -> Turns | None:
    """Knee, plateau and latency wall; None where there are too few points to say."""
    found = batch_points(base)
    return turns(found) if len(found) >= 3 else None


def scaling_table(base: pd.DataFrame, note: str = "") -> Table:
    """Latency, throughput, routing and floor against batch."""
    columns = (
        "batch", "latency ms", "95 %", "samples/s", "tokens/s", "gain per doubling",
        "experts touched", "max/mean load", "floor ms", "of the floor",
    )  # fmt: skip
    found = batch_points(base)
    gains = [math.nan, *(gains_per_doubling(found) if len(found) >= 3 else [math.nan] * 99)]
    rows = [
        (
            str(row.batch), number(row.latency_ms), within(row.low_ms, row.high_ms),
            number(row.samples_per_s), number(row.tokens_per_s), number(gain),
            number(row.touched), number(row.imbalance), number(row.floor_ms),
            percentage(row.of_floor),
        )
        for row, gain in zip(base.itertuples(), gains, strict=False)
    ]  # fmt: skip
    return Table(columns, tuple(rows), columns, note)


def turns_table(bases: Mapping[str, pd.DataFrame]) -> Table:
    """Three definitions beside each other: one alone would be a choice."""
    rows = []
    for phase, base in bases.items():
        found = turns_of(base)
        if found is None:
            continue
        line = fit_affine(batch_points(base))
        rows.append(
            (
                phase, _batch(found.knee), _batch(found.latency_wall), _batch(found.plateau),
                number(line.fixed_ms), number(line.per_sample_ms), number(line.half_batch),
            )
        )  # fmt: skip
    columns = (
        "phase", "knee (farthest above the chord over log2 batch)",
        "latency wall (first above 1.5 times the smallest)",
        "plateau (each doubling gains less than 1.10)", "fixed ms", "ms per sample", "half batch",
    )  # fmt: skip
    return Table(columns, tuple(rows), columns[1:])


def ratios_frame(points: Sequence[Measured]) -> pd.DataFrame:
    """Every point beside the first of its group, round by round: ratio of times and interval."""
    rows = []
    groups: dict[str, list[Measured]] = {}
    for measured in points:
        if not measured.point.in_turn:  # batches are no factor of each other
            groups.setdefault(measured.group, []).append(measured)
    for name, members in groups.items():
        base = baseline_of(members)
        for other in members:
            if base is None or other is base:
                continue
            ratio, low, high, verdict = math.nan, math.nan, math.nan, other.reason
            ours = dict(zip(base.rounds, base.samples_ns, strict=True))
            theirs = dict(zip(other.rounds, other.samples_ns, strict=True))
            shared = sorted(ours.keys() & theirs.keys())
            if other.status == "measured" and other.reason.startswith(ONCE):
                ratio = other.samples_ns[0] / summarise(base.samples_ns).median
            elif other.status == "measured" and shared:
                found = compare([ours[r] for r in shared], [theirs[r] for r in shared])
                ratio, verdict = found.ratio, str(found.verdict)
                if found.interval is not None:
                    low, high = found.interval.low, found.interval.high
            p = other.point
            rows.append(
                {
                    "group": name, "phase": p.phase, "batch": p.batch, "tokens": p.tokens,
                    "side": p.side, "changed": changed(base, other), "ratio": ratio,
                    "low": low, "high": high, "verdict": verdict, "status": other.status,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def baseline_of(members: Sequence[Measured]) -> Measured | None:
    """The point that the others of its group are compared with; None if it is not there."""
    found = (m for m in members if m.baseline and m.status == "measured")
    return next(found, None)


def changed(base: Measured, other: Measured) -> str:
    """What differs from the base, in words."""
    parts = []
    for name, words in (
        ("sequence", "sequence"), ("top_k", "top-k"), ("weights", "experts"),
        ("routing", "routing"), ("side", "side"),
    ):  # fmt: skip
        value = getattr(other.point, name)
        if value != getattr(base.point, name):
            parts.append(f"{words} {value}")
    return ", ".join(parts)


def factors_table(points: Sequence[Measured], note: str = "") -> Table:
    """What each factor does to the latency of the base, at each batch."""
    frame = ratios_frame(points)
    if frame.empty:
        return Table(("factor",), ())
    shown = frame[frame["side"] == "auto"]
    shown = shown.assign(cell=[ratio_cell(row) for row in shown.itertuples()])
    shown = shown.assign(at=[f"{row.phase} {row.batch}" for row in shown.itertuples()])
    wide = shown.pivot_table(
        index="changed", columns="at", values="cell", aggfunc="first", sort=False
    )
    columns = ("time ÷ base", *(str(c) for c in wide.columns))
    rows = tuple(
        (str(name), *("" if pd.isna(cell) else str(cell) for cell in row))
        for name, row in zip(wide.index, wide.to_numpy(), strict=True)
    )
    return Table(columns, rows, columns[1:], note)


def sides_table(points: Sequence[Measured], phase: str, note: str = "") -> Table:
    """Every side beside `auto` at every batch: time ÷ auto's, so above 1 is slower than auto."""
    frame = ratios_frame(points)
    shown = frame[frame["phase"] == phase]
    shown = shown.assign(cell=[ratio_cell(row) for row in shown.itertuples()])
    wide = shown.pivot_table(
        index="side", columns="batch", values="cell", aggfunc="first", sort=False
    )
    columns = ("time ÷ auto, batch", *(str(c) for c in wide.columns))
    rows = tuple(
        (f"`{name}`", *("" if pd.isna(cell) else str(cell) for cell in row))
        for name, row in zip(wide.index, wide.to_numpy(), strict=True)
    )
    return Table(columns, rows, columns[1:], note)


def ratio_cell(row: Any) -> str:
    if row.status == "skipped":
        return "is `auto`" if row.verdict == SAME_CODE else "skipped"
    if row.status == "failed":
        return "failed: out of memory" if "out of memory" in row.verdict else "failed"
    if math.isnan(row.low):
        return f"{row.ratio:.3g} (once)"
    return f"{row.ratio:.3f} ({row.low:.3f} … {row.high:.3f})"


def stages_table(profiles: Mapping[str, Mapping[str, Any]], points: Sequence[Measured]) -> Table:
    """Share of one profiled pass by stage, and what the host and a GPU did, per point."""
    rows = []
    for measured in points:
        found = profiles.get(measured.point.id)
        if found is None:
            continue
        p = measured.point
        spent, whole = found["stages_ns"], found["total_ns"]
        shares = [spent[stage] / whole if stage in spent else None for stage in STAGES[:6]]
        rows.append(
            (
                p.phase, str(p.batch), *map(percentage, shares),
                percentage(found["other_ns"] / whole), str(found["operators"]),
                str(found["waiting_operators"]), _mb(found["temporary_peak_bytes"]),
                _count(found["kernels"]), _count(found["synchronisations"]),
                _count(found["copies"]), _share(found["idle_ns"], found["busy_ns"]),
            )
        )  # fmt: skip
    columns = (
        "phase", "batch", *STAGES[:6], "other", "operators", "waits", "temporaries MB", "kernels",
        "syncs", "copies", "GPU idle",
    )  # fmt: skip
    return Table(columns, tuple(rows), columns[1:])


def failures_table(points: Sequence[Measured]) -> Table:
    """Points that failed or were sampled once, and why: a sweep without holes in its memory."""
    rows = tuple((f"`{m.point.id}`", m.status, m.reason) for m in points if m.reason)
    return Table(("point", "status", "why"), rows)


def number(value: float) -> str:
    return "n/a" if math.isnan(value) else significant(value)


def within(low: float, high: float) -> str:
    return "n/a" if math.isnan(low) else f"{significant(low)} … {significant(high)}"


def percentage(share: float | None) -> str:
    return "n/a" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def _batch(value: int | None) -> str:
    return "not reached" if value is None else str(value)


def _mb(value: int | None) -> str:
    return "n/a" if value is None else significant(value / 1e6)


def _count(value: int | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def _share(idle: int | None, busy: int | None) -> str:
    return "n/a" if idle is None or busy is None else percentage(idle / max(1, idle + busy))
