"""What does the README's table say of a problem whose effect is no ratio of two variants?

    [headline]
    effect = "{apart} → {shared} MiB of pools for seven captured sizes"
    floor = "{share} of the bytes' floor at batch 32"     # optional: "not timed" without it
    figures.apart = 'figure("stack", "hoisted_separate_7")'
    figures.share = '100 * figure("sweep", "decode_of_floor_at_largest")'

Each name in braces is an expression over the first recorded run, in the grammar of the checks in
worklogs; it is worked out when the table is made.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import UsageError


@dataclass(frozen=True)
class Headline:
    effect: str
    floor: str = "not timed"
    figures: Mapping[str, str] = field(default_factory=dict)


def read_headline(document: Mapping[str, Any]) -> Headline | None:
    """Raises UsageError where a name in braces has no expression, or an expression no name."""
    if "headline" not in document:
        return None
    headline = Headline(**document["headline"])
    try:
        named = {
            name
            for text in (headline.effect, headline.floor)
            for _, name, _, _ in string.Formatter().parse(text)
            if name is not None
        }
    except ValueError as error:
        raise UsageError(f"[headline] {error}; write {{NAME}} for each figure") from error
    lost = named ^ set(headline.figures)
    if lost:
        raise UsageError(
            f"[headline] {sorted(lost)[0]!r} is not both in its text, in braces, and under "
            "figures; give both"
        )
    return headline
