"""How is a table written? One table as data, printed for Markdown or for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """`right` names the columns that hold numbers and are aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    note: str = ""

    def markdown(self) -> str:
        marks = ["--:" if column in self.right else "---" for column in self.columns]
        lines = [_row(self.columns), "|" + "|".join(marks) + "|"]
        lines += [_row([escape_markdown(cell) for cell in row]) for row in self.rows]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)

    def text(self) -> str:
        """Aligned columns for a terminal; control characters are shown, never sent."""
        rows = [self.columns, *[tuple(printable(c) for c in row) for row in self.rows]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        right = [column in self.right for column in self.columns]
        lines = []
        for number, row in enumerate(rows):
            cells = [
                cell.rjust(width) if flush else cell.ljust(width)
                for cell, width, flush in zip(row, widths, right, strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
            if number == 0:
                lines.append("  ".join("-" * width for width in widths))
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def escape_markdown(text: str) -> str:
    """A cell that stays one cell and renders as text: no pipe, no tag, no line break.

    Inside backticks only the pipe must be escaped; elsewhere angle brackets are too.
    """
    text = printable(text).replace("|", "\\|")
    parts = text.split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick: no code span to protect
        return text.replace("<", "&lt;").replace(">", "&gt;")
    outside = [p.replace("<", "&lt;").replace(">", "&gt;") for p in parts[0::2]]
    inside = parts[1::2]
    woven = [outside[0]]
    for code, plain in zip(inside, outside[1:], strict=True):
        woven += ["`" + code + "`", plain]
    return "".join(woven)


def milliseconds(value_ns: float) -> str:
    """ns as ms with three significant digits."""
    value = value_ns / 1e6
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def significant(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text else text


def interval(low: float, high: float) -> str:
    return f"{significant(low)} … {significant(high)}"


def mebibytes(value: float) -> str:
    return f"{value / (1 << 20):,.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
