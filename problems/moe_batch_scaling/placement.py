"""Resident, on the CPU, or swapped in: which is fastest on this machine, and was it foretold?

One expert layer is executed in each of the model's three placements over N tokens across P1: its
weights on the GPU, its weights and its products on the CPU (hidden states cross), and its weights
in pinned host memory, of which the touched experts cross the link before the GPU computes. The
same machine is measured first (both memories, both rates, the link), and the model's times from
those stand beside the executed ones. The prediction about the crossing is in predictions.toml.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import CheckFailed
from common.floors.hierarchical_roofline import (
    Machine,
    Place,
    first_turning_point,
    placement_times_s,
    tokens_for_intensity,
)
from common.floors.hrm_machines import machine_from_floors
from common.floors.measure import measure_floors
from common.floors.moe_shapes import MoeShape
from common.report.results import Results
from common.report.tables import Table, significant
from common.workloads.moe_experts import Experts
from common.workloads.moe_routing import Picks, SkewedRouting

PLACES: tuple[Place, ...] = ("gpu-resident", "cpu", "swapped-in")
REPETITIONS = 7
LINK_BYTES = 1 << 28


@dataclass(frozen=True)
class Layer:
    """One expert layer, whole on the host (pinned where there is a GPU) and whole on the device."""

    host: Experts
    device: Experts
    place: torch.device

    @property
    def element_bytes(self) -> int:
        return self.host.gate_up_proj.element_size()


def make_layer(
    experts: int, dim: int, width: int, dtype: torch.dtype, place: torch.device
) -> Layer:
    with torch.device("meta"):
        host, device = Experts(experts, dim, width), Experts(experts, dim, width)
    generator = torch.Generator().manual_seed(0)
    for name in ("gate_up_proj", "down_proj"):
        shape = getattr(host, name).shape
        values = torch.empty(shape, dtype=dtype).normal_(0, shape[-1] ** -0.5, generator=generator)
        pinned = values.pin_memory() if place.type == "cuda" else values
        setattr(host, name, torch.nn.Parameter(pinned, requires_grad=False))
        setattr(device, name, torch.nn.Parameter(values.to(place), requires_grad=False))
    return Layer(host, device, place)


def picks_for(tokens: int, experts: int, top_k: int) -> Picks:
    chosen = SkewedRouting(0.0).picks(0, tokens, experts, top_k)
    return Picks(chosen, torch.full((tokens, top_k), 1 / top_k))


def to_place(picks: Picks, place: torch.device) -> Picks:
    return Picks(picks.experts.to(place), picks.weights.to(place))


def resident(layer: Layer, x: Tensor, picks: Picks) -> Tensor:
    """Hidden states and weights are on the device already."""
    out: Tensor = layer.device(x, picks)
    return out


def on_cpu(layer: Layer, x: Tensor, picks: Picks) -> Tensor:
    """Hidden states cross to the host and back; weights stay."""
    host = torch.device("cpu")
    out: Tensor = layer.host(x.to(host), to_place(picks, host)).to(layer.place)
    return out


def swapped_in(layer: Layer, x: Tensor, picks: Picks, buffer: Experts) -> Tensor:
    """The touched experts cross into a buffer of the device, then it computes from there."""
    for index in sorted(set(picks.experts.flatten().tolist())):
        for name in ("gate_up_proj", "down_proj"):
            getattr(buffer, name)[index].copy_(getattr(layer.host, name)[index], non_blocking=True)
    out: Tensor = buffer(x, picks)
    return out


def run_placements(layer: Layer, tokens: int, top_k: int) -> dict[Place, list[float]]:
    """Seconds of every repetition, the placements in turn. CheckFailed if results differ."""
    host, place = layer.host, layer.place
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, host.dim, generator=generator).to(host.gate_up_proj.dtype).to(place)
    picks = to_place(picks_for(tokens, host.count, top_k), place)
    with torch.device("meta"):
        buffer = Experts(host.count, host.dim, host.width)
    for name in ("gate_up_proj", "down_proj"):
        empty = torch.zeros_like(getattr(layer.device, name))
        setattr(buffer, name, torch.nn.Parameter(empty, requires_grad=False))
    ways: dict[Place, Callable[[], Tensor]] = {
        "gpu-resident": lambda: resident(layer, x, picks),
        "cpu": lambda: on_cpu(layer, x, picks),
        "swapped-in": lambda: swapped_in(layer, x, picks, buffer),
    }
    expected = ways["gpu-resident"]().float()
    for name, way in ways.items():
        error = ((way().float() - expected).abs().max() / expected.abs().max()).item()
        if not error <= 0.05:
            raise CheckFailed(f"{name} gives another result ({error:.2g}); mend placement.py")
    taken: dict[Place, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        for name, way in ways.items():
            _wait(place)
            started = time.perf_counter()
            way()
            _wait(place)
            taken[name].append(time.perf_counter() - started)
    return taken


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize()


def link_gb_per_s(place: torch.device) -> float:
    """Copies from pinned host memory to the device: the best of some."""
    source = torch.empty(LINK_BYTES, dtype=torch.uint8)
    source = source.pin_memory() if place.type == "cuda" else source
    target = torch.empty(LINK_BYTES, dtype=torch.uint8, device=place)
    seconds = []
    for _ in range(8):
        _wait(place)
        started = time.perf_counter()
        target.copy_(source, non_blocking=True)
        _wait(place)
        seconds.append(time.perf_counter() - started)
    return LINK_BYTES / min(seconds) / 1e9


def crossing(tokens: Sequence[int], one: Sequence[float], other: Sequence[float]) -> float | None:
    """Where `other` becomes the faster one, between two N on a log scale; None: nowhere."""
    gaps = [math.log(a / b) for a, b in zip(one, other, strict=True)]
    for i in range(1, len(gaps)):
        if gaps[i - 1] < 0 <= gaps[i]:
            part = -gaps[i - 1] / (gaps[i] - gaps[i - 1])
            return float(tokens[i - 1] * (tokens[i] / tokens[i - 1]) ** part)
    return None


def own_machine(place: torch.device) -> Machine:
    """This machine's three levels, measured now."""
    cpu, gpu = measure_floors("cpu", budget_s=8), measure_floors("cuda", budget_s=8)
    return machine_from_floors(cpu, gpu, link_gb_per_s(place))


@torch.no_grad()
def placement_results(
    shape: MoeShape, machine: Machine, place: torch.device, dtype: torch.dtype,
    tokens: Sequence[int], origin: str, say: Callable[[str], None],
) -> Results:  # fmt: skip
    """Executed beside modelled, and where leaving the weights on the CPU stops paying."""
    found = Results()
    layer = make_layer(shape.experts, shape.hidden, shape.expert_width, dtype, place)
    medians: dict[Place, list[float]] = {name: [] for name in PLACES}
    modelled: dict[Place, list[float]] = {name: [] for name in PLACES}
    rows = []
    for n in tokens:
        say(f"{n} tokens")
        taken = run_placements(layer, n, shape.top_k)
        times = placement_times_s(machine, shape, n, weight_bytes=layer.element_bytes)
        for name in PLACES:
            medians[name].append(statistics.median(taken[name]))
            modelled[name].append(times[name])
        cells = [
            f"{significant(1e3 * medians[name][-1])} ({significant(1e3 * modelled[name][-1])})"
            for name in PLACES
        ]
        best = min(PLACES, key=lambda name: medians[name][-1])
        rows.append((f"{n:,}", *cells, best))
    measured_at = crossing(tokens, medians["cpu"], medians["swapped-in"])
    modelled_at = crossing(tokens, modelled["cpu"], modelled["swapped-in"])
    found.figure("p1_flop_per_byte", first_turning_point(machine), "FLOP/B", origin)
    found.figure(
        "n_at_p1", tokens_for_intensity(shape, first_turning_point(machine)), "tokens", "modelled"
    )
    found.figure("crossing_tokens", measured_at, "tokens", origin)
    found.figure("crossing_tokens_modelled", modelled_at, "tokens", "modelled")
    ratio = None if measured_at is None or modelled_at is None else measured_at / modelled_at
    found.figure("crossing_over_model", ratio, "", origin)
    found.figure("swap_over_cpu_at_1", medians["swapped-in"][0] / medians["cpu"][0], "", origin)
    found.figure(
        "cpu_over_resident_at_1", medians["cpu"][0] / medians["gpu-resident"][0], "", origin
    )
    found.figure("link_gb_per_s", machine.link_gb_per_s, "GB/s", origin)
    columns = ("N", *(f"{name} ms (model)" for name in PLACES), "fastest")
    note = (
        f"_Executed medians of {REPETITIONS}, the model's times in brackets: "
        f"{machine.cpu.bandwidth_gb_per_s:.0f} and {machine.gpu.bandwidth_gb_per_s:.0f} GB/s, link "
        f"{machine.link_gb_per_s:.1f} GB/s, all measured._"
    )
    found.tables["placement-executed"] = Table(columns, tuple(rows), columns[:4], note)
    return found
