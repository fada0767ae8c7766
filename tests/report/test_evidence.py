"""Do the figures of a run come out as they were put in, and not where they must not?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import change_json, summarise_into, write_run
from helpers.synthetic import write_trace

from common.errors import UsageError
from common.recording.run_folder import open_run, write_json
from common.report.evidence import Evidence
from common.report.run_tables import claims, correctness, footer, memory, operators, verdicts
from common.report.summary import build_summary

PLAIN = {"fill": [1_000_000] * 12, "step": [4_000_000] * 12}
DOUBLE = {"fill": [2_000_000] * 12, "step": [8_000_000] * 12}
FAILED = {"passed": False, "reason": "relative error 9 is above the tolerance 0.1",
          "relative_error": {"fill": 9.0, "step": 9.0}}  # fmt: skip


def evidence(folder: Path) -> Evidence:
    return Evidence(open_run(folder))


def test_ratios_and_times_are_those_of_one_unit(tmp_path: Path) -> None:
    found = evidence(write_run(tmp_path, {"plain": PLAIN, "double": DOUBLE}))
    ratio = found.ratio("double", "plain", "step")
    assert ratio.value == pytest.approx(2) and ratio.interval == pytest.approx((2, 2))
    assert found.milliseconds("plain", "step").value == pytest.approx(1)  # 4 ms are four steps
    assert found.milliseconds("plain", "fill").value == pytest.approx(1)
    speed = found.tokens_per_second("double", "step")
    assert speed.value == pytest.approx(500) and speed.interval == pytest.approx((500, 500))


def test_the_interval_of_a_rate_has_its_ends_in_order(tmp_path: Path) -> None:
    series = {"step": [4_000_000 + 10_000 * (7 * i % 20) for i in range(20)]}
    speed = evidence(write_run(tmp_path, {"plain": series})).tokens_per_second("plain", "step")
    assert speed.interval is not None and speed.value is not None
    assert speed.interval[0] < speed.value < speed.interval[1]


def test_drift_that_both_sides_share_cancels(tmp_path: Path) -> None:
    drift = [1_000_000 * (10 + i) for i in range(12)]
    runs = {"plain": {"step": drift}, "double": {"step": [2 * d for d in drift]}}
    assert evidence(write_run(tmp_path, runs)).ratio("double", "plain", "step").interval == (
        pytest.approx((2, 2))
    )


def test_rounds_that_lack_a_side_are_left_out(tmp_path: Path) -> None:
    runs = {"plain": {"step": [1000] * 12}, "double": {"step": [2000] * 11}}
    found = evidence(write_run(tmp_path, runs, finish=False)).comparison("double", "plain", "step")
    assert found is not None and found.n == 11


def test_an_unfinished_run_of_one_after_the_other_is_not_read_as_interleaved(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN, "double": DOUBLE}, finish=False,
                       sampling={"interleaved": False, "needs_bytes": {}})  # fmt: skip
    found = evidence(folder).comparison("double", "plain", "step")
    assert found is not None and found.reasons[0] == "measured one after the other"


@pytest.mark.parametrize(
    ("more", "state", "reason"),
    [
        ({"failures": {"double": "died"}}, "failed", "failed: died"),
        (
            {"not_applicable": {"double": "needs a GPU"}},
            "not applicable",
            "not applicable: needs a GPU",
        ),
    ],
)
def test_a_variant_that_fell_out_has_no_figures(
    tmp_path: Path, more: dict[str, Any], state: str, reason: str
) -> None:
    """Though it left samples behind."""
    found = evidence(write_run(tmp_path, {"plain": PLAIN, "double": DOUBLE}, **more))
    assert found.state("double")[0] == state
    for measured in (
        found.ratio("double", "plain", "step"), found.milliseconds("double", "step"),
        found.operator_share("double", "step", "a"),
        found.temporary_bytes_per_element("double", "step"), found.floor_share("double", "step"),
    ):  # fmt: skip
        assert measured.value is None and measured.reason == reason


def test_a_rejected_variant_has_an_error_but_neither_times_nor_a_profile(tmp_path: Path) -> None:
    facts = {"double": {"parameters": {"largest_linear": 10}}}
    runs = {"plain": PLAIN, "double": DOUBLE}
    folder = write_run(tmp_path, runs, checks={"double": FAILED}, profile_facts=facts)
    write_trace(folder / "traces/double/trace.json.gz", TRACE)
    found = evidence(folder)
    assert found.logit_error("double", "step").value == 9
    assert found.ratio("double", "plain", "step").value is None
    assert found.operator_share("double", "step", "a").value is None
    assert found.temporary_bytes_per_element("double", "step").value is None
    record = build_summary(open_run(folder))["variants"]["double"]
    assert record["phases"] == {} and "profile" not in record and record["state"] == "rejected"


TRACE: list[dict[str, Any]] = [
    {"ph": "X", "cat": "user_annotation", "name": "step", "pid": 1, "tid": 1, "ts": 0, "dur": 100},
    {"ph": "X", "cat": "cpu_op", "name": "a", "pid": 1, "tid": 1, "ts": 10, "dur": 80},
    *[{"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts,
       "args": {"Bytes": size, "Device Type": 0}} for ts, size in ((20, 140), (60, -140))],
]  # fmt: skip


def test_shares_and_peaks_come_from_the_trace(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN},
                       profile_facts={"plain": {"parameters": {"largest_linear": 10}}})  # fmt: skip
    write_trace(folder / "traces/plain/trace.json.gz", TRACE)
    found = evidence(folder)
    assert found.operator_share("plain", "step", "a").value == 0.8
    assert found.operator_share("plain", "step", "none").value == 0
    assert found.temporary_bytes_per_element("plain", "step").value == 14
    assert found.operator_share("plain", "fill", "a").reason == "needs profile"


def test_a_problem_without_weights_has_no_floor_and_no_peak_per_element(tmp_path: Path) -> None:
    found = evidence(write_run(tmp_path, {"plain": PLAIN}, facts={"plain": {"library": "x"}},
                               phases={"decode": ""}))  # fmt: skip
    assert found.decode_floor("plain") is None
    assert found.largest_linear("plain") is None


def test_what_was_not_measured_says_what_it_needs(tmp_path: Path) -> None:
    found = evidence(write_run(tmp_path, {"plain": {}, "double": {}}, checks={}))
    assert found.ratio("double", "plain", "step").reason == "needs bench"
    assert found.ratio("triple", "plain", "step").reason == "not run: this run did not include it"
    assert found.logit_error("plain", "step").reason == "needs bench"
    assert found.operator_share("plain", "step", "a").reason == "needs profile"


@pytest.mark.parametrize(
    "line", [{}, {"variant": "plain", "phase": "step", "round": 0},
             {"variant": "plain", "phase": "step", "round": "x", "duration_ns": 1},
             {"variant": "plain", "phase": "step", "round": 0, "duration_ns": None}],
)  # fmt: skip
def test_a_sample_that_is_none_is_a_usage_error(tmp_path: Path, line: dict[str, Any]) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN})
    with (folder / "samples.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=r"samples\.jsonl: a sample lacks or misuses"):
        build_summary(open_run(folder))


@pytest.mark.parametrize(
    "fields", [{"variants": None}, {"baseline": []}, {"preset": 3}, {"phases": {"step": "stepz"}},
               {"claims": [{}]}, {"failures": 3}, {"not_applicable": 3}],
)  # fmt: skip
def test_a_manifest_that_was_changed_is_a_usage_error(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN, "double": DOUBLE})
    change_json(folder / "manifest.json", **fields)
    with pytest.raises(UsageError, match=folder.name) as caught:
        build_summary(open_run(folder))
    assert "\n" not in str(caught.value)


def test_the_summary_is_the_same_bit_for_bit_wherever_the_folder_lies(tmp_path: Path) -> None:
    claimed = [{"says": "x", "claim": 'ratio("double", "plain", "step") > 1'}]
    folder = write_run(tmp_path / "a", {"plain": PLAIN, "double": DOUBLE}, claims=claimed)
    write_trace(folder / "traces/plain/trace.json.gz", TRACE)
    summarise_into(folder)
    before = (folder / "summary.json").read_bytes()
    moved = folder.rename(tmp_path / "moved")
    assert json.loads(before) == build_summary(open_run(moved))
    summarise_into(moved)
    assert (moved / "summary.json").read_bytes() == before
    assert str(tmp_path).encode() not in before


def test_tables_show_the_baseline_as_such_and_no_figures_of_the_others(tmp_path: Path) -> None:
    runs = {"plain": PLAIN, "double": DOUBLE, "odd": DOUBLE}
    folder = write_run(tmp_path, runs, failures={"odd": "it died"})
    summary = summarise_into(folder)
    plain, double, odd = verdicts(summary, "step").rows
    assert plain[3:] == ("1", "", "baseline")
    assert (double[1].split()[0], double[3], double[5]) == ("2.00", "2", "SLOWER")
    assert odd == ("odd", "failed", "", "", "", "it died")
    assert "revision 0123456" in footer(summary, open_run(folder).manifest)
    assert "2 cores" in footer(summary, open_run(folder).manifest)
    assert len(correctness(summary).rows) == 3
    assert memory(summary).rows == () and claims(summary).rows == ()


def test_a_variant_is_not_called_the_baseline_because_that_has_no_samples(tmp_path: Path) -> None:
    summary = summarise_into(write_run(tmp_path, {"plain": {}, "double": DOUBLE}))
    assert verdicts(summary, "step").rows[1][3:] == ("", "", "no baseline")


def test_the_rows_of_the_operators_add_up_to_the_range(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN})
    many = [{**TRACE[1], "name": f"op{i}", "ts": i, "dur": 1} for i in range(20)]
    write_trace(folder / "traces/plain/trace.json.gz", [TRACE[0], *many])
    summary = summarise_into(folder)
    record = summary["variants"]["plain"]["profile"]["step"]["time"]
    assert (
        sum(row["time_ns"] for row in record["rows"])
        + record["other_operators"]["time_ns"] + record["outside_operators_ns"]
        == record["total_ns"] == 100_000
    )  # fmt: skip
    shares = [float(row[3].removesuffix(" %")) for row in operators(summary, "plain", "step").rows]
    assert sum(shares[:-1]) == pytest.approx(shares[-1]) == 100


def test_an_empty_range_makes_an_empty_table_and_no_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN})
    write_trace(folder / "traces/plain/trace.json.gz", [{**TRACE[0], "dur": 0}])
    assert operators(summarise_into(folder), "plain", "step").rows[-1][3] == ""


def test_an_unreadable_trace_is_a_usage_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN})
    write_trace(folder / "traces/plain/trace.json.gz", []).write_bytes(b"\x1f\x8bno")
    with pytest.raises(UsageError, match=r"trace\.json\.gz"):
        build_summary(open_run(folder))


def test_a_profile_failure_is_told_where_a_claim_needs_the_profile(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"plain": PLAIN}, profile_failures={"plain": "no profiler"})
    share = evidence(folder).operator_share("plain", "step", "a")
    assert share.reason == "profile failed: no profiler"
    assert evidence(folder).milliseconds("plain", "step").value is not None
    write_json(folder / "checks.json", {"plain": FAILED})
    assert evidence(folder).operator_share("plain", "step", "a").reason == (
        f"rejected: {FAILED['reason']}"
    )
