"""How is a table written? One table as data, printed for Markdown, a terminal or an HTML page.

Cells are data and may hold anything: whatever they hold stays text in all three. The only markup
that is understood is `code` in backticks and a whole cell in **bold**.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FIRST_ROWS = 300  # of a sortable table on a page; a browser takes its time over thousands
ENTITIES = {c: f"&#{ord(c)};" for c in "|`\\<>"}


@dataclass(frozen=True)
class Table:
    """`right` names the columns that hold numbers and are aligned to the right.

    `links` gives cells (by their whole text) a target in Markdown; they are the project's own.
    `foot` is a last row that sorting and filtering leave where it is: the sum of the others.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    note: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    foot: tuple[str, ...] = ()

    def markdown(self) -> str:
        marks = ["--:" if column in self.right else "---" for column in self.columns]
        lines = [_row([escape_markdown(c) for c in self.columns]), "|" + "|".join(marks) + "|"]
        lines += [_row([self._markdown_cell(cell) for cell in row]) for row in self._all_rows]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines)

    @property
    def _all_rows(self) -> tuple[tuple[str, ...], ...]:
        return (*self.rows, self.foot) if self.foot else self.rows

    def _markdown_cell(self, cell: str) -> str:
        text = escape_markdown(cell)
        return f"[{text}]({self.links[cell]})" if cell in self.links else text

    def text(self) -> str:
        """Aligned columns for a terminal; control characters are shown, never sent."""
        rows = [tuple(printable(_plain(c)) for c in r) for r in (self.columns, *self._all_rows)]
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
            lines += ["", self.note.strip("_")]
        return "\n".join(lines)

    def html(self, caption: str, badges: Mapping[str, str] | None = None, style: str = "") -> str:
        """A captioned table in a box that scrolls by itself; its first column heads the rows.

        `badges` maps the first words of a cell to a class (a colour) of the page's style. `style`
        is "sortable", or "fit" for a table that may wrap its numbers on a phone.
        """
        head = "".join(
            f'<th scope="col"{self._class(column)}>{inline_html(column)}</th>'
            for column in self.columns
        )
        lines = [self._html_row(row, badges or {}) for row in self.rows]
        box, body = "{}", f"<tbody>{chr(10).join(lines)}</tbody>"
        if style == "sortable" and len(lines) > FIRST_ROWS:
            # No script is needed to see the others: the style of the page asks the check box.
            parts = lines[:FIRST_ROWS], lines[FIRST_ROWS:]
            first, more = ("\n".join(part) for part in parts)
            body = f'<tbody>{first}</tbody>\n<tbody class="more">{more}</tbody>'
            box = (
                '<div class="long"><label class="rest"><input type="checkbox"> Show all '
                f"{len(lines):,} rows, not only {FIRST_ROWS}</label>{{}}</div>"
            )
        foot = f"<tfoot>{self._html_row(self.foot, badges or {})}</tfoot>" if self.foot else ""
        note = f'<p class="note">{inline_html(self.note.strip("_"))}</p>' if self.note else ""
        name = escape_html(caption)
        table = (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">'
            f'<table class="{style}"><caption>{name}</caption>'
            f"<thead><tr>{head}</tr></thead>\n{body}{foot}</table></div>"
        )
        return f"{box.replace('{}', table)}{note}\n"

    def _html_row(self, row: Sequence[str], badges: Mapping[str, str]) -> str:
        cells = "".join(
            f"<td{self._class(column)}>{_badged(cell, badges)}</td>"
            for column, cell in zip(self.columns[1:], row[1:], strict=True)
        )
        return f'<tr><th scope="row">{inline_html(row[0])}</th>{cells}</tr>'

    def _class(self, column: str) -> str:
        return ' class="n"' if column in self.right else ""


def _badged(cell: str, badges: Mapping[str, str]) -> str:
    for words, style in badges.items():
        if cell == words or cell.startswith((words + ":", words + " ")):
            rest = inline_html(cell[len(words) :])
            return f'<span class="badge {style}">{escape_html(words)}</span>{rest}'
    return inline_html(cell)


def escape_html(text: object) -> str:
    """Text for an element or a quoted attribute; control characters are shown."""
    return html.escape(printable(str(text)), quote=True)


def inline_html(cell: str) -> str:
    """A cell's text with its `code` and **bold**; everything else is escaped."""
    text = escape_html(cell)
    if _is_bold(text):
        text = f"<strong>{text[2:-2]}</strong>"
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def escape_markdown(text: str) -> str:
    """A cell that stays one cell and renders as text: no pipe, tag, link or line break.

    Code spans are kept only where every reader pairs the backticks alike: single ones, an even
    number of them, with no pipe or backslash about. Anything else is written as entities, since
    a backtick that opens no span would leave the tags after it alive.
    """
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    if "``" in text or text.count("`") % 2 or "|" in text or "\\" in text:
        return _unlinked("".join(ENTITIES.get(c, c) for c in text))
    parts = text.split("`")
    parts[0::2] = [_unlinked(p.replace("<", "&lt;").replace(">", "&gt;")) for p in parts[0::2]]
    return "`".join(parts)


def _unlinked(text: str) -> str:
    return text.replace("](", "]&#40;")


def milliseconds(value_ns: float) -> str:
    """ns as ms with three significant digits."""
    value = value_ns / 1e6
    if value < 1:  # nothing that was measured may read as 0.00
        return significant(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def significant(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e+" in text else text


def interval(low: float, high: float) -> str:
    return f"{significant(low)} … {significant(high)}"


def mebibytes(value: float) -> str:
    return f"{value / (1 << 20):,.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _is_bold(cell: str) -> bool:
    return len(cell) > 4 and cell.startswith("**") and cell.endswith("**")


def _plain(cell: str) -> str:
    return cell[2:-2] if _is_bold(cell) else cell
