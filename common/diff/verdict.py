"""What may be said about speed? The verdict on two traces or two variants of runs.

The strongest evidence that both sides have decides:

1. samples of a run, measured without a profiler: paired by round where both sides were interleaved
   in one run, else unpaired; the phase that is measured in units (decode) gives the verdict;
2. spans of steps (`common.diff.steps`), 10 or more a side: unpaired, with an interval;
3. one span per side: "single capture". SAME if the sides are identical, FASTER or SLOWER beyond
   a factor of 1.5, AMBIGUOUS between: reruns of equal code differ by 20 % and more.

A span runs from the first GPU start to the last GPU end; of a trace without GPU work from the
first operator's start to the last one's end. NOT_COMPARABLE replaces the verdict where machines or
workloads differ, and keeps the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from common.diff.comparable import incomparable, repetition_factor
from common.diff.difference import Confidence, Judgement
from common.diff.identity import identical
from common.diff.sides import Side
from common.diff.speed_figures import (
    PER_STEP,
    SINGLE_CAPTURE_FACTOR,
    beyond_factor,
    contradictions,
    figures_of,
)
from common.diff.steps import (
    FEWEST_STEPS,
    LEAST_STEPS,
    Repetitions,
    common_range,
    profiler_steps,
)
from common.timing.statistics import Verdict, compare_unpaired

PROFILED = "both sides were timed under a profiler, which slows the host down: measure without one"


def judge_traces(a: Side, b: Side) -> Judgement:
    """The verdict about B beside A, sides of kind "trace" or "run"; UsageError for others."""
    figures = figures_of(a, b)
    judged = _judged(a, b, figures)
    said = (*judged.reasons, *contradictions(judged, figures), *_cautions(a, b, judged))
    judged = replace(judged, reasons=said, evidence={**figures, **judged.evidence})
    against = incomparable(a, b)
    if not against:
        return judged
    kept = {"verdict": judged.verdict, "confidence": str(judged.confidence), "ratio": judged.ratio}
    return replace(
        judged,
        verdict=str(Verdict.NOT_COMPARABLE),
        reasons=(*against, *said),
        evidence={**judged.evidence, "if_comparable": kept},
    )


def _judged(a: Side, b: Side, figures: Mapping[str, Any]) -> Judgement:
    if identical(a, b):
        says = "both sides hold the same GPU work and host spans, to the nanosecond"
        return Judgement(str(Verdict.SAME), Confidence.SINGLE, (says,), "span", 1.0)
    return _by_samples(a, b) or _by_steps(a, b, figures)


def _by_samples(a: Side, b: Side) -> Judgement | None:
    if not (a.samples and b.samples):
        return None
    from common.diff.sample_verdict import judge_samples  # of runs, which most sides are not

    return judge_samples(a, b)


def _by_steps(a: Side, b: Side, figures: Mapping[str, Any]) -> Judgement:
    """By profiler steps if both have them, however few (what repeats within a step is a part of
    it), else by a range that both repeat, else by the whole capture."""
    if a.trace.has_gpu_events != b.trace.has_gpu_events:
        which = "A" if a.trace.has_gpu_events else "B"
        says = f"only {which} recorded GPU work: record both sides with it for a verdict"
        return Judgement(str(Verdict.AMBIGUOUS), Confidence.SINGLE, (says,))
    reasons: list[str] = []
    pair: tuple[Repetitions, Repetitions] | None = None
    steps_a, steps_b = profiler_steps(a.trace), profiler_steps(b.trace)
    if steps_a and steps_b:
        pair = steps_a, steps_b
    else:
        found = common_range(a.trace, b.trace)
        if isinstance(found, str):
            reasons.append(found)
        else:
            pair = found
        if pair is None and (steps_a or steps_b):
            reasons.append(f"only {'A' if steps_a else 'B'} has profiler steps")
    if pair is None:
        return _single(a, b, figures, reasons)
    record = {"steps": _steps_record(*pair)}
    if min(len(pair[0]), len(pair[1])) < LEAST_STEPS:
        return _few_steps(a, b, figures, pair, record)
    return _by_interval(a, b, pair, record)


def _by_interval(
    a: Side, b: Side, pair: tuple[Repetitions, Repetitions], record: Mapping[str, Any]
) -> Judgement:
    name = pair[0].name
    found = compare_unpaired(
        pair[0].spans_ns, pair[1].spans_ns, reason="one capture a side, not interleaved"
    )
    reasons = [f"judged on the span of each {name}: {len(pair[0])} in A, {len(pair[1])} in B"]
    for side, which in zip(pair, "AB", strict=True):
        reasons += [f"{which}: {note}" for note in side.notes]
    verdict = found.verdict
    if a.trace.source != b.trace.source and verdict in (Verdict.FASTER, Verdict.SLOWER):
        verdict = beyond_factor(found.ratio)
    return Judgement(
        str(verdict),
        Confidence.INTERVAL,
        (*reasons, *found.reasons),
        PER_STEP,
        found.ratio,
        None if found.interval is None else (found.interval.low, found.interval.high),
        record,
    )


def _few_steps(
    a: Side,
    b: Side,
    figures: Mapping[str, Any],
    pair: tuple[Repetitions, Repetitions],
    record: Mapping[str, Any],
) -> Judgement:
    """Fewer than LEAST_STEPS: one figure a side, by step where their numbers differ.

    Where the span is beyond the factor, the typical step must be so too: a warm-up that only one
    side has is no speed.
    """
    counts = f"steps: {len(pair[0])} in A, {len(pair[1])} in B; an interval needs {LEAST_STEPS}"
    if not (len(pair[0]) and len(pair[1])):
        return replace(_single(a, b, figures, [counts]), evidence=record)
    per_step = pair[1].typical_ns / pair[0].typical_ns
    if pair[0].recorded != pair[1].recorded:
        return _by_factor(a, b, per_step, PER_STEP, [counts], record)
    found = replace(_single(a, b, figures, [counts]), evidence=record)
    typical = min(len(pair[0]), len(pair[1])) >= FEWEST_STEPS
    if typical and found.ratio and beyond_factor(per_step) is not beyond_factor(found.ratio):
        says = (
            f"span {found.ratio:.3g}×, but the median {pair[0].name} {per_step:.3g}×: a few steps "
            f"(a warm-up) make the difference; record {LEAST_STEPS} steps or more a side"
        )
        reasons = (says, *found.reasons[1:])
        return replace(found, verdict=str(Verdict.AMBIGUOUS), reasons=reasons)
    return found


def _single(a: Side, b: Side, figures: Mapping[str, Any], reasons: list[str]) -> Judgement:
    ratio = figures["span_ns"]["ratio"]
    if ratio is None:
        says = "a side has no span: nothing that can be timed was recorded; record it again"
        return Judgement(str(Verdict.AMBIGUOUS), Confidence.SINGLE, (*reasons, says))
    factor = repetition_factor(a.trace, b.trace)
    whole = not _cut_off(a, b)
    if whole and factor is not None and beyond_factor(ratio) is not Verdict.AMBIGUOUS:
        says = (
            f"B did everything {factor} times as often as A: a longer capture or more work per "
            "step, which only steps can tell apart; record both with profiler steps"
        )
        return Judgement(str(Verdict.AMBIGUOUS), Confidence.SINGLE, (*reasons, says), "span", ratio)
    return _by_factor(a, b, ratio, "span", reasons, {})


def _by_factor(
    a: Side, b: Side, ratio: float, judged_on: str, reasons: list[str], record: Mapping[str, Any]
) -> Judgement:
    verdict = beyond_factor(ratio)
    cut = _cut_off(a, b)
    if cut:
        verdict = Verdict.AMBIGUOUS
        reasons = [f"{' and '.join(cut)} is cut off, its span is not whole: copy it again",
                   *reasons]  # fmt: skip
    elif verdict is Verdict.AMBIGUOUS:
        reasons = [
            f"one capture a side ({judged_on} {ratio - 1:+.1%}): less than "
            f"{SINGLE_CAPTURE_FACTOR}× either way cannot be told from noise, since reruns of equal "
            f"code differ by 20 %; record {LEAST_STEPS} steps or more a side",
            *reasons,
        ]
    else:
        reasons = [
            f"one capture a side: {judged_on} {ratio:.3g}×, beyond {SINGLE_CAPTURE_FACTOR}×",
            *reasons,
        ]
    return Judgement(
        str(verdict), Confidence.SINGLE, tuple(reasons), judged_on, ratio, None, record
    )


def _steps_record(a: Repetitions, b: Repetitions) -> dict[str, Any]:
    return {
        "name": a.name,
        "n_a": len(a),
        "n_b": len(b),
        "recorded_a": a.recorded,
        "recorded_b": b.recorded,
        "typical_a_ns": a.typical_ns if len(a) else None,
        "typical_b_ns": b.typical_ns if len(b) else None,
    }


def _cut_off(a: Side, b: Side) -> list[str]:
    """Which sides end early."""
    return [
        which
        for side, which in ((a, "A"), (b, "B"))
        if any(caution.kind == "truncated" for caution in side.trace.warnings)
    ]


def _cautions(a: Side, b: Side, judged: Judgement) -> list[str]:
    found = []
    if a.trace.source != b.trace.source:
        found.append(f"A was recorded by {a.trace.source}, B by {b.trace.source}: their overheads "
                     "differ, so only a large difference counts")  # fmt: skip
    for side, which in ((a, "A"), (b, "B")):
        if side.manifest is not None and side.manifest.get("status") != "finished":
            found.append(f"the run of {which} did not come to its end")
    options = [(side.manifest or {}).get("options") or {} for side in (a, b)]
    if options[0] != options[1] and a.manifest is not None and b.manifest is not None:
        found.append("the runs' options differ")
    if "phases" not in judged.evidence and judged.verdict != Verdict.SAME:
        found.append(PROFILED)
    return found
