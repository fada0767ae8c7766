"""What do the figures show? Routes and winners in few numbers, kept with the recorded run.

The figures are drawn from this alone, so that a page can be checked where GemLite is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, quantiles
from typing import Any

from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.layers import LARGEST_M, Layer
from problems.gemlite_autotune.routes import route_map
from problems.gemlite_autotune.shipped_tables import Row, Tables
from problems.gemlite_autotune.table_findings import W4, agreement

KNOBS: Mapping[str, Callable[[Row], int | None]] = {
    "tile BM x BN": lambda row: row.config.block_m * row.config.block_n,
    "BK": lambda row: row.config.block_k,
    "warps": lambda row: row.config.warps,
    "stages": lambda row: row.config.stages,
    "SPLIT_K": lambda row: row.config.split_k,  # None where the family has none
}
TYPES = {104: "4 bit", 108: "8 bit", 308: "fp8", 408: "int8"}
SERIES = ("4090", "h100", "a100")
SIZES = ((0, 2048, "≤2k"), (2049, 4096, "≤4k"), (4097, 8192, "≤8k"), (8193, 1 << 30, ">8k"))
MATMUL = ("GEMM_SPLITK", "GEMM")


def figure_data(layer: Layer, gpus: Sequence[GpuDescription], tables: Tables) -> dict[str, Any]:
    """`{"layer", "routes", "moves", "agreement"}`, ready for JSON."""
    return {
        "layer": str(layer),
        "routes": {gpu.id: _routes(layer, gpu, tables) for gpu in gpus},
        "moves": _moves(tables),
        "agreement": _agreement(tables),
    }


def _routes(layer: Layer, gpu: GpuDescription, tables: Tables) -> list[list[Any]]:
    """[first M, last M, family, answered by the table, its configuration or what is tuned]."""
    return [
        [
            each.first,
            each.last,
            each.route.family,
            each.route.hit,
            str(each.route.winner) if each.route.hit else f"{len(each.route.candidates)} tuned",
        ]
        for each in route_map(layer, range(1, LARGEST_M + 1), gpu, tables)
    ]


def _moves(tables: Tables) -> dict[str, dict[str, dict[str, Any]]]:
    """driver -> series -> value of the driver -> knob -> [mean, lower, upper quartile, winners]."""
    rows = [row for row in tables.rows() if row.family in MATMUL]
    four_bit = [row for row in rows if row.key.type_id == W4]
    small = [row for row in four_bit if row.key.m <= 64]

    def size(value: int) -> str:
        return next(words for low, high, words in SIZES if low <= value <= high)

    drivers: dict[str, tuple[list[Row], Callable[[Row], str | None]]] = {
        "M": (four_bit, lambda row: str(row.key.m)),
        "N (M ≤ 64)": (small, lambda row: size(row.key.n)),
        "K (M ≤ 64)": (small, lambda row: size(row.key.k)),
        "format": (rows, lambda row: TYPES.get(row.key.type_id)),
    }
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, (pool, value) in drivers.items():
        found[name] = {gpu: _by([r for r in pool if r.gpu == gpu], value) for gpu in SERIES}
    found["GPU (4 bit)"] = {"all": _by(four_bit, lambda row: row.gpu)}
    return found


def _by(rows: list[Row], value: Callable[[Row], str | None]) -> dict[str, Any]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = value(row)
        if name is not None:
            groups.setdefault(name, []).append(row)
    return {name: _knobs(group) for name, group in groups.items()}


def _knobs(rows: list[Row]) -> dict[str, list[float]]:
    found = {}
    for name, knob in KNOBS.items():
        values = [value for row in rows if (value := knob(row)) is not None]
        if values:
            low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
            found[name] = [round(mean(values), 3), low, high, len(values)]
    return found


def _agreement(tables: Tables) -> dict[str, dict[str, float]]:
    """Percent of the common keys with the identical winner, for every two GPUs."""
    tags = list(tables.by_gpu)
    found: dict[str, dict[str, float]] = {one: {} for one in tags}
    for number, one in enumerate(tags):
        for other in tags[number + 1 :]:
            common = _common(tables, one, other)
            share = round(agreement(tables, one, other), 2) if common else -1.0
            found[one][other] = found[other][one] = share
    return found


def _common(tables: Tables, one: str, other: str) -> bool:
    here, there = tables.by_gpu[one], tables.by_gpu[other]
    return any(here[name].keys() & there.get(name, {}).keys() for name in here)
