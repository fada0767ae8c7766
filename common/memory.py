"""How much memory does this machine have, and how much did this process hold? None: unknown.

Below every room, since reading, timing and recording all ask. Linux says it in /proc.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_MEMINFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


def memory_total_bytes() -> int | None:
    return _field(_MEMINFO, "MemTotal")


def memory_available_bytes() -> int | None:
    """Memory that can be used without swapping, as the kernel estimates it."""
    return _field(_MEMINFO, "MemAvailable")


def peak_resident_bytes() -> int:
    """The most memory that this process held.

    Linux says it per address space (VmHWM). `ru_maxrss` outlives fork and exec there: a small child
    of a large process would report its parent's memory (getrusage(2), execve in the kernel).
    """
    own = _field(_STATUS, "VmHWM")
    if own is not None:
        return own
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def _field(place: Path, name: str) -> int | None:
    try:
        with place.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None
