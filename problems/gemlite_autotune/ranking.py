"""Do static figures explain the shipped winner? A stated model, and where it ranks the winner.

    t_memory = bytes / (bandwidth * min(1, in flight / (bandwidth * LATENCY)))     Little's law
    t_chain  = steps / depth * LATENCY * waves, rounded up                         waiting in turn
    T        = max(t_memory, t_chain) / share of the last wave + split bytes / L2 bandwidth

`depth` is how many steps are under way at once: stages - 1 of a pipeline, else 1. Origin: modelled.
The two constants are stated guesses. The model may discard and explain; it never names a winner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.traces.compiled_kernel import CompiledKernel
from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.jobs import Job

LATENCY_NS = 600.0  # a guess: of a load from memory under load
L2_OVER_MEMORY = 3.0  # a guess: bandwidth of the L2 cache over that of memory


def modelled_ns(job: Job, kernel: CompiledKernel, gpu: GpuDescription) -> float:
    """T of the model in ns; infinite for a kernel that cannot launch."""
    found = kernel.metrics
    if not found["can_launch"]:
        return math.inf
    bandwidth = gpu.bandwidth_gb_per_s
    assert bandwidth is not None
    layer, config = job.layer, job.config
    moved = layer.weight_bytes + job.m * (layer.k * 2 + layer.n * 2)
    wanted = bandwidth * LATENCY_NS
    in_flight = found["in_flight_bytes_per_sm"] * min(gpu.sm_count, found["grid_blocks"])
    memory = moved / (bandwidth * min(1.0, in_flight / wanted))
    rounds = math.ceil(found["waves"])
    depth = found["steps"] if job.family.startswith("GEMV_REV") else max(config.stages - 1, 1)
    chain = found["steps"] / depth * LATENCY_NS * rounds
    filled = (
        min(1.0, found["grid_blocks"] / gpu.sm_count) if rounds == 1 else (found["waves"] / rounds)
    )
    split = found["split_bytes"] / (L2_OVER_MEMORY * bandwidth)
    return float(max(memory, chain) / filled + split)


Score = Callable[[Job, CompiledKernel, GpuDescription], float]
# What each order puts first: the least value.
ORDERS: dict[str, Score] = {
    "model T": modelled_ns,
    "occupancy": lambda job, kernel, gpu: -float(kernel.metrics["occupancy"]),
    "bytes in flight": lambda job, kernel, gpu: (
        -float(kernel.metrics.get("in_flight_bytes_per_sm", 0))
    ),
    "least shared memory": lambda job, kernel, gpu: float(kernel.resources["shared_bytes"]),
    "fewest registers": lambda job, kernel, gpu: float(kernel.resources["registers"]),
    "waves nearest to 1": lambda job, kernel, gpu: abs(
        math.log(float(kernel.metrics.get("waves") or 1e9))
    ),
}


@dataclass(frozen=True)
class Rank:
    """Of one configuration by one order: `rank` - 1 are better, `ties` equal to it, of `of`."""

    order: str
    rank: int
    ties: int
    of: int
    value: float
    best: float


def rank(
    wanted: Job, pool: Sequence[tuple[Job, CompiledKernel]], gpu: GpuDescription
) -> tuple[Rank, ...]:
    """Ranks of `wanted` in a pool that holds it; the same program counts once."""
    programs: dict[Any, tuple[Job, CompiledKernel]] = {}
    for job, kernel in pool:
        # The wanted one stands for its program.
        name = (kernel.facts["program_sha256"], tuple(kernel.facts["grid"]))
        if name not in programs or job == wanted:
            programs[name] = (job, kernel)
    ranks = []
    for order, score in ORDERS.items():
        values = {job: score(job, kernel, gpu) for job, kernel in programs.values()}
        own = values[wanted]
        others = [value for job, value in values.items() if job != wanted]
        close = [value for value in others if math.isclose(value, own, rel_tol=1e-3)]
        better = sum(value < own for value in others) - sum(value < own for value in close)
        ranks.append(Rank(order, 1 + better, len(close), len(values), own, min(values.values())))
    return tuple(ranks)
