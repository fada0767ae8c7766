"""One side of a comparison that is a variant of a run: its trace, its samples and its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.diff.sides import RUN, SEPARATOR, Side
from common.errors import UsageError
from common.recording import run_sides
from common.recording.run_folder import Run, open_run
from common.traces.formats import open_and_summarise
from common.traces.model import Trace


def open_run_side(folder: Path, variant: str | None, typed: str) -> Side:
    """The side that a variant of a run is; of its only one where `variant` is None.

    `typed` is how the user named the run. Raises UsageError that says what to type instead.
    """
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
