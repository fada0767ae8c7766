"""How are thousands of rows shown in a page? Names in a table, each with its groups folded in it.

The table stays below a number of bytes whatever the rows: those that do not fit are summed in a
line of their own, so that the column of deltas always adds up to the total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.diff.difference import Difference, Row
from common.report import diff_view as view
from common.report.diff_lines import Line, counts, matched_how, reading, row_lines
from common.report.tables import escape_html

NAMES_SHOWN, GROUPS_SHOWN, CHILDREN_SHOWN, METRICS_SHOWN = 1000, 12, 6, 40
NAME_LENGTH = 300
ROOM_WITH_GROUPS, ROOM = 900_000, 1_400_000  # bytes of the table, with and without what is folded


def rows_table(difference: Difference, rows: Sequence[Row]) -> str:
    """`rows` are aggregated by name, the largest |delta| first."""
    unit = view.unit_of(difference.quantity)
    _, size = row_lines(difference, rows, 0)  # of all rows, however many are shown
    bodies: list[str] = []
    used = 0
    for row in rows[:NAMES_SHOWN]:
        body = _body(row, unit, size, used < ROOM_WITH_GROUPS)
        used += len(body.encode())
        if used > ROOM:
            break
        bodies.append(body)
    lines, _ = row_lines(difference, rows, len(bodies), remainders=20)
    foot = "".join(_foot(line, unit, size) for line in lines[len(bodies) :])
    return (
        '<div class="rows">'
        f'<table class="groups {"sizes" if unit == "bytes" else "times"}">'
        f"<caption>{escape_html(_caption(difference))}</caption>"
        f"<thead><tr>{_heads(unit)}</tr></thead>\n" + "\n".join(bodies) + f"\n<tfoot>{foot}</tfoot>"
        "</table></div>\n"
    )


def _caption(difference: Difference) -> str:
    return (
        f"{len(difference.rows):,} groups by name; delta is count effect + "
        f"{'size' if difference.quantity.endswith('_bytes') else 'duration'} effect"
    )


def _heads(unit: str) -> str:
    effect = "size effect" if unit == "bytes" else "duration effect"
    figures = (f"delta {unit}".strip(), "of |delta|", "A", "B", "count", "count effect", effect)
    cells = "".join(f'<th scope="col" class="n">{escape_html(head)}</th>' for head in figures)
    return f'{cells}<th scope="col">match</th><th scope="col">name</th>'


def _figures(line: Line, unit: str, size: int) -> str:
    *numbers, match = line.cells(unit, size)
    if unit == "bytes" and line.delta:
        numbers[0] += f"<small>{view.mebibytes(line.delta)} MiB</small>"
    style = "up" if line.delta > 0 else "down" if line.delta < 0 else ""
    first = f'<td class="n {style}">{numbers[0]}</td>'
    others = "".join(f'<td class="n">{cell.replace("->", "→")}</td>' for cell in numbers[1:])
    return f"{first}{others}<td>{match}</td>"


def _body(row: Row, unit: str, size: int, folded: bool) -> str:
    line = Line(row.delta, abs(row.delta), row.a, row.b, row.name, row)
    name = _code(row.name)
    if row.name_b is not None:
        name += f" → {_code(row.name_b)}"
    name += _reading(row)
    inside = _inside(row, unit) if folded else ""
    if inside:
        name = f"<details><summary>{name}</summary>{inside}</details>"
    return f'<tbody><tr>{_figures(line, unit, size)}<th scope="row">{name}</th></tr></tbody>'


def _foot(line: Line, unit: str, size: int) -> str:
    words = f"remainder: {_code(line.name)}" if line.remainder else escape_html(line.name)
    return f'<tr>{_figures(line, unit, size)}<th scope="row">{words}</th></tr>'


def _code(name: str, most: int = NAME_LENGTH) -> str:
    return f"<code><bdi>{escape_html(view.clipped(name, most))}</bdi></code>"


def _inside(row: Row, unit: str) -> str:
    """What unfolds below a name: where it is, its metrics, its groups or its children."""
    parts = []
    if row.path is not None:
        parts.append(f"<p>in {_code(row.path)}</p>")
    if row.interval is not None:
        low, high = (
            f"{end / 1e6:+,.6f}" if unit == "ms" else f"{end:+,.0f}" for end in row.interval
        )
        parts.append(f"<p>95 % interval per step: {low} … {high} {unit}</p>")
    if row.metrics:
        parts.append(_metrics(row.metrics))
    if row.children:
        parts.append(_list(row.children, unit, GROUPS_SHOWN, _groups_of(row)))
    return "".join(parts)


def _groups_of(row: Row) -> str:
    whole = sum(child.delta for child in row.children) == row.delta
    return "What it is made of" if whole else "The largest of what it is made of"


def _list(rows: Sequence[Row], unit: str, most: int, title: str = "") -> str:
    items = []
    for row in rows[:most]:
        path = f", in {_code(row.path, 160)}" if row.path is not None else ""
        renamed = f" → {_code(row.name_b, 100)}" if row.name_b is not None else ""
        inner = _list(row.children, unit, CHILDREN_SHOWN) if row.children else ""
        if row.metrics and title:
            figures = _metrics(row.metrics)
            inner += f"<details><summary>metrics</summary>{figures}</details>" if figures else ""
        items.append(
            f"<li><b>{view.signed(row.delta, unit)}</b> "
            f"({view.amount(row.a, unit)} → {view.amount(row.b, unit)}), "
            f"{counts(row).replace('->', '→')} ×, {matched_how(row)}"
            f"{path or ': ' + _code(row.name, 100) + renamed}{_reading(row)}{inner}</li>"
        )
    if len(rows) > most:
        rest = rows[most:]
        items.append(
            f"<li>({len(rest):,} more, {view.signed(sum(r.delta for r in rest), unit)})</li>"
        )
    head = f"<p>{title}, the largest change first:</p>" if title else ""
    return f"{head}<ul>{''.join(items)}</ul>"


def _reading(row: Row) -> str:
    words = reading(row)
    return f'<span class="how">{escape_html(words)}</span>' if words else ""


def _metrics(metrics: Mapping[str, Any]) -> str:
    shown = [(key, _in_words(value)) for key, value in metrics.items() if key != "reading"]
    rows = "".join(
        f"<div><dt>{escape_html(view.clipped(str(key).replace('_', ' '), 60))}</dt>"
        f"<dd><bdi>{escape_html(view.clipped(words, 300))}</bdi></dd></div>"
        for key, words in [(key, words) for key, words in shown if words][:METRICS_SHOWN]
    )
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _in_words(value: Any) -> str:
    """A metric's value, or what it became; empty where neither side has it."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        if "a" in value and "b" in value:
            sides = [_in_words(value[side]) for side in "ab"]
            if not any(sides):
                return ""
            change = sides[0] if sides[0] == sides[1] else " → ".join(s or "unknown" for s in sides)
            return f"{change} {value.get('unit') or ''}".strip()
        pairs = [(key, _in_words(inner)) for key, inner in list(value.items())[:METRICS_SHOWN]]
        return ", ".join(f"{key} {words}" for key, words in pairs if words)
    if isinstance(value, list | tuple):
        return " × ".join(_in_words(part) for part in value[:METRICS_SHOWN])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else str(value)
    )
