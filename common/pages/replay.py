"""What did the worklog's analysis give, again? From the recorded data, in the order of the page.

Each recorded run is summarised anew from its samples and traces; every table and figure of the page
is made anew from that and printed under its section; answers, claims and predictions are judged
anew. It needs neither a GPU nor torch, and it writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.contract.problem import Problem
from common.errors import UsageError, WorklogError
from common.pages.answers import CHECK
from common.pages.blocks import blocks_of, options_of, render_block, render_whole_page
from common.pages.calibration import ScoredSet, score_problem
from common.pages.check import asked
from common.pages.evidence_rules import Checked, check_claims, check_seals, open_evidence
from common.pages.exercises import check_answers
from common.pages.finding import Finding, read_utf8
from common.pages.markdown import FENCE, blanked, sections


@dataclass(frozen=True)
class Part:
    """One generated block of the page, made anew."""

    section: str
    head: str  # as it stands in the page's marker
    text: str


@dataclass(frozen=True)
class Replayed:
    problem: Problem
    runs: Mapping[str, Checked]
    parts: tuple[Part, ...]
    sets: tuple[ScoredSet, ...]
    answers: int  # checked ones of the page
    findings: tuple[Finding, ...]

    @property
    def claims(self) -> list[tuple[str, Mapping[str, Any]]]:
        """(evidence, record) of each claim of each run."""
        return [(key, c) for key, checked in self.runs.items() for c in checked.summary["claims"]]


def replay(problem: Problem) -> Replayed:
    """Raises UsageError where there is nothing recorded, or no page to replay."""
    page = problem.folder / "WORKLOG.md"
    if not problem.evidence or not page.exists():
        missing = "[evidence] in problem.toml" if not problem.evidence else "WORKLOG.md"
        raise UsageError(
            f"{problem.name} has no {missing}; record a run with: worklog run {problem.name}"
        )
    text, unreadable = read_utf8(page)
    runs, findings = open_evidence(problem)
    findings += [*unreadable, *check_seals(problem, runs), *check_claims(problem, runs)]
    findings += render_whole_page(page, problem).findings
    findings += check_answers(page, text, problem, asked(problem, runs))
    return Replayed(
        problem,
        runs,
        tuple(_parts(problem, text)),
        tuple(score_problem(problem)),
        len(list(CHECK.finditer(blanked(text, FENCE)))),
        tuple(dict.fromkeys(findings)),
    )


def _parts(problem: Problem, text: str) -> Iterator[Part]:
    chapters = sections(text)
    for match in blocks_of(text):
        section = next((s.title for s in chapters if s.start <= match.start() < s.end), "")
        head = match["name"] + match["options"]
        try:
            made = render_block(problem, match["name"], options_of(match))
        except WorklogError as error:
            made = f"cannot be made: {error}"  # a finding as well
        yield Part(section, head, made)


def as_text(replayed: Replayed) -> str:
    lines = [f"# {replayed.problem.title}", "", replayed.problem.question, ""]
    for key, checked in replayed.runs.items():
        started = checked.summary["started"][:10]
        what = f"{checked.summary['origin']}, preset {checked.summary['preset']}, {started}"
        lines.append(f"evidence {key}: {what}: {replayed.problem.evidence[key]}")
    section = None
    for part in replayed.parts:
        if part.section != section:
            section = part.section
            lines += ["", f"## {section}"]
        lines += ["", f"[{part.head}]", "", part.text]
    lines += ["", "## Judged anew", ""]
    claims = [record["reproduced"] for _, record in replayed.claims]
    lines.append(
        f"claims: {claims.count(True)} reproduced, {claims.count(False)} not, "
        f"{claims.count(None)} not decided by the run"
    )
    for found in replayed.sets:
        counts = ", ".join(f"{found.count(r)} {r}" for r in ("hit", "miss", "undecided", "open"))
        lines.append(f"predictions {found.sets.name} ({found.state}): {counts}")
    lines.append(f"answers and numbers in the text: {replayed.answers} computed again")
    return "\n".join(lines)


def as_document(replayed: Replayed) -> dict[str, Any]:
    """For JSON: what was judged, and the parts as they were made."""
    return {
        "schema": "worklog.replay/1",
        "problem": replayed.problem.name,
        "evidence": {
            key: {"run": replayed.problem.evidence[key], "summary": dict(checked.summary)}
            for key, checked in replayed.runs.items()
        },
        "parts": [vars(part) for part in replayed.parts],
        "predictions": [
            {
                "set": found.sets.name,
                "state": found.state,
                "results": {o.prediction.id: o.result for o in found.outcomes},
            }
            for found in replayed.sets
        ],
        "answers_checked": replayed.answers,
        "findings": [f"{f.path.name}:{f.line}: {f.message}" for f in replayed.findings],
    }
