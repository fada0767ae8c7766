"""What is a problem? Its `problem.toml`, read and validated: the one source of truth.

Title, variants with their own library versions, presets, claims and evidence. Everything that is
about one problem and not about all of them stands there, and nothing else does.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.contract.capture import Capture, read_capture
from common.contract.claims import Claim, check_call, parse_claim
from common.contract.headline import Headline, read_headline
from common.contract.predictions import PredictionSet, read_predictions
from common.contract.record import RecordStep, check_steps, read_record_steps
from common.errors import PreconditionError, UsageError

SCHEMA = "worklog.problem/1"
# compared: measured by default; diagnostic: a one-variable test, measured when asked for;
# must-be-rejected: wrong on purpose, to prove that the correctness check can say no.
ROLES = ("compared", "diagnostic", "must-be-rejected")
# timed: variants run side by side and are timed. compiled: each variant's process works out figures
# (counted, compiled, modelled) and nothing is timed; there are no phases and no tolerances.
# sweep: each variant's process takes points of its own, timed and profiled in separate passes.
KINDS = ("timed", "compiled", "sweep")
# What most figures of a problem that is not timed are; each figure says its own beside it.
ORIGINS = ("compiled", "modelled")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")


@dataclass(frozen=True)
class Variant:
    """One configuration under study. `settings` is handed to the problem's `open_session`."""

    name: str
    title: str
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    # Largest accepted relative error against the baseline, before the session's `tolerance_scale`.
    tolerance: float | None = None
    tolerance_because: str = ""
    # Device kind -> the path of `common.floors.traffic` that counts its bytes per weight.
    traffic: Mapping[str, str] = field(default_factory=dict)
    role: str = "compared"
    study: str = ""  # measured with the others of this name, by `bench --study NAME`
    needs_cuda_capability: float | None = None


@dataclass(frozen=True)
class Preset:
    """One size of the workload. `settings` is handed to the problem's `open_session`."""

    name: str
    devices: tuple[str, ...]
    min_rounds: int
    max_rounds: int
    max_seconds: float
    needs_device_bytes: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    name: str
    folder: Path
    title: str
    status: str
    question: str
    symptom: str
    cause: str
    baseline: str
    kind: str
    phases: Mapping[str, str]  # phase -> the settings key that says how many units one sample has
    variants: Mapping[str, Variant]
    presets: Mapping[str, Preset]
    # (what it says in words, the claim, options of a run under which it is not judged)
    claims: tuple[tuple[str, Claim, tuple[str, ...]], ...]
    evidence: Mapping[str, str]
    predictions: tuple[PredictionSet, ...]
    capture: Capture | None = None
    # Text of a claim -> the presets that it is about; a claim that is not here is about all.
    claim_presets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    record: tuple[RecordStep, ...] = ()  # what `worklog record` does of it on a GPU
    # Text of a claim -> what torch must call the CPU's vector instructions; not about others.
    claim_cpus: Mapping[str, str] = field(default_factory=dict)
    awaited: tuple[str, ...] = ()  # keys of [evidence] without a place: named, not recorded yet
    # Study of variants -> what of the preset is otherwise there (max_rounds, settings, …).
    study_limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: str = "compiled"  # of a problem that is not timed
    headline: Headline | None = None  # of a problem whose effect is no ratio of two variants
    at_once: int = 1  # how many of its variants may be worked out side by side on a CPU

    @property
    def repro(self) -> Path:
        return self.folder / "repro.py"

    def default_variants(self) -> list[str]:
        return [name for name, variant in self.variants.items() if variant.role == "compared"]

    def studies(self) -> list[str]:
        """Names of the studies: groups of variants, and scripts `study_NAME.py` of the problem."""
        scripts = {path.stem.removeprefix("study_") for path in self.folder.glob("study_*.py")}
        return sorted(scripts | {v.study for v in self.variants.values() if v.study})

    def study_variants(self, study: str) -> list[str]:
        """The variants of one study; empty where it is a script. UsageError for a wrong name."""
        if study not in self.studies():
            known = ", ".join(self.studies()) or "none"
            raise UsageError(f"{self.name} has no study {study!r}; there are: {known}")
        return [name for name, variant in self.variants.items() if variant.study == study]


def root() -> Path:
    """The repository: where `problems/` lies. WORKLOG_ROOT names another one."""
    return Path(os.environ.get("WORKLOG_ROOT") or Path(__file__).resolve().parents[2])


def problem_names() -> list[str]:
    return sorted(path.parent.name for path in (root() / "problems").glob("*/problem.toml"))


def load_problem(name: str) -> Problem:
    """Read `problems/NAME/problem.toml`. Raises UsageError naming the problems that exist."""
    known = problem_names()
    if name not in known:
        raise UsageError(f"no problem {name!r}; there are: {', '.join(known) or 'none'}")
    return read_problem(root() / "problems" / name / "problem.toml")


def read_problem(path: Path) -> Problem:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}; mend the file") from error
    except RecursionError:
        raise UsageError(f"{path}: is nested too deeply; mend the file") from None
    if document.get("schema") != SCHEMA:
        raise UsageError(f'{path}: schema is not "{SCHEMA}"; add that line at its top')
    try:
        problem = _build(path, document)
        _validate(path, problem)
    except UsageError as error:  # of a claim; predictions.toml names itself
        where = "" if str(error).startswith(str(path.parent)) else f"{path}: "
        raise UsageError(f"{where}{error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: lacks or misuses {error}; compare it with another problem's file"
        ) from error
    return problem


def _build(path: Path, document: Mapping[str, Any]) -> Problem:
    # Both go into manifests and requests as JSON: no dates, no nan.
    json.dumps([document["variants"], document["presets"]], allow_nan=False)
    kind = document.get("kind", "timed")
    # Nothing is sampled where nothing is timed.
    unsampled = {"min_rounds": 1, "max_rounds": 1, "max_seconds": 0.0} if kind != "timed" else {}
    variants = {
        name: Variant(
            name,
            **{
                **table,
                "packages": tuple(table.get("packages", ())),
                "environment": {k: str(v) for k, v in table.get("environment", {}).items()},
            },
        )
        for name, table in document["variants"].items()
    }
    presets = {
        name: Preset(
            name,
            **{**unsampled, **table, "devices": tuple(table["devices"])},
        )
        for name, table in document["presets"].items()
    }
    claims = tuple(
        (row["says"], parse_claim(row["claim"]), tuple(row.get("not_with", ())))
        for row in document["claims"]
    )
    return Problem(
        name=path.parent.name,
        folder=path.parent,
        title=document["title"],
        status=document["status"],
        question=document["question"],
        symptom=document["symptom"],
        cause=document["cause"],
        baseline=document["baseline"],
        kind=kind,
        phases=document["phases"] if kind == "timed" else document.get("phases", {}),
        variants=variants,
        presets=presets,
        claims=claims,
        evidence={key: place for key, place in document.get("evidence", {}).items() if place},
        awaited=tuple(key for key, place in document.get("evidence", {}).items() if not place),
        predictions=read_predictions(path.with_name("predictions.toml")),
        capture=read_capture(document),
        claim_presets={
            row["claim"]: tuple(row["presets"]) for row in document["claims"] if "presets" in row
        },
        record=read_record_steps(document),
        claim_cpus={row["claim"]: str(row["cpu"]) for row in document["claims"] if "cpu" in row},
        study_limits=document.get("studies", {}),
        origin=document.get("origin", "compiled"),
        headline=read_headline(document),
        at_once=document.get("at_once", 1),
    )


def _validate(path: Path, problem: Problem) -> None:
    if problem.kind not in KINDS:
        raise UsageError(f"{path}: kind {problem.kind!r} is none of {', '.join(KINDS)}; choose one")
    if problem.origin not in ORIGINS:
        raise UsageError(
            f"{path}: origin {problem.origin!r} is none of {', '.join(ORIGINS)}; choose one"
        )
    if type(problem.at_once) is not int or problem.at_once < 1:
        raise UsageError(f"{path}: at_once {problem.at_once!r} is no number of variants; give 1")
    if problem.at_once > 1 and problem.kind != "compiled":
        raise UsageError(
            f"{path}: variants of a {problem.kind} problem disturb each other; remove at_once"
        )
    if problem.kind != "timed" and problem.phases:
        raise UsageError(f"{path}: a {problem.kind} problem times no phases; remove them")
    if problem.baseline not in problem.variants:
        raise UsageError(f"{path}: baseline {problem.baseline!r} is no variant; name one of them")
    for variant in problem.variants.values():
        timed = problem.kind == "timed" and variant.name != problem.baseline
        if timed and variant.tolerance is None:
            raise UsageError(
                f"{path}: variant {variant.name} has no tolerance; state one and why, so that its "
                "output can be checked"
            )
        if variant.role not in ROLES:
            raise UsageError(
                f"{path}: variant {variant.name}: role {variant.role!r} is none of "
                f"{', '.join(ROLES)}; choose one"
            )
    for name in (*problem.variants, *problem.presets):
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{path}: {name!r} names files and folders too; use letters, digits and . _ + -"
            )
    _validate_presets(path, problem)
    for variant in problem.variants.values():
        _validate_variant(path, variant)
    check_steps(problem.record, list(problem.variants), list(problem.presets))
    for name in problem.capture.variants if problem.capture else ():
        if name not in problem.variants:
            known = ", ".join(problem.variants)
            raise UsageError(f"{path}: [capture] names {name!r}, no variant; use some of {known}")
    for study, limits in problem.study_limits.items():
        strange = sorted(limits.keys() - {"max_rounds", "max_seconds", "settings", "presets"})
        if study not in problem.studies() or strange:
            what = f"sets {strange[0]!r}" if strange else "names no study"
            raise UsageError(
                f"{path}: [studies.{study}] {what}; use one of {', '.join(problem.studies())} and "
                "max_rounds, max_seconds, settings or presets"
            )
        for preset, own in limits.get("presets", {}).items():
            strange = sorted(own.keys() - {"max_rounds", "max_seconds", "settings"})
            if preset not in problem.presets or strange:
                what = f"sets {strange[0]!r}" if strange else "names no preset"
                raise UsageError(
                    f"{path}: [studies.{study}.presets.{preset}] {what}; use one of "
                    f"{', '.join(problem.presets)} and max_rounds, max_seconds or settings"
                )
    for study in problem.studies():
        if not NAME.fullmatch(study):
            raise UsageError(f"{path}: study {study!r}: use letters, digits and . _ + -")
    try:
        for _, claim, _ in problem.claims:
            check_call(claim.quantity, problem.variants, problem.phases)
    except UsageError as error:
        raise UsageError(f"{path}: claim {error}") from error
    try:
        named = {*problem.variants, *problem.studies()}  # a study by itself has figures, too
        for sets in problem.predictions:
            for prediction in sets.predictions:
                check_call(prediction.quantity, named, problem.phases)
    except UsageError as error:
        raise UsageError(f"{path.with_name('predictions.toml')}: prediction {error}") from error


def _validate_presets(path: Path, problem: Problem) -> None:
    for claim, presets in problem.claim_presets.items():
        strange = [name for name in presets if name not in problem.presets]
        if strange:
            raise UsageError(
                f"{path}: claim {claim} is about {strange[0]!r}, which is no preset; "
                f"use one of {', '.join(problem.presets)}"
            )
    if (problem.kind == "timed" and not problem.phases) or not problem.presets:
        raise UsageError(f"{path}: has no phase or no preset; add one")
    for preset in problem.presets.values():
        for phase, key in problem.phases.items():
            units = preset.settings.get(key) if key else 1
            if not isinstance(units, int) or units < 1:
                raise UsageError(
                    f"{path}: phase {phase} counts its units by {key!r}, which preset "
                    f"{preset.name} does not set to a whole number from 1; add it to its settings"
                )
        rounds, limits = (preset.min_rounds, preset.max_rounds), (preset.max_seconds,)
        numbers = (*rounds, *limits, preset.needs_device_bytes)
        if not all(map(_is_number, numbers)) or not 1 <= rounds[0] <= rounds[1] or limits[0] < 0:
            raise UsageError(
                f"{path}: preset {preset.name}: give numbers, 1 <= min_rounds <= max_rounds and "
                "max_seconds from 0"
            )


def _validate_variant(path: Path, variant: Variant) -> None:
    numbers = (variant.tolerance, variant.needs_cuda_capability)
    if not all(number is None or _is_number(number) for number in numbers):
        raise UsageError(
            f"{path}: variant {variant.name}: tolerance and needs_cuda_capability are numbers; "
            "write them without quotes"
        )
    for package in variant.packages:
        if not PACKAGE.fullmatch(package):
            raise UsageError(
                f"{path}: variant {variant.name}: package {package!r} is not pinned; "
                "write it as name==version"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choose_variants(problem: Problem, wanted: list[str]) -> list[Variant]:
    """The variants asked for, the baseline always among them and first."""
    unknown = [name for name in wanted if name not in problem.variants]
    if unknown:
        raise UsageError(
            f"{problem.name} has no variant {unknown[0]!r}; "
            f"there are: {', '.join(problem.variants)}"
        )
    names = wanted or problem.default_variants()
    ordered = [name for name in problem.variants if name in names and name != problem.baseline]
    return [problem.variants[name] for name in [problem.baseline, *ordered]]


def choose_preset(problem: Problem, wanted: str | None, device: str, device_bytes: int) -> Preset:
    """The preset asked for, else the first in the file that is for this device and fits it.

    `gpu` is short for the largest preset that fits the GPU. Raises UsageError for a name that does
    not exist or a device that the preset is not for, PreconditionError where none fits.
    """
    if wanted is not None and wanted not in ("gpu", *problem.presets):
        raise UsageError(
            f"{problem.name} has no preset {wanted!r}; there are: {', '.join(problem.presets)}"
        )
    if wanted is not None and wanted != "gpu":
        preset = problem.presets[wanted]
        if device not in preset.devices:
            raise UsageError(
                f"preset {wanted} of {problem.name} needs {' or '.join(preset.devices)}, this run "
                f"is on {device}; choose one of: "
                + ", ".join(p.name for p in problem.presets.values() if device in p.devices)
            )
        return preset
    if wanted == "gpu" and device != "cuda":
        raise UsageError("preset gpu needs a CUDA device and there is none; use --preset cpu")
    fitting = [
        preset
        for preset in problem.presets.values()
        if device in preset.devices
        and preset.name != "tiny"
        and preset.needs_device_bytes <= device_bytes
    ]
    if not fitting:
        # Taking tiny in silence would judge the claims on a size that they are not about.
        raise PreconditionError(
            f"no preset of {problem.name} fits the {device_bytes / 1e9:.1f} GB that the {device} "
            "has free; free some memory or name one with --preset: "
            + ", ".join(p.name for p in problem.presets.values() if device in p.devices)
        )
    return fitting[0]
