"""What is happening now? One name for a stretch of work, seen alike by every tool.

`named_range("decode")` opens an NVTX range (Nsight Systems and Compute filter by it) and a
`torch.profiler` annotation of the same name. Names are few and stable; numbers belong into the
data, not into the name, because NVTX registers each distinct name for the life of the process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import nvtx

DOMAIN = "worklog"

QUANTISE = "quantise"
COMPILE = "compile"
WARM_UP = "warm-up"
PREFILL = "prefill"
DECODE = "decode"
DECODE_STEP = "decode step"


@contextmanager
def named_range(name: str) -> Iterator[None]:
    """Mark the enclosed work as `name` for NVTX and, where torch is loaded, for its profiler."""
    torch = sys.modules.get("torch")
    nvtx.push_range(name, domain=DOMAIN)
    try:
        if torch is None:
            yield
        else:
            with torch.profiler.record_function(name):
                yield
    finally:
        nvtx.pop_range(domain=DOMAIN)
