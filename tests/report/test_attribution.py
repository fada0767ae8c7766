"""Do the report's charts of where time and memory went add up, and say what they are of?"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.synthetic_run import GPU, MACHINE, manifest, rewrite, write_run

from common.allocator.layer_stack import Knobs, Stack, capture_all
from common.allocator.snapshot_file import write_snapshot
from common.contract.problem import load_problem
from common.errors import UsageError
from common.report.charts_floors import floor_chart
from common.report.charts_trend import points
from common.report.figure_attribution import attribution, attribution_svg
from common.report.html import write_report
from common.report.html_attribution import callees_table, operators_table
from common.report.html_comparison import comparison
from common.report.html_compiled import figures, kernels
from common.report.html_differences import run_names, variants_differ
from common.report.memory_pools import memory_pools, pools_of
from common.report.phase_difference import (
    OUTSIDE,
    per_unit,
    phase_callees,
    phase_difference,
    story_pairs,
)
from common.report.run_view import RunView, read_view
from common.report.timeline import timeline
from common.traces.formats import summarise
from common.traces.torch_trace import read_torch_trace

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "tests" / "data" / "run_tiny"
COMPILED = sorted((ROOT / "problems/gemlite_autotune/recorded").glob("*/*-cpu"))
PAIRS = [("bf16", "float8wo-0.13.0"), ("float8wo-0.13.0", "float8wo-0.14.1")]


@pytest.fixture(scope="module")
def view() -> RunView:
    return read_view(REAL)


@pytest.fixture(scope="module")
def recorded() -> RunView:
    """The run that the worklog of problem 1 stands on: with floors, which the tiny one lacks."""
    problem = load_problem("float8_weight_only")
    return read_view(problem.folder / problem.evidence["cpu"])


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("pair", PAIRS)
def test_operators_add_up_to_what_lies_between_two_variants(
    view: RunView, pair: tuple[str, str], phase: str
) -> None:
    found = phase_difference(view, *pair, phase)
    assert found is not None and found.residual == 0 and found.rows
    for side, total in ((pair[0], found.total_a), (pair[1], found.total_b)):
        recorded = view.summary["variants"][side]["profile"][phase]["time"]
        units = recorded["occurrences"] * recorded["units"]
        assert abs(total - recorded["total_ns"] / units) <= 0.5
    table = operators_table(found)
    printed = [int(row[3].replace(",", "").replace(".", "")) for row in table.rows]
    assert sum(printed) == int(table.foot[3].replace(",", "").replace(".", "")) == found.delta


def test_the_pairs_are_those_of_the_claims_from_bad_to_good(view: RunView) -> None:
    assert story_pairs(view, "decode") == PAIRS
    assert story_pairs(view, "prefill") == PAIRS  # no claim about it: those of decode
    bare = RunView(
        view.folder, True, view.manifest, {**view.summary, "claims": []}, (), view.evidence
    )
    assert (
        story_pairs(bare, "decode")
        == [("bf16", name) for name in view.variants if name not in ("bf16", "float8dq-tensor")][:4]
    )


def test_what_operators_call_is_shown_beside_them(view: RunView) -> None:
    calls = phase_callees(view, *PAIRS[0], "prefill")
    assert any(c.operator == "torchao::dequantize_affine_float8" for c in calls)
    changes = [abs(c.after_ns - c.before_ns) for c in calls]
    assert changes == sorted(changes, reverse=True)
    assert len(callees_table(calls * 100).rows) == 200
    assert "left out" in callees_table(calls * 100).note


@pytest.mark.parametrize(
    ("totals", "units", "expected"),
    [
        ([10, 20, 30], 1, [10, 20, 30]),
        ([10, 10, 10], 3, [4, 3, 3]),  # 30 / 3 = 10: one of them gets what is lost
        ([7, 0, 2], 2, [3, 0, 1]),  # 4.5 rounds to the even 4
        ([7, 0, 4], 2, [4, 0, 2]),
        ([0, 0], 5, [0, 0]),
        ([1] * 9, 10, [1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_share_of_a_sum_is_whole_and_adds_up(
    totals: list[int], units: int, expected: list[int]
) -> None:
    found = per_unit(totals, units)
    assert sum(found) == round(sum(totals) / units)
    assert all(abs(part - total / units) <= 1 for part, total in zip(found, totals, strict=True))
    assert found == expected


def test_random_sums_are_divided_without_loss() -> None:
    choose = np.random.default_rng(3)
    for _ in range(300):
        totals = choose.integers(0, 10**9, size=choose.integers(1, 30)).tolist()
        units = int(choose.integers(1, 40))
        found = per_unit(totals, units)
        assert sum(found) == round(sum(totals) / units)
        assert all(abs(p - t / units) < 1 for p, t in zip(found, totals, strict=True))


def test_a_side_that_was_not_profiled_has_no_difference(tmp_path: Path) -> None:
    bare = read_view(write_run(tmp_path, manifest()))
    assert phase_difference(bare, "plain", "slow", "decode") is None
    assert story_pairs(bare, "decode") == []
    with pytest.raises(UsageError, match="no profile of plain and slow in decode"):
        attribution(bare, "plain", "slow", "decode")


def test_the_figure_of_the_readme_adds_up_as_printed(view: RunView) -> None:
    found = attribution(view, *PAIRS[1], "decode")
    text = attribution_svg(found)
    shown = re.findall(r'class="n(?: b)?" x="[^"]+" y="\d+">([^<]+)<', text)
    first, *moves, last, baseline = shown
    total = round(float(first.removesuffix(" ms")) * 10)
    assert total + sum(round(float(move) * 10) for move in moves) == round(float(last[:-3]) * 10)
    assert baseline.endswith(" ms") and "for comparison: bf16" in text
    assert "measured-cpu" in text and "Timed without a profiler" in text
    assert text == attribution_svg(attribution(read_view(REAL), *PAIRS[1], "decode"))
    assert not re.search(r"<script|href|url\(|\son\w+=", text)


def test_the_floor_of_a_variant_is_a_bar_with_its_share(recorded: RunView) -> None:
    drawn = floor_chart(recorded)
    shares = [v["floor"]["share_of_floor"] for v in recorded.variants.values() if "floor" in v]
    assert len(shares) >= 4 and drawn.count('class="reached"') == len(shares)
    for share in shares:
        assert f"{100 * share:.1f} %" in drawn
    assert floor_chart(read_view_without(recorded, "floor")) == ""


def read_view_without(view: RunView, key: str) -> RunView:
    variants = {n: {k: v for k, v in r.items() if k != key} for n, r in view.variants.items()}
    summary = {**view.summary, "variants": variants}
    return RunView(view.folder, True, view.manifest, summary, (), view.evidence)


def test_a_floor_that_was_beaten_is_drawn_beyond_a_hundred_per_cent(recorded: RunView) -> None:
    view = recorded
    variants = json.loads(json.dumps(view.variants))
    variants["bf16"]["floor"]["share_of_floor"] = 1.6
    summary = {**view.summary, "variants": variants}
    drawn = floor_chart(RunView(view.folder, True, view.manifest, summary, (), view.evidence))
    assert "160.0 %" in drawn and 'class="room" width="62.5%"' in drawn


def test_a_strip_of_time_holds_every_range_and_no_two_pieces_at_once(view: RunView) -> None:
    trace = view.evidence.profiled("float8wo-0.13.0")
    assert trace is not None
    found = timeline(trace, view.phases)
    assert found is not None
    assert {piece.name for piece in found.ranges} == set(view.phases)
    assert len(found.pieces) <= 240
    ends = [0] + [piece.end_ns for piece in found.pieces]
    assert all(p.start_ns >= end for p, end in zip(found.pieces, ends, strict=False))
    held: dict[str, int] = {}
    for piece in found.pieces:
        held[piece.name] = held.get(piece.name, 0) + piece.end_ns - piece.start_ns
    assert max(held, key=lambda name: held[name]) == "torchao::dequantize_affine_float8"
    assert timeline(trace, ["a range that is not there"]) is None


def test_a_strip_of_a_gpu_is_of_device_time(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [
        {"ph": "X", "cat": "user_annotation", "name": "decode", "pid": 1, "tid": 1, "ts": 0,
         "dur": 100},
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 10, "dur": 20,
         "args": {"External id": 7}},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1,
         "ts": 12, "dur": 5, "args": {"correlation": 3, "External id": 7}},
        {"ph": "X", "cat": "kernel", "name": "gemm_kernel", "pid": 0, "tid": 7, "ts": 100,
         "dur": 100, "args": {"correlation": 3, "device": 0, "stream": 7}},
    ]  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}), encoding="utf-8")
    found = timeline(read_torch_trace(path), ["decode"], slices=20)
    assert found is not None and found.length_ns == 200_000
    (piece,) = found.pieces  # the kernel is charged to its operator, and ends after the range
    assert (piece.name, piece.start_ns, piece.end_ns) == ("aten::mm", 100_000, 200_000)


def test_pools_of_a_snapshot_add_up_to_what_is_reserved(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest())
    allocator, _ = capture_all(Stack(layers=2), Knobs(sizes=(4, 1)))
    for name in ("a", "b"):
        place = folder / "traces" / "slow" / f"{name}.pickle"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_snapshot(place, allocator)
    (folder / "traces" / "plain").mkdir()
    (folder / "traces" / "plain" / "cut.pickle").write_bytes(b"\x80\x04nothing")
    _, summary = summarise(place)
    pools = pools_of(summary, "slow", "b.pickle")
    assert len(pools) == 3  # the default one and one per graph
    assert sum(pool.reserved_bytes for pool in pools) == summary["reserved_bytes"]
    assert all(p.unused_bytes >= 0 and p.rounding_bytes >= 0 for p in pools)
    text = memory_pools(read_view(folder))
    assert "Memory by pool" in text and "slow, a: default" in text
    assert "Not readable: traces/plain/cut.pickle" in text
    page = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Memory by pool" in page


def test_software_that_differs_stands_first(view: RunView, tmp_path: Path) -> None:
    text = variants_differ(view, Path("."))
    assert '<th scope="col">torchao</th>' in text and "0.14.1" in text
    assert "The same for all: torch 2.13.0" in text
    page = write_report([REAL], tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index('id="run1-differences"') < page.index('id="run1-claims"')


def copied(place: Path, name: str, **changes: Any) -> Path:
    folder = place / name
    shutil.copytree(REAL, folder)
    rewrite(folder / "manifest.json", **changes)
    return folder


def test_runs_are_set_side_by_side_in_the_order_of_their_dates(tmp_path: Path) -> None:
    later = copied(tmp_path, "later", started="2027-01-01T00:00:00+00:00")
    other = {**MACHINE, "cpu": "Another CPU", "gpus": [GPU]}
    moved = copied(tmp_path, "moved", started="2027-02-01T00:00:00+00:00", machine=other)
    views = [read_view(folder) for folder in (later, REAL, moved)]
    text = comparison(views)
    assert text.index("What differs") < text.index("Runs, oldest first")
    assert "<strong>Different machines.</strong>" in text and "Another CPU" in text
    lines = text.split("Runs, oldest first</caption>")[1].split("</table>")[0]
    assert lines.index("run_tiny") < lines.index("later") < lines.index("moved")
    ordered = [views[1], views[0], views[2]]
    found = points(ordered, run_names(ordered), "decode")
    own = [point for point in found if point.variant == "float8wo-0.13.0"]
    assert [point.change is None for point in own] == [True, False, True]  # moved: another device
    assert own[1].change is not None and own[1].change.ratio == pytest.approx(1)
    assert str(own[1].change.verdict) in ("SAME", "AMBIGUOUS")
    assert "Time of decode, run by run" in text and "over the baseline of the same run" in text


def test_another_preset_is_not_compared(tmp_path: Path) -> None:
    preset = json.loads((REAL / "manifest.json").read_text(encoding="utf-8"))["preset"]
    folder = copied(tmp_path, "other", preset={**preset, "name": "cpu"})
    text = comparison([read_view(REAL), read_view(folder)])
    assert "run by run" not in text and "preset" in text


def test_runs_of_one_name_keep_apart(view: RunView) -> None:
    assert run_names([view, view]) == ["run_tiny", "run_tiny (2)"]


@pytest.mark.skipif(not COMPILED, reason="no recorded run of a compiled problem")
def test_a_compiled_run_has_figures_side_by_side_kernels_and_a_comparison(tmp_path: Path) -> None:
    compiled = read_view(COMPILED[0])
    text = figures(compiled, Path("run"))
    assert "Figures that several variants have" in text
    assert "compiled kernels</summary>" in kernels(compiled, Path("run"))
    page = write_report([COMPILED[0]] * 2, tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(page) <= 2_000_000
    rows = page.split(": figures</caption>")[1].split("</table>")[0]
    assert rows.count(">same</td>") > 100 and "differs" not in rows


def test_a_table_that_would_make_the_page_heavy_is_cut_and_says_so(tmp_path: Path) -> None:
    document = manifest(phases={}, variants=("plain",))
    folder = write_run(tmp_path, document, rounds=0)
    place = folder / "traces" / "plain"
    place.mkdir(parents=True)
    rows = [[f"kernel {n}", *(["x" * 20] * 12)] for n in range(8_000)]
    columns = ["name", *(f"c{n}" for n in range(12))]
    table = {"columns": columns, "rows": rows, "right": [], "note": ""}
    (place / "tables.json").write_text(json.dumps({"big": table}), encoding="utf-8")
    page = write_report([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(page.encode()) <= 2_000_000
    left = re.search(r"([\d,]+) more rows are in <a href=\"[^\"]*tables.json\">", page)
    assert left is not None
    assert page.count("kernel ") - 1 <= 8_000 - int(left[1].replace(",", "")) + 5


def test_time_outside_operators_is_a_row_of_its_own(view: RunView) -> None:
    found = phase_difference(view, *PAIRS[0], "decode")
    assert found is not None and OUTSIDE in {row.name for row in found.rows}
