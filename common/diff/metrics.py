"""Which kernel, and which of its metrics, accounts for the difference of two Nsight Compute files?

One row per launch, on gpu__time_duration in whole ns. A CSV prints rounded times: each launch's is
rounded to whole ns once, and totals are the sums of these, so that everything still adds up:

    delta == sum(row.delta) + sum(remainder.delta)         exactly, in integer ns
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from common.diff.difference import Confidence, Difference, Judgement, Remainder, Row, Tier
from common.diff.known_devices import different_devices
from common.diff.launch_pairs import LaunchPair, pair_launches
from common.diff.metric_changes import figures, other_metrics
from common.diff.metric_findings import notes
from common.diff.metric_reading import change_reading
from common.errors import UsageError
from common.traces.ncu import DURATION, KernelLaunch, NcuReport, reading

# Law of the diff: one capture per side says faster or slower only beyond this ratio.
CLEAR_RATIO = 1.5
SERIALISED = (
    "ncu runs kernels one at a time, flushes caches between passes and locks clocks to base unless "
    "told otherwise: times compare kernels, they are not those of the application"
)


def diff_ncu(
    a: NcuReport,
    b: NcuReport,
    summary_a: Mapping[str, Any],
    summary_b: Mapping[str, Any],
    by: str | None = None,
) -> Difference:
    """Compare two reports or CSVs launch by launch; `by` may only be "kernel".

    The summaries are those of `summarise_ncu`.
    """
    if by not in (None, "kernel"):
        raise UsageError(f"Nsight Compute files have no rows by {by!r}; give kernel, or nothing")
    pairs = pair_launches(a.launches, b.launches)
    rows: list[Row] = []
    untimed: list[dict[str, Any]] = []
    lost_a: list[tuple[str, int]] = []  # launches that only A has a time for
    lost_b: list[tuple[str, int]] = []
    for pair in pairs:
        left, right = _launch(a, pair.a), _launch(b, pair.b)
        time_a, time_b = time_ns(left), time_ns(right)
        misses = [x for x, t in ((left, time_a), (right, time_b)) if x is not None and t is None]
        if not misses:
            rows.append(_row(pair, left, right))
            continue
        untimed.append(_untimed(pair, left, right))
        if left is not None and time_a is not None:
            lost_a.append((left.base_name, time_a))
        if right is not None and time_b is not None:
            lost_b.append((right.base_name, time_b))
    remainders = [
        *([_lost(lost_a, "B", a_side=True)] if lost_a else []),
        *([_lost(lost_b, "A", a_side=False)] if lost_b else []),
    ]
    total_a = sum(time_ns(launch) or 0 for launch in a.launches)
    total_b = sum(time_ns(launch) or 0 for launch in b.launches)
    precision = printed_precision_ns(a) + printed_precision_ns(b)
    difference = Difference(
        source="ncu",
        quantity="gpu_time_ns",
        by="kernel",
        a=summary_a,
        b=summary_b,
        total_a=total_a,
        total_b=total_b,
        rows=tuple(sorted(rows, key=lambda row: -abs(row.delta))),
        remainders=tuple(remainders),
        gaps=None,
        judgement=Judgement("AMBIGUOUS", Confidence.SINGLE, ()),
        warnings=_warnings(a, b, pairs, len(untimed)),
        extra={
            "metrics": other_metrics(a.launches, b.launches, pairs),
            "untimed_launches": untimed,
            "printed_precision_ns": float(precision) if precision else None,
        },
    )
    judged = replace(difference, judgement=judge(difference, summary_a, summary_b))
    return replace(judged, notes=notes(judged, precision))


def _launch(report: NcuReport, index: int | None) -> KernelLaunch | None:
    return None if index is None else report.launches[index]


def time_ns(launch: KernelLaunch | None) -> int | None:
    """The duration in whole ns, ties to even; None where it is not known."""
    if launch is None or launch.time_ns is None:
        return None
    return int(Decimal(launch.time_ns).to_integral_value())


def printed_precision_ns(report: NcuReport) -> Decimal:
    """By how much the total may be off because a CSV rounded: half the last digit per launch."""
    known = (launch.metrics.get(DURATION) for launch in report.launches)
    digits = [m.resolution for m in known if m is not None and m.value is not None and m.resolution]
    # An integer number of ns is the profiler's own resolution, not a rounded print.
    return sum((digit / 2 for digit in digits if digit > 1), Decimal(0))


def _row(pair: LaunchPair, a: KernelLaunch | None, b: KernelLaunch | None) -> Row:
    either = a or b
    assert either is not None
    metrics = figures(a, b) | {"reading": _reading(a, b), "moved": pair.moved}
    return Row(
        name=either.name,
        name_b=b.name if a and b and a.name != b.name else None,
        tier=pair.tier,
        a=time_ns(a) or 0,
        b=time_ns(b) or 0,
        count_a=int(a is not None),
        count_b=int(b is not None),
        path=_place(a, b),
        metrics=metrics,
    )


def _reading(a: KernelLaunch | None, b: KernelLaunch | None) -> str:
    if a is not None and b is not None:
        return change_reading(a, b)
    only = a or b
    assert only is not None
    return f"Only in {'A' if a is not None else 'B'}: {reading(only)}"


def _place(a: KernelLaunch | None, b: KernelLaunch | None) -> str:
    """ncu's own ids of both launches."""
    ids = [None if x is None else x.launch_id for x in (a, b)]
    if ids[0] == ids[1] or None in ids:
        return f"launch {ids[0] if ids[0] is not None else ids[1]}"
    return f"launch {ids[0]} → {ids[1]}"


def _untimed(pair: LaunchPair, a: KernelLaunch | None, b: KernelLaunch | None) -> dict[str, Any]:
    """A launch whose time a side does not have: no row, but its metrics are compared."""
    either = a or b
    assert either is not None
    return {
        "name": either.name,
        "name_b": b.name if a and b and a.name != b.name else None,
        "tier": str(pair.tier),
        "path": _place(a, b),
        "a_ns": time_ns(a),
        "b_ns": time_ns(b),
        "metrics": figures(a, b) | {"reading": _reading(a, b), "moved": pair.moved},
    }


def _lost(launches: Sequence[tuple[str, int]], side: str, a_side: bool) -> Remainder:
    names = sorted({name for name, _ in launches})
    text = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    total = sum(time for _, time in launches)
    name = f"launches whose duration {side} lacks ({text})"
    return Remainder(name, total, 0) if a_side else Remainder(name, 0, total)


def judge(
    difference: Difference, summary_a: Mapping[str, Any], summary_b: Mapping[str, Any]
) -> Judgement:
    """The verdict of one capture per side on the GPU time of the profiled launches."""
    a, b = difference.total_a, difference.total_b
    both = [row for row in difference.rows if row.count_a and row.count_b]
    alone = len(difference.rows) - len(both) + len(difference.remainders)
    ratio = b / a if a and b else None
    shared_a, shared_b = sum(row.a for row in both), sum(row.b for row in both)
    shared = shared_b / shared_a if shared_a and shared_b else None
    reasons = ["one capture per side", SERIALISED]
    devices = different_devices(summary_a, summary_b)
    if devices:
        verdict, reasons = "NOT_COMPARABLE", [devices, *reasons]
    elif not a and not b and _is_identical(difference):
        verdict, reasons = "SAME", ["no durations, and every metric is equal", *reasons]
    elif not a or not b:
        verdict, reasons = "AMBIGUOUS", ["a side has no durations", *reasons]
    elif not alone and not any(row.delta for row in difference.rows):
        verdict, reasons = "SAME", ["every launch takes the same time on both sides", *reasons]
    elif ratio and shared and min(ratio, shared) > CLEAR_RATIO:
        verdict, reasons = "SLOWER", [f"B takes {ratio:.2f} times as long as A", *reasons]
    elif ratio and shared and max(ratio, shared) < 1 / CLEAR_RATIO:
        verdict, reasons = "FASTER", [f"A takes {1 / ratio:.2f} times as long as B", *reasons]
    elif ratio and not 1 / CLEAR_RATIO <= ratio <= CLEAR_RATIO:
        verdict = "AMBIGUOUS"
        reasons = ["the sides hold different launches; those in both do not say so", *reasons]
    else:
        verdict = "AMBIGUOUS"
        reasons = [f"less than {CLEAR_RATIO} times apart, which one capture cannot tell", *reasons]
    return Judgement(
        verdict,
        Confidence.SINGLE,
        tuple(reasons),
        judged_on="GPU time of the profiled launches",
        ratio=ratio,
        evidence={
            "gpu_time_ns": {"a": a, "b": b, "ratio": ratio},
            "launches_in_both": {"a": shared_a, "b": shared_b, "ratio": shared, "rows": len(both)},
        },
    )


def _is_identical(difference: Difference) -> bool:
    """Nothing moved, though no launch has a time: all metrics of all launches are equal."""
    everything = difference.extra["metrics"]
    return (
        not difference.rows
        and not everything["changed"]
        and not everything["only_a"]["count"]
        and not everything["only_b"]["count"]
        and all(row["tier"] != Tier.UNMATCHED for row in difference.extra["untimed_launches"])
    )


def _warnings(
    a: NcuReport, b: NcuReport, pairs: Sequence[LaunchPair], untimed: int
) -> tuple[str, ...]:
    found = [f"{s}: {warning}" for s, r in (("A", a), ("B", b)) for warning in r.warnings]
    for side, report in (("A", a), ("B", b)):
        parts = sum(
            launch.time_ns is not None and Decimal(launch.time_ns) % 1 != 0
            for launch in report.launches
        )
        if parts:
            found.append(f"{side}: durations with parts of a ns, rounded once to whole ns: {parts}")
        precision = printed_precision_ns(report)
        if precision:
            found.append(
                f"{side}: the CSV printed rounded durations: its total is exact to "
                f"±{precision.normalize():f} ns"
            )
    if untimed:
        found.append(f"launches without a duration on a side, no row of the total: {untimed}")
    named = sum(pair.tier in (Tier.EXACT, Tier.NORMALISED) for pair in pairs)
    if 2 * named < min(len(a.launches), len(b.launches)):
        found.append(f"few launches have a name in common: {named} of {len(pairs)} rows")
    moved = sum(pair.moved for pair in pairs)
    if moved:
        found.append(f"launches in another order in B, paired by name: {moved}")
    return tuple(found)
