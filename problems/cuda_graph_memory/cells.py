"""What memory does one way to run a program take? Its steps through the allocator's model.

A cell is a mode, a kind of weights and the sizes that are captured. Three memories are told apart
after every phase: what private pools reserve, what the default pool reserves now and at most, and
what is outside torch (graph executables at the published 10 kB per node). All of it is modelled.

Modes and what they do (`torch/_inductor/cudagraph_trees.py` and `torch/cuda/graphs.py`, read):

- eager, compiled: no graphs, everything in the default pool;
- reduce-overhead: one pool and one stream for all; per size an eager warm-up in the pool, then the
  recording, which copies the inputs into the pool;
- separate-pools, shared-small-first, shared-large-first: graphs captured by hand, each after a
  warm-up on a side stream in the default pool, inputs made before in the default pool.

Every capture empties the default pool's cache first. The workspace of the matrix library is asked
for at the first product of each warm-up and each recording and given back at its end.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from common.allocator.blocks import PoolId
from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.layer_stack import NonTorch
from common.allocator.model import CachingAllocator
from common.allocator.settings import MIB, Settings
from common.allocator.steps import PRODUCTS, Step, release, run
from problems.cuda_graph_memory.plain_programs import PRODUCT, Forward, Program

MODES = (
    *("eager", "compiled", "reduce-overhead"),
    *("separate-pools", "shared-small-first", "shared-large-first"),
)
CAPTURING = MODES[2:]
COMPUTE, CAPTURE_STREAM, SIDE_STREAM = 0, 1, 2
WORKSPACE_BYTES = 32 * MIB  # of the matrix library on sm_90 (PyTorch PR #120925)
DEVICE_BYTES = 1 << 40  # more than any device has: the subject is what is asked for


@dataclass(frozen=True)
class Machine:
    """What the program runs on, as far as memory is concerned."""

    workspace_bytes: int = WORKSPACE_BYTES
    expandable: bool = False
    non_torch: NonTorch = field(default_factory=NonTorch)


@dataclass(frozen=True)
class PhaseMemory:
    """The three memories at the end of a phase, and the highest level of the default pool in it."""

    phase: str
    private_reserved_bytes: int
    private_active_bytes: int
    default_reserved_bytes: int
    default_peak_reserved_bytes: int
    non_torch_bytes: int


@dataclass(frozen=True)
class Outcome:
    """One cell. `growth_bytes`: by how much each capture made the private pools grow, in order."""

    mode: str
    kind: str
    sizes: tuple[int, ...]
    phases: tuple[PhaseMemory, ...]
    growth_bytes: tuple[tuple[int, int], ...]
    allocator: CachingAllocator

    @property
    def end(self) -> PhaseMemory:
        return self.phases[-1]

    @property
    def private_peak_reserved_bytes(self) -> int:
        return max(phase.private_reserved_bytes for phase in self.phases)

    @property
    def default_peak_reserved_bytes(self) -> int:
        """After loading: the peak of the program that runs, not of the one that loads."""
        return max(phase.default_peak_reserved_bytes for phase in self.phases[1:])

    @property
    def total_bytes(self) -> int:
        """The most that is taken from the device at once in the last phase."""
        end = self.end
        return end.private_reserved_bytes + end.default_peak_reserved_bytes + end.non_torch_bytes


def with_workspace(forward: Forward, size: int) -> Iterator[Step]:
    """The forward's steps with the library's workspace: from its first product to its end."""
    taken = False
    for step in forward.steps:
        mark = step.operator == PRODUCT
        if not mark:
            yield step
        if not taken and size and (mark or step.operator.startswith(PRODUCTS)):
            taken = True
            yield Step("workspace", size, step.phase, step.operator, step.frames)
    if taken:
        yield Step("workspace", None)


def in_phase(steps: Iterable[Step], phase: str) -> Iterator[Step]:
    for step in steps:
        yield Step(step.name, step.size, phase, step.operator, step.frames)


class _Runner:
    """The state of one cell while it runs."""

    def __init__(self, program: Program, mode: str, machine: Machine) -> None:
        text = "expandable_segments:True" if machine.expandable else ""
        self.allocator = CachingAllocator(SimulatedDriver(DEVICE_BYTES), Settings.from_text(text))
        self.program, self.mode, self.machine = program, mode, machine
        self.compiled = mode != "eager" and bool(program.compiled)
        self.nodes = 0
        self.rows: list[PhaseMemory] = []
        self.growth: list[tuple[int, int]] = []

    def forward(self, forward: Forward, phase: str, stream: int) -> dict[Hashable, int]:
        """Runs one call; returns the addresses of its outputs."""
        steps = in_phase(with_workspace(forward, self.machine.workspace_bytes), phase)
        return run(steps, self.allocator, stream)

    def passed(self, forward: Forward, phase: str, stream: int) -> None:
        release(self.forward(forward, phase, stream), self.allocator)

    def inputs(self, forward: Forward, phase: str, stream: int = COMPUTE) -> dict[Hashable, int]:
        steps = (Step(("input", i), size, phase) for i, size in enumerate(forward.input_bytes))
        return run(steps, self.allocator, stream)

    def private_reserved(self) -> int:
        return sum(pool.reserved for pool in self.allocator.private.values())

    def note(self, phase: str) -> None:
        private = self.allocator.private.values()
        default = self.allocator.default
        self.rows.append(
            PhaseMemory(
                phase,
                self.private_reserved(),
                sum(c.active for pool in private for c in pool.counters.values()),
                default.reserved,
                default.peak_reserved,
                self.machine.non_torch.context_bytes
                + self.nodes * self.machine.non_torch.bytes_per_node,
            )
        )
        default.peak_reserved = default.reserved

    def load(self) -> None:
        run(in_phase(self.program.load, "load"), self.allocator, COMPUTE)
        self.note("load")
        # What quantising left in the cache is not what the running program asks for.
        self.allocator.empty_cache()
        self.allocator.default.peak_reserved = self.allocator.default.reserved

    def prefill(self, phase: str) -> None:
        held = self.inputs(self.program.prefill, phase)
        self.passed(self.program.prefill, phase, COMPUTE)
        release(held, self.allocator)
        self.note(phase)

    def without_graphs(self, sizes: Sequence[int]) -> None:
        for size in sizes:
            forward = self.program.forward(size, self.compiled)
            held = self.inputs(forward, f"decode {size}")
            self.passed(forward, f"decode {size}", COMPUTE)
            release(held, self.allocator)
        self.note("decode")

    def graph_trees(self, sizes: Sequence[int]) -> None:
        """Models `CUDAGraphTreeManager`: one pool, one stream, an empty capture that keeps it."""
        ids = PoolIds()
        pool = ids.handle()
        with Graph(self.allocator, ids).capture(CAPTURE_STREAM, pool):
            pass
        kept: dict[Hashable, int] = {}
        for size in sizes:
            forward = self.program.forward(size, self.compiled)
            before = self.private_reserved()
            given = self.inputs(forward, f"input {size}")
            release(kept, self.allocator)  # the step before is over: its outputs are dead
            self.allocator.begin_allocate_to_pool(pool, {CAPTURE_STREAM})
            self.passed(forward, f"warm-up {size}", CAPTURE_STREAM)
            self.allocator.end_allocate_to_pool(pool)
            with Graph(self.allocator, ids).capture(CAPTURE_STREAM, pool):
                phase = f"capture {size}"
                copies = self.inputs(forward, phase, CAPTURE_STREAM)
                kept = self.forward(forward, phase, CAPTURE_STREAM)
            # The graph keeps the copies' addresses and no tensor: the blocks are free again.
            release(copies, self.allocator)
            release(given, self.allocator)
            self.nodes += forward.kernels
            self.growth.append((size, self.private_reserved() - before))
        self.note("capture")

    def by_hand(self, sizes: Sequence[int]) -> None:
        """As the documentation of `torch.cuda.graph` shows it."""
        ids = PoolIds()
        shared: PoolId | None = ids.handle() if self.mode.startswith("shared") else None
        for size in sizes:
            forward = self.program.forward(size, self.compiled)
            self.inputs(forward, f"input {size}")  # static: they stay
            self.passed(forward, f"warm-up {size}", SIDE_STREAM)
            before = self.private_reserved()
            with Graph(self.allocator, ids).capture(CAPTURE_STREAM, shared):
                self.forward(forward, f"capture {size}", CAPTURE_STREAM)
            self.nodes += forward.kernels
            self.growth.append((size, self.private_reserved() - before))
        self.note("capture")


def run_cell(
    program: Program, mode: str, sizes: Sequence[int], machine: Machine | None = None
) -> Outcome:
    """Load, prefill, decode or capture every size, then prefill again while the graphs live."""
    ordered = sorted(sizes, reverse=mode == "shared-large-first")
    runner = _Runner(program, mode, machine or Machine())
    runner.load()
    runner.prefill("prefill")
    if mode == "reduce-overhead":
        runner.graph_trees(ordered)
    elif mode in CAPTURING:
        runner.by_hand(ordered)
    else:
        runner.without_graphs(ordered)
    # Replays allocate nothing; the next prefill does, beside the pools.
    runner.prefill("serve")
    return Outcome(
        mode,
        program.kind,
        tuple(ordered),
        tuple(runner.rows),
        tuple(runner.growth),
        runner.allocator,
    )
