"""Do all ways through the experts agree, drop no token, and say no where they cannot work?"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from common.errors import CheckFailed, UsageError
from common.workloads.moe import MoeBlock, SimpleMoETransformer
from common.workloads.moe_config import CONFIGS, MoeConfig
from common.workloads.moe_experts import (
    BACKENDS,
    Backend,
    Experts,
    choose_backend,
    through_sorted,
)
from common.workloads.moe_quantised import (
    QuantisedExperts,
    check_experts_shrank,
    expert_bytes,
    quantise_experts,
)
from common.workloads.moe_routing import Picks, SkewedRouting
from common.workloads.moe_weights import (
    build_random_moe,
    moe_blocks,
    moe_parameter_counts,
    named_config,
)

CPU = torch.device("cpu")
FAST = [backend for backend in BACKENDS if backend not in ("auto", "loop")]


def experts(count: int = 8, dim: int = 32, width: int = 48, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    made = Experts(count, dim, width).to(dtype).requires_grad_(False)
    generator = torch.Generator().manual_seed(count)
    for parameter in made.parameters():
        parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return made


def picked(tokens: int, count: int, k: int, skew: float = 0.0) -> Picks:
    generator = torch.Generator().manual_seed(tokens + k)
    weights = torch.rand(tokens, k, generator=generator) + 0.1
    chosen = SkewedRouting(skew).picks(0, tokens, count, k)
    return Picks(chosen, weights / weights.sum(-1, keepdim=True))


def by_hand(made: Experts, x: Tensor, picks: Picks) -> Tensor:
    """One token and one expert at a time, in float64."""
    out = torch.zeros_like(x, dtype=torch.float64)
    for token in range(len(x)):
        for slot in range(picks.top_k):
            index = int(picks.experts[token, slot])
            gate, up = (made.gate_up_proj[index].double() @ x[token].double()).chunk(2)
            hidden = nn.functional.silu(gate) * up
            y = made.down_proj[index].double() @ hidden
            out[token] += picks.weights[token, slot].double() * y
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("tokens", "k", "skew"), [(1, 1, 0), (3, 2, 0), (40, 2, 0), (40, 4, 1.5), (7, 8, 0)]
)
def test_every_backend_computes_what_is_computed_by_hand(
    backend: Backend, tokens: int, k: int, skew: float
) -> None:
    made, picks = experts(), picked(tokens, 8, k, skew)
    x = torch.randn(tokens, 32, generator=torch.Generator().manual_seed(1))
    expected = by_hand(made, x, picks)
    error = (made(x, picks, backend).double() - expected).norm() / expected.norm()
    assert error.item() < 1e-6


LOADS = (3, 0, 7, 16, 1, 40, 200, 0, 2, 6, 193, 192)  # turned, as written, together and alone


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("gathers", [True, False])
def test_every_number_of_rows_goes_through_its_own_expert(threads: int, gathers: bool) -> None:
    """Of experts that are large enough for their products to be turned; one row is no number."""
    made = experts(len(LOADS), 512, 1024)
    x = torch.randn(sum(LOADS), 512, generator=torch.Generator().manual_seed(3))
    bad = LOADS[0] + 2  # the third row of the first expert with seven, before the padded ones
    x[bad] = torch.nan
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    given = torch.empty_like(x).index_copy_(0, order, x) if gathers else x
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        turned = sum(made.turned_rows(load) > 0 for load in LOADS)
        assert turned == (4 if threads == 2 else 0), "7, 16, 40 and 192 rows"
        got = through_sorted(made, given, list(LOADS), order if gathers else None)
    finally:
        torch.set_num_threads(before)
    assert got[bad].isnan().all(), "a row is its own"
    got[bad] = 0.0
    start = 0
    for index, load in enumerate(LOADS):
        gate, up = (x[start : start + load].double() @ made.gate_up_proj[index].double().T).chunk(
            2, -1
        )
        expected = (nn.functional.silu(gate) * up) @ made.down_proj[index].double().T
        expected = expected.nan_to_num(0.0)
        error = (got[start : start + load].double() - expected).norm() / (expected.norm() + 1e-30)
        assert error.item() < 1e-6, (index, load)
        start += load


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1.2e-6), (torch.bfloat16, 8e-3)])
def test_backends_agree_with_the_loop(backend: Backend, dtype: torch.dtype, bound: float) -> None:
    made, picks = experts(16, 64, 96, dtype), picked(50, 16, 2)
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    reference = made(x, picks, "loop").float()
    largest = (made(x, picks, backend).float() - reference).abs().max() / reference.abs().max()
    assert largest.item() <= bound


@pytest.mark.parametrize("backend", ["sorted", "grouped_mm", "dense"])
def test_the_result_is_the_same_to_the_bit_in_every_run(backend: Backend) -> None:
    made, picks = experts(), picked(64, 8, 2, 1.0)
    x = torch.randn(64, 32)
    first = made(x, picks, backend)
    assert all(torch.equal(first, made(x, picks, backend)) for _ in range(3))


def test_no_token_is_dropped_however_uneven_the_routing() -> None:
    made = experts()
    everyone_to_one = Picks(torch.full((100, 1), 3), torch.ones(100, 1))
    x = torch.randn(100, 32)
    out = made(x, everyone_to_one, "sorted")
    assert (out.norm(dim=-1) > 0).all()
    assert torch.allclose(out, made(x, everyone_to_one, "loop"), atol=1e-6)


def test_no_tokens_give_no_rows() -> None:
    none = Picks(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2))
    for backend in BACKENDS:
        assert experts()(torch.zeros(0, 32), none, backend).shape == (0, 32)


def test_grouped_mm_refuses_rows_that_do_not_start_at_16_bytes() -> None:
    made, picks = experts(4, 30, 50), picked(5, 4, 2)
    assert not made.can_group()
    with pytest.raises(UsageError, match="choose backend sorted"):
        made(torch.randn(5, 30), picks, "grouped_mm")
    assert made(torch.randn(5, 30), picks, "auto").shape == (5, 30)


def test_an_unknown_backend_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="grouped_mm"):
        experts()(torch.randn(5, 32), picked(5, 8, 2), "fastest")


def test_the_rule_of_auto() -> None:
    made = experts(64, 32, 48)
    for tokens in (1, 4, 5, 128, 4096):
        assert choose_backend(made, tokens, 2, torch.float32, "cpu") == "sorted"
    assert choose_backend(made, 4, 2, torch.bfloat16, "cpu") == "sorted"
    assert choose_backend(made, 5, 2, torch.bfloat16, "cpu") == "grouped_mm"
    assert choose_backend(made, 24 * 32, 2, torch.bfloat16, "cpu") == "sorted"
    assert choose_backend(made, 1, 2, torch.bfloat16, "cuda") == "batched_mm"
    assert choose_backend(made, 16, 2, torch.bfloat16, "cuda") == "batched_mm"
    assert choose_backend(made, 17, 2, torch.bfloat16, "cuda") == "grouped_mm"
    assert choose_backend(experts(64, 30, 50), 99, 2, torch.float32, "cuda") == "sorted"
    quantised = QuantisedExperts(made, "int8")
    assert choose_backend(quantised, 99, 2, torch.bfloat16, "cuda") == "sorted"


@pytest.mark.parametrize(("format_", "bound"), [("int8", 0.01), ("float8", 0.04)])
def test_quantised_experts_are_a_byte_per_weight_and_close(format_: str, bound: float) -> None:
    plain = build_random_moe(CONFIGS["tiny"], CPU)
    small = build_random_moe(CONFIGS["tiny"], CPU)
    quantise_experts(small, format_)  # type: ignore[arg-type]
    before, after = expert_bytes(plain), check_experts_shrank(small, 1)
    assert before.per_weight == 4
    assert after.stored == before.weights + 4 * before.rows
    tokens = torch.arange(24).view(2, 12)
    # The same routing for both: a token at the edge would otherwise go to another expert.
    plain.override = small.override = SkewedRouting(0)
    expected, got = plain(tokens), small(tokens)
    error = ((got - expected).norm() / expected.norm()).item()
    assert 1e-4 < error < bound
    for backend in ("loop", "batched_mm", "dense"):
        small.backend = backend  # type: ignore[assignment]
        assert torch.allclose(small(tokens), got, atol=1e-4)
    small.backend = "grouped_mm"
    with pytest.raises(UsageError, match="choose backend sorted"):
        small(tokens)


def test_a_quantiser_of_linears_only_is_found_out() -> None:
    """What library calls that look for nn.Linear do to stacked experts: nothing."""
    model = build_random_moe(CONFIGS["tiny"], CPU)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(CheckFailed, match=r"experts take 4\.00 bytes per weight"):
        check_experts_shrank(model, 1)


def test_the_residual_expert_weighs_routed_and_fixed_by_a_softmax() -> None:
    model = build_random_moe(CONFIGS["tiny-pyramid"], CPU)
    assert [block.experts.count for block in blocks(model)] == [4, 8]
    block = blocks(model)[0]
    x = torch.randn(6, 64)
    picks = block.gate(x)
    routed, fixed = block.experts(x, picks, "loop"), block.beside(x)
    weights = (x @ block.coefficient.weight.T).softmax(-1)
    expected = weights[:, :1] * routed + weights[:, 1:] * fixed
    got = block(x, "auto", torch.autograd.profiler.record_function, None, None)
    assert torch.allclose(got, expected, atol=1e-5)


def blocks(model: SimpleMoETransformer) -> list[MoeBlock]:
    return [layer.mlp for layer in moe_blocks(model) if isinstance(layer.mlp, MoeBlock)]


def test_a_shared_expert_is_added_and_a_layer_may_have_no_experts() -> None:
    model = build_random_moe(CONFIGS["tiny-shared"], CPU)
    (block,) = blocks(model)
    x = torch.randn(6, 64)
    routed = block.experts(x, block.gate(x), "loop")
    got = block(x, "loop", torch.autograd.profiler.record_function, None, None)
    assert torch.allclose(got, routed + block.beside(x), atol=1e-5)


def test_published_parameter_counts_come_out_without_allocating() -> None:
    counts = moe_parameter_counts(named_config("mixtral-8x7b"))
    assert round(counts["total"] / 1e9, 1) == 46.7
    assert round((counts["per_token"] + 32000 * 4096) / 1e9, 1) == 12.9  # with the embedding
    assert round(moe_parameter_counts(named_config("qwen3-30b-a3b"))["total"] / 1e9, 1) == 30.5
    assert round(moe_parameter_counts(named_config("olmoe-1b-7b"))["total"] / 1e9, 1) == 6.9


def test_the_same_seed_gives_the_same_weights_and_no_two_experts_are_alike() -> None:
    first, second = (build_random_moe(CONFIGS["tiny"], CPU, seed=3) for _ in range(2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    stack = blocks(first)[0].experts.gate_up_proj
    assert not any(torch.equal(stack[0], stack[i]) for i in range(1, len(stack)))


def change(**changes: object) -> MoeConfig:
    return dataclasses.replace(CONFIGS["tiny"], **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: change(top_k=9), "layer 0 has 8 experts"),
        (lambda: change(top_k=0), "choose top_k from 1"),
        (lambda: change(experts=(8, 1)), "layer 1 has 1 experts"),
        (lambda: change(experts=()), "number of layers is 0"),
        (lambda: change(experts=(0, 8)), "needs dense_dim"),
        (lambda: change(beside="residual"), "needs beside_dim"),
        (lambda: change(kv_heads=3), "choose a divisor"),
        (lambda: change(head_dim=15), "even number"),
        (lambda: named_config("tiny", 3), "choose from 1"),
        (lambda: named_config("huge"), "choose from tiny"),
    ],
)
def test_shapes_that_make_no_sense_are_refused_in_one_line(make: object, says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        make()  # type: ignore[operator]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "start", "says"),
    [
        ((0, 4), 0, "1 or more sequences"),
        ((2, 0), 0, "1 or more sequences"),
        ((8,), 0, "1 or more sequences"),
        ((1, 65), 0, "do not fit a cache of 64"),
        ((1, 1), 64, "do not fit a cache of 64"),
        ((1, 1), -1, "do not fit"),
        ((3, 1), 4, "cache is of another batch"),
    ],
)
def test_batches_that_make_no_sense_are_refused_in_one_line(
    shape: tuple[int, ...], start: int, says: str
) -> None:
    model = build_random_moe(CONFIGS["tiny"], CPU)
    model(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(UsageError, match=says) as raised:
        model(torch.zeros(shape, dtype=torch.int64), start)
    assert "\n" not in str(raised.value)


def test_a_model_that_was_cast_afterwards_is_refused() -> None:
    model = build_random_moe(CONFIGS["tiny"], CPU).to(torch.bfloat16)
    with pytest.raises(UsageError, match="choose the dtype in moe_weights"):
        model(torch.zeros(1, 4, dtype=torch.int64))
