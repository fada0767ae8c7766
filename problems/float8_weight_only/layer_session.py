"""One library's float8 linear layers in one process, many enough that no cache holds them.

Served by `common.timing.worker` for `study_layers.py`. All layers are applied to the same rows of
activations, one after the other, as one compiled graph (on a GPU replayed from a CUDA graph), so
neither Python nor launches are what is timed. "copy" is no library: it copies the bytes that the
float8 weights have, which is what the others are measured against.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.recording.environment import package_version
from common.timing.clocks import CpuClock, CudaClock

SEED = 20251121
LIBRARIES = ("copy", "bf16", "torchao", "gemlite", "fused")


def layer_of(library: str, plain: nn.Linear, device: torch.device) -> nn.Module:
    """The library's replacement of one bfloat16 layer."""
    if library == "torchao":
        from torchao import quantization as ao

        ao.quantize_(plain, ao.Float8WeightOnlyConfig())
    elif library == "fused":
        from fused_float8 import packing  # beside this file

        packing.quantize_(plain)
    elif library == "gemlite":
        from gemlite import helper

        made: nn.Module = helper.A16W8_FP8(device=str(device), dtype=torch.bfloat16).from_linear(
            plain, del_orig=False
        )
        return made
    return plain


class Session:
    """What `common.timing.worker.Session` describes; its phases are "M=1", "M=4" and so on."""

    def __init__(self, library: str, preset: Mapping[str, Any], device: str) -> None:
        if library not in LIBRARIES:
            raise ValueError(f"unknown library {library!r}; use one of {', '.join(LIBRARIES)}")
        self.library, self.device = library, torch.device(device)
        self.rows, self.columns = int(preset["rows"]), int(preset["columns"])
        self.count, self.batches = int(preset["count"]), [int(m) for m in preset["batches"]]
        self.clock = CudaClock() if self.device.type == "cuda" else CpuClock()
        self.passes: dict[str, Callable[[], object]] = {}

    @property
    def elements(self) -> int:
        return self.rows * self.columns * self.count

    def needs_bytes(self) -> int:
        return 2 * self.elements + 16 * self.rows * self.columns

    @torch.no_grad()
    def prepare(self) -> Mapping[str, Any]:
        started = time.perf_counter()
        facts: dict[str, Any] = {
            "torch": torch.__version__,
            "torchao": package_version("torchao") if self.library == "torchao" else None,
            "gemlite": package_version("gemlite") if self.library == "gemlite" else None,
            "triton": package_version("triton"),
            "weights": self.elements,
        }
        if self.library == "copy":
            self._prepare_copy()
        else:
            facts["error"] = self._prepare_layers()
        for run in self.passes.values():
            for _ in range(3):  # compiled, captured, replayed
                run()
        return {**facts, "prepare_seconds": round(time.perf_counter() - started, 2)}

    def _prepare_copy(self) -> None:
        source = torch.empty(self.elements, dtype=torch.uint8, device=self.device).random_()
        target = torch.empty_like(source)
        self.passes = {f"M={m}": lambda: target.copy_(source) for m in self.batches}

    def _prepare_layers(self) -> float:
        """Build all layers; returns the largest relative error of the first one, over all M."""
        generator = torch.Generator(device=self.device).manual_seed(SEED)
        layers, reference = [], None
        for _ in range(self.count):
            plain = nn.Linear(self.columns, self.rows, bias=False, device=self.device)
            plain = plain.to(torch.bfloat16).requires_grad_(False)
            plain.weight.normal_(0.0, self.columns**-0.5, generator=generator)
            if reference is None:
                reference = plain.weight.clone()
            layers.append(layer_of(self.library, plain, self.device))
        if self.device.type == "cuda" and self.library != "bf16":
            torch.cuda.empty_cache()

        def all_layers(x: Tensor) -> list[Tensor]:
            return [layer(x) for layer in layers]

        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        compiled: Any = torch.compile(all_layers, dynamic=False, mode=mode)
        worst = 0.0
        assert reference is not None
        for m in self.batches:
            x = torch.randn(m, self.columns, device=self.device, generator=generator).bfloat16()
            wanted = x.float() @ reference.float().T
            error = (compiled(x)[0].float() - wanted).norm() / wanted.norm()
            worst = max(worst, float(error))
            self.passes[f"M={m}"] = partial(self._replayed, compiled, x)
        return worst

    def _replayed(self, compiled: Any, x: Tensor) -> object:
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return compiled(x)

    @torch.no_grad()
    def sample(self) -> Mapping[str, int]:
        return {name: self.clock.measure(run) for name, run in self.passes.items()}

    def renew(self) -> None:
        """Nothing: a GPU's graphs hold the addresses."""

    def outputs(self, path: Path) -> None:
        raise NotImplementedError("the error is in the facts of prepare")

    def profile(self, folder: Path) -> Mapping[str, Any]:
        raise NotImplementedError("use worklog ncu for these kernels")


def open_session(
    variant: Mapping[str, Any], preset: Mapping[str, Any], device: str, options: Mapping[str, Any]
) -> Session:
    return Session(str(variant["library"]), preset, device)
