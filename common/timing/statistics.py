"""How long is typical, how sure are we, and is one side slower than the other?

The estimate is a median, and its interval is read off the sorted samples: the i-th smallest and
the i-th largest, with i from the sign test (the number of samples below the true median is
binomial, whatever the distribution). Two rounds a moment apart are not independent, so i comes
from the *effective* number of samples, n / tau, with tau the autocorrelation time of the signs
(above or below the median), summed to its first non-positive term (Geyer 1992).

Why not a bootstrap: simulated 95 % intervals of the median covered, at n = 20 and n = 60,

    noise             order statistics    bootstrap    moving blocks (n^1/3, n^1/2)
    independent       98 %, 96 %          93 %, 92 %   90 %, 85 %; 91 %, 88 %
    AR(1), rho 0.3    96 %, 95 %          88 %, 87 %   87 %, 84 %; 90 %, 87 %
    AR(1), rho 0.6    92 %, 93 %          71 %, 74 %   76 %, 74 %; 84 %, 83 %

and only the first neither needs random numbers nor costs more than a sort.
`tests/timing/test_statistics.py` repeats the first column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import UsageError

FloatArray = NDArray[np.float64]
Samples = Sequence[float] | Sequence[int] | FloatArray | NDArray[np.int64]

MIN_ROUNDS = 10
"""Below this many samples there is no verdict."""

RESOLUTION = 0.02
"""Relative difference that we call none: between runs of equal code in two processes, page
placement alone makes 1 to 3 % (measured-cpu, `tests/data/drift/README.md`)."""

UNPAIRED_RESOLUTION = 0.05
"""The same for sides that were not interleaved: what drifts in between is not seen at all."""


class Verdict(StrEnum):
    """What may be said about a candidate beside its baseline."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    AMBIGUOUS = "AMBIGUOUS"
    NOT_COMPARABLE = "NOT_COMPARABLE"  # given by callers that know the manifests, never by compare


class Interval(msgspec.Struct, frozen=True):
    """Two-sided confidence interval; `confidence` as a fraction, 0.95 for 95 %."""

    low: float
    high: float
    confidence: float


class Summary(msgspec.Struct, frozen=True):
    """One side's samples in the unit they came in. `interval` is that of the median."""

    n: int
    median: float
    interval: Interval | None  # None: too few samples to say
    q1: float
    q3: float
    minimum: float
    maximum: float


class Comparison(msgspec.Struct, frozen=True):
    """`ratio` is candidate / baseline of durations: above 1, the candidate is slower."""

    n: int
    ratio: float
    interval: Interval | None  # of the ratio; None: too few samples to say
    verdict: Verdict
    reasons: tuple[str, ...]  # one line each; empty where the verdict needs no excuse


def summarise(samples: Samples, confidence: float = 0.95) -> Summary:
    """Median with its interval, quartiles and extremes. Needs one sample, all of them finite."""
    values = _checked(samples, "samples", positive=False)
    _check_fraction("confidence", confidence)
    q1, median, q3 = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return Summary(
        n=values.size,
        median=median,
        interval=_median_interval(values, confidence),
        q1=q1,
        q3=q3,
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def compare(
    baseline: Samples,
    candidate: Samples,
    *,
    resolution: float = RESOLUTION,
    confidence: float = 0.95,
    min_rounds: int = MIN_ROUNDS,
) -> Comparison:
    """Compares durations of interleaved rounds: element i of both sides is from round i.

    Works on log(candidate / baseline) within rounds, so that drift that both sides share cancels.
    The verdict is one of practical equivalence: SLOWER or FASTER if the whole interval lies
    beyond `resolution` (relative: 0.02 is 2 %), SAME if it lies wholly inside, else AMBIGUOUS.
    Raises UsageError for lengths that differ and durations that are not positive and finite.
    """
    a = _checked(baseline, "baseline", positive=True)
    b = _checked(candidate, "candidate", positive=True)
    if a.size != b.size:
        raise UsageError(
            f"baseline has {a.size} samples and candidate {b.size}:"
            " give both from the same rounds, or use compare_unpaired"
        )
    _check_fraction("confidence", confidence)
    log_ratios = np.log(b) - np.log(a)
    interval = _median_interval(log_ratios, confidence)
    return _judge(a.size, float(np.median(log_ratios)), interval, resolution, min_rounds, "rounds")


def compare_unpaired(
    baseline: Samples,
    candidate: Samples,
    *,
    resolution: float = UNPAIRED_RESOLUTION,
    confidence: float = 0.95,
    min_rounds: int = MIN_ROUNDS,
    reason: str = "not interleaved",
) -> Comparison:
    """Compares durations of two runs that were not interleaved; lengths may differ.

    The interval of the difference takes the distance of each median to the end of its own interval
    as its error and adds their squares (Zou and Donner 2008: "variance estimates recovery"); it
    covers 94 to 99 % in the simulation of `tests/timing/test_statistics.py`. The resolution is
    wider than that of `compare`, since drift between the runs is in neither sample.
    `n` is the smaller of the two numbers of samples; `reason` says why they are not paired and
    becomes the first of the reasons, before what follows from it. Raises UsageError as `compare`
    does.
    """
    a = np.log(_checked(baseline, "baseline", positive=True))
    b = np.log(_checked(candidate, "candidate", positive=True))
    _check_fraction("confidence", confidence)
    of_a, of_b = _median_interval(a, confidence), _median_interval(b, confidence)
    middle_a, middle_b = float(np.median(a)), float(np.median(b))
    log_ratio = middle_b - middle_a
    interval = None
    if of_a is not None and of_b is not None:
        down = math.hypot(middle_b - of_b.low, of_a.high - middle_a)
        up = math.hypot(of_b.high - middle_b, middle_a - of_a.low)
        interval = Interval(log_ratio - down, log_ratio + up, confidence)
    judged = _judge(min(a.size, b.size), log_ratio, interval, resolution, min_rounds, "samples")
    reasons = (
        reason,
        f"drift between the sides counts as a difference: within {resolution:.1%} is called none",
        *judged.reasons,
    )
    return msgspec.structs.replace(judged, reasons=reasons)


def median_log_interval(
    baseline: Samples, candidate: Samples, confidence: float = 0.95
) -> tuple[float, float]:
    """(median, half width) of log(candidate / baseline) by rounds: what a stop rule looks at.

    The half width is infinite where there are too few rounds to say.
    """
    a = _checked(baseline, "baseline", positive=True)
    b = _checked(candidate, "candidate", positive=True)
    log_ratios = np.log(b) - np.log(a)
    return float(np.median(log_ratios)), _half_width(log_ratios, confidence)


def relative_half_width(samples: Samples, confidence: float = 0.95) -> float:
    """Half width of the interval of log(median) of one side; infinite if there are too few."""
    return _half_width(np.log(_checked(samples, "samples", positive=True)), confidence)


def _half_width(values: FloatArray, confidence: float) -> float:
    interval = _median_interval(values, confidence)
    return math.inf if interval is None else (interval.high - interval.low) / 2


def effective_size(values: Samples) -> float:
    """n / tau of the signs about the median, at most n (see the module's docstring)."""
    array = np.asarray(values, dtype=np.float64)
    n = array.size
    signs = np.sign(array - np.median(array))
    signs -= signs.mean()
    variance = float(signs @ signs) / n
    if variance == 0.0:
        return float(n)
    tau = 1.0
    for lag in range(1, min(n // 3, 50) + 1):
        # + 1/n: removing the mean of the sample biases every autocorrelation down by about that.
        rho = float(signs[lag:] @ signs[:-lag]) / ((n - lag) * variance) + 1.0 / n
        if rho <= 0.0:
            break
        tau += 2.0 * rho
    return n / tau


def _median_interval(values: FloatArray, confidence: float) -> Interval | None:
    """Interval of the median between two order statistics; None if not even all of them reach it.

    The whole range of n independent samples misses the median with probability 2^(1-n), and it is
    what is given where dependence would ask for more than the range.

    Rank of the lower end, from 1: n * (1/2 - t / (2 sqrt(n_eff))) + 1/2, the normal form of the
    binomial, interpolated between neighbours. Student's t with n_eff - 1 degrees of freedom stands
    in for the normal quantile, because n_eff is itself an estimate and worst when small.
    """
    n = values.size
    if 2.0 ** (1 - n) > 1.0 - confidence:
        return None
    n_eff = effective_size(values)
    t = _student_t((1.0 + confidence) / 2.0, max(n_eff - 1.0, 1.0))
    position = max(n * (0.5 - t / (2.0 * math.sqrt(n_eff))) - 0.5, 0.0)
    ordered = np.sort(values)
    below, fraction = int(position), position - int(position)
    above = min(below + 1, n - 1)
    low = ordered[below] * (1.0 - fraction) + ordered[above] * fraction
    high = ordered[n - 1 - below] * (1.0 - fraction) + ordered[n - 1 - above] * fraction
    return Interval(float(low), float(high), confidence)


def _student_t(probability: float, degrees: float) -> float:
    """Quantile of Student's t by the Cornish-Fisher series (Abramowitz and Stegun 26.7.5)."""
    from statistics import NormalDist  # loads fractions and random: later than at every start

    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4.0 * degrees)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * degrees**2)
    )


def _judge(
    n: int,
    log_ratio: float,
    interval: Interval | None,
    resolution: float,
    min_rounds: int,
    unit: str,
) -> Comparison:
    """Verdict by practical equivalence on a log scale; returns ratios."""
    _check_fraction("resolution", resolution)
    bound = math.log1p(resolution)
    reasons: list[str] = []
    shown = None
    verdict = Verdict.AMBIGUOUS
    if interval is not None:
        shown = Interval(math.exp(interval.low), math.exp(interval.high), interval.confidence)
    if n < min_rounds:
        reasons.append(f"{n} {unit} measured, a verdict needs {min_rounds}")
    elif interval is None:
        reasons.append(f"{n} {unit} cannot give the confidence that was asked for: measure more")
    elif interval.low > bound:
        verdict = Verdict.SLOWER
    elif interval.high < -bound:
        verdict = Verdict.FASTER
    elif -bound <= interval.low and interval.high <= bound:
        verdict = Verdict.SAME
    else:
        reasons.append(
            f"the interval reaches across the resolution of {resolution:.1%}: measure more {unit}"
        )
    return Comparison(n, math.exp(log_ratio), shown, verdict, tuple(reasons))


def _checked(samples: Samples, name: str, *, positive: bool) -> FloatArray:
    """The samples as a float array of shape (n,), or a UsageError that says what is wrong."""
    try:
        values = np.asarray(samples, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} are not all numbers: give durations in ns") from error
    if values.ndim != 1 or values.size == 0:
        raise UsageError(f"{name} has shape {values.shape}: give a list of one or more durations")
    if not np.isfinite(values).all():
        raise UsageError(f"{name} has a value that is not finite: leave failed repetitions out")
    if positive and values.min() <= 0.0:
        raise UsageError(f"{name} has a duration of {values.min():g}: durations must be above zero")
    return values


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise UsageError(f"{name} is {value:g}: give a fraction between 0 and 1")
