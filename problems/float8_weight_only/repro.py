"""Reproduce the slowdown: quantise a Llama with torchao, compile its decode step, run it.

    .venv/bin/python problems/float8_weight_only/repro.py --variant float8wo-0.13.0 --preset tiny

One variant, one process, top to bottom: build and quantise layer by layer, warm up, then prefill a
prompt and decode some tokens. Only decode is compiled unless --compile-prefill is given, as in
GPT-Fast, and on a GPU it is replayed from a CUDA graph (`reduce-overhead`). Every phase runs
in a range of its own name (quantise, compile, warm-up, prefill, decode, decode step), which NVTX,
torch.profiler and the reports all show. The last line of the output is one JSON document.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.recording import ranges
from common.recording.environment import compiler_version, package_version
from common.recording.profilers import record_trace
from common.recording.ranges import named_range
from common.timing.clocks import CpuClock, CudaClock
from common.workloads.checkpoint import build_from_checkpoint, config_from_checkpoint
from common.workloads.llama import CONFIGS, Llama, LlamaConfig
from common.workloads.weights import (
    build_random,
    parameter_counts,
    renew_memory,
    stored_parts,
)

SEED = 20251120
PROFILED_STEPS = 5
WARM_UP_STEPS = 3
# Bytes of temporaries per element of the largest linear at the peak: 14 while float8 is dequantised
# (0.13.0), reserved twice where a CUDA graph keeps a pool beside eager prefill's.
TEMPORARY_BYTES = {"bf16": 0, "float8wo": 2 * 14, "float8-fused": 9}  # 9: its weight being packed
OTHER_TEMPORARY_BYTES = 4
UNQUANTISED = ("bf16", "bf16-gemv", "bf16-decomposed")
WITHOUT_TORCHAO = (*UNQUANTISED, "float8-fused")


def quantiser(scheme: str) -> Callable[[nn.Module], None] | None:
    """The real torchao call that replaces the linear weights of a module in place, or our own."""
    if scheme in ("bf16", "bf16-decomposed"):
        return None
    if scheme == "bf16-gemv":
        from fused_float8 import tuned_bf16  # beside this file

        use_gemv: Callable[[nn.Module], None] = tuned_bf16.use_gemv_
        return use_gemv
    if scheme == "float8-fused":
        from fused_float8 import packing  # beside this file

        def pack(module: nn.Module) -> None:
            with named_range(ranges.QUANTISE):
                packing.quantize_(module)

        return pack
    from torchao import quantization as ao

    if scheme == "float8wo":
        config = ao.Float8WeightOnlyConfig()
    elif scheme == "int8wo":
        config = ao.Int8WeightOnlyConfig()
    elif scheme == "float8dq-tensor":
        config = ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerTensor())
    else:
        raise ValueError(f"unknown scheme {scheme!r}; use one of problem.toml's variants")

    def quantise(module: nn.Module) -> None:
        with named_range(ranges.QUANTISE):
            ao.quantize_(module, config)

    return quantise


def configure_inductor() -> None:
    """The flags that torchao's `quantize_` sets, for every variant: they must not be a variable.

    `coordinate_descent_tuning` decides whether a matrix product with one row becomes a
    multiply-and-sum that can fuse with the dequantisation (on a GPU).
    """
    from torch._inductor import config

    config.coordinate_descent_tuning = True
    config.coordinate_descent_check_all_directions = True
    config.force_fuse_int_mm_with_mul = True
    config.triton.unique_kernel_names = True
    # Names each fused C++ kernel in traces. Set when timing too: what is profiled is what is timed.
    config.cpp.enable_kernel_profile = True
    torch.set_float32_matmul_precision("high")


def permute_scales(model: Llama) -> None:
    """Wrong on purpose: give every row of each quantised weight the scale of the row before it."""
    for linear in linears(model):
        scale: Tensor = getattr(linear.weight, "scale")  # noqa: B009 (torchao's own attribute)
        scale.copy_(scale.roll(1, dims=0))


def linears(model: Llama) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def weight_bytes(model: Llama) -> tuple[int, int]:
    """(bytes of all linear weights as stored, how many of the linears are quantised)."""
    # Buffers: the scales of our own layers; torchao keeps them inside the weight.
    parts = [[*stored_parts(each.weight), *each.buffers()] for each in linears(model)]
    stored = sum(part.nbytes for each in parts for part in each)
    return stored, sum(any(part.itemsize == 1 for part in each) for each in parts)


class Session:
    """One variant in one process; what `common.timing.worker.Session` describes."""

    def __init__(
        self,
        scheme: str,
        model: str,
        prompt_tokens: int,
        decode_steps: int,
        device: str,
        permute_scales: bool = False,
        patches: Sequence[str] = (),
        compiled: str = "decode",
        checkpoint: str | None = None,
        compile_prefill: bool = False,
        profiled: bool = False,
    ) -> None:
        self.scheme, self.decode_steps, self.permute = scheme, decode_steps, permute_scales
        self.device = torch.device(device)
        self.checkpoint = Path(checkpoint) if checkpoint else None
        self.patches, self.compiled = patches, "all" if compile_prefill else compiled
        self.profiled = profiled
        cache_length = prompt_tokens + max(decode_steps, PROFILED_STEPS) + 1
        if self.checkpoint:
            self.config: LlamaConfig = config_from_checkpoint(self.checkpoint, cache_length)
        else:
            self.config = CONFIGS[model].with_cache_length(cache_length)
        generator = torch.Generator().manual_seed(SEED)
        tokens = torch.randint(self.config.vocab, (cache_length,), generator=generator)
        self.prompt = tokens[:prompt_tokens].to(self.device)
        self.forced = tokens[prompt_tokens:].to(self.device)  # teacher forcing: same for all
        self.prompt_positions = torch.arange(prompt_tokens, device=self.device)
        self.clock = CudaClock() if self.device.type == "cuda" else CpuClock()

    def needs_bytes(self) -> int:
        counts = parameter_counts(self.config)
        per_weight = 2 if self.scheme in UNQUANTISED else 1
        kept = per_weight * counts["linear"] + 2 * (counts["total"] - counts["linear"])
        if self.config.tied_embeddings and self.scheme not in UNQUANTISED:
            kept += 2 * counts["largest_linear"]  # the embedding stays beside the quantised head
        temporaries = TEMPORARY_BYTES.get(self.scheme, OTHER_TEMPORARY_BYTES)
        return kept + temporaries * counts["largest_linear"] + (1 << 29)

    @torch.no_grad()
    def prepare(self) -> Mapping[str, Any]:
        started = time.perf_counter()
        quantise = quantiser(self.scheme)
        if self.patches:
            import ablation  # beside this file

            ablation.apply(self.patches)
        if self.scheme == "bf16-decomposed":
            from fused_float8 import tuned_bf16  # beside this file

            tuned_bf16.decompose_one_row()
        configure_inductor()
        if self.checkpoint:
            self.model = build_from_checkpoint(
                self.checkpoint,
                self.device,
                max_positions=self.config.max_positions,
                after_module=quantise,
            )
        else:
            self.model = build_random(self.config, self.device, SEED, after_module=quantise)
        if self.permute:
            permute_scales(self.model)
        built = time.perf_counter()
        # Operators cannot be seen inside a graph replay, so the profiled session goes without.
        graphs = self.device.type == "cuda" and not self.profiled
        mode = "reduce-overhead" if graphs else "default"
        compiled = torch.compile(self.model, fullgraph=True, mode=mode)
        self.step = self.model if self.compiled == "none" else compiled
        self.fill = compiled if self.compiled == "all" else self.model
        with named_range(ranges.COMPILE):
            self._decode_step(0)
            self._prefill()
        ready = time.perf_counter()
        with named_range(ranges.WARM_UP):
            self._prefill()
            for index in range(min(WARM_UP_STEPS, len(self.forced))):
                self._decode_step(index)
        stored, quantised = weight_bytes(self.model)
        return {
            "torch": torch.__version__,
            "torchao": package_version("torchao") if self.scheme not in WITHOUT_TORCHAO else None,
            "triton": package_version("triton"),
            "numpy": package_version("numpy"),
            "compiler": compiler_version() if self.device.type == "cpu" else None,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "compile_mode": mode,
            "parameters": parameter_counts(self.config),
            "linear_weight_bytes": stored,
            "quantised_linears": quantised,
            # Independent errors of linears in a row add in quadrature.
            "tolerance_scale": math.sqrt(len(linears(self.model))),
            "build_seconds": round(built - started, 2),
            "compile_seconds": round(ready - built, 2),
        }

    def _prefill(self) -> Tensor:
        with named_range(ranges.PREFILL):
            logits: Tensor = self.fill(self.prompt, self.prompt_positions)
            return logits

    def _decode_step(self, index: int) -> Tensor:
        position = self.prompt_positions[-1:] + 1 + index
        with named_range(ranges.DECODE_STEP):
            if self.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            logits: Tensor = self.step(self.forced[index : index + 1], position)
            return logits

    def _decode(self, steps: int) -> None:
        with named_range(ranges.DECODE):
            for index in range(steps):
                self._decode_step(index)

    @torch.no_grad()
    def sample(self) -> Mapping[str, int]:
        """ns of one prefill and of `decode_steps` decode steps."""
        return {
            "prefill": self.clock.measure(self._prefill),
            "decode": self.clock.measure(lambda: self._decode(self.decode_steps)),
        }

    @torch.no_grad()
    def renew(self) -> None:
        """Fresh pages for all weights and caches; on a GPU the graphs hold the addresses."""
        if self.device.type != "cpu":
            return
        if self.scheme in ("bf16-gemv", "float8-fused"):
            from fused_float8 import operators  # these keep their weights on huge pages

            renew_memory(self.model, operators.on_huge_pages)
        else:
            renew_memory(self.model)

    @torch.no_grad()
    def outputs(self, path: Path) -> None:
        """Logits in float32 after the prompt (1, vocab) and after each forced token."""
        prefill = self._prefill().float().cpu().numpy()
        steps = [
            self._decode_step(index).float().cpu().numpy() for index in range(self.decode_steps)
        ]
        np.savez(path, prefill=prefill[None, :], decode=np.stack(steps))

    @torch.no_grad()
    def profile(self, folder: Path) -> Mapping[str, Any]:
        """One prefill and a few decode steps under torch.profiler, with the allocation events."""

        def work() -> None:
            self._prefill()
            self._decode(PROFILED_STEPS)

        work()  # what is left to initialise must not be in the trace
        record_trace(folder / "trace.json.gz", self.device, work)
        facts: dict[str, Any] = {"profiled_decode_steps": PROFILED_STEPS}
        if self.device.type == "cuda":
            facts["allocator"] = self._allocator_peaks()
        return facts

    def _allocator_peaks(self) -> dict[str, dict[str, int]]:
        """Peak bytes per phase as the CUDA caching allocator counts them."""
        peaks = {}
        steps: dict[str, Callable[[], object]] = {
            "prefill": self._prefill,
            "decode": lambda: self._decode(PROFILED_STEPS),
        }
        for phase, step in steps.items():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            torch.cuda.synchronize()
            peaks[phase] = {
                "temporary_peak_bytes": torch.cuda.max_memory_allocated() - before,
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
                "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
            }
        return peaks


def open_session(
    variant: Mapping[str, Any],
    preset: Mapping[str, Any],
    device: str,
    options: Mapping[str, Any],
) -> Session:
    return Session(**variant, **preset, device=device, **options)


if __name__ == "__main__":
    from common.experiments.standalone import run_standalone

    run_standalone(Path(__file__), __doc__)
