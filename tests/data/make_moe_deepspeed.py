"""Does our mixture of experts compute what DeepSpeed's does? Makes the small reference.

    DS_ACCELERATOR=cpu python tests/data/make_moe_deepspeed.py

Writes `moe_deepspeed.safetensors` beside itself: one layer's random weights, an input, and what
`deepspeed.moe.layer.MoE` computes for it in eval, for k = 1, 2 and 4, with and without the residual
expert. Needs torch and deepspeed (0.19.8 was used; its first call builds a small extension with
g++ and ninja); the tests that read the result need only torch.

DeepSpeed's defaults would make this no reference, so they are set: the second expert of top-2 is
chosen with random noise even in eval (`top2_2nd_expert_sampling`), tokens beyond an expert's
capacity are dropped even in eval (`drop_tokens`), and all experts begin as copies of one (every
parameter is drawn anew here, or a wrong routing would go unnoticed).
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ |= {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}

import deepspeed
import torch
from deepspeed.moe.layer import MoE
from safetensors.torch import save_file

from common.workloads.moe import GatedMlp

HIDDEN, WIDTH, EXPERTS, TOKENS = 16, 24, 4, 16
CASES = [(k, residual) for k in (1, 2, 4) for residual in (False, True)]


def layer(k: int, residual: bool) -> MoE:
    made = MoE(
        HIDDEN,
        GatedMlp(HIDDEN, WIDTH),
        num_experts=EXPERTS,
        k=k,
        use_residual=residual,
        min_capacity=0,
        drop_tokens=False,
        top2_2nd_expert_sampling=False,
    )
    made.set_deepspeed_parallelism()
    return made.eval()


@torch.no_grad()
def main() -> None:
    deepspeed.init_distributed(dist_backend="gloo")
    generator = torch.Generator().manual_seed(7)
    weights = {
        name: torch.empty_like(parameter).normal_(0.0, 0.3, generator=generator)
        for name, parameter in layer(2, True).named_parameters()
    }
    stored = dict(weights)
    stored["input"] = torch.randn(TOKENS, HIDDEN, generator=generator)
    for k, residual in CASES:
        made = layer(k, residual)
        own = made.state_dict().keys()
        made.load_state_dict({name: weights[name] for name in own})
        first, second = (made(stored["input"])[0] for _ in range(2))
        assert torch.equal(first, second), "a reference must not be random"
        stored[f"output k={k} residual={residual}"] = first
    versions = {"deepspeed": deepspeed.__version__, "torch": torch.__version__}
    path = Path(__file__).with_name("moe_deepspeed.safetensors")
    save_file(stored, path, metadata=versions)
    path.chmod(0o644)


if __name__ == "__main__":
    main()
