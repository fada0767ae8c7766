"""What did each metric of a launch become? The figures of interest, and all the others.

A figure is {"a", "b", "delta", "unit"}; None is unknown. Values are JSON numbers: the exact ones
stay in the reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from common.diff.launch_pairs import LaunchPair
from common.traces.ncu import KernelLaunch, MetricsOfInterest, metrics_of_interest
from common.traces.ncu_model import Number

TOP_METRICS = 40
LISTED_NAMES = 60
TOP_OPCODES = 12

UNITS: Mapping[str, str] = {
    "time_ns": "ns",
    "registers_per_thread": "register/thread",
    "instructions": "inst",
    "instructions_per_cycle": "inst/cycle",
    "waves_per_sm": "wave",
}
_SUFFIXES = (("_bytes_per_second", "byte/s"), ("_bytes", "byte"), ("_pct", "%"), ("_hz", "hz"))
# About the machine, the process or the recording, not about what the kernel did.
NOT_THE_KERNELS = re.compile(
    r"^(device__|numa__|profiler__|nvlink__|pmsampling:|smsp__pcsamp_|"
    r"launch__(context_id|device_id|stream_id|function_pcs|uses_|graph_))"
)


def plain(value: Number | None) -> int | float | None:
    return float(value) if isinstance(value, Decimal) else value


def figure(a: Number | None, b: Number | None, unit: str) -> dict[str, Any]:
    delta = None if a is None or b is None else Decimal(b) - Decimal(a)
    return {"a": plain(a), "b": plain(b), "delta": _whole(delta), "unit": unit}


def _whole(value: Decimal | None) -> int | float | None:
    if value is None:
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def dram_bytes(of: MetricsOfInterest) -> Number | None:
    """Read and written, as counted; else the rate times the time, where both were collected."""
    if of.dram_read_bytes is not None and of.dram_write_bytes is not None:
        return Decimal(of.dram_read_bytes) + Decimal(of.dram_write_bytes)
    if of.dram_bytes_per_second is not None and of.time_ns is not None:
        traffic = Decimal(of.dram_bytes_per_second) * Decimal(of.time_ns) / 10**9
        return int(traffic.to_integral_value())
    return None


def figures(a: KernelLaunch | None, b: KernelLaunch | None) -> dict[str, Any]:
    """The metrics of one row of the diff, for a launch of A and what it became in B."""
    left = metrics_of_interest(a) if a is not None else None
    right = metrics_of_interest(b) if b is not None else None
    found: dict[str, Any] = {
        "launch": {"a": a and a.launch_id, "b": b and b.launch_id},
        "grid": {"a": a and a.grid, "b": b and b.grid},
        "block": {"a": a and a.block, "b": b and b.block},
    }
    for name in MetricsOfInterest.__dataclass_fields__:
        if name in ("occupancy_limiter", "instruction_mix", "pipe_utilisation_pct"):
            continue
        found[name] = figure(
            getattr(left, name) if left else None,
            getattr(right, name) if right else None,
            _unit(name),
        )
    found["dram_bytes"] = figure(
        dram_bytes(left) if left else None, dram_bytes(right) if right else None, "byte"
    )
    found["occupancy_limiter"] = {
        "a": left and left.occupancy_limiter,
        "b": right and right.occupancy_limiter,
    }
    found["pipe_utilisation_pct"] = _by_key(
        left.pipe_utilisation_pct if left else None,
        right.pipe_utilisation_pct if right else None,
        "%",
    )
    found["instruction_mix"] = _by_key(
        left.instruction_mix if left else None,
        right.instruction_mix if right else None,
        "inst",
        TOP_OPCODES,
    )
    return found


def _unit(name: str) -> str:
    if name in UNITS:
        return UNITS[name]
    return next((unit for suffix, unit in _SUFFIXES if name.endswith(suffix)), "count")


def _by_key(
    a: Mapping[str, Number] | None, b: Mapping[str, Number] | None, unit: str, top: int = 100
) -> dict[str, Any] | None:
    """Figures by pipe or opcode, the largest change first. None where a side did not collect."""
    if not a and not b:
        return None
    # A part that a side which has such a list does not name is 0 there, else it is unknown.
    zero_a, zero_b = (0 if a else None), (0 if b else None)
    left, right = a or {}, b or {}
    rows = {
        key: figure(left.get(key, zero_a), right.get(key, zero_b), unit)
        for key in left.keys() | right.keys()
    }
    ranked = sorted(rows, key=lambda key: (-abs(rows[key]["delta"] or 0), key))
    return {key: rows[key] for key in ranked[:top]}


def other_metrics(
    a: Sequence[KernelLaunch], b: Sequence[KernelLaunch], pairs: Sequence[LaunchPair]
) -> dict[str, Any]:
    """Every metric that both launches of a pair have, by relative change; what only one side has.

    `relative` is b / a - 1. Metrics that are 0 on one side have no ratio and are listed apart.
    """
    changed: list[dict[str, Any]] = []
    from_zero: list[dict[str, Any]] = []
    compared = equal = rounded = 0
    for pair in pairs:
        if pair.a is None or pair.b is None:
            continue
        left, right = a[pair.a], b[pair.b]
        for name in left.metrics.keys() & right.metrics.keys():
            old, new = left.number(name), right.number(name)
            if old is None or new is None or NOT_THE_KERNELS.match(name):
                continue
            compared += 1
            if old == new:
                equal += 1
                continue
            if abs(Decimal(new) - Decimal(old)) <= _printed(left, name) + _printed(right, name):
                rounded += 1
                continue
            row = {
                "metric": name,
                "kernel": left.base_name,
                "launch": {"a": left.launch_id, "b": right.launch_id},
                **figure(old, new, left.metrics[name].unit),
            }
            if old and new:
                row["relative"] = float(Decimal(new) / Decimal(old) - 1)
                changed.append(row)
            else:
                from_zero.append(row)
    changed.sort(key=lambda row: (-_distance(row["a"], row["b"]), row["metric"], _key(row)))
    from_zero.sort(key=lambda row: (row["metric"], _key(row)))
    names_a = {name for launch in a for name in launch.metrics}
    names_b = {name for launch in b for name in launch.metrics}
    return {
        "compared": compared,
        "equal": equal,
        "within_printed_precision": rounded,
        "changed": len(changed) + len(from_zero),
        "largest_changes": changed[:TOP_METRICS],
        "from_or_to_zero": from_zero[:TOP_METRICS],
        "names_a": len(names_a),
        "names_b": len(names_b),
        "only_a": {"count": len(names_a - names_b), "names": _listed(names_a - names_b)},
        "only_b": {"count": len(names_b - names_a), "names": _listed(names_b - names_a)},
    }


def _printed(launch: KernelLaunch, name: str) -> Decimal:
    """By how much a value may be off because a CSV rounded it: half of its last digit."""
    return (launch.metrics[name].resolution or Decimal(0)) / 2


def _distance(a: float, b: float) -> float:
    """The same for twice and for half: change over the larger of both."""
    return abs(b - a) / max(abs(a), abs(b))


def _key(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["launch"]["a"], row["launch"]["b"]


def _listed(names: set[str]) -> list[str]:
    return sorted(names)[:LISTED_NAMES]
