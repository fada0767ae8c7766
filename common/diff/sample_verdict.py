"""What do the samples of two variants of runs say? They were timed without a profiler.

Both sides interleaved in one run are compared round by round: drift that they share cancels.
The first phase that is measured in units (tokens) gives the verdict, as the steady state; the
others stand in the evidence, and one that points the other way is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.diff.comparable import same_run
from common.diff.difference import Confidence, Judgement
from common.diff.sides import Side
from common.diff.speed_figures import beyond_factor
from common.diff.steps import LEAST_STEPS
from common.recording import run_sides
from common.timing.statistics import Comparison, Verdict, compare, compare_unpaired


def judge_samples(a: Side, b: Side) -> Judgement | None:
    """By the phases' samples; None where the sides share none."""
    phases = [phase for phase in a.samples or {} if phase in (b.samples or {})]
    if not phases or a.manifest is None:
        return None
    paired = same_run(a, b) and run_sides.interleaved(a.manifest)
    found = {phase: _compare_phase(a, b, phase, paired) for phase in phases}
    phase = _deciding_phase(a.manifest, phases)
    chosen = found[phase]
    how = "interleaved samples of one run" if paired else "samples"
    verdict, confidence, reasons = chosen.verdict, Confidence.INTERVAL, list(chosen.reasons)
    if chosen.n < LEAST_STEPS:
        confidence, verdict = Confidence.SINGLE, beyond_factor(chosen.ratio)
    other = [p for p, c in found.items() if _opposite(c.verdict, chosen.verdict)]
    for name in other:
        reasons.insert(0, f"{name} points the other way: {found[name].ratio:.3g}×, {phase} "
                          f"{chosen.ratio:.3g}×")  # fmt: skip
    told = {name: _phase_record(a, b, name, c, paired) for name, c in found.items()}
    return Judgement(
        str(verdict),
        confidence,
        (f"judged on {phase}: {chosen.n} {how} a side, timed without a profiler", *reasons),
        f"{phase}: {how}",
        chosen.ratio,
        None if chosen.interval is None else (chosen.interval.low, chosen.interval.high),
        {"phases": told, "phase": phase},
    )


def _deciding_phase(manifest: Mapping[str, Any], phases: list[str]) -> str:
    """The first phase that is measured in units (tokens): the steady state; else the first."""
    units = manifest.get("phases", {})
    return next((phase for phase in units if phase in phases and units[phase]), phases[0])


def _compare_phase(a: Side, b: Side, phase: str, paired: bool) -> Comparison:
    of_a, of_b = _per_unit(a, phase), _per_unit(b, phase)
    if paired:
        # A run that was cut short may lack one side of its last round.
        shared = sorted(of_a.keys() & of_b.keys())
        if shared:
            return compare([of_a[r] for r in shared], [of_b[r] for r in shared])
    together = same_run(a, b)
    reason = "measured one after the other" if together else "measured in two runs"
    return compare_unpaired(list(of_a.values()), list(of_b.values()), reason=reason)


def _per_unit(side: Side, phase: str) -> dict[int, float]:
    """round -> ns per unit of the phase."""
    assert side.samples is not None and side.rounds is not None and side.manifest is not None
    units = run_sides.units_of(side.manifest, phase)
    pairs = zip(side.rounds[phase], side.samples[phase], strict=True)
    return {number: duration / units for number, duration in pairs}


def _phase_record(a: Side, b: Side, phase: str, found: Comparison, paired: bool) -> dict[str, Any]:
    medians = [float(np.median(list(_per_unit(side, phase).values()))) for side in (a, b)]
    return {
        "verdict": str(found.verdict),
        "ratio": found.ratio,
        "interval": None if found.interval is None else [found.interval.low, found.interval.high],
        "samples": found.n,
        "paired": paired,
        "median_a_ns": medians[0],
        "median_b_ns": medians[1],
        "reasons": list(found.reasons),
    }


def _opposite(one: Verdict, other: Verdict) -> bool:
    return {one, other} == {Verdict.FASTER, Verdict.SLOWER}
