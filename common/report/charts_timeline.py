"""When did what run? A strip per variant: its ranges, below them the operators that held time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.report import svg
from common.report.charts_operators import COLOURS, OTHER, colours
from common.report.run_view import RunView
from common.report.tables import escape_html, milliseconds
from common.report.timeline import Piece, Timeline, timeline

HEIGHT, RANGES, TOP, THICK = 52, 16, 22, 24
ROOM_FOR_NAME = 9.0  # percent of the width
ROOM_FOR_RANGES = 40  # more of them than this are drawn as ticks alone


def timelines(view: RunView, _: Path) -> str:
    """Every variant on a time axis of its own; empty where nothing was profiled."""
    drawn: dict[str, Timeline] = {}
    for name in view.variants:
        trace = view.evidence.profiled(name)
        found = None if trace is None else timeline(trace, view.phases)
        if found is not None:
            drawn[name] = found
    if not drawn:
        return ""
    styles = _styles(view, list(drawn.values()))
    entries = [(style, name, svg.short(name)) for name, style in styles.items()]
    return svg.figure(
        "The profiled stretch in time",
        "Each variant on its own time axis, whose length stands beside it: dashed lines are where "
        "a range begins; a slice has the colour of the operator that held most of it, and none "
        "where most of it was outside any operator.",
        [_row(name, found, styles) for name, found in drawn.items()],
        legend=svg.legend([*entries, ("other", OTHER, OTHER)]),
    )


def _styles(view: RunView, drawn: Sequence[Timeline]) -> dict[str, str]:
    """A colour for each of the operators that hold most of a strip; where it is free, the one that
    the operator has in the charts of the phases."""
    wanted: dict[str, str] = {}
    for table in colours(view, view.phases).values():
        wanted = {**table, **wanted}
    shares: dict[str, float] = {}
    for found in drawn:
        for name, time in _held(found).items():
            shares[name] = max(shares.get(name, 0.0), time / found.length_ns)
    top = sorted(shares, key=lambda name: (-shares[name], name))[:COLOURS]
    styles: dict[str, str] = {}
    for name in top:
        if name in wanted and wanted[name] not in styles.values():
            styles[name] = wanted[name]
    free = [c for c in (f"c{n}" for n in range(1, COLOURS + 1)) if c not in styles.values()]
    return {name: styles.get(name) or free.pop(0) for name in top}


def _held(found: Timeline) -> dict[str, int]:
    """Name -> time of the slices that it held."""
    times: dict[str, int] = {}
    for piece in found.pieces:
        times[piece.name] = times.get(piece.name, 0) + piece.end_ns - piece.start_ns
    return times


def _row(name: str, found: Timeline, styles: dict[str, str]) -> svg.Row:
    scale = svg.Scale(0, max(found.length_ns, 1))
    parts = [f'<rect class="band" width="100%" y="{TOP}" height="{THICK}"/>']
    for piece in found.pieces:
        low, high = scale(piece.start_ns), scale(piece.end_ns)
        parts.append(
            f'<rect class="{styles.get(piece.name, "other")}" x="{svg.percent(low)}" y="{TOP}" '
            f'width="{svg.percent(high - low)}" height="{THICK}"><title>'
            f"{escape_html(piece.name)}: {milliseconds(piece.start_ns)} to "
            f"{milliseconds(piece.end_ns)} ms</title></rect>"
        )
    parts.append(_ranges(found.ranges, scale))
    text = f"{milliseconds(found.length_ns)} ms: {_words(found.ranges)}"
    return svg.Row(name, text, "".join(parts), f"{name}: {text}. {_largest(found)}", HEIGHT)


def _ranges(ranges: tuple[Piece, ...], scale: svg.Scale) -> str:
    parts = []
    for piece in ranges:
        low, high = scale(piece.start_ns), scale(piece.end_ns)
        parts.append(svg.line(low, 2, TOP + THICK, "guide range"))
        if high - low >= ROOM_FOR_NAME and len(ranges) <= ROOM_FOR_RANGES:
            parts.append(
                f'<text class="scale" x="{svg.percent(low)}" dx="4" y="{RANGES - 3}">'
                f"{escape_html(piece.name)}</text>"
            )
    return "".join(parts)


def _words(ranges: tuple[Piece, ...]) -> str:
    """How often each range was open, and for how long in all."""
    said = []
    for name in dict.fromkeys(piece.name for piece in ranges):
        own = [piece for piece in ranges if piece.name == name]
        time = sum(piece.end_ns - piece.start_ns for piece in own)
        said.append(f"{len(own)} × {name} {milliseconds(time)} ms")
    return ", ".join(said)


def _largest(found: Timeline) -> str:
    times = _held(found)
    top = sorted(times, key=lambda name: (-times[name], name))[:3]
    return "Mostly " + ", ".join(top) if top else "Nothing but idle time"
