"""What may stand on one side of a diff? Any readable file, or one variant of a run.

    before.json.gz      a trace, report or snapshot of any known format
    RUN#float8wo        one variant of a run folder: its trace, its samples and its manifest
    RUN                 the same, where the run has a single variant

A file that exists wins over the reading of `#` as a separator, so names with a `#` work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.recording import run_sides
from common.recording.run_folder import Run, open_run
from common.traces.formats import open_and_summarise
from common.traces.model import Trace
from common.traces.side_by_side import begun

SEPARATOR = "#"
RUN = "run"
# A tenth of a second of reading: a gzipped trace of 1 MB unpacks to 20.
WORTH_A_PROCESS_BYTES = 1 << 20


@dataclass(frozen=True)
class Side:
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
        return _open_run_side(whole, None, text) if whole.is_dir() else _open_file(whole)
    for place, variant in _splits(text):
        folder = Path(place)
        if not _exists(folder):
            continue
        if not folder.is_dir():
            raise UsageError(
                f"{place} is a file and has no variants; leave out {SEPARATOR}{variant}"
            )
        return _open_run_side(folder, variant, place)
    raise UsageError(
        f"{text} does not exist; give a profiler's file, or RUN{SEPARATOR}VARIANT for one side of "
        "a run"
    )


def open_sides(
    a: str, b: str, meanwhile: Callable[[Side], None] | None = None
) -> tuple[Side, Side]:
    """Both sides; large files are read at the same time, on two cores. Raises as `open_side`.

    `meanwhile` is called with the side that is read here, while the other one may still be under
    way: the larger one goes to the other process, for this one has more to do.
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
            meanwhile(side)
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
    held = {"trace": "a trace", RUN: "a trace", "ncu": "a report of Nsight Compute"}
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


def _open_run_side(folder: Path, variant: str | None, typed: str) -> Side:
    run = _run_in(folder, typed)
    try:
        return _side_of(run, variant, typed)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder}: its files lack or misuse {error}; take the run again from where it was made"
        ) from error


def _run_in(folder: Path, typed: str) -> Run:
    if (folder / "manifest.json").exists():
        return open_run(folder)
    below = sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    if below:
        raise UsageError(
            f"{folder} holds runs but is none; give one of them, such as "
            f"{_typed(typed)}/{below[-1]}{SEPARATOR}VARIANT"
        )
    raise UsageError(
        f"{folder} is a folder but no run (it has no manifest.json); give a file in it, the folder "
        "of a run, or two folders with a file for each rank"
    )


def _side_of(run: Run, variant: str | None, typed: str) -> Side:
    manifest, checks = run.manifest, run_sides.correctness(run)
    known = list(manifest["variants"])
    usable = [
        name
        for name in known
        if run_sides.state_of(manifest, checks, name)[0] == run_sides.MEASURED
        and run_sides.trace_file(run, name).exists()
    ]
    if not variant:
        if len(known) != 1:
            raise UsageError(f"{typed} is a run of {len(known)} variants; {_type(typed, usable)}")
        variant = known[0]
    state, why = run_sides.state_of(manifest, checks, variant)
    if state == "not run":
        raise UsageError(f"{typed} has no variant {variant}; {_type(typed, usable)}")
    if state == "rejected":
        raise UsageError(
            f"the output of {variant} did not pass its correctness check ({why}), so nothing is "
            f"said about its speed; {_type(typed, usable, variant)}"
        )
    if state != run_sides.MEASURED:
        raise UsageError(f"{variant} is {state} ({why}); {_type(typed, usable, variant)}")
    path = run_sides.trace_file(run, variant)
    if not path.exists():
        failed = run_sides.profile_failure(manifest, variant)
        because = "was not profiled" if failed is None else f"could not be profiled ({failed})"
        raise UsageError(f"{variant} {because} in this run; {_type(typed, usable, variant)}")
    return _with_trace(run, variant, path)


def _with_trace(run: Run, variant: str, path: Path) -> Side:
    found, content, summary = open_and_summarise(path)
    if not isinstance(content, Trace):
        raise UsageError(f"{path} is no trace ({found.says}); record the run again")
    cut = [caution for caution in content.warnings if caution.kind == "truncated"]
    if cut:
        raise UsageError(f"{path} cannot be read to its end ({cut[0]}); record the run again")
    label = f"{run.folder.resolve().name}{SEPARATOR}{variant}"
    series = {
        phase: by_round
        for (of, phase), by_round in run_sides.durations_ns(run).items()
        if of == variant
    }
    return Side(
        label,
        RUN,
        found.name,
        content,
        {**summary, "path": label},
        path,
        manifest=run.manifest,
        samples={phase: tuple(by_round.values()) for phase, by_round in series.items()} or None,
        rounds={phase: tuple(by_round) for phase, by_round in series.items()} or None,
        variant=variant,
        run_folder=run.folder,
    )


def _typed(typed: str) -> str:
    return typed.rstrip("/") or typed


def _type(typed: str, usable: Sequence[str], refused: str | None = None) -> str:
    """The next action: what can be typed instead."""
    choices = [f"{_typed(typed)}{SEPARATOR}{name}" for name in usable]
    if not choices:
        return "it has no trace at all: record one with `worklog run PROBLEM`"
    if refused is not None and len(choices) == 1:
        return f"give {choices[0]}, or record it again with `worklog run PROBLEM`"
    return f"give one of {', '.join(choices)}"
