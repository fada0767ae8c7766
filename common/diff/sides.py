"""What may stand on one side of a diff? Any readable file, or one variant of a run.

    before.json.gz      a trace, report or snapshot of any known format
    RUN#float8wo        one variant of a run folder: its trace, its samples and its manifest
    RUN                 the same, where the run has a single variant

A file that exists wins over the reading of `#` as a separator, so names with a `#` work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from common.errors import UsageError
from common.traces.formats import open_and_summarise
from common.traces.model import Trace
from common.traces.side_by_side import begun

SEPARATOR = "#"
RUN, TRACE = "run", "trace"
# A tenth of a second of reading: a gzipped trace of 1 MB unpacks to 20.
WORTH_A_PROCESS_BYTES = 1 << 20


class Side(msgspec.Struct, frozen=True):
    """One side, opened. `path` and `run_folder` are for comparing, `label` is for showing.

    `samples` has one duration in ns per repetition of each phase, in measured order, and `rounds`
    the round of each: element i of both belong together. None where the side is no run.
    """

    label: str  # the file's name; for a run its folder's name and the variant
    kind: str  # "trace", "ncu", "memory", or "run": a trace with samples
    format: str
    content: Any  # Trace, NcuReport or MemorySnapshot
    summary: Mapping[str, Any]  # as `worklog show --json` prints it
    path: Path
    manifest: Mapping[str, Any] | None = None
    samples: Mapping[str, tuple[int, ...]] | None = None
    rounds: Mapping[str, tuple[int, ...]] | None = None
    variant: str | None = None
    run_folder: Path | None = None
    ready: Any = None  # kernel_rows.Prepared, if its kernels were prepared for a comparison

    @property
    def trace(self) -> Trace:
        """The trace of a side of kind "trace" or "run"; UsageError for any other."""
        if not isinstance(self.content, Trace):
            raise UsageError(f"{self.label} is no trace ({self.format}); give a trace or a run")
        return self.content


def open_side(text: str) -> Side:
    """Open what a user typed. Raises UsageError in one line that says what to type instead."""
    whole = Path(text)
    if _exists(whole):
        return _open_run(whole, None, text) if whole.is_dir() else _open_file(whole)
    for place, variant in _splits(text):
        folder = Path(place)
        if not _exists(folder):
            continue
        if not folder.is_dir():
            raise UsageError(
                f"{place} is a file and has no variants; leave out {SEPARATOR}{variant}"
            )
        return _open_run(folder, variant, place)
    raise UsageError(
        f"{text} does not exist; give a profiler's file, or RUN{SEPARATOR}VARIANT for one side of "
        "a run"
    )


def open_sides(
    a: str, b: str, meanwhile: Callable[[Side], Side] | None = None
) -> tuple[Side, Side]:
    """Both sides; large files are read at the same time, on two cores. Raises as `open_side`.

    `meanwhile` may add to the side that is read here, while the other one may still be under way:
    the larger one goes to the other process, for this one has more to do.
    """
    sizes = _size(a), _size(b)
    here, there = (b, a) if sizes[0] > sizes[1] else (a, b)
    with begun(lambda: open_side(there), min(sizes) > WORTH_A_PROCESS_BYTES) as other:
        try:
            side = open_side(here)
        except UsageError:
            if here is b:
                other()  # of two that cannot be read, the first one is told
            raise
        if meanwhile is not None:
            side = meanwhile(side)
        return (side, other()) if here is a else (other(), side)


def _size(text: str) -> int:
    """Bytes of a file on the disk; 0 for what is none."""
    try:
        return Path(text).stat().st_size
    except (OSError, ValueError):
        return 0


def check_kinds(a: Side, b: Side) -> tuple[str, ...]:
    """Warnings about sides that can be compared; UsageError for two that cannot."""
    of_a, of_b = (_what_it_holds(side) for side in (a, b))
    if of_a != of_b:
        raise UsageError(
            f"{a.label} is {of_a} and {b.label} is {of_b}: these have nothing in common to "
            "compare; give two of one kind"
        )
    if isinstance(a.content, Trace) and a.trace.source != b.trace.source:
        return (
            f"{a.label} was recorded by {a.trace.source} and {b.label} by {b.trace.source}: they "
            "name and delay things differently; record both with one profiler",
        )
    return ()


def _what_it_holds(side: Side) -> str:
    held = {TRACE: "a trace", RUN: "a trace", "ncu": "a report of Nsight Compute"}
    return held.get(side.kind, "a memory snapshot" if side.kind == "memory" else side.kind)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError) as error:  # too long a name, no permission, a NUL
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(path)[:200]} cannot be opened ({reason}); check the path") from None


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """(folder, variant) for every `#`, the last first: both may hold one themselves."""
    at = text.rfind(SEPARATOR)
    while at > 0:
        yield text[:at], text[at + 1 :]
        at = text.rfind(SEPARATOR, 0, at)


def _open_file(path: Path) -> Side:
    found, content, summary = open_and_summarise(path)
    return Side(path.name, found.kind, found.name, content, summary, path)


def _open_run(folder: Path, variant: str | None, typed: str) -> Side:
    from common.diff.run_side import open_run_side  # most sides are files

    return open_run_side(folder, variant, typed)
