"""How does GemLite run where there is no GPU? Under a description, for as long as one block lasts.

Inside `with described(gpu)` the three questions that GemLite asks torch about the device, and the
driver that Triton compiles for, are answered from the description; afterwards they are as before.
Nothing can be timed or launched: whoever asks for a benchmark gets an error, never a number.
Because GemLite keeps the answers it got when it was imported, a process serves one GPU only.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from common.errors import PreconditionError
from problems.gemlite_autotune.devices import GpuDescription
from problems.gemlite_autotune.shipped_tables import check_versions

REGISTERS_PER_SM = 65536
_described: list[GpuDescription] = []  # the first one of this process


class NothingToTime(RuntimeError):
    """A benchmark was asked for where no device is."""


class DescriptionDriver:
    """What Triton's compiler and GemLite's pruner ask a driver. It has no benchmark to give."""

    def __init__(self, gpu: GpuDescription) -> None:
        self.gpu = gpu
        properties = {
            "max_shared_mem": gpu.shared_bytes_per_block,
            "max_num_regs": REGISTERS_PER_SM,
            "multiprocessor_count": gpu.sm_count,
            "warpSize": 32,
        }
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties)

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.gpu.architecture, 32)

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return divmod(self.gpu.architecture, 10)

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NothingToTime("no device is here, so that nothing can be timed")


@contextlib.contextmanager
def described(gpu: GpuDescription) -> Iterator[None]:
    """Answer for the device from `gpu`. Raises PreconditionError in a process of another GPU."""
    if _described and _described[0] != gpu:
        raise PreconditionError(
            f"this process already compiles for {_described[0].id}; start another for {gpu.id}"
        )
    check_versions()
    if "triton" not in sys.modules:
        # What 3.9 does by itself; it warns where nobody says so.
        os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import torch
    from triton.runtime import driver

    _described[:] = [gpu]
    properties = SimpleNamespace(
        name=gpu.name,
        major=gpu.architecture // 10,
        minor=gpu.architecture % 10,
        multi_processor_count=gpu.sm_count,
        shared_memory_per_block_optin=gpu.shared_bytes_per_block,
        shared_memory_per_multiprocessor=gpu.sm.shared_bytes,
        regs_per_multiprocessor=REGISTERS_PER_SM,
        max_threads_per_multi_processor=32 * gpu.sm.warps,
        warp_size=32,
    )
    answers: dict[str, Any] = {
        "get_device_properties": lambda *_, **__: properties,
        "get_device_capability": lambda *_, **__: divmod(gpu.architecture, 10),
        "current_device": lambda: 0,
    }
    before = {name: getattr(torch.cuda, name) for name in answers}
    active = driver._active
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    driver.set_active(DescriptionDriver(gpu))
    try:
        yield
    finally:
        driver._active = active
        for name, original in before.items():
            setattr(torch.cuda, name, original)
