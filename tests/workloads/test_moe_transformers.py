"""Do we compute what an installed transformers computes, block and model, in all its ways?

The recorded references of `test_moe_parity.py` are always compared; this needs the package itself
(transformers 5.x, in requirements-dev.txt) and nothing from any network.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from common.workloads.moe_experts import BACKENDS, Backend, Experts
from common.workloads.moe_routing import Picks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def their_block(way: str, dtype: torch.dtype) -> Any:
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=64, intermediate_size=96, num_local_experts=8, num_experts_per_tok=2
    )
    config._experts_implementation = way
    torch.manual_seed(0)
    block = MixtralSparseMoeBlock(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, 0.0, parameter.shape[-1] ** -0.5)
    return block.to(dtype).eval().requires_grad_(False)


@pytest.mark.parametrize("way", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1.5e-6), (torch.bfloat16, 2e-2)])
def test_our_experts_are_their_mixtral_experts(
    way: str, backend: Backend, dtype: torch.dtype, bound: float
) -> None:
    theirs = their_block(way, dtype)
    ours = Experts(8, 64, 96).to(dtype).requires_grad_(False)
    ours.gate_up_proj.copy_(theirs.experts.gate_up_proj)  # the same layout: nothing is permuted
    ours.down_proj.copy_(theirs.experts.down_proj)
    x = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = theirs(x)
    expected = (expected[0] if isinstance(expected, tuple) else expected)[0].float()
    _, weights, chosen = theirs.gate(x)
    got = ours(x[0], Picks(chosen, weights.float()), backend).float()
    assert ((got - expected).abs().max() / expected.abs().max()).item() <= bound
