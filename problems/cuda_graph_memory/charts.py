"""How do the pools fill, and which capture made them grow? Charts of memory snapshots.

Drawn through the analyser of `worklog show`: the same functions draw a snapshot that a GPU wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.report.tables import escape_html
from common.traces.memory_pools import PoolLine, growth_by_phase, pool_lines
from common.traces.memory_snapshot import MemorySnapshot

MIB = 1 << 20
WIDTH, LEFT, RIGHT, ROW, GAP, TOP = 940, 78, 14, 150, 62, 44
# Default pool grey; private pools in tones that differ in lightness too.
GREY = "#9aa3ad"
TONES = ("#1b6ca8", "#e08a1e", "#3c9d6a", "#b0413e", "#7a5ba6", "#c9a227", "#2a9d9d", "#d46a9f")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:13px}"
    ".s{font-size:11px;fill:#555}.g{stroke:#ddd}.p{stroke:#fff;stroke-width:.4}"
    ".m{stroke:#888;stroke-dasharray:2 3}"
)


@dataclass(frozen=True)
class Band:
    """One layer of the stack: its level before the first event and after each."""

    name: str
    colour: str
    levels: list[int]


def bands(snapshot: MemorySnapshot, device: int = 0) -> list[Band]:
    """Reserved bytes of every pool (streams together), the default pool at the bottom."""
    by_pool: dict[tuple[int, int] | None, list[PoolLine]] = {}
    for line in pool_lines(snapshot, device):
        by_pool.setdefault(line.pool, []).append(line)
    count = len(snapshot.events[device])
    found: list[Band] = []
    tones = iter(range(len(by_pool)))
    for pool, lines in sorted(by_pool.items(), key=lambda item: item[0] or (1 << 30, 0)):
        total = np.zeros(count + 1, dtype=np.int64)
        for line in lines:
            steps = np.diff(np.concatenate(([line.reserved.start], line.reserved.after)))
            own = np.zeros(count + 1, dtype=np.int64)
            own[0] = line.reserved.start
            own[line.reserved.at + 1] = steps
            total += np.cumsum(own)
        default = pool == (0, 0)
        name = "default pool" if default else "unknown pool" if pool is None else f"pool {pool}"
        colour = GREY if default else TONES[next(tones) % len(TONES)]
        found.append(Band(name, colour, total.tolist()))
    return found


def pool_timeline(snapshots: Mapping[str, MemorySnapshot], source: str) -> str:
    """Stacked reserved bytes of each pool over the recorded events; one row per snapshot, one
    scale for all."""
    stacks = {name: bands(snapshot) for name, snapshot in snapshots.items()}
    top = max(
        max(map(sum, zip(*(band.levels for band in found), strict=True)))
        for found in stacks.values()
    )
    parts = []
    for row, (name, found) in enumerate(stacks.items()):
        y0 = TOP + row * (ROW + GAP)
        parts.append(f'<text class="t" x="{LEFT}" y="{y0 - 22}">{escape_html(name)}</text>')
        parts += _scale(y0, top)
        below = np.zeros(len(found[0].levels), dtype=np.int64)
        for band in found:
            above = below + np.array(band.levels)
            title = (
                f"<title>{escape_html(band.name)}: ends at {band.levels[-1] / MIB:,.0f} MiB</title>"
            )
            path = _area(below, above, y0, top)
            parts.append(f'<path class="p" fill="{band.colour}" d="{path}">{title}</path>')
            below = above
        parts += _phases(snapshots[name], y0)
    height = TOP + len(stacks) * (ROW + GAP)
    says = (
        "Reserved MiB over the allocator's events. Grey: default pool; colours: private pools, one "
        "tone each. Dotted: where a phase begins."
    )
    return _document(height, "Reserved memory by pool", says, parts, source)


def _scale(y0: int, top: int) -> list[str]:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = y0 + ROW * (1 - share)
        parts.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(
            f'<text class="s" x="{LEFT - 6}" y="{y + 4:g}" text-anchor="end">'
            f"{share * top / MIB:,.0f} MiB</text>"
        )
    return parts


def _x(at: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / max(count, 1)


def _area(
    below: np.typing.NDArray[np.int64], above: np.typing.NDArray[np.int64], y0: int, top: int
) -> str:
    """A step path: only where a level changes does it get a corner."""
    count = len(above) - 1

    def steps(levels: np.typing.NDArray[np.int64]) -> list[tuple[float, float]]:
        changed = np.flatnonzero(np.diff(levels)) + 1
        points = [(_x(0, count), y0 + ROW * (1 - float(levels[0]) / top))]
        for at in changed.tolist():
            x = _x(at, count)
            points += [(x, points[-1][1]), (x, y0 + ROW * (1 - float(levels[at]) / top))]
        return [*points, (_x(count, count), points[-1][1])]

    outline = [*steps(above), *reversed(steps(below))]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z"


def _phases(snapshot: MemorySnapshot, y0: int) -> list[str]:
    events = snapshot.events[0]
    parts, before, last_x = [], "", -1e9
    for at, name in enumerate(events.metadata):
        if name and name != before:
            x = _x(at, len(events))
            parts.append(f'<line class="m" x1="{x:.1f}" x2="{x:.1f}" y1="{y0}" y2="{y0 + ROW}"/>')
            if x - last_x > 76 and not name.startswith("input"):
                shown = escape_html(name)
                parts.append(f'<text class="s" x="{x + 2:.1f}" y="{y0 + ROW + 14}">{shown}</text>')
                last_x = x
        before = name or before
    return parts


def growth_bars(snapshots: Mapping[str, MemorySnapshot], source: str) -> str:
    """By how much each capture made the private pools grow: one group of bars per snapshot."""
    rows = {
        name: [
            (
                each.phase.removeprefix("capture "),
                each.private_bytes,
                _warm_up(snapshot, each.phase),
            )
            for each in growth_by_phase(snapshot)
            if each.phase.startswith("capture")
        ]
        for name, snapshot in snapshots.items()
    }
    top = max((bar + warm for found in rows.values() for _, bar, warm in found), default=1) or 1
    parts = []
    for row, (name, found) in enumerate(rows.items()):
        y0 = TOP + row * (ROW + GAP)
        total = sum(bar + warm for _, bar, warm in found)
        says = f"{name}: {total / MIB:,.0f} MiB in all"
        parts.append(f'<text class="t" x="{LEFT}" y="{y0 - 22}">{escape_html(says)}</text>')
        parts += _scale(y0, top)
        wide = (WIDTH - LEFT - RIGHT) / max(len(found), 1)
        for i, (size, bar, warm) in enumerate(found):
            x, base = LEFT + i * wide + wide * 0.2, float(y0 + ROW)
            for value, colour in ((warm, TONES[1]), (bar, TONES[0])):
                high = ROW * value / top
                base -= high
                parts.append(
                    f'<rect x="{x:.1f}" y="{base:.1f}" width="{wide * 0.6:.1f}" '
                    f'height="{high:.1f}" fill="{colour}"/>'
                )
            middle = x + wide * 0.3
            parts.append(
                f'<text class="s" x="{middle:.1f}" y="{y0 + ROW + 14}" text-anchor="middle">'
                f"{escape_html(size)}</text>"
            )
            parts.append(
                f'<text class="s" x="{middle:.1f}" y="{base - 3:.1f}" text-anchor="middle">'
                f"+{(bar + warm) / MIB:,.0f}</text>"
            )
    height = TOP + len(rows) * (ROW + GAP)
    says = (
        "MiB that each capture added to the private pools, in order, by size. Orange: its warm-up "
        "in the pool; blue: its recording."
    )
    return _document(height, "Growth of the private pools per capture", says, parts, source)


def _warm_up(snapshot: MemorySnapshot, capture: str) -> int:
    wanted = capture.replace("capture", "warm-up")
    return sum(each.private_bytes for each in growth_by_phase(snapshot) if each.phase == wanted)


def _document(height: int, title: str, says: str, parts: Sequence[str], source: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 24}" role="img">\n'
        f"<!-- worklog render cuda_graph_memory; from sha256 {source} -->\n"
        f"<title>{escape_html(title)}</title><desc>{escape_html(says)}</desc>\n"
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + f'\n<text class="s" x="{LEFT}" y="{height + 12}">{escape_html(says)} Modelled.</text>\n'
        "</svg>\n"
    )
