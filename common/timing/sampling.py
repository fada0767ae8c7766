"""In which order are the sides measured, and when is it enough?

Every round measures each side once, in a shuffled order, so that what drifts (clocks, heat,
neighbours) meets all sides alike and cancels within the round. Measuring ends when the ratios are
known well enough, never because a difference has become significant: a rule that looks for
significance after each round finds some sooner or later.

Equal code in two processes differs by 1 to 3 % for as long as each keeps its physical pages
(measured-cpu, `tests/data/drift/README.md`). No number of rounds averages that out, so
`interleave` can `renew` the sides between rounds: each moves its weights to fresh memory.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from common.errors import UsageError
from common.timing.statistics import (
    RESOLUTION,
    UNPAIRED_RESOLUTION,
    Comparison,
    compare,
    compare_unpaired,
    median_log_interval,
    relative_half_width,
)

Side = Callable[[], Mapping[str, int]]
"""One repetition: returns the duration of each of its phases in ns."""


@dataclass(frozen=True)
class Sample:
    """One timed repetition of one phase of one variant."""

    round: int  # from 0
    order: int  # position of the variant in its round (of the variant, if sequential), from 0
    variant: str
    phase: str
    duration_ns: int
    started_ns: int  # when the repetition began: monotonic, from the call that took it


@dataclass(frozen=True)
class StopRule:
    """When it is enough. Precisions are half widths of the 95 % interval of log(ratio).

    At a large ratio the relative one holds: 5x is as good as 4.6x to 5.4x. `max_seconds` never
    cuts below `min_rounds`. Raises UsageError if it cannot be obeyed.

    The defaults are what it takes to find 5 % in nine of ten pairs at a resolution of 2 % on a
    shared 2-core machine; with 40 rounds and a precision of 0.015 it was six of ten (measured-cpu,
    `tests/data/drift/README.md`). Quiet machines stop long before 240 rounds.
    """

    min_rounds: int = 10
    max_rounds: int = 240
    max_seconds: float = 300.0
    precision: float = 0.01
    relative_precision: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise UsageError(
                f"min_rounds is {self.min_rounds} and max_rounds {self.max_rounds}:"
                " give 1 <= min_rounds <= max_rounds"
            )
        for name in ("max_seconds", "precision", "relative_precision"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}: give a number from 0")


@dataclass(frozen=True)
class StopDecision:
    """Whether to stop, and why or why not, in one line."""

    stop: bool
    reason: str


@dataclass(frozen=True)
class Measurement:
    """All samples in measured order. Sides that were not interleaved are compared as unpaired."""

    samples: tuple[Sample, ...]
    baseline: str
    interleaved: bool
    decision: StopDecision


def decide(
    samples: Sequence[Sample], baseline: str, rule: StopRule, elapsed_s: float
) -> StopDecision:
    """Is the ratio of every (variant, phase) to the baseline known well enough? Pure.

    Counts complete rounds: those with a sample of both sides. The least is asked of the side that
    has the fewest, the most of the baseline, since a side may have left. Phases that the baseline
    lacks cannot be compared and are not waited for.
    """
    series = _by_variant_and_phase(samples)
    rounds = most = len({s.round for s in samples if s.variant == baseline})
    worst: tuple[float, str] | None = None  # (half width / allowed, words)
    for (variant, phase), durations in series.items():
        of_baseline = series.get((baseline, phase))
        if variant == baseline or of_baseline is None:
            continue
        shared = sorted(durations.keys() & of_baseline.keys())
        rounds = min(rounds, len(shared))
        if not shared:
            continue
        log_ratio, half_width = median_log_interval(
            [of_baseline[i] for i in shared], [durations[i] for i in shared]
        )
        allowed = max(rule.precision, rule.relative_precision * abs(log_ratio))
        excess = half_width / allowed if allowed else (math.inf if half_width else 0.0)
        words = f"{variant} {phase} is {_known_to(half_width)}, wanted {allowed:.1%}"
        if worst is None or excess > worst[0]:
            worst = (excess, words)
    if rounds < rule.min_rounds:
        return StopDecision(False, f"{rounds} of at least {rule.min_rounds} rounds measured")
    if worst is None:
        return StopDecision(True, f"{rounds} rounds measured, nothing to compare")
    if worst[0] <= 1.0:
        return StopDecision(True, f"precise enough after {most} rounds: {worst[1]}")
    if most >= rule.max_rounds:
        return StopDecision(True, f"at most {rule.max_rounds} rounds: {worst[1]}")
    if elapsed_s >= rule.max_seconds:
        return StopDecision(
            True, f"{rule.max_seconds:g} s are over after {most} rounds: {worst[1]}"
        )
    return StopDecision(False, worst[1])


def interleave(
    sides: Mapping[str, Side],
    baseline: str,
    rule: StopRule | None = None,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_round: Callable[[int, StopDecision], None] = lambda number, decision: None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    seed: int = 0,
    renew: Mapping[str, Callable[[], object]] | None = None,
    renew_every: int = 2,
    leave_when_known: bool = False,
) -> Measurement:
    """Measures all sides in rounds until the rule says stop.

    Each sample goes to `on_sample` before the next repetition begins: a run that is killed has
    lost nothing. Before every `renew_every`-th round, untimed, each side's `renew` moves it to
    fresh memory (see the module's docstring). Errors of a side are passed on as they are.

    `leave_when_known`: a side takes no further rounds once its own ratio is known as well as the
    rule asks (its precision, never its sign, ends it), so that the time goes to those that are not.
    """
    rule = rule or StopRule()
    _check_sides(sides, baseline)
    if unknown := sorted((renew or {}).keys() - sides.keys()):
        raise UsageError(f"renew names {', '.join(unknown)}: give it for sides only")
    if renew_every < 1:
        raise UsageError(f"renew_every is {renew_every}: give a number of rounds from 1")
    shuffler = random.Random(seed)
    start_ns = clock_ns()
    samples: list[Sample] = []
    number = 0
    taking_part = dict(sides)
    while True:
        names = list(taking_part)
        shuffler.shuffle(names)
        if renew and number % renew_every == 0:
            # In the round's order: who is renewed last finds its weights cached. Were that always
            # the same side, it would be about 1 % faster (seen in a recording, since replaced).
            for name in names:
                renew.get(name, _nothing)()
        for order, name in enumerate(names):
            _repeat(sides[name], number, order, name, start_ns, clock_ns, samples, on_sample)
        decision = decide(samples, baseline, rule, (clock_ns() - start_ns) / 1e9)
        on_round(number, decision)
        if decision.stop:
            return Measurement(tuple(samples), baseline, True, decision)
        if leave_when_known:
            known = known_sides(samples, baseline, rule)
            taking_part = {name: side for name, side in sides.items() if name not in known}
        number += 1


def known_sides(samples: Sequence[Sample], baseline: str, rule: StopRule) -> set[str]:
    """The sides, without the baseline, that would be done if they were alone with it. Pure."""
    own: dict[str, list[Sample]] = {}
    for sample in samples:
        own.setdefault(sample.variant, []).append(sample)
    of_baseline = own.pop(baseline, [])
    wanted = replace(rule, max_rounds=rule.min_rounds + len(samples), max_seconds=math.inf)
    return {
        name
        for name, taken in own.items()
        if decide([*of_baseline, *taken], baseline, wanted, 0.0).stop
    }


def sequential(
    factories: Mapping[str, Callable[[], AbstractContextManager[Side]]],
    baseline: str,
    rule: StopRule | None = None,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Measurement:
    """Measures one side after the other, for sides that do not fit into memory together.

    Each factory's context holds one side; it is left, and garbage collected, before the next is
    entered. A side is done when each of its phases' medians is known to the rule's `precision`;
    each has an equal share of `max_seconds`. What drifts from one side to the next is not seen:
    `comparisons` treats the result as unpaired and says so.
    """
    rule = rule or StopRule()
    _check_sides(factories, baseline)
    share = replace(rule, max_seconds=rule.max_seconds / len(factories))
    start_ns = clock_ns()
    samples: list[Sample] = []
    decision = StopDecision(False, "nothing measured")
    for order, (name, factory) in enumerate(factories.items()):
        own: list[Sample] = []
        with factory() as side:
            began_ns = clock_ns()
            decision = StopDecision(False, "nothing measured")
            while not decision.stop:
                number = len({s.round for s in own})
                _repeat(side, number, order, name, start_ns, clock_ns, own, on_sample)
                decision = _decide_alone(own, share, (clock_ns() - began_ns) / 1e9)
        del side
        gc.collect()
        samples += own
    reason = f"all sides measured one after the other; the last: {decision.reason}"
    return Measurement(tuple(samples), baseline, False, StopDecision(True, reason))


def comparisons(
    measurement: Measurement, resolution: float | None = None
) -> dict[tuple[str, str], Comparison]:
    """Comparison with the baseline for each (variant, phase) that both sides have.

    `resolution`: relative difference called none; None: the default of either kind of comparison.
    """
    series = _by_variant_and_phase(measurement.samples)
    result: dict[tuple[str, str], Comparison] = {}
    for (variant, phase), durations in series.items():
        of_baseline = series.get((measurement.baseline, phase))
        if variant == measurement.baseline or of_baseline is None:
            continue
        if measurement.interleaved:
            shared = sorted(durations.keys() & of_baseline.keys())
            if shared:
                a, b = [of_baseline[i] for i in shared], [durations[i] for i in shared]
                result[variant, phase] = compare(a, b, resolution=resolution or RESOLUTION)
        else:
            result[variant, phase] = compare_unpaired(
                list(of_baseline.values()),
                list(durations.values()),
                resolution=resolution or UNPAIRED_RESOLUTION,
                reason="measured one after the other",
            )
    return result


def _repeat(
    side: Side,
    number: int,
    order: int,
    name: str,
    start_ns: int,
    clock_ns: Callable[[], int],
    samples: list[Sample],
    on_sample: Callable[[Sample], None],
) -> None:
    """One repetition of one side: delivers and keeps a sample for each of its phases."""
    started_ns = clock_ns() - start_ns
    phases = side()
    if not phases:
        raise UsageError(f"{name} returned no phase: return a duration in ns for at least one")
    for phase, duration_ns in phases.items():
        if duration_ns <= 0:
            raise UsageError(
                f"{name} {phase} took {duration_ns} ns: time more work, or use a finer clock"
            )
        sample = Sample(number, order, name, phase, duration_ns, started_ns)
        samples.append(sample)
        on_sample(sample)


def _decide_alone(samples: Sequence[Sample], rule: StopRule, elapsed_s: float) -> StopDecision:
    """The rule for a side by itself: is the median of each of its phases known well enough?"""
    series = _by_variant_and_phase(samples).values()
    rounds = min(len(durations) for durations in series)
    half_width = max(relative_half_width(list(durations.values())) for durations in series)
    words = f"{_known_to(half_width)} after {rounds} rounds, wanted {rule.precision:.1%}"
    enough = half_width <= rule.precision or rounds >= rule.max_rounds
    stop = rounds >= rule.min_rounds and (enough or elapsed_s >= rule.max_seconds)
    return StopDecision(stop, words)


def _known_to(half_width: float) -> str:
    return f"known to {half_width:.1%}" if math.isfinite(half_width) else "not known yet"


def _by_variant_and_phase(samples: Sequence[Sample]) -> dict[tuple[str, str], dict[int, int]]:
    """(variant, phase) -> {round: duration_ns}, in measured order."""
    series: dict[tuple[str, str], dict[int, int]] = {}
    for sample in samples:
        series.setdefault((sample.variant, sample.phase), {})[sample.round] = sample.duration_ns
    return series


def _check_sides(sides: Mapping[str, object], baseline: str) -> None:
    if baseline not in sides:
        known = ", ".join(sorted(sides)) or "none"
        raise UsageError(f"no side is called {baseline}: name one of these as baseline: {known}")


def _nothing() -> None:
    """A side without pages to renew."""
