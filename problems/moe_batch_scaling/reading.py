"""What does a measured sweep say? Its points in, the figures, tables and charts of the worklog out.

Pure: nothing is measured here, so that a recorded run (or a notebook) gives the same again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from common.floors.hrm_machines import machine_by_id
from common.floors.measured import MeasuredFloors
from common.report.results import Results
from common.report.tables import Table, significant
from common.timing.statistics import compare
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_observed import LogitEffect
from problems.moe_batch_scaling.charts import Chart, Mark, Series
from problems.moe_batch_scaling.frames import (
    ONCE,
    base_rows,
    baseline_of,
    factors_table,
    failures_table,
    percentage,
    points_frame,
    ratios_frame,
    scaling_table,
    sides_table,
    stages_table,
    turns_of,
    turns_table,
)
from problems.moe_batch_scaling.hrm import hrm_chart, level_of, measured_points, roofline_table
from problems.moe_batch_scaling.law import coefficients_table, fit_decode, law_table
from problems.moe_batch_scaling.plan import Plan
from problems.moe_batch_scaling.points import PHASES, Measured


@dataclass(frozen=True)
class Reading:
    """A run's points and what is needed to judge them. Floors None: not measured."""

    plan: Plan
    config: MoeConfig
    points: tuple[Measured, ...]
    profiles: Mapping[str, Mapping[str, Any]]
    floors: MeasuredFloors | None
    origin: str
    weight_bytes: int
    last_cache_bytes: int | None

    @property
    def read_gb_per_s(self) -> float | None:
        return None if self.floors is None else self.floors.read.best

    @property
    def expert_bytes(self) -> float:
        return float(self.config.expert_weights() * self.weight_bytes)

    @property
    def flops_per_token(self) -> float:
        """Operations of one token's experts in one layer."""
        return 2.0 * self.config.expert_weights() * self.config.top_k

    @property
    def expert_layers(self) -> int:
        return sum(count > 0 for count in self.config.experts)

    @property
    def frame(self) -> pd.DataFrame:
        return points_frame(self.points, self.read_gb_per_s)

    def base(self, phase: str, law: bool = False) -> pd.DataFrame:
        """The base of the sweep; with `law` also the batches that only the law needs."""
        return base_rows(self.frame, phase, None if law else self.plan.batches)


def sweep_results(found: Reading) -> Results:
    results = Results()
    bases = {phase: found.base(phase) for phase in PHASES}
    for phase, base in bases.items():
        if base.empty:
            continue
        results.tables[f"scaling-{phase}"] = scaling_table(base, machine_note(found))
        first, last = base.iloc[0], base.iloc[-1]
        gain = float(last["samples_per_s"] / first["samples_per_s"])
        results.figure(f"{phase}_throughput_gain", gain, "", found.origin)
        results.figure(
            f"{phase}_latency_gain",
            float(last["latency_ms"] / first["latency_ms"]),
            "",
            found.origin,
        )
        results.figure(
            f"{phase}_widest_half_width", float(base["half_width"].max()), "", found.origin
        )
        results.figure(f"{phase}_of_floor_at_largest", _known(last["of_floor"]), "", found.origin)
        turned = turns_of(base)
        for name in ("knee", "latency_wall", "plateau"):
            value = None if turned is None else getattr(turned, name)
            results.figure(f"{phase}_{name}", value, "batch", found.origin)
        results.charts |= batch_charts(found, phase, base)
    results.tables["turns"] = turns_table({k: v for k, v in bases.items() if not v.empty})
    results.tables["factors"] = factors_table(
        found.points, "_Time of the pass with one factor changed, over the base's at the same "
        "batch, by interleaved rounds; 95 % intervals in brackets._",
    )  # fmt: skip
    factor_figures(found, results)
    planned = [m for m in found.points if m.point.batch in found.plan.batches]
    results.tables["stages"] = stages_table(found.profiles, planned)
    results.tables["failures"] = failures_table(found.points)
    results.figure(
        "failed_points", sum(m.status == "failed" for m in found.points), "", found.origin
    )
    law_results(found, results)
    hrm_results(found, results)
    return results


def machine_note(found: Reading) -> str:
    if found.floors is None:
        return "_The machine's bandwidth was not measured in this run: no floors._"
    floors = found.floors
    others = floors.others_cpu_share
    busy = "" if others is None else f", {100 * others:.0f} % of its CPU time taken by others"
    return (
        f"_Floor: bytes of the experts that the point's own routing touched, at the "
        f"{floors.read.best:.1f} GB/s that this machine read in the same run{busy}._"
    )


def batch_charts(found: Reading, phase: str, base: pd.DataFrame) -> dict[str, str]:
    """Latency with its floor, and throughput, against batch; knees marked."""
    x = tuple(float(b) for b in base["batch"])

    def column(name: str) -> tuple[float, ...]:
        return tuple(float(v) for v in base[name])

    turned = turns_of(base)
    marks = []
    for name in ("knee", "latency_wall", "plateau") if turned else ():
        value = getattr(turned, name)
        if value is not None:
            marks.append(Mark(float(value), name.replace("_", " ")))
    latency = Series(
        f"{phase} latency", x, column("latency_ms"), column("low_ms"), column("high_ms")
    )
    floor = Series("floor of the touched experts", x, column("floor_ms"), dashed=True)
    slow, fast = (
        tuple(b / ms * 1e3 for b, ms in zip(x, column(name), strict=True))
        for name in ("high_ms", "low_ms")
    )
    speed = Series(f"{phase} throughput", x, column("samples_per_s"), slow, fast)
    foot = f"{found.origin}; median and 95 % interval"
    return {
        f"latency-{phase}": Chart(
            f"Latency of a {phase} against batch", "batch", "ms", (latency, floor), tuple(marks),
            foot=foot, x_ticks=x,
        ).svg(),
        f"throughput-{phase}": Chart(
            f"Throughput of a {phase} against batch", "batch", "samples/s", (speed,), tuple(marks),
            foot=foot, x_ticks=x,
        ).svg(),
    }  # fmt: skip


def factor_figures(found: Reading, results: Results) -> None:
    """The ratio of every factor at every batch, e.g. `decode_b8_top-k_1`."""
    for row in ratios_frame(found.points).to_dict("records"):
        if row["status"] != "measured" or math.isnan(row["ratio"]):
            continue
        name = f"{row['phase']}_b{row['batch']}_{row['changed'].replace(' ', '_')}"
        ends = None if math.isnan(row["low"]) else (row["low"], row["high"])
        results.figure(name, row["ratio"], "", found.origin, ends)


def law_results(found: Reading, results: Results) -> None:
    base = found.base("decode", law=True)
    fit = fit_decode(base) if not base.empty else None
    experts, top_k = max(found.config.experts), found.config.top_k
    layer = found.expert_bytes * experts
    larger = None if found.last_cache_bytes is None else layer / found.last_cache_bytes
    results.figure("layer_experts_over_last_cache", larger, "", "counted")
    if fit is None:
        return
    results.figure("law_mean_error", fit.law.mean_error, "", found.origin)
    results.figure("law_max_error", fit.law.max_error, "", found.origin)
    apart = [abs(error) for error in fit.left_out_errors()]
    results.figure("law_left_out_mean_error", sum(apart) / len(apart), "", found.origin)
    results.figure("law_left_out_max_error", max(apart), "", found.origin)
    floors = found.floors
    read = rate = None
    if floors is not None:
        own = floors.matmul_fp32 if found.plan.dtype == "float32" else floors.matmul_bf16
        read, rate = floors.read.best, own.best
    eta = read and fit.law.bandwidth_share(found.expert_layers * found.expert_bytes, read)
    results.figure("law_eta", eta or None, "", found.origin)
    results.tables["law"] = law_table(fit, experts, top_k)
    results.tables["law-coefficients"] = coefficients_table(
        fit, found.expert_layers, found.expert_bytes, found.flops_per_token, read, rate, experts,
        top_k, found.weight_bytes,
    )  # fmt: skip
    tokens = tuple(p.tokens for p in fit.points)
    measured = Series("decode step, measured", tokens, tuple(p.time_us / 1e3 for p in fit.points))
    law = Series(
        "active-expert law, fitted", tokens,
        tuple(fit.law.time_us(p.tokens, p.active) / 1e3 for p in fit.points), dashed=True,
        markers=False,
    )  # fmt: skip
    results.charts["law"] = Chart(
        "Decode step against tokens, and the fitted law", "tokens per step", "ms", (measured, law),
        foot=f"{found.origin}; mean error {100 * fit.law.mean_error:.1f} %, largest "
        f"{100 * fit.law.max_error:.1f} %", x_ticks=tokens,
    ).svg()  # fmt: skip


def hrm_results(found: Reading, results: Results) -> None:
    level = None if found.floors is None else level_of(found.floors)
    base = [m for m in found.points if m is not None and m.point.routing == "router"]
    own = measured_points(base, found.profiles, found.flops_per_token, found.expert_layers)
    results.tables["roofline"] = roofline_table(own, level)
    results.charts["hrm"] = hrm_chart(machine_by_id("l4-figures"), own, level).svg()


def numerics_table(
    rows: Sequence[tuple[int, str, LogitEffect, float | None]],
) -> Table:
    cells = tuple(
        (
            str(top_k), weights, "" if stored is None else f"{stored:.3f}",
            significant(effect.relative_error), percentage(effect.same_first_choice),
            significant(effect.divergence_nats),
        )
        for top_k, weights, effect, stored in rows
    )  # fmt: skip
    columns = (
        "top-k", "experts stored as", "bytes per expert weight", "relative error of the logits",
        "same first choice", "divergence nats",
    )  # fmt: skip
    note = "_Beside the model as it is, at every position of one prefill; random weights._"
    return Table(columns, cells, columns[2:], note)


def sides_results(found: Reading) -> Results:
    """Our default beside every backend and Hugging Face's two ways, at every batch."""
    results = Results()
    widest: list[float] = []
    for phase in PHASES:
        results.tables[f"sides-{phase}"] = sides_table(
            found.points, phase, "_Time over that of `auto`, in interleaved rounds on one set of "
            "weights: above 1, `auto` is faster. Medians of the ratios within a round, 95 % "
            "intervals in brackets; (once): a side more than three times slower, sampled once._",
        )  # fmt: skip
        widest += share_results(found, phase, results)
    results.figure("widest_half_width", max(widest, default=None), "", found.origin)
    results.tables["failures"] = failures_table(found.points)
    results.charts |= sides_charts(found.frame, found)
    return results


def share_results(found: Reading, phase: str, results: Results) -> list[float]:
    """Throughput of `auto` over that of the best other side, at each batch and at the worst.

    Judged on ratios within rounds. Returns the half widths of their intervals.
    """
    rows, worst, half_widths = [], None, []
    for batch in found.plan.batches:
        members = [m for m in found.points if m.group == f"{phase}-b{batch}"]
        best = best_other(members)
        if best is None:
            continue
        side, share, low, high, rounds = best
        half_widths.append(math.log(high / low) / 2 if high > low else math.inf)
        stopped = next((m.stopped for m in members if m.baseline), "")
        results.figure(f"share_{phase}_b{batch}", share, "", found.origin, (low, high))
        rows.append(
            (
                str(batch), f"`{side}`", f"{share:.3f}", f"{low:.3f} … {high:.3f}", str(rounds),
                stopped.partition(":")[0] or "n/a",
            )
        )  # fmt: skip
        if worst is None or share < worst[0]:
            worst = (share, low, high)
    if worst is not None:
        results.figure(f"worst_share_{phase}", worst[0], "", found.origin, worst[1:])
    columns = (
        "batch", "best other side", "throughput of `auto` ÷ its", "95 %", "rounds",
        "sampling ended",
    )  # fmt: skip
    results.tables[f"shares-{phase}"] = Table(columns, tuple(rows), columns[2:5])
    return [width for width in half_widths if math.isfinite(width)]


def best_other(members: Sequence[Measured]) -> tuple[str, float, float, float, int] | None:
    """(side, auto's throughput ÷ its, interval, rounds) of the fastest side beside `auto`."""
    base = baseline_of(members)
    if base is None:
        return None
    ours = dict(zip(base.rounds, base.samples_ns, strict=True))
    found = []
    for other in members:
        if other is base or other.status != "measured" or other.reason.startswith(ONCE):
            continue
        theirs = dict(zip(other.rounds, other.samples_ns, strict=True))
        shared = sorted(ours.keys() & theirs.keys())
        ratio = compare([ours[r] for r in shared], [theirs[r] for r in shared])
        ends = ratio.interval
        low, high = (ends.low, ends.high) if ends else (ratio.ratio, ratio.ratio)
        found.append((other.point.side, ratio.ratio, low, high, len(shared)))
    return min(found, key=lambda row: row[1]) if found else None


def sides_charts(frame: pd.DataFrame, found: Reading) -> dict[str, str]:
    charts = {}
    for phase in PHASES:
        series = []
        for side in dict.fromkeys(frame["side"]):
            rows = frame[(frame["phase"] == phase) & (frame["side"] == side)].sort_values("batch")
            rows = rows[rows["status"] == "measured"]
            series.append(
                Series(
                    str(side), tuple(map(float, rows["batch"])),
                    tuple(map(float, rows["samples_per_s"])), dashed=str(side).startswith("hf-"),
                )
            )  # fmt: skip
        charts[f"sides-{phase}"] = Chart(
            f"Throughput of a {phase}: every backend", "batch", "samples/s", tuple(series),
            foot=found.origin, x_ticks=tuple(map(float, found.plan.batches)),
        ).svg()  # fmt: skip
    return charts


def _known(value: float) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
