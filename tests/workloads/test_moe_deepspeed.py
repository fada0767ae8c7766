"""Do we compute what DeepSpeed's MoE layer computes, residual expert included?

The reference is made by `tests/data/make_moe_deepspeed.py`; nothing here needs deepspeed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from common.workloads.moe import MoeBlock
from common.workloads.moe_config import CONFIGS
from common.workloads.moe_experts import BACKENDS, Backend, no_stage

STORED = load_file(Path(__file__).parents[1] / "data" / "moe_deepspeed.safetensors")
HIDDEN, WIDTH, EXPERTS = 16, 24, 4


def our_block(k: int, residual: bool) -> MoeBlock:
    """Top-1 keeps the raw probability as its weight; from top-2 on they are renormalised."""
    config = dataclasses.replace(
        CONFIGS["tiny"],
        dim=HIDDEN,
        expert_dim=WIDTH,
        experts=(EXPERTS,),
        top_k=k,
        normalise_top_k=k > 1,
        beside="residual" if residual else "none",
        beside_dim=WIDTH,
    )
    block = MoeBlock(config, 0).eval().requires_grad_(False)
    block.gate.weight.copy_(STORED["deepspeed_moe.gate.wg.weight"])
    for index in range(EXPERTS):
        gate, up, down = (
            STORED[f"deepspeed_moe.experts.deepspeed_experts.{index}.{name}_proj.weight"]
            for name in ("gate", "up", "down")
        )
        block.experts.gate_up_proj[index] = torch.cat((gate, up))
        block.experts.down_proj[index] = down
    if residual:
        for name in ("gate", "up", "down"):
            linear = getattr(block.beside, f"{name}_proj")
            linear.weight.copy_(STORED[f"mlp.{name}_proj.weight"])
        block.coefficient.weight.copy_(STORED["coefficient.weight"])
        block.coefficient.bias.copy_(STORED["coefficient.bias"])
    return block


def difference(block: MoeBlock, k: int, residual: bool, backend: Backend) -> float:
    got: Tensor = block(STORED["input"], backend, no_stage, None, None)
    return (got - STORED[f"output k={k} residual={residual}"]).abs().max().item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_our_layer_is_deepspeeds(k: int, residual: bool, backend: Backend) -> None:
    assert difference(our_block(k, residual), k, residual, backend) < 1e-6


@pytest.mark.parametrize("residual", [False, True])
def test_the_reference_tells_a_wrong_routing_and_a_wrong_weighting(residual: bool) -> None:
    block = our_block(2, residual)
    block.gate.weight.copy_(block.gate.weight.roll(1, 0))
    assert difference(block, 2, residual, "loop") > 0.05
    raw = our_block(2, residual)
    object.__setattr__(raw.gate.config, "normalise_top_k", False)
    assert difference(raw, 2, residual, "loop") > 0.01


def test_the_residual_coefficients_order_matters() -> None:
    block = our_block(1, True)
    block.coefficient.weight.copy_(block.coefficient.weight.flip(0))
    block.coefficient.bias.copy_(block.coefficient.bias.flip(0))
    assert difference(block, 1, True, "loop") > 0.05
