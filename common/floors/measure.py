"""What does THIS machine reach: how many bytes and how many operations per second?

Four rates: reading memory, copying memory, and multiplying matrices in bfloat16 and float32. They
replace datasheet figures wherever the machine is at hand. How they are taken:

- The buffers are several times the last cache (never less than four times), and each pass walks
  through all of one, so a pass finds nothing of the pass before it in a cache.
- The data is random: zeros can be compressed or shared, and draw less power on GPUs.
- Which PyTorch kernel reads fastest differs from machine to machine, so several are sampled and the
  one with the best median is taken and named.
- Everything is sampled in turn, once per round. Other tenants of a machine come and go within
  minutes; this way all rates see the same weather.
- Copying counts bytes read plus bytes written. On CPUs the bus carries up to half as much again,
  because an ordinary store first reads the line that it writes.

For a floor use `best` (a bound that is beaten was no bound); `median` and its interval say how
steady the machine was. Where `others_cpu_share` is above a few percent, measure again later: even
`best` is then too low.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from common.errors import PreconditionError, UsageError
from common.floors.machine import (
    cpu_model,
    cpu_seconds,
    last_level_cache_bytes,
)
from common.floors.measured import MeasuredFloors, Rate
from common.memory import memory_available_bytes

if TYPE_CHECKING:
    import torch

Clock = Callable[[Callable[[], object]], int]

# Four times the last cache is the least; eight keeps what survives a pass under any replacement
# policy small, and costs little time. The least sizes also exceed caches that nobody reports, such
# as the 256 MiB in front of the memory of an MI300X.
_LEAST_CACHES, _CACHES = 4, 8
_LEAST_WORKING_SET_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
_UNKNOWN_CACHE_WORKING_SET_BYTES = 1 << 30
_MATRIX = {"cpu": 2048, "cuda": 8192}
_SMALL_MATRIX = 256
_LEAST_ROUNDS = 6  # the fewest samples that have a 95 % interval for their median


def measure_floors(
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    budget_s: float = 20,
    *,
    working_set_bytes: int | None = None,
    matrix_size: int | None = None,
) -> MeasuredFloors:
    """Measure this machine's four rates in about `budget_s` seconds (and not fewer than 6 rounds).

    `threads` is for CPUs; None means all that this process may use. `working_set_bytes` is the size
    of the buffer that is read (default: eight last-level caches); `matrix_size` the side of the
    square matrices (default 2048 on CPUs, less where one product takes too long; 8192 on GPUs).
    Raises UsageError for a working set below four last-level caches, PreconditionError if torch, a
    GPU or memory is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise PreconditionError("floors are measured with torch; install torch") from error
    if device not in _MATRIX:
        raise UsageError(f"device is {device!r}; choose cpu or cuda")
    if not (math.isfinite(budget_s) and budget_s > 0):
        raise UsageError(f"budget_s is {budget_s!r}; pass seconds above zero")
    if threads is not None and (threads < 1 or device == "cuda"):
        raise UsageError(f"threads is {threads} for {device}; pass 1 or more, and only for cpu")
    if matrix_size is not None and matrix_size < 1:
        raise UsageError(f"matrix_size is {matrix_size}; pass 1 or more")
    if device == "cuda" and not torch.cuda.is_available():
        raise PreconditionError("torch sees no CUDA device; measure with device='cpu' instead")

    if device == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        cache: int | None = properties.L2_cache_size or None
        free: int | None = torch.cuda.mem_get_info()[0]
        name, clock = properties.name, _cuda_clock()
    else:
        cache, free = last_level_cache_bytes(), memory_available_bytes()
        name, clock = cpu_model() or platform.machine(), _wall_time_ns
    working_set = _working_set(device, cache, free, working_set_bytes)
    used_threads = threads or len(os.sched_getaffinity(0)) if device == "cpu" else None

    with _settings(used_threads), torch.inference_mode():
        side = matrix_size or _affordable_side(device, _MATRIX[device], clock, budget_s)
        data = _random(device, working_set // 4, torch.float32)
        reads = _read_candidates(data)
        others = {
            "copy": _copy(data),
            "bf16": _matmul(device, side, torch.bfloat16),
            "fp32": _matmul(device, side, torch.float32),
        }
        before, own_before = cpu_seconds(), time.process_time()
        samples = _sample_in_turn(reads | others, clock, budget_s)
        after, own_s = cpu_seconds(), time.process_time() - own_before

    tried = {kernel: working_set / statistics.median(samples[kernel]) for kernel in reads}
    chosen = max(tried, key=lambda kernel: tried[kernel])
    matmul, flops = f"mm {side}x{side} by {side}x{side}", 2 * side**3
    return MeasuredFloors(
        origin="measured-gpu" if device == "cuda" else "measured-cpu",
        device=name,
        threads=used_threads,
        last_cache_bytes=cache,
        others_cpu_share=_others_share(before, after, own_s),
        torch_version=torch.__version__,
        read=Rate(chosen, "gb_per_s", working_set, working_set, samples[chosen], tried),
        copy=Rate("copy_", "gb_per_s", 2 * working_set, 2 * working_set, samples["copy"]),
        matmul_bf16=Rate(matmul, "tflop_per_s", flops, 3 * 2 * side**2, samples["bf16"]),
        matmul_fp32=Rate(matmul, "tflop_per_s", flops, 3 * 4 * side**2, samples["fp32"]),
    )


def _working_set(device: str, cache: int | None, free: int | None, asked: int | None) -> int:
    """Bytes of the buffer that is read; a multiple of 1 MiB."""
    if asked is not None:
        size = asked
    elif cache is None:
        size = _UNKNOWN_CACHE_WORKING_SET_BYTES
    else:
        size = max(_CACHES * cache, _LEAST_WORKING_SET_BYTES[device])
    size -= size % (1 << 20)
    least = max(1 << 20, _LEAST_CACHES * (cache or 0))
    if size < least:
        raise UsageError(
            f"a working set of {size} bytes would be read from a cache; pass {least} or more"
        )
    # Three buffers of this size live at once; leave as much again to everybody else.
    if free is not None and 4 * size > free:
        raise PreconditionError(
            f"measuring needs {4 * size >> 20} MiB of free memory and {free >> 20} MiB are free; "
            f"pass a smaller working_set_bytes (at least {least}) or free some memory"
        )
    return size


def _read_candidates(data: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Kernels that read as many bytes as `data` has, once, and write next to nothing."""
    import torch

    rows, integers = data.view(-1, 4096), data.view(torch.int64)
    first, second = data.view(2, -1)
    # The same number of bytes in bfloat16: twice the elements, so the data twice over.
    weight = torch.empty(2, data.numel(), dtype=torch.bfloat16, device=data.device).copy_(data)
    weight = weight.view(-1, 4096)
    vector = weight[:1].clone()
    return {
        "sum float32": data.sum,
        "sum of rows float32": lambda: rows.sum(1),
        "dot float32": lambda: torch.dot(first, second),
        "sum int64": integers.sum,
        "largest int64": integers.amax,
        "linear bfloat16, one row": lambda: torch.nn.functional.linear(vector, weight),
    }


def _copy(source: torch.Tensor) -> Callable[[], object]:
    import torch

    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _matmul(device: str, side: int, dtype: torch.dtype) -> Callable[[], object]:
    import torch

    left, right = (_random(device, side * side, dtype).view(side, side) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _affordable_side(device: str, side: int, clock: Clock, budget_s: float) -> int:
    """The largest side whose product takes but a part of the budget, judged on a small one.

    A CPU without bfloat16 instructions can take minutes for one product of the usual size.
    """
    import torch

    if device != "cpu":
        return side
    probe = _matmul(device, _SMALL_MATRIX, torch.bfloat16)
    probe()
    cost_s = clock(probe) / 1e9
    while side > _SMALL_MATRIX and cost_s * (side / _SMALL_MATRIX) ** 3 > budget_s / 40:
        side //= 2
    return side


def _random(device: str, elements: int, dtype: torch.dtype) -> torch.Tensor:
    import torch

    return torch.empty(elements, dtype=dtype, device=device).normal_()


def _wall_time_ns(run: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start


def _cuda_clock() -> Clock:
    import torch

    make_event: Callable[..., Any] = torch.cuda.Event
    start, end = make_event(enable_timing=True), make_event(enable_timing=True)

    def clock(run: Callable[[], object]) -> int:
        start.record()
        run()
        end.record()
        end.synchronize()
        elapsed_ms: float = start.elapsed_time(end)
        return round(elapsed_ms * 1e6)

    return clock


def _sample_in_turn(
    runs: dict[str, Callable[[], object]], clock: Clock, budget_s: float
) -> dict[str, tuple[int, ...]]:
    """Nanoseconds of each run, one sample per round, after one round that is thrown away."""
    for run in runs.values():
        clock(run)
    rounds: list[list[int]] = []
    end = time.perf_counter() + budget_s
    while len(rounds) < _LEAST_ROUNDS or time.perf_counter() < end:
        rounds.append([clock(run) for run in runs.values()])
    return dict(zip(runs, zip(*rounds, strict=True), strict=True))


def _others_share(
    before: tuple[float, float] | None, after: tuple[float, float] | None, own_s: float
) -> float | None:
    """The share of the machine's CPU time that other processes and other guests took."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    busy_s, up_s = after[0] - before[0], after[1] - before[1]
    return min(1.0, max(0.0, busy_s - own_s) / up_s)


@contextmanager
def _settings(threads: int | None) -> Iterator[None]:
    """Full float32 precision (no TF32, no bfloat16 passes) and the thread count; then as before."""
    import torch

    precision, before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(before)
