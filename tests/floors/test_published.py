"""Do the published rows follow from the byte model, and does it say where they do not?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.errors import UsageError
from common.floors.published import (
    MODELS,
    ROWS,
    Score,
    all_scores,
    l2_bytes,
    memory_bytes_per_weight,
    slow_tokens_per_s,
)
from common.workloads.llama import CONFIGS
from common.workloads.weights import parameter_counts


def found(model: str, card: str, figure: str) -> Score:
    (score,) = [s for s in all_scores() if (s.model, s.card, s.figure) == (model, card, figure)]
    return score


@pytest.mark.parametrize(("model", "config"), [("8B", "llama-3.1-8b"), ("3B", "llama-3.2-3b")])
def test_the_shapes_are_those_of_the_models_that_are_run(model: str, config: str) -> None:
    counts = parameter_counts(CONFIGS[config])
    assert MODELS[model].linears == counts["linear"]
    assert MODELS[model].head == counts["largest_linear"]


def test_the_8b_rows_of_float8_weight_only_are_within_5_percent() -> None:
    for figure in ("float8wo tokens/s", "float8wo first token ms", "float8wo peak GB"):
        score = found("8B", "RTX 5090", figure)
        assert score.role == "predicted"
        assert abs(score.error) < 0.05, (figure, score.error)


@pytest.mark.parametrize(
    ("model", "card", "figure", "error"),
    [
        ("8B", "RTX 5090", "float8wo tokens/s", 0.009),
        ("8B", "RTX 5090", "float8wo first token ms", -0.018),
        ("8B", "RTX 5090", "float8wo peak GB", -0.017),
        ("8B", "RTX 5090", "bf16 peak GB", -0.015),
        ("8B", "RTX 5090", "float8dq tokens/s", 0.245),
        ("8B", "RTX 5090", "float8dq peak GB", -0.071),
        ("3B", "RTX 5090", "float8wo tokens/s", 0.008),
        ("3B", "RTX 5090", "float8wo peak GB", 0.001),
        ("3B", "RTX 5090", "bf16 peak GB", -0.032),
        ("3B", "RTX 5090", "float8dq tokens/s", 0.546),
        ("3B", "RTX 4090", "float8wo tokens/s", -0.079),
        ("3B", "RTX 4090", "float8wo peak GB", -0.008),
    ],
)
def test_the_error_of_each_figure_is_the_one_computed_by_hand(
    model: str, card: str, figure: str, error: float
) -> None:
    assert found(model, card, figure).error == pytest.approx(error, abs=0.002)


def test_what_is_predicted_is_within_5_percent_and_what_is_not_is_open() -> None:
    for score in all_scores():
        assert (score.role == "open") == (abs(score.error) > 0.05), score
    assert sum(score.role == "calibrates" for score in all_scores()) == len(ROWS)


def test_the_3b_row_of_the_rtx_4090_lies_between_the_two_sides_of_the_cache_rule() -> None:
    (row,) = [r for r in ROWS if r.card == "RTX 4090"]
    with_attention = memory_bytes_per_weight(MODELS["3B"], l2_bytes("RTX 5090"))
    assert slow_tokens_per_s(row) < row.float8wo_tokens_per_s
    assert row.bf16_tokens_per_s * 2 / with_attention > row.float8wo_tokens_per_s


def test_without_a_cache_all_29_bytes_move_and_the_3b_row_does_not_fit() -> None:
    assert memory_bytes_per_weight(MODELS["3B"], 0) == 29
    assert memory_bytes_per_weight(MODELS["3B"], 1 << 40) == pytest.approx(1)
    (row,) = [r for r in ROWS if (r.model, r.card) == ("3B", "RTX 5090")]
    assert row.bf16_tokens_per_s * 2 / 29 < 0.85 * row.float8wo_tokens_per_s
    with pytest.raises(UsageError, match="size of the cache"):
        memory_bytes_per_weight(MODELS["3B"], -1)


def test_a_count_of_25_bytes_would_not_fit_the_8b_row() -> None:
    (row,) = [r for r in ROWS if r.model == "8B"]
    faster = replace(row, float8wo_tokens_per_s=row.bf16_tokens_per_s * 2 / 25)
    assert abs(slow_tokens_per_s(row) / faster.float8wo_tokens_per_s - 1) > 0.05
