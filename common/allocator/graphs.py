"""What does capturing a CUDA graph do to the allocator? Pool ids, captures, and graphs that end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from common.allocator.blocks import PoolId
from common.allocator.model import CachingAllocator
from common.errors import UsageError


class PoolIds:
    """Ids of private pools, each given once.

    Models `CachingDeviceAllocator.h: MempoolId_t` (its comment was read; the counting itself,
    `MemPool::graph_pool_handle`, was not).
    """

    def __init__(self) -> None:
        self._handles = count(1)
        self._graphs = count(1)

    def handle(self) -> PoolId:
        """(0, n): torch.cuda.graph_pool_handle() or MemPool, made by the program to be shared."""
        return 0, next(self._handles)

    def of_graph(self) -> PoolId:
        """(n, 0): the pool of one graph that was captured without naming one."""
        return next(self._graphs), 0


class Graph:
    """One CUDA graph's hold on a pool: from its capture until `reset`.

    A capture that fails gives its hold up; before PyTorch PR #190348 (July 2026) it never did
    (`leaks_when_it_fails`), and its pool stayed reserved for good.
    """

    def __init__(
        self, allocator: CachingAllocator, ids: PoolIds, leaks_when_it_fails: bool = False
    ) -> None:
        self._allocator = allocator
        self._ids = ids
        self._leaks = leaks_when_it_fails
        self.pool: PoolId | None = None

    @contextmanager
    def capture(self, stream: int, pool: PoolId | None = None) -> Iterator[PoolId]:
        """Allocations on `stream`, and on streams that wait for it, come from the graph's pool.

        Models `torch/cuda/graphs.py: graph.__enter__` (which empties the cache) and
        `CUDAGraph.cpp: capture_begin, capture_end`. The second is known from its documentation
        and from the allocator's side, it was not read.
        """
        if self.pool is not None:
            raise UsageError("this graph is captured already; reset it or make a new one")
        self._allocator.empty_cache()
        self.pool = pool if pool is not None else self._ids.of_graph()
        self._allocator.begin_allocate_to_pool(self.pool, {stream})
        try:
            yield self.pool
        except BaseException:
            self._allocator.end_allocate_to_pool(self.pool)
            if self._leaks:
                self.pool = None
            else:
                self.reset()
            raise
        self._allocator.end_allocate_to_pool(self.pool)

    def reset(self) -> None:
        """The graph is gone; its pool has one user less. Models `CUDAGraph.cpp: reset`."""
        if self.pool is not None:
            self._allocator.release_pool(self.pool)
            self.pool = None
