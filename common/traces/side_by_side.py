"""How do two cores share the reading of large files? One piece of work goes to a forked process.

The result comes back through a pipe. Whatever goes wrong over there (no memory, killed, an error
to report), the work is done again here, so that the caller sees one behaviour.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TypeVar

T = TypeVar("T")


@contextmanager
def begun(work: Callable[[], T], worthwhile: bool = True) -> Iterator[Callable[[], T]]:
    """Start `work` beside this process where that is possible; what is yielded gives its value.

    To be called once at most; work that nobody asked for is stopped at the end. Not done beside:
    work that is not worth a process, while no core is free, in a program with threads (a copy of
    it could wait for a lock for ever), or on another system than Linux.
    """
    if not worthwhile or not _possible():
        yield work
        return
    reading, writing = os.pipe()
    try:
        process = os.fork()
    except OSError:  # too many processes, or too little memory
        os.close(reading)
        os.close(writing)
        yield work
        return
    if process == 0:
        _work_and_leave(work, reading, writing)
    os.close(writing)
    left = [process]

    def result() -> T:
        with open(reading, "rb", closefd=False) as pipe:
            data = pipe.read()
        _, status = os.waitpid(left.pop(), 0)
        if status == 0:
            with suppress(pickle.UnpicklingError, EOFError):
                value: T = pickle.loads(data)  # our own process wrote it
                return value
        return work()

    try:
        yield result
    finally:
        os.close(reading)
        for unasked in left:
            os.kill(unasked, signal.SIGKILL)
            os.waitpid(unasked, 0)


def _possible() -> bool:
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    return _running() < len(os.sched_getaffinity(0))


def _running() -> int:
    """How many processes are at work at this moment, this one among them."""
    try:
        with open("/proc/loadavg", encoding="ascii") as stream:
            return int(stream.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1


def _work_and_leave(work: Callable[[], T], reading: int, writing: int) -> NoReturn:
    code = 1
    try:
        os.close(reading)
        data = pickle.dumps(work(), protocol=pickle.HIGHEST_PROTOCOL)
        with open(writing, "wb", buffering=0) as pipe:
            rest = memoryview(data)
            while rest:
                rest = rest[pipe.write(rest) :]
        code = 0
    except BaseException:  # the caller meets it again, where it can be reported
        pass
    finally:
        os._exit(code)  # no clean-up twice, no output twice
