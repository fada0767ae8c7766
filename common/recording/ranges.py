"""What is happening now? One name for a stretch of work, seen alike by every tool.

`named_range("decode")` opens an NVTX range (Nsight Systems and Compute filter by it) and, while
torch.profiler records, an annotation of the same name. Names are few and stable; numbers belong
into the data, not into the name, because NVTX registers each distinct name for the life of the
process. Without a tool attached a range costs half a microsecond, about twice a `with` block that
does nothing (tests/recording/test_ranges.py).
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any

import nvtx

DOMAIN = "worklog"

QUANTISE = "quantise"
COMPILE = "compile"
WARM_UP = "warm-up"
PREFILL = "prefill"
DECODE = "decode"
DECODE_STEP = "decode step"


def serve_old_nsys() -> str:
    """Make nvtx ≥ 0.2.12 record under Nsight Systems of 2022 and 2023; returns what was done.

    Since 0.2.12 the package asks the tool whether a domain is enabled and drops everything if not.
    Those versions of nsys answer no to every domain and yet record what they are sent. Where one
    of them is attached, domains are therefore made without asking. This touches names that are
    not public; where they are gone nothing is changed, and the report says so.
    """
    if not (os.environ.get("NVTX_INJECTION64_PATH") or os.environ.get("NSYS_PROFILING_SESSION_ID")):
        return "untraced"
    try:
        from nvtx._lib import lib

        handle = lib.DomainHandle
        if not hasattr(handle, "enabled"):
            return "nothing to do: nvtx does not ask"
        if handle(None).enabled():
            return "nothing to do: the tool answers"

        def make(cls: type, name: str | None = None) -> Any:
            domain: Any = object.__new__(cls)
            domain.handle = handle(name)
            return domain

        lib.Domain.__new__ = staticmethod(make)
        getattr(nvtx.nvtx, "_get_domain_cached", nvtx.nvtx.get_domain).cache_clear()
    except (AttributeError, ImportError, TypeError) as error:
        return f"not mended: {error}"
    return "mended: domains are recorded though the tool calls them disabled"


# Before the first domain is made: what is bound to a dropped one stays so.
TRACED = serve_old_nsys()
_domain = nvtx.get_domain(DOMAIN)
_attributes: dict[str, Any] = {}


def _profiler_records() -> bool:
    """Is torch.profiler recording in this process? An annotation that nobody sees costs 3 µs."""
    profiler = sys.modules.get("torch.autograd.profiler")
    # Where torch no longer keeps this flag, annotate always: slower, never silent.
    return profiler is not None and getattr(profiler, "_is_profiler_enabled", True)


class named_range:
    """Mark the enclosed work as `name` for NVTX and, while it records, for torch's profiler."""

    __slots__ = ("_annotation", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._annotation: Any = None
        if name not in _attributes:  # None where nothing is traced
            _attributes[name] = _domain.get_event_attributes(message=name)

    def __enter__(self) -> None:
        _domain.push_range(_attributes[self._name])
        if _profiler_records():
            import torch

            self._annotation = torch.profiler.record_function(self._name)
            self._annotation.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._annotation is not None:
                self._annotation.__exit__(kind, error, trace)
        finally:
            _domain.pop_range()
