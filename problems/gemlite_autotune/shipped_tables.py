"""Which configurations does the installed GemLite ship, for which GPUs? Its tables, read as data.

Needs neither torch nor Triton: the tables are JSON files inside the package. A key is
`(M_CLOSEST, N, K, group_size, elements_per_sample, type_id)`, a value the winner that was tuned on
that GPU, without its time. Nothing is known of the versions it was tuned with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.errors import PreconditionError, UsageError

PINNED = {"gemlite": "0.6.0.post2", "triton": "3.9.0"}
# What is known to differ between versions, and so why another one is refused.
DIFFERENCES = {
    "gemlite": "the route at M = 64, the fast spaces and the pruner changed in 2026; 0.5 has "
    "other kernels and a pruner that drops what does not fit",
    "triton": "3.8 and older print and benchmark on a table hit, 3.10 changes the default of "
    "floating-point fusion; registers and SASS are another compiler's",
}
FAMILIES = ("GEMV", "GEMV_REVSPLITK", "GEMV_SPLITK", "GEMM_SPLITK", "GEMM")
KEY = re.compile(r"\(" + ", ".join([r"(\d+)"] * 6) + r"\)")
# Fields of older Triton configurations that the pruner drops, and what it recomputes.
DROPPED = frozenset(
    ("num_ctas", "num_buffers_warp_spec", "num_consumer_groups", "reg_dec_producer")
    + ("reg_inc_consumer", "EVEN_M", "EVEN_N", "EVEN_K", "maxnreg", "ir_override", "NUM_STAGES")
)


@dataclass(frozen=True, order=True)
class Key:
    """What GemLite's tables are looked up by. `type_id` is input type * 100 + bits per weight."""

    m: int
    n: int
    k: int
    group_size: int
    elements_per_sample: int
    type_id: int

    def __str__(self) -> str:
        parts = (self.m, self.n, self.k, self.group_size, self.elements_per_sample, self.type_id)
        return str(parts)


@dataclass(frozen=True)
class Config:
    """One configuration of a kernel. `None` where the family has no such knob."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    split_k: int | None = None
    a_order: int = 0
    group_m: int | None = None
    dot_mode: int | None = None
    others: tuple[tuple[str, int], ...] = ()  # knobs of AMD GPUs

    def __str__(self) -> str:
        split = f" SK{self.split_k}" if self.split_k is not None else ""
        tile = f"{self.block_m}x{self.block_n}x{self.block_k}"
        return f"{tile}{split} A{self.a_order} w{self.warps} s{self.stages}"


@dataclass(frozen=True)
class Row:
    gpu: str  # the tag of the file, e.g. "4090"
    family: str
    key: Key
    config: Config


@dataclass(frozen=True)
class Tables:
    """All shipped winners: tag of the GPU -> family -> key -> configuration."""

    by_gpu: Mapping[str, Mapping[str, Mapping[Key, Config]]]

    def rows(self, gpu: str | None = None, family: str | None = None) -> Iterator[Row]:
        for tag, families in self.by_gpu.items():
            for name, entries in families.items():
                if gpu in (None, tag) and family in (None, name):
                    for key, config in entries.items():
                        yield Row(tag, name, key, config)

    @property
    def counts(self) -> dict[str, int]:
        return {gpu: sum(map(len, families.values())) for gpu, families in self.by_gpu.items()}


def package_folder(name: str = "gemlite") -> Path:
    """Where the package lies, found without importing it. Raises PreconditionError."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise PreconditionError(f"{name} is not installed here; run ./run.sh setup")
    return Path(next(iter(spec.submodule_search_locations)))


def installed_version(name: str) -> str:
    """Version of the package that would be imported: of its own metadata, beside its folder."""
    folder = package_folder(name)
    for place in folder.parent.glob(f"{name}-*.dist-info/METADATA"):
        for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Version: "):
                return line.removeprefix("Version: ").strip()
    return "unknown"


def check_versions(names: tuple[str, ...] = ("gemlite", "triton")) -> None:
    """Raises PreconditionError for any version but the pinned one, saying why it matters.

    A recording takes the Triton that came with the machine's torch (WORKLOG_INSTALLED): there the
    version is a fact of the run, and sealed predictions say which version they are about.
    """
    as_installed = os.environ.get("WORKLOG_INSTALLED", "").split(",")
    for name in names:
        if name in as_installed:
            continue
        found = installed_version(name)
        if found != PINNED[name]:
            raise PreconditionError(
                f"{name} {found} is installed, this analysis is of {PINNED[name]} "
                f"({DIFFERENCES[name]}); run ./run.sh setup"
            )


def parse_config(values: Mapping[str, Any]) -> Config:
    """A configuration as GemLite writes it. Raises KeyError for one without a tile."""
    known = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "num_warps", "num_stages", "SPLIT_K",
             "A_load_order", "GROUP_SIZE_M", "dot_prod_mode")  # fmt: skip
    others = {k: int(v) for k, v in values.items() if k not in known and k not in DROPPED}
    return Config(
        block_m=int(values["BLOCK_SIZE_M"]),
        block_n=int(values["BLOCK_SIZE_N"]),
        block_k=int(values["BLOCK_SIZE_K"]),
        warps=int(values["num_warps"]),
        stages=int(values["num_stages"]),
        split_k=None if "SPLIT_K" not in values else int(values["SPLIT_K"]),
        a_order=int(values.get("A_load_order", 0)),
        group_m=None if "GROUP_SIZE_M" not in values else int(values["GROUP_SIZE_M"]),
        dot_mode=None if "dot_prod_mode" not in values else int(values["dot_prod_mode"]),
        others=tuple(sorted(others.items())),
    )


def parse_key(text: str) -> Key:
    match = KEY.fullmatch(text)
    if match is None:
        raise ValueError(f"key {text!r}")
    return Key(*map(int, match.groups()))


def read_table(path: Path) -> dict[str, dict[Key, Config]]:
    """One GPU's table. Raises UsageError for a file that is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            family: {parse_key(key): parse_config(values) for key, values in entries.items()}
            for family, entries in document.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path.name} is no table of configurations ({error}); install GemLite "
            f"{PINNED['gemlite']} anew"
        ) from error


def read_tables(folder: Path) -> Tables:
    """Every table under `folder` (the `configs` of the package), in the order of their tags."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UsageError(f"{folder} holds no tables; give the configs folder of GemLite")
    return Tables({path.name.split(".")[0]: read_table(path) for path in paths})


@cache
def shipped_tables() -> Tables:
    """The tables of the installed GemLite, of the pinned version only."""
    check_versions(("gemlite",))
    return read_tables(package_folder("gemlite") / "configs")


def tag_for_gpu(name: str, tags: tuple[str, ...]) -> str | None:
    """The tag whose table GemLite loads for a GPU of this name: substring, longest tag first."""
    lowered = name.lower().replace(" ", "_")
    for tag in sorted(tags, key=len, reverse=True):
        if tag in lowered:
            return tag
    return None
