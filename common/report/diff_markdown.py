"""How is a difference shown in a pull request? GitHub Markdown in which a name is only text.

Whatever comes out of a file stands in a code span, where GitHub links no @name, #number or
address, and in which nothing but a backtick or a pipe could end the span or the cell: those two
are written as \\x60 and \\x7c. Whatever the input, the page stays below GitHub's limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from common.diff.difference import Difference, Row
from common.report import diff_sides as sides
from common.report import diff_view as view
from common.report.diff_lines import Line, causes, matched, row_lines
from common.report.rank_table import rank_table

LIMIT = 65_000  # GitHub takes 65,536 characters in a comment
NAMES, NAME_LENGTH = 20, 160
LISTED = 12  # reasons, notes, warnings, causes, remainders, devices: the rest is counted
# What Markdown or GitHub may take for more than text, and words that it links by themselves.
_ACTIVE = re.compile(r"\S*(?:[`|\\*_~<>\[\]#@&$!{}]|://|www\.|GH-\d)\S*", re.IGNORECASE)
BADGES = {"SLOWER": "🔴", "FASTER": "🟢", "SAME": "⚪", "AMBIGUOUS": "🟡", "NOT_COMPARABLE": "🟡"}


def difference_markdown(d: Difference, *, top: int = NAMES) -> str:
    """The page as Markdown, at most LIMIT characters; fewer rows where `top` would pass it."""
    rows = view.names_of(d)
    while True:
        page = "\n\n".join(part for part in _parts(d, rows, top) if part) + "\n"
        if len(page) <= LIMIT or top == 0:
            return page
        top //= 2


def _parts(d: Difference, rows: Sequence[Row], top: int) -> list[str]:
    verdict = d.judgement.verdict
    badge = f"{BADGES[verdict]} " if verdict in BADGES else ""
    facts = [(prose(fact), code(a), code(b)) for fact, a, b in sides.fact_differences(d)[:LISTED]]
    return [
        f"### {badge}{prose(verdict)} ({prose(view.verdict_words(d))})",
        f"A {code(sides.path_of(d.a))} → B {code(sides.path_of(d.b))}",
        _list(d.judgement.reasons),
        _table(("differs", "A", "B"), facts) if facts else "",
        _totals(d),
        view.direction(d) and f"**{prose(view.direction(d))}**",
        _list(d.notes),
        _rows(d, rows, top),
        _gaps(d),
        _folded("By rank", _ranks(d)),
        _folded("How the rows were matched", _matching(d)),
        _folded("Warnings", _list(sides.warnings_of(d))),
    ]


def code(text: str, most: int = NAME_LENGTH) -> str:
    """A code span that holds a name and nothing else."""
    shown = view.clipped(str(text), most).replace("`", "\\x60").replace("|", "\\x7c").strip()
    return f"`{shown or '(no name)'}`"


def prose(text: str, most: int = 300) -> str:
    """A sentence; each of its words that may be more than text stands in a code span."""
    return _ACTIVE.sub(lambda found: code(found[0], most), view.sentence(text, most))


def _list(sentences: Iterable[str]) -> str:
    found = list(sentences)
    lines = [f"- {prose(says)}" for says in found[:LISTED]]
    if len(found) > LISTED:
        lines.append(f"- ({len(found) - LISTED:,} more)")
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> str:
    lines = [heads, ["--:" if head in right else "---" for head in heads], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>" if content else ""


def _totals(d: Difference) -> str:
    rows = [
        (
            prose(total.head),
            view.amount(total.a, total.unit),
            view.amount(total.b, total.unit),
            view.signed(total.delta, total.unit),
            "" if total.change is None else f"{1 + total.change:.4f}",
        )
        for total in view.totals(d)
    ]
    right = ("A", "B", "delta", "B/A")
    return _table(("", *right), rows, right)


def _rows(d: Difference, rows: Sequence[Row], top: int) -> str:
    unit = view.unit_of(d.quantity)
    effect = "size effect" if unit == "bytes" else "duration effect"
    heads = (
        f"delta {unit}".strip(), "of \\|delta\\|", "A", "B", "count", "count effect", effect,
        "match", "name",
    )  # fmt: skip
    lines, size = row_lines(d, rows, top, LISTED)
    table = []
    for line in lines:
        delta, *cells = line.cells(unit, size)
        if unit == "bytes":
            delta += f" ({view.mebibytes(line.delta)} MiB)"
        table.append([delta, *(cell.replace("->", "→") for cell in cells), _name(line)])
    return _table(heads, table, heads[:7])


def _name(line: Line) -> str:
    if line.row is None:
        return f"remainder: {code(line.name)}" if line.remainder else line.name
    new = line.row.name_b
    return code(line.name) + (f" → {code(new)}" if new is not None else "")


def _gaps(d: Difference) -> str:
    if d.gaps is None or not (d.gaps.a_ns or d.gaps.b_ns):
        return ""
    right = ("delta ms", "A", "B", "gaps")
    rows = [
        (
            view.signed(delta, "ms"), view.amount(a, "ms"), view.amount(b, "ms"),
            counts.replace("->", "→"), prose(cause),
        )
        for delta, a, b, counts, cause in causes(d.gaps, LISTED)
    ]  # fmt: skip
    return _table((*right, "idle time by cause"), rows, right)


def _ranks(d: Difference) -> str:
    found = rank_table(d)
    return found.markdown() if found is not None else ""


def _matching(d: Difference) -> str:
    found = matched(d)
    a, b = sum(tier.a for tier in found), sum(tier.b for tier in found)
    rows = [
        (
            str(tier.tier),
            f"{tier.groups:,}",
            f"{tier.one_to_one:,}",
            f"{100 * tier.a / a:.1f} %" if a else "",
            f"{100 * tier.b / b:.1f} %" if b else "",
        )
        for tier in found
    ]
    heads = ("match", "groups", "one to one", "share of A", "share of B")
    known = [
        f"{total.label}: {view.amount(total.a, 'ms')} → {view.amount(total.b, 'ms')} ms"
        for total in view.information(d)
    ]
    return "\n\n".join(
        part for part in (_table(heads, rows, heads[1:]) if rows else "", _list(known)) if part
    )
