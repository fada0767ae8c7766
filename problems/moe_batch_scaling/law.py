"""Does the active-expert law hold here? Fitted to the measured decode steps of a sweep.

t = c0 + active · w / (η B) + flops / (φ P), with the experts that were really touched, summed over
the layers, and the model's rates measured in the same run. One token is left out: its experts fit
a last-level cache, where the law's bandwidth is another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from common.floors.active_experts import (
    ActiveLaw,
    TimedBatch,
    compute_turn_tokens,
    expected_active,
    fit_active_law,
)
from common.report.tables import Table, significant
from problems.moe_batch_scaling.frames import number, percentage

LEAST_TOKENS = 2


@dataclass(frozen=True)
class LawFit:
    """The law and the points that it was fitted to, largest errors and all."""

    law: ActiveLaw
    points: tuple[TimedBatch, ...]

    def errors(self) -> list[float]:
        return [self.law.time_us(p.tokens, p.active) / p.time_us - 1 for p in self.points]

    def left_out_errors(self) -> list[float]:
        """Of each point, by the law fitted to the others: a fit can bend to a point."""
        found = []
        for index, point in enumerate(self.points):
            others = fit_active_law((*self.points[:index], *self.points[index + 1 :]))
            found.append(others.time_us(point.tokens, point.active) / point.time_us - 1)
        return found


def decode_points(base: pd.DataFrame) -> list[TimedBatch]:
    """Decode steps from two tokens on; `active` is the mean of the layers' distinct experts."""
    kept = base[(base["tokens"] >= LEAST_TOKENS) & base["touched"].notna()]
    return [
        TimedBatch(float(tokens), float(active), float(ms) * 1e3)
        for tokens, active, ms in zip(
            kept["tokens"], kept["touched"], kept["latency_ms"], strict=True
        )
    ]


def fit_decode(base: pd.DataFrame) -> LawFit | None:
    """None where there are fewer points than the law has coefficients, and one to spare."""
    points = decode_points(base)
    return LawFit(fit_active_law(points), tuple(points)) if len(points) >= 4 else None


def law_table(fit: LawFit, experts: int, top_k: int) -> Table:
    """Measured and modelled time of each decode step, and how many experts the formula expects."""
    rows = [
        (
            f"{p.tokens:g}", number(p.active), number(expected_active(experts, top_k, p.tokens)),
            number(p.time_us / 1e3), number(fit.law.time_us(p.tokens, p.active) / 1e3),
            f"{100 * error:+.1f} %",
        )
        for p, error in zip(fit.points, fit.errors(), strict=True)
    ]  # fmt: skip
    columns = (
        "tokens", "experts touched per layer", "expected, uniform", "measured ms",
        "law ms", "error",
    )  # fmt: skip
    note = (
        f"_t = {number(fit.law.fixed_us)} µs + {number(fit.law.per_active_us)} µs × experts + "
        f"{number(fit.law.per_token_us)} µs × tokens; mean error "
        f"{percentage(fit.law.mean_error)}, largest {percentage(fit.law.max_error)}._"
    )
    return Table(columns, tuple(rows), columns, note)


def coefficients_table(
    fit: LawFit, layers: int, expert_bytes: float, flops_per_token: float,
    read_gb_per_s: float | None, rate_tflop_per_s: float | None, experts: int, top_k: int,
    weight_bytes: float,
) -> Table:  # fmt: skip
    """What the coefficients mean: shares of the machine's own rates, and the turn to compute."""
    rows = [
        (
            "fixed per step",
            f"{significant(fit.law.fixed_us / 1e3)} ms",
            "launches, attention, logits",
        )
    ]
    eta = read_gb_per_s and fit.law.bandwidth_share(layers * expert_bytes, read_gb_per_s)
    phi = rate_tflop_per_s and fit.law.rate_share(layers * flops_per_token, rate_tflop_per_s)
    rows.append(
        ("η, share of the read bandwidth", _share(eta), "at which touched experts are read")
    )
    rows.append(("φ, share of the dtype's rate", _share(phi), "at which their products are done"))
    if read_gb_per_s and rate_tflop_per_s:
        turn = compute_turn_tokens(
            experts, top_k, weight_bytes, rate_tflop_per_s * 1e3 / read_gb_per_s
        )
        rows.append(
            ("T*, turn to compute", f"{turn:.0f} tokens", "(E/k) (b/2) (P/B) with measured P and B")
        )
    return Table(("coefficient", "value", "meaning"), tuple(rows), ("value",))


def _share(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"
