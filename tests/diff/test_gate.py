"""Does --fail-on say no where it should, and refuse what it cannot know?"""

from __future__ import annotations

import pytest
from helpers.differences import difference, judgement, row

from common.diff.difference import Difference
from common.diff.gate import KNOWN, evaluate, parse_bounds
from common.errors import UsageError


def judged(verdict: str, ratio: float | None, a: int = 100, b: int = 110) -> Difference:
    found = difference([row("k", a, b)], idle=(100, 80))
    return found.judged(judgement(verdict, ratio))


def failures(found: Difference, *texts: str, strict: bool = False) -> tuple[str, ...]:
    return evaluate(found, parse_bounds(texts), strict).failures


@pytest.mark.parametrize(
    ("verdict", "ratio", "bound", "fails"),
    [
        ("SLOWER", 1.06, "slower=5%", True), ("SLOWER", 1.04, "slower=5%", False),
        ("SLOWER", 1.06, "slower=1.05x", True), ("SLOWER", 1.04, "slower=1.05x", False),
        ("SLOWER", 1.001, "slower=0%", True), ("SLOWER", 3.0, "slower=200%", False),
        ("SLOWER", None, "slower=5%", True), ("FASTER", 0.5, "slower=0%", False),
        ("SAME", 1.01, "slower=0%", False), ("AMBIGUOUS", 1.4, "slower=5%", False),
        ("NOT_COMPARABLE", 9.0, "slower=5%", False),
    ],
)  # fmt: skip
def test_slower_fails_beyond_the_bound_and_only_when_slower(
    verdict: str, ratio: float | None, bound: str, fails: bool
) -> None:
    assert bool(failures(judged(verdict, ratio), bound)) is fails


@pytest.mark.parametrize("verdict", ["AMBIGUOUS", "NOT_COMPARABLE"])
def test_an_undecided_verdict_warns_and_fails_where_strict(verdict: str) -> None:
    found, bounds = judged(verdict, 1.4), parse_bounds(["slower=5%"])
    lenient = evaluate(found, bounds)
    assert not lenient.failures and verdict in lenient.warnings[0]
    strict = evaluate(found, bounds, strict=True)
    assert verdict in strict.failures[0] and "one capture a side" in strict.failures[0]
    assert evaluate(found, (), strict=True).failures  # also without a bound
    nothing_asked = evaluate(found, ())
    assert not nothing_asked.failures and not nothing_asked.warnings


@pytest.mark.parametrize("verdict", ["SAME", "FASTER", "SLOWER"])
def test_a_decided_verdict_passes_strict(verdict: str) -> None:
    outcome = evaluate(judged(verdict, 1.2), (), strict=True)
    assert not outcome.failures and not outcome.warnings


@pytest.mark.parametrize(
    ("bound", "fails"),
    [
        ("gpu_time=9%", True), ("gpu_time=10%", False), ("gpu_time=1.09x", True),
        ("gpu_time=+9ns", True), ("gpu_time=+10ns", False), ("gpu_time=0.009us", True),
        ("gpu_time=+1ms", False), ("busy=9%", True), ("span=0%", False), ("idle=0%", False),
    ],
)  # fmt: skip
def test_a_bound_on_a_total_is_exact(bound: str, fails: bool) -> None:
    assert bool(failures(judged("AMBIGUOUS", 1.0), bound)) is fails


def test_times_that_cannot_be_compared_are_not_held_against_a_bound() -> None:
    found = judged("NOT_COMPARABLE", 1.1)
    outcome = evaluate(found, parse_bounds(["gpu_time=1%"]))
    assert not outcome.failures and "gpu_time=1%" in outcome.warnings[0]


def memory(a: int, b: int) -> Difference:
    rows = [row("pool", a, b)]
    return difference(rows, quantity="peak_allocated_bytes", a={"reserved_bytes": 2 * a},
                      b={"reserved_bytes": 2 * a})  # fmt: skip


@pytest.mark.parametrize(
    ("bound", "fails"),
    [
        ("peak=+100MB", False), ("peak=+99.9MB", True), ("memory=+95MiB", True),
        ("memory=+96MiB", False), ("peak=9%", True), ("peak=10%", False), ("reserved=0%", False),
    ],
)  # fmt: skip
def test_a_bound_on_memory_is_in_bytes(bound: str, fails: bool) -> None:
    assert bool(failures(memory(10**9, 11 * 10**8), bound)) is fails


def test_a_bound_grows_from_nothing() -> None:
    assert failures(difference([row("k", 0, 5, 0, 1)]), "gpu_time=50%")
    assert not failures(difference([row("k", 0, 5, 0, 1)]), "gpu_time=+5ns")


def test_several_bounds_are_all_judged() -> None:
    found = judged("SLOWER", 1.3)
    assert len(failures(found, "slower=5%,gpu_time=1%", "busy=1%")) == 3


@pytest.mark.parametrize(
    "text",
    [
        "", "faster=5%", "slower", "slower=", "slower=5", "slower=-5%", "slower=nan%",
        "slower=0.9x", "slower=inf%",
        "slower=5%%", "slower=+5ms", "gpu_time=+5MB", "peak=+5ms", "slower =5%",
        "gpu_time=5 parsecs", "slower=5%,", "Slower=5%", "slower=1e9%", "slower=+1.05x",
        "slower=5%;rm", "slower=٥%", "peak=" + "9" * 400 + "%",
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bounds([text])
    assert "\n" not in str(caught.value)
    assert "slower" in str(caught.value) or "known" in str(caught.value)


def test_an_unknown_bound_is_told_all_that_are_known() -> None:
    with pytest.raises(UsageError, match=", ".join(KNOWN)):
        parse_bounds(["speed=5%"])


@pytest.mark.parametrize("text", ["peak=5%", "memory=5%", "cpu_time=5%", "reserved=+1B"])
def test_a_bound_on_what_the_files_do_not_say_is_an_error_and_no_pass(text: str) -> None:
    with pytest.raises(UsageError, match="do not say"):
        failures(judged("SAME", 1.0), text)
