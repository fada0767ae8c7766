"""Changes of a trace that must not matter to a difference, and the difference by name."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from common.diff.difference import Row

Events = list[dict[str, Any]]
Change = Callable[[Events], None]


def by_name(rows: tuple[Row, ...], swapped: bool = False) -> dict[tuple[str, str], int]:
    """Delta by (name in A, name in B); of a comparison with swapped sides as the other sees it."""
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        names = (row.name, row.name_b or row.name)
        found[names[::-1] if swapped else names] += -row.delta if swapped else row.delta
    return dict(found)


def shifted(events: Events) -> None:
    for event in events:
        if "ts" in event:
            event["ts"] += 86_400_000_000


def shuffled(events: Events) -> None:
    random.Random(5).shuffle(events)


def renumbered(events: Events) -> None:
    """Correlations, streams, processes and threads get other numbers, in the same order."""
    for event in events:
        for key in ("pid", "tid"):
            if isinstance(event.get(key), int):
                event[key] = 2 * event[key] + 1000
        args = event.get("args", {})
        for key in ("correlation", "External id"):
            if isinstance(args.get(key), int) and args[key] > 0:
                args[key] = 3 * args[key] + 7
        if isinstance(args.get("stream"), int):
            args["stream"] += 11


def streams_swapped(events: Events) -> None:
    """Each stream under the number of another one."""
    numbers = sorted({e["args"]["stream"] for e in events if "stream" in e.get("args", {})})
    other = dict(zip(numbers, [*numbers[1:], *numbers[:1]], strict=True))
    for event in events:
        if "stream" in event.get("args", {}):
            event["args"]["stream"] = event["tid"] = other[event["args"]["stream"]]
