"""ncu's CSV: known answers, what a terminal adds, and damage."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UsageError
from common.traces.ncu import base_name, read_ncu
from common.traces.ncu_csv import read_csv
from common.traces.ncu_units import base_unit, parse_number, printed_metric

FIXED = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream",'
    '"Block Size","Grid Size","Device","CC"'
)
TIME = "gpu__time_duration.sum"
DETAILS = f'{FIXED},"Section Name","Metric Name","Metric Unit","Metric Value","Rule Name"\n'


def _start(launch: int, name: str = "void ns::f<(int)4>(float *)") -> str:
    return f'"{launch}","77","app","host","{name}","1","7","(64, 2, 1)","(8, 4, 3)","0","9.0"'


def _detail(launch: int, metric: str, unit: str, value: str, section: str = "S") -> str:
    return f'{_start(launch)},"{section}","{metric}","{unit}","{value}",\n'


def _raw(*durations: str, unit: str = "usecond") -> str:
    rows = "".join(f'{_start(i)},"{d}","3"\n' for i, d in enumerate(durations))
    return (
        f'{FIXED},"{TIME}","x__y.sum"\n{"".join(",".join([chr(34) * 2] * 11))},"{unit}",""\n{rows}'
    )


def test_a_raw_page_known_answer() -> None:
    report = read_csv(_raw("1,234.5", "2"))
    first = report.launches[0]
    assert report.total_ns == 1_236_500
    assert (first.base_name, first.block, first.grid) == ("f", (64, 2, 1), (8, 4, 3))
    assert (first.process_id, first.process_name) == (77, "app")
    assert (first.context, first.stream, first.device_id) == (1, 7, 0)
    assert first.metrics[TIME].printed == "1,234.5"
    assert first.metrics[TIME].resolution == 100
    assert (report.rows, report.columns, report.warnings) == (2, 13, ())


def test_lines_of_ncu_and_of_the_program_are_no_rows() -> None:
    text = "==PROF== Connected to process 77\nloss 0.5\n" + _raw("1", "2")
    broken_in = text.replace('"1","77"', '==PROF== Profiling "f"\nstep 3 done\n"1","77"')
    report = read_csv(broken_in)
    assert report.total_ns == 3000
    assert report.warnings == ("lines between the rows that are not ncu's, left out: 1",)


def test_a_file_that_was_appended_to_keeps_both_runs_apart() -> None:
    report = read_csv(_raw("1", "2") + _raw("4"))
    assert [launch.launch_id for launch in report.launches] == [0, 1, 0]
    assert report.total_ns == 7000
    details = DETAILS + _detail(0, "Duration", "us", "5")
    assert len(read_csv(details + details).launches) == 2


def test_nan_and_absent_values_are_unknown_and_only_nan_is_counted() -> None:
    report = read_csv(_raw("nan", "n/a", "3"))
    assert [launch.time_ns for launch in report.launches] == [None, None, 3000]
    assert report.total_ns == 3000
    assert "launches without a duration (NaN), not in the total: 1" in report.warnings
    assert f"launches without {TIME}, not in the total: 1" in report.warnings


def test_a_total_of_nothing_is_unknown_and_not_zero() -> None:
    report = read_csv(DETAILS + _detail(0, "Registers Per Thread", "register/thread", "16"))
    assert report.total_ns is None


def test_one_column_mixes_units_on_the_details_page() -> None:
    report = read_csv(
        DETAILS + _detail(0, "Duration", "second", "1.17") + _detail(1, "Duration", "us", "0.5")
    )
    assert [launch.time_ns for launch in report.launches] == [1_170_000_000, 500]


def test_parts_of_a_nanosecond_are_kept() -> None:
    report = read_csv(_raw("1.0004"))
    assert report.total_ns == Decimal("1000.4")


def test_labels_become_names_by_section() -> None:
    memory = "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"
    launch = read_csv(
        DETAILS
        + _detail(0, "Memory Throughput", "%", "50", "GPU Speed Of Light Throughput")
        + _detail(0, "Memory Throughput", "Gbyte/s", "1.5", "Memory Workload Analysis")
        + _detail(0, "Something New", "", "7", "A Section")
    ).launches[0]
    assert launch.number(memory) == 50
    assert launch.number("dram__bytes.sum.per_second") == 1_500_000_000
    assert launch.number("A Section: Something New") == 7


def test_a_metric_given_twice_counts_once_and_a_conflict_is_said() -> None:
    same = _detail(0, TIME, "us", "5") + _detail(0, "Duration", "us", "5")
    assert read_csv(DETAILS + same).warnings == ()
    other = _detail(0, TIME, "us", "5") + _detail(0, "Duration", "us", "6")
    report = read_csv(DETAILS + other)
    assert report.total_ns == 5000
    assert report.warnings == ("metrics given twice with different values, the first kept: 1",)


def test_a_rule_text_with_line_breaks_is_one_row() -> None:
    rule = f'{_start(0)},"S","","","","Rule says\n"the ""grid""\nis small"\n'
    text = DETAILS + rule.replace('"Rule says\n"the', '"Rule says\nthe')
    report = read_csv(text + _detail(0, "Duration", "us", "5"))
    assert (report.rows, report.total_ns, report.warnings) == (2, 5000, ())


def test_a_row_cut_within_a_number_is_left_out_and_not_read_as_a_smaller_one() -> None:
    text = _raw("11", "22", "33")
    report = read_csv(text[: text.rindex('33"') + 1])
    assert report.total_ns == 33_000
    assert report.warnings == ("rows cut short or unreadable, left out: 1",)


def test_a_quote_that_is_never_closed_loses_one_row_only() -> None:
    text = _raw("1", "2", "4").replace('"2","3"', '"2,"3"')
    assert read_csv(text).total_ns == 5000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_shells_write_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "report.csv"
    file.write_bytes(_raw("5").replace("\n", "\r\n").encode(encoding))
    assert read_ncu(file).total_ns == 5000


def test_a_gzip_that_ends_early_gives_the_rows_that_are_there(tmp_path: Path) -> None:
    packed = gzip.compress(_raw(*[str(i * 7919 % 1000) for i in range(4000)]).encode())
    file = tmp_path / "report.csv.gz"
    file.write_bytes(packed[: len(packed) // 2])
    report = read_ncu(file)
    assert 100 < len(report.launches) < 4000
    assert "gzip stream is damaged" in report.warnings[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello\nworld\n", "it is neither"),
        (b"\x00\x01\x02" * 50, "it is neither"),
        (b"a,b\n1,2\n", "it is neither"),
        (FIXED.encode() + b"\n", "no launch"),
        (b"\x1f\x8b\x08\x00garbage", "cannot be unpacked"),
        (b"NVR\0" + b"\xff" * 40, "cut short before its first launch"),
        (
            b'"ID","Process ID","Kernel Name","Metric Name","Average"\n"0","1","f","Duration","2"',
            "summary over launches",
        ),
    ],
)
def test_what_is_no_ncu_file_is_one_line_of_error(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        read_ncu(file)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_directory_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no file"):
        read_ncu(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_ncu(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *[(u, ("ns", p)) for u, p in (("nsecond", 0), ("usecond", 3), ("msecond", 6), ("s", 9))],
        ("ns", ("ns", 0)),
        ("Kbyte", ("byte", 3)),
        ("Gbyte/s", ("byte/s", 9)),
        ("byte/nsecond", ("byte/s", 9)),
        ("Kbyte/block", ("byte/block", 3)),
        ("cycle/nsecond", ("hz", 9)),
        ("Ghz", ("hz", 9)),
        ("cycle/second", ("hz", 0)),
        ("sector/ns", ("sector/s", 9)),
        ("register/thread", ("register/thread", 0)),
        ("inst/cycle", ("inst/cycle", 0)),
        ("%", ("%", 0)),
        ("", ("", 0)),
    ],
)
def test_units_of_all_generations(unit: str, expected: tuple[str, int]) -> None:
    assert base_unit(unit) == expected


@pytest.mark.parametrize("text", ["1,23", "1.234,5", "12,3456", "0x1f", "1e", "--1", "9" * 40])
def test_what_only_resembles_a_number_stays_text(text: str) -> None:
    assert parse_number(text) is None


def test_a_list_of_instances_counts_with_its_total() -> None:
    assert printed_metric("x", "6 (1; 2; 3)", "inst")[0].value == 6


@given(st.integers(0, 10**15), st.integers(0, 6), st.sampled_from(["ns", "us", "ms", "second"]))
def test_printed_numbers_survive_exactly(digits: int, decimals: int, unit: str) -> None:
    value = Decimal(digits).scaleb(-decimals)
    power = {"ns": 0, "us": 3, "ms": 6, "second": 9}[unit]
    metric = printed_metric(TIME, f"{value:,f}", unit)[0]
    assert metric.number == value.scaleb(power)
    assert metric.unit == "ns"


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        report = read_csv(_raw("1") + text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert report.launches[0].time_ns == 1000


@pytest.mark.parametrize(
    ("demangled", "expected"),
    [
        ("void at::native::(anonymous namespace)::k<int, 4>(int)", "k"),
        ("void f<ns::g<(int)3>::h>(T1::Params)", "f"),
        ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
        ("enable_if<!T7, void>::type kernel<int>(T13)", "kernel"),
        ("a::b::operator()(int)", "operator()"),
        ("", ""),
    ],
)
def test_base_names(demangled: str, expected: str) -> None:
    assert base_name(demangled) == expected
