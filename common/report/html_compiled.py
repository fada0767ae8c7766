"""What does a page hold of variants that are compiled, counted or modelled, and not timed?

Figures that several variants share stand side by side; then every figure, every table that a
variant worked out, and the kernels that were compiled. Tables that would make the page heavy are
cut, and say where the rest of them is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from common.errors import WorklogError
from common.report import run_tables
from common.report.run_view import RunView
from common.report.tables import Table, escape_html, significant
from common.traces.compiled_kernel import CompiledKernel, read_compiled

ROOM_BYTES = 1_200_000  # of all tables of one run


def figures(view: RunView, where: Path) -> str:
    """Figures side by side, then all, then the variants' own tables, each folded."""
    parts = []
    shared = side_by_side(view)
    if shared.rows:
        parts.append(shared.html("Figures that several variants have", style="sortable"))
    every = run_tables.figures(view.summary)
    whole = every.html("Figures of every variant", style="sortable")
    if shared.rows:
        whole = f"<details><summary>All {len(every.rows):,} figures</summary>{whole}</details>\n"
    parts.append(whole if every.rows else "")
    room = ROOM_BYTES - sum(len(part) for part in parts)
    for variant in view.variants:
        place = where / "traces" / variant / "tables.json"
        for name, stored in view.evidence.tables(variant).items():
            if not stored["rows"]:
                continue
            rows = tuple(tuple(map(str, row)) for row in stored["rows"])
            table = Table(tuple(stored["columns"]), rows, tuple(stored["right"]), stored["note"])
            text = _fitting(table, f"{variant}, {name}", room, place)
            room -= len(text)
            parts.append(
                f"<details><summary>{escape_html(f'{variant}: {name}')} "
                f"({len(rows):,} rows)</summary>{text}</details>\n"
            )
    return "".join(parts)


def side_by_side(view: RunView) -> Table:
    """One row per figure that two variants or more have, one column per variant."""
    found: dict[str, dict[str, Mapping[str, object]]] = {}
    for name, variant in view.variants.items():
        for figure, record in variant.get("figures", {}).items():
            found.setdefault(figure, {})[name] = record
    both = {figure: of for figure, of in found.items() if len(of) > 1}
    names = [name for name in view.variants if any(name in of for of in both.values())]
    rows = tuple(
        (
            figure,
            *(_value(of.get(name, {}).get("value")) for name in names),
            ", ".join(dict.fromkeys(str(r.get("unit", "")) for r in of.values() if r.get("unit"))),
            ", ".join(dict.fromkeys(str(r.get("origin", "")) for r in of.values())),
        )
        for figure, of in both.items()
    )
    return Table(("figure", *names, "unit", "origin"), rows, tuple(names))


def _value(value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{int(value):,}" if float(value).is_integer() else significant(value, 4)


def _fitting(table: Table, caption: str, room: int, place: Path) -> str:
    """The table, cut to about `room` bytes where it is longer."""
    text = table.html(caption, style="sortable")
    if len(text) <= room or not table.rows:
        return text
    kept = max(0, int(len(table.rows) * room / len(text)))
    left = len(table.rows) - kept
    link = escape_html(quote(place.as_posix(), safe="/", errors="surrogateescape"))
    short = replace(table, rows=table.rows[:kept]).html(caption, style="sortable")
    return f'{short}<p class="note">{left:,} more rows are in <a href="{link}">tables.json</a>.</p>'


def kernels(view: RunView, where: Path) -> str:
    """Every compiled kernel of the run, by variant; empty where there is none."""
    parts = []
    for variant in view.variants:
        folder = view.folder / "traces" / variant / "kernels"
        found, unread = [], 0
        for path in sorted(folder.glob("*.json.gz")):
            try:
                found.append((path.name, read_compiled(path)))
            except WorklogError:
                unread += 1
        if not found:
            continue
        lost = f" {unread} files could not be read." if unread else ""
        table = replace(kernels_table(found), note=f"_Nothing of this was run.{lost}_")
        place = where / "traces" / variant / "kernels"
        text = _fitting(table, f"Kernels of {variant}", ROOM_BYTES // 4, place)
        parts.append(
            f"<details><summary>{escape_html(variant)}: {len(found):,} compiled kernels</summary>"
            f"{text}</details>\n"
        )
    return "".join(parts)


def kernels_table(found: list[tuple[str, CompiledKernel]]) -> Table:
    rows = []
    for name, kernel in found:
        metrics, resources = kernel.metrics, kernel.resources
        most = next(iter(kernel.by_class().items()), ("", 0))
        rows.append(
            (
                name.removesuffix(".json.gz"),
                f"{resources['registers']:,}",
                f"{resources['stack_bytes']:,}",
                f"{resources['shared_bytes']:,}",
                f"{resources['threads']:,}",
                _value(metrics.get("blocks_per_sm")),
                _value(metrics.get("occupancy")),
                f"{kernel.total_instructions:,}",
                f"{kernel.loop_instructions:,}",
                f"{most[0]} {most[1]:,}",
            )
        )
    columns = ("kernel", "registers", "stack bytes", "shared bytes", "threads", "blocks per SM",
               "occupancy", "instructions", "in the loop", "most of them")  # fmt: skip
    return Table(columns, tuple(rows), columns[1:-1])
