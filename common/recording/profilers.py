"""How is a run profiled? torch.profiler with memory events, into one gzipped, anonymous file.

The allocation timeline comes with it: every allocation and release is an event of the trace, on
the CPU from its allocator and on a GPU from the CUDA caching allocator.
"""

from __future__ import annotations

import gzip
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# What names the machine or its user: Kineto's "host_name", and every value that is an absolute
# path ("traceName" of the file itself, "kernel_file" of Inductor's kernels, …).
HOST_NAME = re.compile(rb'("host_?name" *: *")[^"]*"', re.IGNORECASE)
PLACE = re.compile(rb'([:,\[] *")/(?:[^"\\\n]*/)?([^"/]*")')


def record_trace(path: Path, device: torch.device, work: Callable[[], None]) -> None:
    """Run `work` once under torch.profiler and write its trace to `path` (.json.gz)."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities, profile_memory=True) as profiler:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain = Path(folder) / path.name.removesuffix(".gz")
        profiler.export_chrome_trace(str(plain))
        write_anonymous(plain.read_bytes(), path)


def anonymous(trace: bytes) -> bytes:
    """A Kineto trace without host name and folders; events and times are left byte for byte.

    The keys stay, so that what was valid JSON stays so.
    """
    return PLACE.sub(rb"\1\2", HOST_NAME.sub(rb'\1removed"', trace))


def write_anonymous(trace: bytes, path: Path) -> None:
    # mtime=0: the same trace gives the same file, so that evidence can be compared by hash.
    with (
        path.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
    ):
        packed.write(anonymous(trace))
