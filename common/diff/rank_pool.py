"""How are many pieces of work done on all cores with bounded memory? A process for each, a few at
a time.

A process of its own gives its memory back when its piece is done, and takes only itself along when
it is killed. At most as many run as there are cores, and as many as fit the free memory.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from common.errors import PreconditionError
from common.memory import memory_available_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")
MEMORY_SHARE = 0.8  # of what is free


def at_once(bytes_each: Sequence[int]) -> int:
    """How many may run at a time: the cores, but no more than fit the free memory; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    largest = max(bytes_each, default=0)
    free = memory_available_bytes()
    fitting = cores if free is None or not largest else int(free * MEMORY_SHARE) // largest
    return max(1, min(cores, fitting, len(bytes_each)))


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """(item, result or the error it raised), in the order in which they are done.

    One after the other in this process where a copy of it could wait for ever (a program with
    threads) or is not possible. A process that dies is a PreconditionError of its item.
    """
    if most == 1 or sys.platform != "linux" or threading.active_count() > 1:
        for item in items:
            yield item, _tried(work, item)
        return
    context = multiprocessing.get_context("fork")
    waiting = list(items)[::-1]
    running: dict[Connection, tuple[BaseProcess, Item]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < most:
                item = waiting.pop()
                reading, writing = context.Pipe(duplex=False)
                started = context.Process(target=_send, args=(work, item, writing))
                started.start()
                writing.close()
                running[reading] = started, item
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                process, item = running.pop(ready)
                result = _received(ready, process)
                yield item, result
    finally:
        for unasked, _ in running.values():
            unasked.kill()
            unasked.join()


def _tried(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return work(item)
    except Exception as error:
        return error


def _send(work: Callable[[Item], Result], item: Item, writing: Connection) -> None:
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the parent says it
        writing.send_bytes(pickle.dumps(_tried(work, item), pickle.HIGHEST_PROTOCOL))


def _received(ready: Connection, process: BaseProcess) -> Result | Exception:
    try:
        result: Result | Exception = pickle.loads(ready.recv_bytes())  # our own process wrote it
    except (EOFError, OSError, pickle.UnpicklingError):
        process.join()
        return PreconditionError(
            f"the process that read it ended with code {process.exitcode}, perhaps for lack of "
            "memory; free some and try again"
        )
    finally:
        ready.close()
    process.join()
    return result
