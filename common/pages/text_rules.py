"""Does the author's own text keep the contract? Sections, typed numbers, links, prompts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from common.pages.answers import CHECK
from common.pages.finding import Finding, line_at
from common.pages.markdown import (
    CODE,
    COMMENT,
    FENCE,
    GENERATED,
    anchors,
    blanked,
    links,
    named_files,
    prose,
    sections,
)

SECTIONS = (
    "Card",
    "Question",
    "Setup",
    "Floors",
    "Predictions",
    "First look",
    "Investigation",
    "Ruled out",
    "Root cause",
    "Fix",
    "Verification",
    "Threats to validity",
    "Reproduce each number",
    "Exercises",
    "Is this your problem?",
    "Journal and sources",
)
# Where a reader looks for results: a measured number that was typed there can go stale in silence.
MEASURED_SECTIONS = ("Card", "Root cause", "Verification")
# Units of what is measured. Bytes per weight and the like are counted from the source and may
# stand in the text; so may counts without a unit.
NUMBER_WITH_UNIT = re.compile(
    r"(?<![\w.,])(?P<number>\d[\d,]*(?:\.\d+)?)(?: |\u00a0|\u202f)?"
    r"(?P<unit>%|×(?! ?\d)|ns|µs|us|ms|s|seconds|minutes|times|tokens/s|tok/s|[kMGT]i?B(?:/s)?|"
    r"[GT]FLOPS?|[GT]FLOP/s|GHz|MHz|W)(?![\w/])"
)
# A figure that is none of ours: which number, and where it is from.
NOT_OURS = re.compile(r"<!-- (?:published|stated): (?P<number>[\d.,]+) \S[^\n]*? -->")
PROMPT = re.compile(r"<!-- write: (?P<what>[^\n]*?) -->")


def check_sections(path: Path, text: str) -> list[Finding]:
    """All sections of the contract, in its order, once each, none empty."""
    found = sections(text)
    titles = [section.title for section in found]
    findings = []
    for number, title in enumerate(SECTIONS):
        if title not in titles:
            after = next((s for s in found if s.title in SECTIONS[number + 1 :]), None)
            line = after.line if after else text.count("\n") + 1
            message = f"section {title!r} is missing; add it (or say there why it is empty)"
            findings.append(Finding(path, line, message))
    known = [section for section in found if section.title in SECTIONS]
    for section in known:
        if titles.count(section.title) > 1 and section.line != next(
            s.line for s in known if s.title == section.title
        ):
            findings.append(Finding(path, section.line, f"{section.title!r} again; merge them"))
        if not text[section.start : section.end].strip():
            message = f"section {section.title!r} is empty; say there why"
            findings.append(Finding(path, section.line, message))
    if not findings:
        places = [SECTIONS.index(section.title) for section in known]
        wrong = next((i for i in range(1, len(places)) if places[i] < places[i - 1]), None)
        if wrong is not None:
            message = f"sections stand out of order; use {', '.join(SECTIONS)}"
            findings.append(Finding(path, known[wrong].line, message))
    return findings


def check_typed_numbers(path: Path, text: str) -> list[Finding]:
    """Measured numbers in the Card, the root cause and the verification come from evidence."""
    findings = []
    bare = blanked(text, GENERATED, FENCE, CODE)
    visible = blanked(bare, COMMENT)
    for section in sections(text):
        if section.title not in MEASURED_SECTIONS:
            continue
        start = section.start
        for match in NUMBER_WITH_UNIT.finditer(visible, section.start, section.end):
            start = visible.rfind("\n\n", 0, match.start())
            end = visible.find("\n\n", match.end())
            paragraph = bare[max(start, 0) : end if end >= 0 else len(bare)]
            checked = {m["body"].split(" ")[0] for m in CHECK.finditer(paragraph)}
            checked |= {m["number"] for m in NOT_OURS.finditer(paragraph)}
            if match["number"] in checked:
                continue
            message = (
                f"{match.group(0)!r} is typed by hand in {section.title!r}; show it in a generated "
                f"block, or add <!-- check: {match['number']} = EXPRESSION run=KEY --> beside it; "
                "a figure that is not ours: <!-- published: NUMBER WHERE -->"
            )
            findings.append(Finding(path, line_at(text, match.start()), message))
    return findings


def check_prompts(path: Path, text: str, status: str) -> list[Finding]:
    """What `worklog new` asks the author to write must be written once the problem is no draft."""
    if status.startswith("draft"):
        return []
    return [
        Finding(path, line_at(text, m.start()), f"still to be written: {m['what']}; write it")
        for m in PROMPT.finditer(blanked(text, FENCE))
    ]


def check_links(path: Path, text: str, root: Path, pages: dict[Path, set[str]]) -> list[Finding]:
    """Files, anchors and images that the page points to. `pages` keeps anchors of pages read."""
    findings = []

    def anchors_of(target: Path) -> set[str]:
        if target not in pages:
            pages[target] = anchors(target.read_text(encoding="utf-8", errors="replace"))
        return pages[target]

    pages[path] = anchors(text)
    for link in links(text):
        problem = _broken(path, link.target, root, anchors_of)
        if problem:
            findings.append(Finding(path, link.line, f"{problem}; correct the link"))
        if link.is_image and not link.text.strip():
            message = f"image {link.target} has no text for those who cannot see it; write one"
            findings.append(Finding(path, link.line, message))
    for name, line in named_files(text):
        placeholder = any(part.isupper() for part in Path(name).parts)  # problems/NAME/run.sh
        if not placeholder and not (root / name).exists():
            findings.append(Finding(path, line, f"names {name}, which does not exist; correct it"))
    return findings


def _broken(
    path: Path, target: str, root: Path, anchors_of: Callable[[Path], set[str]]
) -> str | None:
    """What is wrong with a link's target; None where it is right or outside the repository."""
    parts = urlsplit(target)
    if parts.scheme in ("http", "https"):
        return None if parts.netloc else f"{target} names no site"
    if parts.scheme or target.startswith("/"):
        return f"{target} works on one machine only"
    place = Path(os.path.abspath(path.parent / unquote(parts.path))) if parts.path else path
    if not place.exists():
        return f"{parts.path} does not exist"
    if not place.is_relative_to(os.path.abspath(root)) and parts.path:
        return f"{parts.path} lies outside of the repository"
    if parts.fragment and place.suffix == ".md" and parts.fragment not in anchors_of(place):
        return f"{parts.path or 'this page'} has no heading #{parts.fragment}"
    return None


def check_captions(path: Path, text: str, figures: Iterable[int]) -> list[Finding]:
    """Below each figure's block (given by the positions of their ends) stands what it shows."""
    findings = []
    for end in figures:
        below = text[end:].lstrip("\n").split("\n", 1)[0]
        if len(prose(below).split()) < 3 or below.startswith(("#", "<", "|", "!")):
            message = "the figure has no caption; write its finding in the line below the block"
            findings.append(Finding(path, line_at(text, end), message))
    return findings


def check_fences(path: Path, text: str) -> list[Finding]:
    """A code fence that is not closed hides whatever follows from every other rule."""
    marks = list(re.finditer(r"^(```+|~~~+)", text, re.MULTILINE))
    if len(marks) % 2 == 0:
        return []
    line = line_at(text, marks[-1].start())
    return [Finding(path, line, "a code fence is not closed; close it")]
