"""What is a signature? The mark that a problem leaves in a profiler's file, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One piece of evidence: what was counted and how much of it."""

    what: str
    value: str


@dataclass(frozen=True)
class Signature:
    """A problem that a file shows. `look` is the next action."""

    problem: str
    mark: str  # which of the problem's marks, a stable word for programs
    says: str
    facts: tuple[Fact, ...]
    look: str


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole > 0 else "unknown"
