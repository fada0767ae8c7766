"""Is this the mixture of experts that everyone else runs? Compared with transformers' logits.

The references are made by `tests/data/make_moe_tiny.py`; nothing here needs transformers.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.workloads.moe import SimpleMoETransformer
from common.workloads.moe_checkpoint import build_moe_from_checkpoint
from common.workloads.moe_experts import BACKENDS, Backend

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")
FAMILIES = ["moe_tiny_mixtral", "moe_tiny_qwen3", "moe_tiny_olmoe"]
TOLERANCE = 2e-5  # float32, sums in another order, logits of order one


def load(family: str) -> tuple[SimpleMoETransformer, Tensor, Tensor, Tensor]:
    folder = DATA / family
    model = build_moe_from_checkpoint(folder, CPU, torch.float32, max_positions=32)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return (
        model,
        torch.tensor(expected["prompt"]),
        torch.tensor(expected["forced"]),
        torch.tensor(expected["logits"]),
    )


def in_steps(model: SimpleMoETransformer, prompt: Tensor, forced: Tensor) -> Tensor:
    """Logits after the prompt and after each forced token, through the cache."""
    logits, start = [model(prompt, last_only=True)[:, 0]], prompt.shape[1]
    for step in range(forced.shape[1]):
        logits.append(model(forced[:, step : step + 1], start + step)[:, -1])
    return torch.stack(logits)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_decoding_give_the_reference_logits(family: str, backend: Backend) -> None:
    model, prompt, forced, logits = load(family)
    model.backend = backend
    got = in_steps(model, prompt, forced)
    assert got.shape == logits.shape
    assert (got - logits).abs().max().item() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_may_be_given_in_pieces_and_all_positions_at_once(family: str) -> None:
    model, prompt, forced, logits = load(family)
    every = model(torch.cat((prompt, forced), 1))[:, prompt.shape[1] - 1 :].transpose(0, 1)
    assert (every - logits).abs().max().item() < TOLERANCE
    model(prompt[:, :4])
    pieces = model(prompt[:, 4:], 4)[:, -1]
    assert (pieces - logits[0]).abs().max().item() < TOLERANCE


def test_the_reference_tells_a_wrong_routing_wrong_experts_and_a_wrong_weighting() -> None:
    model, prompt, _, logits = load("moe_tiny_mixtral")
    mlp = model.layers[0].mlp  # type: ignore[union-attr]
    kept = mlp.gate.weight.clone()  # type: ignore[union-attr, operator]
    mlp.gate.weight.copy_(kept.roll(1, 0))  # type: ignore[union-attr, operator]
    assert (model(prompt)[:, -1] - logits[0]).abs().max() > 0.05
    mlp.gate.weight.copy_(kept)  # type: ignore[union-attr, operator]
    stack = mlp.experts.gate_up_proj  # type: ignore[union-attr]
    stack.copy_(stack.roll(stack.shape[1] // 2, 1))  # gate and up exchanged
    assert (model(prompt)[:, -1] - logits[0]).abs().max() > 0.05


def test_weights_that_are_not_renormalised_are_told_from_those_that_are() -> None:
    model, prompt, _, logits = load("moe_tiny_olmoe")
    assert not model.config.normalise_top_k
    for layer in model.layers:
        gate = layer.mlp.gate  # type: ignore[union-attr]
        object.__setattr__(gate.config, "normalise_top_k", True)  # type: ignore[union-attr]
    assert (model(prompt)[:, -1] - logits[0]).abs().max() > 0.05


def test_each_sequence_of_a_batch_is_computed_as_if_it_were_alone() -> None:
    model, prompt, _, logits = load("moe_tiny_mixtral")
    for row in range(2):
        alone = model(prompt[row : row + 1], last_only=True)[0, 0]
        assert (alone - logits[0, row]).abs().max().item() < TOLERANCE


def test_bfloat16_is_close_and_keeps_the_router_in_float32() -> None:
    folder = DATA / "moe_tiny_mixtral"
    model = build_moe_from_checkpoint(folder, CPU, max_positions=32)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    got = model(torch.tensor(expected["prompt"]), last_only=True)[:, 0]
    assert got.dtype is torch.bfloat16
    reference = torch.tensor(expected["logits"][0])
    assert 1e-4 < ((got.float() - reference).norm() / reference.norm()).item() < 0.1
    assert model.layers[0].mlp.gate.weight.dtype is torch.float32  # type: ignore[union-attr]
