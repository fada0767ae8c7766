"""What is wrong, where, and what mends it? One line per finding, `path:line: message`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

STALE = "run worklog render"  # ends the message of everything that `worklog render` mends


@dataclass(frozen=True)
class Finding:
    """Something wrong in a file: `path:line: message`; the message ends in the next action."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def line_with(path: Path, *patterns: str) -> int:
    """The first line from which on each pattern is found, one after the other; 1 if none is."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 1
    position, found = 0, 0
    for pattern in patterns:
        match = re.compile(pattern, re.MULTILINE).search(text, position)
        if match is None:
            break
        position, found = match.end(), match.start()
    return line_at(text, found)


def read_utf8(path: Path) -> tuple[str, list[Finding]]:
    """A page's text. What is no UTF-8 is a finding with its line, and the text is empty."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        message = (
            f"is not UTF-8 ({error.reason} at byte {error.start}, perhaps {guess}); "
            "save it as UTF-8"
        )
        return "", [Finding(path, line, message)]


_PLACES = (re.compile(r"at line (\d+)"), re.compile(r"in position (\d+)"))


def finding_of(error: Exception, otherwise: Path) -> Finding:
    """A finding from an error whose text begins with the file that it is about.

    The line is the one that the reader of TOML or of UTF-8 named; 1 where it names none.
    """
    words = " ".join(str(error).split())
    path = otherwise
    for candidate in (otherwise, otherwise.with_name("predictions.toml")):
        if words.startswith(f"{candidate}: "):
            path, words = candidate, words.removeprefix(f"{candidate}: ")
            break
    by_line, by_byte = (pattern.search(words) for pattern in _PLACES)
    if by_line:
        return Finding(path, int(by_line[1]), words)
    if by_byte and path.exists():
        return Finding(path, path.read_bytes().count(b"\n", 0, int(by_byte[1])) + 1, words)
    quoted = re.search(r"(?:variant|preset|claim|set|prediction|study) '?\"?([\w.+-]+)", words)
    return Finding(path, line_with(path, re.escape(quoted[1])) if quoted else 1, words)
