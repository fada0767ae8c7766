"""Which file of one folder belongs to which of the other? Traces of a job, one file per rank.

Matched by name first: equal names are one rank. What is left is matched by its rank: the number in
the name (`rank3`, `rank-3`, `r3`, `worker3`, `gpu3`, or the only number there), else the one that
torch.profiler wrote into the head of the trace (`distributedInfo`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UsageError, WorklogError
from common.traces.byte_source import ByteSource

ENDINGS = (".json", ".sqlite", ".nsys-rep", ".ncu-rep", ".csv", ".pickle")
HEAD_BYTES = 1 << 16
_NAMED = re.compile(r"(?:^|[^a-z])(?:rank|worker|gpu|r)[-_.= ]?(\d{1,6})(?!\d)", re.IGNORECASE)
_NUMBERS = re.compile(r"\d+")
_RECORDED = re.compile(rb'"distributedInfo"\s*:\s*\{[^{}]*?"rank"\s*:\s*(\d{1,6})\b')


@dataclass(frozen=True)
class RankPair:
    """One rank and its file on each side; None where that side has none."""

    rank: str  # its number, or the files' common name
    a: Path | None
    b: Path | None


def are_rank_folders(a: str, b: str) -> bool:
    """Whether both are folders of profiler files, and neither is a run or a folder of runs."""
    return all(_is_rank_folder(Path(side)) for side in (a, b))


def _is_rank_folder(folder: Path) -> bool:
    try:
        if not folder.is_dir() or (folder / "manifest.json").exists():
            return False
        runs = any(folder.glob("*/manifest.json"))
        return not runs and any(map(_is_candidate, folder.iterdir()))
    except (OSError, ValueError):  # no permission, a NUL in the name: whoever opens it says so
        return False


def _is_candidate(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    # A link that leads nowhere counts: its rank is there and cannot be read.
    is_file = path.is_file() or (path.is_symlink() and not path.exists())
    return is_file and not name.startswith(".") and name.endswith(ENDINGS)


def pair_ranks(a: Path, b: Path) -> tuple[RankPair, ...]:
    """The ranks of two folders in order. Raises UsageError where two files claim one rank, or
    none of A has a partner in B."""
    sides = [{path.name: path for path in _candidates(folder)} for folder in (a, b)]
    same = sorted(sides[0].keys() & sides[1].keys())
    found = [RankPair(_label(name, same), sides[0][name], sides[1][name]) for name in same]
    if len({pair.rank for pair in found}) < len(found):  # one number in several names
        found = [RankPair(pair.a.name if pair.a else "", pair.a, pair.b) for pair in found]
    rest = [
        _by_rank(folder, [path for name, path in side.items() if name not in same])
        for folder, side in zip((a, b), sides, strict=True)
    ]
    found += [
        RankPair(rank, rest[0].get(rank), rest[1].get(rank))
        for rank in sorted(rest[0].keys() | rest[1].keys())
    ]
    if not any(pair.a and pair.b for pair in found):
        raise UsageError(
            f"no file of {a} has a partner in {b}: neither names nor ranks agree; name them alike, "
            "such as rank0.json"
        )
    return tuple(sorted(found, key=lambda pair: _in_order(pair.rank)))


def _candidates(folder: Path) -> list[Path]:
    """Its files, without a report of Nsight Systems whose export stands beside it."""
    files = [path for path in folder.iterdir() if _is_candidate(path)]
    exported = {path.name.removesuffix(".gz").removesuffix(".sqlite") for path in files
                if ".sqlite" in path.name}  # fmt: skip
    return [
        path
        for path in files
        if not (path.name.endswith(".nsys-rep") and path.name.removesuffix(".nsys-rep") in exported)
    ]


def _by_rank(folder: Path, files: Sequence[Path]) -> Mapping[str, Path]:
    names = [path.name for path in files]
    found: dict[str, Path] = {}
    for path in sorted(files):
        rank = _label(path.name, names)
        if rank == path.name:
            rank = _recorded_rank(path) or rank
        if rank in found:
            raise UsageError(
                f"{folder} holds two files of rank {rank}, {found[rank].name} and {path.name}; "
                "leave one of them"
            )
        found[rank] = path
    return found


def _label(name: str, among: Sequence[str]) -> str:
    """The rank in a name; the name itself where there is none."""
    stem = name.lower()
    for ending in (".gz", *ENDINGS):
        stem = stem.removesuffix(ending)
    named = _NAMED.findall(stem)
    if named:
        return str(int(named[-1]))
    numbers = _NUMBERS.findall(stem)
    alone = len(numbers) == 1 and len(numbers[0]) <= 6
    return str(int(numbers[0])) if alone and len(among) > 1 else name


def _recorded_rank(path: Path) -> str | None:
    try:
        found = _RECORDED.search(ByteSource(path).head(HEAD_BYTES))
    except (WorklogError, OSError):  # whoever reads the file says so
        return None
    return str(int(found[1])) if found else None


def _in_order(rank: str) -> tuple[bool, int, str]:
    return (False, int(rank), "") if rank.isdecimal() else (True, 0, rank)
