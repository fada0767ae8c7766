"""What stands where on a Markdown page? Headings with their anchors, links, and what is prose.

Positions never move: what is no prose (code, comments, generated blocks) is replaced by blanks of
the same length, so that every position still names its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from common.pages.finding import line_at

FENCE = re.compile(r"^(?P<mark>```+|~~~+)[^\n]*\n.*?^(?P=mark)[ ]*$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
GENERATED = re.compile(
    r"<!-- worklog:(?P<name>[a-z-]+)[^>]*-->\n.*?<!-- /worklog:(?P=name) -->", re.DOTALL
)
HEADING = re.compile(r"^(#{1,6}) +(.+?) *#* *$", re.MULTILINE)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\((?P<to>[^()\s]+)\)")
# A file of this repository that is named in the text, as `common/workloads/llama.py`.
NAMED_FILE = re.compile(
    r"`((?:common|problems|docker|notebooks|tests)/[\w./+-]+\.[a-z]+)(?:::[\w.:]+)?`"
)


@dataclass(frozen=True)
class Heading:
    level: int
    title: str
    line: int
    start: int  # position of the heading, and of the end of its line
    end: int


@dataclass(frozen=True)
class Section:
    """The text below a heading up to the next one that is no smaller."""

    title: str
    line: int
    start: int
    end: int


@dataclass(frozen=True)
class Link:
    target: str
    text: str
    is_image: bool
    line: int


def blanked(text: str, *patterns: re.Pattern[str]) -> str:
    """The text with every match replaced by blanks; line breaks stay."""
    for pattern in patterns:
        text = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group(0)), text)
    return text


def prose(text: str) -> str:
    """Only what the author wrote as text: no generated block, no code, no comment."""
    return blanked(text, GENERATED, FENCE, CODE, COMMENT)


def headings(text: str) -> tuple[Heading, ...]:
    bare = blanked(text, FENCE, COMMENT)
    return tuple(
        Heading(len(m[1]), m[2].strip(), line_at(bare, m.start()), m.start(), m.end())
        for m in HEADING.finditer(bare)
    )


def sections(text: str, level: int = 2) -> tuple[Section, ...]:
    found = headings(text)
    result = []
    for number, heading in enumerate(found):
        if heading.level != level:
            continue
        after = (h.start for h in found[number + 1 :] if h.level <= level)
        result.append(Section(heading.title, heading.line, heading.end, next(after, len(text))))
    return tuple(result)


def slug(title: str) -> str:
    """The anchor that GitHub makes of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
    kept = re.sub(r"[^\w\- ]", "", plain.strip().lower())
    return kept.replace(" ", "-")


def anchors(text: str) -> set[str]:
    """All anchors of a page; a heading that is repeated gets -1, -2, …"""
    seen: dict[str, int] = {}
    found = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in headings(text):
        name = slug(heading.title)
        again = seen.get(name, 0)
        found.add(name if not again else f"{name}-{again}")
        seen[name] = again + 1
    return found


def links(text: str) -> Iterator[Link]:
    """Every link and image of the page that is no code."""
    bare = blanked(text, FENCE, CODE, COMMENT)
    for match in LINK.finditer(bare):
        line = line_at(bare, match.start())
        yield Link(match["to"], match["text"], bool(match["image"]), line)


def named_files(text: str) -> Iterator[tuple[str, int]]:
    """(path, line) of files of the repository that the prose names."""
    bare = blanked(text, GENERATED, FENCE, COMMENT)
    for match in NAMED_FILE.finditer(bare):
        yield match[1], line_at(bare, match.start())
