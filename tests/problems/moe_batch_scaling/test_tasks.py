"""PR-MoE beside standard experts, ranks beside one process, the profiling cost: tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.report.results import Results
from common.workloads.expert_launch import ParallelResult, RankFailure, RankReport
from problems.moe_batch_scaling import ranks as ranks_module
from problems.moe_batch_scaling import tasks as tasks_module
from problems.moe_batch_scaling.models import Models, choose_config
from problems.moe_batch_scaling.plan import Plan, Rounds, side_groups
from problems.moe_batch_scaling.points import PointStore
from problems.moe_batch_scaling.pr_moe import PR_MOE, STANDARD_TWO, pr_moe_results, three_models
from problems.moe_batch_scaling.profiling_cost import Cost, cost_results, measure_costs
from problems.moe_batch_scaling.ranks import (
    breakdown_rows,
    communication_share,
    ranks_results,
    slowest_ms,
)
from problems.moe_batch_scaling.rows import ROWS, rows_results
from problems.moe_batch_scaling.sides import Opener

PLAN = Plan(
    "tiny", (1, 2), sequence=8, rounds=Rounds(6, 6, 0.0), ranks=(2,), experts_of_ranks=4,
    pr_moe_experts=4,
)  # fmt: skip
CPU = torch.device("cpu")


def silent(text: str) -> None:
    pass


def test_products_with_a_few_rows_are_timed_both_ways_on_the_models_own_matrices() -> None:
    model = Models(choose_config(PLAN, CPU), torch.float32, CPU, None).base
    found = Results()
    with torch.no_grad():
        rows_results(model, found, "measured-cpu")
    table = found.tables["few-rows"]
    kinds = ("output head, 256 × 64", "gate and up, 192 × 64", "down, 64 × 96")
    assert tuple(dict.fromkeys(row[0] for row in table.rows)) == kinds
    assert [row[1] for row in table.rows[: len(ROWS)]] == [str(count) for count in ROWS]
    assert {row[-1] for row in table.rows} == {"as written"}, "these fit a core's own cache"
    assert found.figures["three_rows_over_four_output_head"]["value"] > 0


def test_pr_moe_halves_the_early_experts_and_is_measured_beside_top_2() -> None:
    configs = three_models(PLAN)
    assert configs[PR_MOE].experts == (2, 4) and configs[PR_MOE].beside == "residual"
    assert configs[STANDARD_TWO].top_k == 2
    with torch.no_grad():
        found = pr_moe_results(PLAN, CPU, "measured-cpu", silent)
    assert len(found.tables["pr-moe"].rows) == 2 * 3 * 3
    assert set(found.figures) >= {"pr_moe_decode_b16", "standard_top1_prefill_b1"}
    assert all(row["value"] > 0 for row in found.figures.values())


def test_two_ranks_compute_what_one_process_computes(tmp_path: Path) -> None:
    found = ranks_results(PLAN, tmp_path, silent)
    assert found.figures["relative_error_2_ranks"]["value"] <= 1e-6
    assert {row[1] for row in found.tables["ranks-parts"].rows} == {"0", "1"}
    assert found.tables["ranks-diff"].rows[-1][1] == "**all operators**"
    kept = sorted(path.name for path in (tmp_path / "ranks2").iterdir())
    assert kept == ["rank0-0.trace.json.gz", "rank1-0.trace.json.gz"]


def test_a_lost_rank_costs_its_own_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lost(requests: object, ranks: int, folder: Path) -> list[ParallelResult]:
        raise RankFailure("rank 1 was killed (at: pass 1); run again")

    monkeypatch.setattr(ranks_module, "run_ranks", lost)
    found = ranks_results(PLAN, tmp_path, silent)
    assert found.tables["ranks"].rows[0][1] == "failed"
    assert "rank 1 was killed" in found.tables["ranks"].rows[0][-1]
    assert "relative_error_2_ranks" not in found.figures


def test_parts_of_a_rank_add_up_and_communication_is_named() -> None:
    spent = {"total": 100_000_000, "experts": 50_000_000, "dispatch_comm": 25_000_000}
    reports = tuple(RankReport(rank, (spent, spent), 10) for rank in (0, 1))
    result = ParallelResult(np.zeros((1, 1, 1), np.float32), reports)
    assert communication_share(result) == pytest.approx(0.25)
    assert slowest_ms(result, "total") == pytest.approx(100)
    rows = [row for row in breakdown_rows(result, 2) if row[1] == "0"]
    assert [row[3] for row in rows] == ["dispatch_comm", "experts", "everything else"]
    assert sum(float(row[4]) for row in rows) == pytest.approx(100)


@pytest.mark.parametrize(("sides", "given"), [(True, [4.0, 5.5, 7.0]), (False, [4.0, 4.0, 4.0])])
def test_half_of_what_a_batch_of_backends_leaves_goes_to_the_next(
    sides: bool, given: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = replace(PLAN, batches=(1, 2, 4), rounds=Rounds(6, 6, 4.0))
    allowed: list[float] = []

    def one_second(group: object, opener: object, store: object, rounds: Rounds, *rest: object):  # type: ignore[no-untyped-def]
        allowed.append(rounds.seconds)
        return 1.0

    monkeypatch.setattr(tasks_module, "measure_group", one_second)
    models = Models(choose_config(plan, CPU), torch.float32, CPU, None)
    groups = list(side_groups(plan, models.config, ("auto", "loop")))[:3]
    assert {group.phase for group in groups} == {"decode"}, "what is short comes first"
    store = PointStore(tmp_path)
    tasks_module.measure_all(groups, Opener(models), store, plan, silent, 3.0, sides=sides)
    assert allowed == given


def test_the_cost_of_profiling_is_measured_for_every_batch_and_round() -> None:
    with torch.no_grad():
        opener = Opener(Models(choose_config(PLAN, CPU), torch.float32, CPU, None), check=False)
        costs = measure_costs(opener, PLAN, 6, silent)
    assert [cost.batch for cost in costs] == [1, 2]
    assert all(len(cost.inside_s) == len(cost.outside_s) == 6 for cost in costs)
    assert all(0 < second < 10 for cost in costs for second in cost.inside_s + cost.outside_s)
    assert set(cost_results(costs, 8, "measured-cpu").figures) == {
        "profiling_cost_b1", "profiling_cost_b2",
    }  # fmt: skip


def test_the_cost_of_profiling_is_a_ratio_of_the_same_passes() -> None:
    """Each round beside its own: a machine that halves its clock midway changes nothing."""
    outside = (1e-3, 1e-3, 1e-3, 2e-3, 2e-3, 2e-3, 2e-3)
    cost = Cost(2, tuple(1.5 * second for second in outside), outside)
    found = cost_results([cost], 8, "measured-cpu")
    ratio = found.figures["profiling_cost_b2"]
    assert ratio["value"] == pytest.approx(1.5)
    assert ratio["interval"] == pytest.approx([1.5, 1.5])
    row = dict(zip(found.tables["profiling-cost"].columns,
                   found.tables["profiling-cost"].rows[0], strict=True))  # fmt: skip
    assert (row["in the profiler ms"], row["without ms"]) == ("3", "2")
    assert (row["samples/s without"], row["tokens/s without"]) == ("1,000", "8,000")
