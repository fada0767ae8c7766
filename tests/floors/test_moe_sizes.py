"""Do the formulas give the published sizes of DeepSpeed-MoE models, and its rules of exchange?"""

from __future__ import annotations

import pytest

from common.errors import UsageError
from common.floors.expert_traffic import (
    coordinated_all_to_all,
    critical_path_bytes,
    dispatch_bytes,
    exchange_seconds,
    flat_all_to_all,
    hierarchical_all_to_all,
)
from common.floors.moe_published import PublishedSize, sizes
from common.floors.moe_sizes import DeepSpeedMoe, printed_billions


@pytest.mark.parametrize("size", [s for s in sizes() if not s.known_miss], ids=lambda s: s.id)
def test_a_published_size_comes_out_to_its_printed_digit(size: PublishedSize) -> None:
    assert printed_billions(size.model.parameters, size.printed) == size.printed


def test_ten_sizes_agree_and_one_is_a_known_miss() -> None:
    missed = [size for size in sizes() if size.known_miss]
    assert len(sizes()) == 11
    assert [printed_billions(s.model.parameters, s.printed) for s in missed] == ["106.9"]


def test_the_layer_counts_of_8b_and_24b_are_exchanged_in_the_paper() -> None:
    assert DeepSpeedMoe(30, 4096, (128,) * 15).parameters / 1e9 == pytest.approx(261.7, abs=0.05)
    assert DeepSpeedMoe(40, 8192, (128,) * 20).parameters / 1e9 == pytest.approx(1395.9, abs=0.05)


def test_a_token_uses_what_the_dense_model_of_the_same_name_has() -> None:
    moe = DeepSpeedMoe(24, 2048, (128,) * 12)
    assert moe.parameters_used_per_token() == 12 * 24 * 2048**2  # 1.2e9, the "1.3B" without tables
    assert moe.parameters_used_per_token() / moe.parameters < 0.025


def test_the_residual_adds_a_fixed_mlp_and_a_coefficient_per_expert_layer() -> None:
    plain = DeepSpeedMoe(24, 1024, (32,) * 12)
    residual = DeepSpeedMoe(24, 1024, (32,) * 12, residual=True)
    assert residual.parameters - plain.parameters == 12 * (8 * 1024**2 + 2 * 1024 + 2)


def test_the_pyramid_is_up_to_three_times_smaller_than_128_experts_everywhere() -> None:
    by_id = {size.id: size.model.parameters for size in sizes()}
    assert by_id["350M+MoE-128"] / by_id["350M+PR-MoE-32/64"] == pytest.approx(3.2, abs=0.05)
    student = by_id["350M+PR-MoE-32/64+MoS-21L"]
    assert by_id["350M+MoE-128"] / student == pytest.approx(3.75, abs=0.05)  # "up to 3.7x"


def test_coordinating_with_tensor_slicing_saves_seven_of_eight_messages() -> None:
    flat, coordinated = flat_all_to_all(128), coordinated_all_to_all(128, 8)
    assert exchange_seconds(flat, 1.0, 5.0) == 128 + 5
    assert exchange_seconds(coordinated, 1.0, 5.0) == 16 + 5
    assert coordinated.gathers == 8


def test_the_hierarchical_exchange_has_fewer_messages_and_twice_the_volume() -> None:
    exchange = hierarchical_all_to_all(128, 8)
    assert (exchange.messages, exchange.volume) == (8 + 16, 2)


def test_only_tokens_for_other_devices_leave() -> None:
    assert dispatch_bytes(10, 2, 4, 1) == 0
    assert dispatch_bytes(10, 2, 4, 4) == 10 * 2 * 4 * 2 * 3 / 4


def test_one_expert_per_device_costs_what_a_dense_layer_does() -> None:
    for tokens in (1, 10_000):
        assert critical_path_bytes(7, 100, 128, 1, tokens, 128) == 107
    assert critical_path_bytes(7, 100, 128, 1, 1, 1) == pytest.approx(107)
    assert critical_path_bytes(7, 100, 128, 1, 10_000, 1) == pytest.approx(7 + 12_800)
    assert critical_path_bytes(7, 100, 64, 1, 10_000, 128) == pytest.approx(7 + 50), "sliced"


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeepSpeedMoe(4, 8, (2, 2, 2)),
        lambda: DeepSpeedMoe(4, 8, (0,)),
        lambda: flat_all_to_all(0),
        lambda: hierarchical_all_to_all(10, 4),
        lambda: coordinated_all_to_all(8, 3),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: object) -> None:
    with pytest.raises(UsageError) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)
