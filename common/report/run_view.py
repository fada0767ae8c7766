"""What does a report need to know of one run? The folder, read once, and a few facts in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.contract.claims import parse_claim
from common.contract.problem import load_problem
from common.errors import UsageError
from common.recording.run_folder import open_run
from common.report import run_tables
from common.report.evidence import Evidence
from common.report.summary import build_summary
from common.report.tables import interval, significant


@dataclass(frozen=True)
class RunView:
    """One run as the report sees it; nothing in it is measured again."""

    folder: Path
    finished: bool
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    samples: tuple[Mapping[str, Any], ...]
    evidence: Evidence  # the same folder, for what the summary leaves out

    @property
    def phases(self) -> list[str]:
        """What is paid for every token comes first: the phases with many units per sample."""
        return sorted(self.manifest["phases"], key=lambda phase: not self.manifest["phases"][phase])

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self.summary["variants"]
        return found

    @property
    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        """Software facts by variant, from whichever pass recorded them."""
        return {**self.manifest.get("profile_facts", {}), **self.manifest.get("facts", {})}

    @property
    def device(self) -> str:
        return run_tables.device_name(self.summary, self.manifest)

    @property
    def machine(self) -> str:
        """The device, and on a CPU the instructions that torch used: two virtual machines with
        one name can differ in them, and then their times cannot be set side by side."""
        found = run_tables.cpu_capability(self.manifest)
        return f"{self.device}, {found}" if found else self.device

    def versions(self, package: str) -> str:
        """Every version of a package that took part, e.g. "0.13.0, 0.14.1"."""
        found = {str(f[package]) for f in self.facts.values() if f.get(package)}
        absent = "not installed" if any(package in f for f in self.facts.values()) else "unknown"
        return ", ".join(sorted(found)) or absent

    def profile(self, variant: str, phase: str, part: str) -> Mapping[str, Any] | None:
        """The `time` or `memory` record of one phase; None where nothing was recorded."""
        record = self.variants[variant].get("profile", {}).get(phase, {}).get(part)
        if (
            record is not None
            and part == "time"
            and min(record["total_ns"], record["occurrences"]) <= 0
        ):
            return None
        found: Mapping[str, Any] | None = record
        return found


def read_view(folder: Path) -> RunView:
    """Read a run folder. Raises UsageError for anything that is none.

    The summary is made anew from the data, so that the page shows what the folder really holds.
    """
    run = open_run(folder)
    evidence = Evidence(run)
    summary = build_summary(run, evidence)
    samples = tuple(run.samples())
    return RunView(folder, run.finished, run.manifest, summary, samples, evidence)


def problem_words(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """(title, question) of the problem: the run's own, else this repository's, else its name."""
    name = str(manifest["problem"])
    if manifest.get("title"):
        return str(manifest["title"]), str(manifest.get("question", ""))
    try:
        problem = load_problem(name)
    except UsageError:
        return name, ""
    return problem.title, problem.question


def headline(view: RunView) -> tuple[str, str] | None:
    """(value, what it is) of the ratio the run is about: its first decided claim about a ratio,
    else the ratio furthest from 1 of its first phase; None where nothing was timed."""
    for row in view.summary["claims"]:
        try:
            quantity = parse_claim(row["claim"]).quantity
        except UsageError:
            continue
        if quantity.name == "ratio" and row["value"] is not None:
            return _times(row["value"], row.get("interval")), _sides(*quantity.arguments)
    rows = [row for row in view.summary["ratios"] if row["phase"] == view.phases[0]]
    if not rows:
        return None
    row = max(rows, key=lambda r: max(r["ratio"], 1 / r["ratio"]))
    return (
        _times(row["ratio"], row["interval"]),
        _sides(row["variant"], row["baseline"], row["phase"]),
    )


def _times(value: float, ends: tuple[float, float] | None) -> str:
    return f"{significant(value)}×" + (f" ({interval(*ends)})" if ends else "")


def _sides(variant: str, baseline: str, phase: str) -> str:
    return f"{phase} time, {variant} ÷ {baseline}"


def claimed_variants(view: RunView) -> list[str]:
    """The variants that the claims speak of, in the run's order: the story's before and after."""
    named: set[str] = set()
    for row in view.summary["claims"]:
        try:
            named.update(parse_claim(row["claim"]).quantity.arguments)
        except UsageError:
            continue
    return [name for name in view.variants if name in named]
