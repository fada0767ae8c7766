"""Which kernel, which key, which configuration, for this layer, batch and GPU, or would it tune?

    M >= 64                          GEMM
    M above the GEMV limit           GEMM_SPLITK      (limit 4 below 8 bits, else 2)
    else, microscaling               GEMM_SPLITK
    else, below 8 bits               GEMV_REVSPLITK
    else                             GEMV_SPLITK

Then the shipped table of the GPU is looked up; a hit is launched without any benchmark, a miss is
tuned over the pruned list when the first such batch arrives. Origin of all of it: "modelled" from
GemLite's rules, and equal to its own forward in the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from common.errors import UsageError
from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.layers import LARGEST_M, Layer, bucket, check_layer
from problems.gemlite_autotune.pruning import adapted_winner, candidates
from problems.gemlite_autotune.shipped_tables import Config, Key, Row, Tables, tag_for_gpu

GEMM_FROM = 64


@dataclass(frozen=True)
class Route:
    """`winner` is the shipped configuration as it is launched; without one GemLite would tune over
    `candidates`, and fail where there is none of these either. `table` is the tag of the GPU's
    table, None where GemLite ships none."""

    m: int
    family: str
    key: Key
    table: str | None
    winner: Config | None
    candidates: tuple[Config, ...]

    @property
    def hit(self) -> bool:
        return self.winner is not None


def family_for(m: int, bits: int, microscaling: bool) -> str:
    if m >= GEMM_FROM:
        return "GEMM"
    limit = 4 if bits < 8 and not microscaling else 2
    if m > limit or microscaling:
        return "GEMM_SPLITK"
    return "GEMV_REVSPLITK" if bits < 8 else "GEMV_SPLITK"


def route(
    layer: Layer, m: int, device: GpuDescription, tables: Tables | None, mode: str = "fast"
) -> Route:
    """The route of one batch in a fresh process. `tables` None: as after `reset_config()`.

    Raises UsageError for a layer or a batch that is impossible.
    """
    check_layer(layer)
    if m < 1:
        raise UsageError(f"a batch of {m} rows is none; give 1 or more")
    weights = layer.weights
    family, key = family_for(m, weights.bits, weights.microscaling), layer.key(m)
    tag = None if tables is None else tag_for_gpu(device.name, tuple(tables.by_gpu))
    found = None
    if tables is not None and tag is not None:
        found = tables.by_gpu[tag].get(family, {}).get(key)
    if found is not None:
        return Route(m, family, key, tag, adapted_winner(layer, found, family), ())
    return Route(m, family, key, tag, None, candidates(family, layer, m, device, mode))


@dataclass(frozen=True)
class Stretch:
    """A run of batches with one family and one answer: first and last M, both included."""

    first: int
    last: int
    route: Route


def route_map(
    layer: Layer, batches: Iterable[int], device: GpuDescription, tables: Tables
) -> list[Stretch]:
    """The routes of many batches, joined where family, key and winner are the same."""
    found: list[Stretch] = []
    for m in batches:
        now = route(layer, m, device, tables)
        if found and _same(found[-1].route, now) and found[-1].last == m - 1:
            found[-1] = Stretch(found[-1].first, m, found[-1].route)
        else:
            found.append(Stretch(m, m, now))
    return found


def _same(one: Route, other: Route) -> bool:
    if (one.family, one.key, one.hit) != (other.family, other.key, other.hit):
        return False
    return one.winner == other.winner and one.candidates == other.candidates


def reaches(row: Row) -> bool:
    """Is there a batch that is routed to this row? Rows of a table that none reaches are dead."""
    key = row.key
    bits, input_type = key.type_id % 100, key.type_id // 100
    microscaling = input_type in (14, 15, 16, 17, 18)
    batches = range(previous_bucket(key.m) + 1, key.m + 1)
    return any(family_for(m, bits, microscaling) == row.family for m in batches)


def previous_bucket(m: int) -> int:
    """The largest batch of the bucket before this one; 0 before the first."""
    return max((value for value in _buckets() if value < bucket(m)), default=0)


@cache
def _buckets() -> tuple[int, ...]:
    return tuple(sorted({bucket(m) for m in range(1, LARGEST_M + 1)}))


def layer_of(key: Key) -> Layer | None:
    """A layer whose lookups have this key, for winners' own spaces; None for types of AMD's."""
    names = {104: "a16w4", 108: "a16w8-int8", 308: "a8w8-fp8", 408: "a8w8-int8"}
    name = names.get(key.type_id)
    if name is None or (name == "a16w4" and key.elements_per_sample != 8):
        return None
    if name == "a16w8-int8" and key.elements_per_sample != 1:
        return Layer(key.n, key.k, "a16w8-grouped", key.group_size)
    return Layer(key.n, key.k, name, key.group_size if name == "a16w4" else None)
