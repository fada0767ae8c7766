"""Does the law of touched experts hold, for formulas, for counted routing, for published times?"""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UsageError
from common.floors.active_experts import (
    TimedBatch,
    compute_turn_tokens,
    expected_active,
    expected_active_for_shares,
    fit_active_law,
    routing_of,
)
from common.floors.moe_published import kernel_times, source_url


def random_picks(experts: int, top_k: int, tokens: int, skew: float, seed: int) -> np.ndarray:
    """Top-k of Zipf weights with Gumbel noise: k different experts per token."""
    generator = np.random.default_rng(seed)
    weights = -skew * np.log(np.arange(1, experts + 1))
    noisy = weights + generator.gumbel(size=(tokens, experts))
    return np.argsort(-noisy, axis=1)[:, :top_k]


def test_one_token_touches_k_experts_and_none_touches_none() -> None:
    assert expected_active(8, 2, 1) == pytest.approx(2)
    assert expected_active(64, 8, 0) == 0
    assert expected_active(8, 8, 1) == 8


def test_a_batch_of_128_touches_nearly_all() -> None:
    assert expected_active(8, 2, 128) == pytest.approx(8.00, abs=0.005)
    assert expected_active(64, 4, 64) == pytest.approx(62.97, abs=0.01)


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(8, 2, 3), (64, 2, 16), (128, 8, 16)])
def test_the_formula_is_the_mean_of_simulated_uniform_routing(
    experts: int, top_k: int, tokens: int
) -> None:
    counts = [
        routing_of(random_picks(experts, top_k, tokens, 0, seed), experts).active
        for seed in range(400)
    ]
    error = np.std(counts) / len(counts) ** 0.5
    assert abs(np.mean(counts) - expected_active(experts, top_k, tokens)) < 4 * error + 1e-9


@pytest.mark.parametrize(
    ("tokens", "skew", "active", "imbalance"),
    [(16, 0.5, 76.0, 6.4), (16, 1, 58.9, 13.3), (64, 0, 125.8, 2.5), (64, 1, 104.9, 13.5)],
)
def test_skew_touches_fewer_experts_and_loads_them_less_evenly(
    tokens: int, skew: float, active: float, imbalance: float
) -> None:
    """128 experts, top-8; the expected means are from an independent simulation."""
    rows = [routing_of(random_picks(128, 8, tokens, skew, seed), 128) for seed in range(200)]
    assert np.mean([r.active for r in rows]) == pytest.approx(active, rel=0.02)
    assert np.mean([r.imbalance for r in rows]) == pytest.approx(imbalance, rel=0.06)


def test_measured_shares_foretell_what_another_batch_touches() -> None:
    long = routing_of(random_picks(64, 4, 20_000, 1.0, 0), 64)
    assert sum(long.shares) == pytest.approx(4)
    short = [routing_of(random_picks(64, 4, 16, 1.0, seed), 64).active for seed in range(1, 300)]
    assert long.expected_active(16) == pytest.approx(np.mean(short), rel=0.02)
    assert expected_active(64, 4, 16) > 1.15 * np.mean(short), "uniform routing would be wrong here"


def test_equal_shares_give_the_uniform_formula() -> None:
    assert expected_active_for_shares([2 / 8] * 8, 5) == pytest.approx(expected_active(8, 2, 5))


def test_statistics_of_counted_routing() -> None:
    routing = routing_of([[0, 1], [0, 2], [0, 1], [0, 3]], 8)
    assert routing.load == (4, 2, 1, 1, 0, 0, 0, 0)
    assert (routing.active, routing.imbalance) == (4, 4.0)
    assert routing.entropy_bits == pytest.approx(1.75)


@pytest.mark.parametrize(
    ("device", "experts", "top_k", "weight_bytes", "turn"),
    [(989 / 3.35, 8, 2, 2, 1181), (989 / 3.35, 128, 8, 2, 4723), (1979 / 3.35, 256, 8, 1, 9450),
     (989 / 3.35, 1, 1, 2, 295)],
    ids=["mixtral", "qwen3-30b", "deepseek-v3", "dense"],
)  # fmt: skip
def test_the_turn_to_compute(
    device: float, experts: int, top_k: int, weight_bytes: float, turn: float
) -> None:
    assert compute_turn_tokens(experts, top_k, weight_bytes, device) == pytest.approx(turn, abs=4)


@pytest.mark.parametrize(
    ("series", "operations", "largest", "mean", "fixed", "eta"),
    [
        ("h100-mixtral-bf16", True, 0.0573, 0.0247, 39.5, 0.99),
        # Without the operations' term, as in the literature notes: 13 % at most. With it: 4.2 %.
        ("h100-qwen3-30b-fp8", False, 0.134, 0.0355, 27.6, 0.82),
        ("h100-qwen3-30b-fp8", True, 0.0421, 0.0153, 28.9, 0.87),
        ("a100-qwen3-30b-bf16", False, 0.055, 0.0151, 55.6, 0.89),
    ],
)
def test_published_kernel_times_follow_the_law(
    series: str, operations: bool, largest: float, mean: float, fixed: float, eta: float
) -> None:
    times = kernel_times()[series]
    law = fit_active_law(times.points(), operations=operations)
    assert law.max_error <= largest
    assert law.mean_error <= mean
    assert law.fixed_us == pytest.approx(fixed, abs=0.1)
    share = law.bandwidth_share(times.expert_bytes, times.bandwidth_gb_per_s)
    assert share == pytest.approx(eta, abs=0.005)


def test_mixtral_on_the_h100_reaches_092_of_its_rate_beyond_the_turn() -> None:
    times = kernel_times()["h100-mixtral-bf16"]
    law = fit_active_law(times.points())
    share = law.rate_share(times.flops_per_token, times.rate_tflop_per_s)
    assert share == pytest.approx(0.92, abs=0.005)


def test_the_a100_series_lies_below_the_turn_and_its_rate_cannot_be_fitted() -> None:
    """96 tokens are far below T* = 2 400: the fit would claim more than the device's rate."""
    times = kernel_times()["a100-qwen3-30b-bf16"]
    share = fit_active_law(times.points()).rate_share(times.flops_per_token, times.rate_tflop_per_s)
    assert share is not None
    assert share > 1


def test_all_38_published_points_carry_a_source() -> None:
    series = kernel_times().values()
    assert sum(len(times.tokens) for times in series) == 38
    assert all(times.url.startswith("https://github.com/vllm-project/") for times in series)
    assert source_url("moe-lightning").endswith("2411.11217")


def test_the_fit_finds_known_coefficients_and_drops_what_would_be_negative() -> None:
    points = [TimedBatch(t, a, 5 + 2 * a + 0.1 * t) for t, a in [(1, 2), (4, 5), (16, 7), (64, 8)]]
    law = fit_active_law(points)
    assert (law.fixed_us, law.per_active_us, law.per_token_us) == pytest.approx((5, 2, 0.1))
    assert law.max_error < 1e-9
    falling = [
        TimedBatch(t, a, 50 + 2 * a - 0.1 * t) for t, a in [(1, 2), (4, 5), (16, 7), (64, 8)]
    ]
    assert fit_active_law(falling).per_token_us == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: expected_active(8, 9, 1),
        lambda: expected_active(8, 0, 1),
        lambda: expected_active(8, 2, -1),
        lambda: expected_active_for_shares([0.5, 1.2], 1),
        lambda: expected_active_for_shares([], 1),
        lambda: routing_of([0, 1], 8),
        lambda: routing_of([[0, 8]], 8),
        lambda: routing_of([[1, 1]], 8),
        lambda: routing_of([[0.5, 1.0]], 8),
        lambda: fit_active_law([TimedBatch(1, 2, 3)] * 2),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(make: object) -> None:
    with pytest.raises(UsageError) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)
