"""How is everything of worth recorded on a GPU machine within a time budget, and nothing lost?

The machine's own rates first, then the steps of all problems by priority, each in a process tree of
its own with a time limit. A step that fails, hangs, runs out of memory or is refused is recorded as
that, and the next one goes on. The archive is made anew after every step, so that whatever ends the
recording leaves all that came before. Clocks and power are read, never set.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import PreconditionError, UsageError
from common.experiments.floors_pass import floors_command
from common.experiments.record_plan import (
    RESERVE_SECONDS,
    Planned,
    command,
    limit_s,
)
from common.recording.archive import Packed, pack
from common.recording.environment import without_places
from common.recording.gpu_state import Sampler
from common.recording.process_tree import Ended, run_limited
from common.recording.run_folder import (
    SMALLEST_FREE_BYTES,
    UNFINISHED,
    full_disk_message,
    read_json,
)
from common.recording.session import Session
from common.timing.worker_client import child_command, child_environment

FLOORS_LIMIT_SECONDS = 120.0
SLICE_LIMIT_SECONDS = 120.0
OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|(?:CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED", re.IGNORECASE
)
NOT_PERMITTED = "ERR_NVGPUCTRPERM"
ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)


@dataclass
class Recording:
    """One call of `worklog record`: where it writes, what is left, what it has learnt."""

    session: Session
    device: str
    deadline: float  # of time.monotonic()
    clock_fields: tuple[str, ...]
    archive_folder: Path | None
    largest_archive_bytes: int
    environment: Mapping[str, str]
    is_rehearsal: bool = False
    number: int = 0
    refused: dict[str, str] = field(default_factory=dict)  # tool -> why no further try is made
    packed: Packed | None = None

    def left_s(self) -> float:
        return self.deadline - RESERVE_SECONDS - time.monotonic()

    def say(self, text: str) -> None:
        print(f"record: {text}", file=sys.stderr, flush=True)


def record(recording: Recording, steps: Sequence[Planned]) -> None:
    """Carry out the steps. Raises KeyboardInterrupt or a disk's error only after all is packed."""
    with _stopped_in_order():
        try:
            if not (recording.session.folder / "floors.json").exists():
                _floors(recording)
            for one in steps:
                _one_step(recording, one)
        finally:
            _pack(recording)


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """SIGTERM, which a scheduler sends at its limit, ends a recording as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _floors(recording: Recording) -> None:
    recording.say("measuring this device's copy bandwidth and matrix rates")
    folder = recording.session.folder
    measured = folder / "floors.json.part"
    ended = run_limited(
        floors_command(recording.device), recording.environment, folder / "floors.log",
        min(FLOORS_LIMIT_SECONDS, max(1.0, recording.left_s())), measured,
    )  # fmt: skip
    try:
        json.loads(measured.read_text(encoding="utf-8"))
        measured.replace(folder / "floors.json")
    except (OSError, ValueError):
        # Floors are context: every timed run measures its own again.
        says = f"no floors of this recording: {ended.says}; {reason_in(folder / 'floors.log')}"
        recording.session.note("note", says=says)
        recording.say(says)
    finally:
        measured.unlink(missing_ok=True)


def _one_step(recording: Recording, one: Planned) -> None:
    """One step, with its smaller presets where the larger ones run out of memory."""
    reason = one.reason or next(
        (recording.refused[tool] for tool in one.step.tools if tool in recording.refused), None
    )
    if reason is not None:
        _skip(recording, one, "not possible", reason)
        return
    notices = list(one.notices)
    for preset in one.presets:
        left = recording.left_s()
        if one.expected_s > left:
            why = f"expected to take {one.expected_s:.0f} s, {max(0.0, left):.0f} s are left"
            _skip(recording, one, "not started", why, preset)
            return
        state = _attempt(recording, one, preset, notices)
        _pack(recording)
        if state != "out of memory":
            return
        notices = [*one.notices, f"preset {preset} ran out of memory; this is the next smaller one"]


def _skip(
    recording: Recording, one: Planned, state: str, reason: str, preset: str | None = None
) -> None:
    recording.say(f"{one.name}: {state}: {reason}")
    recording.session.note(
        "skip", problem=one.problem.name, step=one.step.name, proves=one.step.proves,
        state=state, reason=without_places(reason), preset=preset,
    )  # fmt: skip


def _attempt(recording: Recording, one: Planned, preset: str | None, notices: Sequence[str]) -> str:
    """Run the step once; returns its state. Its start and its end are in the journal."""
    session = recording.session
    check_disk(session.folder)
    recording.number += 1
    folder = session.step_folder(recording.number, one.problem.name, one.step.name, preset)
    place = str(folder.relative_to(session.folder))
    argv = command(one, preset, recording.device, folder / "runs")
    limit = limit_s(one.expected_s, recording.left_s(), recording.is_rehearsal)
    shown = " ".join(argv[argv.index("-m") + 1 :] if "-m" in argv else argv[1:])
    recording.say(f"{one.name}{f' ({preset})' if preset else ''}: at most {limit:.0f} s")
    session.note(
        "start", folder=place, problem=one.problem.name, step=one.step.name, preset=preset,
        proves=one.step.proves, run=one.step.run, variants=list(one.variants),
        command=without_places(shown), expected_s=one.expected_s, limit_s=round(limit, 1),
        notices=list(notices),
    )  # fmt: skip
    log = folder / "log.txt"
    try:
        with Sampler(folder / "clocks.csv", recording.clock_fields) as clocks:
            ended = run_limited(argv, recording.environment, log, limit)
    except KeyboardInterrupt:
        session.note("end", folder=place, state="interrupted", reason="the recording was stopped")
        raise
    state, reason = outcome(ended, log, session.runs(place))
    if state == "failed" and reason is not None and NOT_PERMITTED in reason:
        recording.refused |= dict.fromkeys(one.step.tools, reason)
    session.note(
        "end", folder=place, state=state, reason=reason, seconds=round(ended.seconds, 1),
        exit_code=ended.exit_code, left_behind=ended.left_behind, clocks=clocks.summary,
    )  # fmt: skip
    recording.say(f"{one.name}: {state}{f': {reason}' if reason else ''} ({ended.seconds:.0f} s)")
    if slices := _slices(recording, one, folder):
        session.note("end", folder=place, slices=slices)
    return state


def outcome(ended: Ended, log: Path, runs: Sequence[Path]) -> tuple[str, str | None]:
    """(state, why) of a step: by what it left on the disk, not by its exit code alone.

    A run whose claims were refuted ends with 1 and is recorded all the same.
    """
    words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    failures = [text for run in runs for text in _failures(run)]
    whole = any(_is_of_use(run) for run in runs)
    reason = without_places(reason_in(log))
    if ended.timed_out:
        return "timed out", f"{ended.says}; its last words: {reason}"
    if OUT_OF_MEMORY.search("\n".join(failures)) or (not whole and OUT_OF_MEMORY.search(words)):
        found = next((text for text in failures if OUT_OF_MEMORY.search(text)), reason)
        return "out of memory", without_places(found)[:300]
    if whole:
        return "recorded", None if not failures else f"in part: {failures[0][:300]}"
    if ended.exit_code == 0:
        return "started", "it records nothing here" if not runs else reason
    return "failed", f"{ended.says}: {without_places(failures[0])[:300] if failures else reason}"


def _is_of_use(run: Path) -> bool:
    """Whether a run came to its end with something in it: one capture, one profile, one time."""
    if run.name.endswith(UNFINISHED):
        return False
    try:
        manifest = read_json(run / "manifest.json")
        if "captures" in manifest:
            return any(row["state"] == "complete" for row in manifest["captures"])
        broken = set(manifest.get("profile_failures", {})) | set(manifest.get("failures", {}))
        return not broken or broken < set(manifest["variants"])
    except (UsageError, KeyError, TypeError, AttributeError):
        return False


def _failures(run: Path) -> list[str]:
    """What a run's manifest says went wrong for one of its variants or captures."""
    try:
        manifest = read_json(run / "manifest.json")
        tables = [manifest.get("failures", {}), manifest.get("profile_failures", {})]
        found = [f"{name}: {text}" for table in tables for name, text in table.items()]
        return found + [
            f"{row['variant']}, {row['mode']}: {row.get('reason', row['state'])}"
            for row in manifest.get("captures", [])
            if row["state"] != "complete"
        ]
    except (UsageError, AttributeError, KeyError, TypeError):
        return []


def reason_in(log: Path) -> str:
    """The last error that a log states, else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    stated = ERROR.findall(text)
    lines = [line.split("\r")[-1].strip() for line in text.splitlines()]
    last = stated[-1] if stated else next((line for line in reversed(lines) if line), "no words")
    return last[:400]


def _slices(recording: Recording, one: Planned, folder: Path) -> list[str]:
    """Small slices of the profilers' reports below the step's folder; names of those made."""
    capture = one.problem.capture
    interest = [] if capture is None else ["--range", capture.nvtx_range]
    made = []
    for source in sorted((folder / "runs").rglob("*")):
        if source.name.endswith(".sqlite"):
            target = source.with_name(source.stem + ".slice.sqlite.gz")
        elif source.name.endswith((".ncu-rep", "ncu.csv")):
            target = source.with_name(source.stem + ".slice.csv.gz")
        else:
            continue
        if target.exists():  # the report's own, which is more exact than ncu's printed table
            continue
        argv = [*child_command("common.cli"), "slice", str(source), str(target), *interest]
        log = folder / "slices.log"
        left = max(1.0, min(SLICE_LIMIT_SECONDS, recording.left_s()))
        ended = run_limited(argv, recording.environment, log, left)
        if ended.exit_code == 0 and target.exists():
            made.append(str(target.relative_to(folder)))
        elif not source.name.endswith(".ncu-rep") or not source.with_suffix(".csv").exists():
            says = f"no slice of {source.name}: {without_places(reason_in(log))}"
            recording.session.note("note", says=f"{one.name}: {says}")
            recording.say(says)
    return made


def check_disk(folder: Path) -> None:
    """Before a step, not in the middle of it: a full disk ends the recording in order."""
    if shutil.disk_usage(folder).free < SMALLEST_FREE_BYTES:
        raise PreconditionError(full_disk_message(folder))


def _pack(recording: Recording) -> None:
    """Make the archive anew. What goes wrong here is said and costs no evidence."""
    if recording.archive_folder is None:
        return
    try:
        recording.packed = pack(
            recording.session, recording.archive_folder, recording.largest_archive_bytes
        )
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else str(error.strerror)
        recording.say(
            f"the archive could not be written ({what}); the folder {recording.session.folder} "
            "can be imported as it is"
        )


def step_environment(rehearsal: bool) -> dict[str, str]:
    environment = {**child_environment(), "PYTHONUNBUFFERED": "1"}
    environment.setdefault("WORKLOG_INSTALLED", "triton")
    if rehearsal:
        environment["WORKLOG_FLOORS_SECONDS"] = "0.2"
        # Threads that spin for each other on a shared machine would take most of the time.
        environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def exit_code(document: Mapping[str, Any]) -> int:
    """0 if something was recorded and nothing that was tried went wrong."""
    states = [step["state"] for step in document["steps"]]
    bad = {"failed", "timed out", "interrupted", "killed"}
    tried = [state for state in states if state not in ("not possible", "not started")]
    if not tried:
        return PreconditionError.exit_code
    return 1 if bad & set(tried) or "recorded" not in tried else 0


def done_before(document: Mapping[str, Any]) -> list[str]:
    """Steps that need not be recorded again in the same session."""
    return [
        f"{step['problem']}/{step['step']}"
        for step in document["steps"]
        if step["state"] == "recorded"
    ]


def count_of_steps(session: Session) -> int:
    return sum(1 for path in (session.folder / "steps").iterdir() if path.is_dir())
