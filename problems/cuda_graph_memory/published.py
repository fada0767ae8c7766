"""Do published peaks of reserved memory follow from what the model allocates? No term is fitted.

The rows are those of `common/floors/published.py`: GPT-Fast with torchao 0.13.0, decode compiled
with CUDA graphs, prefill eager. Its script (torchao 0.13.0, `_models/llama/generate.py`, read) says
in which order memory is taken and when the peak is reset:

    load bf16 onto the GPU -> quantise in place -> first sample: prefill, decode (warm-up in the
    graph's pool, recording) -> reset the peak -> second sample: prefill, replays -> the peak

So the peak has the eager prefill's spike in the default pool on top of the graph's pool, and no
spike of loading; but what quantising in place leaves fragmented stays. That order runs through the
allocator's model with the Llama of `common/workloads` traced on a pretended GPU. The prompt has 6
tokens and the cache 208 positions (the script's default prompt and 200 new tokens). Decode in the
pool is the eager step: that is what the opaque operator of 0.13.0 is when it is compiled, and for
the other rows it bounds temporaries of the size of activations.

Retrospective: the rows were known. Modelled with torch 2.13; the runs had another version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator
from common.allocator.settings import MIB
from common.allocator.steps import release, run
from common.floors.published import ROWS, Published
from problems.cuda_graph_memory.cells import CAPTURE_STREAM, COMPUTE, in_phase, with_workspace
from problems.cuda_graph_memory.plain_programs import Forward, Program

PROMPT_TOKENS = 6  # "Hello, my name is" with its first mark
CACHE_POSITIONS = 208  # 6 + 200, rounded up to 8
# The classic workspace of PyTorch's matrix library; 32 MiB are for sm_90 and sm_100 only.
WORKSPACE_BYTES = 8_519_680
CONFIG = {"8B": "llama-3.1-8b", "3B": "llama-3.2-3b"}
FIELDS = {
    "bf16": "bf16_peak_gb",
    "float8dq": "float8dq_peak_gb",
    "float8wo-0.13.0": "float8wo_peak_gb",
}
SETTLES = {
    "bf16": "a snapshot per pool of this row: which of context tables, sampling and workspaces",
    "float8dq": "a snapshot after loading (how quantising in place fragments) and one in prefill",
    "float8wo-0.13.0": "a snapshot per pool in the second prefill: pool against default pool",
}


@dataclass(frozen=True)
class Peak:
    """The modelled peak after the reset, split; bytes."""

    model: str
    kind: str
    tied: bool
    weights_active_bytes: int
    loaded_reserved_bytes: int  # after loading, quantising and emptying the cache
    private_bytes: int
    peak_bytes: int

    @property
    def prefill_spike_bytes(self) -> int:
        """What the default pool takes above the loaded model in the second prefill."""
        return self.peak_bytes - self.private_bytes - self.loaded_reserved_bytes


@dataclass(frozen=True)
class Residual:
    """One published figure beside the modelled one, in GB (1e9 bytes)."""

    model: str
    card: str
    kind: str
    tied: bool
    published_gb: float
    modelled_gb: float
    settles: str

    @property
    def residual_gb(self) -> float:
        return self.published_gb - self.modelled_gb

    @property
    def relative(self) -> float:
        return self.residual_gb / self.published_gb


def benchmark_peak(program: Program, model: str, tied: bool) -> Peak:
    """The script's order of events through the allocator; no torch."""
    allocator = CachingAllocator(SimulatedDriver(1 << 40), max_entries=0)
    ids = PoolIds()

    def forward(what: Forward, stream: int) -> None:
        steps = in_phase(with_workspace(what, 0), "")
        release(run(steps, allocator, stream), allocator)

    run(program.load, allocator, COMPUTE)
    active = allocator.counters.active
    # The library keeps its workspace for each stream from the first product on.
    allocator.malloc(WORKSPACE_BYTES, COMPUTE)
    forward(program.prefill, COMPUTE)
    decode = program.eager[1]
    pool = ids.handle()
    with Graph(allocator, ids).capture(CAPTURE_STREAM, pool):  # the manager's placeholder
        pass
    loaded = allocator.default.reserved
    allocator.begin_allocate_to_pool(pool, {CAPTURE_STREAM})
    run_steps = in_phase(with_workspace(decode, WORKSPACE_BYTES), "warm-up")
    release(run(run_steps, allocator, CAPTURE_STREAM), allocator)
    allocator.end_allocate_to_pool(pool)
    with Graph(allocator, ids).capture(CAPTURE_STREAM, pool):
        run(in_phase(with_workspace(decode, WORKSPACE_BYTES), "capture"), allocator, CAPTURE_STREAM)
    allocator.counters.reset_peaks()  # torch.cuda.reset_peak_memory_stats()
    forward(program.prefill, COMPUTE)
    private = sum(each.reserved for each in allocator.private.values())
    return Peak(
        model, program.kind, tied, active, loaded, private, allocator.counters.peak_reserved
    )


def traced(model: str, kind: str, tied: bool) -> Program:
    """The benchmark's program: all of bf16 first, then each linear replaced in its order."""
    import torch

    from common.workloads.allocation_tracer import build_fake, pretended_gpu
    from problems.cuda_graph_memory.layers import quantise
    from problems.cuda_graph_memory.programs import call, llama_config, llama_inputs

    config = replace(
        llama_config(CONFIG[model], None), max_positions=CACHE_POSITIONS, tied_embeddings=tied
    )
    with pretended_gpu((8, 9)) as gpu:
        with gpu.phase("load"):
            network = build_fake(config, torch.bfloat16)
        with gpu.phase("quantise"):
            network = quantise(network, kind)  # type: ignore[assignment, arg-type]
        load = tuple(gpu.steps)
        prefill = call(gpu, network, llama_inputs(PROMPT_TOKENS), "prefill")
        eager = {1: call(gpu, network, llama_inputs(1, PROMPT_TOKENS), "decode")}
    return Program(kind, load, prefill, eager)


def residuals(peaks: Sequence[Peak], rows: Sequence[Published] = ROWS) -> list[Residual]:
    """Every published row beside every modelled peak of its model."""
    return [
        Residual(
            row.model, row.card, peak.kind, peak.tied, getattr(row, FIELDS[peak.kind]),
            peak.peak_bytes / 1e9, SETTLES[peak.kind],
        )
        for row in rows
        for peak in peaks
        if peak.model == row.model
    ]  # fmt: skip


def cases() -> list[tuple[str, str, bool]]:
    """(model, kind, tied). GPT-Fast's model has a head of its own also where the checkpoint ties
    it; the tied 3B is shown beside it in bf16: quantised, the head is its own in any case.
    """
    return [(model, kind, False) for model in CONFIG for kind in FIELDS] + [("3B", "bf16", True)]


def mib(size: int) -> float:
    return size / MIB
