"""What do several runs say together? What differs between them, then times, claims and figures."""

from __future__ import annotations

from collections.abc import Sequence

from common.report import html_sections, run_tables
from common.report.charts_trend import Point, change_words, points, time_words, trend_charts
from common.report.html_differences import run_names, runs_differ
from common.report.run_view import RunView, headline
from common.report.tables import Table, escape_html, interval, significant

CLAIM_WORDS = {True: "reproduced", False: "NOT reproduced", None: "not decided"}


def comparison(views: Sequence[RunView]) -> str:
    """The section above the runs themselves; the runs in the order of their dates."""
    names = run_names(views)
    ordered = sorted(
        zip(views, names, strict=True), key=lambda pair: str(pair[0].summary["started"])
    )
    parts = [
        "<h3>What differs</h3>\n" + runs_differ(views),
        "<h3>One line per run</h3>\n"
        + _lines(ordered).html("Runs, oldest first", style="sortable"),
    ]
    groups: dict[tuple[str, str], list[tuple[RunView, str]]] = {}
    for view, name in ordered:
        key = str(view.manifest["problem"]), str(view.summary["preset"])
        groups.setdefault(key, []).append((view, name))
    for (problem, preset), members in groups.items():
        if len(members) > 1:
            heading = f"{problem}, preset {preset}"
            parts.append(_group(heading, members))
    body = "".join(parts)
    return (
        '<section aria-labelledby="comparison"><h2 id="comparison">Comparison</h2>\n'
        f"{body}</section>\n"
    )


def _lines(ordered: Sequence[tuple[RunView, str]]) -> Table:
    rows = []
    for view, name in ordered:
        found = headline(view)
        rows.append(
            (
                name,
                f"{view.manifest['problem']}, {view.summary['preset']}",
                view.machine,
                str(view.summary["origin"]),
                str(view.summary["started"])[:16].replace("T", " "),
                found[0] if found else "",
                found[1] if found else "not timed",
                html_sections.tally(view) if view.finished else "unfinished",
            )
        )
    columns = ("run", "problem, preset", "machine", "origin", "date", "ratio", "of", "claims")
    return _without_constants(Table(columns, tuple(rows), ("ratio",)))


def _without_constants(table: Table, most: int = 3) -> Table:
    """What is the same in every row is said once, under the table."""
    constant = [
        at
        for at in range(1, most + 1)
        if len(table.rows) > 1 and len({row[at] for row in table.rows}) == 1
    ]
    kept = [at for at in range(len(table.columns)) if at not in constant]
    said = "; ".join(f"{table.columns[at]}: {table.rows[0][at]}" for at in constant)
    return Table(
        tuple(table.columns[at] for at in kept),
        tuple(tuple(row[at] for at in kept) for row in table.rows),
        table.right,
        f"_The same for all: {said}._" if said else "",
    )


def _group(heading: str, members: Sequence[tuple[RunView, str]]) -> str:
    views, names = [view for view, _ in members], [name for _, name in members]
    parts = []
    for phase in dict.fromkeys(phase for view in views for phase in view.phases):
        found = points(views, names, phase)
        if found:
            table = times_table(found, phase).html(f"{heading}: {phase}", style="sortable")
            parts.append(f"<h4>{escape_html(phase)}</h4>\n{trend_charts(found, phase)}{table}")
    figures = figures_table(views, names)
    if figures.rows:
        parts.append(figures.html(f"{heading}: figures", style="sortable"))
    claims = claims_table(views, names)
    if claims.rows:
        parts.append(claims.html(f"{heading}: claims", html_sections.CLAIM_BADGES, "fit"))
    return f"<h3>{escape_html(heading)}</h3>\n" + "".join(parts) if parts else ""


def times_table(found: Sequence[Point], phase: str) -> Table:
    rows = tuple(
        (
            point.variant,
            point.run,
            point.machine,
            time_words(point),
            "" if point.ratio is None else significant(point.ratio["ratio"])
            + (f" ({interval(*point.ratio['interval'])})" if point.ratio["interval"] else ""),
            change_words(point),
        )
        for point in found
    )  # fmt: skip
    columns = ("variant", "run", "machine", f"{phase} ms", "time ÷ baseline",
               "against the first run of the machine")  # fmt: skip
    return Table(columns, rows, columns[3:5])


def claims_table(views: Sequence[RunView], names: Sequence[str]) -> Table:
    """One row per claim, one column per run."""
    told: dict[str, dict[str, str]] = {}
    for view, name in zip(views, names, strict=True):
        for row in view.summary["claims"]:
            value = "" if row["value"] is None else f" ({significant(row['value'], 4)})"
            told.setdefault(row["says"], {})[name] = CLAIM_WORDS[row["reproduced"]] + value
    rows = tuple((says, *(of.get(name, "") for name in names)) for says, of in told.items())
    return Table(("claim", *names), rows)


def figures_table(views: Sequence[RunView], names: Sequence[str]) -> Table:
    """Figures of untimed variants, one column per run; what is the same in all says so."""
    told: dict[tuple[str, str], dict[str, str]] = {}
    for view, name in zip(views, names, strict=True):
        for row in run_tables.figures(view.summary).rows:
            variant, figure, value, unit, _ = row
            if figure:
                told.setdefault((variant, figure), {})[name] = f"{value} {unit}".strip()
    rows = tuple(
        (
            figure,
            variant,
            *(of.get(name, "") for name in names),
            "same" if len(of) == len(names) and len(set(of.values())) == 1 else "differs",
        )
        for (variant, figure), of in told.items()
        if len(of) > 1
    )
    return Table(("figure", "variant", *names, "result"), rows, tuple(names))
