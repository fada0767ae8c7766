"""What are the two sides of a difference, and in what do their surroundings differ?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.diff.difference import Difference
from common.report.diff_view import clipped


def path_of(side: Mapping[str, Any], most: int = 60) -> str:
    return clipped(str(side.get("path") or "?"), most)


def warnings_of(difference: Difference) -> tuple[str, ...]:
    """The difference's own warnings, then those of each file, each once."""
    found: dict[str, None] = dict.fromkeys(difference.warnings)
    for name, side in (("A", difference.a), ("B", difference.b)):
        for caution in side.get("warnings") or ():
            says = caution.get("says") if isinstance(caution, Mapping) else caution
            if not any(str(says) in known for known in found):
                found[f"{name}: {says}"] = None
    return tuple(found)


def devices_of(side: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a side's devices, sorted; empty where it does not say."""
    devices = side.get("devices")
    rows = devices if isinstance(devices, list | tuple) else ()
    named = (str(row.get("name")) for row in rows if isinstance(row, Mapping) and row.get("name"))
    return tuple(sorted(named))


def fact_differences(difference: Difference) -> tuple[tuple[str, str, str], ...]:
    """(fact, A, B) where the sides' surroundings differ; the devices first."""
    found: list[tuple[str, str, str]] = []
    names = devices_of(difference.a), devices_of(difference.b)
    if set(names[0]) != set(names[1]):
        a_names, b_names = (", ".join(_counted(side)) or "unknown" for side in names)
        found.append(("devices", a_names, b_names))
    a, b = _facts(difference.a), _facts(difference.b)
    for key in dict.fromkeys((*a, *b)):
        if a.get(key) != b.get(key):
            found.append((key.replace("_", " "), a.get(key, "unknown"), b.get(key, "unknown")))
    return tuple(found)


def _counted(names: Sequence[str]) -> list[str]:
    each = dict.fromkeys(names)
    return [f"{names.count(name)} × {name}" if names.count(name) > 1 else name for name in each]


def _facts(side: Mapping[str, Any]) -> dict[str, str]:
    found = {k: str(v) for k, v in side.items() if k != "path" and isinstance(v, str)}
    for key in ("environment", "machine", "versions"):
        inner = side.get(key)
        if isinstance(inner, Mapping):
            found |= {str(k): str(v) for k, v in inner.items() if isinstance(v, str | int | float)}
    return found
