"""Which picture shows it? Figures drawn from recorded runs into a problem's `figures/` folder.

    <!-- worklog:figure name=decode-ratios kind=ratios run=cpu phase=decode -->
    ![Time relative to bf16, decode](figures/decode-ratios.svg)
    …
    <!-- /worklog:figure -->

The file carries the hash of its inputs (the block's options and the evidence that it was drawn
from), so that a figure of older evidence is found; one that was edited by hand is found too,
since the same inputs always give the same bytes. Below the block the author writes the finding.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.contract.problem import Problem
from common.errors import UsageError
from common.recording.run_folder import open_run, read_json
from common.report import svg
from common.report.evidence import Evidence
from common.report.figure_attribution import alternative, attribution, attribution_svg
from common.report.run_tables import footer
from common.report.run_view import read_view
from common.report.tables import escape_html, escape_markdown, milliseconds, significant

DRAWN_BY = "worklog.figure/1"  # counts up when the drawing changes
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
INPUTS = re.compile(r"<!-- inputs sha256:([0-9a-f]{64}) -->")
MOST_ROWS = 24
COLOURS = ("#b5452c", "#2f6f9f", "#c28f2c", "#4d8f5b", "#7a5aa6", "#8a8a8a")
WIDTH, LABEL, VALUE, ROW = 860, 250, 190, 26


@dataclass(frozen=True)
class Bar:
    """One row: `parts` are (value, index of the legend), `ends` an interval of the whole."""

    label: str
    parts: tuple[tuple[float, int], ...]
    value: str
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Drawing:
    title: str
    unit: str
    bars: tuple[Bar, ...]
    legend: tuple[str, ...] = ()
    logarithmic: bool = False


@dataclass(frozen=True)
class Figure:
    """What a block stands for: the file, its bytes, and the Markdown that shows it."""

    path: Path
    content: str
    markdown: str


def _ratios(summary: Mapping[str, Any], options: Mapping[str, str], _: object) -> Drawing:
    phase = options["phase"]
    bars = tuple(
        Bar(
            row["variant"],
            ((row["ratio"], 0 if row["ratio"] > 1 else 1),),
            f"{significant(row['ratio'])}× {row['verdict']}",
            tuple(row["interval"]) if row["interval"] else None,
        )
        for row in summary["ratios"]
        if row["phase"] == phase
    )
    title = f"Time relative to {summary['baseline']}, {phase}"
    return Drawing(title, "× (logarithmic)", bars, logarithmic=True)


def _operators(summary: Mapping[str, Any], options: Mapping[str, str], _: object) -> Drawing:
    phase = options["phase"]
    wanted = options["variants"].split(",") if "variants" in options else list(summary["variants"])
    times = {
        name: time
        for name in wanted
        if (time := summary["variants"][name].get("profile", {}).get(phase, {}).get("time"))
    }
    largest: dict[str, float] = {}
    for time in times.values():
        for row in time["rows"]:
            largest[row["operator"]] = max(largest.get(row["operator"], 0), row["time_ns"])
    top = sorted(largest, key=lambda name: (-largest[name], name))[: len(COLOURS) - 1]
    bars = []
    for name, time in times.items():
        shares = [
            sum(row["time_ns"] for row in time["rows"] if row["operator"] == operator)
            for operator in top
        ]
        parts = [*shares, time["total_ns"] - sum(shares)]
        per = time["occurrences"]
        bars.append(
            Bar(
                name,
                tuple((part / per / 1e6, number) for number, part in enumerate(parts)),
                f"{milliseconds(time['total_ns'] / per)} ms",
            )
        )
    legend = (*top, "everything else")
    return Drawing(f"Profiled time of {phase} by operator", "ms", tuple(bars), legend)


def _table(summary: Mapping[str, Any], options: Mapping[str, str], found: Evidence) -> Drawing:
    tables = found.tables(options["variant"])
    if options["table"] not in tables:
        known = ", ".join(tables) or "none"
        raise UsageError(f"{options['variant']} has no table {options['table']!r}; use {known}")
    stored = tables[options["table"]]
    column = options["column"].replace("_", " ")
    columns = list(stored["columns"])
    if column not in columns:
        raise UsageError(f"the table has no column {column!r}; use one of {', '.join(columns)}")
    at = columns.index(column)
    bars = []
    for row in stored["rows"][:MOST_ROWS]:
        number = re.match(r"-?[\d,]*\.?\d+", str(row[at]))
        if number:
            value = float(number[0].replace(",", ""))
            bars.append(Bar(str(row[0]), ((value, 0),), str(row[at])))
    return Drawing(f"{column} by {columns[0]}", column, tuple(bars))


KINDS: dict[str, tuple[Callable[..., Drawing], frozenset[str], frozenset[str]]] = {
    # (how it is drawn, options that it needs, options that it also takes)
    "ratios": (_ratios, frozenset({"phase"}), frozenset()),
    "operators": (_operators, frozenset({"phase"}), frozenset({"variants"})),
    "table": (_table, frozenset({"variant", "table", "column"}), frozenset()),
}
ATTRIBUTION, ATTRIBUTION_NEEDS = "attribution", frozenset({"phase", "before", "after"})
OPTIONS = frozenset({"name", "kind", "run"}).union(
    ATTRIBUTION_NEEDS, *(n | t for _, n, t in KINDS.values())
)


def make_figure(problem: Problem, options: Mapping[str, str]) -> Figure:
    """Draw one figure from the evidence that it names. UsageError says what is wrong with it."""
    name, kind, key = options["name"], options["kind"], options["run"]
    if not NAME.fullmatch(name):
        raise UsageError(f"figure {name!r} names a file; use small letters, digits and -")
    if kind != ATTRIBUTION and kind not in KINDS:
        known = ", ".join(sorted([ATTRIBUTION, *KINDS]))
        raise UsageError(f"unknown kind of figure {kind!r}; use one of {known}")
    needed, also = KINDS[kind][1:] if kind in KINDS else (ATTRIBUTION_NEEDS, frozenset())
    given = options.keys() - {"name", "kind", "run", "problem"}
    if needed - given or given - needed - also:
        takes = ", ".join(sorted(needed | also))
        raise UsageError(f"a figure of kind {kind} takes {takes}; correct its options")
    if key not in problem.evidence:
        raise UsageError(f"{problem.name} has no evidence {key!r}; name one of its [evidence]")
    run = open_run(problem.folder / problem.evidence[key])
    summary = read_json(run.folder / "summary.json")
    if kind == ATTRIBUTION:
        found = attribution(
            read_view(run.folder), options["before"], options["after"], options["phase"]
        )
        words, inputs = alternative(found), _hash(options, repr(found))
        content = _with_inputs(attribution_svg(found), inputs)
    else:
        drawing = KINDS[kind][0](summary, options, Evidence(run))
        if not drawing.bars:
            raise UsageError(
                f"evidence {key} has nothing for a figure of kind {kind}; name another"
            )
        words, inputs = drawing.title, _hash(options, repr(drawing))
        content = draw_svg(drawing, inputs)
    words = escape_markdown(words).replace("[", "(").replace("]", ")")
    inside = f"problems/{problem.name}/" if "problem" in options else ""
    markdown = (
        f"![{words}]({inside}figures/{name}.svg)\n\n{footer(summary, run.manifest)}\n\n"
        f"_Inputs: SHA-256 `{inputs[:12]}`._"
    )
    return Figure(problem.folder / "figures" / f"{name}.svg", content, markdown)


def _hash(options: Mapping[str, str], drawn: str) -> str:
    """Of what is drawn and of how: evidence that changes elsewhere makes no figure stale."""
    content = [DRAWN_BY, sorted(options.items()), drawn]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _with_inputs(picture: str, inputs: str) -> str:
    opening, rest = picture.split(">", 1)
    return f"{opening}>\n<!-- inputs sha256:{inputs} -->{rest}"


def stale(figure: Figure) -> str | None:
    """What is wrong with the file on disk; None where it is what its inputs give."""
    name = figure.path.name
    if not figure.path.is_file():
        return f"figure {name} is not there"
    try:
        stored = figure.path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return f"figure {name} is no text"
    if stored == figure.content:
        return None
    hashes = INPUTS.search(stored), INPUTS.search(figure.content)
    if hashes[0] and hashes[1] and hashes[0][1] == hashes[1][1]:
        return f"figure {name} was edited by hand"
    return f"figure {name} is stale: it was drawn from other inputs"


def draw_svg(drawing: Drawing, inputs: str) -> str:
    """A picture of its own, white behind, so that it reads on any page and on paper."""
    scale = _scale(drawing)
    left, wide = LABEL, WIDTH - LABEL - VALUE
    legend = 20 * len(drawing.legend)
    top = 40 + legend
    height = top + ROW * len(drawing.bars) + 34

    def x(value: float) -> float:
        return left + wide * max(0.0, min(100.0, scale(value))) / 100

    parts = [
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" class="t">{escape_html(drawing.title)}</text>',
    ]
    for number, name in enumerate(drawing.legend):
        y = 32 + 20 * number
        parts.append(f'<rect x="12" y="{y}" width="12" height="12" fill="{_colour(number)}"/>')
        parts.append(f'<text x="30" y="{y + 10}">{escape_html(svg.short(name, 100))}</text>')
    bottom = top + ROW * len(drawing.bars)
    for tick in scale.ticks():
        at = f"{x(tick):.1f}"
        parts.append(f'<line x1="{at}" x2="{at}" y1="{top}" y2="{bottom}" stroke="#dddddd"/>')
        label = significant(tick)
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    parts.append(
        f'<text x="{left + wide}" y="{bottom + 30}" text-anchor="end">'
        f"{escape_html(drawing.unit)}</text>"
    )
    for number, bar in enumerate(drawing.bars):
        # On a logarithmic axis a length has a meaning only from 1, the baseline.
        begin = 1.0 if drawing.logarithmic else scale.low
        parts += _bar(bar, top + ROW * number, x, begin)
    words = "; ".join(f"{bar.label}: {bar.value}" for bar in drawing.bars)
    style = "text{font:12px sans-serif;fill:#222222}.t{font-weight:bold;font-size:14px}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<!-- inputs sha256:{inputs} -->\n<title>{escape_html(drawing.title)}</title>\n"
        f"<desc>{escape_html(words)}</desc>\n<style>{style}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _bar(bar: Bar, y: int, x: Callable[[float], float], begin: float) -> list[str]:
    middle = y + ROW / 2
    parts = [
        f'<text x="{LABEL - 8}" y="{middle + 4:g}" text-anchor="end">'
        f"{escape_html(svg.short(bar.label, 38))}</text>"
    ]
    reached = 0.0
    for value, colour in bar.parts:
        ends = x(reached) if reached else x(begin), x(reached + value)
        reached += value
        start, wide = min(ends), abs(ends[1] - ends[0])
        if wide > 0:
            parts.append(
                f'<rect x="{start:.1f}" y="{y + 5}" width="{wide:.1f}" height="{ROW - 10}" '
                f'fill="{_colour(colour)}"/>'
            )
    if bar.ends is not None:
        low_x, high_x = (f"{x(end):.1f}" for end in bar.ends)
        parts.append(
            f'<path d="M{low_x} {middle:g}H{high_x}M{low_x} {middle - 5:g}v10'
            f'M{high_x} {middle - 5:g}v10" stroke="#222222" fill="none"/>'
        )
    parts.append(
        f'<text x="{WIDTH - VALUE + 10}" y="{middle + 4:g}">{escape_html(bar.value)}</text>'
    )
    return parts


def _scale(drawing: Drawing) -> svg.Scale:
    totals = [sum(value for value, _ in bar.parts) for bar in drawing.bars]
    ends = [end for bar in drawing.bars for end in (bar.ends or ())]
    high = max([*totals, *ends])
    if drawing.logarithmic:
        low = min([*totals, *ends, 1.0])
        return svg.Scale(low / 1.2, max(high, 1.0) * 1.2, logarithmic=True)
    return svg.Scale(0, high or 1.0)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def figure_names(blocks: Sequence[Mapping[str, str]]) -> list[str]:
    """Names that several figures of one page share: the second would replace the first."""
    names = [options.get("name", "") for options in blocks]
    return sorted({name for name in names if names.count(name) > 1})
