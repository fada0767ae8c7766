"""What should a reader of a memory diff be told first? Findings in one sentence each, a verdict.

A verdict is about speed, and a snapshot says nothing about speed. So it is SAME where peak and
reserved bytes are equal, NOT_COMPARABLE where both sides name different devices, else AMBIGUOUS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.diff.difference import Confidence, Difference, Judgement, Row
from common.diff.known_devices import different_devices
from common.diff.memory_holders import BEFORE

# A stated guess: a holder with less of the change than this does not explain it.
MAIN_SHARE = 0.1
# Stated guesses: from this share on a function explains the change, unless its own stacks move so
# much against each other that the share is an accident.
CLEAR_SHARE = 0.75
MAX_CANCELLED = 1.25


def judge(
    difference: Difference, rows: Sequence[Row], a: Mapping[str, Any], b: Mapping[str, Any]
) -> Judgement:
    """The verdict with the figures that it rests on. `rows` are those by stack."""
    held = difference.extra["reserved"] or {}
    reserved = held.get("a"), held.get("b")
    evidence = {
        "peak_allocated_bytes": {
            "a": difference.total_a,
            "b": difference.total_b,
            "delta": difference.delta,
        },
        "reserved_bytes": {"a": reserved[0], "b": reserved[1]},
    }
    devices = different_devices(a, b)
    changed = sum(bool(row.delta) for row in rows)
    about_speed = "a memory snapshot says nothing about speed; one snapshot per side"
    reasons: tuple[str, ...]
    if devices:
        verdict, reasons = "NOT_COMPARABLE", (devices, about_speed)
    elif difference.delta:
        verdict, reasons = "AMBIGUOUS", ("the peaks differ", about_speed)
    elif None in reserved:
        verdict, reasons = "AMBIGUOUS", ("peaks are equal, reserved bytes unknown", about_speed)
    elif reserved[0] != reserved[1]:
        verdict, reasons = "AMBIGUOUS", ("peaks are equal, reserved bytes differ", about_speed)
    else:
        verdict, reasons = "SAME", ("peak and reserved bytes are equal", about_speed)
        if changed:
            reasons = (*reasons, f"though {changed} rows of the peak differ and cancel out")
    return Judgement(verdict, Confidence.SINGLE, reasons, evidence=evidence)


def notes(difference: Difference, rows: Sequence[Row]) -> tuple[str, ...]:
    """Findings, the most important first. `rows` are those by stack."""
    return tuple(_notes(difference, rows))


def _notes(difference: Difference, rows: Sequence[Row]) -> Iterator[str]:
    delta = difference.delta
    ends = f"{megabytes(difference.total_a)} to {megabytes(difference.total_b)}"
    if not delta and not any(row.delta for row in rows):
        yield f"The peak is the same, {megabytes(difference.total_a)}, held by the same stacks."
    elif not delta:
        yield f"The peak is the same, {megabytes(difference.total_a)}, but other stacks hold it."
    else:
        yield f"Peak {signed(delta)} ({ends}){_main_holder(rows, delta)}."
    yield from _offsets(rows, delta)
    yield from _before(rows)
    yield from _reserved(difference)
    yield from _private(difference)
    yield from _growth(difference)
    yield from _failures(difference)


def _growth(difference: Difference) -> Iterator[str]:
    """The phase in which private pools took most more, or less, from the driver than in A."""
    rows = [
        row
        for row in difference.extra.get("growth") or []
        if row["private"]["a"] is not None and row["private"]["b"] is not None
    ]
    moved = [row for row in rows if row["private"]["delta"]]
    if not moved:
        return
    most = max(moved, key=lambda row: abs(row["private"]["delta"]))
    own = most["private"]
    yield (
        f"Private pools grow otherwise in {len(moved)} of {len(rows)} phases, most in "
        f"{most['name']!r}: {megabytes(own['a'])} in A and {megabytes(own['b'])} in B "
        f"({signed(own['delta'])})."
    )


def _by_site(rows: Sequence[Row]) -> list[tuple[tuple[str, str], int]]:
    """Change by (pool, stack) of B, or of A where B has none; the largest first."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        held = row.metrics or {}
        sums[str(row.path), str(held["stack_b"] or held["stack_a"])] += row.delta
    return sorted(sums.items(), key=lambda item: (-abs(item[1]), item[0]))


def _main_holder(rows: Sequence[Row], delta: int) -> str:
    along = [(site, size) for site, size in _by_site(rows) if size * delta > 0]
    if not along:
        return ""
    (pool, stack), size = along[0]
    share = size / delta
    part = f"{100 * share:.0f} % of it" if share <= 1 else signed(size)
    if stack == BEFORE:
        return f": {part} {BEFORE}, in the {pool}"
    function = _main_function(rows, delta)
    if function and share < CLEAR_SHARE:
        return f": {function}; the largest part, {part}, from {short(stack)} in the {pool}"
    if share < MAIN_SHARE:
        return f": no single stack explains it, the largest is {signed(size)} from {short(stack)}"
    return f": {part} from {short(stack)} in the {pool}"


def _main_function(rows: Sequence[Row], delta: int) -> str | None:
    """The innermost function that most of the change passes through, if there is one."""
    net: Counter[str] = Counter()
    gross: Counter[str] = Counter()
    depths: Counter[str] = Counter()
    for row in rows:
        held = row.metrics or {}
        frames = str(held["stack_b"] or held["stack_a"]).split(" < ")
        for depth, frame in enumerate(frames):
            if ":" in frame and "::" not in frame and frame not in frames[:depth]:
                net[frame] += row.delta
                gross[frame] += abs(row.delta)
                depths[frame] += depth * abs(row.delta)
    clear = [
        (depths[frame] / gross[frame], -gross[frame], frame)
        for frame in net
        if CLEAR_SHARE <= net[frame] / delta <= 1
        and gross[frame] <= MAX_CANCELLED * abs(net[frame])
    ]
    if not clear:
        return None
    frame = min(clear)[2]
    return f"{100 * net[frame] / delta:.0f} % of it from inside {frame}"


def _offsets(rows: Sequence[Row], delta: int) -> Iterator[str]:
    """What moved the other way, where that is a good part of what moved along."""
    along = sum(row.delta for row in rows if row.delta * delta > 0)
    against = [(site, size) for site, size in _by_site(rows) if size * delta < 0]
    total = sum(size for _, size in against)
    if against and abs(total) >= MAIN_SHARE * abs(along):
        (pool, stack), size = against[0]
        yield (
            f"Against that, {signed(total)} elsewhere, most of it ({signed(size)}) from "
            f"{short(stack)} in the {pool}."
        )


def _before(rows: Sequence[Row]) -> Iterator[str]:
    own = [row for row in rows if BEFORE in row.name]
    if not own:
        return
    a, b = sum(row.a for row in own), sum(row.b for row in own)
    change = "the same on both sides" if a == b else f"{signed(b - a)}, to {megabytes(b)}"
    yield (
        f"{megabytes(a)} of A's peak were allocated before its history began (weights, or what "
        f"earlier steps left), so no stack is known for them: {change}."
    )


def _reserved(difference: Difference) -> Iterator[str]:
    held = difference.extra["reserved"]
    if held is None:
        yield "Reserved bytes are unknown: a file is cut short within its segments."
        return
    what = "what the allocator took from the driver, as of the dump"
    if not held["delta"]:
        yield f"Reserved bytes ({what}) are the same, {megabytes(held['a'])}."
        return
    text = f"Reserved bytes ({what}) {signed(held['delta'])}, to {megabytes(held['b'])}"
    if held["delta"] * difference.delta < 0:
        text += ", against the peak of requested bytes"
    yield text + "."


def _private(difference: Difference) -> Iterator[str]:
    kept = difference.extra["private_pools_retained"]
    if kept and (kept["a"] or kept["b"]):
        yield (
            "Private and graph pools retain "
            f"{megabytes(kept['a'])} in A and {megabytes(kept['b'])} in B that nothing uses "
            f"({signed(kept['delta'])}): what CUDA graphs pin."
        )


def _failures(difference: Difference) -> Iterator[str]:
    found = difference.extra["out_of_memory"]
    a, b = found["a"]["count"], found["b"]["count"]
    if a or b:
        yield f"Allocations failed for lack of memory: {a} in A, {b} in B."


def short(stack: str) -> str:
    """The operator and the innermost frames of a label, enough to find it."""
    parts = stack.split(" < ")
    return " < ".join(parts[:3]) + (" …" if len(parts) > 3 else "")


def megabytes(size: int) -> str:
    """10^6 bytes with one decimal; exact bytes where that would say 0."""
    return f"{size / 1e6:,.1f} MB" if abs(size) >= 50_000 else f"{size:,} B"


def signed(size: int) -> str:
    return f"{'+' if size > 0 else '−' if size < 0 else '±'}{megabytes(abs(size))}"
