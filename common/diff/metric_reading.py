"""What changed between two launches of one kernel? One honest sentence from what was collected.

The bounds are those of `ncu_reading`. A figure that a side did not collect is left out; where
nothing that can be said changed, the sentence says that.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from common.diff.metric_changes import dram_bytes
from common.traces.ncu import KernelLaunch, MetricsOfInterest, bound, metrics_of_interest
from common.traces.ncu_model import Number

# Stated guesses: smaller changes than these are not worth a word.
WORTH_RATIO = 1.05
WORTH_POINTS = 5  # of a percentage
WORTH_PIPE_POINTS = 10
MOST_WORDS = 7  # changes named in one sentence

_BOUND_WORDS = {
    "memory": "memory-bound",
    "compute": "compute-bound",
    "balanced": "balanced between compute and memory",
    "latency": "latency-bound",
}
_RATIOS = (
    ("instructions", "instructions"),
    ("shared_bank_conflicts", "shared-memory bank conflicts"),
    ("waves_per_sm", "waves per SM"),
)
_POINTS = (
    ("memory_throughput_pct", "memory throughput"),
    ("dram_throughput_pct", "DRAM throughput"),
    ("sm_throughput_pct", "SM throughput"),
    ("l2_hit_rate_pct", "L2 hit rate"),
    ("l1_hit_rate_pct", "L1 hit rate"),
)


def change_reading(a: KernelLaunch, b: KernelLaunch) -> str:
    """The sentence: what bounds both, then what moved, the telling things first."""
    left, right = metrics_of_interest(a), metrics_of_interest(b)
    if left == right and (a.grid, a.block) == (b.grid, b.block):
        return f"{_capital(_bounds(left, right))}; every figure of interest is the same."
    changes = [*_launch_shape(a, b), *_changes(left, right)]
    spills = _spills(left, right)
    if not changes:
        changes = ["nothing else that was collected moved by more than 5 %"]
    dropped = len(changes) - MOST_WORDS
    more = [f"and {dropped} more"] if dropped > 0 else []
    parts = [*_time(left, right), _bounds(left, right), *changes[:MOST_WORDS], *more, *spills]
    return _capital("; ".join(parts)) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _time(a: MetricsOfInterest, b: MetricsOfInterest) -> Iterator[str]:
    if not a.time_ns or not b.time_ns:
        return
    ratio = float(Decimal(b.time_ns) / Decimal(a.time_ns))
    if ratio >= WORTH_RATIO:
        yield f"{ratio:.2f}× the time"
    elif ratio <= 1 / WORTH_RATIO:
        yield f"{1 / ratio:.2f}× faster"
    elif a.time_ns == b.time_ns:
        yield "same time"
    elif abs(ratio - 1) < 0.0005:
        yield "time within 0.1 %"
    else:
        yield f"time {100 * (ratio - 1):+.1f} %".replace("-", "−")


def _bounds(a: MetricsOfInterest, b: MetricsOfInterest) -> str:
    before, after = bound(a), bound(b)
    if before == after:
        if before == "unknown":
            return "what limits it was not collected"
        return f"{_BOUND_WORDS[before]} in both"
    if "unknown" in (before, after):
        known, side = (after, "B") if before == "unknown" else (before, "A")
        return f"{_BOUND_WORDS[known]} in {side} (not collected in the other)"
    return f"from {_BOUND_WORDS[before]} to {_BOUND_WORDS[after]}"


def _launch_shape(a: KernelLaunch, b: KernelLaunch) -> Iterator[str]:
    for what, old, new in (("grid", a.grid, b.grid), ("block", a.block, b.block)):
        if old and new and old != new:
            yield f"{what} {_dim(old)} → {_dim(new)}"


def _dim(shape: tuple[int, int, int]) -> str:
    return "×".join(str(n) for n in shape)


def _changes(a: MetricsOfInterest, b: MetricsOfInterest) -> Iterator[str]:
    yield from _ratio("DRAM bytes", dram_bytes(a), dram_bytes(b), unchanged=True)
    yield from _occupancy(a, b)
    yield from _exact("registers", a.registers_per_thread, b.registers_per_thread)
    yield from _exact("shared memory per block", _shared(a), _shared(b), " B")
    for field, name in _POINTS:
        yield from _points(name, getattr(a, field), getattr(b, field))
    for field, name in _RATIOS:
        yield from _ratio(name, getattr(a, field), getattr(b, field))
    yield from _pipe(a, b)
    yield from _opcode(a, b)
    yield from _ratio("SM clock", a.sm_clock_hz, b.sm_clock_hz)


def _shared(of: MetricsOfInterest) -> Number | None:
    if of.static_shared_bytes is None or of.dynamic_shared_bytes is None:
        return None
    return Decimal(of.static_shared_bytes) + Decimal(of.dynamic_shared_bytes)


def _ratio(
    name: str, a: Number | None, b: Number | None, *, unchanged: bool = False
) -> Iterator[str]:
    if a is None or b is None:
        return
    if not a or not b:
        # A count of 0 is exact; a rate of 0 may be what a CSV rounded to it.
        if a != b and isinstance(a, int) and isinstance(b, int):
            yield f"{name} {_number(a)} → {_number(b)}"
        return
    ratio = float(Decimal(b) / Decimal(a))
    if ratio >= WORTH_RATIO:
        yield f"{name} {_times(ratio)} more"
    elif ratio <= 1 / WORTH_RATIO:
        yield f"{name} {_times(1 / ratio)} less"
    elif unchanged:
        yield f"{name} unchanged"


def _times(ratio: float) -> str:
    return f"{ratio:.3g}×" if ratio < 1000 else f"{ratio:,.0f}×"


def _number(value: Number) -> str:
    return f"{int(value):,}" if value == int(value) else f"{float(value):,.3g}"


def _exact(name: str, a: Number | None, b: Number | None, unit: str = "") -> Iterator[str]:
    if a is not None and b is not None and a != b:
        yield f"{name} {_number(a)} → {_number(b)}{unit}"


def _points(name: str, a: Number | None, b: Number | None) -> Iterator[str]:
    if a is not None and b is not None and abs(Decimal(b) - Decimal(a)) >= WORTH_POINTS:
        yield f"{name} {float(a):.0f} % → {float(b):.0f} %"


def _occupancy(a: MetricsOfInterest, b: MetricsOfInterest) -> Iterator[str]:
    """Achieved occupancy, or the theoretical one; and its limiter, if that is another one now."""
    if a.occupancy_achieved_pct is not None and b.occupancy_achieved_pct is not None:
        moved = list(_points("occupancy", a.occupancy_achieved_pct, b.occupancy_achieved_pct))
    else:
        old, new = a.occupancy_theoretical_pct, b.occupancy_theoretical_pct
        moved = list(_points("theoretical occupancy", old, new))
    before, after = a.occupancy_limiter, b.occupancy_limiter
    if before is None or after is None or before == after:
        yield from moved
    else:
        text = moved[0] if moved else "occupancy"
        was = f" (was {' and '.join(before)})" if before else " (nothing limited it)"
        now = f"now limited by {' and '.join(after)}{was}" if after else f"no longer limited{was}"
        yield f"{text}, {now}" if moved else f"{text} {now}"


def _pipe(a: MetricsOfInterest, b: MetricsOfInterest) -> Iterator[str]:
    """The pipe whose share of busy cycles moved most."""
    before, after = a.pipe_utilisation_pct, b.pipe_utilisation_pct
    shared = before.keys() & after.keys()
    moved = [(abs(Decimal(after[pipe]) - Decimal(before[pipe])), pipe) for pipe in shared]
    if moved and max(moved)[0] >= WORTH_PIPE_POINTS:
        pipe = max(moved)[1]
        old, new = before[pipe], after[pipe]
        yield f"{pipe} pipe {float(old):.0f} % → {float(new):.0f} % busy"


def _opcode(a: MetricsOfInterest, b: MetricsOfInterest) -> Iterator[str]:
    """The opcode with the largest change, where that is a good part of all instructions."""
    if not a.instruction_mix or not b.instruction_mix:
        return
    left, right = a.instruction_mix, b.instruction_mix
    moved = [
        (abs(Decimal(right.get(op, 0)) - Decimal(left.get(op, 0))), op)
        for op in left.keys() | right.keys()
    ]
    size, opcode = max(moved)
    total = max(sum(map(float, left.values())), sum(map(float, right.values())))
    if size and float(size) >= (WORTH_RATIO - 1) * total:
        yield f"{opcode} {_number(left.get(opcode, 0))} → {_number(right.get(opcode, 0))}"


def _spills(a: MetricsOfInterest, b: MetricsOfInterest) -> Iterator[str]:
    """Register spills of both sides; local memory where only that was counted."""
    before, after = _spilled(a), _spilled(b)
    if before is None or after is None:
        return
    (old, certain), (new, certain_too) = before, after
    name = "register spills" if certain and certain_too else "local memory instructions"
    if not old and not new:
        yield "no register spills"
    elif old == new:
        yield f"{name} unchanged"
    else:
        yield f"{name} {_number(old)} → {_number(new)}"


def _spilled(of: MetricsOfInterest) -> tuple[Number, bool] | None:
    """How often, and whether these are surely spills; None where nothing was collected."""
    if of.spill_loads is not None and of.spill_stores is not None:
        return _plus(of.spill_loads, of.spill_stores), True
    if of.spill_requests is not None:
        return of.spill_requests, True
    if of.local_loads is not None and of.local_stores is not None:
        return _plus(of.local_loads, of.local_stores), False
    return None


def _plus(a: Number, b: Number) -> Number:
    total = Decimal(a) + Decimal(b)
    return int(total) if total == total.to_integral_value() else total
