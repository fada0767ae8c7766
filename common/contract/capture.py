"""What is a profiler to record of a problem? The `[capture]` table of its `problem.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import UsageError

REPLAY_MODES = ("kernel", "application", "range", "app-range")


@dataclass(frozen=True)
class Capture:
    """The range of interest, and which kernels inside it Nsight Compute measures, and how."""

    nvtx_range: str
    ncu_kernels: str = ""  # as --kernel-name takes it; empty: every kernel
    ncu_launch_skip: int = 0  # of the kernels that match
    ncu_launch_count: int = 30
    ncu_set: str = "detailed"
    ncu_replay: str = "kernel"
    variants: tuple[str, ...] = ()  # captured where none is named; empty: what is compared

    def __post_init__(self) -> None:
        if not self.nvtx_range or any(mark in self.nvtx_range for mark in "/@,[]*"):
            raise UsageError(
                f"[capture] nvtx_range {self.nvtx_range!r} is empty or holds one of / @ , [ ] *, "
                "which filters give a meaning; name one of the ranges of repro.py"
            )
        counts = (self.ncu_launch_skip, self.ncu_launch_count)
        if not all(isinstance(n, int) for n in counts) or counts[0] < 0 or counts[1] < 1:
            raise UsageError("[capture] ncu_launch_skip is from 0 and ncu_launch_count from 1")
        if self.ncu_replay not in REPLAY_MODES:
            raise UsageError(
                f"[capture] ncu_replay {self.ncu_replay!r} is none of {', '.join(REPLAY_MODES)}"
            )


def read_capture(document: Mapping[str, Any]) -> Capture | None:
    """None where a problem has no `[capture]`: then there is nothing to aim a profiler at."""
    table = document.get("capture")
    if table is None:
        return None
    return Capture(**{**table, "variants": tuple(table.get("variants", ()))})
