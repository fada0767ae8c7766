"""What does one call of `worklog record` do? Looks at the machine, plans, records, sums up."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import __version__
from common.contract.problem import Problem, load_problem, problem_names, root
from common.errors import PreconditionError, UsageError
from common.experiments import record as recorder
from common.experiments.manifest import prediction_seals
from common.experiments.record_plan import Place, Planned, only, plan, projected
from common.experiments.request import choose_device, device_bytes
from common.recording.environment import (
    Machine,
    device_slug,
    machine_facts,
    package_version,
    read_machine,
    revision,
)
from common.recording.gpu_state import known_fields
from common.recording.session import Session, open_session
from common.recording.tools import INSTALL, find_tool
from common.report.tables import Table

VERSIONS = ("torch", "triton", "numpy", "msgspec", "nvtx", "safetensors")


def run(arguments: argparse.Namespace) -> int:
    """Record as the command line says; returns its exit code."""
    started = time.monotonic()
    if arguments.out is not None and not arguments.out.name:
        raise UsageError("--out is empty or names no folder; give a folder")
    problems = [load_problem(name) for name in arguments.problems or problem_names()]
    machine = read_machine()
    place = look(machine, arguments.rehearse)
    steps = plan(problems, place)
    if not steps:
        raise UsageError(
            "no problem here has [[record]] steps; add them (see common/contract/record.py)"
        )
    if arguments.dry_run:
        print(_plan_text(steps, arguments.budget))
        return 0
    if place.device == "cpu" and not arguments.rehearse:
        raise PreconditionError(
            "nothing can be recorded without an NVIDIA GPU that torch can use; on this machine "
            "use worklog record --rehearse"
        )
    out = (arguments.out or root() / "results" / "record").absolute()
    session, done = _session(out, arguments, machine, place, problems)
    steps = only(steps, done)
    for one, fate in projected(steps, arguments.budget):
        print(f"plan: {one.name} ({one.expected_s:.0f} s): {fate}", file=sys.stderr)
    archive = arguments.pack_to or (out if arguments.pack else None)
    recording = recorder.Recording(
        session=session,
        device=place.device,
        deadline=started + arguments.budget,
        clock_fields=known_fields() if place.device == "cuda" else (),
        archive_folder=None if archive is None else archive.absolute(),
        largest_archive_bytes=arguments.max_file,
        environment=recorder.step_environment(place.rehearsal),
        is_rehearsal=place.rehearsal,
        number=recorder.count_of_steps(session),
    )
    try:
        recorder.record(recording, steps)
    finally:
        _say_what_is_there(recording)
    document = session.document()
    if arguments.json:
        shown = {**document, "folder": str(session.folder), "archives": _archives(recording)}
        print(json.dumps(shown, indent=1))
    else:
        print(steps_table(document).text())
    return recorder.exit_code(document)


def look(machine: Machine, rehearsal: bool) -> Place:
    """What can be recorded here; a rehearsal never looks at a GPU."""
    device = "cpu" if rehearsal else choose_device("auto", machine)
    stated = [gpu.get("compute_cap", "") for gpu in machine.gpus[:1]]
    numbers = [float(text) for text in stated if text.replace(".", "", 1).isdigit()]
    return Place(
        device=device,
        device_bytes=device_bytes(machine, device),
        capability=numbers[0] if numbers and device == "cuda" else None,
        tools={name: _tool_trouble(name) for name in INSTALL},
        rehearsal=rehearsal,
    )


def _tool_trouble(name: str) -> str | None:
    try:
        found = find_tool(name)
    except PreconditionError as error:
        return str(error)
    return None if found else f"{name} is not installed here; {INSTALL[name]}"


def _session(
    out: Path,
    arguments: argparse.Namespace,
    machine: Machine,
    place: Place,
    problems: Sequence[Problem],
) -> tuple[Session, list[str]]:
    """(the session, the steps that it has already)."""
    facts = session_facts(machine, place, problems, arguments.budget)
    if not arguments.go_on:
        return Session.create(out, facts), []
    found = sorted(path.parent for path in out.glob("*/session.json"))
    if not found:
        raise UsageError(f"{out} holds no session to continue; leave out --continue")
    session = open_session(found[-1])
    for key in ("revision", "device", "versions", "rehearsal"):
        if session.facts[key] != facts[key]:
            raise UsageError(
                f"{session.folder} is of another {key}; leave out --continue for a new session"
            )
    return session, recorder.done_before(session.document())


def session_facts(
    machine: Machine, place: Place, problems: Sequence[Problem], budget_s: float
) -> dict[str, Any]:
    """What does not change during a session: machine, versions, seals of the predictions."""
    commit, changed = revision(root())
    return {
        "worklog": __version__,
        "revision": commit,
        "uncommitted_changes": changed,
        "rehearsal": place.rehearsal,
        "budget_s": budget_s,
        "device": {"kind": place.device, "slug": device_slug(machine, place.device)},
        "machine": machine_facts(machine),
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in VERSIONS},
        },
        "tools": {name: trouble or "ok" for name, trouble in place.tools.items()},
        "predictions": {problem.name: prediction_seals(problem) for problem in problems},
    }


def _say_what_is_there(recording: recorder.Recording) -> None:
    recording.say(f"session: {recording.session.folder}")
    for path in _archives(recording):
        recording.say(f"archive: {path}")
    if recording.packed is not None:
        for name, size, why in recording.packed.left_out:
            if not why.startswith("raw report"):
                recording.say(f"not in the archive: {name} ({size} bytes): {why}")


def _archives(recording: recorder.Recording) -> list[str]:
    return [] if recording.packed is None else [str(path) for path in recording.packed.parts]


def steps_table(document: Mapping[str, Any]) -> Table:
    """What became of every step, for a terminal and for a page."""
    rows = []
    for step in document["steps"]:
        said = [step.get("reason"), *step.get("notices", [])]
        rows.append(
            (
                f"{step['problem']}/{step['step']}",
                step.get("preset") or "",
                step["state"],
                "" if step.get("seconds") is None else f"{step['seconds']:.0f}",
                "; ".join(text for text in said if text),
            )
        )
    return Table(("step", "preset", "state", "seconds", "says"), tuple(rows), ("seconds",))


def _plan_text(steps: Sequence[Planned], budget_s: float) -> str:
    rows = tuple(
        (
            str(one.step.priority),
            one.name,
            f"{one.expected_s:.0f}",
            ", ".join(preset or "default" for preset in one.presets),
            fate,
        )
        for one, fate in projected(steps, budget_s)
    )
    columns = ("priority", "step", "seconds", "presets", "here")
    return Table(columns, rows, ("priority", "seconds")).text()
