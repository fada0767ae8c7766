"""Are experts, slices and heads shared out by DeepSpeed-MoE's rules, or refused?"""

from __future__ import annotations

import dataclasses

import pytest

from common.errors import UsageError
from common.workloads.expert_groups import layer_plan, parallel_plan
from common.workloads.moe_config import CONFIGS

TINY = CONFIGS["tiny"]


def test_fewer_ranks_than_experts_hold_several_each() -> None:
    """The 52B model: 128 experts on 8 GPUs are 16 each, on 64 GPUs 2."""
    assert layer_plan(8, 128, 8192).held() == (16,) * 8
    assert layer_plan(64, 128, 8192).held() == (2,) * 64


def test_experts_that_do_not_divide_evenly_go_to_the_first_ranks() -> None:
    assert layer_plan(4, 6, 96).held() == (2, 2, 1, 1)


def test_more_ranks_than_experts_slice_them_in_strided_groups() -> None:
    plan = layer_plan(8, 4, 96)
    assert (plan.ep, plan.slices) == (4, 2)
    assert plan.ep_groups() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert plan.slice_groups() == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize(("experts", "replicas"), [(32, 4), (64, 2), (128, 1)])
def test_a_pyramid_on_128_ranks_has_one_expert_per_rank_in_every_layer(
    experts: int, replicas: int
) -> None:
    plan = layer_plan(128, experts, 8192, beyond="replicate")
    assert (plan.ep, plan.replicas, plan.slices) == (experts, replicas, 1)
    assert set(plan.held()) == {1}


def test_every_layer_of_a_pyramid_has_its_own_groups() -> None:
    config = dataclasses.replace(CONFIGS["tiny-pyramid"], experts=(2, 8))
    first, second = parallel_plan(config, 4).layers
    assert first is not None
    assert second is not None
    assert (first.ep, first.slices) == (2, 2)
    assert (second.ep, second.slices) == (4, 1)


@pytest.mark.parametrize(("batch", "ranks", "mp"), [(5, 3, 1), (4, 4, 1), (7, 4, 2), (1, 2, 2)])
def test_every_sequence_is_worked_on_by_one_group_of_ranks(batch: int, ranks: int, mp: int) -> None:
    plan = parallel_plan(TINY, ranks, mp_size=mp)
    rows = [plan.rows(batch, group[0]) for group in plan.mp_groups()]
    assert [row for part in rows for row in part] == list(range(batch))
    for group in plan.mp_groups():
        assert len({plan.rows(batch, rank) for rank in group}) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: layer_plan(0, 8, 96), "choose 1 or more"),
        (lambda: layer_plan(6, 4, 96), "multiple of 4"),
        (lambda: layer_plan(4, 8, 96, ep_size=3), "multiple of 3"),
        (lambda: layer_plan(4, 8, 96, ep_size=5), "choose from 1 to 4"),
        (lambda: layer_plan(4, 8, 97, ep_size=2), "width 97 cannot be cut into 2 slices"),
        (lambda: parallel_plan(TINY, 4, mp_size=3), "mp_size 3 must divide"),
        (lambda: parallel_plan(TINY, 4, mp_size=4), "2 key/value heads"),
        (lambda: parallel_plan(TINY, 4, per_node=3), "choose per_node"),
        (lambda: parallel_plan(TINY, 4).rows(3, 0), "batch of at least 4"),
        (
            lambda: parallel_plan(dataclasses.replace(TINY, qk_norm="projection"), 2, mp_size=2),
            "choose mp_size 1",
        ),
    ],
)
def test_what_does_not_divide_is_refused_in_one_line(make: object, says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)
