"""20,000 damaged files in every CI run; the long run and its figures are in tests/README.md."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fuzz import report_files
from fuzz.case import Case, Unit
from fuzz.cases import GOOD, make
from fuzz.long_run import real_seeds, run
from fuzz.oracle import Fault, Judge, units_of
from msgspec.structs import replace as changed

from common.errors import UsageError
from common.traces import torch_trace
from common.traces.model import Trace

SEED, CASES, PARTS = 5, 20_000, 4
EACH = CASES // PARTS


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_twenty_thousand_damaged_files_are_read_or_refused_as_promised(part: int) -> None:
    done = run(SEED, part * EACH, EACH, None)
    assert done["faults"] == []
    assert done["cases"] == EACH and done["killed"] == 0
    assert done["memory_ratio"] <= 4 and done["traced_share_of_limit"] <= 1
    # Refusing everything, or never looking, is no way to pass.
    outcomes = done["outcomes"]
    read = sum(count for name, count in outcomes.items() if name.endswith(" read"))
    assert read > EACH * 2 / 3 and outcomes["compared"] > EACH / 40


def test_a_case_is_the_same_for_the_same_number_and_another_for_another() -> None:
    assert [make(1, n) for n in range(60)] == [make(1, n) for n in range(60)]
    assert make(1, 3).data != make(1, 4).data and make(1, 3).data != make(2, 3).data


@pytest.mark.parametrize("format_", ["torch", "nsys", "memory", "ncu"])
def test_most_cases_know_what_must_be_found(format_: str) -> None:
    made = [make(9, number, format_) for number in range(150)]
    knowing = [case for case in made if case.intact]
    assert len(knowing) > 60
    assert sum(case.exact for case in knowing) > 20
    assert len({case.changes for case in made}) > 100


def test_reports_that_nvidias_code_reads_are_read_or_refused_as_promised(real_data: Path) -> None:
    pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    done = report_files.run(real_data, SEED, 40)
    assert done["faults"] == []
    outcomes = done["reports"]
    assert all(outcomes[f"ncu-rep {said}"] for said in ("read", "warned", "refused"))


def test_a_launch_that_is_lost_without_a_word_is_found(real_data: Path) -> None:
    pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    path = real_data / report_files.NCU[0]
    _, launches = report_files.whole(path)
    assert launches == 2
    assert report_files.judged(path, launches) == ("read", "")
    assert report_files.judged(path, launches + 1)[1] == "2 of 3 without a word"


# Slices of real files


def test_every_slice_of_a_real_file_is_read_exactly(real_data: Path, judge: Judge) -> None:
    real = real_seeds()
    assert len([seed for seed in real if seed.format != "compiled"]) > 50
    for seed in real:
        judge.judge(Case(seed.format, seed.data, (), seed.units, exact=True))
        assert seed.units is None or sum(seed.units.values()) > 1
        assert len(seed.data) < 32 << 10
        stored = real_data / seed.name
        if stored.exists():
            assert seed.sha256 == hashlib.sha256(stored.read_bytes()).hexdigest()


@pytest.mark.parametrize("format_", ["torch", "nsys", "memory", "ncu", "compiled"])
def test_about_a_third_of_the_cases_start_from_real_files(real_data: Path, format_: str) -> None:
    made = [make(9, number, format_, real_seeds()) for number in range(200)]
    assert made == [make(9, number, format_, real_seeds()) for number in range(200)]
    real = [case for case in made if case.seed]
    assert 40 < len(real) < 100 and len({case.seed for case in real}) > 4
    least = {"compiled": 0, "ncu": 2}.get(format_, 4)  # of ncu's pages only two say times
    assert sum(bool(case.intact) for case in real) >= least
    assert sum(case.exact and bool(case.intact) for case in real) >= least


# The oracle itself: each kind of fault, put in on purpose, must be seen.


@pytest.fixture
def judge() -> Iterator[Judge]:
    made = Judge(dict(GOOD))
    yield made
    made.close()


def good(judge: Judge, format_: str = "torch") -> Case:
    """The undamaged file as a case that must be read exactly."""
    from common.traces.formats import open_and_summarise

    _, content, _ = open_and_summarise(judge.good[format_])
    return Case(format_, GOOD[format_], (), units_of(content), exact=True)


@pytest.mark.parametrize("format_", ["torch", "nsys", "memory", "ncu"])
def test_the_undamaged_files_pass(judge: Judge, format_: str) -> None:
    judge.judge(good(judge, format_), thorough=True)


def test_an_event_that_is_lost_halved_or_made_up_is_a_fault(judge: Judge) -> None:
    case = good(judge)
    assert case.intact
    unit: Unit = next(iter(case.intact))
    for other in (
        case.intact + Counter({("gpu:more", 5): 1}),
        case.intact - Counter({unit: 1}),
        case.intact - Counter({unit: 1}) + Counter({(unit[0], unit[1] // 2): 1}),
    ):
        with pytest.raises(Fault, match=r"intact and not read|read and not there"):
            judge.judge(replace(case, intact=other))


def broken(monkeypatch: pytest.MonkeyPatch, change: Callable[[Trace], Any]) -> None:
    real = torch_trace.read_torch_trace
    monkeypatch.setattr(torch_trace, "read_torch_trace", lambda path: change(real(path)))


def _raise(error: Exception) -> Callable[[Trace], Any]:
    def change(_: Trace) -> Any:
        raise error

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_raise(KeyError("x")), "KeyError"),
        (_raise(MemoryError()), "MemoryError"),
        (_raise(RecursionError()), "RecursionError"),
        (_raise(UsageError("two\nlines; do that")), "without a next action"),
        (_raise(UsageError("no action")), "without a next action"),
        (_raise(UsageError("cannot; copy it again")), "intact were refused"),
        (lambda trace: changed(trace, gpu=changed(trace.gpu, end_ns=trace.gpu.end_ns + 1)), "not"),
        (lambda trace: changed(trace, names=("\x1b[31m",) * len(trace.names)), "not read"),
    ],
)
def test_a_reader_that_is_broken_on_purpose_is_seen(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, change: Callable[[Trace], Any], says: str
) -> None:
    case = good(judge)
    broken(monkeypatch, change)
    with pytest.raises(Fault, match=says):
        judge.judge(case)


def test_a_page_that_sends_control_characters_is_seen(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.report.show import PAGES

    monkeypatch.setitem(PAGES, "trace", lambda summary: "\x1b[2J")
    with pytest.raises(Fault, match="would go to the terminal"):
        judge.judge(good(judge), thorough=True)
