"""Are the intervals honest, the verdicts those of the definition, and bad input refused?"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from common.errors import UsageError
from common.timing.statistics import (
    Verdict,
    _student_t,
    compare,
    compare_unpaired,
    effective_size,
    relative_half_width,
    summarise,
)


def ar1(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal(n + 50)
    for i in range(1, n + 50):
        noise[i] += rho * noise[i - 1]
    return noise[50:]


@pytest.mark.parametrize(
    ("n", "rho", "at_least"),
    [(10, 0.0, 0.96), (20, 0.0, 0.96), (60, 0.0, 0.94), (20, 0.3, 0.94), (60, 0.3, 0.93)]
    + [(10, 0.6, 0.87), (20, 0.6, 0.89), (60, 0.6, 0.91)],
)
def test_the_interval_of_the_median_covers_it_as_often_as_the_docstring_says(
    n: int, rho: float, at_least: float
) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1000):
        interval = summarise(ar1(rng, n, rho)).interval
        covered += interval is None or interval.low <= 0.0 <= interval.high
    assert at_least <= covered / 1000 < 1.0


def test_the_interval_covers_under_tails_so_heavy_that_no_mean_exists() -> None:
    rng = np.random.default_rng(8)
    intervals = [summarise(rng.standard_cauchy(30)).interval for _ in range(1000)]
    covered = sum(i is not None and i.low <= 0.0 <= i.high for i in intervals)
    assert covered >= 940


def test_a_summary_has_the_known_values_of_a_known_list() -> None:
    summary = summarise([5, 1, 4, 2, 3])
    assert (summary.n, summary.median, summary.q1, summary.q3) == (5, 3.0, 2.0, 4.0)
    assert (summary.minimum, summary.maximum) == (1.0, 5.0)
    assert summary.interval is None  # five samples cannot carry 95 %


def test_the_interval_at_ten_samples_lies_between_the_first_and_the_second_from_each_end() -> None:
    values = [3.0, 8.0, 1.0, 10.0, 5.0, 6.0, 2.0, 9.0, 4.0, 7.0]
    interval = summarise(values).interval
    assert interval is not None
    assert 1.0 < interval.low < 2.0
    assert interval.high == pytest.approx(11.0 - interval.low)


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    values = np.random.default_rng(0).normal(10, 1, 40)
    narrow, wide = summarise(values, 0.8).interval, summarise(values, 0.99).interval
    assert narrow is not None and wide is not None
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_same_samples_give_the_same_answer() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(0, 0.1, 30), rng.lognormal(0, 0.1, 30)
    assert compare(a, b) == compare(a.copy(), b.copy())
    assert summarise(a) == summarise(a)


def test_samples_that_depend_on_each_other_count_for_less() -> None:
    rng = np.random.default_rng(4)
    independent = np.mean([effective_size(ar1(rng, 60, 0.0)) for _ in range(200)])
    dependent = np.mean([effective_size(ar1(rng, 60, 0.6)) for _ in range(200)])
    assert 45 < independent <= 60
    assert dependent < 30


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (1.0, Verdict.SAME),
        (1.01, Verdict.SAME),
        (1.05, Verdict.SLOWER),
        (1 / 1.05, Verdict.FASTER),
        (1.02, Verdict.AMBIGUOUS),
        (5.0, Verdict.SLOWER),
    ],
)
def test_a_verdict_follows_from_where_the_interval_lies(factor: float, verdict: Verdict) -> None:
    rng = np.random.default_rng(5)
    drift = np.exp(np.cumsum(rng.normal(0, 0.2, 40)))  # shared by both sides, up to many fold
    a = drift * rng.lognormal(0, 0.005, 40)
    b = drift * rng.lognormal(0, 0.005, 40) * factor
    found = compare(a, b)
    assert found.verdict is verdict
    assert found.ratio == pytest.approx(factor, rel=0.005)
    assert found.interval is not None
    assert found.interval.low <= found.ratio <= found.interval.high
    assert bool(found.reasons) == (verdict is Verdict.AMBIGUOUS)


def test_swapping_the_sides_inverts_the_answer() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.lognormal(0, 0.02, 25), rng.lognormal(0.1, 0.02, 25)
    there, back = compare(a, b), compare(b, a)
    assert (there.verdict, back.verdict) == (Verdict.SLOWER, Verdict.FASTER)
    assert there.interval is not None and back.interval is not None
    assert there.ratio * back.ratio == pytest.approx(1.0)
    assert there.interval.low * back.interval.high == pytest.approx(1.0)


def test_nine_rounds_are_ambiguous_however_clear_they_look() -> None:
    found = compare([1.0] * 9, [3.0] * 9)
    assert found.verdict is Verdict.AMBIGUOUS
    assert found.ratio == pytest.approx(3.0)
    assert found.reasons == ("9 rounds measured, a verdict needs 10",)


def test_rounds_that_jump_once_and_stay_give_no_verdict() -> None:
    found = compare([1.0] * 12, [1.0 + i / 1000 for i in range(6)] + [3.0] * 6)
    assert found.verdict is Verdict.AMBIGUOUS
    assert found.interval is not None and found.interval.high == pytest.approx(3.0)


def test_a_confidence_that_ten_rounds_cannot_give_is_not_claimed() -> None:
    found = compare([1.0] * 10, [2.0] * 10, confidence=0.999)
    assert (found.verdict, found.interval) == (Verdict.AMBIGUOUS, None)
    assert "measure more" in found.reasons[0]


@pytest.mark.parametrize(("degrees", "quantile"), [(4, 2.776), (9, 2.262), (59, 2.001)])
def test_students_t_has_its_tabulated_quantiles(degrees: int, quantile: float) -> None:
    assert _student_t(0.975, degrees) == pytest.approx(quantile, rel=0.02)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0] * 10, [1.0] * 11),
        ([], []),
        ([1.0] * 10, [1.0] * 9 + [math.nan]),
        ([1.0] * 10, [1.0] * 9 + [math.inf]),
        ([0.0] + [1.0] * 9, [1.0] * 10),
        ([-1.0] + [1.0] * 9, [1.0] * 10),
        ([[1.0] * 10], [[1.0] * 10]),
        (["fast"] * 10, [1.0] * 10),
    ],
)
def test_input_without_a_meaning_is_refused_in_one_line(a: list[float], b: list[float]) -> None:
    with pytest.raises(UsageError) as caught:
        compare(a, b)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)  # what is wrong, then what to do


@pytest.mark.parametrize("name", ["resolution", "confidence"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
def test_a_fraction_outside_zero_to_one_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        compare([1.0] * 10, [1.0] * 10, **{name: value})


def test_unpaired_samples_may_differ_in_length_and_say_that_they_are_unpaired() -> None:
    rng = np.random.default_rng(9)
    found = compare_unpaired(rng.lognormal(0, 0.01, 30), rng.lognormal(0.3, 0.01, 50))
    assert (found.n, found.verdict) == (30, Verdict.SLOWER)
    assert found.reasons[0] == "not interleaved"


@pytest.mark.parametrize(
    ("n", "m", "rho"), [(10, 10, 0.0), (20, 60, 0.0), (60, 60, 0.0), (20, 60, 0.3), (60, 60, 0.6)]
)
def test_the_interval_of_an_unpaired_ratio_covers_equal_sides(n: int, m: int, rho: float) -> None:
    rng = np.random.default_rng(12)
    covered, widths = 0, []
    for _ in range(400):
        of_a, of_b = 0.05 * ar1(rng, n, rho), 0.05 * ar1(rng, m, rho)
        interval = compare_unpaired(np.exp(of_a), np.exp(of_b)).interval
        assert interval is not None
        covered += interval.low <= 1.0 <= interval.high
        ends = [summarise(side).interval for side in (of_a, of_b)]
        assert None not in ends
        added = sum(end.high - end.low for end in ends if end is not None)
        widths.append(math.log(interval.high / interval.low) / added)
    assert 0.94 <= covered / 400 <= 1.0
    assert np.median(widths) < 0.8  # squares are added, not the widths themselves


def test_unpaired_is_never_bolder_than_paired() -> None:
    rng = np.random.default_rng(10)
    for shift in np.linspace(0.0, 0.15, 40):
        a, b = rng.lognormal(0, 0.02, 40), rng.lognormal(shift, 0.02, 40)
        if compare_unpaired(a, b).verdict is Verdict.SLOWER:
            assert compare(a, b).verdict is Verdict.SLOWER


def test_unpaired_does_not_call_five_percent_a_difference_where_paired_does() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.lognormal(0, 0.005, 40), rng.lognormal(math.log(1.05), 0.005, 40)
    assert compare(a, b).verdict is Verdict.SLOWER
    assert compare_unpaired(a, b).verdict is Verdict.AMBIGUOUS


def test_the_half_width_of_too_few_samples_is_infinite() -> None:
    assert relative_half_width([1.0, 2.0]) == math.inf


def test_sixty_rounds_are_compared_within_ten_milliseconds() -> None:
    rng = np.random.default_rng(12)
    a, b = rng.lognormal(0, 0.1, 60), ar1(rng, 60, 0.9) + 100
    took = []
    for _ in range(20):
        start = time.perf_counter()
        compare(a, b)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.010
