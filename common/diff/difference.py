"""What did a comparison find? Rows and remainders that add up to the total, and a verdict.

    delta == sum(row.delta) + sum(remainder.delta)        exactly, in integer ns or bytes

Whatever was compared (traces, reports of Nsight Compute, memory snapshots, runs, compiled kernels)
becomes one `Difference`; the pages that show it and the JSON (`worklog.diff/1`) know nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

SCHEMA = "worklog.diff/1"


class Tier(StrEnum):
    """On what evidence two sides of a row were taken for the same thing; best first."""

    EXACT = "exact name"
    NORMALISED = "normalised name"  # template arguments, hashes and addresses aside
    POSITION = "path and position"  # same operator, module or range, at the same place
    GRAPH_NODE = "graph node"  # same node of, or place within, one CUDA graph launch
    UNMATCHED = "unmatched"


class Status(StrEnum):
    BOTH = "both"
    ADDED = "added"
    REMOVED = "removed"


class Confidence(StrEnum):
    INTERVAL = "interval"
    SINGLE = "single capture"


class Row(msgspec.Struct, frozen=True):
    """One group of A and what it became in B, in the unit of the difference's quantity.

    `name_b` is None where both sides have the same name. `interval` is a 95 % interval of `delta`
    per step where steps allow one. `children` are drill-down: they explain, and are not added up.
    """

    name: str
    tier: Tier
    a: int
    b: int
    count_a: int
    count_b: int
    name_b: str | None = None
    path: str | None = None
    interval: tuple[float, float] | None = None
    metrics: Mapping[str, Any] | None = None
    children: tuple[Row, ...] = ()

    @property
    def status(self) -> Status:
        if self.count_a and self.count_b:
            return Status.BOTH
        return Status.ADDED if self.count_b else Status.REMOVED

    @property
    def delta(self) -> int:
        return self.b - self.a

    @property
    def count_effect(self) -> int:
        """What the change of the count alone makes: round((nB - nA) * mean of A), ties to even.

        All of the delta for a row with one side: there is no other side's duration to hold fixed.
        """
        if self.status is not Status.BOTH:
            return self.delta
        whole, rest = divmod((self.count_b - self.count_a) * self.a, self.count_a)
        up = 2 * rest > self.count_a or (2 * rest == self.count_a and whole % 2 == 1)
        return whole + up  # as round(Fraction), which takes most of the time of a large document

    @property
    def duration_effect(self) -> int:
        return self.delta - self.count_effect

    def to_json(self) -> dict[str, Any]:
        effect = self.count_effect
        kept: dict[str, Any] = {"name": self.name}
        if self.name_b is not None:
            kept["name_b"] = self.name_b
        kept |= {
            "tier": str(self.tier),
            "status": str(self.status),
            "a": self.a,
            "b": self.b,
            "delta": self.delta,
            "count_a": self.count_a,
            "count_b": self.count_b,
            "count_effect": effect,
            "duration_effect": self.delta - effect,
        }
        if self.path is not None:
            kept["path"] = self.path
        if self.interval is not None:
            kept["interval"] = list(self.interval)
        if self.metrics is not None:
            kept["metrics"] = dict(self.metrics)
        if self.children:
            kept["children"] = [child.to_json() for child in self.children]
        return kept


class Remainder(msgspec.Struct, frozen=True):
    """What could not be in a row: malformed, out of range or unreadable; `name` says which."""

    name: str
    a: int
    b: int

    @property
    def delta(self) -> int:
        return self.b - self.a

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "a": self.a, "b": self.b, "delta": self.delta}


class GapCause(msgspec.Struct, frozen=True):
    """Idle time of the GPUs for one reason; `children` say after and before what, largest first."""

    cause: str
    a_ns: int
    b_ns: int
    count_a: int
    count_b: int
    children: tuple[GapCause, ...] = ()

    @property
    def delta_ns(self) -> int:
        return self.b_ns - self.a_ns

    def to_json(self) -> dict[str, Any]:
        kept: dict[str, Any] = {
            "cause": self.cause,
            "a_ns": self.a_ns,
            "b_ns": self.b_ns,
            "delta_ns": self.delta_ns,
            "count_a": self.count_a,
            "count_b": self.count_b,
        }
        if self.children:
            kept["children"] = [child.to_json() for child in self.children]
        return kept


class Gaps(msgspec.Struct, frozen=True):
    """Idle time within the devices' spans: a_ns == sum of the causes' a_ns, and so for B."""

    a_ns: int
    b_ns: int
    causes: tuple[GapCause, ...]

    @property
    def delta_ns(self) -> int:
        return self.b_ns - self.a_ns

    def to_json(self) -> dict[str, Any]:
        return {
            "a_ns": self.a_ns,
            "b_ns": self.b_ns,
            "delta_ns": self.delta_ns,
            "causes": [cause.to_json() for cause in self.causes],
        }


class Judgement(msgspec.Struct, frozen=True):
    """The verdict about speed. `evidence` holds the figures it was judged on, ready for JSON.

    verdict: FASTER, SLOWER, SAME, AMBIGUOUS or NOT_COMPARABLE. ratio is B / A of `judged_on`
    ("span per step", "span", ...); above 1 B is slower.
    """

    verdict: str
    confidence: Confidence
    reasons: tuple[str, ...]
    judged_on: str | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None  # of the ratio
    evidence: Mapping[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        return {
            "judged_on": self.judged_on,
            "ratio": self.ratio,
            "interval": None if self.interval is None else list(self.interval),
            **self.evidence,
        }


class Difference(msgspec.Struct, frozen=True):
    """Everything a comparison found. `a` and `b` are the summaries that `worklog show` prints."""

    source: str  # torch, nsys, ncu, memory, compiled, run
    quantity: str  # gpu_time_ns, cpu_time_ns, peak_allocated_bytes, ...
    by: str  # kernel, operator, range, gap, pool, stack, ...
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    total_a: int
    total_b: int
    rows: tuple[Row, ...]
    remainders: tuple[Remainder, ...]
    gaps: Gaps | None
    judgement: Judgement
    notes: tuple[str, ...] = ()  # findings in one sentence each, the most important first
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] = {}  # more keys of the JSON document

    @property
    def delta(self) -> int:
        return self.total_b - self.total_a

    @property
    def residual(self) -> int:
        """What rows and remainders leave unexplained: 0, or the comparison is wrong."""
        rows = sum(row.delta for row in self.rows)
        return self.delta - rows - sum(remainder.delta for remainder in self.remainders)

    def judged(self, judgement: Judgement) -> Difference:
        return replace(self, judgement=judgement)

    def to_json(self) -> dict[str, Any]:
        gaps = self.gaps or Gaps(0, 0, ())
        return {
            "schema": SCHEMA,
            "source": self.source,
            "quantity": self.quantity,
            "by": self.by,
            "a": dict(self.a),
            "b": dict(self.b),
            "total_a": self.total_a,
            "total_b": self.total_b,
            "delta": self.delta,
            "rows": [row.to_json() for row in self.rows],
            "remainders": [remainder.to_json() for remainder in self.remainders],
            "residual": self.residual,
            "gaps": gaps.to_json(),
            "verdict": self.judgement.verdict,
            "confidence": str(self.judgement.confidence),
            "reasons": list(self.judgement.reasons),
            "speed": self.judgement.to_json(),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            **self.extra,
        }
