"""Are touched experts counted as they are, and the effects of formats and top-k stated rightly?"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from common.errors import UsageError
from common.floors.batch_scaling import touched_experts_floor
from common.workloads.moe_config import CONFIGS
from common.workloads.moe_observed import logit_effect, observe_routing
from common.workloads.moe_quantised import quantise_experts
from common.workloads.moe_routing import SkewedRouting
from common.workloads.moe_weights import build_random_moe

CPU = torch.device("cpu")
TOKENS = torch.arange(40).view(4, 10)


def test_one_token_touches_k_experts_per_layer_and_reads_their_bytes() -> None:
    model = build_random_moe(CONFIGS["tiny"], CPU)
    seen = observe_routing(model, TOKENS[:1, :1])
    assert [layer.active for layer in seen.layers] == [2, 2]
    assert seen.touched_bytes == 4 * 3 * 64 * 96 * 4
    floor = touched_experts_floor([layer.active for layer in seen.layers], 3 * 64 * 96 * 4, 10)
    assert floor.time_ns == pytest.approx(seen.touched_bytes / 10)
    assert model.observe is None


def test_quantised_experts_read_a_quarter_of_the_bytes_and_their_scales() -> None:
    model = build_random_moe(CONFIGS["tiny"], CPU)
    before = observe_routing(model, TOKENS)
    quantise_experts(model, "int8")
    model.override = None
    after = observe_routing(model, TOKENS, weight_bytes=1)
    assert after.touched_bytes / after.touched == before.touched_bytes / before.touched / 4


def test_skew_is_seen_in_the_loads_and_a_plain_layer_is_not_counted() -> None:
    model = build_random_moe(CONFIGS["tiny-shared"], CPU)
    model.override = SkewedRouting(0.0)
    even = observe_routing(model, TOKENS)
    model.override = SkewedRouting(3.0)
    skewed = observe_routing(model, TOKENS)
    assert len(even.layers) == 1
    assert skewed.worst_imbalance > 1.5 * even.worst_imbalance
    plain = dataclasses.replace(CONFIGS["tiny-shared"], experts=(0, 0))
    with pytest.raises(UsageError, match="no layer with experts"):
        observe_routing(build_random_moe(plain, CPU), TOKENS)


def test_a_model_has_no_effect_against_itself() -> None:
    model = build_random_moe(CONFIGS["tiny"], CPU)
    effect = logit_effect(model, model, TOKENS)
    assert (effect.relative_error, effect.same_first_choice) == (0.0, 1.0)
    assert effect.divergence_nats < 1e-6


def test_int8_changes_less_than_float8_and_top_1_more_than_either() -> None:
    reference = build_random_moe(CONFIGS["tiny"], CPU)
    effects = []
    for format_ in ("int8", "float8"):
        changed = build_random_moe(CONFIGS["tiny"], CPU)
        quantise_experts(changed, format_)  # type: ignore[arg-type]
        changed.override = reference.override = SkewedRouting(0.0)
        effects.append(logit_effect(reference, changed, TOKENS))
    reference.override = None
    effects.append(
        logit_effect(reference, build_random_moe(CONFIGS["tiny"].with_top_k(1), CPU), TOKENS)
    )
    errors = [effect.relative_error for effect in effects]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert effects[0].same_first_choice > effects[2].same_first_choice
    assert effects[0].divergence_nats < effects[1].divergence_nats < effects[2].divergence_nats


def test_models_with_different_vocabularies_are_not_compared() -> None:
    other = dataclasses.replace(CONFIGS["tiny"], vocab=300)
    with pytest.raises(UsageError, match="like with like"):
        logit_effect(build_random_moe(CONFIGS["tiny"], CPU), build_random_moe(other, CPU), TOKENS)
