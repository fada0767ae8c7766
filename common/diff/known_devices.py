"""Were two recordings made on different devices, as far as both files say?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def names(summary: Mapping[str, Any]) -> Counter[str]:
    """The devices of one side that have a name."""
    return Counter(str(d["name"]) for d in summary.get("devices", ()) if d.get("name"))


def different_devices(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Why the sides cannot be compared for speed; None when they can or a side does not say."""
    left, right = names(a), names(b)
    if not left or not right or set(left) == set(right):
        return None
    return f"different devices: {_listed(left)} in A, {_listed(right)} in B"


def _listed(devices: Counter[str]) -> str:
    return " and ".join(sorted(devices))
