"""Where does a pass spend its time? One profiled pass per point, split by stage, never a timed one.

Every layer marks its stages (router, dispatch, experts, combine, attention, norm, what stands
beside the experts); what is in none of them is `other`: embedding, last norm, logits. On a CPU a
stage's time is the host's, on a GPU that of the work launched in it. What needs a GPU is None
without one, never 0.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.diff.attribution import peak_in_range, range_bounds, time_in_range
from common.recording.profilers import record_trace
from common.recording.ranges import named_range
from common.traces.intervals import union_ns
from common.traces.model import GpuKind, HostKind, Trace
from common.traces.torch_trace import read_torch_trace

if TYPE_CHECKING:
    from problems.moe_batch_scaling.sides import OurSide

STAGES = ("router", "dispatch", "experts", "combine", "attention", "norm", "beside", "mlp")
STAGE_RANGE = re.compile(rf"layer\d+/({'|'.join(STAGES)})")
# Operators that make the host wait for a GPU: their results steer what is launched next.
WAITING = ("aten::nonzero", "aten::_local_scalar_dense", "aten::bincount")
SYNCHRONISING = ("Synchronize",)


@dataclass(frozen=True)
class Profile:
    """One pass. `stages_ns` and `other_ns` add up to `total_ns`; GPU figures None on a CPU."""

    quantity: str  # cpu_time_ns or gpu_time_ns
    total_ns: int
    stages_ns: dict[str, int]
    other_ns: int
    operators: int
    waiting_operators: int
    temporary_peak_bytes: int | None
    kernels: int | None = None
    launches: int | None = None
    synchronisations: int | None = None
    copies: int | None = None
    copied_bytes: int | None = None
    busy_ns: int | None = None
    idle_ns: int | None = None

    def share(self, stage: str) -> float:
        return self.stages_ns.get(stage, 0) / self.total_ns


def profile_side(side: OurSide, folder: Path) -> Profile:
    """Record one pass of the side into `folder` (chrome trace) and read it back."""
    import torch

    from common.workloads.moe_experts import no_stage

    point, model = side.point, side.model
    tokens = side.select(0)
    with torch.no_grad():
        model.stage = named_range
        try:
            side.run(tokens)  # what is left to initialise must not be in the trace

            def work() -> None:
                with named_range(point.phase):
                    side.run(tokens)

            path = folder / f"{point.id}.trace.json.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            record_trace(path, side.models.device, work)
        finally:
            model.stage = no_stage
    return analyse(read_torch_trace(path), point.phase, side.models.device.type)


def analyse(trace: Trace, phase: str, device: str) -> Profile:
    """The figures of one occurrence of the phase's range in a trace."""
    whole = time_in_range(trace, phase)
    if whole is None or whole.total_ns <= 0:
        raise ValueError(f"the trace has no range {phase}")
    spent: dict[str, int] = {}
    for name in trace.names:
        match = STAGE_RANGE.fullmatch(name)
        found = time_in_range(trace, name) if match else None
        if match and found is not None:
            spent[match[1]] = spent.get(match[1], 0) + found.total_ns
    host = trace.host
    start, end = range_bounds(trace, phase)[0]
    inside = (host.start_ns >= start) & (host.end_ns <= end)
    operators = inside & (host.kind == HostKind.OPERATOR)
    waiting = [trace.names[n] in WAITING for n in host.name[operators].tolist()]
    on_gpu = device == "cuda"
    peak = peak_in_range(trace, phase, 0 if on_gpu else -1)
    return Profile(
        whole.quantity,
        whole.total_ns,
        dict(sorted(spent.items())),
        whole.total_ns - sum(spent.values()),
        int(operators.sum()),
        sum(waiting),
        None if peak is None else peak.peak_bytes,
        **(_gpu_figures(trace) if on_gpu else {}),
    )


def _gpu_figures(trace: Trace) -> dict[str, int]:
    gpu, host = trace.gpu, trace.host
    calls = host.name[host.kind == HostKind.RUNTIME].tolist()
    copies = gpu.kind == GpuKind.MEMCPY
    span = int(gpu.end_ns.max()) - int(gpu.start_ns.min()) if len(gpu) else 0
    busy = union_ns(gpu.start_ns, gpu.end_ns)
    return {
        "kernels": int((gpu.kind == GpuKind.KERNEL).sum()),
        "launches": len(set(gpu.launch[gpu.launch >= 0].tolist())),
        "synchronisations": sum(
            any(word in trace.names[n] for word in SYNCHRONISING) for n in calls
        ),
        "copies": int(copies.sum()),
        "copied_bytes": int(gpu.size_bytes[copies].clip(min=0).sum()),
        "busy_ns": busy,
        "idle_ns": span - busy,
    }


def profile_line(point_id: str, profile: Profile) -> dict[str, Any]:
    return {"id": point_id, **asdict(profile)}


def from_profile_line(line: dict[str, Any]) -> Profile:
    return Profile(**{key: value for key, value in line.items() if key != "id"})
