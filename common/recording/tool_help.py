"""Which options does the installed profiler know? Its own `--help`, read as a table.

An option that a version does not know would end the whole capture, so it is left out and said so.
Two layouts: nsys prints the options at one tab and what they take below, ncu prints two columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# `-c, --capture-range=` (nsys) or `-c [ --launch-count ] arg` or `--nvtx` (ncu), at a line's start.
OPTION = re.compile(
    r"^(?:\t| {2,4})(?:-\w(?:, | \[ ))?(--[a-z](?:[a-z0-9]|-(?!\[))*(?:-\[[a-z|]+\])?)", re.M
)
BRANCHES = re.compile(r"^(.*)-\[([a-z|]+)\]$")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class ToolHelp:
    """A profiler's options, each with the words of its description."""

    version: str
    options: dict[str, frozenset[str]]

    def knows(self, flag: str, value: str | None = None) -> bool:
        """Is there this option, and does it list each of the (comma-separated) words of `value`?"""
        if flag not in self.options:
            return False
        words = [] if value is None else [part.split(":")[0] for part in value.split(",")]
        return all(word in self.options[flag] for word in words)


@dataclass(frozen=True)
class Option:
    """One option of a command line. `listed`: the help names the values that it takes."""

    flag: str
    value: str | None = None
    listed: bool = False

    @property
    def text(self) -> str:
        return self.flag if self.value is None else f"{self.flag}={self.value}"


@dataclass(frozen=True)
class CommandLine:
    argv: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # options that this version does not know


def read_help(version: str, text: str) -> ToolHelp:
    """The options of `nsys profile --help` or `ncu --help`."""
    found = list(OPTION.finditer(text))
    options: dict[str, frozenset[str]] = {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=True):
        words = frozenset(WORD.findall(text[match.end() : end]))
        branches = BRANCHES.match(match[1])
        for flag in (
            [f"{branches[1]}-{branch}" for branch in branches[2].split("|")]
            if branches
            else [match[1]]
        ):
            options[flag] = options.get(flag, frozenset()) | words
    return ToolHelp(version, options)


def short_version(text: str) -> str:
    """`2022.4.2` of what `--version` prints; `unknown` where it prints none."""
    match = re.search(r"\b(\d{4}\.\d+(?:\.\d+)?)", text)
    return match[1] if match else "unknown"


def fit(options: Sequence[Option], known: ToolHelp | None) -> tuple[list[str], list[str]]:
    """(options as text, those left out). `known` None: the tool is not here, all are kept."""
    kept, left_out = [], []
    for option in options:
        if known is None or known.knows(option.flag, option.value if option.listed else None):
            kept.append(option.text)
        else:
            left_out.append(option.text)
    return kept, left_out
