"""Differences with known answers, small and large, tame and hostile."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from common.diff.difference import (
    Confidence,
    Difference,
    GapCause,
    Gaps,
    Judgement,
    Remainder,
    Row,
    Tier,
)


def row(name: str, a: int, b: int, count_a: int = 1, count_b: int = 1, **more: Any) -> Row:
    tier = Tier.EXACT if count_a and count_b else Tier.UNMATCHED
    return Row(name, more.pop("tier", tier), a, b, count_a, count_b, **more)


def judgement(verdict: str = "AMBIGUOUS", ratio: float | None = None, **more: Any) -> Judgement:
    reasons = more.pop("reasons", ("one capture a side cannot tell",))
    return Judgement(verdict, Confidence.SINGLE, reasons, "span", ratio, **more)


def side(
    path: str, total_ns: int, idle_ns: int, device: str = "GPU", **more: Any
) -> dict[str, Any]:
    """A trace's summary: one device, always busy but for `idle_ns`."""
    return {
        "path": path,
        "format": "a trace",
        "devices": [
            {
                "id": 0,
                "name": device,
                "span_ns": total_ns + idle_ns,
                "busy_ns": total_ns,
                "idle_ns": idle_ns,
            }
        ],
        "gpu_time_ns": total_ns,
        "busy_ns": total_ns,
        "span_ns": total_ns + idle_ns,
        "unlinked_ns": 0,
        "graph_launched_ns": 0,
        "warnings": [],
        **more,
    }


def difference(
    rows: Sequence[Row] = (),
    remainders: Sequence[Remainder] = (),
    idle: tuple[int, int] = (0, 0),
    quantity: str = "gpu_time_ns",
    **more: Any,
) -> Difference:
    """Closes by itself: the totals are the sums of the rows and remainders."""
    totals = tuple(sum(getattr(part, name) for part in (*rows, *remainders)) for name in ("a", "b"))
    time = quantity == "gpu_time_ns"
    a, b = more.pop("a", {}), more.pop("b", {})
    if time:
        a = {**side("a.json", totals[0], idle[0]), **a}
        b = {**side("b.json", totals[1], idle[1]), **b}
    else:
        a = {"path": "a.pickle", "devices": [], quantity: totals[0], "warnings": [], **a}
        b = {"path": "b.pickle", "devices": [], quantity: totals[1], "warnings": [], **b}
    causes = (GapCause("host late", idle[0], idle[1], 7, 3),) if any(idle) else ()
    settings = {
        "source": "torch" if time else "memory",
        "by": "kernel" if time else "pool",
        "gaps": Gaps(*idle, causes) if time else None,
        "judgement": judgement(),
        **more,
    }
    return Difference(
        quantity=quantity,
        a=a,
        b=b,
        total_a=totals[0],
        total_b=totals[1],
        rows=tuple(rows),
        remainders=tuple(remainders),
        **settings,
    )


def large(rows: int, names: int, seed: int = 5, name_length: int = 60) -> Difference:
    """`rows` groups of `names` names, drawn with a seed; some renamed, added or removed."""
    draw = random.Random(seed)
    found = []
    for number in range(rows):
        name = f"kernel_{number % names}_".ljust(name_length, "x")
        a, b = draw.randint(1, 10**6), draw.randint(1, 10**6)
        kind = draw.random()
        path = f"model.layers.{number}.mlp"
        if kind < 0.05:
            found.append(row(name, a, 0, 2, 0, path=path))
        elif kind < 0.1:
            found.append(row(name, 0, b, 0, 3, path=path))
        elif kind < 0.3:
            found.append(row(name, a, b, 1, 2, name_b="new_" + name, tier=Tier.POSITION, path=path))
        else:
            found.append(row(name, a, b, path=path, children=(row("part", a, b),)))
    return difference(found, (Remainder("negative durations", 3, 5),), (900_000, 20_000))
