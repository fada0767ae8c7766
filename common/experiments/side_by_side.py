"""How do variants that are worked out, not timed, share the cores? At most two at a time.

Only where the problem says that its variants do not disturb each other (`at_once` in
`problem.toml`), on a CPU, with a core and enough free memory for each. A variant that is timed or
that runs on a GPU always has the machine to itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from common.experiments.request import Request
from common.memory import memory_available_bytes

Item = TypeVar("Item")
Value = TypeVar("Value")
MOST = 2
# What one variant's process may take: tracing the 8B model, the largest, stays below it.
BYTES_EACH = 3 << 30


def how_many(request: Request) -> int:
    """How many variants of this request may be worked out at the same time."""
    if request.problem.at_once < 2 or request.device != "cpu":
        return 1
    free = memory_available_bytes()
    fit = MOST if free is None else free // BYTES_EACH
    return max(1, min(MOST, request.problem.at_once, len(os.sched_getaffinity(0)), fit))


def in_order(
    work: Callable[[Item], Value],
    items: Sequence[Item],
    at_once: int,
    interrupt: Callable[[], object],
) -> Iterator[Value]:
    """The value of each item in the order of the items, worked out `at_once` at a time.

    When one raises, or the caller is interrupted, `interrupt` is called, which must bring those
    that are underway to their end, and nothing new is begun.
    """
    if at_once < 2 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            for future in waiting:
                yield future.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            interrupt()
            raise
