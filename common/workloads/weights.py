"""Where do the weights come from? Seeded random numbers, or a checkpoint's, layer by layer.

A model is made on the meta device and filled one module at a time, and each filled module is
handed to `after_module` (which quantises it) before the next is allocated. So the peak of memory
is that of the finished model plus the largest module (one layer, or the head), plus what
`after_module` itself needs. A run that reports its peak resets the counter after the build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from common.workloads.llama import Llama, LlamaConfig, rope_frequencies

# Gets each layer, then the final norm, then the head (a bare nn.Linear: torchao's `quantize_` takes
# one, it replaces the weight in place). It must replace weights, never write into them: the head of
# a model with tied embeddings still shares its storage with the embedding.
AfterModule = Callable[[nn.Module], None]
Fill = Callable[[str, nn.Module], None]

ROW_SPREAD = 0.5
"""Standard deviation of the logarithm of a row's size, in random weights."""


def meta_model(config: LlamaConfig) -> Llama:
    """The model without storage: shapes and names only, float32."""
    with torch.device("meta"):
        return Llama(config)


def parameter_counts(config: LlamaConfig) -> dict[str, int]:
    """Exact numbers of parameters, counted on the meta device (nothing is allocated).

    `total` counts a tied embedding once; `linear` counts every weight that a linear layer reads
    when one token is decoded; `largest_linear` is the largest single one of them.
    """
    model = meta_model(config)
    linears = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)]
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "linear": sum(linears),
        "largest_linear": max(linears),
    }


def fill_order(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a decoder that are filled one after the other, by name, in the order of the
    forward pass.

    A tied head is among them, though it has nothing of its own to fill.
    """
    layers = [f"layers.{name}" for name, _ in model.get_submodule("layers").named_children()]
    for name in ("embed_tokens", *layers, "norm", "lm_head"):
        yield name, model.get_submodule(name)


@torch.no_grad()
def build_filled(
    config: LlamaConfig,
    device: torch.device,
    dtype: torch.dtype,
    fill: Fill,
    after_module: AfterModule | None = None,
) -> Llama:
    """A model whose modules `fill(name, module)` fills with values; caches and `rope` are set here.

    `fill` gets each module of `fill_order` with storage on `device` in `dtype` and undefined
    values; it is not called for a tied head.
    """
    model = meta_model(config).to(dtype).eval().requires_grad_(False)
    for name, module in fill_order(model):
        if name == "lm_head" and config.tied_embeddings:
            # Allocating the embedding made a new parameter, which the head does not know yet.
            model.lm_head.weight = model.embed_tokens.weight
        else:
            module.to_empty(device=device)
            for buffer in module.buffers():
                buffer.zero_()
            fill(name, module)
        if after_module is not None and name != "embed_tokens":
            after_module(module)
    # The meta device kept no values and `.to(dtype)` took the precision: computed again.
    model.rope = rope_frequencies(config).to(device)
    return model.requires_grad_(False)


def build_random(
    config: LlamaConfig,
    device: torch.device,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    after_module: AfterModule | None = None,
) -> Llama:
    """A model with seeded random weights: normal, of mean square 1 / columns; ones for norms.

    This spread keeps activations and logits of order one, with tied embeddings too. The rows
    differ in size (log-normal, as those of trained models do): were they alike, exchanging the
    scales of quantised rows would hardly be an error, and no check could find it. The same seed
    gives the same weights in every process on the same kind of device with the same torch; another
    device or dtype draws other numbers.
    """
    generator = torch.Generator(device=device).manual_seed(seed)

    def fill(name: str, module: nn.Module) -> None:
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
            rows = torch.empty(parameter.shape[0], 1, device=device)
            rows.normal_(0.0, ROW_SPREAD, generator=generator)
            # exp(-sigma^2) makes the mean square of exp(N(0, sigma)) one.
            parameter.mul_((rows - ROW_SPREAD**2).exp().to(dtype))

    return build_filled(config, device, dtype, fill, after_module)


@torch.no_grad()
def renew_memory(
    model: nn.Module, copy: Callable[[torch.Tensor], torch.Tensor] = torch.clone
) -> None:
    """Move every weight and buffer to freshly allocated memory (that of `copy`), values unchanged.

    Quantised weights keep their parts in tensors of their own; those are moved. The tensor objects
    stay the same, so compiled code goes on using them.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        for part in stored_parts(tensor):
            part.data = copy(part.data)


def stored_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that hold a parameter's bytes: itself, or a subclass's parts."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return [tensor]
    return [part for name in flatten()[0] for part in stored_parts(getattr(tensor, name))]
