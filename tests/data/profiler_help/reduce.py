"""Reduce a profiler's help to what it says of options: their names and the words they take.

    nsys profile --help | python reduce.py > nsys-VERSION.txt
    ncu --help | python reduce.py > ncu-VERSION.txt

The layout stays the tool's own, so that the parser is tested on it; the prose goes.
"""

from __future__ import annotations

import re
import sys

OPTION = re.compile(r"^(?:\t| {2,4})(?:-\w[, ].*?)?--[a-z]")
QUOTED = re.compile(r"'([A-Za-z][\w:-]*)[^']*'")
LISTED = re.compile(r"Possible values are:? ([^`.]*)\.")
CHOICE = re.compile(r"^ {40,}([a-z][a-z-]*)(?: \(default\))?$")


def reduce(text: str) -> str:
    lines, block = [], ""
    for line in [*text.splitlines(), ""]:
        if OPTION.match(line) or not line:
            words = QUOTED.findall(block)
            listed = LISTED.search(" ".join(block.split()))
            if listed and not words:
                words = re.findall(r"[A-Za-z][\w-]*", listed[1])
            if words:
                lines.append("\t   " + " ".join(dict.fromkeys(words)))
            block = ""
        if OPTION.match(line):
            # ncu's second column is prose.
            lines.append(re.split(r"(?<=\S) {2,}", line)[0] if line[0] == " " else line)
        elif CHOICE.match(line):
            lines.append(" " * 42 + CHOICE.match(line)[1])  # type: ignore[index]
        else:
            block += line + "\n"
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reduce(sys.stdin.read()))
