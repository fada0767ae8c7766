"""What changed between two compiled kernels? Instructions by class, and the resources beside them.

The quantity is static SASS instructions: it adds up exactly over classes and over opcodes, which
registers or occupancy do not. Those stand in `resources`, side by side. There is no verdict about
speed: neither kernel was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.diff.difference import Confidence, Difference, Judgement, Row, Tier
from common.errors import UsageError
from common.traces.compiled_kernel import CompiledKernel
from common.traces.sass import class_of

CHOICES = ("class", "opcode")
NOT_RUN = "neither kernel was run: instructions and resources say nothing of time by themselves"


def diff_compiled(
    a: CompiledKernel,
    b: CompiledKernel,
    summary_a: Mapping[str, Any],
    summary_b: Mapping[str, Any],
    by: str | None = None,
) -> Difference:
    """The difference of two compiled kernels; `by` is class (default) or opcode.

    `extra["resources"]` lists every resource and metric that is a number, with A, B and delta.
    Raises UsageError for an unknown `by`.
    """
    chosen = by or "class"
    if chosen not in CHOICES:
        raise UsageError(f"compiled kernels have no {chosen!r}; choose --by {', '.join(CHOICES)}")
    rows = _opcode_rows(a.instructions, b.instructions)
    if chosen == "class":
        rows = _class_rows(a.by_class(), b.by_class(), rows)
    resources = _numbers(a, b)
    return Difference(
        source="compiled",
        quantity="instructions",
        by=chosen,
        a=summary_a,
        b=summary_b,
        total_a=a.total_instructions,
        total_b=b.total_instructions,
        rows=rows,
        remainders=(),
        gaps=None,
        judgement=_judgement(a, b),
        notes=_notes(a, b, resources),
        warnings=_warnings(a, b),
        extra={"resources": resources, "facts": _changed_facts(a, b)},
    )


def _row(name: str, a: int, b: int, children: tuple[Row, ...] = (), path: str = "") -> Row:
    # Each instruction counts once, so that the count and the quantity are the same thing.
    tier = Tier.EXACT if a and b else Tier.UNMATCHED
    return Row(name, tier, a, b, a, b, path=path or None, children=children)


def _opcode_rows(a: Mapping[str, int], b: Mapping[str, int]) -> tuple[Row, ...]:
    rows = [
        _row(opcode, a.get(opcode, 0), b.get(opcode, 0), path=class_of(opcode))
        for opcode in sorted({*a, *b})
        if a.get(opcode) or b.get(opcode)
    ]
    return tuple(sorted(rows, key=lambda row: (-abs(row.delta), row.name)))


def _class_rows(
    a: Mapping[str, int], b: Mapping[str, int], opcodes: tuple[Row, ...]
) -> tuple[Row, ...]:
    rows = [
        _row(
            name,
            a.get(name, 0),
            b.get(name, 0),
            tuple(row for row in opcodes if class_of(row.name) == name),
        )
        for name in sorted({*a, *b})
        if a.get(name) or b.get(name)
    ]
    return tuple(sorted(rows, key=lambda row: (-abs(row.delta), row.name)))


def _numbers(a: CompiledKernel, b: CompiledKernel) -> list[dict[str, Any]]:
    """Resources, then metrics: all that are numbers (None where one side lacks it)."""
    found = []
    loops = {"loop_instructions": a.loop_instructions}, {"loop_instructions": b.loop_instructions}
    for one, other in ((a.resources, b.resources), loops, (a.metrics, b.metrics)):
        for name in dict.fromkeys((*one, *other)):
            values = one.get(name), other.get(name)
            numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            if not numbers:
                continue
            both = len(numbers) == 2
            found.append(
                {
                    "name": name,
                    "a": values[0],
                    "b": values[1],
                    "delta": numbers[1] - numbers[0] if both else None,
                }
            )
    return found


def _changed_facts(a: CompiledKernel, b: CompiledKernel) -> list[dict[str, Any]]:
    """What was compiled differently: architecture, shape, knobs."""
    one = {"architecture": a.architecture, "kernel": a.kernel, **a.facts}
    other = {"architecture": b.architecture, "kernel": b.kernel, **b.facts}
    return [
        {"name": name, "a": one.get(name), "b": other.get(name)}
        for name in dict.fromkeys((*one, *other))
        if one.get(name) != other.get(name)
    ]


def _judgement(a: CompiledKernel, b: CompiledKernel) -> Judgement:
    same = dict(a.instructions) == dict(b.instructions) and dict(a.resources) == dict(b.resources)
    if same and a.architecture == b.architecture:
        reason = "opcodes, resources and architecture are identical"
        return Judgement("SAME", Confidence.SINGLE, (reason,))
    return Judgement("AMBIGUOUS", Confidence.SINGLE, (NOT_RUN,))


def _notes(
    a: CompiledKernel, b: CompiledKernel, resources: list[dict[str, Any]]
) -> tuple[str, ...]:
    said = {row["name"]: row for row in resources}
    notes = []
    for name, words in (
        ("registers", "registers per thread"),
        ("shared_bytes", "bytes of shared memory per block"),
        ("stack_bytes", "bytes of stack per thread (spills)"),
        ("blocks_per_sm", "blocks per SM"),
    ):
        row = said.get(name)
        if row is not None and row["a"] != row["b"]:
            notes.append(f"{words}: {row['a']} in A, {row['b']} in B.")
    for opcodes, words in (
        (("LDGSTS",), "copies global memory to shared asynchronously (a software pipeline)"),
        (("ATOMG", "ATOM"), "adds to its output by compare-and-swap or returning atomics"),
        (("RED", "REDG"), "adds to its output by reductions that return nothing"),
    ):
        here, there = a.count(*opcodes), b.count(*opcodes)
        if bool(here) != bool(there):
            notes.append(f"Only {'A' if here else 'B'} {words}.")
    return tuple(notes)


def _warnings(a: CompiledKernel, b: CompiledKernel) -> tuple[str, ...]:
    if a.architecture != b.architecture:
        return (
            f"A is for {a.architecture}, B for {b.architecture}: one source, two instruction sets",
        )
    return ()
