"""How do routes and winners move with M and from GPU to GPU? Figures made of text.

A strip is one character per batch; a bar is as long as its value. They stand in the worklog's
generated blocks and are checked like every other number there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from common.report.tables import Table, significant
from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.layers import LARGEST_M, Layer
from problems.gemlite_autotune.routes import Route, route
from problems.gemlite_autotune.shipped_tables import Tables
from problems.gemlite_autotune.table_findings import INT8, W4, select, share

PER_DOUBLING = 4
BAR = 24
FAMILY_LETTERS = {"GEMV_REVSPLITK": "r", "GEMV_SPLITK": "v", "GEMM_SPLITK": "s", "GEMM": "g"}


def strip_batches() -> list[int]:
    """1 to 4096, four to a doubling where there are as many; every power of two is among them."""
    steps = PER_DOUBLING * (LARGEST_M.bit_length() - 1)
    return sorted({round(2 ** (step / PER_DOUBLING)) for step in range(steps + 1)})


def route_strips(layer: Layer, gpus: Sequence[GpuDescription], tables: Tables) -> Table:
    """Which batches a GPU's table answers: family's letter where it does, "." where it tunes."""
    batches = strip_batches()
    rows = [("M, powers of two", f"`{''.join('|' if m & (m - 1) == 0 else ' ' for m in batches)}`")]
    for gpu in gpus:
        rows.append((gpu.id, f"`{''.join(_mark(route(layer, m, gpu, tables)) for m in batches)}`"))
    return Table(
        ("GPU", "M = 1 … 4096"),
        tuple(rows),
        note=f"_{layer}. Answered by the table: r GEMV_REVSPLITK, s GEMM_SPLITK, g GEMM; "
        "a dot: tuned when the first such batch arrives._",
    )


def _mark(found: Route) -> str:
    return FAMILY_LETTERS[found.family] if found.hit else "."


def bar(value: float, most: float) -> str:
    if value <= 0:
        return significant(value)
    return f"`{'█' * max(round(BAR * value / most), 1)}` {significant(value)}"


def _bars(
    first: str, columns: Sequence[str], values: Mapping[str, Sequence[float | None]], note: str
) -> Table:
    most = max(v for row in values.values() for v in row if v is not None)
    rows = [
        (name, *("" if value is None else bar(value, most) for value in row))
        for name, row in values.items()
    ]
    return Table((first, *columns), tuple(rows), note=note)


def split_by_batch(tables: Tables) -> Table:
    """How SPLIT_K falls with M, for narrow and wide layers."""
    gpus = ("4090", "h100", "l4")
    values = {}
    for m in (2, 4, 8, 16, 24, 32, 48, 64):
        row: list[float | None] = []
        for gpu in gpus:
            rows = select(tables, gpu, "GEMM_SPLITK", W4, (m, m))
            row.append(mean(r.config.split_k or 1 for r in rows) if rows else None)
        values[str(m)] = row
    return _bars("M", gpus, values, "_Mean SPLIT_K of the 4-bit GEMM_SPLITK winners._")


def tile_by_batch(tables: Tables) -> Table:
    """How the tile of GEMM grows with M."""
    gpus = ("4090", "h100", "a100")
    values = {}
    for m in (96, 128, 256, 512, 1024, 2048, 4096):
        row: list[float | None] = []
        for gpu in gpus:
            rows = select(tables, gpu, "GEMM", W4, (m, m))
            areas = [r.config.block_m * r.config.block_n for r in rows]
            row.append(mean(areas) if areas else None)
        values[str(m)] = row
    return _bars("M", gpus, values, "_Mean BM x BN of the 4-bit GEMM winners._")


def stages_by_gpu(tables: Tables) -> Table:
    """Pipelines by weight format: the share of winners with two stages or more."""
    values = {}
    for gpu in tables.by_gpu:
        row: list[float | None] = []
        for family, kind in (("GEMM_SPLITK", W4), ("GEMM", W4), ("GEMM", INT8)):
            rows = select(tables, gpu, family, kind)
            row.append(share(rows, lambda c: c.stages > 1) if rows else None)
        values[gpu] = row
    columns = ("4 bit, GEMM_SPLITK", "4 bit, GEMM", "int8, GEMM")
    return _bars("GPU", columns, values, "_Percent of the winners with two stages or more._")
