"""How is a difference shown on a terminal? One screen: verdict, totals, rows that add up, gaps.

Only the figures of this page carry colour, and only where the caller says that a terminal reads
it. What came out of a file is clipped and printable before it gets here.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.diff.difference import Difference, Row
from common.report import diff_view as view
from common.report.diff_lines import TIER_WORDS, Line, causes, matched, names_in, reading, row_lines
from common.report.diff_sides import path_of
from common.report.tables import Table

SCREEN = 45  # lines
NARROWEST = 60
LEAST_ROWS = 3
NOTES_SHOWN, REASONS_SHOWN, CAUSES_SHOWN, REMAINDERS_SHOWN = 3, 3, 4, 5
BESIDE = 24  # a name is put beside its figures if this much of it fits, else below them
COLOURS = {"SLOWER": "31;1", "FASTER": "32;1", "SAME": "1"}


def difference_text(
    d: Difference,
    *,
    top: int = 20,
    width: int,
    lines: int | None = None,
    colour: bool = False,
) -> str:
    """The text of `worklog diff`, `width` columns wide.

    At most `top` names are shown, fewer where `lines` is given and would be passed; what is not
    shown is summed in a line of its own, so that the column of deltas always adds up.
    """
    width = max(width, NARROWEST)
    rows = view.names_of(d)
    before, after = _before(d, width, colour), _after(d, width)
    shown = max(0, top)
    table = _rows(d, rows, shown, width, colour)
    while lines is not None and shown > LEAST_ROWS:
        # One empty line stands between any two parts; a name takes one line or two.
        over = sum(part.count("\n") + 2 for part in (*before, table, *after)) - 1 - lines
        if over <= 0:
            break
        shown = max(LEAST_ROWS, min(shown, len(rows)) - (over + 1) // 2)
        table = _rows(d, rows, shown, width, colour)
    return "\n\n".join([*before, table, *after])


def _before(d: Difference, width: int, colour: bool) -> list[str]:
    half = (width - 8) // 2
    head = f"A {path_of(d.a, half)}  ->  B {path_of(d.b, half)}"
    found = d.judgement
    verdict = view.sentence(found.verdict, 40)
    painted = _paint(verdict, COLOURS.get(verdict, "33;1"), colour)
    reasons = [view.sentence(reason, 2 * width) for reason in found.reasons]
    first = [f"{painted} ({view.verdict_words(d)})", *_wrapped(reasons[:REASONS_SHOWN], width)]
    parts = ["\n".join([*_clip([head], width), *first]), _totals(d, width)]
    notes = [view.sentence(note, 2 * width) for note in d.notes]
    if notes:
        left_out = len(notes) - NOTES_SHOWN
        more = [f"  (notes: {left_out} more, see --json)"] if left_out > 0 else []
        parts.append("\n".join([*_wrapped(notes[:NOTES_SHOWN], width), *more]))
    return parts


def _totals(d: Difference, width: int) -> str:
    rows = tuple(
        (
            total.head,
            view.amount(total.a, total.unit),
            view.amount(total.b, total.unit),
            view.signed(total.delta, total.unit),
            "" if total.change is None else f"{1 + total.change:.4f}",
        )
        for total in view.totals(d)
    )
    right = ("A", "B", "delta", "B/A")
    table = Table(("", *right), rows, right).text().split("\n")
    return "\n".join(_clip([table[0], *table[2:], view.direction(d)], width)).rstrip("\n")


def _rows(d: Difference, rows: Sequence[Row], top: int, width: int, colour: bool) -> str:
    """Figures, a line that sums the names below the top, remainders, and the sum of all."""
    unit = view.unit_of(d.quantity)
    lines, size = row_lines(d, rows, top, REMAINDERS_SHOWN)
    table = [(*line.cells(unit, size), view.mebibytes(line.delta)) for line in lines]
    names = [names_in(line.row, 400) if line.row else _sum_name(line) for line in lines]
    says = [reading(line.row) for line in lines if line.row is not None]
    return "\n".join(_laid_out(unit, table, names, list(rows[:top]), says, width, colour))


def _sum_name(line: Line) -> str:
    return f"remainder: {view.clipped(line.name, 100)}" if line.remainder else line.name


def _laid_out(
    unit: str,
    table: Sequence[tuple[str, ...]],
    names: Sequence[str],
    rows: Sequence[Row],
    readings: Sequence[str],
    width: int,
    colour: bool,
) -> list[str]:
    """The figures in columns that fit, each name beside its figures or on the line below them."""
    heads: tuple[str, ...] = (
        f"delta {unit}".strip(), "of |delta|", "A", "B", "count A -> B", "count effect",
        "size effect" if unit == "bytes" else "duration eff.", "match", "MiB",
    )  # fmt: skip
    columns = list(range(8))  # the ninth, MiB, only for bytes
    if unit == "bytes":
        columns.insert(1, 8)
    if not any(row[5].strip("0.") for row in table):
        columns = [c for c in columns if c not in (5, 6)]  # no count changed: all is duration
    for least in (2, 3, 6, 1):
        if sum(max(len(r[c]) for r in (heads, *table)) + 2 for c in columns) <= width:
            break
        columns = [c for c in columns if c != least]
    picked = Table(
        tuple(heads[c] for c in columns),
        tuple(tuple(row[c] for c in columns) for row in table),
        tuple(heads[c] for c in columns if c != 7),
    ).text().split("\n")  # fmt: skip
    figures = [picked[0], *picked[2:]]
    shown = len(readings)
    left = max(len(line) for line in figures) + 2
    beside = left + BESIDE <= width and left + max(map(len, names)) <= width
    result = [f"{figures[0]:<{left}}name" if beside else figures[0]]
    for place, (line, name) in enumerate(zip(figures[1:], names, strict=True)):
        last = place >= shown  # sums, whose names are short and stay beside them
        painted = _painted_delta(line, table[place][0], colour and not last)
        if beside:
            result += [painted + " " * (left - len(line)) + name]
        elif last:
            whole = place == len(table) - 1  # of the sum of all nothing is left out
            room = max(width - len(line) - 2, 40)
            result += [f"{painted}  {name if whole else _cut(name, room)}"]
        else:
            result += [painted, "    " + names_in(rows[place], width - 4)]
        if not last and readings[place]:
            result.append("      " + _cut(readings[place], width - 6))
    return result


def _after(d: Difference, width: int) -> list[str]:
    known = [
        f"{total.label} {view.amount(total.a, 'ms')} -> {view.amount(total.b, 'ms')} ms"
        for total in view.information(d)
    ]
    more = ["within the rows: " + ", ".join(known)] if known else []
    parts = [_gaps(d), "\n".join([_matching(d, width), *more])]
    return ["\n".join(_clip(part.split("\n"), width)) for part in parts if part]


def _gaps(d: Difference) -> str:
    if d.gaps is None or not (d.gaps.a_ns or d.gaps.b_ns):
        return ""
    rows = tuple(
        (view.signed(delta, "ms"), view.amount(a, "ms"), view.amount(b, "ms"), counts, cause)
        for delta, a, b, counts, cause in causes(d.gaps, CAUSES_SHOWN)
    )
    rows = tuple((*row[:4], view.clipped(row[4], 60)) for row in rows)
    right = ("delta ms", "A", "B", "gaps")
    lines = Table((*right, "idle time by cause"), rows, right).text().split("\n")
    return "\n".join([lines[0], *lines[2:]])


def _matching(d: Difference, width: int) -> str:
    found = matched(d)
    if not found:
        return "no rows: there is nothing to match"
    a, b = sum(tier.a for tier in found), sum(tier.b for tier in found)
    each = ", ".join(
        f"{TIER_WORDS[tier.tier]} {_part(tier.a, a)} / {_part(tier.b, b)}" for tier in found
    )
    groups, pairs = sum(tier.groups for tier in found), sum(tier.one_to_one for tier in found)
    shares = "\n".join(_wrapped([f"matched, % of A / B: {each}"], width)).strip()
    repeated = sum(row.count_a == row.count_b > 1 for row in d.rows)
    says = [f"{pairs:,} of them one to one"] if pairs else []
    says += [f"{repeated:,} as often on both sides"] if repeated else []
    head = f"{groups:,} {'group' if groups == 1 else 'groups'}"
    return f"{shares}\n{', '.join([head, *says])}"


def _part(value: int, whole: int) -> str:
    return f"{100 * value / whole:.1f}" if whole else "-"


def _wrapped(sentences: Sequence[str], width: int) -> list[str]:
    """Sentences as indented lines, two at most for each."""
    lines = []
    for words in sentences:
        room = width - 2
        if len(words) <= room:
            lines.append("  " + words)
            continue
        at = words.rfind(" ", 0, room + 1)
        at = at if at > room // 2 else room
        lines += ["  " + words[:at], "  " + _cut(words[at:].strip(), room)]
    return lines


def _clip(lines: Sequence[str], width: int) -> list[str]:
    return [_cut(line, width) for line in lines]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _painted_delta(line: str, delta: str, colour: bool) -> str:
    style = "31" if delta.startswith("+") else "32" if delta.startswith("-") else ""
    return line.replace(delta, _paint(delta, style, colour), 1) if style else line


def _paint(text: str, style: str, colour: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if colour else text
