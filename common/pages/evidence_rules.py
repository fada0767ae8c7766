"""Does the evidence hold? Finished runs, derived files, seals of predictions, claims that it bears.

Every finding is about a line of `problem.toml` or `predictions.toml`, or about a recorded file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.contract.claims import Claim, judge
from common.contract.problem import Problem
from common.contract.recorded import recordings
from common.errors import UsageError, WorklogError
from common.pages.answers import EvidenceFunctions
from common.pages.finding import STALE, Finding, line_with
from common.recording.run_folder import Run, open_run, read_json
from common.report.evidence import Evidence
from common.report.summary import build_summary


@dataclass(frozen=True)
class Checked:
    """One recorded run with what its data give, made anew."""

    run: Run
    summary: Mapping[str, Any]
    evidence: Evidence

    def functions(self) -> EvidenceFunctions:
        return EvidenceFunctions(self.evidence.quantities(), self.summary, self.evidence.tables)


def evidence_line(problem: Problem, key: str) -> int:
    toml = problem.folder / "problem.toml"
    return line_with(toml, r"^\[evidence\]", rf"^\s*[\"']?{re.escape(key)}[\"']?\s*=")


def evidence_folders(problem: Problem) -> dict[str, Path]:
    """Every recorded run that the problem stands on, by its key."""
    return {key: problem.folder / place for key, place in problem.evidence.items()}


def open_evidence(problem: Problem) -> tuple[dict[str, Checked], list[Finding]]:
    """Every recorded run that can be used, and what is wrong with it or with the others."""
    toml = problem.folder / "problem.toml"
    found: dict[str, Checked] = {}
    findings: list[Finding] = []
    named = evidence_folders(problem)
    try:
        brought = {run.name: run for one in recordings(problem.folder) for run in one.runs()}
    except WorklogError as error:
        brought, findings = {}, [Finding(toml, 1, str(error))]
    for key, folder in (named | brought).items():
        line = evidence_line(problem, key) if key in named else 1
        try:
            run = open_run(folder)
            rebuilt = build_summary(run)
            stored = read_json(folder / "summary.json")
            dict(run.manifest["predictions"])
        except (KeyError, TypeError, ValueError):
            message = f"evidence {key} has no predictions; record it anew"
            findings.append(Finding(toml, line, message))
            continue
        except WorklogError as error:
            findings.append(Finding(toml, line, f"evidence {key}: {error}"))
            continue
        if not run.finished and key in named:  # what a killed recording left says so itself
            message = f"evidence {key} is an unfinished run; record it anew"
            findings.append(Finding(toml, line, message))
        if stored != rebuilt:
            message = f"evidence {key}: summary.json is not what its data give; {STALE}"
            findings.append(Finding(folder / "summary.json", 1, message))
        found[key] = Checked(run, rebuilt, Evidence(run))
    return found, findings


def check_seals(problem: Problem, runs: Mapping[str, Checked]) -> list[Finding]:
    """No set that a run was scored against may change after it."""
    path = problem.folder / "predictions.toml"
    now = {sets.name: sets for sets in problem.predictions}
    findings = []
    for key, checked in runs.items():
        for name, sealed in dict(checked.run.manifest["predictions"]).items():
            line = line_with(path, rf"^name\s*=\s*[\"']{re.escape(name)}[\"']")
            if name not in now or now[name].sha256 != sealed:
                done = "changed" if name in now else "removed or renamed"
                message = (
                    f"set {name} was {done} after the run of evidence {key}; "
                    "restore it and write new predictions into a new set"
                )
                findings.append(Finding(path, line, message))
            elif now[name].sealed > str(checked.run.manifest["started"])[:10]:
                message = (
                    f"set {name} says that it was sealed on {now[name].sealed}, after the run of "
                    f"evidence {key}, whose manifest has its hash; correct the date"
                )
                findings.append(Finding(path, line, message))
    return findings


def check_claims(problem: Problem, runs: Mapping[str, Checked]) -> list[Finding]:
    """Each claim is borne out by a recorded run, or says openly why none is there yet."""
    toml = problem.folder / "problem.toml"
    rows = tomllib.loads(toml.read_text(encoding="utf-8"))["claims"]
    findings = []
    for (_, claim, _), row in zip(problem.claims, rows, strict=True):
        line = line_with(toml, re.escape(claim.text))
        records = {key: _record(problem, claim, checked) for key, checked in runs.items()}
        said_no = [key for key, record in records.items() if record["reproduced"] is False]
        proven = any(record["reproduced"] for record in records.values())
        if said_no:
            message = (
                f"claim {claim.text} is contradicted by evidence {said_no[0]} "
                f"({records[said_no[0]]['value']}); correct the claim, or say with presets = [...] "
                "which presets it is about"
            )
            findings.append(Finding(toml, line, message))
        elif not proven and not row.get("open"):
            reasons = "; ".join(f"{key}: {r.get('reason', '')}" for key, r in records.items())
            message = (
                f"claim {claim.text} has no evidence ({reasons or 'nothing is recorded'}); record "
                'a run that shows it, or add open = "why there is none yet"'
            )
            findings.append(Finding(toml, line, message))
        elif proven and row.get("open"):
            message = f"claim {claim.text} is borne out by evidence; remove its open = …"
            findings.append(Finding(toml, line, message))
    return findings


def _record(problem: Problem, claim: Claim, checked: Checked) -> Mapping[str, Any]:
    """How a run judges a claim: as it did when it was made, else (a newer claim) now."""
    for record in checked.summary["claims"]:
        if record["claim"] == claim.text:
            found: Mapping[str, Any] = record
            return found
    about = problem.claim_presets.get(claim.text)
    if about is not None and checked.summary["preset"] not in about:
        return {"reproduced": None, "value": None, "reason": f"is about {' or '.join(about)}"}
    try:
        return judge(claim, checked.evidence.quantities())
    except UsageError as error:
        return {"reproduced": None, "value": None, "reason": str(error)}
