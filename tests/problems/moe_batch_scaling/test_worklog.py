"""The worklog's own numbers: its exercises' answers, its figures, its predictions' names."""

from __future__ import annotations

import pytest

from common.contract.problem import load_problem
from common.errors import UsageError
from common.floors.active_experts import compute_turn_tokens, expected_active
from common.floors.batch_scaling import gathered_weight_bytes
from common.floors.hierarchical_roofline import (
    Level,
    Machine,
    first_turning_point,
    tokens_for_intensity,
)
from common.floors.moe_shapes import ffn_weight_intensity, moe_shape
from problems.moe_batch_scaling.figures import figures, read_run

PROBLEM = load_problem("moe_batch_scaling")
PAGE = (PROBLEM.folder / "WORKLOG.md").read_text(encoding="utf-8")


def test_the_answers_of_the_exercises_are_right() -> None:
    assert f"= {expected_active(64, 2, 8):.1f}, not 16" in PAGE
    assert f"= {expected_active(64, 2, 128):.1f} experts already" in PAGE
    assert f"= {compute_turn_tokens(8, 2, 2, 989e3 / 3.35e3):.0f} tokens" in PAGE
    assert f"= {gathered_weight_bytes(4096, 2, 512, 1024, 4) / 1e9:.1f} GB" in PAGE
    machine = Machine("own", Level("CPU", 1.6, 100), Level("GPU", 100, 1000), 25, "exercise 5")
    assert first_turning_point(machine) == 64
    shape = moe_shape("mixtral-8x7b")
    assert tokens_for_intensity(shape, 64) == pytest.approx(256, rel=0.02)
    gains = {t: expected_active(8, 2, t) - expected_active(8, 1, t) for t in (1, 2, 4, 8, 16, 32)}
    assert max(gains, key=lambda t: gains[t]) == 4
    assert f"({expected_active(8, 2, 4):.1f} against {expected_active(8, 1, 4):.1f})" in PAGE


def test_the_dead_zone_is_as_the_page_says() -> None:
    shape = moe_shape("mixtral-8x7b")
    assert ffn_weight_intensity(shape, 1) == pytest.approx(1.0)
    assert f"{ffn_weight_intensity(shape, 4):.2f} at four" in PAGE.replace("\n", " ")


def test_figures_and_tables_are_those_of_the_evidence() -> None:
    assert PROBLEM.evidence, "nothing is recorded"
    drawn = figures(PROBLEM)
    assert len(drawn) >= 8 and all("<svg" in text for text in drawn.values())
    for name, text in drawn.items():
        assert (PROBLEM.folder / "figures" / name).read_text(encoding="utf-8") == text


def test_every_figure_that_the_page_shows_is_there() -> None:
    for line in PAGE.splitlines():
        if line.startswith("!["):
            path = PROBLEM.folder / line.rpartition("(")[2].rstrip(")")
            assert path.exists(), line


def test_predictions_are_for_machines_with_and_without_a_gpu() -> None:
    sets = {each.name: each for each in PROBLEM.predictions}
    assert set(sets) == {"cpu-2026-11", "cpu-2026-11-few-rows", "rtx-4090-2026-11", "h200-2026-11"}
    assert all(len(each.predictions) >= 7 for each in sets.values())


def test_a_folder_without_points_is_refused() -> None:
    folder = PROBLEM.folder / next(iter(PROBLEM.evidence.values()))
    with pytest.raises(UsageError, match="has no points of nothing; name a variant"):
        read_run(folder, "nothing")
