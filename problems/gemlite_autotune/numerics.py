"""Do GemLite's kernels compute the right thing? In Triton's interpreter, on a CPU.

    TRITON_INTERPRET=1 python -m problems.gemlite_autotune.numerics

Small layers of GemLite's own helpers with random weights, its own forward, against the dequantised
weights in float32. The same with the scales shifted by one group must be rejected. The interpreter
runs one program after another: it says nothing of races or of speed. Prints one JSON line.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from problems.gemlite_autotune.compile_worker import gemlite_values
from problems.gemlite_autotune.described_device import described
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.shipped_tables import Config

SEED = 20261121
N, K, GROUP = 256, 256, 64
# fp16 keeps 11 bits: 5e-4 for the output's rounding, as much again for the scales' and the sums'.
TOLERANCE = 2e-3
CASES = (
    ("GEMV_REVSPLITK", "a16w4", 1, Config(1, 128, 32, warps=4, stages=1, dot_mode=0)),
    ("GEMM_SPLITK", "a16w4", 8, Config(16, 64, 64, warps=4, stages=1, split_k=2, group_m=8)),
    ("GEMM_SPLITK", "a16w2", 8, Config(16, 64, 64, warps=4, stages=1, split_k=2, group_m=8)),
    (
        "GEMM_SPLITK", "a16w8-grouped", 8,
        Config(16, 64, 64, warps=4, stages=1, split_k=2, group_m=8),
    ),
    ("GEMM", "a16w8-int8", 64, Config(64, 64, 64, warps=4, stages=2, group_m=8)),
)  # fmt: skip


def quantised(
    layer: Layer, shifted: bool = False, device: str = "cpu", seed: int = SEED
) -> tuple[Any, torch.Tensor]:
    """(GemLite's layer, the dequantised float32 weight [N, K]); `shifted`: with wrong scales."""
    from gemlite import helper

    n, k = layer.n, layer.k

    generator = torch.Generator().manual_seed(seed)
    weights = layer.weights
    # Rows and groups differ in size: with equal scales a mix-up would hardly show.
    if layer.group is None:
        sizes = torch.exp(0.5 * torch.randn((n, 1), generator=generator))
        weight = (sizes * torch.randn((n, k), generator=generator)).half()
        scale = weight.float().abs().amax(dim=1, keepdim=True) / 127
        codes = (weight.float() / scale).round().clamp(-128, 127).to(torch.int8)
        given = scale.roll(1, dims=0) if shifted else scale
        # Scaled after the sum: the interpreter cannot run GEMM with scales inside its loop.
        make = getattr(helper, weights.helper)(device=device, dtype=torch.float16, post_scale=True)
        return (
            make.from_weights(codes.to(device), scales=given.half().to(device)),
            codes.float() * scale.half().float(),
        )
    groups = k // layer.group
    top = 2**weights.bits - 1
    codes = torch.randint(0, top + 1, (n, k), generator=generator, dtype=torch.uint8)
    scale = torch.exp(0.5 * torch.randn((n, groups, 1), generator=generator)).half() / top
    zero = torch.full((n, groups, 1), (top + 1) / 2).half()
    exact = (codes.view(n, groups, -1).float() - zero.float()) * scale.float()
    given = scale.roll(1, dims=1) if shifted else scale
    make = getattr(helper, weights.helper)(device=device, dtype=torch.float16)
    made = make.from_weights(
        codes.to(device), given.reshape(-1, 1).to(device), zero.reshape(-1, 1).to(device)
    )
    return made, exact.view(n, k)


def relative_error(family: str, layer: Layer, m: int, config: Config, shifted: bool) -> float:
    """||y - x W^T|| / ||x W^T|| of GemLite's own forward with this configuration."""
    from gemlite import core

    made, exact = quantised(layer, shifted)
    table = {str(layer.key(m)): gemlite_values(config)}
    core.GEMLITE_TRITON_CONFIG_CACHE.clear()
    core.GEMLITE_TRITON_CONFIG_CACHE[family] = table
    generator = torch.Generator().manual_seed(SEED + 1)
    x = torch.randn((m, K), generator=generator).half()
    found = made.forward_manual(x, family).float()
    wanted = x.float() @ exact.t()
    return float((found - wanted).norm() / wanted.norm())


def main() -> None:
    torch.set_num_threads(1)
    cases = []
    with described(describe("rtx-4090")):
        for family, name, m, config in CASES:
            layer = Layer(N, K, name, None if name == "a16w8-int8" else GROUP)
            for shifted in (False, True):
                cases.append(
                    {
                        "name": f"{family}_{name}{'_shifted' if shifted else ''}",
                        "family": family,
                        "format": name,
                        "what": "scales shifted by one" if shifted else "as quantised",
                        "wrong": shifted,
                        "tolerance": TOLERANCE,
                        "error": relative_error(family, layer, m, config, shifted),
                    }
                )
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
