"""Where do our measured points stand on the Hierarchical Roofline, of the paper's machine and ours?

A point's intensity is that of its own routing: operations of its tokens over the bytes of the
experts that they touched. Its rate is the experts' operations over the part of the measured latency
that the profile gives to routing and experts. On a machine without a GPU there is one level and no
link, so no P1 and no P2: those are drawn for the paper's L4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.floors.hierarchical_roofline import (
    Level,
    Machine,
    cross_roof_gflop_per_s,
    first_turning_point,
    roof_gflop_per_s,
    second_turning_point,
)
from common.floors.measured import MeasuredFloors
from common.floors.moe_shapes import ffn_work, moe_shape
from common.report.tables import Table, significant
from common.timing.statistics import summarise
from problems.moe_batch_scaling.charts import Chart, Mark, Series
from problems.moe_batch_scaling.points import Measured
from problems.moe_batch_scaling.published import MICRO_BATCH

EXPERT_STAGES = ("router", "dispatch", "experts", "combine")


@dataclass(frozen=True)
class OnRoofline:
    """One measured point of the sweep, its experts only."""

    phase: str
    batch: int
    tokens: int
    intensity: float
    gflop_per_s: float


def level_of(floors: MeasuredFloors) -> Level:
    """This machine's own roof: its best measured read bandwidth and the rate of its best dtype."""
    rate = max(floors.matmul_fp32.best, floors.matmul_bf16.best)
    return Level(floors.device, rate, floors.read.best)


def measured_points(
    points: Sequence[Measured], profiles: Mapping[str, Mapping[str, Any]], flops_per_token: float,
    layers: int,
) -> list[OnRoofline]:  # fmt: skip
    """Those that were measured, profiled, and whose routing is known."""
    found = []
    for measured in points:
        profile = profiles.get(measured.point.id)
        if measured.status != "measured" or profile is None or not measured.touched_bytes:
            continue
        spent = sum(profile["stages_ns"].get(stage, 0) for stage in EXPERT_STAGES)
        share = spent / profile["total_ns"]
        seconds = summarise(measured.samples_ns).median / 1e9 * share
        flops = measured.point.tokens * flops_per_token * layers
        p = measured.point
        found.append(
            OnRoofline(
                p.phase, p.batch, p.tokens, flops / measured.touched_bytes,
                flops / seconds / 1e9 if seconds else math.nan,
            )
        )  # fmt: skip
    return found


def roofline_table(points: Sequence[OnRoofline], level: Level | None) -> Table:
    rows = []
    for p in points:
        roof = None if level is None else roof_gflop_per_s(level, p.intensity)
        rows.append(
            (
                p.phase, str(p.batch), str(p.tokens), significant(p.intensity),
                significant(p.gflop_per_s), "n/a" if roof is None else significant(roof),
                "n/a" if roof is None else f"{100 * p.gflop_per_s / roof:.0f} %",
            )
        )  # fmt: skip
    columns = ("phase", "batch", "tokens", "FLOP/B", "GFLOP/s", "roof GFLOP/s", "of the roof")
    return Table(columns, tuple(rows), columns[1:])


def hrm_chart(machine: Machine, points: Sequence[OnRoofline], own: Level | None) -> Chart:
    """The paper's machine with its three roofs and turning points, our roof and points on it."""
    shape = moe_shape("mixtral-8x7b")
    gpu_intensity = ffn_work(shape, MICRO_BATCH, "moe-lightning").intensity
    left, right = 2.0**-2, 2.0**14

    def roof(name: str, level: Level, dashed: bool = False) -> Series:
        xs = (left, level.peak_tflop_per_s * 1e3 / level.bandwidth_gb_per_s, right)
        reached = tuple(roof_gflop_per_s(level, x) for x in xs)
        return Series(f"roof: {name}", xs, reached, dashed=dashed, markers=False)

    link = (left, roof_gflop_per_s(machine.gpu, gpu_intensity) / machine.link_gb_per_s, right)

    series = [
        roof("GPU memory, GPU", machine.gpu),
        roof("CPU memory, CPU", machine.cpu),
        Series(
            f"cross roof: over the link, μ = {MICRO_BATCH}", link,
            tuple(cross_roof_gflop_per_s(machine, gpu_intensity, x) for x in link), markers=False,
        ),
    ]  # fmt: skip
    if own is not None:
        series.append(roof("this machine, measured", own, dashed=True))
    for phase in ("decode", "prefill"):
        mine = [p for p in points if p.phase == phase]
        if mine:
            series.append(
                Series(
                    f"experts of our {phase}, measured", tuple(p.intensity for p in mine),
                    tuple(p.gflop_per_s for p in mine), line=False,
                )
            )  # fmt: skip
    first = first_turning_point(machine)
    second = second_turning_point(machine, gpu_intensity)
    marks = (
        Mark(first, f"P1 {first:.4g}"), Mark(second, f"P2 {second:.4g}"),
        Mark(3.98, "attention f16"), Mark(15.94, "attention int4"),
    )  # fmt: skip
    return Chart(
        f"Hierarchical roofline: {machine.id}, and our measured points", "operations per byte",
        "GFLOP/s", tuple(series), marks,
        foot="Roofs of the paper's machine: modelled. Points and the dashed roof: measured.",
    )  # fmt: skip
