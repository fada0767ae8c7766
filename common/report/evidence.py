"""What can be asked of one run? Its medians, ratios, shares and peaks, read from the folder alone.

This is where the quantities of claims and predictions get their values. Nothing here measures;
the same folder always gives the same answers, on any machine, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.contract.claims import Measured, Quantity
from common.diff.attribution import (
    RangePeak,
    RangeTime,
    peak_in_range,
    range_bounds,
    time_in_range,
)
from common.errors import UsageError
from common.floors.measured import MeasuredFloors, from_json
from common.floors.roofline import share_of_floor, time_floor_ns
from common.floors.traffic import bytes_per_weight, decode_floor_ns
from common.recording import run_sides
from common.recording.run_folder import Run, read_json
from common.timing.statistics import Comparison, Summary, compare, compare_unpaired, summarise
from common.traces.model import Trace
from common.traces.torch_trace import read_torch_trace

NEEDS_PROFILE = "needs profile"
NEEDS_BENCH = "needs bench"


@dataclass(frozen=True)
class DecodeFloor:
    """One variant's decode beside the least time the machine needs for the bytes it stores."""

    stored_bytes_per_weight: float
    floor_ns: float
    measured_ns: float
    share_of_floor: float
    logical_bytes_per_weight: int | None  # counted from what the implementation does
    modelled_ns: float | None  # the same at the copy bandwidth


class Evidence:
    """The figures of one run folder, computed when asked for and kept."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.manifest = run.manifest
        self._traces: dict[str, Trace | None] = {}
        self._ratios: dict[tuple[str, str, str], Comparison | None] = {}

    @cached_property
    def checks(self) -> dict[str, Any]:
        return run_sides.correctness(self.run)

    @cached_property
    def durations_ns(self) -> Mapping[tuple[str, str], dict[int, int]]:
        """(variant, phase) -> {round: duration} in measured order."""
        return run_sides.durations_ns(self.run)

    def state(self, variant: str) -> tuple[str, str | None]:
        """(measured | rejected | failed | not applicable | not run, why)."""
        return run_sides.state_of(self.manifest, self.checks, variant)

    def units(self, phase: str) -> int:
        """How many units (tokens) one sample of the phase holds."""
        return run_sides.units_of(self.manifest, phase)

    def usable(self, variant: str, phase: str) -> dict[int, int] | None:
        """The samples of a variant that was checked and passed; None where there are none."""
        if self.state(variant)[0] != "measured":
            return None
        return self.durations_ns.get((variant, phase))

    def summary_ns(self, variant: str, phase: str) -> Summary | None:
        """Statistics of the time of one unit (a token, a prefill) in ns."""
        samples = self.usable(variant, phase)
        if not samples:
            return None
        units = self.units(phase)
        return summarise([duration / units for duration in samples.values()])

    def comparison(self, variant: str, baseline: str, phase: str) -> Comparison | None:
        """How `variant` compares with `baseline`: its ratio is above 1 when it is slower."""
        key = (variant, baseline, phase)
        if key not in self._ratios:
            ours, theirs = self.usable(variant, phase), self.usable(baseline, phase)
            if not ours or not theirs:
                self._ratios[key] = None
            elif run_sides.interleaved(self.manifest):
                # A run that was cut short may lack one side of its last round.
                shared = sorted(ours.keys() & theirs.keys())
                pairs = [theirs[r] for r in shared], [ours[r] for r in shared]
                self._ratios[key] = compare(*pairs) if shared else None
            else:
                self._ratios[key] = compare_unpaired(
                    list(theirs.values()),
                    list(ours.values()),
                    reason="measured one after the other",
                )
        return self._ratios[key]

    def trace(self, variant: str) -> Trace | None:
        if variant not in self._traces:
            path = run_sides.trace_file(self.run, variant)
            try:
                self._traces[variant] = read_whole_trace(path) if path.exists() else None
            except UsageError:
                # The trace that was being written when a run was killed; the others are whole.
                if self.run.finished:
                    raise
                self._traces[variant] = None
        return self._traces[variant]

    def profile_failure(self, variant: str) -> str | None:
        return run_sides.profile_failure(self.manifest, variant)

    def profiled(self, variant: str) -> Trace | None:
        """The trace of a variant that may have figures; a wrong output is not worth a profile."""
        return self.trace(variant) if self.state(variant)[0] == "measured" else None

    def range_time(self, variant: str, phase: str) -> RangeTime | None:
        trace = self.profiled(variant)
        return None if trace is None else time_in_range(trace, phase)

    def range_bounds_ns(self, variant: str, phase: str) -> list[tuple[int, int]]:
        """(start, end) of every occurrence of the phase, in ns since the first allocation."""
        trace = self.profiled(variant)
        if trace is None or len(trace.allocations) == 0:
            return []
        origin = int(trace.allocations.time_ns[0])
        return [(start - origin, end - origin) for start, end in range_bounds(trace, phase)]

    def profiled_units(self, variant: str, phase: str) -> int:
        """How many units (tokens) one occurrence of the phase holds in the trace."""
        facts = self.manifest.get("profile_facts", {}).get(variant, {})
        return int(facts.get(f"profiled_{phase}_steps", 1))

    def range_peak(self, variant: str, phase: str) -> RangePeak | None:
        trace = self.profiled(variant)
        if trace is None:
            return None
        return peak_in_range(trace, phase, 0 if self._device_kind == "cuda" else -1)

    def temporary_peak_bytes(self, variant: str, phase: str) -> int | None:
        """Peak above the phase's start: as the GPU's allocator counted it, else from the trace."""
        facts = self.manifest.get("profile_facts", {}).get(variant, {})
        if phase in facts.get("allocator", {}):
            return int(facts["allocator"][phase]["temporary_peak_bytes"])
        found = self.range_peak(variant, phase)
        return None if found is None else found.peak_bytes

    def largest_linear(self, variant: str) -> int | None:
        for facts in (self.manifest.get("profile_facts", {}), self.manifest.get("facts", {})):
            elements = facts.get(variant, {}).get("parameters", {}).get("largest_linear")
            if elements:
                return int(elements)
        return None

    @cached_property
    def floors(self) -> MeasuredFloors | None:
        """The machine's rates measured in the same run."""
        path = self.run.folder / "floors.json"
        return from_json(path.read_text(encoding="utf-8")) if path.exists() else None

    def decode_floor(self, variant: str) -> DecodeFloor | None:
        """Decode against the least time in which the stored weights can be read once."""
        facts = self.manifest.get("facts", {}).get(variant)
        measured = (
            self.summary_ns(variant, "decode") if "decode" in self.manifest["phases"] else None
        )
        if self.floors is None or facts is None or measured is None:
            return None
        stored, weights = facts.get("linear_weight_bytes"), facts.get("parameters", {})
        weights = weights.get("linear")
        if not stored or not weights:  # a problem without weights has no such floor
            return None
        floor = time_floor_ns(stored, 2 * weights, self.floors.read.best, None)
        path = self.manifest["variants"][variant].get("traffic", {}).get(self._device_kind)
        modelled = None
        if path is not None:
            modelled = decode_floor_ns(weights, path, self.floors.copy.best)
        return DecodeFloor(
            stored_bytes_per_weight=stored / weights,
            floor_ns=floor.time_ns,
            measured_ns=measured.median,
            share_of_floor=share_of_floor(measured.median, floor),
            logical_bytes_per_weight=None if path is None else bytes_per_weight(path),
            modelled_ns=modelled,
        )

    @property
    def _device_kind(self) -> str:
        return str(self.manifest["device"]["kind"])

    def fresh_pages(self, variant: str) -> list[int] | None:
        """Fresh pages per repetition (all phases together) in measured order; None: not counted."""
        first = next(iter(self.manifest["phases"]), None)
        found = [
            sample.get("fresh_pages_of_repetition")
            for sample in self.run.samples()
            if sample.get("variant") == variant and sample.get("phase") == first
        ]
        pages = [int(count) for count in found if count is not None]
        return pages or None

    def figures(self, variant: str) -> dict[str, Any]:
        """What a variant that is not timed worked out: name -> {"value", "unit", "origin"}."""
        path = self.run.folder / "traces" / variant / "figures.json"
        if self.state(variant)[0] != "measured" or not path.exists():
            return {}
        return dict(read_json(path))

    def tables(self, variant: str) -> dict[str, Any]:
        """Its tables: name -> {"columns", "rows", "right", "note"}."""
        path = self.run.folder / "traces" / variant / "tables.json"
        return dict(read_json(path)) if path.exists() else {}

    # Quantities of the grammar, by the names that problem.toml and predictions.toml use.

    def _missing(self, variant: str, otherwise: str) -> Measured:
        state, reason = self.state(variant)
        failure = self.profile_failure(variant)
        if state == "measured" and otherwise == NEEDS_PROFILE and failure is not None:
            return Measured(None, reason=f"profile failed: {failure}")
        return Measured(None, reason=otherwise if state == "measured" else f"{state}: {reason}")

    def ratio(self, variant: str, baseline: str, phase: str) -> Measured:
        """Time of `variant` over time of `baseline`."""
        found = self.comparison(variant, baseline, phase)
        if found is None:
            absent = variant if not self.usable(variant, phase) else baseline
            return self._missing(absent, NEEDS_BENCH)
        interval = found.interval
        return Measured(found.ratio, (interval.low, interval.high) if interval else None)

    def milliseconds(self, variant: str, phase: str) -> Measured:
        """Median time of one unit of the phase."""
        found = self.summary_ns(variant, phase)
        return self._missing(variant, NEEDS_BENCH) if found is None else _scaled(found, 1e-6)

    def tokens_per_second(self, variant: str, phase: str) -> Measured:
        found = self.summary_ns(variant, phase)
        if found is None:
            return self._missing(variant, NEEDS_BENCH)
        ends = found.interval
        return Measured(1e9 / found.median, (1e9 / ends.high, 1e9 / ends.low) if ends else None)

    def operator_share(self, variant: str, phase: str, operator: str) -> Measured:
        """Part of the phase's time in the trace that is charged to the operator."""
        found = self.range_time(variant, phase)
        share = None if found is None else found.share(operator)
        return self._missing(variant, NEEDS_PROFILE) if share is None else Measured(share)

    def temporary_bytes_per_element(self, variant: str, phase: str) -> Measured:
        """Peak of the phase's temporaries over the elements of the largest linear."""
        peak, elements = self.temporary_peak_bytes(variant, phase), self.largest_linear(variant)
        if peak is None or elements is None:
            return self._missing(variant, NEEDS_PROFILE)
        return Measured(peak / elements)

    def logit_error(self, variant: str, phase: str) -> Measured:
        """Relative error of the logits against the baseline's, rejected variants included."""
        error = self.checks.get(variant, {}).get("relative_error", {}).get(phase)
        return self._missing(variant, NEEDS_BENCH) if error is None else Measured(float(error))

    def floor_share(self, variant: str, phase: str) -> Measured:
        """Floor over measured time of decode: 1 is the limit of the machine."""
        found = self.decode_floor(variant) if phase == "decode" else None
        if found is None:
            return self._missing(variant, NEEDS_BENCH)
        return Measured(found.share_of_floor)

    def figure(self, variant: str, name: str) -> Measured:
        """A figure that the variant's own process worked out (compiled, counted, modelled)."""
        found = self.figures(variant).get(name)
        if found is None:
            return self._missing(variant, NEEDS_PROFILE)
        ends = found.get("interval")
        value = None if found["value"] is None else float(found["value"])
        return Measured(value, None if ends is None else (float(ends[0]), float(ends[1])))

    def quantities(self) -> dict[str, Quantity]:
        return {
            "ratio": self.ratio,
            "milliseconds": self.milliseconds,
            "tokens_per_second": self.tokens_per_second,
            "operator_share": self.operator_share,
            "temporary_bytes_per_element": self.temporary_bytes_per_element,
            "logit_error": self.logit_error,
            "floor_share": self.floor_share,
            "figure": self.figure,
        }


def read_whole_trace(path: Path) -> Trace:
    """The trace of a variant. Raises UsageError for one that is cut off, too: no evidence."""
    trace = read_torch_trace(path)
    cut = [caution for caution in trace.warnings if caution.kind == "truncated"]
    if cut:
        raise UsageError(f"{path} cannot be read to its end ({cut[0]}); record the run again")
    return trace


def _scaled(found: Summary, factor: float) -> Measured:
    ends = found.interval
    return Measured(
        found.median * factor, (ends.low * factor, ends.high * factor) if ends else None
    )
