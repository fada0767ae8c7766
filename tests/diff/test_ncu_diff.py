"""Two Nsight Compute files: launches pair in order, times close in whole ns, metrics are told."""

from __future__ import annotations

import importlib.util
import json
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from helpers.known_facts import files_of, known_facts, pairs_of

from common.diff.difference import Difference, Row, Tier
from common.diff.launch_pairs import pair_launches
from common.diff.metric_reading import change_reading
from common.diff.metrics import diff_ncu
from common.errors import UsageError
from common.traces.ncu import KernelLaunch, Metric, NcuReport, base_name, read_ncu, summarise_ncu
from common.traces.ncu_model import DURATION

needs_ncu_report = pytest.mark.skipif(
    importlib.util.find_spec("ncu_report") is None, reason="ncu-report is not installed"
)
PEAK = ".avg.pct_of_peak_sustained_elapsed"


def diff_files(a: Path, b: Path) -> Difference:
    left, right = read_ncu(a), read_ncu(b)
    return diff_ncu(left, right, summarise_ncu(left, a), summarise_ncu(right, b))


def closes(found: Difference) -> bool:
    parts = [*found.rows, *found.remainders]
    return (
        found.residual == 0
        and sum(p.a for p in parts) == found.total_a
        and sum(p.b for p in parts) == found.total_b
    )


def sides(rows: tuple[Row, ...]) -> Counter[tuple[Any, ...]]:
    return Counter((r.name, r.name_b, r.tier, r.a, r.b, r.count_a, r.count_b) for r in rows)


def swapped(rows: tuple[Row, ...]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (r.name_b or r.name, r.name_b and r.name, r.tier, r.b, r.a, r.count_b, r.count_a)
        for r in rows
    )


def skip_without_ncu_report(*files: str) -> None:
    if importlib.util.find_spec("ncu_report") is None and any(f.endswith("-rep") for f in files):
        pytest.skip("ncu-report is not installed")


@needs_ncu_report
@pytest.mark.parametrize("pair", pairs_of("ncu"))
def test_every_real_pair_closes_launch_by_launch(real_data: Path, pair: str) -> None:
    fact = known_facts()["pairs"][pair]
    found = diff_files(real_data / fact["a"], real_data / fact["b"])
    assert found.delta == fact["delta"]["total_ns"] and closes(found)
    assert not found.remainders and {row.tier for row in found.rows} == {Tier.EXACT}
    in_order = sorted(found.rows, key=lambda row: row.metrics["launch"]["a"])
    by_position = [[base_name(r.name), base_name(r.name_b or r.name), r.delta] for r in in_order]
    assert by_position == fact["delta_by_position"]
    names = found.extra["metrics"]
    assert names["names_b"] - names["names_a"] == fact["delta"]["metrics"]
    assert found.judgement.verdict == "AMBIGUOUS"
    assert any("locks clocks" in reason for reason in found.judgement.reasons)
    json.dumps(found.to_json(), allow_nan=False)
    back = diff_files(real_data / fact["b"], real_data / fact["a"])
    assert sides(back.rows) == swapped(found.rows)


@needs_ncu_report
def test_the_faster_kernel_is_named_with_what_changed_in_it(real_data: Path) -> None:
    folder = real_data / "ncu"
    found = diff_files(
        folder / "warptiling_a10g_0423.ncu-rep", folder / "warptiling_a10g_0516.ncu-rep"
    )
    assert found.notes[0].endswith("98.4 % of it in one_warptiling_tn (launch 1).")
    metrics = found.rows[0].metrics
    assert metrics is not None
    assert metrics["registers_per_thread"] == {
        "a": 64, "b": 36, "delta": -28, "unit": "register/thread",
    }  # fmt: skip
    assert metrics["occupancy_limiter"] == {"a": ("registers",), "b": ()}
    assert metrics["spill_loads"]["a"] is None
    for words in (
        "4.88× faster",
        "to memory-bound",
        "occupancy 60 % → 91 %, no longer limited (was registers)",
        "registers 64 → 36",
        "DRAM throughput 34 % → 77 %",
    ):
        assert words in metrics["reading"]
    assert all(
        "moved by more than 5 %" in r.metrics["reading"] for r in found.rows[1:] if r.metrics
    )


@pytest.mark.parametrize("file", files_of("ncu"))
def test_a_file_against_itself_is_the_same(real_data: Path, file: str) -> None:
    skip_without_ncu_report(file)
    found = diff_files(real_data / file, real_data / file)
    assert found.delta == 0 and closes(found) and not found.remainders
    assert not [row for row in found.rows if row.delta or not (row.count_a and row.count_b)]
    assert found.judgement.verdict == "SAME"
    assert found.extra["metrics"]["changed"] == 0
    unknown = len(found.extra["untimed_launches"])
    assert (
        len(found.rows) + unknown
        == summarise_ncu(read_ncu(real_data / file), Path(file))["launches"]
    )
    assert unknown == file.endswith("0331_nan.ncu-rep")
    json.dumps(found.to_json(), allow_nan=False)


@needs_ncu_report
@pytest.mark.parametrize(
    ("report", "csv", "delta", "precision"),
    [
        ("toy_2080ti.ncu-rep", "toy_2080ti.raw.csv", 152, 1000),  # six decimals of a second, twice
        ("toy_2080ti.ncu-rep", "toy_2080ti.details.csv", 1_922_172, 5_000_005),
        ("graph_pdl_gb200.ncu-rep", "graph_pdl_gb200.raw.csv", 0, None),
        ("graph_pdl_gb200.ncu-rep", "graph_pdl_gb200.details.csv", 0, None),
    ],
)
def test_a_report_against_its_own_print_differs_by_rounding_only(
    real_data: Path, report: str, csv: str, delta: int, precision: int | None
) -> None:
    found = diff_files(real_data / "ncu" / report, real_data / "ncu" / csv)
    assert found.delta == delta and closes(found)
    assert found.extra["printed_precision_ns"] == precision
    assert {row.tier for row in found.rows} == {Tier.EXACT}
    assert found.judgement.verdict == ("AMBIGUOUS" if delta else "SAME")
    said = any("within what the CSV's rounded durations can say" in note for note in found.notes)
    warned = any(warning.startswith("B: the CSV printed") for warning in found.warnings)
    assert said == warned == bool(precision)


@needs_ncu_report
def test_different_devices_are_not_comparable_and_still_attributed(real_data: Path) -> None:
    folder = real_data / "ncu"
    found = diff_files(folder / "matmul_h100.ncu-rep", folder / "adamw_3060ti.ncu-rep")
    assert found.judgement.verdict == "NOT_COMPARABLE" and closes(found)
    assert len(found.rows) == 5 and found.judgement.ratio is not None
    assert any("few launches have a name in common" in warning for warning in found.warnings)


@needs_ncu_report
def test_a_duration_that_one_side_lacks_is_a_remainder(real_data: Path) -> None:
    """The NaN launch, against the same report where it had a time."""
    file = real_data / "ncu" / "sgemm_a10g_0331_nan.ncu-rep"
    report = read_ncu(file)
    timed = [
        x
        if x.time_ns is not None
        else KernelLaunch(
            x.launch_id, x.name, x.base_name, {**x.metrics, DURATION: Metric(5000, "ns")}
        )
        for x in report.launches
    ]
    whole = NcuReport("report", tuple(timed))
    found = diff_ncu(whole, report, summarise_ncu(whole, file), summarise_ncu(report, file))
    assert closes(found) and found.delta == -5000
    (rest,) = found.remainders
    assert rest.name == "launches whose duration B lacks (one_d_vec)"
    assert found.judgement.verdict == "AMBIGUOUS"
    (untimed,) = found.extra["untimed_launches"]
    assert untimed["b_ns"] is None and untimed["a_ns"] == 5000


# Reports with known answers.


def launch(
    name: str, time: int | Decimal | None = 100, grid: int = 1, at: int = 0, **metrics: float
) -> KernelLaunch:
    named = {"sm": f"sm__throughput{PEAK}", "memory": f"gpu__compute_memory_throughput{PEAK}"}
    values = {
        named.get(key, key): Metric(value if isinstance(value, int) else Decimal(str(value)), "")
        for key, value in metrics.items()
    }
    values[DURATION] = Metric(time, "ns")
    return KernelLaunch(at, name, base_name(name), values, grid=(grid, 1, 1), block=(32, 1, 1))


def report(*launches: KernelLaunch) -> NcuReport:
    return NcuReport("report", launches)


def diff(a: NcuReport, b: NcuReport) -> Difference:
    found = diff_ncu(a, b, {"devices": []}, {"devices": []})
    assert closes(found)
    return found


def as_text(a: list[str], b: list[str]) -> list[str]:
    """Pairs as "A=B", "-" where there is no partner."""
    pairs = pair_launches([launch(n) for n in a], [launch(n) for n in b])
    shown = [
        ("-" if p.a is None else f"{a[p.a]}{p.a}", "-" if p.b is None else f"{b[p.b]}{p.b}")
        for p in pairs
    ]
    return [f"{left}={right}" for left, right in shown]


def test_a_launch_inserted_in_the_middle_moves_no_other_pair() -> None:
    names = ["norm", "gemm", "gemm", "softmax", "gemm", "add"]
    assert as_text(names, [*names[:3], "cast", *names[3:]]) == [
        "norm0=norm0", "gemm1=gemm1", "gemm2=gemm2", "softmax3=softmax4", "gemm4=gemm5",
        "add5=add6", "-=cast3",
    ]  # fmt: skip
    found = diff(
        report(*(launch(n, 100) for n in names)),
        report(*(launch(n, 100) for n in [*names[:3], "cast", *names[3:]])),
    )
    assert [(row.name, row.delta) for row in found.rows if row.delta] == [("cast", 100)]
    # Among equal launches the grid tells which one is new.
    a = [launch("gemm", grid=g) for g in (1, 3)]
    b = [launch("gemm", grid=g) for g in (1, 2, 3)]
    assert [(p.a, p.b) for p in pair_launches(a, b)] == [(0, 0), (1, 2), (None, 1)]


def test_a_tie_is_broken_alike_whichever_side_comes_first() -> None:
    a = [launch(n) for n in ("f<1>()", "g<1>()")]
    b = [launch(n) for n in ("g<2>()", "f<2>()")]  # either pair keeps the order, not both
    there = {(p.a, p.b, p.tier) for p in pair_launches(a, b)}
    back = {(p.b, p.a, p.tier) for p in pair_launches(b, a)}
    assert there == back and len(there) == 3


def test_tiers_from_the_exact_name_to_the_position() -> None:
    a = [launch(n) for n in ("start", "void f<64>(int)", "triton_old", "end", "gone")]
    b = [launch(n) for n in ("start", "void f<128>(int)", "triton_new", "end")]
    tiers = {(p.a, p.b): p.tier for p in pair_launches(a, b)}
    assert tiers == {
        (0, 0): Tier.EXACT,
        (1, 1): Tier.NORMALISED,
        (2, 2): Tier.POSITION,
        (3, 3): Tier.EXACT,
        (4, None): Tier.UNMATCHED,
    }


def test_kernels_in_another_order_are_paired_and_marked() -> None:
    found = diff(
        report(launch("f", 100), launch("g", 200)), report(launch("g", 200), launch("f", 100))
    )
    assert found.delta == 0 and {row.tier for row in found.rows} == {Tier.EXACT}
    assert sum(bool(row.metrics and row.metrics["moved"]) for row in found.rows) == 1
    assert "launches in another order in B, paired by name: 1" in found.warnings


@pytest.mark.parametrize("seed", range(8))
def test_random_sequences_pair_once_keep_exact_names_and_mirror(seed: int) -> None:
    draw = random.Random(seed)
    a = [
        launch(draw.choice("fghk") + draw.choice(["<1>()", "<2>()"]), draw.randrange(1, 99), at=i)
        for i in range(60)
    ]
    b = [x for x in a if draw.random() < 0.8]
    for _ in range(8):
        b.insert(draw.randrange(len(b)), launch("new", draw.randrange(1, 99), at=999))
    found = diff(report(*a), report(*b))
    assert sum(row.count_a for row in found.rows) == len(a)
    assert sum(row.count_b for row in found.rows) == len(b)
    # B is A without some launches and with new ones: no more than these stay alone.
    assert sum(row.tier is Tier.EXACT for row in found.rows) == len(b) - 8
    assert sides(diff(report(*b), report(*a)).rows) == swapped(found.rows)


def test_the_table_of_the_alignment_is_not_built_for_endless_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.diff.launch_pairs.MAX_CELLS", 10)
    assert as_text(list("fgfgf"), list("gfgfgf")) == [
        "f0=f1", "g1=g2", "f2=f3", "g3=g4", "f4=f5", "-=g0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([100, 100], [100, 100], "SAME"),
        ([100, 100], [100, 199], "AMBIGUOUS"),
        ([100, 100], [100, 201], "SLOWER"),
        ([100, 201], [100, 100], "FASTER"),
        ([100, 101], [101, 100], "AMBIGUOUS"),  # the total alone would say SAME
        ([100], [100, 100], "AMBIGUOUS"),  # only more launches, none of them slower
        ([None], [100], "AMBIGUOUS"),
        ([None], [None], "SAME"),
    ],
)
def test_the_verdict_of_single_captures(
    a: list[int | None], b: list[int | None], verdict: str
) -> None:
    names = "fghk"
    found = diff(
        report(*(launch(names[i], t) for i, t in enumerate(a))),
        report(*(launch(names[i], t) for i, t in enumerate(b))),
    )
    assert found.judgement.verdict == verdict
    assert found.judgement.confidence == "single capture"


def test_parts_of_a_nanosecond_are_rounded_once_per_launch_and_close() -> None:
    a = report(*(launch("f", Decimal("10.4")) for _ in range(5)))
    b = report(*(launch("f", Decimal("10.6")) for _ in range(5)))
    found = diff(a, b)
    assert (found.total_a, found.total_b, found.delta) == (50, 55, 5)
    assert any("rounded once to whole ns: 5" in warning for warning in found.warnings)


def test_the_reading_says_what_moved_and_nothing_that_was_not_collected() -> None:
    limits = {"launch__occupancy_limit_registers": 3, "launch__occupancy_limit_warps": 5}
    common = {"sm": 20, "memory": 90, "sm__maximum_warps_per_active_cycle_pct": 60}
    a = launch(
        "f",
        100,
        **common,
        **{"dram__bytes_read.sum": 10, "dram__bytes_write.sum": 0},
        **{"launch__registers_per_thread": 128, "derived__local_spilling_requests": 0},
        **{"launch__occupancy_limit_registers": 9, "launch__occupancy_limit_warps": 5},
    )
    b = launch(
        "f",
        150,
        **common,
        **limits,
        **{"dram__bytes_read.sum": 30, "dram__bytes_write.sum": 2},
        **{"launch__registers_per_thread": 168, "derived__local_spilling_requests": 0},
    )
    assert change_reading(a, b) == (
        "1.50× the time; memory-bound in both; DRAM bytes 3.2× more; occupancy now limited by "
        "registers (was warps); registers 128 → 168; no register spills."
    )
    assert change_reading(launch("f", 100), launch("f", 100, grid=2)) == (
        "Same time; what limits it was not collected; grid 1×1×1 → 2×1×1."
    )
    assert change_reading(a, a) == "Memory-bound in both; every figure of interest is the same."


def test_other_metrics_are_ranked_and_the_machines_own_are_left_out() -> None:
    a = launch("f", sass__a=100, sass__b=100, device__attribute_x=1, lts__only=1, sass__zero=0)
    b = launch("f", sass__a=101, sass__b=300, device__attribute_x=9, sass__zero=4)
    found = diff(report(a), report(b)).extra["metrics"]
    assert [row["metric"] for row in found["largest_changes"]] == ["sass__b", "sass__a"]
    assert found["largest_changes"][0]["relative"] == 2.0
    assert [row["metric"] for row in found["from_or_to_zero"]] == ["sass__zero"]
    assert found["only_a"] == {"count": 1, "names": ["lts__only"]}


def test_rows_are_kernels_and_nothing_else() -> None:
    own = report(launch("f"))
    with pytest.raises(UsageError, match="have no rows by 'operator'"):
        diff_ncu(own, own, {}, {}, by="operator")
