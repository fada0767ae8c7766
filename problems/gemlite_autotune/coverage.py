"""How do the shipped tables stand to today's code? Whether a winner could still win or be used.

The winners were tuned with other lists and another compiler. A row counts as *in* a list if the
list that GemLite would tune over now, for the same layer and batch, contains its configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.pruning import batch_class, candidates
from problems.gemlite_autotune.routes import layer_of, reaches
from problems.gemlite_autotune.shipped_tables import Config, Tables

# Beyond these no rule of the pruner looks at N or K any more (no tile is larger).
LARGEST_N = 1024
LARGEST_K = {"GEMM": 512, "GEMM_SPLITK": 512}
LARGEST_K_OF_OTHERS = 4096


@dataclass(frozen=True)
class Coverage:
    family: str
    entries: int
    in_fast: int
    in_max: int
    reachable: int


def coverage(tables: Tables, tag: str, device: GpuDescription) -> Iterator[Coverage]:
    """One row per family with entries. Rows of formats that have no layer here count as absent."""
    for family in tables.by_gpu[tag]:
        rows = list(tables.rows(tag, family))
        if not rows:
            continue
        found = {"fast": 0, "max": 0}
        for row in rows:
            layer = layer_of(row.key)
            for mode in found:
                if layer is not None:
                    space = _space(
                        family, _typical(family, layer), batch_class(row.key.m), device, mode
                    )
                    found[mode] += row.config in space
        reachable = sum(map(reaches, rows))
        yield Coverage(family, len(rows), found["fast"], found["max"], reachable)


def _typical(family: str, layer: Layer) -> Layer:
    """A layer with the same lists, so that each list is made once."""
    n, k = min(layer.n, LARGEST_N), min(layer.k, LARGEST_K.get(family, LARGEST_K_OF_OTHERS))
    return Layer(n, k, layer.format, layer.group, layer.activation)


@cache
def _space(
    family: str, layer: Layer, m: int, device: GpuDescription, mode: str
) -> frozenset[Config]:
    return frozenset(candidates(family, layer, m, device, mode))
