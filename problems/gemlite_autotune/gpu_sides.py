"""Is the tuned configuration faster than the default one, and by how much? Sides, interleaved.

Each side is one configuration of the layer's kernel, launched by GemLite's own forward. One sample
is the replay of a CUDA graph that goes through several copies of the layer, more weights together
than twice the L2 cache, so that each is read from memory, as in a model; the host's part is left
out. Every side's output is compared with the dequantised product first; a wrong one is not timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import to_builtins

from common.errors import PreconditionError
from common.recording.ranges import named_range
from common.timing.clocks import Clock, CudaClock
from common.timing.sampling import StopRule, comparisons, interleave
from common.timing.statistics import summarise
from problems.gemlite_autotune.compile_worker import gemlite_values
from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.explorer import explore
from problems.gemlite_autotune.gpu_route import forget_tuning
from problems.gemlite_autotune.jobs import space_jobs, winner_job
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.numerics import SEED, TOLERANCE, quantised
from problems.gemlite_autotune.pruning import candidates
from problems.gemlite_autotune.ranking import modelled_ns
from problems.gemlite_autotune.routes import family_for
from problems.gemlite_autotune.shipped_tables import Config, Tables
from problems.gemlite_autotune.static_metrics import split_parts

RANGE = "launch"
DEFAULT, SHIPPED, TUNED, STATIC = "default", "shipped", "tuned", "static"
# Whose winners are borrowed where a GPU has no table: of the same compute capability.
DONORS = {"8.0": "a100-sxm-80gb", "8.9": "rtx-4090", "9.0": "h100-sxm", "12.0": "rtx-5090"}
MOST_COPIES = 64
RULE = StopRule(min_rounds=20, max_rounds=200, max_seconds=20.0)


def default_config(gpu: GpuDescription, layer: Layer, m: int, family: str) -> Config:
    """The first of the list that `set_autotune("default")` tunes over."""
    found = candidates(family, layer, m, gpu, "default")
    if not found:
        raise PreconditionError(f"{layer}: no default configuration for {m} rows; choose another")
    return found[0]


def shipped_config(gpu: GpuDescription, layer: Layer, m: int, tables: Tables) -> Config | None:
    """The winner of the GPU's own table, else of the same architecture's; None where none is.

    Of the family that the batch is routed to: a row under another one is not launched.
    """
    family = family_for(m, layer.weights.bits, layer.weights.microscaling)
    for donor in (None, DONORS.get(gpu.capability)):
        found = winner_job(gpu.id, layer, m, tables, donor)
        if found is not None and found.family == family:
            return found.config
    return None


def static_choice(gpu: GpuDescription, layer: Layer, m: int, mode: str = "fast") -> Config | None:
    """What the static model would take: compiled here, not run."""
    outcomes = explore(space_jobs(gpu.id, layer, m, mode))
    able = [o for o in outcomes if o.kernel is not None and o.can_launch]
    times = {o.job.config: modelled_ns(o.job, o.kernel, gpu) for o in able if o.kernel is not None}
    return min(times, key=lambda config: times[config]) if times else None


def copies_for(layer: Layer, l2_bytes: int | None) -> int:
    """How many layers it takes that none is still in the L2 cache when its turn comes again."""
    return min(MOST_COPIES, max(2, math.ceil(2 * (l2_bytes or 64 << 20) / layer.weight_bytes)))


def fix_configuration(layer: Layer, m: int, family: str, config: Config) -> None:
    """Make GemLite launch this configuration, through its own table."""
    from gemlite import core

    core.GEMLITE_TRITON_CONFIG_CACHE.clear()
    core.GEMLITE_TRITON_CONFIG_CACHE[family] = {str(layer.key(m)): gemlite_values(config)}
    forget_tuning()


def tolerance(layer: Layer, family: str, config: Config) -> float:
    """Of the relative error: each of the parts that are added in fp16 rounds the sum once more.

    A rounding of fp16 has a standard deviation of about 2e-4; 3e-4 leaves room.
    """
    return TOLERANCE + 3e-4 * math.sqrt(split_parts(family, layer, config))


def error_of(layer: Layer, m: int, family: str, config: Config, made: Any, exact: Any) -> float:
    """||y - x W^T|| / ||x W^T|| of this configuration."""
    import torch

    fix_configuration(layer, m, family, config)
    generator = torch.Generator().manual_seed(SEED + m)
    x = torch.randn((m, layer.k), generator=generator).half()
    found = made.forward_manual(x.to(made.W_q.device), family).float().cpu()
    wanted = x.float() @ exact.t()
    return float((found - wanted).norm() / wanted.norm())


def graph_of(
    layer: Layer, m: int, family: str, config: Config, layers: list[Any]
) -> Callable[[], object]:
    """One CUDA graph that launches the configuration once for each of `layers`."""
    import torch

    fix_configuration(layer, m, family, config)
    x = torch.randn((m, layer.k), device="cuda").half()
    for made in layers:  # compiled and loaded before the capture
        made.forward_manual(x, family)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for made in layers:
            made.forward_manual(x, family)
    replay: Callable[[], object] = graph.replay
    return replay


def time_sides(
    sides: Mapping[str, Callable[[], object]], copies: int, clock: Clock, rule: StopRule = RULE
) -> dict[str, Any]:
    """Samples, medians with intervals and verdicts against the default, per launch."""

    def side(replay: Callable[[], object]) -> Callable[[], Mapping[str, int]]:
        return lambda: {"launches": clock.measure(replay)}

    measured = interleave({name: side(each) for name, each in sides.items()}, DEFAULT, rule)
    found: dict[str, Any] = {"copies": copies, "stopped_because": measured.decision.reason}
    found["samples_ns"] = {
        name: [s.duration_ns for s in measured.samples if s.variant == name] for name in sides
    }
    found["ns"] = {
        name: to_builtins(summarise([ns / copies for ns in samples]))
        for name, samples in found["samples_ns"].items()
    }
    found["against_default"] = {
        name: {**to_builtins(result), "verdict": str(result.verdict)}
        for (name, _), result in comparisons(measured).items()
    }
    return found


def measure_sides(
    layer: Layer, m: int, family: str, configs: Mapping[str, Config], gpu: GpuDescription
) -> dict[str, Any]:
    """`{"configs", "errors", "rejected", "ns", "samples_ns", "against_default", …}`."""
    made, exact = quantised(layer, device="cuda")
    errors = {
        name: error_of(layer, m, family, config, made, exact) for name, config in configs.items()
    }
    able = {
        name: config
        for name, config in configs.items()
        if errors[name] <= tolerance(layer, family, config)
    }
    found: dict[str, Any] = {
        "family": family,
        "configs": {name: str(config) for name, config in configs.items()},
        "errors": errors,
        "rejected": sorted(set(configs) - set(able)),
    }
    if DEFAULT not in able:
        return found
    count = copies_for(layer, gpu.l2_bytes)
    layers = [made, *(quantised(layer, device="cuda", seed=SEED + n)[0] for n in range(1, count))]
    graphs = {name: graph_of(layer, m, family, able[name], layers) for name in able}
    return {**found, **time_sides(graphs, count, CudaClock())}


def launch(layer: Layer, m: int, family: str, config: Config, times: int) -> None:
    """Launch one configuration inside the range that the profilers are aimed at."""
    import torch

    made, _ = quantised(layer, device="cuda")
    x = torch.randn((m, layer.k), device="cuda").half()
    fix_configuration(layer, m, family, config)
    for _ in range(3):  # compiled, loaded, clocks up
        made.forward_manual(x, family)
    torch.cuda.synchronize()
    with named_range(RANGE):
        for _ in range(times):
            made.forward_manual(x, family)
        torch.cuda.synchronize()
