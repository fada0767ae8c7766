"""How long does one call take, on the host or on the device?

The garbage collector is off while a call is measured: a collection in the middle would be charged
to whichever side happened to trigger it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from common.errors import PreconditionError


class Clock(Protocol):
    """Anything that can time one call."""

    def measure(self, fn: Callable[[], object]) -> int:
        """Calls `fn` once and returns how long it took, in ns."""
        ...


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Switches the collector off, and back on only if it was on before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class CpuClock:
    """Wall clock of the host. Right for work that has finished when the call returns."""

    def measure(self, fn: Callable[[], object]) -> int:
        """Duration of one call in ns."""
        with garbage_collection_off():
            start_ns = time.perf_counter_ns()
            fn()
            return time.perf_counter_ns() - start_ns


class CudaClock:
    """Time between two CUDA events around the call, on the current stream.

    Includes the time in which the device waits for the host between kernels, as a user would see
    it; excludes what ran before, because the device is idle when the first event is recorded.
    Raises PreconditionError where there is no CUDA device.
    """

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise PreconditionError(
                "CudaClock needs torch, which is not installed: install it or use CpuClock"
            ) from error
        if not torch.cuda.is_available():
            raise PreconditionError(
                "CudaClock needs a CUDA device and torch sees none: "
                "check nvidia-smi, or use CpuClock"
            )

    def measure(self, fn: Callable[[], object]) -> int:
        """Duration of one call in ns (events resolve about 0.5 us; `cudaEventElapsedTime`)."""
        import torch

        event: Callable[..., Any] = torch.cuda.Event  # has no types of its own
        start, end = event(enable_timing=True), event(enable_timing=True)
        with garbage_collection_off():
            torch.cuda.synchronize()
            start.record()
            fn()
            end.record()
            torch.cuda.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return round(milliseconds * 1e6)
