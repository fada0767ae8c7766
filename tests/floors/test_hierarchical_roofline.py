"""Does the hierarchical roofline give the numbers that MoE-Lightning printed and drew?

Sources: arXiv 2411.11217 and the authors' artifacts. Where their count differs from a full one,
both are tested, under their names.
"""

from __future__ import annotations

import dataclasses

import pytest

from common.errors import UsageError
from common.floors.hierarchical_roofline import (
    Level,
    Machine,
    balance_point,
    cross_roof_gflop_per_s,
    first_turning_point,
    layer_time,
    placement_times_s,
    roof_gflop_per_s,
    saving_per_resident_byte_s,
    second_turning_point,
    tokens_for_intensity,
)
from common.floors.hrm_machines import machine_by_id, machine_from_floors, two_a100
from common.floors.measured import MeasuredFloors, Rate
from common.floors.moe_published import figure9, throughputs
from common.floors.moe_shapes import (
    Work,
    attention_intensity_limit,
    attention_work,
    ffn_weight_intensity,
    ffn_work,
    moe_shape,
)

L4, MIXTRAL = machine_by_id("l4-figures"), moe_shape("mixtral-8x7b")
THEIRS = "moe-lightning"
AT_MU_128 = ffn_work(MIXTRAL, 128, THEIRS).intensity


def test_p1_is_the_cpus_peak_over_the_link() -> None:
    assert first_turning_point(L4) == 81.25


def test_at_p1_computing_on_the_cpu_and_moving_to_the_gpu_are_equally_fast() -> None:
    p1 = first_turning_point(L4)
    assert roof_gflop_per_s(L4.cpu, p1) == 1300 == cross_roof_gflop_per_s(L4, 1e9, p1)
    assert cross_roof_gflop_per_s(L4, 1e9, 0.9 * p1) < roof_gflop_per_s(L4.cpu, 0.9 * p1)


def test_p2_is_what_the_kernel_reaches_at_micro_batch_128_over_the_link() -> None:
    assert roof_gflop_per_s(L4.gpu, AT_MU_128) == pytest.approx(9584, abs=1)
    assert second_turning_point(L4, AT_MU_128) == pytest.approx(599.0, abs=0.05)


def test_the_balance_point_is_p2_where_the_kernel_is_bound_by_memory() -> None:
    assert balance_point(L4, AT_MU_128) == second_turning_point(L4, AT_MU_128)
    assert balance_point(L4, 1000) is None  # 300 GB/s × 1000 exceeds the GPU's peak


@pytest.mark.parametrize(
    ("intensity", "tokens"),
    [(81.25, 326.4), (599.0, 2473.5)],
)
def test_the_batches_at_the_turning_points(intensity: float, tokens: float) -> None:
    found = tokens_for_intensity(MIXTRAL, intensity, THEIRS)
    assert found == pytest.approx(tokens, abs=0.3)
    assert ffn_work(MIXTRAL, found, THEIRS).intensity == pytest.approx(intensity)


def test_n_at_p2_is_nineteen_micro_batches() -> None:
    found = tokens_for_intensity(MIXTRAL, second_turning_point(L4, AT_MU_128), THEIRS)
    assert found is not None
    assert found / 128 == pytest.approx(19.3, abs=0.05)


def test_an_intensity_above_the_limit_is_reached_by_no_batch() -> None:
    assert tokens_for_intensity(MIXTRAL, 19_200, THEIRS) is None
    found = tokens_for_intensity(MIXTRAL, 19_000, THEIRS)
    assert found is not None  # "19.1 k as N grows"


@pytest.mark.parametrize(
    ("tokens", "intensity"), [(32, 7.997), (128, 31.947), (1024, 252.62), (16384, 3373.2)]
)
def test_ffn_intensity_by_the_authors_count(tokens: int, intensity: float) -> None:
    assert ffn_work(MIXTRAL, tokens, THEIRS).intensity == pytest.approx(intensity, rel=5e-5)


@pytest.mark.parametrize(
    ("kv_bytes", "theirs", "full"), [(2, 2.00, 3.98), (0.5, 8.00, 15.94)], ids=["fp16", "int4"]
)
def test_attention_intensity_at_context_512(kv_bytes: float, theirs: float, full: float) -> None:
    counted = attention_work(MIXTRAL, 1, 512, kv_bytes, THEIRS).intensity
    assert counted == pytest.approx(theirs, abs=0.01)
    # The product with V is missing in their count; with it, and their softmax left in, 4.0 / 16.1.
    with_v = attention_work(MIXTRAL, 1, 512, kv_bytes).intensity
    assert with_v == pytest.approx(full, rel=0.012)
    assert max(counted, with_v) < first_turning_point(L4), "so it stays on the CPU either way"


def test_attention_intensity_is_independent_of_the_batch_and_ffn_intensity_is_not() -> None:
    for context in (128, 512, 4096):
        alone = attention_work(MIXTRAL, 1, context).intensity
        assert attention_work(MIXTRAL, 1000, context).intensity == pytest.approx(alone)
    assert attention_intensity_limit(MIXTRAL) == 4.0
    assert attention_intensity_limit(MIXTRAL, 0.5) == 16.0
    assert attention_work(MIXTRAL, 7, 1e6).intensity == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize(
    ("tokens", "intensity"), [(1, 1.0), (2, 1.14), (4, 1.46), (8, 2.2), (16, 4.0), (128, 32.0)]
)
def test_ffn_intensity_has_a_dead_zone_up_to_one_pick_per_expert(
    tokens: int, intensity: float
) -> None:
    assert ffn_weight_intensity(MIXTRAL, tokens) == pytest.approx(intensity, abs=0.05)


def test_charging_all_experts_is_wrong_by_four_at_one_token_and_by_one_percent_at_sixteen() -> None:
    one = ffn_work(MIXTRAL, 1, THEIRS).intensity
    assert one == pytest.approx(0.25, rel=0.001)
    assert ffn_work(MIXTRAL, 1).intensity == pytest.approx(1.0, rel=0.001)
    full = ffn_work(MIXTRAL, 16).intensity
    assert ffn_work(MIXTRAL, 16, THEIRS).intensity == pytest.approx(full, rel=0.011)


def test_the_ridges() -> None:
    assert L4.cpu.ridge == 13
    assert L4.gpu.ridge == pytest.approx(806.7, abs=0.05)
    assert L4.link_ridge == 15125


def test_one_token_is_fastest_where_the_weights_lie_and_slowest_when_they_are_moved() -> None:
    times = placement_times_s(L4, MIXTRAL, 1)
    assert times["gpu-resident"] == pytest.approx(2.35e-3, rel=0.002)
    assert times["cpu"] == pytest.approx(7.05e-3, rel=0.002)
    assert times["swapped-in"] == pytest.approx(44e-3, rel=0.003)


def test_swapping_wins_over_the_cpu_from_p1_on() -> None:
    below = placement_times_s(L4, MIXTRAL, 320, micro_batch=128, count=THEIRS)
    above = placement_times_s(L4, MIXTRAL, 335, micro_batch=128, count=THEIRS)
    assert below["cpu"] < below["swapped-in"]
    assert above["swapped-in"] < above["cpu"]


def test_what_is_read_in_every_step_goes_to_the_gpu_first() -> None:
    experts_at_one = saving_per_resident_byte_s(L4, 0.25)
    assert saving_per_resident_byte_s(L4, 1.0) == pytest.approx(4 * experts_at_one)
    assert saving_per_resident_byte_s(L4, 1.0) == pytest.approx((1 / 100 - 1 / 300) / 1e9)


def test_a_layer_takes_the_longest_of_link_cpu_and_gpu() -> None:
    layer = layer_time(L4, [Work(242e12, 1), Work(0, 300e9)], [Work(0, 150e9)], 24e9)
    assert (layer.gpu_s, layer.cpu_s, layer.link_s) == pytest.approx((2.0, 1.5, 1.5))
    assert layer.total_s == 2.0
    assert layer.bound == "gpu"


def test_a_link_faster_than_the_cpus_memory_has_no_first_turning_point() -> None:
    slow_memory = dataclasses.replace(L4, link_gb_per_s=200)
    assert first_turning_point(slow_memory) == 0
    assert first_turning_point(two_a100(1, 100)) == 16


def test_figure_9_attention_on_the_cpu_is_three_to_four_times_faster_than_moving_the_cache() -> (
    None
):
    """The paper says 3-4x; its 20 grid points span 2.9-4.1."""
    figure = figure9()
    ratios = [
        moved / computed
        for row, other in zip(figure.transfer_ms, figure.cpu_attention_ms, strict=True)
        for moved, computed in zip(row, other, strict=True)
    ]
    assert len(ratios) == 20
    assert round(min(ratios), 1) == 2.9
    assert round(max(ratios), 1) == 4.1


def test_figure_9_implies_the_bandwidths_of_the_effective_machine() -> None:
    """Published times over counted bytes: 11.9-12.4 over the link, 36-50 on the CPU, 217-231 on
    the GPU, where the figures' parameters say 16, 100 and 300."""
    figure, machine = figure9(), machine_by_id("l4-effective")
    cached = 2 * 2 * MIXTRAL.kv_heads * MIXTRAL.head_dim
    link, cpu = [], []
    for row, micro in enumerate(figure.micro_batch):
        for column, context in enumerate(figure.context):
            moved = cached * micro * context / 1e6
            link.append(moved / figure.transfer_ms[row][column])
            cpu.append(moved / figure.cpu_attention_ms[row][column])
    gpu = [MIXTRAL.layer_expert_bytes() / 1e6 / ms for ms in figure.ffn_ms]
    assert (round(min(link), 1), round(max(link), 1)) == (11.9, 12.4)
    assert (round(min(cpu)), round(max(cpu))) == (36, 50)
    assert (round(min(gpu)), round(max(gpu))) == (217, 231)
    assert min(link) < machine.link_gb_per_s < max(link)
    assert min(cpu) < machine.cpu.bandwidth_gb_per_s < max(cpu)
    assert min(gpu) < machine.gpu.bandwidth_gb_per_s < max(gpu)


def test_published_ratios_follow_from_the_published_throughputs() -> None:
    s1, s2, s6, s7 = (throughputs(name) for name in ("s1", "s2", "s6", "s7"))
    at_128 = 2
    assert round(s1["ml-padded"][at_128] / s1["flexgen"][at_128], 2) == 3.17
    assert round(s1["ml"][at_128] / s1["flexgen"][at_128], 1) == 10.3  # the headline
    best = [max(s1[k][3] for k in ("flexgen", "flexgen-cpu-attention", "deepspeed-zero"))]
    assert round(s1["ml-padded"][3] / best[0], 1) == 3.5
    assert round(s1["ml-padded"][3] / s1["flexgen-cpu-attention"][3], 2) == 4.99
    assert round(s2["ml-padded"][3] / s2["deepspeed-zero"][3], 2) == 6.66
    scaling = [b / a for a, b in zip(s6["ml-padded"], s7["ml-padded"], strict=True)]
    assert [round(x, 2) for x in scaling] == [2.77, 3.06, 3.38, 2.83]
    dbrx = zip(throughputs("s8")["ml"], throughputs("s9")["ml"], strict=True)
    assert [round(b / a, 2) for a, b in dbrx] == [2.10, 2.31, 2.79, 2.30]


def rate(per_s: float, unit: str = "gb_per_s") -> Rate:
    work = int(per_s * 1e9 * (1 if unit == "gb_per_s" else 1e3))
    return Rate("k", unit, work, 1, (10**9,))  # type: ignore[arg-type]


def floors(origin: str, read: float, tflops: float) -> MeasuredFloors:
    flop = rate(tflops, "tflop_per_s")
    return MeasuredFloors(
        origin,  # type: ignore[arg-type]
        origin, None, None, None, "2", rate(read), rate(read), flop, flop,
    )  # fmt: skip


def test_a_machine_is_made_from_measured_floors_of_both_sides() -> None:
    cpu, gpu = floors("measured-cpu", 100, 1.3), floors("measured-gpu", 300, 242)
    machine = machine_from_floors(cpu, gpu, 16)
    assert first_turning_point(machine) == pytest.approx(81.25)
    with pytest.raises(UsageError, match="one CPU's and one GPU's"):
        machine_from_floors(gpu, cpu, 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Level("x", 0, 1),
        lambda: Level("x", 1, float("nan")),
        lambda: Machine("x", L4.cpu, L4.gpu, -1, ""),
        lambda: machine_by_id("l4"),
        lambda: two_a100(11, 100),
        lambda: moe_shape("mixtral"),
        lambda: dataclasses.replace(MIXTRAL, top_k=9),
        lambda: ffn_work(MIXTRAL, 0),
        lambda: attention_work(MIXTRAL, 1, 0),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(make: object) -> None:
    with pytest.raises(UsageError) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)
