"""Where do a mixture's weights come from? Seeded random numbers, layer by layer.

As `weights` does for the Llama: made on the meta device, filled one module at a time, each handed
to `after_module` (which may quantise it) before the next takes memory.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from common.errors import UsageError
from common.workloads.llama import rope_frequencies
from common.workloads.moe import MoeLayer, SimpleMoETransformer
from common.workloads.moe_config import CONFIGS, MoeConfig
from common.workloads.moe_routing import Router
from common.workloads.weights import AfterModule, Fill, fill_order


def named_config(name: str, layers: int | None = None) -> MoeConfig:
    """The named shapes, with only the first `layers` layers if given."""
    if name not in CONFIGS:
        raise UsageError(f"no model is called {name!r}; choose from {', '.join(CONFIGS)}")
    config = CONFIGS[name]
    if layers is None:
        return config
    if not 1 <= layers <= config.layers:
        raise UsageError(f"{name} has {config.layers} layers; choose from 1 to that, not {layers}")
    return dataclasses.replace(config, experts=config.experts[:layers])


def meta_moe(config: MoeConfig) -> SimpleMoETransformer:
    """The model without storage: shapes and names only, float32."""
    with torch.device("meta"):
        return SimpleMoETransformer(config)


def moe_parameter_counts(config: MoeConfig) -> dict[str, int]:
    """`total`, `experts` (in stacks), and `per_token`: what one token's forward pass reads."""
    model = meta_moe(config)
    total = sum(p.numel() for p in model.parameters())
    each = config.expert_weights()
    experts = sum(config.experts) * each
    used = sum(min(config.top_k, count) for count in config.experts) * each
    embedding = config.vocab * config.dim
    idle = experts - used + (0 if config.tied_embeddings else embedding)
    return {"total": total, "experts": experts, "per_token": total - idle}


@torch.no_grad()
def build_filled_moe(
    config: MoeConfig,
    device: torch.device,
    dtype: torch.dtype,
    fill: Fill,
    after_module: AfterModule | None = None,
) -> SimpleMoETransformer:
    """A model whose modules `fill(name, module)` fills; routers are kept in float32."""
    model = meta_moe(config).to(dtype).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Router):
            module.to(torch.float32)
    for name, module in fill_order(model):
        if name == "lm_head" and config.tied_embeddings:
            model.lm_head.weight = model.embed_tokens.weight
        else:
            module.to_empty(device=device)
            fill(name, module)
        if after_module is not None and name != "embed_tokens":
            after_module(module)
    model.rope = rope_frequencies(config.attention_shape()).to(device)
    return model.requires_grad_(False)


def build_random_moe(
    config: MoeConfig,
    device: torch.device,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    after_module: AfterModule | None = None,
) -> SimpleMoETransformer:
    """Seeded random weights: normal, of mean square 1 / columns; ones for norms, zeros for biases.

    The same seed gives the same weights in every process on the same kind of device with the same
    torch. Every expert is drawn by itself: equal experts would hide a wrong routing.
    """
    generator = torch.Generator(device=device).manual_seed(seed)

    def fill(name: str, module: nn.Module) -> None:
        for key, parameter in module.named_parameters():
            if key.endswith(".bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)

    return build_filled_moe(config, device, dtype, fill, after_module)


def moe_blocks(model: SimpleMoETransformer) -> list[MoeLayer]:
    """The layers, typed (an nn.ModuleList does not say what it holds)."""
    layers = []
    for layer in model.layers:
        assert isinstance(layer, MoeLayer)
        layers.append(layer)
    return layers
