"""What do 12,676 tuned winners have in common? Statements, each checked against the tables.

Every finding has the range that was noted when the tables were first read; it is *confirmed* if
the tables give a value inside, else *refuted* and the value stands there. The winners come from
different months, compilers and search lists, and near-ties fall either way: shares are facts about
the tables, not about what is fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean, median

from problems.gemlite_autotune.shipped_tables import Config, Key, Row, Tables

W4, INT8, FP8 = 104, 408, 308  # type_id: 16-bit x 4 bit, int8 x int8, fp8 x fp8
WARP = 32
# Source: common/floors/devices.toml, and NVIDIA's product pages for the three that it lacks.
SM_COUNT = {
    "4090": 128, "5090": 170, "6000_ada": 142, "a100": 108, "a40": 84, "a6000": 84, "h100": 132,
    "l4": 58, "l40": 142, "l40s": 142, "mi300x": 304,
}  # fmt: skip
ADA_AND_AMPERE = ("a40", "a6000", "l40", "l40s", "6000_ada")


@dataclass(frozen=True)
class Finding:
    """A statement about the tables. It holds if `value` lies within [low, high]."""

    id: str
    says: str
    unit: str
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.value <= self.high


def select(
    tables: Tables,
    gpu: str,
    family: str,
    type_id: int,
    m: tuple[int, int] = (0, 1 << 20),
    n: tuple[int, int] = (0, 1 << 20),
    group: int | None = None,
) -> list[Row]:
    """Rows of one GPU, family and type, with M and N in closed intervals."""
    return [
        row
        for row in tables.rows(gpu, family)
        if row.key.type_id == type_id
        and m[0] <= row.key.m <= m[1]
        and n[0] <= row.key.n <= n[1]
        and group in (None, row.key.group_size)
    ]


def share(rows: Iterable[Row], holds: Callable[[Config], bool]) -> float:
    """Percent of the rows whose configuration satisfies `holds`."""
    found = [holds(row.config) for row in rows]
    return 100 * mean(found) if found else float("nan")


def ring_kib(config: Config) -> float:
    """Shared memory of a software pipeline of one-byte tiles: (BM + BN) x BK x (stages - 1)."""
    return (config.block_m + config.block_n) * config.block_k * (config.stages - 1) / 1024


def grid_blocks(row: Row) -> int:
    """Blocks that the configuration launches for the key's own M."""
    config, key = row.config, row.key
    across = -(-key.n // config.block_n)
    if row.family == "GEMV_REVSPLITK":
        return key.m * across * -(-key.k // (2 * config.block_k))
    return -(-key.m // config.block_m) * across * (config.split_k or 1)


def on_cas_path(config: Config) -> bool:
    """Fewer than two fp16 outputs per lane: the atomic add becomes a compare-and-swap loop."""
    return config.block_n < 2 * WARP * config.warps


def agreement(tables: Tables, one: str, other: str) -> float:
    """Percent of the common keys at which two GPUs have the identical configuration."""
    here = {(row.family, row.key): row.config for row in tables.rows(one)}
    there = {(row.family, row.key): row.config for row in tables.rows(other)}
    common = here.keys() & there.keys()
    return 100 * mean(here[key] == there[key] for key in common)


def type_agreement(tables: Tables, gpu: str, one: int, other: int) -> float:
    """Percent of the keys that two types share on one GPU with the identical configuration."""
    found = {(row.family, row.key): row.config for row in tables.rows(gpu)}

    def twin(key: Key) -> Key:
        return Key(key.m, key.n, key.k, key.group_size, key.elements_per_sample, other)

    pairs = [
        config == found[family, twin(key)]
        for (family, key), config in found.items()
        if key.type_id == one and (family, twin(key)) in found
    ]
    return 100 * mean(pairs)


def p90(values: list[float]) -> float:
    return sorted(values)[int(0.9 * len(values))]


def stages(tables: Tables, gpu: str, family: str, type_id: int, count: int) -> float:
    return share(select(tables, gpu, family, type_id), lambda c: c.stages == count)


def warps(tables: Tables, gpu: str, family: str, count: int) -> float:
    return share(select(tables, gpu, family, W4), lambda c: c.warps == count)


def split(tables: Tables, gpu: str, m: tuple[int, int], n: tuple[int, int] = (0, 1 << 20)) -> float:
    return mean(c.config.split_k or 1 for c in select(tables, gpu, "GEMM_SPLITK", W4, m, n))


def blocks_per_sm(tables: Tables, gpu: str, n: tuple[int, int]) -> float:
    rows = select(tables, gpu, "GEMM_SPLITK", W4, (0, 16), n)
    return median(grid_blocks(row) / SM_COUNT[gpu] for row in rows)


def tile_area(tables: Tables, gpu: str, m: int) -> float:
    rows = select(tables, gpu, "GEMM", W4, (m, m))
    return mean(row.config.block_m * row.config.block_n for row in rows)


def gemv_tile(tables: Tables, gpu: str) -> float:
    rows = select(tables, gpu, "GEMV_REVSPLITK", W4)
    return median(row.config.block_n * row.config.block_k for row in rows)


def gemv_grid(tables: Tables, gpu: str) -> float:
    return median(grid_blocks(row) for row in select(tables, gpu, "GEMV_REVSPLITK", W4))


NARROW, WIDE = (0, 4096), (8193, 1 << 20)
Check = tuple[str, str, str, Callable[[Tables], float], float, float]


def _a100_at_2048(t: Tables) -> float:
    rows = select(t, "a100", "GEMM", W4, (2048, 3072))

    def same(c: Config) -> bool:
        return (c.block_m, c.block_n, c.block_k, c.warps, c.stages) == (256, 64, 32, 4, 4)

    return share(rows, same)


def _nvidia_gemv(t: Tables) -> list[Row]:
    return [row for row in t.rows(family="GEMV_REVSPLITK") if row.gpu != "mi300x"]


def _least(t: Tables, gpus: Iterable[str], value: Callable[[str], float]) -> float:
    return min(value(gpu) for gpu in gpus)


def _int8_ring(t: Tables, gpu: str, family: str) -> list[float]:
    return [ring_kib(row.config) for row in select(t, gpu, family, INT8)]


# id, statement, unit, value, lowest and highest that confirm it.
CHECKS: tuple[Check, ...] = (
    ("T0", "entries in all tables", "", lambda t: sum(t.counts.values()), 12_676, 12_676),
    ("T1a", "W4 split-K without a pipeline (one stage), the least of 4090, H100, A40, A6000, L40, "
     "L40S, 6000 Ada", "%",
     lambda t: _least(t, ("4090", "h100", *ADA_AND_AMPERE),
                      lambda g: stages(t, g, "GEMM_SPLITK", W4, 1)), 99.5, 100),
    ("T1b", "A100, W4 GEMM: four stages", "%", lambda t: stages(t, "a100", "GEMM", W4, 4), 94, 96),
    ("T1c", "A100, W4 split-K: one stage", "%",
     lambda t: stages(t, "a100", "GEMM_SPLITK", W4, 1), 73, 75),
    ("T1d", "4090, int8 GEMM: four stages", "%",
     lambda t: stages(t, "4090", "GEMM", INT8, 4), 62, 64),
    ("T1e", "H100, int8 GEMM: five stages", "%",
     lambda t: stages(t, "h100", "GEMM", INT8, 5), 34, 36),
    ("T2a", "4090, int8 GEMM: median shared memory of the pipeline", "KiB",
     lambda t: median(_int8_ring(t, "4090", "GEMM")), 63, 65),
    ("T2b", "H100, int8 GEMM: the same", "KiB",
     lambda t: median(_int8_ring(t, "h100", "GEMM")), 143, 145),
    ("T2c", "int8 GEMM on cards with 99 KiB: 90th percentile, the least of five", "KiB",
     lambda t: _least(t, ("4090", *ADA_AND_AMPERE), lambda g: p90(_int8_ring(t, g, "GEMM"))),
     72, 72),
    ("T3a", "4090, W4: mean SPLIT_K at M ≤ 8", "", lambda t: split(t, "4090", (0, 8)), 11.4, 11.7),
    ("T3b", "4090, W4: mean SPLIT_K at M = 64", "",
     lambda t: split(t, "4090", (64, 64)), 4.7, 4.9),
    ("T3c", "4090, W4, M ≤ 16: mean SPLIT_K at N ≤ 4096", "",
     lambda t: split(t, "4090", (0, 16), NARROW), 15.2, 15.6),
    ("T3d", "4090, W4, M ≤ 16: mean SPLIT_K at N > 8192", "",
     lambda t: split(t, "4090", (0, 16), WIDE), 4.3, 4.5),
    ("T3e", "H100, W4, M ≤ 16: mean SPLIT_K at N > 8192", "",
     lambda t: split(t, "h100", (0, 16), WIDE), 10.2, 10.4),
    ("T3f", "L4, W4, M ≤ 16: mean SPLIT_K at N ≤ 4096", "",
     lambda t: split(t, "l4", (0, 16), NARROW), 3.1, 3.3),
    ("T4a", "4090, W4, M ≤ 16, N ≤ 4096: median blocks per SM", "",
     lambda t: blocks_per_sm(t, "4090", NARROW), 5, 7),
    ("T4b", "H100: the same", "", lambda t: blocks_per_sm(t, "h100", NARROW), 5, 7),
    ("T4c", "L4: the same", "", lambda t: blocks_per_sm(t, "l4", NARROW), 1.3, 2.2),
    ("T4d", "4090, W4, M ≤ 16, N > 4096: median blocks per SM", "",
     lambda t: blocks_per_sm(t, "4090", (4097, 1 << 20)), 4, 5.5),
    ("T5a", "int8 split-K with SPLIT_K = 1: 4090", "%",
     lambda t: share(select(t, "4090", "GEMM_SPLITK", INT8), lambda c: c.split_k == 1), 95.5, 96.5),
    ("T5b", "the same, the least of L4, A6000 and 6000 Ada", "%",
     lambda t: _least(t, ("l4", "a6000", "6000_ada"), lambda g: share(
         select(t, g, "GEMM_SPLITK", INT8), lambda c: c.split_k == 1)), 100, 100),
    ("T6a", "4090, W4, M = 1: median tile", "elements", lambda t: gemv_tile(t, "4090"), 8192, 8192),
    ("T6b", "H100: the same", "elements", lambda t: gemv_tile(t, "h100"), 2048, 2048),
    ("T6c", "H100, W4, M = 1: BK = 8", "%",
     lambda t: share(select(t, "h100", "GEMV_REVSPLITK", W4), lambda c: c.block_k == 8), 79, 81),
    ("T6d", "A40, W4, M = 1: 128x8 with one warp", "%", lambda t: share(
        select(t, "a40", "GEMV_REVSPLITK", W4),
        lambda c: (c.block_n, c.block_k, c.warps) == (128, 8, 1)), 77, 79),
    ("T6e", "4090, W4, M = 1: median grid", "blocks", lambda t: gemv_grid(t, "4090"), 1920, 1920),
    ("T6f", "H100: the same", "blocks", lambda t: gemv_grid(t, "h100"), 6336, 6336),
    ("T7a", "H100, W4 split-K: four warps", "%",
     lambda t: warps(t, "h100", "GEMM_SPLITK", 4), 84, 86),
    ("T7b", "A100, W4 split-K: four warps", "%",
     lambda t: warps(t, "a100", "GEMM_SPLITK", 4), 97, 99),
    ("T7c", "4090, W4 GEMM: four warps", "%", lambda t: warps(t, "4090", "GEMM", 4), 72, 74),
    ("T8a", "4090, W4 GEMM: mean tile BM x BN at M = 96", "",
     lambda t: tile_area(t, "4090", 96), 4600, 4700),
    ("T8b", "4090: the same at M = 4096", "", lambda t: tile_area(t, "4090", 4096), 8150, 8250),
    ("T8c", "A100: the same at M = 4096", "", lambda t: tile_area(t, "a100", 4096), 18_700, 18_900),
    ("T8d", "A100, W4, M = 2048 to 3072: 256x64x32, four warps, four stages", "%",
     _a100_at_2048, 100, 100),
    ("T9a", "4090, W4 split-K, group 64: BK = 128", "%", lambda t: share(
        select(t, "4090", "GEMM_SPLITK", W4, group=64), lambda c: c.block_k == 128), 0, 0),
    ("T9b", "4090, W4 split-K, group 128: BK = 128", "%", lambda t: share(
        select(t, "4090", "GEMM_SPLITK", W4, group=128), lambda c: c.block_k == 128), 39, 41),
    ("T10a", "identical winner at the same key: 4090 and 6000 Ada", "%",
     lambda t: agreement(t, "4090", "6000_ada"), 26, 28),
    ("T10b", "the same: L40 and L40S", "%", lambda t: agreement(t, "l40", "l40s"), 40, 42),
    ("T10c", "the same: A40 and A6000", "%", lambda t: agreement(t, "a40", "a6000"), 63, 65),
    ("T10d", "the same: 4090 and H100", "%", lambda t: agreement(t, "4090", "h100"), 7.5, 8.5),
    ("T10e", "the same: A100 and H100", "%", lambda t: agreement(t, "a100", "h100"), 1.7, 1.9),
    ("T10f", "L4: fp8 and int8 have the identical winner", "%",
     lambda t: type_agreement(t, "l4", FP8, INT8), 69, 71),
    ("T11a", "M = 1 winners of NVIDIA's on the compare-and-swap path (fp16)", "%",
     lambda t: share(_nvidia_gemv(t), on_cas_path), 2.4, 2.6),
    ("T11b", "the same: 4090, H100 and A100", "%", lambda t: share(
        [r for r in _nvidia_gemv(t) if r.gpu in ("4090", "h100", "a100")], on_cas_path), 0, 0),
    ("T12", "4090, M = 1: one stage, where the number of stages changes no instruction", "%",
     lambda t: share(select(t, "4090", "GEMV_REVSPLITK", W4), lambda c: c.stages == 1), 67, 69),
)  # fmt: skip


def findings(tables: Tables) -> tuple[Finding, ...]:
    """Every statement with the value that the tables give."""
    return tuple(
        Finding(id, says, unit, float(value(tables)), low, high)
        for id, says, unit, value, low, high in CHECKS
    )
