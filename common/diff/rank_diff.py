"""What makes the difference between two jobs of many ranks? One `Difference`, the sum of them.

Every rank is compared by itself, in a process of its own; only its rows by name, totals and verdict
come back. What holds of one difference holds of each rank and of the sum:

    delta == sum(rows.delta) + sum(remainders.delta),  total == sum of the ranks' totals

exactly. Ranks that only one side has, or that cannot be read, are in no sum and are named.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from common.diff.by_name import aggregate, by_size
from common.diff.difference import (
    Confidence,
    Difference,
    GapCause,
    Gaps,
    Judgement,
    Remainder,
    Row,
    Tier,
)
from common.diff.rank_files import RankPair, pair_ranks
from common.diff.rank_pool import at_once, in_processes
from common.errors import UsageError, WorklogError

# A pair's comparison held 0.57 times the bytes of its traces, and 4.2 times those of its databases,
# which say more in a byte (tests/benchmarks/recorded/scale.json); others are taken for databases.
TRACE_MEMORY_PER_BYTE, MEMORY_PER_BYTE = 0.7, 5.0
MEMORY_AT_LEAST_BYTES, UNPACKED_RATIO = 100 << 20, 15
_COUNTS = ("events", "kernels", "launches")
_TIERS = {tier: place for place, tier in enumerate(Tier)}


@dataclass(frozen=True)
class RankDifference:
    """What one rank's difference amounts to: rows are by name, without their groups."""

    pair: RankPair
    whole: Difference
    span_a_ns: int | None
    span_b_ns: int | None

    def to_json(self) -> dict[str, Any]:
        found = self.whole.to_json()
        kept = ("total_a", "total_b", "delta", "rows", "remainders", "residual", "gaps", "verdict",
                "confidence", "reasons", "speed", "warnings")  # fmt: skip
        assert self.pair.a is not None and self.pair.b is not None
        return {
            "rank": self.pair.rank, "file_a": self.pair.a.name, "file_b": self.pair.b.name,
            "span_a_ns": self.span_a_ns, "span_b_ns": self.span_b_ns,
            **{key: found[key] for key in kept},
        }  # fmt: skip


def compare_ranks(a: str, b: str, by: str | None = None) -> Difference:
    """Compare two folders of files, one per rank. Raises UsageError where nothing can be."""
    pairs = pair_ranks(Path(a), Path(b))
    both = [pair for pair in pairs if pair.a and pair.b]
    done: list[RankDifference] = []
    failed: dict[str, str] = {}
    most = at_once([_memory_bytes(pair) for pair in both])
    for pair, result in in_processes(partial(_compare, by=by), both, most):
        if isinstance(result, RankDifference):
            done.append(result)
        elif isinstance(result, WorklogError | OSError | MemoryError):
            failed[pair.rank] = str(result) or "the memory is not enough for it; free some"
        else:
            raise result
    order = {pair.rank: number for number, pair in enumerate(pairs)}
    done.sort(key=lambda one: order[one.pair.rank])
    if not done:
        first = min(failed, key=order.__getitem__)
        raise UsageError(
            f"none of the {len(both)} ranks can be compared; rank {first}: {failed[first]}"
        )
    kinds = Counter((one.whole.quantity, one.whole.source) for one in done)
    (quantity, source), _ = kinds.most_common(1)[0]
    for one in done:
        if (one.whole.quantity, one.whole.source) != (quantity, source):
            failed[one.pair.rank] = (
                f"its {one.whole.quantity} ({one.whole.source}) cannot be added to the {quantity} "
                f"({source}) of the others; record it alike"
            )
    done = [one for one in done if one.pair.rank not in failed]
    alone = [pair for pair in pairs if not (pair.a and pair.b)]
    return _total((a, b), done, alone, dict(sorted(failed.items(), key=lambda f: order[f[0]])))


def _memory_bytes(pair: RankPair) -> int:
    total = 0.0
    for path in (pair.a, pair.b):
        try:
            size = path.stat().st_size if path else 0
        except OSError:
            continue
        name = path.name.lower() if path else ""
        is_trace = name.removesuffix(".gz").endswith(".json")
        each = TRACE_MEMORY_PER_BYTE if is_trace else MEMORY_PER_BYTE
        total += size * each * (UNPACKED_RATIO if name.endswith(".gz") else 1)
    return MEMORY_AT_LEAST_BYTES + int(total)


def _compare(pair: RankPair, by: str | None) -> RankDifference:
    from common.diff.diff import compare_files

    found = compare_files(str(pair.a), str(pair.b), by)
    spans = [side.get("span_ns") for side in (found.a, found.b)]
    rows = tuple(replace(row, children=(), metrics=None) for row in aggregate(found.rows, 0))
    gaps = found.gaps and Gaps(
        found.gaps.a_ns, found.gaps.b_ns,
        tuple(replace(cause, children=()) for cause in found.gaps.causes),
    )  # fmt: skip
    return RankDifference(pair, replace(found, rows=rows, gaps=gaps, extra={}), *spans)


def _total(
    places: tuple[str, str],
    done: Sequence[RankDifference],
    alone: Sequence[RankPair],
    failed: Mapping[str, str],
) -> Difference:
    first = done[0].whole
    wholes = [one.whole for one in done]
    sides = [
        _side([getattr(one.whole, side) for one in done], place, [o.pair.rank for o in done])
        for side, place in zip("ab", places, strict=True)
    ]
    known = [one.gaps for one in wholes if one.gaps is not None]
    remainders: dict[str, Remainder] = {}
    for whole in wholes:
        for left in whole.remainders:
            held = remainders.get(left.name, Remainder(left.name, 0, 0))
            remainders[left.name] = Remainder(left.name, held.a + left.a, held.b + left.b)
    warnings = [
        f"rank {pair.rank} is only in {'A' if pair.a else 'B'} "
        f"({(pair.a or pair.b or Path()).name}) and in no sum"
        for pair in alone
    ]
    warnings += [f"rank {rank} was not compared: {says}" for rank, says in failed.items()]
    said: dict[str, list[str]] = {}
    for one in done:
        for says in one.whole.warnings:
            said.setdefault(says, []).append(one.pair.rank)
    warnings += [f"{_ranks(ranks)}: {says}" for says, ranks in said.items()]
    return Difference(
        source=first.source,
        quantity=first.quantity,
        by=first.by,
        a=sides[0],
        b=sides[1],
        total_a=sum(one.total_a for one in wholes),
        total_b=sum(one.total_b for one in wholes),
        rows=_sum_rows(row for one in wholes for row in one.rows),
        remainders=tuple(remainders.values()),
        gaps=_sum_gaps(known) if known else None,
        judgement=_judged(done),
        notes=_notes(done),
        warnings=tuple(warnings),
        extra={
            "ranks": [one.to_json() for one in done],
            "missing_ranks": [
                {"rank": pair.rank, "only_in": "a" if pair.a else "b"} for pair in alone
            ],
            "failed_ranks": [{"rank": rank, "says": says} for rank, says in failed.items()],
        },
    )


def _side(summaries: Sequence[Mapping[str, Any]], place: str, ranks: Sequence[str]) -> Any:
    """The sums of what every rank knows. A span has no sum: each rank's stands beside it."""
    keys = [
        key
        for key, value in summaries[0].items()
        if (key.endswith(("_ns", "_bytes")) or key in _COUNTS) and key != "span_ns"
        and isinstance(value, int)
    ]  # fmt: skip
    known = [key for key in keys if all(isinstance(s.get(key), int) for s in summaries)]
    devices = [
        {"rank": rank, **device}
        for rank, summary in zip(ranks, summaries, strict=True)
        for device in summary.get("devices") or ()
        if isinstance(device, Mapping)
    ]
    formats = dict.fromkeys(str(summary.get("format")) for summary in summaries)
    return {
        "path": place,
        "format": ", ".join(formats),
        "ranks": len(summaries),
        "devices": devices,
        **{key: sum(summary[key] for summary in summaries) for key in known},
    }


def _sum_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """One row per name over all ranks, held as running sums."""
    sums: dict[tuple[str, str | None], Row] = {}
    for row in rows:
        held = sums.get((row.name, row.name_b))
        sums[row.name, row.name_b] = row if held is None else Row(
            name=row.name, name_b=row.name_b, tier=min(held.tier, row.tier, key=_TIERS.__getitem__),
            a=held.a + row.a, b=held.b + row.b, count_a=held.count_a + row.count_a,
            count_b=held.count_b + row.count_b, path=held.path if held.path == row.path else None,
        )  # fmt: skip
    kept = (replace(row, interval=None) for row in sums.values())
    return tuple(sorted(kept, key=by_size))


def _sum_gaps(known: Sequence[Gaps]) -> Gaps:
    causes: dict[str, GapCause] = {}
    for cause in (cause for gaps in known for cause in gaps.causes):
        held = causes.get(cause.cause, GapCause(cause.cause, 0, 0, 0, 0))
        causes[cause.cause] = GapCause(
            cause.cause, held.a_ns + cause.a_ns, held.b_ns + cause.b_ns,
            held.count_a + cause.count_a, held.count_b + cause.count_b,
        )  # fmt: skip
    return Gaps(
        sum(gaps.a_ns for gaps in known), sum(gaps.b_ns for gaps in known), tuple(causes.values())
    )


def _judged(done: Sequence[RankDifference]) -> Judgement:
    """A job waits for its slowest rank: SLOWER where a rank is and none is FASTER, and the other
    way round; the ratio is that of the rank that moved most in that direction."""
    judged = {one.pair.rank: one.whole.judgement for one in done}
    by_verdict: dict[str, list[str]] = {}
    for name, found in judged.items():
        by_verdict.setdefault(found.verdict, []).append(name)
    sure = [verdict for verdict in ("SLOWER", "FASTER") if verdict in by_verdict]
    if "NOT_COMPARABLE" in by_verdict:
        verdict = "NOT_COMPARABLE"
    elif len(sure) == 1:
        verdict = sure[0]
    else:
        verdict = "SAME" if set(by_verdict) == {"SAME"} else "AMBIGUOUS"
    deciding = by_verdict.get(verdict, list(judged))
    ratios = {name: judged[name].ratio for name in deciding}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    rank: str | None = None
    if known:
        best = {"SLOWER": max, "FASTER": min}.get(verdict, _nearest_the_median)
        rank = best(known, key=known.__getitem__)
    own = judged[rank if rank is not None else deciding[0]]
    counts = [f"{name} on {_ranks(ranks)}" for name, ranks in sorted(by_verdict.items())]
    says = f"{len(done)} ranks: {'; '.join(counts)}"
    about = [f"rank {rank or deciding[0]}: {reason}" for reason in own.reasons]
    confidence = (
        Confidence.INTERVAL
        if all(judged[one].confidence is Confidence.INTERVAL for one in deciding)
        else Confidence.SINGLE
    )
    return Judgement(
        verdict, confidence, (says, *about),
        f"{own.judged_on or 'B'} of rank {rank}" if rank is not None else None,
        known.get(rank) if rank is not None else None,
        own.interval if rank is not None else None,
    )  # fmt: skip


def _nearest_the_median(known: Mapping[str, float], key: Any) -> str:
    middle = statistics.median_low(known.values())
    return next(rank for rank in known if known[rank] == middle)


def _ranks(ranks: Sequence[str], most: int = 6) -> str:
    named = ", ".join(ranks[:most])
    more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {named}{more}"


def _notes(done: Sequence[RankDifference]) -> tuple[str, ...]:
    """Which rank is the slowest, the fastest, the most changed; in the compared quantity."""
    if len(done) < 2:
        return ()
    found = []
    for side, which in (("total_a", "A"), ("total_b", "B")):
        totals = {one.pair.rank: getattr(one.whole, side) for one in done}
        most, least = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
        middle = statistics.median(totals.values())
        spread = f" ({totals[most] / middle:.3f} × the median)" if middle else ""
        found.append(
            f"in {which} rank {most} has the most {done[0].whole.quantity}, {totals[most]:,}"
            f"{spread}, rank {least} the least, {totals[least]:,}"
        )
    changed = max(done, key=lambda one: abs(one.whole.delta))
    row = changed.whole.rows[0] if changed.whole.rows else None
    because = f", most of it {row.name} ({row.delta:+,})" if row and row.delta else ""
    found.append(f"rank {changed.pair.rank} changed most: {changed.whole.delta:+,}{because}")
    return tuple(found)
