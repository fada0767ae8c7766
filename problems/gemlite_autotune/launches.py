"""What would GemLite launch? Its own forward, with every launch intercepted.

The autotuner's list is taken after GemLite's own pruner has run; where more than one configuration
is left the forward ends there, as no time can be given to any of them. Use inside `described`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from problems.gemlite_autotune.gemlite_layers import batch, gemlite_layer
from problems.gemlite_autotune.layers import BLOCK_SCALE, Layer
from problems.gemlite_autotune.shipped_tables import Config, parse_config

FAMILY_OF_KERNEL = {
    "gemm_INT_kernel": "GEMM",
    "gemm_MX_kernel": "GEMM",
    "gemm_splitK_INT_kernel": "GEMM_SPLITK",
    "gemm_splitK_MX_kernel": "GEMM_SPLITK",
    "gemv_INT_revsplitK_kernel": "GEMV_REVSPLITK",
    "gemv_INT_splitK_kernel": "GEMV_SPLITK",
    "gemv_INT_kernel": "GEMV",
    "gemv_MX_kernel": "GEMV",
}


class WouldTune(Exception):
    """Not one configuration is left but several, to be timed, or none, which is an error."""


@dataclass(frozen=True)
class Intercepted:
    """One launch, or one list to tune over, of GemLite's own forward.

    `configs` are Triton's own objects; `function` with `arguments` and `keywords` is what the
    autotuner would call for each of them. `launched`: there was exactly one, and it was launched.
    No configuration at all means that GemLite fails with an error at this batch.
    """

    kernel: str
    family: str
    configs: tuple[Any, ...]
    launched: bool
    function: Any
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    @property
    def parsed(self) -> tuple[Config, ...]:
        return tuple(parse_config(config.all_kwargs()) for config in self.configs)


def stand_ins() -> dict[str, Callable[..., Any]]:
    """Activation quantisation without its kernels: types, shapes and order of what they return."""

    def per_token(x: torch.Tensor, w_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(x.shape, dtype=w_dtype), torch.empty((x.shape[0], 1))

    def per_block(x: torch.Tensor, w_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = -(-x.shape[1] // BLOCK_SCALE)
        return torch.empty(x.shape, dtype=w_dtype), torch.empty((x.shape[0], blocks))

    def mxfp8(x: torch.Tensor, w_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        scales = torch.empty((x.shape[0], x.shape[1] // 32), dtype=torch.uint8)
        return torch.empty(x.shape, dtype=w_dtype), scales

    def mxfp4(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scales = torch.empty((x.shape[0], x.shape[1] // 32), dtype=torch.uint8)
        return torch.empty((x.shape[0], x.shape[1] // 2), dtype=torch.uint8), scales

    return {
        "scale_activations_per_token": per_token,
        "scale_activations_per_block": per_block,
        "scale_activations_mxfp8": mxfp8,
        "scale_activations_mxfp4": mxfp4,
    }


def give_gemv_its_table() -> None:
    """GEMV keeps one small tensor per GPU, by its number; a CPU tensor has the number None."""
    from gemlite.triton_kernels import gemv_kernels

    gemv_kernels.fp4_mapping = {None: torch.zeros(16, dtype=torch.int8)}


@contextlib.contextmanager
def replaced(owner: Any, names: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in names}
    for name, value in names.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def intercept(layer: Layer, m: int, family: str | None = None) -> Intercepted:
    """Run GemLite's forward for one batch as in a fresh process, without launching anything.

    `family` forces a route, as `forward_manual` does. What the tables hold is GemLite's own
    business: call `use_tables` before.
    """
    from gemlite import core
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.errors import AutotunerError
    from triton.runtime.jit import JITFunction

    seen: dict[str, Any] = {}

    def prune(self: Any, keywords: dict[str, Any]) -> list[Any]:
        try:
            configs = original_prune(self, keywords)
        except AutotunerError:  # its pruner leaves nothing: this batch fails on a GPU
            configs = []
        seen.update(
            configs=tuple(configs),
            function=self.fn,
            arguments=tuple(self.nargs.values()),
            keywords=dict(keywords),
            kernel=self.base_fn.__name__,
        )
        if len(configs) != 1:
            raise WouldTune
        return list(configs)

    def launch(self: Any, *arguments: Any, **keywords: Any) -> None:
        seen["launches"] = seen.get("launches", 0) + 1

    original_prune = Autotuner.prune_configs
    for kernels in core.GEMLITE_TRITON_KERNELS:
        for kernel in kernels.kernel:
            kernel.cache.clear()  # a fresh process has tuned nothing
    give_gemv_its_table()
    made, x = gemlite_layer(layer), batch(layer, m)
    with (
        replaced(core, stand_ins()),
        replaced(Autotuner, {"prune_configs": prune}),
        replaced(JITFunction, {"run": launch}),
    ):
        try:
            if family is None:
                made.forward(x)
            else:
                made.forward_manual(x, family)
            launched = True
        except WouldTune:
            launched = False
    if launched and seen.get("launches") != 1:
        raise RuntimeError(f"{layer}: {seen.get('launches', 0)} launches of {seen.get('kernel')}")
    seen.pop("launches", None)
    return Intercepted(family=FAMILY_OF_KERNEL[seen["kernel"]], launched=launched, **seen)


def use_tables(shipped: bool, mode: str | None = None) -> None:
    """Load the device's shipped table, or none; `mode` also sets the autotuner's list."""
    from gemlite import core

    if mode is not None:
        set_mode(mode)
    core.GemLiteLinear.reset_config()
    if shipped:
        core.GemLiteLinear.load_config(core.get_default_cache_config())


def set_mode(mode: str) -> None:
    """`set_autotune`, and `core`'s list of kernels renewed.

    GemLite reloads its kernel modules. Its forward finds the new kernels there, but the list that
    `core` keeps, by which `intercept` clears what was tuned, holds those of the first import.
    """
    import importlib

    import gemlite
    from gemlite import core

    gemlite.set_autotune(mode)
    kernels = []
    for old in core.GEMLITE_TRITON_KERNELS:
        module = importlib.import_module(old.forward.__module__)
        kernels.append(getattr(module, old.__name__))
    core.GEMLITE_TRITON_KERNELS[:] = kernels
    core.GEMLITE_TRITON_MAPPING.update({kernel.matmul_type: kernel for kernel in kernels})
