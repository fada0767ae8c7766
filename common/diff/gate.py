"""Does a difference stay within the bounds that its caller set? What `--fail-on` means.

    slower=5%      the verdict is SLOWER, and by more than 5 % (also written slower=1.05x)
    gpu_time=5%    the total of B is more than 5 % above that of A (also +3ms; peak=+100MB; ...)

A bound that the files say nothing about is an error, never a pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from common.diff.difference import Difference
from common.errors import UsageError

# Bound -> the key of the summaries that it is about; "slower" and "memory" are special.
TOTALS = {
    "gpu_time": "gpu_time_ns",
    "cpu_time": "cpu_time_ns",
    "busy": "busy_ns",
    "idle": "idle_ns",
    "span": "span_ns",
    "peak": "peak_allocated_bytes",
    "reserved": "reserved_bytes",
}
KNOWN = ("slower", *TOTALS, "memory")
_TIME = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9}
_BYTES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip
_NUMBER = re.compile(r"(\+?)(\d{1,15}(?:\.\d{1,9})?)\s?(%|x|×|[A-Za-zµ]{1,3})", re.ASCII)
_EXAMPLES = "e.g. slower=5%, slower=1.05x, gpu_time=+3ms, peak=+100MB"


class Bound(msgspec.Struct, frozen=True):
    """B may be above A by `share` of A, or by `absolute` in ns or bytes; one of them is set."""

    name: str
    text: str  # as it was given
    share: Decimal | None = None
    absolute: Decimal | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What a gate found: any failure means exit code 1."""

    failures: tuple[str, ...]
    warnings: tuple[str, ...]


def parse_bounds(texts: Iterable[str]) -> tuple[Bound, ...]:
    """The bounds of `--fail-on`, each text one or several separated by commas.

    Raises UsageError that lists what is known.
    """
    return tuple(_bound(part.strip()) for text in texts for part in text.split(","))


def _bound(text: str) -> Bound:
    name, equals, value = text.partition("=")
    if name not in KNOWN:
        raise UsageError(f"--fail-on knows no {name!r}; known are {', '.join(KNOWN)}")
    number = _NUMBER.fullmatch(value)
    if not equals or number is None:
        raise UsageError(f"--fail-on {text!r} has no bound that can be read; give {_EXAMPLES}")
    plus, amount, unit = number[1], Decimal(number[2]), number[3]
    if unit == "%":
        return Bound(name, text, share=amount / 100)
    if unit in ("x", "×") and not plus:
        if amount < 1:
            raise UsageError(f"--fail-on {text!r} is below 1x, A itself; give {_EXAMPLES}")
        return Bound(name, text, share=amount - 1)
    units = {} if name == "slower" else _BYTES if _in_bytes(name) else _TIME
    if unit not in units:
        known = ", ".join(("%", "x", *units))
        raise UsageError(f"--fail-on {text!r} has an unknown unit; {name} takes {known}")
    return Bound(name, text, absolute=amount * units[unit])


def _in_bytes(name: str) -> bool:
    return name == "memory" or TOTALS[name].endswith("_bytes")


def evaluate(difference: Difference, bounds: Sequence[Bound], strict: bool = False) -> Outcome:
    """Judge a difference by the bounds. Raises UsageError for a bound on an unknown figure.

    AMBIGUOUS and NOT_COMPARABLE warn, or fail where `strict` (of memory snapshots only where a
    bound is not in bytes); times of sides that cannot be compared are not held against a bound.
    """
    verdict = difference.judgement.verdict
    failures: list[str] = []
    for bound in bounds:
        if bound.name == "slower":
            failures += _slower(difference, bound)
        elif _in_bytes(bound.name) or verdict != "NOT_COMPARABLE":
            failures += _above(difference, bound)
    missing = [str(rank["rank"]) for rank in difference.extra.get("missing_ranks", ())]
    if strict and missing:
        are = "rank {} is" if len(missing) == 1 else "ranks {} are"
        failures.append(f"{are.format(', '.join(missing))} on one side only (--strict)")
    if verdict not in ("AMBIGUOUS", "NOT_COMPARABLE"):
        return Outcome(tuple(failures), ())
    reason = next(iter(difference.judgement.reasons), "no reason given")
    # A snapshot has no speed to be sure about: bounds in bytes alone are judged all the same.
    exact = difference.source == "memory" and verdict == "AMBIGUOUS" and bounds
    if strict and not (exact and all(_in_bytes(bound.name) for bound in bounds)):
        return Outcome((*failures, f"the verdict is {verdict}: {reason} (--strict)"), ())
    left_out = [
        bound.text
        for bound in bounds
        if bound.name == "slower" or (verdict == "NOT_COMPARABLE" and not _in_bytes(bound.name))
    ]
    says = f"{', '.join(left_out)} was not judged, the verdict is {verdict}: {reason}"
    return Outcome(tuple(failures), (says,) if left_out else ())


def _slower(difference: Difference, bound: Bound) -> list[str]:
    judgement = difference.judgement
    if judgement.verdict != "SLOWER":
        return []
    about = judgement.judged_on or "B"
    if judgement.ratio is None:
        return [f"SLOWER by an unknown factor, with a bound of {bound.text}"]
    if bound.share is None or Decimal(judgement.ratio) <= 1 + bound.share:
        return []
    return [f"SLOWER: {about} is {judgement.ratio:.4g} times that of A, beyond {bound.text}"]


def _above(difference: Difference, bound: Bound) -> list[str]:
    a, b = _sides(difference, bound.name)
    allowed = a * bound.share if bound.share is not None else bound.absolute or Decimal(0)
    if b - a <= allowed:
        return []
    unit = "bytes" if _in_bytes(bound.name) else "ns"
    return [f"{bound.name}: {a:,} -> {b:,} {unit} ({b - a:+,}), beyond {bound.text}"]


def _sides(difference: Difference, name: str) -> tuple[int, int]:
    if name == "memory":
        if difference.quantity.endswith("_bytes"):
            return difference.total_a, difference.total_b
    elif TOTALS[name] == difference.quantity:
        return difference.total_a, difference.total_b
    else:
        a, b = (side_total(side, TOTALS[name]) for side in (difference.a, difference.b))
        if a is not None and b is not None:
            return a, b
    raise UsageError(f"--fail-on {name}: these files do not say it; give a bound on another figure")


def side_total(side: Mapping[str, Any], key: str) -> int | None:
    """A whole number of a side's summary, None where it is unknown. Idle time is the devices'."""
    value = side.get(key)
    if key == "idle_ns" and value is None:
        devices = side.get("devices") or ()
        idle = [side_total(device, key) for device in devices if isinstance(device, Mapping)]
        known = [ns for ns in idle if ns is not None]
        return sum(known) if known and len(known) == len(idle) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
