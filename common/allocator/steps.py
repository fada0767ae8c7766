"""A program's allocations in order, as data: what a generator or a tracer gives to the model."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from common.allocator.blocks import Frames
from common.allocator.model import CachingAllocator
from common.errors import UsageError


@dataclass(frozen=True, slots=True)
class Step:
    """`size` bytes under a name, or None: free that name. The rest says who asked, and when."""

    name: Hashable
    size: int | None
    phase: str = ""
    operator: str = ""
    frames: Frames | None = None


def run(
    steps: Iterable[Step],
    allocator: CachingAllocator,
    stream: int = 0,
    held: dict[Hashable, int] | None = None,
) -> dict[Hashable, int]:
    """Give the steps to the allocator. Returns the addresses of what is still held, by name.

    `held` is what earlier steps left, and is updated. The phase becomes the metadata of the
    allocator's history. UsageError when a step frees what is not held or takes a name twice.
    """
    live = {} if held is None else held
    before = allocator.metadata
    for step in steps:
        if step.phase != allocator.metadata:
            allocator.metadata = step.phase or before
        if step.size is None:
            address = live.pop(step.name, None)
            if address is None:
                raise UsageError(f"{step.name!r} is freed and not held; give the steps in order")
            allocator.free(address)
        elif step.name in live:
            raise UsageError(f"{step.name!r} is held already; free it first or rename it")
        else:
            live[step.name] = allocator.malloc(step.size, stream, step.frames)
    allocator.metadata = before
    return live


PRODUCTS = ("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm", "aten._scaled_mm")


def with_workspace(
    steps: Iterable[Step], size: int, name: Hashable = "workspace"
) -> Iterator[Step]:
    """The steps with the workspace of the matrix library, which a tracer of operators cannot see.

    PyTorch takes it at the first product of a stream and keeps it (`CUDABlas.cpp`, not read; known
    from its option CUBLAS_WORKSPACE_CONFIG): 8.125 MiB by default, 32 MiB on sm90 and later.
    """
    taken = False
    for step in steps:
        # The result's step tells of the product; the workspace is asked for after it, within.
        yield step
        if not taken and step.operator.startswith(PRODUCTS):
            taken = True
            yield Step(name, size, step.phase, step.operator, step.frames)


def release(held: dict[Hashable, int], allocator: CachingAllocator) -> None:
    """Free all that is held, in the order in which it was taken."""
    for name in list(held):
        allocator.free(held.pop(name))
