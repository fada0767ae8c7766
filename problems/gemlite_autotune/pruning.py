"""Which configurations are left for a shape? GemLite's pruning rules, written down anew.

GemLite prunes inside Triton's autotuner, from its arguments at launch. The rules are restated here
as functions of a layer, so that a route can be known without torch. A test compares both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.layers import BLOCK_SCALE, Layer
from problems.gemlite_autotune.shipped_tables import Config
from problems.gemlite_autotune.spaces import raw_space

BLOCK_MODE = 5  # scale mode of block quantisation


def power_of_two(value: int) -> int:
    """The next power of two, the value itself if it is one."""
    return 1 << (value - 1).bit_length()


def candidates(
    family: str, layer: Layer, m: int, device: GpuDescription, mode: str = "fast"
) -> tuple[Config, ...]:
    """What the autotuner would time for this layer and batch, in its order, without doubles."""
    return _candidates(family, layer, batch_class(m), device, mode)


def batch_class(m: int) -> int:
    """The largest batch that the pruner treats like this one; 257 stands for all above 256."""
    if m <= 16:
        return 16
    if m < 32:
        return 31
    return next((top for top in (32, 64, 128, 256) if m <= top), 257)


@cache
def _candidates(
    family: str, layer: Layer, m: int, device: GpuDescription, mode: str
) -> tuple[Config, ...]:
    adapt = {
        "GEMM": _gemm,
        "GEMM_SPLITK": _gemm,
        "GEMV_REVSPLITK": _gemv_revsplit,
        "GEMV_SPLITK": _gemv,
        "GEMV": _gemv,
    }[family]
    found: dict[Config, None] = {}
    largest_k = (
        min(layer.k, max(layer.group_size, 32)) if not layer.weights.microscaling else layer.k
    )
    met = set()
    for config in raw_space(family, mode):
        if family.startswith("GEMM"):
            # Thousands of configurations become the same few hundred: adapt each kind once.
            kind = (
                _tile_m(family, config, m),
                min(config.block_n, layer.n),
                min(config.block_k, largest_k),
                min(config.split_k or 1, 8) if m >= 32 else config.split_k,
                config.stages,
                config.warps,
                config.a_order,
                config.group_m,
            )
            if kind in met:
                continue
            met.add(kind)
        for adapted in adapt(family, config, layer, m, device):
            found.setdefault(adapted)
    return tuple(found)


def adapted_winner(layer: Layer, config: Config, family: str) -> Config:
    """A shipped winner as it is launched: two formats have it changed on the way."""
    if not family.startswith("GEMM"):
        return config
    config = _for_scale_descriptors(config, layer)
    return _within_scale_block(config, layer)


def _for_scale_descriptors(config: Config, layer: Layer) -> Config:
    """Microscaling: tiles that a five-dimensional scale descriptor could load."""
    if not layer.weights.microscaling or layer.n % 128 or (layer.k // layer.group_size) % 4:
        return config
    block_k = config.block_k
    while (block_k // layer.group_size) % 4:
        block_k *= 2
    return replace(config, block_n=max(config.block_n, 128), block_k=block_k)


def _within_scale_block(config: Config, layer: Layer) -> Config:
    if layer.weights.scale_mode != BLOCK_MODE:
        return config
    return replace(
        config,
        block_n=min(config.block_n, BLOCK_SCALE),
        block_k=min(config.block_k, BLOCK_SCALE),
    )


def _tile_m(family: str, config: Config, m: int) -> int:
    if m <= 16:
        return 16
    if m <= 32:
        return min(max(config.block_m, 16), 32)
    if m <= 64:
        return min(max(config.block_m, 32), 64)
    if family == "GEMM_SPLITK":
        return 64
    return min(max(config.block_m, 64), 128 if m <= 128 else 256)


def _gemm(
    family: str, config: Config, layer: Layer, m: int, device: GpuDescription
) -> Iterator[Config]:
    weights = layer.weights
    if weights.elements_per_sample == 1 and config.stages == 1:
        return
    block_k = min(layer.k, config.block_k)
    if weights.microscaling:
        block_k = max(block_k, 64 if weights.elements_per_sample > 1 else 32)
    else:
        block_k = max(min(block_k, layer.group_size), 32)
    split_k = config.split_k
    if split_k is not None:
        split_k = max(min(split_k, 8) if m >= 32 else split_k, 1)
    config = replace(
        config,
        block_m=_tile_m(family, config, m),
        block_n=power_of_two(min(layer.n, config.block_n)),
        block_k=power_of_two(block_k),
        split_k=split_k,
    )
    config = _within_scale_block(_for_scale_descriptors(config, layer), layer)
    stages = config.stages
    # Note that one stage is kept even where it does not fit: such a kernel cannot be launched.
    while stages > 1 and estimated_shared_bytes(config, layer, stages) > (
        device.shared_bytes_per_block
    ):
        stages -= 1
    yield replace(config, stages=stages)


def estimated_shared_bytes(config: Config, layer: Layer, stages: int) -> int:
    """GemLite's own estimate of a block's shared memory; the compiler's figure differs."""
    weights = layer.weights
    e = weights.elements_per_sample
    a_bytes = config.block_m * config.block_k * weights.activation_bytes
    packed = config.block_k // e * config.block_n * weights.weight_bytes
    if weights.microscaling:
        scales = (config.block_m + config.block_n) * (config.block_k // layer.group_size)
        a_bytes = config.block_m * (config.block_k // e) * weights.activation_bytes
        loop = (a_bytes + packed + scales) * max(stages - 1, 1)
        return max(loop, config.block_m * config.block_n * 2)
    if e > 1:
        unpacked = config.block_k * config.block_n * weights.activation_bytes
        return int((a_bytes + packed + unpacked) * stages * 1.20)
    return (a_bytes + packed) * max(stages - 1, 1)


def _gemv(
    family: str, config: Config, layer: Layer, m: int, device: GpuDescription
) -> Iterator[Config]:
    found = _gemv_tile(config, layer)
    if found.block_k >= layer.weights.elements_per_sample:
        yield found


def _gemv_revsplit(
    family: str, config: Config, layer: Layer, m: int, device: GpuDescription
) -> Iterator[Config]:
    found = _gemv_tile(config, layer)
    block_k = found.block_k
    # Scales are loaded once for both halves, so that both must lie in one group.
    while block_k >= 8 and 2 * block_k > layer.group_size:
        block_k //= 2
    block_k = max(block_k, 8)
    if block_k >= layer.weights.elements_per_sample:
        yield replace(found, block_k=block_k)


def _gemv_tile(config: Config, layer: Layer) -> Config:
    block_k = power_of_two(min(layer.k, config.block_k, layer.group_size))
    block_n = power_of_two(min(layer.n, config.block_n))
    found = replace(config, block_m=1, block_n=block_n, block_k=block_k)
    return _within_scale_block(found, layer)
