"""What does each section of a difference's page hold, beside its rows? Tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from common.diff.difference import Difference, GapCause
from common.diff.gate import side_total
from common.report import diff_sides as sides
from common.report import diff_view as view
from common.report.diff_lines import causes, matched
from common.report.tables import Table, escape_html

BADGES = {
    "SLOWER": "slow", "FASTER": "fast", "SAME": "same", "AMBIGUOUS": "unsure",
    "NOT_COMPARABLE": "unsure",
}  # fmt: skip
LISTED, DEVICES_SHOWN, CAUSES_SHOWN, GAPS_SHOWN, FACTS_SHOWN = 40, 16, 12, 12, 60


def verdict(d: Difference) -> str:
    """Banner, the three figures to read first, and the reasons."""
    found = d.judgement
    unit = view.unit_of(d.quantity)
    share = view.totals(d)[0].change
    changed = "" if share is None else f"{100 * share:+.2f} %, "
    mib = f", {view.mebibytes(d.delta)} MiB" if unit == "bytes" else ""
    style = BADGES.get(found.verdict, "unsure")
    speed = escape_html(view.sentence(view.verdict_words(d)))
    figures = [
        (
            "Verdict on speed",
            f'<span class="badge {style}">{escape_html(found.verdict)}</span>',
            speed,
        ),
        (
            escape_html(view.words_of(d.quantity)) + ", B - A",
            f"{view.signed(d.delta, unit)} {unit}{mib}",
            f"{changed}{view.amount(d.total_a, unit)} → {view.amount(d.total_b, unit)}",
        ),
        ("Rows and remainders", f"residual {view.residual_words(d)}", f"{len(d.rows):,} groups"),
    ]
    cells = "".join(
        f'<div><dt>{name}</dt><dd>{value}</dd><dd class="small">{what}</dd></div>'
        for name, value, what in figures
    )
    told = escape_html(view.direction(d))
    return (
        _device_banner(d)
        + f'<dl class="key">{cells}</dl>\n'
        + (f"<p><strong>{told}</strong></p>\n" if told else "")
        + _list(found.reasons)
    )


def _device_banner(d: Difference) -> str:
    changed = next((f for f in sides.fact_differences(d) if f[0] == "devices"), None)
    if changed is None:
        return ""
    names = [escape_html(view.clipped(name, 200)) for name in changed[1:]]
    return (
        '<p class="banner" role="note"><strong>Different devices.</strong> '
        f"A: {names[0]}; B: {names[1]}. What follows accounts for the difference; it does not say "
        "which software is faster.</p>\n"
    )


def _list(sentences: Sequence[str]) -> str:
    items = [f"<li>{escape_html(view.sentence(says, 600))}</li>" for says in sentences[:LISTED]]
    if len(sentences) > LISTED:
        items.append(f"<li>({len(sentences) - LISTED:,} more)</li>")
    return f"<ul>{''.join(items)}</ul>\n" if items else ""


def notes(d: Difference) -> str:
    return _list(d.notes)


def warnings(d: Difference) -> str:
    return _list(sides.warnings_of(d))


def surroundings(d: Difference) -> str:
    rows = tuple(
        (view.clipped(fact, 60), view.clipped(a, 300), view.clipped(b, 300))
        for fact, a, b in sides.fact_differences(d)[:FACTS_SHOWN]
    )
    return _table(("", "A", "B"), rows, "Devices and software") if rows else ""


def totals(d: Difference) -> str:
    rows = tuple(
        (
            total.head,
            view.amount(total.a, total.unit),
            view.amount(total.b, total.unit),
            view.signed(total.delta, total.unit),
            "" if total.change is None else f"{1 + total.change:.4f}",
        )
        for total in (*view.totals(d), *view.information(d))
    )
    return _table(("", "A", "B", "delta", "B/A"), rows, "Totals, and how much of them is what", 1)


def gaps(d: Difference) -> str:
    if d.gaps is None or not (d.gaps.a_ns or d.gaps.b_ns):
        return ""
    heads = ("idle time by cause", "delta ms", "A", "B", "gaps")
    rows = tuple(
        (
            view.clipped(cause, 200), view.signed(delta, "ms"), view.amount(a, "ms"),
            view.amount(b, "ms"), counts.replace("->", "→"),
        )
        for delta, a, b, counts, cause in causes(d.gaps, CAUSES_SHOWN)
    )  # fmt: skip
    table = _table(heads, rows, "Idle time of the devices; the causes add up to it", 1)
    largest = sorted(d.gaps.causes, key=lambda cause: -abs(cause.delta_ns))[:CAUSES_SHOWN]
    return table + "".join(_places(cause) for cause in largest if cause.children)


def _places(cause: GapCause) -> str:
    items = "".join(
        f"<li><b>{view.signed(child.delta_ns, 'ms')}</b> ({view.amount(child.a_ns, 'ms')} → "
        f"{view.amount(child.b_ns, 'ms')}), {child.count_a:,} → {child.count_b:,} ×: "
        f"<bdi>{escape_html(view.clipped(child.cause, 300))}</bdi></li>"
        for child in cause.children[:GAPS_SHOWN]
    )
    name = escape_html(view.clipped(cause.cause, 120))
    return f"<details><summary>Where: {name}</summary><ul>{items}</ul></details>\n"


def wall_clock(d: Difference) -> str:
    """Per device: the span, which is its busy and its idle time."""
    both = [_devices(side) for side in (d.a, d.b)]
    tables = []
    for a, b in list(zip_longest(*both, fillvalue={}))[:DEVICES_SHOWN]:
        rows = []
        for what in ("busy", "idle", "span"):
            key = f"{what}_ns"
            total = view.Total(what, side_total(a, key), side_total(b, key), "ms")
            if (total.a, total.b) != (None, None):
                figures = (view.amount(total.a, "ms"), view.amount(total.b, "ms"))
                rows.append((f"{what}, ms", *figures, view.signed(total.delta, "ms")))
        if rows:
            heads = ("span = busy + idle", "A", "B", "delta")
            tables.append(_table(heads, tuple(rows), f"Device {_device_name(a, b)}", 1))
    more = max(map(len, both)) - DEVICES_SHOWN
    return "".join(tables) + (f"<p>({more} more devices)</p>\n" if more > 0 else "")


def _devices(side: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = side.get("devices")
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def _device_name(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    names = [
        view.clipped(f"{device.get('id', '?')} {device.get('name') or ''}".strip(), 80)
        for device in (a, b)
        if device
    ]
    return names[0] if len(set(names)) == 1 else " → ".join(names)


def matching(d: Difference) -> str:
    found = matched(d)
    a, b = sum(tier.a for tier in found), sum(tier.b for tier in found)
    rows = tuple(
        (
            str(tier.tier), f"{tier.groups:,}", f"{tier.one_to_one:,}",
            f"{100 * tier.a / a:.1f} %" if a else "", f"{100 * tier.b / b:.1f} %" if b else "",
        )
        for tier in found
    )  # fmt: skip
    heads = ("evidence", "groups", "one to one", "share of A", "share of B")
    if not rows:
        return "<p>There are no rows: nothing had to be matched.</p>"
    return _table(
        heads, rows, "On what evidence the two sides of a group were taken for the same", 1
    )


def files(d: Difference) -> str:
    """The plain facts of both files, whatever their readers say; times stand among the totals."""
    keys = [
        key
        for key in dict.fromkeys((*d.a, *d.b))
        if not key.endswith("_ns")
        and any(isinstance(side.get(key), str | int) for side in (d.a, d.b))
    ]
    rows = tuple(
        (key.replace("_", " "), *(_fact(key, side.get(key)) for side in (d.a, d.b)))
        for key in keys[:FACTS_SHOWN]
    )
    return _table(("fact", "A", "B"), rows, "What was read", 1) if rows else ""


def _fact(key: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return view.amount(value, view.unit_of(key)) + (f" {view.unit_of(key)}".rstrip())
    return "unknown" if value is None else view.clipped(str(value), 200)


def _table(
    heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...], caption: str, words: int = 9
) -> str:
    """All but the first `words` columns hold numbers."""
    return Table(heads, rows, heads[words:]).html(caption, style="fit")
