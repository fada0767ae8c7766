"""What is recorded on this machine, in which order, within how much time? Planned, not yet run.

Steps of all problems are taken by priority; one is started if it is expected to end within what is
left of the budget, else the next smaller one may be. Nothing here starts a process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.contract.problem import Problem
from common.contract.record import RecordStep
from common.experiments.request import package_folder
from common.recording.environment import package_version
from common.timing.worker_client import child_command

# Kept back for the archive and for ending what runs.
RESERVE_SECONDS = 15.0
# A step may take this much longer than expected before it is ended. A rehearsal proves the way and
# not the speed, and shares its machine with whatever else is tested.
PATIENCE, LEAST_PATIENCE_SECONDS, REHEARSED_PATIENCE = 2.0, 60.0, 12.0


@dataclass(frozen=True)
class Place:
    """What the machine offers. `tools`: profiler -> None if it works, else why it does not."""

    device: str  # cpu or cuda
    device_bytes: int
    capability: float | None
    tools: Mapping[str, str | None]
    rehearsal: bool = False

    @property
    def kind(self) -> str:
        """Which of a step's expected times counts."""
        return "tiny" if self.rehearsal else "gpu"


@dataclass(frozen=True)
class Planned:
    """One step. `reason` says why it is not possible here; `notices` what is different from asked.

    `presets` are those that may be tried, the first first.
    """

    problem: Problem
    step: RecordStep
    presets: tuple[str | None, ...]
    variants: tuple[str, ...]
    expected_s: float
    reason: str | None = None
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.problem.name}/{self.step.name}"


def plan(problems: Sequence[Problem], place: Place) -> list[Planned]:
    """Every step of every problem, by priority; those that cannot be run say why."""
    found = [
        _planned(problem, step.rehearsed() if place.rehearsal else step, place)
        for problem in problems
        for step in problem.record
    ]
    return sorted(found, key=lambda one: one.step.priority)


def _planned(problem: Problem, step: RecordStep, place: Place) -> Planned:
    expected = float(step.seconds[place.kind])
    variants, missing = available_variants(problem, step)
    presets, too_large = fitting_presets(problem, step, place)
    reason = _missing_need(step, place)
    if reason is None and variants is None:
        reason = missing[0]
    if reason is None and not presets:
        reason = f"the GPU has {place.device_bytes / 1e9:.1f} GB: {', '.join(too_large)}"
    notices = [*missing, *(too_large if presets else [])]
    return Planned(problem, step, presets, variants or (), expected, reason, tuple(notices))


def _missing_need(step: RecordStep, place: Place) -> str | None:
    if "gpu" in step.needs and place.device != "cuda":
        return "needs an NVIDIA GPU and there is none; run it on a machine with one"
    for tool in step.tools:
        trouble = place.tools.get(tool, "was not looked for")
        if trouble is not None:
            return trouble
    least = step.capability
    if least is not None and (place.capability or 0.0) < least:
        return f"needs compute capability {least}, this GPU has {place.capability}"
    return None


def available_variants(
    problem: Problem, step: RecordStep
) -> tuple[tuple[str, ...] | None, list[str]]:
    """(the variants whose packages are here, what is missing). None: nothing could be compared."""
    wanted = step.variants or tuple(problem.default_variants())
    missing = []
    kept = []
    for name in dict.fromkeys((problem.baseline, *wanted)):
        lacks = [p for p in problem.variants[name].packages if not is_there(p)]
        if lacks:
            missing.append(
                f"{name} is left out: {', '.join(lacks)} is not here; gather it with "
                "docker/wheels.sh and add --wheels"
            )
        else:
            kept.append(name)
    if problem.baseline not in kept or not set(kept) & set(wanted):
        return None, missing
    return tuple(name for name in kept if name in wanted), missing


def is_there(package: str) -> bool:
    """A pinned package in its folder, or Triton as it came with torch."""
    name = package.partition("==")[0]
    return package_folder(package).is_dir() or (
        name == "triton" and package_version(name) is not None
    )


def fitting_presets(
    problem: Problem, step: RecordStep, place: Place
) -> tuple[tuple[str | None, ...], list[str]]:
    """(presets of the step that are for the device and fit it, those that do not, said so)."""
    if not step.presets:
        return (None,), []
    fitting: list[str | None] = []
    said = []
    for name in step.presets:
        preset = problem.presets[name]
        if place.device not in preset.devices:
            said.append(f"preset {name} is for {' and '.join(preset.devices)}")
        elif preset.needs_device_bytes > place.device_bytes:
            said.append(f"preset {name} needs {preset.needs_device_bytes / 1e9:.0f} GB")
        else:
            fitting.append(name)
    return tuple(fitting), said


def limit_s(expected_s: float, left_s: float, rehearsal: bool = False) -> float:
    """How long a step may run: patient, but never beyond what is left."""
    factor = REHEARSED_PATIENCE if rehearsal else PATIENCE
    patient = max(factor * expected_s, expected_s + LEAST_PATIENCE_SECONDS)
    return max(1.0, min(patient, left_s))


def projected(steps: Sequence[Planned], budget_s: float) -> list[tuple[Planned, str]]:
    """(step, what is expected to become of it) if every step takes what it is expected to."""
    left, rows = budget_s - RESERVE_SECONDS, []
    for one in steps:
        if one.reason is not None:
            rows.append((one, f"not possible: {one.reason}"))
        elif one.expected_s > left:
            rows.append((one, f"does not fit: {left:.0f} s would be left"))
        else:
            left -= one.expected_s
            rows.append((one, "to be recorded"))
    return rows


def command(one: Planned, preset: str | None, device: str, out: Path) -> list[str]:
    """The step's command line. What it records goes below `out`, as with every verb."""
    options = [] if preset is None else ["--preset", preset]
    options += ["--device", device, "--out", str(out)]
    step = one.step
    if step.is_verb:
        for variant in one.variants:
            options += ["--variant", variant]
        return [*child_command("common.cli"), step.run, one.problem.name, *options, *step.arguments]
    if step.run.endswith(".py"):
        return [sys.executable, str(one.problem.folder / step.run), *options, *step.arguments]
    where = ["--problem", one.problem.name, "--variants", ",".join(one.variants)]
    return [
        *child_command("common.experiments.record_function"), step.run, *options, *where,
        *step.arguments,
    ]  # fmt: skip


def only(steps: Sequence[Planned], done: Sequence[str]) -> list[Planned]:
    """Without the steps that an earlier part of the same session has recorded."""
    return [one for one in steps if one.name not in done]
