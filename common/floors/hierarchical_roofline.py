"""Where should an operation run when its data lies in another level of memory?

The Hierarchical Roofline Model of MoE-Lightning (Cao et al., ASPLOS 2025, arXiv 2411.11217,
equations 1-14). Level i (the GPU) computes on data that may lie in level j (the CPU's memory):

    roof         P^i <= min(P_peak^i, B^i I^i)                     data already in level i   (8)
    cross roof   P^i <= min(P_peak^i, B^i I^i, B^ji I^j)           data comes from level j   (7)

I^j counts the operations per byte that crosses the link, I^i those per byte that level i reads.
A batch of N tokens crosses once and is computed in micro-batches of μ: I^j grows with N, I^i
with μ. The two turning points of I^j follow, and the balance point between them. The model is a
bound: launches, synchronisation and what cannot overlap come on top (the paper's own machine
reaches a third to a half of it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.errors import UsageError
from common.floors.moe_shapes import Count, MoeShape, Work, ffn_work, touched_bytes

Place = Literal["gpu-resident", "cpu", "swapped-in"]


@dataclass(frozen=True)
class Level:
    """One processor and the memory beside it. `memory_bytes` None: not known, not limited."""

    name: str
    peak_tflop_per_s: float
    bandwidth_gb_per_s: float
    memory_bytes: float | None = None

    def __post_init__(self) -> None:
        for what, value in (
            ("rate", self.peak_tflop_per_s),
            ("bandwidth", self.bandwidth_gb_per_s),
            ("memory", 1 if self.memory_bytes is None else self.memory_bytes),
        ):
            if not 0 < value < math.inf:
                raise UsageError(f"{self.name}: {what} is {value!r}; pass a number above zero")

    @property
    def ridge(self) -> float:
        """Operations per byte from which on the processor, not its memory, is the limit."""
        return self.peak_tflop_per_s * 1e3 / self.bandwidth_gb_per_s

    def time_s(self, work: Work) -> float:
        """The longer of moving the bytes and doing the operations."""
        moving = work.bytes_moved / (self.bandwidth_gb_per_s * 1e9)
        return max(moving, work.flops / (self.peak_tflop_per_s * 1e12))


@dataclass(frozen=True)
class Machine:
    """A CPU, a GPU, and the link over which the CPU's data reaches the GPU."""

    id: str
    cpu: Level
    gpu: Level
    link_gb_per_s: float
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.link_gb_per_s < math.inf:
            raise UsageError(
                f"{self.id}: link bandwidth is {self.link_gb_per_s!r}; pass a number above zero"
            )

    @property
    def link_ridge(self) -> float:
        """Operations per byte over the link from which on the GPU could compute at its peak."""
        return self.gpu.peak_tflop_per_s * 1e3 / self.link_gb_per_s


def roof_gflop_per_s(level: Level, intensity: float) -> float:
    """Equation 8: what the level reaches on data of its own."""
    return min(level.peak_tflop_per_s * 1e3, level.bandwidth_gb_per_s * intensity)


def cross_roof_gflop_per_s(machine: Machine, gpu_intensity: float, link_intensity: float) -> float:
    """Equation 7: what the GPU reaches on data that comes over the link."""
    own = roof_gflop_per_s(machine.gpu, gpu_intensity)
    return min(own, machine.link_gb_per_s * link_intensity)


def first_turning_point(machine: Machine) -> float:
    """P1 (equation 9): the I^j below which computing on the CPU beats moving the data.

    The equation is min(P^j, B^j I) = B^ji I. Where the CPU's memory is faster than the link, the
    sloped part cannot meet it and the CPU's peak does. Where the link is the faster one, moving is
    never the worse choice: 0.
    """
    if machine.cpu.bandwidth_gb_per_s < machine.link_gb_per_s:
        return 0.0
    return machine.cpu.peak_tflop_per_s * 1e3 / machine.link_gb_per_s


def second_turning_point(machine: Machine, gpu_intensity: float) -> float:
    """P2 (equation 10): the I^j below which the link, not the GPU's kernel, is the limit."""
    return roof_gflop_per_s(machine.gpu, gpu_intensity) / machine.link_gb_per_s


def balance_point(machine: Machine, gpu_intensity: float) -> float | None:
    """Equation 11: the I^j where B^i I^i = B^ji I^j; None where the GPU's peak comes first."""
    product = machine.gpu.bandwidth_gb_per_s * gpu_intensity
    if product >= machine.gpu.peak_tflop_per_s * 1e3:
        return None
    return product / machine.link_gb_per_s


def tokens_for_intensity(
    shape: MoeShape, intensity: float, count: Count = "counted", weight_bytes: float = 2
) -> float | None:
    """The batch N at which one layer's experts reach this intensity; None if none does."""

    def reached(tokens: float) -> float:
        return ffn_work(shape, tokens, count, weight_bytes).intensity

    low, high = 1e-6, 1e12  # intensity rises with tokens and ends at a limit
    if intensity > reached(high):
        return None
    if intensity <= reached(low):
        return low
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if reached(middle) < intensity else (low, middle)
    return high


@dataclass(frozen=True)
class LayerTime:
    """Equations 12-14: link, CPU and GPU work at the same time; the slowest sets the layer."""

    link_s: float
    cpu_s: float
    gpu_s: float

    @property
    def total_s(self) -> float:
        return max(self.link_s, self.cpu_s, self.gpu_s)

    @property
    def bound(self) -> Literal["link", "cpu", "gpu"]:
        times: dict[Literal["link", "cpu", "gpu"], float]
        times = {"link": self.link_s, "cpu": self.cpu_s, "gpu": self.gpu_s}
        return max(times, key=lambda name: times[name])


def layer_time(
    machine: Machine, on_gpu: Sequence[Work], on_cpu: Sequence[Work], link_bytes: float
) -> LayerTime:
    """One layer's decode time from the work that each side does and the bytes that cross."""
    return LayerTime(
        link_bytes / (machine.link_gb_per_s * 1e9),
        sum(machine.cpu.time_s(work) for work in on_cpu),
        sum(machine.gpu.time_s(work) for work in on_gpu),
    )


def placement_times_s(
    machine: Machine,
    shape: MoeShape,
    tokens: float,
    *,
    micro_batch: float | None = None,
    count: Count = "counted",
    weight_bytes: float = 2,
) -> dict[Place, float]:
    """Time of one expert layer over `tokens` tokens, by where its weights lie and it is computed.

    Resident on the GPU, left and computed on the CPU, or moved over the link for this batch and
    computed on the GPU in micro-batches. Hidden states that cross are left out (two times 2 bytes
    per token and hidden element: 16 KB per token against gigabytes of weights).
    """
    micro = tokens if micro_batch is None else min(micro_batch, tokens)
    once = ffn_work(shape, micro, count, weight_bytes)
    passes = tokens / micro
    on_gpu = Work(once.flops * passes, once.bytes_moved * passes)
    crossing = touched_bytes(shape, tokens, count, weight_bytes)
    return {
        "gpu-resident": machine.gpu.time_s(on_gpu),
        "cpu": machine.cpu.time_s(ffn_work(shape, tokens, count, weight_bytes)),
        "swapped-in": layer_time(machine, [on_gpu], [], crossing).total_s,
    }


def saving_per_resident_byte_s(machine: Machine, share_read_per_step: float) -> float:
    """What one byte saves per step by lying on the GPU instead of being read by the CPU.

    share × (1/B_cpu - 1/B_gpu). Memory of the GPU is scarce, so what is read in every step
    (attention, shared weights: 1.0) goes there before experts (E[active]/E).
    """
    if not 0 <= share_read_per_step <= 1:
        raise UsageError(f"a share is {share_read_per_step!r}; pass a number from 0 to 1")
    cpu, gpu = machine.cpu.bandwidth_gb_per_s, machine.gpu.bandwidth_gb_per_s
    return share_read_per_step * (1 / cpu - 1 / gpu) / 1e9
