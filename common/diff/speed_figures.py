"""What do both sides amount to, and do GPU time and the span tell the same story?

A GPU that is idle half of the time may do more work in less time: GPU time and the span can point
opposite ways. Then a sentence says so, whatever the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.diff.difference import Judgement
from common.diff.sides import Side
from common.diff.steps import host_extent
from common.timing.statistics import Verdict

SINGLE_CAPTURE_FACTOR = 1.5
"""What two single captures must differ by; the largest difference between two reruns of equal code
that we know of is 1.23 (the Switch pair of the test data)."""

PER_STEP = "span per step"

MOVED = 0.01
"""Relative change of GPU time or span from which a contradiction between them is worth a line."""

STILL = 0.02  # a change of the span below this is none ...
CLEAR = 0.05  # ... beside a change of GPU time above this


def beyond_factor(ratio: float) -> Verdict:
    if ratio > SINGLE_CAPTURE_FACTOR:
        return Verdict.SLOWER
    return Verdict.FASTER if ratio < 1 / SINGLE_CAPTURE_FACTOR else Verdict.AMBIGUOUS


def figures_of(a: Side, b: Side) -> dict[str, Any]:
    """The totals of both traces with their ratios; None where a side has none."""
    on_gpu = a.trace.has_gpu_events or b.trace.has_gpu_events

    def gpu(key: str) -> Callable[[Side], int | None]:
        return lambda side: int(side.summary[key]) if side.trace.has_gpu_events else None

    def idle(side: Side) -> int | None:
        devices = side.summary["devices"]
        return sum(device["idle_ns"] for device in devices) if devices else None

    def cpu(side: Side) -> int | None:
        return side.summary.get("cpu_time_ns")

    return {
        "gpu_time_ns": _pair(a, b, gpu("gpu_time_ns")),
        "span_ns": _pair(a, b, gpu("span_ns") if on_gpu else _host_span),
        "busy_ns": _pair(a, b, gpu("busy_ns")),
        "idle_ns": _pair(a, b, idle),
        "cpu_time_ns": _pair(a, b, cpu),
        "span_of": "GPU work" if on_gpu else "operators on the host",
    }


def _host_span(side: Side) -> int | None:
    extent = host_extent(side.trace)
    return None if extent is None else extent[1] - extent[0]


def _pair(a: Side, b: Side, figure: Callable[[Side], int | None]) -> dict[str, Any]:
    of_a, of_b = figure(a), figure(b)
    ratio = of_b / of_a if of_a and of_b else None
    return {"a": of_a, "b": of_b, "ratio": ratio}


def contradictions(judged: Judgement, figures: Mapping[str, Any]) -> list[str]:
    """A line where GPU time and the span, or the steps and the span, do not move together."""
    gpu, span = figures["gpu_time_ns"]["ratio"], figures["span_ns"]["ratio"]
    steps, what = judged.evidence.get("steps"), "the span"
    found: list[str] = []
    if steps and judged.judged_on == PER_STEP and judged.ratio is not None:
        scale = steps["recorded_a"] / steps["recorded_b"]
        gpu = None if gpu is None else gpu * scale
        if span is not None and _apart(judged.ratio, span * scale):
            found.append(
                f"the span of the whole capture, by the number of steps, changes by "
                f"{span * scale - 1:+.1%}, the typical step by {judged.ratio - 1:+.1%}: some of "
                "the difference is outside the steps, or in a few of them"
            )
        span, what = judged.ratio, "the span per step"
    if gpu is None or span is None:
        return found
    gpu_change, change = gpu - 1, span - 1
    up = "up" if gpu_change > 0 else "down"
    if gpu_change * change < 0 and min(abs(gpu_change), abs(change)) >= MOVED:
        falls = "falls" if change < 0 else "rises"
        return found + [
            f"GPU time is {up} {abs(gpu_change):.1%} while {what} {falls} {abs(change):.1%}: "
            "the two point opposite ways, idle time of the GPU makes the difference"
        ]
    if abs(change) < STILL and abs(gpu_change) >= CLEAR:
        return found + [
            f"GPU time is {up} {abs(gpu_change):.1%} while {what} stays ({change:+.1%}): the time "
            f"that kernels {'saved became' if gpu_change < 0 else 'added filled'} idle time of the "
            "GPU"
        ]
    return found


def _apart(one: float, other: float) -> bool:
    """Two ratios of which one says slower and the other faster, both clearly."""
    return (one - 1) * (other - 1) < 0 and min(abs(one - 1), abs(other - 1)) >= CLEAR
