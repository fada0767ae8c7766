"""What held this kernel back? One honest sentence from what was collected, and the figures for it.

The thresholds are those of ncu's own SpeedOfLight rule, so that both say the same of one report.
Where the deciding metric was not collected the sentence says "cannot tell".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from common.traces.ncu_model import KernelLaunch, Number
from common.traces.ncu_names import CANDIDATES, OCCUPANCY_LIMITS, OPCODES

# Source: SpeedOfLight rule of Nsight Compute. At or above this share of its peak a unit counts as
# the limit; with compute and memory both below it, waiting (latency) is.
BOUND_PCT = 60
# Above this a unit has nothing left to give, whatever the others do.
SATURATED_PCT = 80
# Compute and memory closer than this, in percentage points: neither alone is the limit.
BALANCED_POINTS = 10
# A stated guess: below this part of the theoretical occupancy the loss is worth a word.
LOW_ACHIEVED_SHARE = 0.8
# With less than one wave a part of the GPU has nothing to do. Source: rule LaunchStats.
FULL_WAVES = 1

Bound = Literal["memory", "compute", "balanced", "latency", "unknown"]
PIPE = re.compile(
    r"sm__(?:inst_executed_pipe_(\w+)|pipe_(\w+)_cycles_active)"
    r"\.avg\.pct_of_peak_sustained_(active|elapsed)"
)


@dataclass(frozen=True)
class MetricsOfInterest:
    """The figures of one launch that a diff shows. None: not collected.

    Percentages are 0-100. `occupancy_limiter` names what allows the fewest blocks per SM: () when
    the theoretical occupancy is full, None when the limits were not collected. Spills are what the
    compiler moved to local memory; `local_*` are all local-memory instructions, which are spills or
    arrays indexed at run time (the only thing known before ncu 2025).
    """

    time_ns: Number | None
    dram_read_bytes: Number | None
    dram_write_bytes: Number | None
    dram_bytes_per_second: Number | None
    dram_throughput_pct: Number | None
    memory_throughput_pct: Number | None
    sm_throughput_pct: Number | None
    occupancy_achieved_pct: Number | None
    occupancy_theoretical_pct: Number | None
    occupancy_limiter: tuple[str, ...] | None
    registers_per_thread: Number | None
    static_shared_bytes: Number | None
    dynamic_shared_bytes: Number | None
    waves_per_sm: Number | None
    spill_loads: Number | None
    spill_stores: Number | None
    spill_requests: Number | None
    local_loads: Number | None
    local_stores: Number | None
    instructions: Number | None
    instructions_per_cycle: Number | None
    l1_hit_rate_pct: Number | None
    l2_hit_rate_pct: Number | None
    shared_bank_conflicts: Number | None
    sm_clock_hz: Number | None
    instruction_mix: Mapping[str, Number] | None  # warp instructions by opcode
    pipe_utilisation_pct: Mapping[str, Number]  # busy share of each pipe, what was collected


def metrics_of_interest(launch: KernelLaunch) -> MetricsOfInterest:
    """Pick the figures out of whatever metrics this generation of ncu wrote."""
    found = {name: _first(launch, name) for name in CANDIDATES}
    return MetricsOfInterest(
        time_ns=launch.time_ns,
        occupancy_limiter=_limiter(launch),
        instruction_mix=(launch.instances or {}).get(OPCODES),
        pipe_utilisation_pct=_pipes(launch),
        **found,
    )


def _first(launch: KernelLaunch, question: str) -> Number | None:
    for candidate in CANDIDATES[question]:
        value = launch.number(candidate.name)
        if value is not None:
            return value * candidate.factor
    return None


def _limiter(launch: KernelLaunch) -> tuple[str, ...] | None:
    theoretical = _first(launch, "occupancy_theoretical_pct")
    limits = {
        what: Decimal(value)
        for what, name in OCCUPANCY_LIMITS.items()
        if (value := launch.number(name)) is not None
    }
    if theoretical is not None and theoretical >= 100:
        return ()
    if not limits:
        return None
    least = min(limits.values())
    return tuple(what for what, value in limits.items() if value == least)


def _pipes(launch: KernelLaunch) -> dict[str, Number]:
    """Busy share by pipe. Of active cycles where that is collected, else of elapsed ones."""
    out: dict[str, Number] = {}
    for wanted in ("elapsed", "active"):  # the later one wins
        for name in launch.metrics:
            found = PIPE.fullmatch(name)
            value = launch.number(name) if found and found[3] == wanted else None
            if found and value is not None:
                out[found[1] or found[2]] = value
    return out


def bound(figures: MetricsOfInterest) -> Bound:
    """What limits the kernel, by the thresholds above; "unknown" when the metrics don't decide."""
    sm, memory = figures.sm_throughput_pct, figures.memory_throughput_pct
    dram = figures.dram_throughput_pct
    if sm is not None and memory is not None:
        if sm < BOUND_PCT and memory < BOUND_PCT:
            return "latency"
        if abs(Decimal(sm) - Decimal(memory)) < BALANCED_POINTS:
            return "balanced"
        return "memory" if memory > sm else "compute"
    # Without the whole of the memory system, only what is saturated is certain.
    certain: list[tuple[Number, Bound]] = []
    for share in (memory, dram):
        if share is not None and share >= SATURATED_PCT:
            certain.append((share, "memory"))
    if sm is not None and sm >= SATURATED_PCT:
        certain.append((sm, "compute"))
    if len({what for _, what in certain}) > 1:
        return "balanced"
    return certain[0][1] if certain else "unknown"


def reading(launch: KernelLaunch) -> str:
    """One sentence: what limits the kernel, its occupancy and what limits that, its spills."""
    figures = metrics_of_interest(launch)
    return "; ".join((_bound_text(figures), _occupancy_text(figures), _spill_text(figures))) + "."


def _bound_text(figures: MetricsOfInterest) -> str:
    sm, memory = figures.sm_throughput_pct, figures.memory_throughput_pct
    dram = figures.dram_throughput_pct
    shares = ", ".join(
        f"{name} {_pct(value)}"
        for name, value in (("memory", memory), ("DRAM", dram), ("SMs", sm))
        if value is not None
    )
    match bound(figures):
        case "memory":
            in_dram = dram is not None and (memory is None or memory - dram < BALANCED_POINTS)
            in_caches = dram is not None and not in_dram
            where = " in DRAM" if in_dram else " in the caches, not in DRAM" if in_caches else ""
            return f"Memory-bound{where} ({shares} of peak)"
        case "compute":
            return f"Compute-bound ({shares} of peak)"
        case "balanced":
            return f"Balanced: compute and memory are about equally busy ({shares} of peak)"
        case "latency":
            waves = figures.waves_per_sm
            if waves is not None and waves < FULL_WAVES:
                return (
                    f"Latency-bound: the grid fills only {_share(waves)} of the GPU "
                    f"({shares} of peak)"
                )
            return f"Latency-bound: no unit is busy enough to be the limit ({shares} of peak)"
        case _:
            collected = f"only {shares} of peak were collected" if shares else "nothing collected"
            return f"Cannot tell what limits it: {collected}"


def _occupancy_text(figures: MetricsOfInterest) -> str:
    achieved, possible = figures.occupancy_achieved_pct, figures.occupancy_theoretical_pct
    limiter = figures.occupancy_limiter
    by = f", limited by {' and '.join(limiter)}" if limiter else ""
    if possible is None and achieved is None:
        return f"occupancy not collected{by}"
    if possible is None or achieved is None:
        known = f"at most {_pct(possible)}" if possible is not None else _pct(achieved)
        return f"occupancy {known}{by}"
    below = float(achieved) < LOW_ACHIEVED_SHARE * float(possible)
    word = "only " if below else ""
    return f"occupancy {word}{_pct(achieved)} of at most {_pct(possible)}{by}"


def _spill_text(figures: MetricsOfInterest) -> str:
    loads, stores = figures.spill_loads, figures.spill_stores
    if loads is not None or stores is not None:
        if not loads and not stores:
            return "no register spills"
        return f"register spills: {_count(loads)} loads, {_count(stores)} stores"
    if figures.spill_requests is not None:
        spills = figures.spill_requests
        return f"register spills: {_count(spills)} requests" if spills else "no register spills"
    loads, stores = figures.local_loads, figures.local_stores
    if loads is None and stores is None:
        return "spills not collected"
    if loads == 0 and stores == 0:
        return "no register spills"
    return (
        f"local memory: {_count(loads)} loads, {_count(stores)} stores "
        "(spills, or arrays indexed at run time)"
    )


def _pct(value: Number | None) -> str:
    return "unknown" if value is None else f"{float(value):.0f} %"


def _share(waves: Number) -> str:
    return "less than 1 %" if waves < Decimal("0.01") else f"{100 * float(waves):.0f} %"


def _count(value: Number | None) -> str:
    return "unknown" if value is None else f"{int(value):,}"
