"""What memory do CUDA graphs of a stack of quantised layers take? Allocation streams, and knobs.

One forward of L weight-only layers (K x K, bf16 compute), as the compiled code allocates it: a
workspace of the matrix library, the input, then per layer the dequantised weight and the output,
each freed when the next layer no longer needs it. The stream goes through the allocator's model;
every figure of this module is *modelled*.

Three memories are told apart: (a) what private pools reserve, (b) what the default pool reserves at
most and at the end, (c) what is outside torch, from parameters that the caller states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from common.allocator.blocks import PoolId
from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator
from common.allocator.settings import MIB, Settings
from common.allocator.steps import Step, release, run

SOURCE = "modelled"
CAPTURE_STREAM = 1
# "streamed": each layer's weight lives while its layer runs, the order that Inductor chooses.
# "hoisted": all weights first. "fused": the kernel reads the quantised weight, no temporary.
# "frozen": constant folding has made full weights at load time, beside the quantised ones.
Dequantise = Literal["streamed", "hoisted", "fused", "frozen"]


@dataclass(frozen=True)
class Stack:
    """The layers and what they are computed with. Widths in elements, the rest in bytes."""

    layers: int = 8
    width: int = 4096
    element_bytes: int = 2  # bf16
    quantised_bytes: int = 1  # int8, float8
    workspace_bytes: int = 32 * MIB  # cuBLASLt on sm90 (PyTorch PR #120925)

    @property
    def weight_bytes(self) -> int:
        """One weight in the type of the computation."""
        return self.width * self.width * self.element_bytes

    def activation_bytes(self, batch: int) -> int:
        return batch * self.width * self.element_bytes


@dataclass(frozen=True)
class Knobs:
    """What the user of CUDA graphs decides. `sizes` are captured in this order.

    `share_stream` False captures every graph on a stream of its own: memory of one stream is not
    used on another, so sharing the pool alone does not help. `warm_up`: eager runs before each
    capture, in the default pool (as the documentation does it by hand) or in the graph's own pool
    (as the graph trees of Inductor do).
    """

    sizes: tuple[int, ...] = (64, 32, 16, 8, 4, 2, 1)
    dequantise: Dequantise = "streamed"
    share_pool: bool = False
    share_stream: bool = True
    expandable: bool = False
    warm_up: Literal["none", "default pool", "graph pool"] = "none"
    prefill_tokens: int = 0


@dataclass(frozen=True)
class NonTorch:
    """Parameters of what torch does not count, stated by the caller.

    `bytes_per_node` is published (CCCL #3768: about 10 kB per kernel node of an executable graph);
    `context_bytes` depends on GPU and driver, and is 0 until somebody measures it.
    """

    bytes_per_node: int = 10_000
    context_bytes: int = 0

    def of(self, stack: Stack, knobs: Knobs) -> int:
        """A node per kernel of each graph: a product per layer and, unfused, a dequantisation."""
        per_layer = 2 if knobs.dequantise in ("streamed", "hoisted") else 1
        nodes = len(knobs.sizes) * stack.layers * per_layer
        return self.context_bytes + nodes * self.bytes_per_node


def forward(stack: Stack, batch: int, dequantise: Dequantise) -> Iterator[Step]:
    """The allocations of one forward. Input and the last output are kept by the caller."""
    weights = dequantise in ("streamed", "hoisted")
    activation = stack.activation_bytes(batch)
    yield Step("workspace", stack.workspace_bytes)
    yield Step("input", activation)
    if dequantise == "hoisted":
        for layer in range(stack.layers):
            yield Step(f"weight {layer}", stack.weight_bytes)
    for layer in range(stack.layers):
        if dequantise == "streamed":
            yield Step(f"weight {layer}", stack.weight_bytes)
        yield Step(f"output {layer}", activation)
        if weights:
            yield Step(f"weight {layer}", None)
        if layer:
            yield Step(f"output {layer - 1}", None)
    yield Step("workspace", None)


@dataclass(frozen=True)
class Memories:
    """The three memories of one set of knobs, in bytes."""

    knobs: Knobs
    private_reserved_bytes: int
    private_retained_bytes: int  # of it, held by no tensor: what the graphs pin
    default_peak_reserved_bytes: int
    default_reserved_bytes: int
    non_torch_bytes: int
    growth_bytes: tuple[int, ...]  # of the private pools, per capture
    source: str = SOURCE

    @property
    def total_bytes(self) -> int:
        """What is taken from the device after the captures."""
        return self.private_reserved_bytes + self.default_reserved_bytes + self.non_torch_bytes


def capture_all(
    stack: Stack, knobs: Knobs, allocator: CachingAllocator | None = None
) -> tuple[CachingAllocator, tuple[int, ...]]:
    """Load, prefill, warm up and capture. The allocator afterwards, and growth per capture."""
    settings = Settings.from_text("expandable_segments:True" if knobs.expandable else "")
    allocator = allocator or CachingAllocator(SimulatedDriver(1 << 40), settings)
    _load(stack, knobs, allocator)
    if knobs.prefill_tokens:
        release(
            run(forward(stack, knobs.prefill_tokens, knobs.dequantise), allocator, 0), allocator
        )
    ids = PoolIds()
    shared = ids.handle() if knobs.share_pool else None
    growth: list[int] = []
    for number, batch in enumerate(knobs.sizes):
        stream = CAPTURE_STREAM + (0 if knobs.share_stream else number)
        before = _private_reserved(allocator)
        pool: PoolId | None = shared
        if knobs.warm_up == "default pool":
            release(run(forward(stack, batch, knobs.dequantise), allocator, stream), allocator)
        elif knobs.warm_up == "graph pool":
            pool = shared or ids.of_graph()
            allocator.begin_allocate_to_pool(pool, {stream})
            release(run(forward(stack, batch, knobs.dequantise), allocator, stream), allocator)
            allocator.end_allocate_to_pool(pool)
        with Graph(allocator, ids).capture(stream, pool):
            held = run(forward(stack, batch, knobs.dequantise), allocator, stream)
            if knobs.share_pool:  # the next size reads its input from the same place
                allocator.free(held["input"])
        growth.append(_private_reserved(allocator) - before)
    return allocator, tuple(growth)


def _load(stack: Stack, knobs: Knobs, allocator: CachingAllocator) -> None:
    for _ in range(stack.layers):
        allocator.malloc(stack.width * stack.width * stack.quantised_bytes)
        if knobs.dequantise == "frozen":
            allocator.malloc(stack.weight_bytes)


def _private_reserved(allocator: CachingAllocator) -> int:
    return sum(pool.reserved for pool in allocator.private.values())


def measure(stack: Stack, knobs: Knobs, non_torch: NonTorch | None = None) -> Memories:
    """The three memories after all captures."""
    allocator, growth = capture_all(stack, knobs)
    private = list(allocator.private.values())
    active = sum(c.active for pool in private for c in pool.counters.values())
    reserved = _private_reserved(allocator)
    return Memories(
        knobs=knobs,
        private_reserved_bytes=reserved,
        private_retained_bytes=reserved - active,
        default_peak_reserved_bytes=allocator.default.peak_reserved,
        default_reserved_bytes=allocator.default.reserved,
        non_torch_bytes=(non_torch or NonTorch()).of(stack, knobs),
        growth_bytes=growth,
    )


@dataclass(frozen=True)
class KnobRow:
    """One knob turned, the others as in the base. `saved_bytes` of the total; negative: costs."""

    knob: str
    memories: Memories
    saved_bytes: int

    def as_dict(self) -> dict[str, object]:
        """For JSON and tables. The three memories are apart: private, default, non-torch."""
        memories = self.memories
        return {
            "knob": self.knob,
            "private_reserved_bytes": memories.private_reserved_bytes,
            "private_retained_bytes": memories.private_retained_bytes,
            "default_peak_reserved_bytes": memories.default_peak_reserved_bytes,
            "default_reserved_bytes": memories.default_reserved_bytes,
            "non_torch_bytes": memories.non_torch_bytes,
            "growth_bytes": list(memories.growth_bytes),
            "saved_bytes": self.saved_bytes,
            "source": memories.source,
        }


def knob_table(
    stack: Stack | None = None, base: Knobs | None = None, non_torch: NonTorch | None = None
) -> list[KnobRow]:
    """What each knob saves against the base (separate pools, streamed, unfused), modelled.

    The base warms up in the default pool and prefills 2048 tokens, so that (b) has its spikes.
    """
    stack = stack or Stack()
    base = base or Knobs(warm_up="default pool", prefill_tokens=2048)
    shared = replace(base, share_pool=True)
    small_workspace = replace(stack, workspace_bytes=8 * MIB)
    cases: list[tuple[str, Stack, Knobs]] = [
        ("base: a pool per graph", stack, base),
        ("one pool for all graphs", stack, shared),
        ("one pool, smallest size first", stack, replace(shared, sizes=base.sizes[::-1])),
        ("one pool, a stream per graph", stack, replace(shared, share_stream=False)),
        ("one pool, warm-up in it", stack, replace(shared, warm_up="graph pool")),
        ("every other size", stack, replace(base, sizes=base.sizes[::2])),
        ("expandable segments", stack, replace(base, expandable=True)),
        ("one pool and expandable segments", stack, replace(shared, expandable=True)),
        ("workspace of 8 MiB", small_workspace, base),
        ("fused kernels", stack, replace(base, dequantise="fused")),
        ("one pool and fused kernels", stack, replace(shared, dequantise="fused")),
        ("dequantised all at first", stack, replace(base, dequantise="hoisted")),
        ("one pool, dequantised all at first", stack, replace(shared, dequantise="hoisted")),
        ("freezing (constant folding)", stack, replace(base, dequantise="frozen")),
    ]
    rows: list[KnobRow] = []
    for name, of_stack, knobs in cases:
        memories = measure(of_stack, knobs, non_torch)
        reference = rows[0].memories.total_bytes if rows else memories.total_bytes
        rows.append(KnobRow(name, memories, reference - memories.total_bytes))
    return rows
