"""Where does more batch stop paying? Knee, plateau and latency wall, by stated definitions.

The three name different batches on the same curve, so all are given, never one:

- knee: the batch where throughput, over log2 of the batch, lies farthest above the straight line
  from the first point to the last ("Kneedle", Satopää et al., 2011, without smoothing).
- latency wall: the first batch whose latency exceeds `wall` times that of the smallest batch.
- plateau: the first batch from which each further step up the sweep gains less than `gain` in
  throughput per doubling.

And the floor of a measured point: the bytes of the experts that its own routing touched.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import UsageError
from common.floors.roofline import Floor, time_floor_ns

WALL, GAIN = 1.5, 1.10


@dataclass(frozen=True)
class BatchPoint:
    """One point of a sweep: `batch` samples took `latency_ms`."""

    batch: int
    latency_ms: float

    @property
    def samples_per_s(self) -> float:
        return self.batch / self.latency_ms * 1e3


@dataclass(frozen=True)
class Turns:
    """Batches at which the curve turns; None where the sweep does not reach that far."""

    knee: int | None
    latency_wall: int | None
    plateau: int | None


def turns(points: Sequence[BatchPoint], wall: float = WALL, gain: float = GAIN) -> Turns:
    """The three turns of a sweep, whose batches must ascend."""
    _check(points)
    return Turns(_knee(points), _latency_wall(points, wall), _plateau(points, gain))


def gains_per_doubling(points: Sequence[BatchPoint]) -> list[float]:
    """Throughput gained by each step, per doubling of the batch: 2 is free batch, 1 is no gain."""
    _check(points)
    return [
        (after.samples_per_s / before.samples_per_s) ** (1 / math.log2(after.batch / before.batch))
        for before, after in itertools.pairwise(points)
    ]


def _knee(points: Sequence[BatchPoint]) -> int | None:
    first, last = points[0], points[-1]
    across = math.log2(last.batch / first.batch)
    rise = last.samples_per_s - first.samples_per_s
    if rise <= 0:
        return None
    above = [
        (p.samples_per_s - first.samples_per_s) / rise - math.log2(p.batch / first.batch) / across
        for p in points
    ]
    best = max(range(len(points)), key=lambda i: above[i])
    # A curve that never rises above the line has no knee.
    return points[best].batch if above[best] > 0 else None


def _latency_wall(points: Sequence[BatchPoint], wall: float) -> int | None:
    limit = wall * points[0].latency_ms
    return next((p.batch for p in points if p.latency_ms > limit), None)


def _plateau(points: Sequence[BatchPoint], gain: float) -> int | None:
    steps = gains_per_doubling(points)
    flat = len(steps)
    while flat and steps[flat - 1] < gain:
        flat -= 1
    return points[flat].batch if flat < len(steps) else None


@dataclass(frozen=True)
class AffineLatency:
    """latency = fixed + per_sample × batch, in ms, by least squares."""

    fixed_ms: float
    per_sample_ms: float

    @property
    def most_samples_per_s(self) -> float:
        """What throughput tends to as the batch grows."""
        return 1e3 / self.per_sample_ms

    @property
    def half_batch(self) -> float:
        """The batch at which half of that is reached."""
        return self.fixed_ms / self.per_sample_ms


def fit_affine(points: Sequence[BatchPoint]) -> AffineLatency:
    _check(points)
    n = len(points)
    mean_x = sum(p.batch for p in points) / n
    mean_y = sum(p.latency_ms for p in points) / n
    spread = sum((p.batch - mean_x) ** 2 for p in points)
    slope = sum((p.batch - mean_x) * (p.latency_ms - mean_y) for p in points) / spread
    return AffineLatency(mean_y - slope * mean_x, slope)


def touched_experts_floor(
    touched_per_layer: Sequence[int],
    expert_bytes: float,
    bandwidth_gb_per_s: float,
    *,
    flops: float = 0,
    rate_tflop_per_s: float | None = None,
) -> Floor:
    """The least time of one pass's expert layers, from the experts its own routing touched."""
    if not touched_per_layer or min(touched_per_layer) < 0:
        raise UsageError("give the number of touched experts of each layer, zero or more")
    moved = sum(touched_per_layer) * expert_bytes
    return time_floor_ns(moved, flops, bandwidth_gb_per_s, rate_tflop_per_s)


def gathered_weight_bytes(
    tokens: int, top_k: int, hidden: int, expert_width: int, weight_bytes: float
) -> float:
    """What `batched_mm` allocates beside everything else: each token's own copy of k experts."""
    if min(tokens, top_k, hidden, expert_width) < 1:
        raise UsageError("tokens, top_k and both widths must be 1 or more; choose such")
    return tokens * top_k * 3.0 * hidden * expert_width * weight_bytes


def _check(points: Sequence[BatchPoint]) -> None:
    batches = [p.batch for p in points]
    if len(points) < 3 or sorted(set(batches)) != batches or batches[0] < 1:
        raise UsageError("a sweep needs 3 or more points with ascending batches; measure more")
    if not all(0 < p.latency_ms < math.inf for p in points):
        raise UsageError("a latency is not above zero; leave out points that failed")
