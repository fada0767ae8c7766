"""Is the order fair, is nothing measured ever lost, and does measuring end when it should?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from common.errors import UsageError
from common.timing.sampling import (
    Sample,
    StopDecision,
    StopRule,
    comparisons,
    decide,
    interleave,
    known_sides,
    sequential,
)
from common.timing.statistics import Verdict

TEN = StopRule(min_rounds=10, max_rounds=10)


def constant(duration_ns: int) -> Callable[[], dict[str, int]]:
    return lambda: {"decode": duration_ns}


def noisy(duration_ns: int, spread: float) -> Callable[[], dict[str, int]]:
    """Alternates above and below by `spread`, so that the interval never narrows."""
    factors: Iterator[float] = iter([1 + spread * (-1) ** (i // 2) for i in range(10_000)])
    return lambda: {"decode": round(duration_ns * next(factors))}


def made(rounds: int, ratio: float, phase: str = "decode") -> list[Sample]:
    return [
        Sample(i, order, variant, phase, duration_ns, 0)
        for i in range(rounds)
        for order, (variant, duration_ns) in enumerate((("a", 1000), ("b", round(1000 * ratio))))
    ]


def order_of_rounds(samples: tuple[Sample, ...]) -> list[tuple[str, ...]]:
    rounds = max(s.round for s in samples) + 1
    return [tuple(s.variant for s in samples if s.round == i) for i in range(rounds)]


def test_the_order_is_shuffled_and_the_same_seed_gives_the_same_order() -> None:
    sides = {"a": constant(100), "b": constant(100), "c": constant(100)}
    first = order_of_rounds(interleave(sides, "a", TEN, seed=1).samples)
    assert first == order_of_rounds(interleave(sides, "a", TEN, seed=1).samples)
    assert first != order_of_rounds(interleave(sides, "a", TEN, seed=2).samples)
    assert len(set(first)) > 2
    assert all(sorted(names) == ["a", "b", "c"] for names in first)


def test_each_sample_is_delivered_before_the_next_repetition_begins() -> None:
    delivered: list[Sample] = []
    calls: list[int] = []

    def side() -> dict[str, int]:
        assert len(delivered) == 2 * len(calls)  # two phases for each call before this one
        calls.append(1)
        return {"prefill": 10, "decode": 20}

    measured = interleave({"a": side, "b": side}, "a", TEN, on_sample=delivered.append)
    assert tuple(delivered) == measured.samples
    assert len(delivered) == 40


def test_an_error_in_a_side_is_passed_on_after_the_earlier_samples_were_delivered() -> None:
    delivered: list[Sample] = []
    left = iter(range(4))

    def breaks() -> dict[str, int]:
        if next(left, None) is None:
            raise ZeroDivisionError("the device is gone")
        return {"decode": 10}

    with pytest.raises(ZeroDivisionError, match="the device is gone"):
        interleave({"a": constant(10), "b": breaks}, "a", TEN, on_sample=delivered.append)
    assert [s.round for s in delivered if s.variant == "b"] == [0, 1, 2, 3]
    assert len([s for s in delivered if s.variant == "a"]) >= 4


def test_samples_know_their_place_and_when_they_began() -> None:
    ticks = iter(range(0, 10**6, 7))
    measured = interleave(
        {"a": constant(5), "b": constant(5)}, "a", TEN, clock_ns=lambda: next(ticks)
    )
    starts = [s.started_ns for s in measured.samples]
    assert starts == sorted(starts) and starts[0] == 7
    assert [s.order for s in measured.samples] == [0, 1] * 10


def test_the_rule_is_asked_after_each_round_and_the_answer_is_handed_on() -> None:
    heard: list[tuple[int, StopDecision]] = []
    measured = interleave(
        {"a": constant(10), "b": constant(10)},
        "a",
        on_round=lambda number, decision: heard.append((number, decision)),
    )
    assert [number for number, _ in heard] == list(range(10))
    assert [decision.stop for _, decision in heard] == [False] * 9 + [True]
    assert heard[-1][1] == measured.decision


def test_sides_are_renewed_before_their_rounds_in_an_order_that_favours_none() -> None:
    log: list[str] = []

    def side(name: str) -> Callable[[], dict[str, int]]:
        def run() -> dict[str, int]:
            log.append(f"run {name}")
            return {"decode": 10}

        return run

    interleave(
        {"a": side("a"), "b": side("b")},
        "a",
        StopRule(min_rounds=40),
        renew={name: lambda name=name: log.append(f"renew {name}") for name in "ab"},
        renew_every=2,
    )
    blocks = [log[i : i + 6] for i in range(0, len(log), 6)]  # renew, renew, then two rounds
    assert len(blocks) == 20
    for block in blocks:
        assert [line.split()[0] for line in block] == ["renew"] * 2 + ["run"] * 4
        assert [line[-1] for line in block[:2]] == [line[-1] for line in block[2:4]]
    assert 4 <= sum(block[0] == "renew a" for block in blocks) <= 16


def test_renewing_what_is_no_side_is_refused() -> None:
    with pytest.raises(UsageError, match="c"):
        interleave({"a": constant(1)}, "a", TEN, renew={"c": lambda: None})


def test_quiet_sides_stop_at_the_least_number_of_rounds() -> None:
    assert decide(made(9, 1.0), "a", StopRule(), 0.0).stop is False
    assert decide(made(10, 1.0), "a", StopRule(), 0.0).stop is True


def test_a_clear_difference_that_is_not_precise_does_not_stop() -> None:
    samples = made(12, 1.0)
    wide = [
        s if s.variant == "a" else Sample(s.round, 1, "b", "decode", 3000 + 300 * (s.round % 4), 0)
        for s in samples
    ]
    rule = StopRule(relative_precision=0.0)
    assert decide(wide, "a", rule, 0.0).stop is False
    assert decide(wide, "a", StopRule(relative_precision=0.5), 0.0).stop is True


def test_the_worst_known_phase_decides() -> None:
    vague = [
        Sample(s.round, s.order, s.variant, "prefill", s.duration_ns * (1 + s.round % 3), 0)
        if s.variant == "b"
        else Sample(s.round, s.order, s.variant, "prefill", s.duration_ns, 0)
        for s in made(12, 1.0)
    ]
    decision = decide(made(12, 1.0) + vague, "a", StopRule(), 0.0)
    assert decision.stop is False
    assert "prefill" in decision.reason


def test_time_never_cuts_below_the_least_number_of_rounds() -> None:
    rule = StopRule(min_rounds=10, max_rounds=1000, max_seconds=0.0)
    measured = interleave({"a": constant(1000), "b": noisy(1000, 0.5)}, "a", rule)
    assert len(measured.samples) == 20
    assert "0 s are over after 10 rounds" in measured.decision.reason


def test_noise_that_stays_ends_at_the_most_rounds() -> None:
    rule = StopRule(max_rounds=25)
    measured = interleave({"a": constant(1000), "b": noisy(1000, 0.5)}, "a", rule)
    assert len(measured.samples) == 50
    assert measured.decision.reason.startswith("at most 25 rounds: b decode is known to ")
    assert comparisons(measured)["b", "decode"].verdict is Verdict.AMBIGUOUS


def test_a_side_whose_ratio_is_known_takes_no_further_rounds() -> None:
    rule = StopRule(min_rounds=10, max_rounds=25, precision=0.01)
    sides = {"a": constant(100), "b": constant(150), "c": noisy(100, 0.5)}
    taken = interleave(sides, "a", rule, leave_when_known=True)
    rounds = {name: sum(s.variant == name for s in taken.samples) for name in sides}
    assert rounds == {"a": 25, "b": 10, "c": 25}, "the baseline stays with whoever is left"
    assert taken.decision.reason.startswith("at most 25 rounds: c decode")
    found = comparisons(taken)
    assert found["b", "decode"].n == 10 and found["b", "decode"].ratio == pytest.approx(1.5)


def test_known_sides_are_those_that_the_rule_would_let_go_alone() -> None:
    samples = made(12, 1.1)
    assert known_sides(samples, "a", StopRule(min_rounds=10)) == {"b"}
    assert known_sides(samples, "a", StopRule(min_rounds=13, max_rounds=20)) == set()


def test_a_baseline_alone_is_measured_for_the_least_number_of_rounds() -> None:
    measured = interleave({"a": constant(10)}, "a")
    assert len(measured.samples) == 10
    assert comparisons(measured) == {}


def test_a_precision_of_zero_can_be_met_by_samples_that_do_not_differ() -> None:
    rule = StopRule(precision=0.0, relative_precision=0.0)
    assert decide(made(10, 1.0), "a", rule, 0.0).stop is True


def test_rounds_that_one_side_did_not_finish_are_not_compared() -> None:
    samples = [*made(9, 1.0), Sample(9, 0, "a", "decode", 1000, 0)]
    assert decide(samples, "a", StopRule(), 0.0).reason == "9 of at least 10 rounds measured"


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_rounds": 0},
        {"min_rounds": 20, "max_rounds": 10},
        {"max_seconds": -1.0},
        {"precision": float("nan")},
    ],
)
def test_a_rule_that_cannot_be_obeyed_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        StopRule(**arguments)  # type: ignore[arg-type]


def test_a_side_without_phases_or_without_duration_and_a_strange_baseline_are_refused() -> None:
    with pytest.raises(UsageError, match="returned no phase"):
        interleave({"a": dict}, "a", TEN)
    with pytest.raises(UsageError, match="took 0 ns"):
        interleave({"a": constant(0)}, "a", TEN)
    with pytest.raises(UsageError, match="name one of these as baseline: a"):
        interleave({"a": constant(1)}, "z", TEN)


def test_sequential_sides_never_exist_together_and_their_comparison_says_so() -> None:
    log: list[str] = []

    def factory(name: str, duration_ns: int):  # type: ignore[no-untyped-def]
        @contextmanager
        def made() -> Iterator[Callable[[], dict[str, int]]]:
            log.append(f"enter {name}")
            yield constant(duration_ns)
            log.append(f"leave {name}")

        return made

    delivered: list[Sample] = []
    factories = {"a": factory("a", 1000), "b": factory("b", 1500)}
    measured = sequential(factories, "a", on_sample=delivered.append)
    assert log == ["enter a", "leave a", "enter b", "leave b"]
    assert tuple(delivered) == measured.samples
    assert measured.interleaved is False
    found = comparisons(measured)["b", "decode"]
    assert found.verdict is Verdict.SLOWER
    assert found.ratio == pytest.approx(1.5)
    assert found.reasons[0] == "measured one after the other"
