"""What does it cost to time inside the profiler, as the exercise does?

The exercise's own loop, taken literally (profiler around the timed iterations, shapes and memory
recorded, one wall-clock mean), and the same passes without it, turn by turn on the same inputs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from common.report.results import Results
from common.report.tables import Table, significant
from common.timing.statistics import compare
from problems.moe_batch_scaling.plan import Plan, base_point
from problems.moe_batch_scaling.sides import Opener, OurSide

ITERATIONS = 5  # of the exercise


@dataclass(frozen=True)
class Cost:
    """Seconds per pass of every round, inside the profiler and without it."""

    batch: int
    inside_s: tuple[float, ...]
    outside_s: tuple[float, ...]


def timed_inside(side: OurSide, tokens: torch.Tensor) -> float:
    """The exercise's measurement of one batch: seconds per pass, profiler on."""
    activities = [ProfilerActivity.CPU]
    if side.models.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with (
        torch.no_grad(),
        profile(activities=activities, record_shapes=True, profile_memory=True, with_stack=False),
    ):
        return _loop(side, tokens)


def timed_outside(side: OurSide, tokens: torch.Tensor) -> float:
    with torch.no_grad():
        return _loop(side, tokens)


def _loop(side: OurSide, tokens: torch.Tensor) -> float:
    started = time.time()
    for _ in range(ITERATIONS):
        side.run(tokens)
        if side.models.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.time() - started) / ITERATIONS


def measure_costs(
    open_side: Opener, plan: Plan, rounds: int, say: Callable[[str], None]
) -> list[Cost]:
    """Every batch of the exercise; which of the two goes first changes from round to round."""
    found = []
    for batch in plan.profiling_batches or plan.batches:
        say(f"prefill, batch {batch}")
        side = open_side(base_point(plan, open_side.models.config, "prefill", batch))
        assert isinstance(side, OurSide)
        tokens = side.select(0)
        inside: list[float] = []
        outside: list[float] = []
        timed_inside(side, tokens)  # the profiler's own first start is not what is asked
        for number in range(rounds):
            for first in (number % 2 == 0, number % 2 != 0):
                if first:
                    inside.append(timed_inside(side, tokens))
                else:
                    outside.append(timed_outside(side, tokens))
        found.append(Cost(batch, tuple(inside), tuple(outside)))
    return found


def cost_results(costs: Sequence[Cost], sequence: int, origin: str) -> Results:
    found = Results()
    rows = []
    for cost in costs:
        ratio = compare(cost.outside_s, cost.inside_s, min_rounds=6)
        found_ = ratio.interval
        interval = None if found_ is None else (found_.low, found_.high)
        found.figure(f"profiling_cost_b{cost.batch}", ratio.ratio, "", origin, interval)
        inside, outside = (1e3 * statistics.median(s) for s in (cost.inside_s, cost.outside_s))
        ends = f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else "n/a"
        rows.append(
            (
                str(cost.batch), significant(inside), significant(outside), f"{ratio.ratio:.3f}",
                ends, *(significant(cost.batch / ms * 1e3) for ms in (inside, outside)),
                significant(cost.batch * sequence / outside * 1e3),
            )
        )  # fmt: skip
    columns = (
        "batch", "in the profiler ms", "without ms", "ratio", "95 %", "samples/s in it",
        "samples/s without", "tokens/s without",
    )  # fmt: skip
    note = (
        f"_Prefill of {sequence} tokens, {ITERATIONS} iterations per measurement, as the exercise._"
    )
    found.tables["profiling-cost"] = Table(columns, tuple(rows), columns, note)
    return found
