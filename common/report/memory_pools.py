"""In which pools did the memory of a device lie at the end of each snapshot? Bars and their table.

A pool is the allocator's: the default one, or a private one of CUDA graphs. Three parts add up to
what a pool reserves: requested by tensors, lost to rounding, and held by nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import WorklogError
from common.report import svg
from common.report.run_view import RunView
from common.report.tables import Table, escape_html, mebibytes

HEIGHT = 26
PARTS = (
    ("c1", "requested by tensors"),
    ("c2", "rounding"),
    ("outside", "reserved, held by nobody"),
)


@dataclass(frozen=True)
class Pool:
    """One pool of one snapshot; sizes in bytes, and their three parts add up to `reserved`."""

    variant: str
    file: str
    name: str
    requested_bytes: int
    rounding_bytes: int
    unused_bytes: int

    @property
    def reserved_bytes(self) -> int:
        return self.requested_bytes + self.rounding_bytes + self.unused_bytes


def pools_of(summary: Mapping[str, Any], variant: str, file: str) -> list[Pool]:
    """The pools of one snapshot's summary; those whose sizes are unknown are left out."""
    found = []
    for pool in summary.get("pools", ()):
        sizes = [pool.get(f"{key}_bytes") for key in ("requested", "active", "reserved")]
        if None in sizes:
            continue
        requested, active, reserved = sizes
        name = f"{pool['kind']} {'.'.join(map(str, pool['pool']))}"
        rounding = max(active - requested, 0)
        unused = reserved - requested - rounding
        found.append(Pool(variant, file, name, requested, rounding, unused))
    return found


def snapshots(view: RunView) -> Iterator[tuple[str, Path]]:
    """(variant, file) of every CUDA memory snapshot of the run."""
    for variant in view.variants:
        folder = view.folder / "traces" / variant
        for path in sorted(folder.glob("**/*.pickle")) + sorted(folder.glob("**/*.pickle.gz")):
            yield variant, path


def memory_pools(view: RunView) -> str:
    """Chart and table; empty for a run without snapshots."""
    from common.traces.formats import summarise

    pools: list[Pool] = []
    unread: list[str] = []
    for variant, path in snapshots(view):
        place = path.relative_to(view.folder).as_posix()
        try:
            found, summary = summarise(path)
        except WorklogError as error:
            unread.append(f"{place}: {type(error).__name__}")
            continue
        if found.kind == "memory":
            pools += pools_of(summary, variant, path.name)
    notes = "".join(f"<p>Not readable: {escape_html(name)}</p>\n" for name in unread)
    return notes + (_chart(pools) + _table(pools) if pools else "")


def _label(pool: Pool, pools: list[Pool]) -> str:
    return f"{_whose(pool, pools)}: {pool.name}"


def _whose(pool: Pool, pools: list[Pool]) -> str:
    """The variant, and its snapshot where it has several."""
    several = len({other.file for other in pools if other.variant == pool.variant}) > 1
    name = pool.file.removesuffix(".gz").removesuffix(".pickle")
    return f"{pool.variant}, {name}" if several else pool.variant


def _chart(pools: list[Pool]) -> str:
    longest = max(pool.reserved_bytes for pool in pools)
    scale = svg.Scale(0, max(longest, 1) / (1 << 20))
    ticks = scale.ticks()
    rows: list[svg.Row] = []
    above = ""
    for pool in pools:
        whose = _whose(pool, pools)
        if whose != above:
            rows.append(svg.Row(whose, ""))
        above = whose
        body, at = svg.grid(scale, HEIGHT, ticks), 0.0
        sizes = (pool.requested_bytes, pool.rounding_bytes, pool.unused_bytes)
        for (style, says), size in zip(PARTS, sizes, strict=True):
            width = scale(size / (1 << 20))
            if width > 0:
                body += (
                    f'<rect class="seg {style}" x="{svg.percent(at)}" y="4" '
                    f'width="{svg.percent(width)}" height="18"><title>{says}: {mebibytes(size)} '
                    "MiB</title></rect>"
                )
            at += width
        text = f"{mebibytes(pool.reserved_bytes)} MiB reserved"
        label = _label(pool, pools)
        told = f"{label}: {text}, of it {mebibytes(pool.requested_bytes)} MiB requested"
        rows.append(svg.Row(pool.name, text, body, told, HEIGHT))
    chart = svg.figure(
        "Memory by pool",
        "What each pool of the CUDA caching allocator holds at the end of the snapshot; the parts "
        "of a bar add up to what the pool has reserved.",
        rows,
        svg.axis(scale, ticks, "MiB"),
        svg.legend((style, says, says) for style, says in PARTS),
    )
    return f'<div class="wide">{chart}</div>\n'


def _table(pools: list[Pool]) -> str:
    rows = tuple(
        (
            _label(pool, pools),
            f"{pool.reserved_bytes:,}",
            f"{pool.requested_bytes:,}",
            f"{pool.rounding_bytes:,}",
            f"{pool.unused_bytes:,}",
        )
        for pool in pools
    )
    columns = ("pool", "reserved bytes", "requested", "rounding", "held by nobody")
    return Table(columns, rows, columns[1:]).html("Pools, in bytes", style="sortable")
