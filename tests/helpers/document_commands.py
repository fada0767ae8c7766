"""Which commands do the documents tell a reader to type, and what output do they promise?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASH = re.compile(r"^ *```bash\n(.*?)^ *```\n(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
ASSIGNMENT = re.compile(r"([a-z_]+)=(\S+)$")
TYPED = re.compile(
    r"PYTHONPATH=|(?:\.venv/bin/)?worklog [a-z]|\./run\.sh|\.venv/bin/python |python3? -m "
    r"|python [\w./]+\.py"
    r"|problems/\w+/[\w.]+\.sh|(?:\./)?capture_\w+\.sh|docker (?:build|buildx)|cd problems/"
)


@dataclass(frozen=True)
class Command:
    """One thing to type. `promised` are the lines that the page says it prints."""

    page: Path
    line: int
    text: str
    promised: tuple[str, ...] = ()
    in_block: bool = False

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def commands(page: Path) -> Iterator[Command]:
    """Every command of a page: in its bash blocks, variables filled in, and between backticks."""
    text = page.read_text(encoding="utf-8")
    known: dict[str, str] = {}
    for block in BASH.finditer(text):
        promised = tuple(" ".join(line.split()) for line in (block[2] or "").splitlines())
        found = []
        for number, raw in enumerate(block[1].splitlines(), text.count("\n", 0, block.start()) + 2):
            line = re.split(r"(?:^|\s+)# ", raw)[0].strip()
            for name, value in known.items():
                line = re.sub(rf"\${name}\b", value, line)
            if assigned := ASSIGNMENT.fullmatch(line):
                known[assigned[1]] = assigned[2]
            elif line:
                found += [(number, part.strip()) for part in line.split(" && ")]
        for at, (number, part) in enumerate(found):
            last = at == len(found) - 1
            yield Command(page, number, part, promised if last else (), in_block=True)
    bare = FENCED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for span in SPAN.finditer(bare):
        if TYPED.match(span[1]):
            number = text.count("\n", 0, span.start()) + 1
            for part in span[1].split(" && "):
                yield Command(page, number, part.strip())
