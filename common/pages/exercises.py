"""Can a reader practise on this page, and are the answers right? Six exercises, two per tier.

    1. *Predict.* How large is …?

       <details><summary>Answer</summary>7.35 GB.
       <!-- check: 7.35 = 14 * 525_336_576 / 1e9 --></details>

Every answer is folded and checked by machine: its number by `common.pages.answers`, or by a test.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from common.contract.problem import Problem
from common.errors import WorklogError
from common.pages.answers import CHECK, EvidenceFunctions, check_answer
from common.pages.finding import Finding, line_at
from common.pages.markdown import COMMENT, FENCE, blanked, sections

TIERS = {
    "read": ("read",),
    "predict": ("predict", "compute"),
    "break or port": ("break", "port"),
}
PER_TIER, IN_ALL = 2, 6
ITEM = re.compile(r"^\d+\. +(?:\*(?P<tier>[A-Za-z]+)[^*\n]*\*)?", re.MULTILINE)
FOLDED = re.compile(r"<details>(?P<answer>.*?)</details>", re.DOTALL)


def check_exercises(path: Path, text: str) -> list[Finding]:
    """Number, tiers, folded answers, and a check in each. Whether they are right: check_answers."""
    section = next((s for s in sections(text) if s.title == "Exercises"), None)
    if section is None:
        return []  # a finding of its own
    body = text[section.start : section.end]
    items = list(ITEM.finditer(blanked(body, FENCE)))
    findings, tiers = [], Counter[str]()
    for number, match in enumerate(items):
        end = items[number + 1].start() if number + 1 < len(items) else len(body)
        item, line = body[match.start() : end], line_at(text, section.start + match.start())
        word = (match["tier"] or "").lower()
        tier = next((name for name, words in TIERS.items() if word in words), None)
        if tier is None:
            words = ", ".join(f"*{w.capitalize()}.*" for ws in TIERS.values() for w in ws)
            findings.append(Finding(path, line, f"the exercise has no tier; begin it with {words}"))
        else:
            tiers[tier] += 1
        folded = FOLDED.search(item)
        if folded is None:
            message = "the exercise has no folded answer; add <details><summary>Answer</summary>…"
            findings.append(Finding(path, line, message))
        elif not CHECK.search(folded["answer"]):
            message = (
                "no machine checks this answer; add <!-- check: NUMBER = EXPRESSION run=KEY --> "
                "or <!-- check: test tests/FILE.py::test_NAME --> inside of it"
            )
            findings.append(Finding(path, line, message))
    if len(items) < IN_ALL:
        message = f"{len(items)} exercises; write {IN_ALL} or more"
        findings.append(Finding(path, section.line, message))
    for tier in TIERS:
        if tiers[tier] < PER_TIER:
            message = f"{tiers[tier]} exercises of the tier {tier!r}; write {PER_TIER} or more"
            findings.append(Finding(path, section.line, message))
    return findings


def check_answers(
    path: Path, text: str, problem: Problem, evidence: Callable[[str], EvidenceFunctions]
) -> list[Finding]:
    """Every `<!-- check: … -->` of the page, computed anew."""
    findings = []
    for match in CHECK.finditer(blanked(text, FENCE)):
        visible = blanked(_around(text, match.start(), match.end()), COMMENT)
        try:
            check_answer(match["body"], visible, problem, evidence)
        except WorklogError as error:
            findings.append(Finding(path, line_at(text, match.start()), str(error)))
    return findings


def _around(text: str, start: int, end: int) -> str:
    """The folded answer that a check stands in; outside of one, its paragraph."""
    for folded in FOLDED.finditer(text):
        if folded.start() <= start < folded.end():
            return folded["answer"]
    above, below = text.rfind("\n\n", 0, start), text.find("\n\n", end)
    return text[above + 1 if above >= 0 else 0 : below if below >= 0 else len(text)]
