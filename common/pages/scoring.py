"""Which prediction held? A set scored over all runs that it is about, the earliest first.

A prediction is decided by the first run that measured it; a later recording repeats, it does not
replace. A run whose manifest does not carry the set's hash was made without the seal: what it
decides is marked retrospective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.contract.predictions import PredictionSet, Score, score
from common.contract.problem import Problem
from common.contract.recorded import Recording, recordings
from common.recording.run_folder import Run, open_run
from common.report.evidence import Evidence
from common.report.run_tables import cpu_capability


@dataclass(frozen=True)
class Scored:
    """One prediction's result, and the run that gave it."""

    score: Score
    run: Run
    sealed: bool


def versions_of(run: Run, recording: Recording | None = None) -> dict[str, str | None]:
    """torch and triton of a run: as its variants' processes found them, else the session's."""
    found: dict[str, str | None] = dict(recording.versions) if recording else {}
    for table in ("facts", "profile_facts"):
        for facts in run.manifest.get(table, {}).values():
            found |= {k: str(facts[k]) for k in ("torch", "triton") if facts.get(k)}
    return found


def recorded_runs(problem: Problem) -> list[tuple[Recording, Run]]:
    """Every run that was brought here, the earliest session first."""
    return [
        (recording, open_run(folder))
        for recording in recordings(problem.folder)
        for folder in recording.runs()
    ]


def is_about(
    sets: PredictionSet, run: Run, versions: Mapping[str, str | None] | None = None
) -> bool:
    """Whether a set is about a run: device, preset, kind of CPU and, if given, versions."""
    device, preset = str(run.manifest["device"]["slug"]), str(run.manifest["preset"]["name"])
    return sets.applies_to(device, preset, versions, cpu_capability(run.manifest))


def runs_about(sets: PredictionSet, problem: Problem) -> list[Run]:
    """The recorded runs that a set is about: device, preset, versions and kind of CPU."""
    return [
        run
        for recording, run in recorded_runs(problem)
        if is_about(sets, run, versions_of(run, recording))
    ]


def score_over(sets: PredictionSet, runs: Sequence[Run]) -> dict[str, Scored]:
    """Prediction -> its result on the first run that gave it a value; without one, the last try."""
    found: dict[str, Scored] = {}
    for run in runs:
        sealed = run.manifest.get("predictions", {}).get(sets.name) == sets.sha256
        for result in score(sets, Evidence(run).quantities()):
            known = found.get(result.prediction.id)
            if known is None or (known.score.value is None and result.value is not None):
                found[result.prediction.id] = Scored(result, run, sealed)
    return found


def seals_note(found: Mapping[str, Scored]) -> str:
    """What the manifests say about the time of the sealing."""
    decided = [one for one in found.values() if one.score.value is not None] or list(found.values())
    if all(one.sealed for one in decided):
        return "_The hash stands in the run's manifest: sealed before it was made._"
    return "_**retrospective**: the run's manifest does not carry this hash._"


def places(found: Mapping[str, Scored], folder: Path) -> list[str]:
    """The run folders that decided something, as a page names them."""
    names = [
        one.run.folder.relative_to(folder).as_posix()
        for one in found.values()
        if one.score.value is not None
    ]
    return list(dict.fromkeys(names))
