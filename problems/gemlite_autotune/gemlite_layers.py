"""GemLite's own layers at any shape, without the time that packing real weights takes.

A layer of each format is made once, small, by GemLite's own helper; for another shape its tensors
are replaced by uninitialised ones of the same types and memory order. Nothing here computes with
them: they are for launches that are intercepted or only compiled. Use inside `described(gpu)`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from problems.gemlite_autotune.layers import BLOCK_SCALE, Layer

SMALL_N = 640  # five blocks of 128, and no other dimension of a small layer
GROUPS = 3  # of a small layer


def activation_type(layer: Layer) -> torch.dtype:
    return torch.float16 if layer.activation == "fp16" else torch.bfloat16


def small_k(layer: Layer) -> int:
    kind = layer.weights.group
    if kind == "given":
        assert layer.group is not None
        return GROUPS * max(layer.group, 32)
    return GROUPS * BLOCK_SCALE


def make_small(layer: Layer, k: int, n: int, values: Any = None) -> Any:
    """A real layer of GemLite's own helper. `values` None: all ones."""
    from gemlite import helper

    weights = layer.weights
    dtype = activation_type(layer)
    make = getattr(helper, weights.helper)
    if weights.microscaling:
        scales = torch.ones(n, k // 32).to(torch.float8_e8m0fnu)
        if weights.bits == 8:
            codes = torch.ones(n, k).to(torch.float8_e4m3fn)
        else:
            codes = torch.ones((n, k), dtype=torch.uint8)
        if weights.helper.startswith("A16"):
            return make(device="cpu", dtype=dtype).from_weights(codes, scales.float())
        return make(device="cpu", dtype=dtype).from_weights(codes, scales=scales)
    if weights.group == "given":
        assert layer.group is not None
        ones = torch.ones((n * k // layer.group, 1), dtype=dtype)
        codes = torch.ones((n, k), dtype=torch.uint8)
        return make(device="cpu", dtype=dtype).from_weights(codes, ones, ones)
    block = {"block_quant": True} if weights.scale_mode == 5 else {}
    return make(device="cpu", dtype=dtype, **block).from_weights(torch.ones((n, k), dtype=dtype))


@cache
def _small(format: str, group: int | None, activation: str) -> Any:
    layer = Layer(SMALL_N, 32, format, group, activation)
    return make_small(layer, small_k(layer), SMALL_N)


def _empty_like(old: Tensor, sizes: dict[int, int]) -> Tensor:
    shape = [sizes.get(size, size) for size in old.shape]
    across = old.dim() == 2 and old.stride(0) == 1 and old.shape[0] > 1
    strides = [1, shape[0]] if across else None
    if strides is None:
        return torch.empty(shape, dtype=old.dtype)
    return torch.empty_strided(shape, strides, dtype=old.dtype)


def gemlite_layer(layer: Layer) -> Any:
    """A GemLite layer of this shape and format, its values uninitialised."""
    import copy

    template = _small(layer.format, layer.group, layer.activation)
    k0, e = small_k(layer), layer.weights.elements_per_sample
    group0 = {"given": layer.group or 0, "whole": k0, "32": 32}[layer.weights.group]
    made = copy.copy(template)
    made._parameters, made._buffers = dict(template._parameters), dict(template._buffers)
    made.forward = made.forward_auto_no_warmup  # the copy's own, not the template's
    sizes = {SMALL_N: layer.n, k0 // e: layer.k // e}
    blocks = layer.weights.scale_mode == 5
    if blocks:
        scale_sizes = {GROUPS: -(-layer.k // BLOCK_SCALE), 5: -(-layer.n // BLOCK_SCALE)}
    else:
        scale_sizes = {SMALL_N: layer.n, k0 // group0: layer.k // layer.group_size}
    for name, wanted in (("W_q", sizes), ("scales", scale_sizes), ("zeros", scale_sizes)):
        old = getattr(template, name)
        new = old if old.numel() <= 1 else _empty_like(old, wanted)
        made._parameters[name] = torch.nn.Parameter(new, requires_grad=False)
    made.in_features, made.out_features = layer.k, layer.n
    made.group_size = layer.group_size
    return made


def batch(layer: Layer, m: int) -> Tensor:
    return torch.empty((m, layer.k), dtype=activation_type(layer))
