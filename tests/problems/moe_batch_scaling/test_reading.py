"""What a sweep says, on points with known answers: turns, floors, shares, the law, the charts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace

import pytest

from common.floors.active_experts import expected_active
from common.report.results import Results
from common.workloads.moe_config import CONFIGS
from problems.moe_batch_scaling.charts import Chart, Series
from problems.moe_batch_scaling.frames import (
    SAME_CODE,
    base_rows,
    failures_table,
    points_frame,
    ratios_frame,
)
from problems.moe_batch_scaling.hrm import measured_points
from problems.moe_batch_scaling.plan import Plan
from problems.moe_batch_scaling.points import Measured, Phase, Point
from problems.moe_batch_scaling.reading import Reading, best_other, sides_results, sweep_results

CONFIG = CONFIGS["cpu"]
EXPERT_MB = 6.291456
BATCHES = (1, 2, 4, 8, 16, 32)
PLAN = Plan("cpu", BATCHES, decode_batches=(3, 6))


def law_ms(tokens: int) -> float:
    """2 ms + 0.5 ms per expert touched + 0.01 ms per token."""
    return 2 + 0.5 * expected_active(64, 2, tokens) + 0.01 * tokens


def point(phase: Phase, batch: int, ms: float, **more: object) -> Measured:
    p = Point(phase, batch, 128, 2, "float32")
    names = {key: more.pop(key) for key in ("side", "routing", "weights") if key in more}
    p = replace(p, **names)  # type: ignore[arg-type]
    touched = expected_active(64, 2, p.tokens)
    samples = tuple(round(ms * 1e6 * factor) for factor in (1.01, 0.99, 1.0, 1.002, 0.998, 1, 1))
    fields: dict[str, object] = {
        "baseline": p.side == "auto" and p.routing == "router" and p.weights == "float32",
        "touched": (touched, touched), "touched_bytes": 2 * touched * EXPERT_MB * 1e6,
        "imbalance": 2.0, "rounds": tuple(range(7)), "samples_ns": samples,
    }  # fmt: skip
    return Measured(p, f"{phase}-b{batch}", "measured", **{**fields, **more})  # type: ignore[arg-type]


def reading(points: Sequence[Measured]) -> Reading:
    return Reading(PLAN, CONFIG, tuple(points), {}, None, "measured-cpu", 4, 32 << 20)


@pytest.fixture(scope="module")
def sweep() -> Results:
    decode = [point("decode", b, law_ms(b)) for b in sorted((*BATCHES, 3, 6))]
    prefill = [point("prefill", b, 15.5 + 2 * b) for b in BATCHES]
    skewed = point("decode", 8, law_ms(8) * 0.8, routing="skew-1")
    return sweep_results(reading([*prefill, *decode, skewed]))


def test_the_law_is_found_again(sweep: Results) -> None:
    assert sweep.figures["law_max_error"]["value"] < 0.01
    assert sweep.figures["law_left_out_max_error"]["value"] < 0.02
    assert "0.5" in sweep.tables["law"].note.replace("500 µs × experts", "0.5")
    assert len(sweep.tables["law"].rows) == 7, "all decode batches but the first"


def test_a_point_that_the_law_bends_to_is_found_when_it_is_left_out() -> None:
    decode = [point("decode", b, law_ms(b)) for b in sorted((*BATCHES, 3, 6))]
    last = point("decode", 32, 1.4 * law_ms(32))
    figures = sweep_results(reading([*decode[:-1], last])).figures
    fitted, apart = (figures[f"law{how}_max_error"]["value"] for how in ("", "_left_out"))
    assert apart > 1.5 * fitted > 0.01


def test_three_definitions_give_three_batches(sweep: Results) -> None:
    phases = [row[0] for row in sweep.tables["turns"].rows]
    assert phases == ["prefill", "decode"]
    assert sweep.figures["prefill_latency_wall"]["value"] == 8  # first above 1.5 × 17.5 ms
    assert len(sweep.tables["turns"].columns) == 7


def test_a_factor_is_a_ratio_with_its_interval(sweep: Results) -> None:
    figure = sweep.figures["decode_b8_routing_skew-1"]
    assert figure["value"] == pytest.approx(0.8, rel=1e-3)
    assert figure["interval"][0] <= 0.8001 and figure["interval"][1] >= 0.7999


def test_every_chart_is_one_svg_with_a_title_on_each_point(sweep: Results) -> None:
    assert {"latency-decode", "throughput-decode", "latency-prefill", "law", "hrm"} <= set(
        sweep.charts
    )
    for name, text in sweep.charts.items():
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg"), name
    circles = sweep.charts["latency-decode"].count("<circle")
    assert circles == len(BATCHES), "no floor is drawn where no bandwidth was measured"


def test_the_floor_is_the_points_own_experts_over_the_bandwidth() -> None:
    frame = points_frame([point("decode", 8, 20.0)], read_gb_per_s=20.0)
    expected = 2 * expected_active(64, 2, 8) * EXPERT_MB / 20.0
    assert frame.loc[0, "floor_ms"] == pytest.approx(expected)
    assert frame.loc[0, "of_floor"] == pytest.approx(expected / 20.0)
    assert frame.loc[0, "tokens_per_s"] == pytest.approx(400)


def sides(loop_ms: float, once: bool = False) -> list[Measured]:
    slow: dict[str, object] = {}
    if once:
        slow = {"samples_ns": (900_000_000,), "rounds": (0,)}
    dense = point("decode", 4, 900.0, side="dense", reason="sampled once: 90 times", **slow)
    failed = replace(
        point("decode", 4, 1.0, side="batched_mm"), status="failed", reason="out of memory: 51 GB",
        samples_ns=(), rounds=(),
    )  # fmt: skip
    return [
        point("decode", 4, 10.0), point("decode", 4, loop_ms, side="loop"), dense, failed,
    ]  # fmt: skip


def test_the_share_is_of_the_best_other_side_that_was_sampled() -> None:
    best = best_other(sides(9.0, once=True))
    assert best is not None and best[0] == "loop"
    assert best[1] == pytest.approx(0.9)
    results = sides_results(reading(sides(9.0, once=True)))
    assert results.figures["worst_share_decode"]["value"] == pytest.approx(0.9)
    assert "worst_share_prefill" not in results.figures, "not measured is not 1"


def test_the_width_that_is_judged_is_that_of_the_ratio_within_rounds() -> None:
    """Both sides drift by a half, together: the latencies are wide, their ratio is not."""
    drift = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.45, 1.35, 1.25, 1.15]
    rounds = tuple(range(len(drift)))

    def drifting(ms: float, **more: object) -> Measured:
        samples = tuple(round(ms * 1e6 * d * (1 + 0.001 * (i % 3))) for i, d in enumerate(drift))
        return point("decode", 4, ms, samples_ns=samples, rounds=rounds, **more)

    ours, theirs = (
        drifting(10.0, stopped="precise enough after 10 rounds: x"),
        drifting(11.0, side="hf-eager"),
    )
    jitter = tuple(ns + 20_000 * (i % 2) for i, ns in enumerate(theirs.samples_ns))
    results = sides_results(reading([ours, replace(theirs, samples_ns=jitter)]))
    assert points_frame([ours])["half_width"].max() > 0.1
    assert 0 < results.figures["widest_half_width"]["value"] < 0.005
    assert results.tables["shares-decode"].rows[0][-2:] == ("10", "precise enough after 10 rounds")


def test_a_side_that_auto_is_has_no_ratio_to_itself() -> None:
    twin = replace(
        point("decode", 4, 1.0, side="sorted"), status="skipped", reason=SAME_CODE, samples_ns=(),
        rounds=(),
    )  # fmt: skip
    results = sides_results(reading([*sides(11.0, once=True), twin]))
    assert dict(results.tables["sides-decode"].rows)["`sorted`"] == "is `auto`"


def test_the_base_is_what_was_measured_in_turn() -> None:
    alone = point("decode", 8, 30.0)
    turn = replace(alone, point=replace(alone.point, in_turn=True), group="decode")
    turn = replace(turn, samples_ns=tuple(ns // 2 for ns in alone.samples_ns))
    frame = points_frame([alone, turn, point("decode", 8, 33.0, routing="skew-1")])
    assert list(base_rows(frame, "decode")["latency_ms"]) == [pytest.approx(15.0)]
    ratios = ratios_frame([alone, turn, point("decode", 8, 33.0, routing="skew-1")])
    assert list(ratios["changed"]) == ["routing skew-1"]
    assert ratios["ratio"][0] == pytest.approx(1.1)


def test_a_failed_side_has_a_cell_of_its_own() -> None:
    results = sides_results(reading(sides(11.0, once=True)))
    rows = dict(results.tables["sides-decode"].rows)
    assert rows["`batched_mm`"] == "failed: out of memory"
    assert rows["`dense`"].endswith("(once)")
    assert "51 GB" in str(failures_table(sides(11.0)).rows)


def test_a_group_without_its_baseline_compares_nothing() -> None:
    lost = [replace(each, baseline=False) for each in sides(9.0)]
    assert best_other(lost) is None
    assert ratios_frame(lost)["ratio"].isna().all() if len(ratios_frame(lost)) else True


def test_a_points_rate_is_that_of_its_experts_alone() -> None:
    base = point("decode", 8, 20.0)
    profile = {"stages_ns": {"experts": 60, "router": 20, "attention": 20}, "total_ns": 100}
    (found,) = measured_points([base], {base.point.id: profile}, 6.0e6, 2)
    assert found.gflop_per_s == pytest.approx(8 * 6.0e6 * 2 / (0.8 * 20e-3) / 1e9, rel=1e-2)
    assert base.touched_bytes is not None
    assert found.intensity == pytest.approx(8 * 6.0e6 * 2 / base.touched_bytes)


def test_a_chart_leaves_out_what_a_log_axis_cannot_show() -> None:
    chart = Chart("t", "x", "y", (Series("s", (0.0, 1.0, 2.0), (1.0, float("nan"), 3.0)),))
    assert chart.svg().count("<circle") == 1
    empty = Chart("t", "x", "y", (Series("s", (0.0,), (1.0,)),)).svg()
    assert "nothing was measured" in empty
