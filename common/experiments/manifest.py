"""What does a run's manifest say before it starts? Everything needed to judge or repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from common import __version__
from common.contract.problem import Problem, Variant, root
from common.experiments.request import Request
from common.recording.environment import Machine, device_slug, machine_facts, revision


def variant_record(variant: Variant) -> dict[str, Any]:
    return {
        "title": variant.title,
        "packages": list(variant.packages),
        "environment": dict(variant.environment),
        "settings": dict(variant.settings),
        "tolerance": variant.tolerance,
        "traffic": dict(variant.traffic),
        "role": variant.role,
    }


def prediction_seals(problem: Problem) -> dict[str, str]:
    return {sets.name: sets.sha256 for sets in problem.predictions}


def _about(problem: Problem, claim: str) -> dict[str, Any]:
    presets, cpu = problem.claim_presets.get(claim), problem.claim_cpus.get(claim)
    about: dict[str, Any] = {} if presets is None else {"presets": list(presets)}
    return about if cpu is None else {**about, "cpu": cpu}


def _origin(request: Request) -> str:
    if request.problem.kind == "compiled":
        return request.problem.origin
    return "measured-gpu" if request.device == "cuda" else "measured-cpu"


def first_manifest(request: Request, kind: str, arguments: Sequence[str]) -> dict[str, Any]:
    """`kind` is bench, profile or run; `arguments` are those of the command, paths left out."""
    problem = request.problem
    commit, changed = revision(root())
    preset = request.preset
    document = {
        "problem": problem.name,
        "title": problem.title,
        "question": problem.question,
        "kind": kind,
        "arguments": list(arguments),
        "worklog": __version__,
        "revision": commit,
        "uncommitted_changes": changed,
        "device": {"kind": request.device, "slug": request.device_slug},
        "origin": _origin(request),
        "machine": machine_facts(request.machine),
        "preset": {
            "name": preset.name,
            "min_rounds": preset.min_rounds,
            "max_rounds": preset.max_rounds,
            "max_seconds": preset.max_seconds,
            "settings": dict(preset.settings),
        },
        "phases": dict(problem.phases),
        "baseline": problem.baseline,
        # A checkpoint's path is the user's own affair; that there was one is not.
        "options": {k: bool(v) if k == "checkpoint" else v for k, v in request.options.items()},
        "variants": {v.name: variant_record(v) for v in request.variants},
        "not_applicable": dict(request.not_applicable),
        "claims": [
            {
                "says": says,
                "claim": claim.text,
                "not_with": list(not_with),
                **_about(problem, claim.text),
            }
            for says, claim, not_with in problem.claims
        ],
        "predictions": prediction_seals(problem),
    }
    checked: dict[str, Any] = json.loads(json.dumps(document))
    return checked


def study_manifest(
    problem: Problem,
    study: str,
    device: str,
    machine: Machine,
    preset: str,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """That of a study by itself: it stands where a variant does, and no phase is timed."""
    commit, changed = revision(root())
    return {
        "problem": problem.name,
        "title": problem.title,
        "question": problem.question,
        "kind": "study",
        "arguments": list(arguments),
        "worklog": __version__,
        "revision": commit,
        "uncommitted_changes": changed,
        "device": {"kind": device, "slug": device_slug(machine, device)},
        "origin": "measured-gpu" if device == "cuda" else "measured-cpu",
        "machine": machine_facts(machine),
        "preset": {"name": f"{study}-{preset}" if preset else study, "settings": {}},
        "phases": {},
        "baseline": study,
        "options": {},
        "variants": {study: {"title": f"study {study}", "packages": [], "role": "compared"}},
        "not_applicable": {},
        "claims": [],
        "predictions": prediction_seals(problem),
    }
